//! What is told and shown of a gate.

use std::time::Duration;

use super::{Forced, Gate};
use crate::{
    Timestamp,
    breaker::{BreakerMode, LocalState},
    fleet::{evidence::Report, held::Override, shared::FleetState},
    outcome::Outcome,
};

impl Gate {
    /// What goes to the fleet. Takes the count of refused calls.
    pub fn report(&mut self, now: Timestamp) -> Report {
        let rejected = std::mem::take(&mut self.rejected);
        self.touched = false;
        self.reconsider(now);
        if self.is_disabled() {
            return Report::disabled(self.breaker.state());
        }
        let counts = self.breaker.counts(now);
        let own = Report::new(self.breaker.state(), self.breaker.own_trip(), counts, rejected);
        // Who never obeys says so when it connects: it has no opinion on this verdict.
        Report { vetoed: self.vetoes() && !self.ignores_fleet, ..own }
    }

    /// Asks for a report even without calls: a server that has just been reached must learn who holds the breaker.
    pub const fn announce(&mut self) {
        self.touched = true;
        self.unshared = false;
    }

    /// The server shares too many breakers already, and not this one: it goes on by itself, and there is nothing to report until it is
    /// [announced](Gate::announce) again.
    pub const fn keep_to_itself(&mut self) {
        self.unshared = true;
    }

    /// Whether the server has said that it does not share it.
    #[must_use]
    pub const fn is_unshared(&self) -> bool {
        self.unshared
    }

    /// Whether a heartbeat should carry it: it is new, had calls since the last report, or is not at rest.
    #[must_use]
    pub fn wants_report(&self) -> bool {
        !self.unshared
            && (self.touched
                || self.rejected > 0
                || self.breaker.state() != LocalState::Closed
                || self.held.verdict_state() != FleetState::Released)
    }

    /// The process' own state.
    #[must_use]
    pub const fn local_state(&self) -> LocalState {
        self.breaker.state()
    }

    /// What the fleet, or an operator, says; whether it is obeyed or not.
    #[must_use]
    pub fn fleet_state(&self) -> FleetState {
        match self.held.override_in_force() {
            Some(Override { effect: Forced::Open, .. }) => FleetState::ForcedOpen,
            Some(Override { effect: Forced::Closed, .. }) => FleetState::ForcedClosed,
            Some(Override { effect: Forced::Disabled, .. }) => FleetState::Disabled,
            None => self.held.verdict_state(),
        }
    }

    /// Why they say so, in their words. `None` where nobody says anything against calls.
    #[must_use]
    pub fn fleet_reason(&self) -> Option<&str> {
        let verdict = || self.held.verdict().filter(|verdict| verdict.state != FleetState::Released);
        let forced = self.held.override_in_force().map(|forced| forced.reason.as_str());
        forced.or_else(|| verdict().map(|verdict| verdict.reason.as_str()))
    }

    /// The share of calls that passes, from 0 to 1. Probes are no traffic.
    #[must_use]
    pub fn admission(&self, now: Timestamp) -> f64 {
        let acts = self.breaker.spec().mode() == BreakerMode::Enforced;
        match self.fleet_state() {
            FleetState::ForcedOpen => 0.0,
            FleetState::ForcedClosed | FleetState::Disabled => 1.0,
            FleetState::Released => self.breaker.admission(now),
            FleetState::Open | FleetState::HalfOpen | FleetState::Ramp if !acts => 1.0,
            FleetState::Open | FleetState::HalfOpen | FleetState::Ramp if self.vetoes => self.breaker.admission(now),
            FleetState::Open | FleetState::HalfOpen => 0.0,
            FleetState::Ramp => {
                let share = self.held.verdict().map_or(1.0, |verdict| f64::from(verdict.admit_permille) / 1000.0);
                self.breaker.admission(now).min(share)
            }
        }
    }

    /// Until probes may pass, where calls are refused and that is known.
    #[must_use]
    pub fn half_open_in(&self, now: Timestamp) -> Option<Duration> {
        match self.fleet_state() {
            FleetState::Open | FleetState::HalfOpen if self.vetoes => self.breaker.half_open_in(now),
            FleetState::Open => self.held.verdict()?.half_open_at.map(|at| now.until(at)),
            FleetState::Released | FleetState::Ramp => self.breaker.half_open_in(now),
            FleetState::HalfOpen | FleetState::ForcedOpen | FleetState::ForcedClosed | FleetState::Disabled => None,
        }
    }

    /// The last outcome that counted as a failure here.
    #[must_use]
    pub const fn last_failure(&self) -> Option<Outcome> {
        self.breaker.last_failure()
    }
}
