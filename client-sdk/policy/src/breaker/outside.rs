//! What changes a breaker from outside: the fleet's word, and new settings.

use std::sync::Arc;

use super::{
    machine::{Breaker, State},
    spec::BreakerSpec,
    state::{Cause, LocalState, Permit, Transition},
    window::Window,
};
use crate::{Draw, Timestamp};

impl Breaker {
    /// Makes a call on a probe permit of the fleet: an open breaker becomes half-open for it, whatever its own time says.
    pub fn acquire_probe(&mut self, now: Timestamp) -> (Permit, Option<Transition>) {
        let transition = match self.state {
            State::Open { .. } => Some(self.half_open(Cause::Fleet, now)),
            State::Closed { .. } | State::HalfOpen { .. } => None,
        };
        if let State::HalfOpen { issued, in_flight, .. } = &mut self.state {
            *issued = issued.saturating_add(1);
            *in_flight = in_flight.saturating_add(1);
        }
        (Permit { generation: Some(self.generation) }, transition)
    }

    /// The fleet has found the target well again: what was seen before no longer counts.
    pub fn close_by_fleet(&mut self, now: Timestamp) -> Option<Transition> {
        match self.state {
            State::Closed { .. } => {
                self.window.clear();
                self.consecutive_failures = 0;
                None
            }
            State::Open { .. } | State::HalfOpen { .. } if self.is_disabled() => None,
            State::Open { .. } | State::HalfOpen { .. } => Some(self.close(Cause::Fleet, now)),
        }
    }

    /// A verdict that kept calls back has ended without a successor: go on as if just opened, for a random part of the
    /// delay. Straight to closed would let the whole fleet loose in the same instant.
    ///
    /// That it tripped was before the verdict, and says nothing about the target now: the fleet must not open on it again.
    pub fn decay(&mut self, now: Timestamp, draw: Draw) -> Option<Transition> {
        if self.is_disabled() {
            return None;
        }
        let until = now.plus(crate::time::scale(self.spec.delay(), draw.get()));
        let transition = match &mut self.state {
            State::Open { until: own, .. } => {
                *own = (*own).max(until);
                None
            }
            State::Closed { .. } | State::HalfOpen { .. } => {
                Some(self.enter(State::Open { since: now, until }, Cause::Decay, now))
            }
        };
        self.own_trip = false;
        self.window.clear();
        self.consecutive_failures = 0;
        transition
    }

    /// Takes new settings. An equal definition touches nothing; otherwise the state is kept, and the statistics too unless
    /// they no longer mean the same. Nothing trips in here: the next result is judged by the new rules.
    pub fn apply(&mut self, spec: Arc<BreakerSpec>) {
        if *spec == *self.spec {
            return;
        }
        if spec.window() != self.spec.window() || spec.classifier() != self.spec.classifier() {
            self.window = Window::new(spec.window());
            self.consecutive_failures = 0;
        }
        if let State::Open { since, until } = &mut self.state {
            *until = (*until).min(since.plus(spec.open_for(self.reopened.saturating_sub(1), Draw::ZERO)));
        }
        self.spec = spec;
    }

    /// Starts afresh, as a policy that changes with `onChange: reset` asks.
    pub fn reset(&mut self, spec: Arc<BreakerSpec>, now: Timestamp) -> Option<Transition> {
        let from = self.state();
        let counts = self.window.counts(now);
        let generation = self.generation + 1;
        // These only ever grow: they count what has happened, not what the state rests on.
        let (ignored, late) = (self.ignored, self.late);
        *self = Self { generation, ignored, late, ..Self::new(spec) };
        (from != LocalState::Closed).then_some(Transition {
            from,
            to: LocalState::Closed,
            cause: Cause::PolicyChange,
            counts,
        })
    }
}
