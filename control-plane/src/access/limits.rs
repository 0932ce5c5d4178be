//! How much one identity may ask for, so that one that is careless or stolen can't crowd the others out.

use std::{
    net::{IpAddr, Ipv6Addr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use dashmap::DashMap;
use governor::{
    Quota, RateLimiter,
    clock::Clock,
    middleware::NoOpMiddleware,
    nanos::Nanos,
    state::{InMemoryState, NotKeyed, keyed::HashMapStateStore},
};
use tokio::time::Instant;

/// What is taken when nothing is said.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Changes in a second by one identity. Five times as many may come at once.
    pub writes_per_second: NonZeroU32,
    /// Streams that one identity may have open. All replicas of a service may be one.
    pub streams: NonZeroU32,
}

/// Changes in a second by one identity: a script in a loop, not a person.
pub const DEFAULT_WRITES: NonZeroU32 = NonZeroU32::new(20).expect("it is not zero");
/// Streams of one identity: a large service's replicas.
pub const DEFAULT_STREAMS: NonZeroU32 = NonZeroU32::new(10_000).expect("it is not zero");
/// What may come at once, in seconds' worth.
const BURST: u32 = 5;
/// Failed authentications of one address: so many at once, then one in so long.
const FAILURES: (NonZeroU32, Duration) = (NonZeroU32::new(20).expect("it is not zero"), Duration::from_secs(6));
/// What one replica may tell: far above what an SDK says (a heartbeat in a second, a transition now and then), with room for the
/// acknowledgements of a busy day.
const TOLD: (NonZeroU32, NonZeroU32) =
    (NonZeroU32::new(200).expect("it is not zero"), NonZeroU32::new(2000).expect("it is not zero"));
/// Remembered keys, before those at rest are forgotten.
const MOST_KEYS: usize = 10_000;

/// Time as tokio has it, so that simulated time counts.
#[derive(Clone, Copy, Debug)]
struct TokioClock(Instant);

impl Clock for TokioClock {
    type Instant = Nanos;

    fn now(&self) -> Nanos {
        self.0.elapsed().into()
    }
}

type Keyed<K> = RateLimiter<K, HashMapStateStore<K>, TokioClock, NoOpMiddleware<Nanos>>;

fn keyed<K: std::hash::Hash + Eq + Clone>(quota: Quota) -> Keyed<K> {
    RateLimiter::new(quota, HashMapStateStore::default(), TokioClock(Instant::now()))
}

/// Too much; to be tried again after this.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooMuch {
    /// When.
    pub after: Duration,
}

#[derive(Debug)]
pub(super) struct Limits {
    writes: Keyed<Arc<str>>,
    failures: Keyed<IpAddr>,
    most_streams: u32,
    streams: Arc<DashMap<Arc<str>, u32>>,
}

/// One open stream; counted until it is dropped.
#[derive(Debug)]
pub(super) struct OpenStream {
    streams: Arc<DashMap<Arc<str>, u32>>,
    identity: Arc<str>,
}

impl Default for Settings {
    fn default() -> Self {
        Self { writes_per_second: DEFAULT_WRITES, streams: DEFAULT_STREAMS }
    }
}

impl Limits {
    pub(super) fn new(settings: Settings) -> Self {
        let Settings { writes_per_second, streams } = settings;
        let burst = writes_per_second.saturating_mul(NonZeroU32::new(BURST).unwrap_or(NonZeroU32::MIN));
        let failures = Quota::with_period(FAILURES.1).unwrap_or(Quota::per_minute(FAILURES.0)).allow_burst(FAILURES.0);
        Self {
            writes: keyed(Quota::per_second(writes_per_second).allow_burst(burst)),
            failures: keyed(failures),
            most_streams: streams.get(),
            streams: Arc::default(),
        }
    }

    /// Counts a change.
    pub(super) fn write(&self, identity: &Arc<str>) -> Result<(), TooMuch> {
        check(&self.writes, identity)
    }

    /// Counts a failed authentication.
    pub(super) fn failure(&self, address: IpAddr) -> Result<(), TooMuch> {
        check(&self.failures, &network(address))
    }

