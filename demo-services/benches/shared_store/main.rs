//! Fusebox beside a breaker that keeps its state in a shared store, in one run: `cargo bench -p fusebox-demo --bench shared_store`.
//!
//! What is counted is asserted; what is timed is only told, in round trips of the same run. With `--short` fewer calls are timed.

#![expect(clippy::unwrap_used, reason = "an experiment fails by panicking")]

mod fleet;
#[path = "../../tests/process/mod.rs"]
mod process;
mod redis;
#[path = "../../tests/process/signal.rs"]
mod signal;
mod stored;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fleet::{Fleet, PROBES, Replica};
use fusebox_demo::logging::tell;
use redis::{Connection, Redis};
use signal::signal;
use stored::{OPEN_FOR, State, StoredBreaker, TRIP_AT};
use tokio::{sync::Barrier, task::JoinSet};

/// Replicas of a fleet.
const REPLICAS: usize = 12;
/// Calls of each replica when what they share is dead.
const CALLS_WITHOUT: u64 = 10;
/// How long service B takes, where that matters.
const REQUEST: Duration = Duration::from_millis(20);
/// Nothing here takes so long; what does, hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// One column of the table.
struct Measured {
    /// Of a call. For Fusebox: how many calls did not end without an answer.
    round_trips: f64,
    added: Duration,
    at_once: u64,
    probes: u64,
    /// Calls that did not go well when what is shared was dead.
    failed: u64,
}

fn main() {
    let short = std::env::args().any(|arg| arg == "--short");
    let runtime = tokio::runtime::Runtime::new().unwrap();
    runtime.block_on(async {
        let Some(mut redis) = Redis::start().await else {
            tell("SKIPPED: redis-server is not installed, so there is nothing to compare with (apt-get install redis-server)");
            return;
        };
        let round_trip = round_trip(&redis, if short { 200 } else { 20_000 }).await;
        let stored = stored(&mut redis, if short { 100 } else { 5_000 }).await;
        let fusebox = fusebox(if short { 10_000 } else { 1_000_000 }).await;
        print(round_trip, &stored, &fusebox);

        assert_eq!(stored.round_trips, 4.0, "the sequence of commands is another one");
        assert_eq!(stored.at_once, 1, "the lock is held while a request runs");
        assert!(stored.probes > PROBES, "who reads before the lock admits more than MaxRequests");
        assert_eq!(stored.failed, REPLICAS as u64 * CALLS_WITHOUT, "no state, no call");

        assert_eq!(fusebox.round_trips, 0.0);
        assert_eq!(fusebox.at_once, REPLICAS as u64);
        assert!((1..=PROBES).contains(&fusebox.probes), "{} probes", fusebox.probes);
        assert_eq!(fusebox.failed, 0);
    });
}

/// A question to Redis and its answer, on a connection that is there.
async fn round_trip(redis: &Redis, times: u32) -> Duration {
    let mut connection = Connection::new(redis.address);
    connection.ask(&["PING"]).await.unwrap();
    let began = Instant::now();
    for _ in 0..times {
        connection.ask(&["PING"]).await.unwrap();
    }
    began.elapsed() / times
}

/// How many are in service B at once, and the most there ever were.
#[derive(Default)]
struct Inside {
    now: AtomicU64,
    most: AtomicU64,
}

impl Inside {
    fn enter(&self) {
        let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
    }

    fn leave(&self) {
        self.now.fetch_sub(1, Ordering::SeqCst);
    }
}

async fn stored(redis: &mut Redis, calls: u32) -> Measured {
    let mut replicas = Vec::new();
    for _ in 0..REPLICAS {
        let mut replica = StoredBreaker::new(redis.address);
        replica.prepare().await.unwrap();
        replicas.push(replica);
    }
    let before = replicas[0].round_trips();
    let began = Instant::now();
    for _ in 0..calls {
        assert!(replicas[0].execute(|_| async { true }).await.unwrap());
    }
    let added = began.elapsed() / calls;
    let round_trips = (replicas[0].round_trips() - before) as f64 / f64::from(calls);

    let inside = Arc::new(Inside::default());
    let mut replicas = each(replicas, |mut replica, start| {
        let inside = Arc::clone(&inside);
        async move {
            start.wait().await;
            let request = |_| async {
                inside.enter();
                tokio::time::sleep(REQUEST).await;
                inside.leave();
                true
            };
            assert!(replica.execute(request).await.unwrap());
            replica
        }
    })
    .await;

    for _ in 0..TRIP_AT {
        assert!(!replicas[0].execute(|_| async { false }).await.unwrap());
    }
    assert!(replicas[1].execute(|_| async { true }).await.is_err(), "it is open for the fleet");
    // Its end is a time in the store: there is nothing to wait for but the clock.
    tokio::time::sleep(OPEN_FOR * 2).await;
    let probes = Arc::new(AtomicU64::new(0));
    let mut replicas = each(replicas, |mut replica, start| {
        let probes = Arc::clone(&probes);
        async move {
            let probes = &probes;
            start.wait().await;
            let request = |state| async move {
                probes.fetch_add(u64::from(state == State::HalfOpen), Ordering::SeqCst);
                tokio::time::sleep(REQUEST).await;
                true
            };
            // Who is refused has asked while the one probe of the state that it read was out.
            let _ = replica.execute(request).await;
            replica
        }
    })
    .await;

    redis.kill();
    let mut failed = 0;
    for replica in &mut replicas {
        for _ in 0..CALLS_WITHOUT {
            failed += u64::from(replica.execute(|_| async { true }).await.is_err());
        }
    }
    let (at_once, probes) = (inside.most.load(Ordering::SeqCst), probes.load(Ordering::SeqCst));
    Measured { round_trips, added, at_once, probes, failed }
}

