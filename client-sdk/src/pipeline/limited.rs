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
    fleet::{
        held_share::{HeldShare, Share},
        shares::WHOLE,
    },
    hedge::HedgeSpec,
    pipeline::{Entry, Hold, LiveStrategy, StrategySpec},
    rate_limiter::{RateLimiter, RateLimiterSpec, RateScope},
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
    /// Of a limit that the fleet shares.
    shared: Shared,
}

/// What a rate limiter that the fleet shares has beside its bucket.
#[derive(Debug, Default)]
struct Shared {
    held: HeldShare,
    /// When the part to act on changes by itself.
    changes_at: Option<Timestamp>,
    /// When demand was reported last.
    reported_at: Option<Timestamp>,
}

/// What is wanted and held of a limit that the fleet shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wanted {
    /// Turns asked for since the report before.
    pub(crate) calls: u64,
    /// The time since then.
    pub(crate) over: Duration,
    pub(crate) leased: Option<Share>,
}

/// What there is to show of a limit that the fleet shares.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ShownShare {
    pub(crate) ppm: u32,
    pub(crate) members: u32,
    pub(crate) leased: bool,
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
        let inner = Inner { spec: spec.clone(), live, waiting: HashMap::new(), shared: Shared::default() };
        Some(Self { inner: Mutex::new(inner) })
    }

    /// Fresh state that holds the share which a former one held: a fresh bucket has no claim to more of the limit.
    pub(crate) fn inheriting(self, former: &Self, now: Timestamp) -> Self {
        let held = former.inner.lock().shared.held;
        let mut inner = self.inner.lock();
        inner.shared.held = held;
        inner.follow_share(now);
        drop(inner);
        self
    }

    /// Takes changed settings.
    pub(crate) fn adapt(&self, spec: &StrategySpec, chaos_until: Timestamp, now: Timestamp) {
        let mut inner = self.inner.lock();
        let Inner { spec: old, live, .. } = &mut *inner;
        let admitted = live.adapt(old, spec, chaos_until);
        *old = spec.clone();
        inner.follow_share(now);
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
        if inner.shared.changes_at.is_some_and(|at| at <= now) {
            inner.follow_share(now);
        }
        let Inner { spec, live, waiting, .. } = &mut *inner;
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
    pub(crate) fn look<T>(&self, now: Timestamp, act: impl FnOnce(&LiveStrategy, &StrategySpec) -> T) -> T {
        let mut inner = self.inner.lock();
        inner.follow_share(now);
        act(&inner.live, &inner.spec)
    }

    /// Takes a share, if this is a limit that the fleet shares, and if the share is news. Says whether it was taken.
    pub(crate) fn apply_share(&self, share: Share, now: Timestamp) -> bool {
        let mut inner = self.inner.lock();
        let taken = inner.limiter().is_some() && inner.shared.held.apply(share, now);
        if taken {
            inner.follow_share(now);
        }
        taken
    }

    /// The share holds on.
    pub(crate) fn renew_share(&self, term: u64, rev: u64, until: Timestamp, now: Timestamp) {
        let mut inner = self.inner.lock();
        if inner.limiter().is_some() {
            inner.shared.held.renew(term, rev, until, now);
            inner.follow_share(now);
        }
    }

    /// What to report; `None` if the fleet does not share it. Takes the count of calls.
    pub(crate) fn take_wanted(&self, now: Timestamp) -> Option<Wanted> {
        let mut inner = self.inner.lock();
        let calls = inner.limiter()?.0.take_wanted();
        let over = inner.shared.reported_at.replace(now).map_or(Duration::ZERO, |before| now.since(before));
        Some(Wanted { calls, over, leased: inner.shared.held.leased(now) })
    }

    /// What there is to show; `None` if the fleet does not share it.
    pub(crate) fn shown_share(&self, now: Timestamp) -> Option<ShownShare> {
        let mut inner = self.inner.lock();
        inner.limiter()?;
        let held = &inner.shared.held;
        Some(ShownShare { ppm: held.ppm(now), members: held.members(), leased: held.leased(now).is_some() })
    }
}

impl Inner {
    /// The limiter, if the fleet shares its limit.
    fn limiter(&mut self) -> Option<(&mut RateLimiter, &RateLimiterSpec)> {
        match (&mut self.live, &self.spec) {
            (LiveStrategy::RateLimiter(limiter), StrategySpec::RateLimiter(spec))
                if spec.scope() == RateScope::Fleet =>
            {
                Some((limiter, spec))
            }
            (_, _) => None,
        }
    }

    /// Lets the limiter act on the part that is right now.
    fn follow_share(&mut self, now: Timestamp) {
        let ppm = self.shared.held.ppm(now);
        let changes_at = self.shared.held.next_change(now);
        if let Some((limiter, spec)) = self.limiter() {
            limiter.set_share(spec, ppm, now);
            self.shared.changes_at = changes_at;
        } else if let (LiveStrategy::RateLimiter(limiter), StrategySpec::RateLimiter(spec)) =
            (&mut self.live, &self.spec)
        {
            // The replica has the limit for itself again.
            limiter.set_share(spec, WHOLE, now);
            self.shared = Shared::default();
        }
    }

    fn admit(&mut self, ticket: Ticket) -> Option<Waker> {
        match self.waiting.insert(ticket, Waiting::Admitted) {
            Some(Waiting::Queued(waker)) => waker,
            Some(Waiting::Admitted) | None => None,
        }
    }
}
