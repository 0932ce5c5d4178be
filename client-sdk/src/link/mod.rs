//! The stream to the control plane, and what goes on without it.
//!
//! One task per client: it keeps the stream ([`worker`]), moves the breakers' clocks on, and writes the last good policies to disk
//! ([`cache`]). No call waits for anything in here, and a panic in here reaches no caller: the task starts again.

pub(crate) mod cache;
mod end;
mod receive;
mod send;
mod session;
mod shares;
mod state;
mod worker;

use std::{
    panic::AssertUnwindSafe,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use fusebox_policy::{
    InstanceId, Timestamp,
    fleet::term::{RunId, SeenTerm},
};
use fusebox_proto::{duration, sync::v1 as sync, v1};
use futures_util::FutureExt as _;
use tokio::sync::{Notify, watch};
use tonic::transport::{Channel, Endpoint};

use self::cache::{CacheFile, Kept};
use crate::{
    clock::Clock,
    credentials::Credentials,
    registry::{Held, HeldOverride, Origin, Registry},
};

/// Makes a channel that connects when it is first used.
pub(crate) type Dial = Arc<dyn Fn(&Endpoint) -> Channel + Send + Sync>;

/// Everything that the task works with.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) registry: Arc<Registry>,
    pub(crate) clock: Clock,
    pub(crate) server: Option<Server>,
    pub(crate) cache: Option<CacheFile>,
    /// The highest term ever seen, and whose.
    pub(crate) seen_term: Arc<Mutex<SeenTerm>>,
    /// The cache file should be written anew.
    pub(crate) stale_cache: Arc<Notify>,
    /// Whether a stream has brought its policies.
    pub(crate) ready: watch::Sender<bool>,
    /// Transitions told, in this process.
    pub(crate) transitions: Arc<AtomicU64>,
}

/// Where the control plane is, and as whom to speak to it.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) endpoint: Endpoint,
    pub(crate) credentials: Credentials,
    pub(crate) dial: Dial,
    pub(crate) instance: InstanceId,
    pub(crate) labels: std::collections::BTreeMap<String, String>,
    pub(crate) incarnation: u64,
}

