//! The way back from half-open to released: a rising share of calls passes, step by step.
//!
//! A step lasts a quarter of the policy's `ramp`, at least a second, and until the replicas have seen enough calls since it began:
//! as many as the smallest number on which the breaker could trip. Then
//!
//! | failures of the pooled calls since the step | |
//! |---|---|
//! | under half of the breaker's own failure rate | one step up; after the last, released |
//! | more, for the first time | one step down |
//! | more, twice in a row | open again |
//!
//! Half the rate that opens is the hysteresis: what is well enough to go on is well below what is ill enough to open. A fleet that
//! asks for fewer calls in a step than the step needs can't hurt the target with them: it goes on without a failure. One without
//! any call stays where it is, since silence is no evidence.

use std::time::Duration;

use crate::{Timestamp, breaker::BreakerSpec, fleet::evidence::Evidence};

/// How many of a thousand calls pass in each step. The first is 5 %: as much as a fleet that sends probes only can be sure of; each
/// further one doubles about, as slow start does.
pub(in crate::fleet) const STEPS: [u32; 4] = [50, 100, 250, 500];
/// The shortest step: a report interval, below which nothing can be known of it.
const SHORTEST: Duration = Duration::from_secs(1);
/// Half of this is the limit where the policy has no failure rate.
const DEFAULT_PERCENT: u64 = 50;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ramp {
    step: usize,
    since: Timestamp,
    /// The step before was too much.
    breached: bool,
    /// Calls refused since the step began.
    rejected: u64,
}

/// Where a ramp goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    Stay,
    Step(Ramp),
    Release,
    Open,
}

impl Ramp {
    pub(super) const fn new(now: Timestamp) -> Self {
        Self { step: 0, since: now, breached: false, rejected: 0 }
    }

    pub(super) fn permille(&self) -> u32 {
        STEPS.get(self.step).copied().unwrap_or(1000)
    }

    pub(super) const fn refused(&mut self, calls: u64) {
        self.rejected = self.rejected.saturating_add(calls);
    }

    /// When the step may end.
    pub(super) fn due(&self, spec: &BreakerSpec) -> Timestamp {
        self.since.plus((spec.ramp().unwrap_or_default() / 4).max(SHORTEST))
    }

    pub(super) fn next(&self, spec: &BreakerSpec, evidence: &Evidence, now: Timestamp) -> Next {
        if now < self.due(spec) {
            return Next::Stay;
        }
        let needed = u64::from(spec.least_evidence());
        let (calls, failures) = (evidence.pooled_calls, evidence.pooled_failures);
        if calls < needed {
            let quiet = calls > 0 && failures == 0 && calls.saturating_add(self.rejected) < needed;
            return if quiet { self.up(now) } else { Next::Stay };
        }
        let percent = spec.trip().failure_rate.map_or(DEFAULT_PERCENT, |rule| u64::from(rule.percent));
        if u128::from(failures) * 200 < u128::from(percent) * u128::from(calls) {
            self.up(now)
        } else if self.breached {
            Next::Open
        } else {
            Next::Step(Self { step: self.step.saturating_sub(1), breached: true, ..Self::new(now) })
        }
    }

    fn up(&self, now: Timestamp) -> Next {
        let step = self.step + 1;
        if step < STEPS.len() { Next::Step(Self { step, ..Self::new(now) }) } else { Next::Release }
    }
}
