//! The state machine of one process' own breaker.

use std::{sync::Arc, time::Duration};

use super::{
    spec::{BreakerMode, BreakerSpec},
    state::{Cause, Ending, LocalState, Permit, Transition},
    window::{Counts, FailureCause, Sample, Window},
};
use crate::{
    Draw, Timestamp,
    condition::Class,
    outcome::{Outcome, RejectionReason, RetryHint},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum State {
    Closed {
        /// Since when only a share is admitted.
        ramp_from: Option<Timestamp>,
    },
    Open {
        since: Timestamp,
        until: Timestamp,
    },
    HalfOpen {
        since: Timestamp,
        /// Probes out and done: never more than the spec's `probes`.
        issued: u32,
        in_flight: u32,
        successes: u32,
        failures: u32,
    },
}

/// One process' own breaker.
///
/// Time never passes by itself: [`Breaker::advance`] makes what is due happen. Each state has a generation; the outcome of
/// a call that an older generation admitted changes nothing.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Breaker {
    pub(super) spec: Arc<BreakerSpec>,
    pub(super) state: State,
    pub(super) generation: u64,
    pub(super) window: Window,
    pub(super) consecutive_failures: u32,
    /// When a call was last counted.
    pub(super) last_counted: Option<Timestamp>,
    /// Openings without a full close in between, the present one included.
    pub(super) reopened: u32,
    /// Whether the present opening rests on what this process saw itself.
    pub(super) own_trip: bool,
    pub(super) last_failure: Option<Outcome>,
    pub(super) ignored: u64,
    pub(super) late: u64,
}

impl Breaker {
    /// Closed, nothing seen.
    #[must_use]
    pub fn new(spec: Arc<BreakerSpec>) -> Self {
        let window = Window::new(spec.window());
        Self {
            spec,
            state: State::Closed { ramp_from: None },
            generation: 1,
            window,
            consecutive_failures: 0,
            last_counted: None,
            reopened: 0,
            own_trip: false,
            last_failure: None,
            ignored: 0,
            late: 0,
        }
    }

    /// The settings in force.
    #[must_use]
    pub const fn spec(&self) -> &Arc<BreakerSpec> {
        &self.spec
    }

    /// The state as of the last [`Breaker::advance`].
    #[must_use]
    pub const fn state(&self) -> LocalState {
        match self.state {
            State::Closed { .. } => LocalState::Closed,
            State::Open { .. } => LocalState::Open,
            State::HalfOpen { .. } => LocalState::HalfOpen,
        }
    }

    /// Whether the present opening rests on what this process saw itself.
    #[must_use]
    pub const fn own_trip(&self) -> bool {
        self.own_trip
    }

    /// The present generation. Each change of state begins a new one.
    #[must_use]
    pub const fn generation(&self) -> u64 {
        self.generation
    }