impl Link {
    pub(crate) fn seen_term(&self) -> SeenTerm {
        *self.seen_term.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Before the task starts again after a panic.
const AFTER_PANIC: Duration = Duration::from_secs(1);

/// Runs until the last handle of the client is gone.
pub(crate) async fn run(link: Link, mut alive: watch::Receiver<()>) {
    let work = async {
        loop {
            let round = async {
                tokio::join!(worker::keep_stream(&link), keep_time(&link), keep_cache(&link), keep_gauges(&link));
            };
            if AssertUnwindSafe(round).catch_unwind().await.is_err() {
                link.registry.connected.store(false, Ordering::Relaxed);
                tracing::error!(target: "fusebox", "the client's task panicked and starts again; calls go on");
                tokio::time::sleep(AFTER_PANIC).await;
            }
        }
    };
    tokio::select! {
        () = work => {}
        // The sender is dropped with the last handle; nothing is ever sent.
        _ = alive.changed() => {}
    }
    link.registry.connected.store(false, Ordering::Relaxed);
}

/// Leases, overrides and open times end on time, stream or no stream.
async fn keep_time(link: &Link) {
    let alarm = &link.registry.outbox.alarm;
    loop {
        alarm.clear();
        let next = link.registry.tick();
        alarm.wait_until(next);
        let due = async {
            match next {
                Some(at) => link.clock.sleep_until(at).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = due => {}
            () = alarm.sooner() => {}
        }
    }
}

/// Tells metrics what is so.
#[cfg(feature = "metrics")]
async fn keep_gauges(link: &Link) {
    if link.registry.meters().is_none() {
        return std::future::pending().await;
    }
    let mut seen = crate::metrics::Seen::default();
    loop {
        link.registry.gauge(&mut seen);
        tokio::time::sleep(crate::metrics::Seen::EVERY).await;
    }
}

#[cfg(not(feature = "metrics"))]
async fn keep_gauges(_link: &Link) {}

/// Writes what is held, when it has changed. A failure changes nothing but a line in the log.
async fn keep_cache(link: &Link) {
    let Some(file) = &link.cache else { return std::future::pending().await };
    loop {
        link.stale_cache.notified().await;
        let kept = kept(link);
        let writer = file.clone();
        let written = tokio::task::spawn_blocking(move || writer.store(kept)).await;
        if !matches!(written, Ok(Ok(()))) {
            link.registry.count_cache_fault();
        }
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::warn!(
                target: "fusebox", path = %file.path().display(), error = &error as &dyn std::error::Error,
                "the policies could not be written to the cache"
            ),
            Err(error) => tracing::warn!(
                target: "fusebox", error = &error as &dyn std::error::Error, "writing the cache was cut off"
            ),
        }
    }
}

fn kept(link: &Link) -> Kept {
    let Held { store_id, revision, policies, .. } = link.registry.held();
    let seen = link.seen_term();
    let now = link.clock.now();
    Kept {
        // The file fills in whose it is.
        namespace: String::new(),
        service: String::new(),
        store_id,
        revision: revision.0,
        highest_term: seen.term,
        policies: policies.iter().map(|policy| v1::Policy::from(policy.as_ref())).collect(),
        overrides: link.registry.overrides().iter().map(|own| override_to_wire(own, now)).collect(),
        saved_unix_ms: cache::unix_ms(),
        overrides_store_id: link.registry.overrides_from(),
        highest_term_run: seen.run_number(),
    }
}

/// Puts in force what the cache file holds. Blocks for one short read, before the client has any call.
pub(crate) fn restore(link: &Link) {
    let Some(file) = &link.cache else { return };
    let kept = match file.load() {
        Ok(Some(kept)) => kept,
        Ok(None) => return,
        Err(fault) => {
            link.registry.count_cache_fault();
            tracing::warn!(
                target: "fusebox", path = %file.path().display(), error = &fault as &dyn std::error::Error,
                "the policy cache is ignored"
            );
            return;
        }
    };
    let age = kept.age();
    let now = link.clock.now();
    let Kept { store_id, revision, highest_term, highest_term_run, policies, overrides, overrides_store_id, .. } = kept;
    link.seen_term.lock().unwrap_or_else(PoisonError::into_inner).see(highest_term, RunId::new(highest_term_run));
    let overrides: Vec<_> = overrides
        .into_iter()
        .filter_map(|wire| receive::held_override(wire, now, age).ok())
        .filter(|own| own.until > now)
        .collect();
    link.registry.set_overrides(overrides, &overrides_store_id);
    let (policies, rejected) = receive::check(policies, link.registry.caller(), &Default::default());
    for refused in &rejected {
        tracing::warn!(target: "fusebox", policy = refused.name, reason = refused.reason, "a policy of the cache is refused");
    }
    if policies.is_empty() && revision == 0 {
        return;
    }
    let revision = fusebox_policy::Revision(revision);
    link.registry.hold(Held { origin: Some(Origin::Disk), store_id, revision, policies, rejected });
}

fn override_to_wire(own: &HeldOverride, now: Timestamp) -> sync::Override {
    sync::Override {
        id: own.id,
        selector: Some(v1::BreakerKey::from(&own.pattern)),
        state: match own.effect {
            fusebox_policy::fleet::gate::Forced::Open => v1::FleetState::ForcedOpen,
            fusebox_policy::fleet::gate::Forced::Closed => v1::FleetState::ForcedClosed,
            fusebox_policy::fleet::gate::Forced::Disabled => v1::FleetState::Disabled,
        }
        .into(),
        remaining: Some(duration::to_wire(now.until(own.until))),
        reason: own.reason.clone(),
    }
}

#[cfg(test)]
mod tests {
    use fusebox_policy::{CallerName, Namespace, fleet::gate::Forced};

    use super::*;
    use crate::registry::Caller;

    fn link(dir: &std::path::Path) -> Link {
        let clock = Clock::start();
        let namespace = Namespace::default_namespace();
        let service = CallerName::try_new("service-a").unwrap();
        let cache = Some(CacheFile::new(dir, &namespace, &service, None));
        let caller = Caller { namespace, service, zone: None, allow_chaos: false, ignore_fleet: false };
        Link {
            registry: Arc::new(Registry::new(caller, clock, Default::default()).ready()),
            clock,
            server: None,
            cache,
            seen_term: Arc::default(),
            stale_cache: Arc::default(),
            ready: watch::Sender::new(false),
            transitions: Arc::default(),
        }
    }

    /// What is left of an override of 100 s whose file was written so long ago.
    fn left(saved_unix_ms: u64) -> Option<Duration> {
        let dir = tempfile::tempdir().unwrap();
        let link = link(dir.path());
        let selector = v1::BreakerKey { target: "b".to_owned(), ..v1::BreakerKey::default() };
        let forced = sync::Override {
            id: 1,
            selector: Some(selector),
            state: v1::FleetState::ForcedOpen.into(),
            remaining: Some(duration::to_wire(Duration::from_secs(100))),
            reason: "drill".to_owned(),
        };
        let kept = Kept { overrides: vec![forced], saved_unix_ms, highest_term: 7, ..Kept::default() };
        link.cache.as_ref().unwrap().store(kept).unwrap();
        restore(&link);
        assert_eq!(link.seen_term().term, 7);
        let held = link.registry.overrides().pop()?;
        assert_eq!(held.effect, Forced::Open);
        Some(link.clock.now().until(held.until))
    }

    #[tokio::test]
    async fn what_is_left_of_an_override_goes_on_by_the_wall_clock_and_never_grows() {
        let now = cache::unix_ms();
        let about = |left: Option<Duration>, seconds: u64| {
            left.is_some_and(|left| left <= Duration::from_secs(seconds) && left > Duration::from_secs(seconds - 30))
        };
        assert!(about(left(now - 40_000), 60), "it went on while the process was away");
        assert_eq!(left(now - 100_000), None, "it has ended");
        assert!(about(left(now + 1_000_000), 100), "a clock that was set back adds nothing");
        assert_eq!(left(0), None);
    }
}
