//! When the next breaker of a process has something to do.
//!
//! A word for all of them: who changes one breaker looks at no other, and wakes nobody who wakes in time anyway. A process may have
//! hundreds, and a fleet that opens or closes changes one of them in all processes at once.

use std::sync::atomic::{AtomicU64, Ordering};

use fusebox_policy::Timestamp;
use tokio::sync::Notify;

/// Set by whoever changes a breaker, waited for by the task that moves their clocks on.
#[derive(Debug)]
pub(crate) struct Alarm {
    /// In nanoseconds from the origin; `u64::MAX`: never.
    soonest: AtomicU64,
    sooner: Notify,
}

impl Default for Alarm {
    fn default() -> Self {
        Self { soonest: AtomicU64::new(u64::MAX), sooner: Notify::new() }
    }
}

impl Alarm {
    /// A breaker has something to do then. Wakes the task if that is before what it waits for.
    pub(crate) fn set(&self, at: Option<Timestamp>) {
        let Some(at) = at.map(Timestamp::as_nanos) else { return };
        if at < self.soonest.load(Ordering::Acquire) && at < self.soonest.fetch_min(at, Ordering::AcqRel) {
            self.sooner.notify_one();
        }
    }

    /// All breakers will be looked at now. Whatever is set from here on wakes.
    pub(crate) fn clear(&self) {
        self.soonest.store(u64::MAX, Ordering::Release);
    }

    /// The task has looked, and waits until then.
    pub(crate) fn wait_until(&self, at: Option<Timestamp>) {
        self.soonest.fetch_min(at.map_or(u64::MAX, Timestamp::as_nanos), Ordering::AcqRel);
    }

    /// Waits until something was set before what is waited for.
    pub(crate) async fn sooner(&self) {
        self.sooner.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn woken(alarm: &Alarm) -> bool {
        alarm.sooner().now_or_never().is_some()
    }

    #[test]
    fn only_what_is_sooner_wakes() {
        let at = |nanos| Some(Timestamp::from_nanos(nanos));
        let alarm = Alarm::default();
        alarm.set(None);
        assert!(!woken(&alarm));
        alarm.set(at(50));
        assert!(woken(&alarm));
        alarm.clear();
        alarm.wait_until(at(50));
        assert!(!woken(&alarm), "what it found itself is no news to it");
        for later in [at(50), at(60), None] {
            alarm.set(later);
            assert!(!woken(&alarm));
        }
        alarm.set(at(40));
        assert!(woken(&alarm));
        alarm.clear();
        alarm.set(at(70));
        assert!(woken(&alarm), "set while all were looked at: that one may have been looked at before");
    }
}