    /// Counts a stream.
    pub(super) fn stream(&self, identity: &Arc<str>) -> Result<OpenStream, TooMuch> {
        let mut open = self.streams.entry(Arc::clone(identity)).or_default();
        if *open >= self.most_streams {
            // Whoever has so many does not get on with one more soon.
            return Err(TooMuch { after: Duration::from_secs(10) });
        }
        *open += 1;
        drop(open);
        Ok(OpenStream { streams: Arc::clone(&self.streams), identity: Arc::clone(identity) })
    }
}

impl Drop for OpenStream {
    fn drop(&mut self) {
        if let Some(mut open) = self.streams.get_mut(&self.identity) {
            *open -= 1;
        }
        // Looked at again: another stream may have begun meanwhile.
        self.streams.remove_if(&self.identity, |_, open| *open == 0);
    }
}

fn check<K: std::hash::Hash + Eq + Clone>(limiter: &Keyed<K>, key: &K) -> Result<(), TooMuch> {
    if limiter.len() > MOST_KEYS {
        limiter.retain_recent();
    }
    limiter.check_key(key).map_err(|until| TooMuch { after: until.wait_time_from(limiter.clock().now()) })
}

/// An owner of an IPv6 network has more addresses than anybody can remember: all of a /64 count as one.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => IpAddr::V4(address),
        IpAddr::V6(address) => {
            let [a, b, c, d, ..] = address.segments();
            IpAddr::V6(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0))
        }
    }
}

/// How much one replica may tell.
#[derive(Debug)]
pub struct Telling(RateLimiter<NotKeyed, InMemoryState, TokioClock, NoOpMiddleware<Nanos>>);

impl Default for Telling {
    fn default() -> Self {
        Self(RateLimiter::direct_with_clock(Quota::per_second(TOLD.0).allow_burst(TOLD.1), TokioClock(Instant::now())))
    }
}

impl Telling {
    /// Counts a message.
    ///
    /// # Errors
    /// There are too many.
    pub fn message(&self) -> Result<(), TooMuch> {
        self.0.check().map_err(|until| TooMuch { after: until.wait_time_from(self.0.clock().now()) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn limits() -> Limits {
        let few = NonZeroU32::new(2).unwrap();
        Limits::new(Settings { writes_per_second: few, streams: few })
    }

    #[tokio::test(start_paused = true)]
    async fn one_identity_s_changes_are_metered_and_another_s_are_not_touched() {
        let limits = limits();
        let (one, other): (Arc<str>, Arc<str>) = ("one".into(), "other".into());
        assert_eq!((0..100).filter(|_| limits.write(&one).is_ok()).count(), 10);
        let after = limits.write(&one).unwrap_err().after;
        limits.write(&other).unwrap();
        tokio::time::advance(after).await;
        limits.write(&one).unwrap();
        limits.write(&one).unwrap_err();
    }

    #[test]
    fn streams_count_until_they_end() {
        let limits = limits();
        let one: Arc<str> = "one".into();
        let (first, _second) = (limits.stream(&one).unwrap(), limits.stream(&one).unwrap());
        limits.stream(&one).unwrap_err();
        let _other = limits.stream(&"other".into()).unwrap();
        drop(first);
        let _third = limits.stream(&one).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_ipv6_network_is_one_address() {
        let limits = limits();
        let addresses = (1_u16..=100).map(|host| IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, host]));
        assert_eq!(addresses.filter(|address| limits.failure(*address).is_ok()).count(), 20);
        limits.failure(IpAddr::from([0x2001, 0xdb8, 0, 1, 0, 0, 0, 1])).unwrap();
        limits.failure(IpAddr::from([127, 0, 0, 1])).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_replica_may_tell_much_at_once_and_not_for_ever() {
        let telling = Telling::default();
        assert_eq!((0..10_000).filter(|_| telling.message().is_ok()).count(), 2000);
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!((0..10_000).filter(|_| telling.message().is_ok()).count(), 200);
    }
}