async fn fusebox(calls: u32) -> Measured {
    let mut fleet = Fleet::start().await;
    // A control plane that stands still can't answer: a call that ends meanwhile has not asked it.
    signal(&fleet.plane.child, "STOP");
    let mut ended = 0;
    let began = Instant::now();
    let calling = async {
        for _ in 0..calls {
            assert!(fleet.replicas[0].call(|| std::future::ready(true)).await);
            ended += 1;
        }
    };
    // Whether they have ended is what counts.
    let _ = tokio::time::timeout(LIMIT, calling).await;
    let added = began.elapsed() / calls;
    let round_trips = f64::from(calls - ended);
    signal(&fleet.plane.child, "CONT");

    let inside = Arc::new(Inside::default());
    let all = Arc::new(Barrier::new(REPLICAS));
    fleet.replicas = each(std::mem::take(&mut fleet.replicas), |replica: Replica, start| {
        let (inside, all) = (Arc::clone(&inside), Arc::clone(&all));
        async move {
            start.wait().await;
            let request = || async {
                inside.enter();
                // Nobody leaves before everybody has come.
                all.wait().await;
                inside.leave();
                true
            };
            assert!(replica.call(request).await);
            replica
        }
    })
    .await;

    let began = Instant::now();
    while !fleet.replicas.iter().all(Replica::is_open) {
        assert!(began.elapsed() < LIMIT, "the fleet does not open");
        for replica in &fleet.replicas {
            replica.call(|| std::future::ready(false)).await;
        }
    }
    let probes = Arc::new(AtomicU64::new(0));
    fleet.replicas = each(std::mem::take(&mut fleet.replicas), |replica: Replica, start| {
        let probes = Arc::clone(&probes);
        async move {
            start.wait().await;
            while !replica.is_released() {
                let request = || async {
                    probes.fetch_add(u64::from(replica.admits_nothing()), Ordering::SeqCst);
                    tokio::time::sleep(REQUEST).await;
                    true
                };
                replica.call(request).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            replica
        }
    })
    .await;

    fleet.plane.child.kill().unwrap();
    fleet.plane.child.wait().unwrap();
    let mut failed = 0;
    for replica in &fleet.replicas {
        for _ in 0..CALLS_WITHOUT {
            failed += u64::from(!replica.call(|| std::future::ready(true)).await);
        }
    }
    let (at_once, probes) = (inside.most.load(Ordering::SeqCst), probes.load(Ordering::SeqCst));
    Measured { round_trips, added, at_once, probes, failed }
}

/// Lets every replica do the same on a task of its own; they begin together.
async fn each<R, F>(replicas: Vec<R>, play: impl Fn(R, Arc<Barrier>) -> F) -> Vec<R>
where
    R: Send + 'static,
    F: Future<Output = R> + Send + 'static,
{
    let start = Arc::new(Barrier::new(replicas.len()));
    let mut tasks: JoinSet<R> = replicas.into_iter().map(|replica| play(replica, Arc::clone(&start))).collect();
    let mut done = Vec::new();
    let played = async {
        while let Some(replica) = tasks.join_next().await {
            done.push(replica.unwrap());
        }
    };
    tokio::time::timeout(LIMIT, played).await.expect("every replica ends in time");
    done
}

fn print(round_trip: Duration, stored: &Measured, fusebox: &Measured) {
    let total = REPLICAS as u64 * CALLS_WITHOUT;
    let in_trips = |added: Duration| added.as_secs_f64() / round_trip.as_secs_f64();
    let row = |what: &str, stored: String, fusebox: String| tell(&format!("| {what} | {stored} | {fusebox} |"));
    tell(&format!("round trip to Redis on the loopback: {round_trip:?}; {REPLICAS} replicas; one probe allowed"));
    row("", "state in Redis".to_owned(), "Fusebox".to_owned());
    tell("|---|---|---|");
    row("round trips of a call", stored.round_trips.to_string(), fusebox.round_trips.to_string());
    let added = |of: &Measured| format!("{:.4} round trips ({:?})", in_trips(of.added), of.added);
    row("what a call takes longer", added(stored), added(fusebox));
    row("requests of the fleet at once", stored.at_once.to_string(), fusebox.at_once.to_string());
    row("probes at recovery", stored.probes.to_string(), fusebox.probes.to_string());
    let failed = |of: &Measured| format!("{} of {total}", of.failed);
    row("calls that fail when Redis, or the control plane, is dead", failed(stored), failed(fusebox));
}