    /// Whether every call is admitted and counted, without a ramp: then quick successes change nothing but counts.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.spec.mode() == BreakerMode::Enforced && matches!(self.state, State::Closed { ramp_from: None })
    }

    /// While open, and enforced: when that ends by itself.
    #[must_use]
    pub fn refuses_until(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until, .. } if self.spec.mode() == BreakerMode::Enforced => Some(until),
            State::Open { .. } | State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// Counts so many quick successes that this generation admitted, as if each had been recorded at its time.
    pub fn tally(&mut self, successes: u64, at: Timestamp) {
        debug_assert!(successes == 0 || self.state() == LocalState::Closed, "only the closed state tallies");
        if successes > 0 {
            self.consecutive_failures = 0;
            self.last_counted = self.last_counted.max(Some(at));
            self.window.add_successes(successes, at);
        }
    }

    /// Until when quick successes need not be told apart by their time.
    #[must_use]
    pub fn bucket_end(&self, now: Timestamp) -> Timestamp {
        self.window.bucket_end(now)
    }

    /// What the window holds.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> Counts {
        self.window.counts(now)
    }

    /// Failures in a row, up to now.
    #[must_use]
    pub const fn consecutive_failures(&self) -> u32 {
        self.consecutive_failures
    }

    /// When a call was last counted.
    #[must_use]
    pub const fn last_counted(&self) -> Option<Timestamp> {
        self.last_counted
    }

    /// Whether it lets only a share of the calls pass, or only probes, after it was open.
    #[must_use]
    pub fn is_recovering(&self, now: Timestamp) -> bool {
        self.spec.mode() == BreakerMode::Enforced
            && match self.state {
                State::Closed { ramp_from } => self.ramp_share(ramp_from, now) < 1.0,
                State::Open { .. } => false,
                State::HalfOpen { .. } => true,
            }
    }

    /// The last outcome that counted as a failure.
    #[must_use]
    pub const fn last_failure(&self) -> Option<Outcome> {
        self.last_failure
    }

    /// Outcomes that counted neither way.
    #[must_use]
    pub const fn ignored(&self) -> u64 {
        self.ignored
    }

    /// Outcomes that came after the state that admitted their call had ended.
    #[must_use]
    pub const fn late(&self) -> u64 {
        self.late
    }

    /// While open: until probes may pass.
    #[must_use]
    pub const fn half_open_in(&self, now: Timestamp) -> Option<Duration> {
        match self.state {
            State::Open { until, .. } => Some(now.until(until)),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        }
    }

    /// The share of calls that pass, from 0 to 1. Half-open counts as 0: probes are no traffic.
    #[must_use]
    pub fn admission(&self, now: Timestamp) -> f64 {
        if self.spec.mode() != BreakerMode::Enforced {
            return 1.0;
        }
        match self.state {
            State::Closed { ramp_from } => self.ramp_share(ramp_from, now),
            State::Open { .. } | State::HalfOpen { .. } => 0.0,
        }
    }

    /// When [`Breaker::advance`] has something to do. A disabled breaker stands still.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        if self.is_disabled() {
            return None;
        }
        match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } => Some(until),
            State::HalfOpen { since, .. } => self.spec.half_open().max_duration.map(|limit| since.plus(limit)),
        }
    }

    /// Makes happen what is due: open becomes half-open when its time is over, half-open opens again when it took too long.
    /// A disabled breaker stands still.
    pub fn advance(&mut self, now: Timestamp, draw: Draw) -> Option<Transition> {
        if self.is_disabled() {
            return None;
        }
        match self.state {
            State::Closed { .. } => None,
            State::Open { until, .. } if now >= until => Some(self.half_open(Cause::DelayElapsed, now)),
            State::Open { .. } => None,
            State::HalfOpen { since, .. } => match self.spec.half_open().max_duration {
                Some(limit) if now >= since.plus(limit) => {
                    Some(self.open(Cause::ProbesTimedOut, RetryHint::None, now, draw))
                }
                Some(_) | None => None,
            },
        }
    }

    /// Asks to make a call. Call [`Breaker::advance`] before.
    ///
    /// # Errors
    /// Why it may not be made.
    pub fn try_acquire(&mut self, now: Timestamp, draw: Draw) -> Result<Permit, RejectionReason> {
        match self.spec.mode() {
            BreakerMode::Disabled => return Ok(Permit::untracked()),
            BreakerMode::Shadow => return Ok(self.admit(now, draw).unwrap_or(Permit::untracked())),
            BreakerMode::Enforced => {}
        }
        self.admit(now, draw)
    }

    fn admit(&mut self, now: Timestamp, draw: Draw) -> Result<Permit, RejectionReason> {
        let half_open = self.spec.half_open();
        match &mut self.state {
            State::Closed { ramp_from } => {
                let ramp_from = *ramp_from;
                if draw.get() >= self.ramp_share(ramp_from, now) {
                    return Err(RejectionReason::Ramp);
                }
            }
            State::Open { until, .. } => return Err(RejectionReason::Open { retry_after: now.until(*until) }),
            State::HalfOpen { issued, in_flight, .. } => {
                // Fewer probes than have been let pass already, and still no decision: the settings have changed meanwhile,
                // and somebody must bring the result by which the new ones judge.
                let all_out = *issued >= half_open.probes && *in_flight > 0;
                if all_out || *in_flight >= half_open.concurrent_probes {
                    return Err(RejectionReason::HalfOpenLimit);
                }
                *issued = issued.saturating_add(1);
                *in_flight += 1;
            }
        }
        Ok(Permit { generation: Some(self.generation) })
    }

    /// Gives a permit back: its call was dropped or its outcome counts for nothing.
    pub fn abandon(&mut self, permit: Permit) {
        let Permit { generation } = permit;
        if generation == Some(self.generation)
            && let State::HalfOpen { issued, in_flight, .. } = &mut self.state
        {
            *issued = issued.saturating_sub(1);
            *in_flight = in_flight.saturating_sub(1);
        }
    }

    /// Takes the outcome of a call.
    pub fn record(&mut self, permit: Permit, ending: &Ending, now: Timestamp, draw: Draw) -> Option<Transition> {
        match permit.generation {
            None => return None,
            Some(generation) if generation != self.generation => {
                self.late += 1;
                return None;
            }
            Some(_) => {}
        }
        if self.is_disabled() {
            self.abandon(permit);
            return None;
        }
        if ending.class == Class::Ignored {
            self.ignored += 1;
            self.abandon(permit);
            return None;
        }
        let failed = ending.class == Class::Failure;
        if failed {
            self.last_failure = Some(ending.outcome);
        }
        let slow = self.spec.trip().slow_call_rate.is_some_and(|(_, limit)| ending.elapsed > limit);
        let failure = failed.then(|| FailureCause::of(ending.outcome, ending.hint));
        self.window.record(Sample { failure, slow }, now);
        self.last_counted = self.last_counted.max(Some(now));
        let spec = self.spec.half_open();
        match &mut self.state {
            State::Closed { .. } => {
                self.consecutive_failures = if failed { self.consecutive_failures.saturating_add(1) } else { 0 };
                let cause = if failed || slow { self.tripped(failed, slow, now) } else { None };
                self.finish_ramp(now);
                cause.map(|cause| {
                    self.own_trip = true;
                    self.open(cause, ending.hint, now, draw)
                })
            }
            // Nothing of the open state is admitted, so no permit can be of its generation.
            State::Open { .. } => None,
            State::HalfOpen { in_flight, successes, failures, .. } => {
                *in_flight = in_flight.saturating_sub(1);
                if failed {
                    *failures += 1;
                } else {
                    *successes += 1;
                }
                let (successes, failures) = (*successes, *failures);
                // No failure closes it, also where the settings have changed and enough successes were there before it.
                if !failed && successes >= spec.successes {
                    Some(self.close(Cause::ProbeOk, now))
                } else if failures > spec.probes - spec.successes {
                    self.own_trip = true;
                    Some(self.open(Cause::ProbeFailed, ending.hint, now, draw))
                } else {
                    None
                }
            }
        }
    }

    pub(super) fn is_disabled(&self) -> bool {
        self.spec.mode() == BreakerMode::Disabled
    }

    fn tripped(&self, failed: bool, slow: bool, now: Timestamp) -> Option<Cause> {
        let trip = self.spec.trip();
        let counts = self.window.counts(now);
        if failed {
            if trip.consecutive_failures.is_some_and(|limit| self.consecutive_failures >= limit) {
                return Some(Cause::ConsecutiveFailures);
            }
            if trip.failures.is_some_and(|limit| counts.failures >= u64::from(limit)) {
                return Some(Cause::Failures);
            }
            if let Some(rule) = trip.failure_rate {
                if rule.reached(counts.failures, counts.calls) {
                    return Some(Cause::FailureRate);
                }
                // The window was empty when the ramp began: what it holds is the ramp's own. A few calls are enough,
                // since they come on top of a target that was down a moment ago.
                let ramping = self.admission(now) < 1.0;
                let enough = counts.calls >= u64::from(self.spec.half_open().probes);
                if ramping && enough && rule.share_reached(counts.failures, counts.calls) {
                    return Some(Cause::RampFailed);
                }
            }
        }
        let (rule, _) = trip.slow_call_rate?;
        (slow && rule.reached(counts.slow, counts.calls)).then_some(Cause::SlowCallRate)
    }

    fn ramp_share(&self, ramp_from: Option<Timestamp>, now: Timestamp) -> f64 {
        /// Where a ramp begins.
        const FIRST_SHARE: f64 = 0.1;
        match (ramp_from, self.spec.ramp()) {
            (Some(from), Some(ramp)) => {
                let part = now.since(from).as_secs_f64() / ramp.as_secs_f64();
                if part >= 1.0 { 1.0 } else { FIRST_SHARE + (1.0 - FIRST_SHARE) * part }
            }
            (Some(_), None) | (None, _) => 1.0,
        }
    }

    /// The growth of the delay is forgotten when the ramp has been survived.
    fn finish_ramp(&mut self, now: Timestamp) {
        if let State::Closed { ramp_from: Some(from) } = self.state
            && self.spec.ramp().is_none_or(|ramp| now >= from.plus(ramp))
        {
            self.state = State::Closed { ramp_from: None };
            self.reopened = 0;
        }
    }

    fn open(&mut self, cause: Cause, hint: RetryHint, now: Timestamp, draw: Draw) -> Transition {
        let delay = match hint {
            // "Now" (zero, or a date that is past) asks for no rest, and a target that says it while it fails needs one.
            RetryHint::After(asked) if self.spec.respect_retry_after() && !asked.is_zero() => {
                asked.min(self.spec.retry_after_max())
            }
            RetryHint::After(_) | RetryHint::None | RetryHint::Never => self.spec.open_for(self.reopened, draw),
        };
        self.reopened = self.reopened.saturating_add(1);
        self.enter(State::Open { since: now, until: now.plus(delay) }, cause, now)
    }

    pub(super) fn half_open(&mut self, cause: Cause, now: Timestamp) -> Transition {
        let state = State::HalfOpen { since: now, issued: 0, in_flight: 0, successes: 0, failures: 0 };
        self.enter(state, cause, now)
    }

    pub(super) fn close(&mut self, cause: Cause, now: Timestamp) -> Transition {
        let ramp_from = self.spec.ramp().map(|_| now);
        if ramp_from.is_none() {
            self.reopened = 0;
        }
        let transition = self.enter(State::Closed { ramp_from }, cause, now);
        self.window.clear();
        self.consecutive_failures = 0;
        self.own_trip = false;
        transition
    }

    pub(super) fn enter(&mut self, state: State, cause: Cause, now: Timestamp) -> Transition {
        let from = self.state();
        self.state = state;
        self.generation += 1;
        let to = self.state();
        debug_assert_ne!(from, to, "a transition leads to another state");
        Transition { from, to, cause, counts: self.window.counts(now) }
    }
}
