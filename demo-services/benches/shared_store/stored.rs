//! A breaker whose state is in a shared store, with the commands of gobreaker v2's distributed breaker on Redis: each call reads the state,
//! takes a lock over the whole fleet, decides, *runs the request*, writes the state, and gives the lock back.
//!
//! Only the sequence of commands and the machine's rules are reproduced, as its source has them: the state is read before the
//! lock is taken; the lock is `SET NX PX 5000`, tried again after a random 50 to 250 ms; it is given back by a script that deletes it if it
//! still is one's own.

use std::{
    io,
    net::SocketAddr,
    time::{Duration, SystemTime},
};

use serde::{Deserialize, Serialize};

use super::redis::{Connection, Reply};

const LOCK: &str = "breaker:lock:service-b";
const STATE: &str = "breaker:state:service-b";
const LOCK_MILLIS: &str = "5000";
/// Times that the lock is tried, and the range of the waits between, in milliseconds.
const LOCK_TRIES: u32 = 32;
const LOCK_AGAIN: std::ops::Range<u64> = 50..250;
const GIVE_BACK: &str =
    "if redis.call('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) else return 0 end";

/// How long it stays open.
pub(crate) const OPEN_FOR: Duration = Duration::from_millis(500);
/// Failures in a row that open it: one more than five, as is the default there.
pub(crate) const TRIP_AT: u32 = 6;
/// Requests that half-open admits: `MaxRequests`.
const PROBES: u32 = 1;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum State {
    #[default]
    Closed,
    HalfOpen,
    Open,
}

/// What is in the store.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Shared {
    state: State,
    requests: u32,
    successes_in_row: u32,
    failures_in_row: u32,
    /// Milliseconds since the Unix epoch.
    open_until: u128,
}

/// Why a request was not made.
#[derive(Debug)]
pub(crate) enum Refused {
    Open,
    TooManyProbes,
    Store,
}

impl From<io::Error> for Refused {
    fn from(_: io::Error) -> Self {
        Self::Store
    }
}

/// One replica's end.
pub(crate) struct StoredBreaker {
    redis: Connection,
    script: Option<String>,
}

impl StoredBreaker {
    pub(crate) const fn new(redis: SocketAddr) -> Self {
        Self { redis: Connection::new(redis), script: None }
    }

    /// Commands that were answered.
    pub(crate) const fn round_trips(&self) -> u64 {
        self.redis.round_trips
    }

    /// Connects, and leaves the script with the server, as clients do once.
    pub(crate) async fn prepare(&mut self) -> io::Result<()> {
        if let Reply::Text(digest) = self.redis.ask(&["SCRIPT", "LOAD", GIVE_BACK]).await? {
            self.script = Some(digest);
        }
        Ok(())
    }

    /// Runs a request, which learns in which state it was admitted.
    pub(crate) async fn execute<F: Future<Output = bool>>(
        &mut self,
        request: impl FnOnce(State) -> F,
    ) -> Result<bool, Refused> {
        let mut shared = self.read().await?;
        let token = self.lock().await?;
        let admitted = shared.admit();
        let answer = match admitted {
            Ok(state) => {
                let ok = request(state).await;
                shared.report(ok);
                Ok(ok)
            }
            Err(refused) => Err(refused),
        };
        let text = serde_json::to_string(&shared).map_err(io::Error::other)?;
        self.redis.ask(&["SET", STATE, &text]).await?;
        self.unlock(&token).await?;
        answer
    }

    async fn read(&mut self) -> io::Result<Shared> {
        match self.redis.ask(&["GET", STATE]).await? {
            Reply::Text(text) => serde_json::from_str(&text).map_err(io::Error::other),
            Reply::Number(_) | Reply::Nothing => Ok(Shared::default()),
        }
    }

    async fn lock(&mut self) -> io::Result<String> {
        let token = format!("{:032x}", fastrand::u128(..));
        for _ in 0..LOCK_TRIES {
            if let Reply::Text(_) = self.redis.ask(&["SET", LOCK, &token, "NX", "PX", LOCK_MILLIS]).await? {
                return Ok(token);
            }
            tokio::time::sleep(Duration::from_millis(fastrand::u64(LOCK_AGAIN))).await;
        }
        Err(io::ErrorKind::TimedOut.into())
    }

    async fn unlock(&mut self, token: &str) -> io::Result<()> {
        let Some(digest) = self.script.clone() else {
            return Err(io::Error::other("the script is not with the server"));
        };
        match self.redis.ask(&["EVALSHA", &digest, "1", LOCK, token]).await? {
            Reply::Number(1) => Ok(()),
            Reply::Number(_) | Reply::Text(_) | Reply::Nothing => Err(io::Error::other("the lock was lost")),
        }
    }
}

impl Shared {
    fn enter(&mut self, state: State) {
        let open_until = if state == State::Open { now() + OPEN_FOR.as_millis() } else { 0 };
        *self = Self { state, open_until, ..Self::default() };
    }

    fn admit(&mut self) -> Result<State, Refused> {
        if self.state == State::Open && self.open_until < now() {
            self.enter(State::HalfOpen);
        }
        match self.state {
            State::Open => return Err(Refused::Open),
            State::HalfOpen if self.requests >= PROBES => return Err(Refused::TooManyProbes),
            State::HalfOpen | State::Closed => {}
        }
        self.requests += 1;
        Ok(self.state)
    }

    fn report(&mut self, ok: bool) {
        let (successes, failures) = if ok { (self.successes_in_row + 1, 0) } else { (0, self.failures_in_row + 1) };
        (self.successes_in_row, self.failures_in_row) = (successes, failures);
        match self.state {
            State::Closed if failures >= TRIP_AT => self.enter(State::Open),
            State::HalfOpen if !ok => self.enter(State::Open),
            State::HalfOpen if successes >= PROBES => self.enter(State::Closed),
            State::Closed | State::HalfOpen | State::Open => {}
        }
    }
}

fn now() -> u128 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_millis()
}
