//! One live strategy that bounds calls: its state behind a lock that no call keeps, and the wakers of those who wait for a place.

use std::{
    collections::HashMap,
    future::poll_fn,
    task::{Poll, Waker},
    time::Duration,
};

use fusebox_policy::{
    Timestamp,
    breaker::Ending,
    bulkhead::Ticket,
    hedge::HedgeSpec,
    pipeline::{Entry, Hold, LiveStrategy, StrategySpec},
    retry::CallRules,
};
use parking_lot::Mutex;

use super::cell::draw;

/// One live strategy that is no breaker. It outlives the policies that describe it.
#[derive(Debug)]
pub(crate) struct Limited {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    /// The settings in force: those of the latest policy, also for calls that began under an earlier one.
    spec: StrategySpec,
    live: LiveStrategy,
    waiting: HashMap<Ticket, Waiting>,
}

#[derive(Debug)]
enum Waiting {
    Queued(Option<Waker>),
    Admitted,
}

impl Limited {
    /// Fresh state; `None` for kinds that have none.
    pub(crate) fn new(spec: &StrategySpec, chaos_until: Timestamp) -> Option<Self> {
        let live = LiveStrategy::new(spec, chaos_until)?;
        Some(Self { inner: Mutex::new(Inner { spec: spec.clone(), live, waiting: HashMap::new() }) })
    }

    /// Takes changed settings.
    pub(crate) fn adapt(&self, spec: &StrategySpec, chaos_until: Timestamp) {
        let mut inner = self.inner.lock();
        let Inner { spec: old, live, .. } = &mut *inner;
        let admitted = live.adapt(old, spec, chaos_until);
        *old = spec.clone();
        let wakers: Vec<Waker> = admitted.into_iter().filter_map(|ticket| inner.admit(ticket)).collect();
        drop(inner);
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Whether it is of the kind of these settings.
    pub(crate) fn is_for(&self, spec: &StrategySpec) -> bool {
        self.inner.lock().spec.kind() == spec.kind()
    }

    pub(crate) fn enter(&self, rules: CallRules, now: Timestamp) -> Entry {
        let mut inner = self.inner.lock();
        let Inner { spec, live, waiting } = &mut *inner;
        let entry = live.enter(spec, rules, now, draw());
        if let Entry::Queue { ticket, .. } = entry {
            waiting.insert(ticket, Waiting::Queued(None));
        }
        entry
    }

    pub(crate) fn leave(&self, hold: Hold, ending: &Ending, now: Timestamp) {
        let mut inner = self.inner.lock();
        let Inner { spec, live, .. } = &mut *inner;
        let next = live.leave(spec, hold, ending, now);
        Self::wake(inner, next);
    }

    pub(crate) fn abandon(&self, hold: Hold, now: Timestamp) {
        let mut inner = self.inner.lock();
        if let Hold::Place(ticket) = &hold {
            inner.waiting.remove(ticket);
        }
        let Inner { spec, live, .. } = &mut *inner;
        let next = live.abandon(spec, hold, now);
        Self::wake(inner, next);
    }

    fn wake(mut inner: parking_lot::MutexGuard<'_, Inner>, ticket: Option<Ticket>) {
        let waker = ticket.and_then(|ticket| inner.admit(ticket));
        // Woken tasks may run at once, here.
        drop(inner);
        if let Some(waker) = waker {
            waker.wake();
        }
    }

    /// Waits until a ticket has turned into a place.
    pub(crate) async fn admitted(&self, ticket: Ticket) {
        poll_fn(|cx| {
            let mut inner = self.inner.lock();
            match inner.waiting.get_mut(&ticket) {
                Some(Waiting::Queued(waker)) => {
                    *waker = Some(cx.waker().clone());
                    Poll::Pending
                }
                Some(Waiting::Admitted) | None => {
                    inner.waiting.remove(&ticket);
                    Poll::Ready(())
                }
            }
        })
        .await;
    }

    pub(crate) fn hedge_delay(&self, spec: &HedgeSpec) -> Option<Duration> {
        self.inner.lock().live.hedge_delay(spec)
    }

    pub(crate) fn hedge_took(&self, took: Duration) {
        if let LiveStrategy::Hedge(latencies) = &mut self.inner.lock().live {
            latencies.record(took);
        }
    }

    /// Looks at the state.
    #[cfg(feature = "metrics")]
    pub(crate) fn look<T>(&self, act: impl FnOnce(&LiveStrategy, &StrategySpec) -> T) -> T {
        let inner = self.inner.lock();
        act(&inner.live, &inner.spec)
    }
}

impl Inner {
    fn admit(&mut self, ticket: Ticket) -> Option<Waker> {
        match self.waiting.insert(ticket, Waiting::Admitted) {
            Some(Waiting::Queued(waker)) => waker,
            Some(Waiting::Admitted) | None => None,
        }
    }
}
