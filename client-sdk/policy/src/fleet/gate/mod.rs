//! One breaker of one process, together with what the fleet and its operators say about it.
//!
//! Effective admission is the lesser of the process' own and the fleet's; an override replaces both. While the fleet keeps calls back,
//! the process' own clock does not let probes pass: the fleet's permits do. While an operator forces it open, nothing does.
//!
//! A disabled breaker, by an operator's word or its policy's, lets every call pass and stands still: it counts none, changes no state, is no
//! evidence for the fleet, takes no probes, and goes on afterwards where it was.
//!
//! A process that sees for itself that the target is well does not obey the fleet, and says so: what it needs to see is in `veto.rs`.
//! Such a veto begins under a verdict that stops a process which had been making calls, and goes on through half-open and ramp until its
//! own calls tell otherwise, or become too few. It can't begin from probes, or from the few calls of a ramp: they are what the fleet is
//! careful with.

mod calls;
mod said;
mod told;

use std::sync::Arc;

use super::{
    held::{Held, HeldPermit},
    shared::{FleetState, ProbeResult},
    veto,
};
use crate::{
    Draw, Revision, Timestamp,
    breaker::{Breaker, BreakerMode, BreakerSpec, Permit, Transition},
};

/// Leave to make one call. It must come back: by [`Gate::record`] or [`Gate::abandon`].
#[must_use = "a pass that does not come back blocks a half-open breaker"]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Pass {
    permit: Permit,
    probe: Option<ProbeId>,
}

/// A probe permit of the fleet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ProbeId {
    /// The run of the server that issued it.
    pub term: u64,
    /// Its number.
    pub id: u64,
}

/// What must be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GateEffect {
    /// The process' own breaker changed.
    Transition(Transition),
    /// A probe permit is spent or goes back.
    Probe(ProbeId, ProbeResult),
}

/// One breaker of one process.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gate {
    breaker: Breaker,
    held: Held,
    revision: Revision,
    rejected: u64,
    touched: bool,
    /// Whether the verdict in force is not obeyed. Never true without one.
    vetoes: bool,
    /// Whether no verdict is ever obeyed.
    ignores_fleet: bool,
    /// Whether the fleet decides about a newer revision of the policy, which can't be used here.
    behind: bool,
    /// Whether the server does not share it.
    unshared: bool,
}

impl Pass {
    /// The generation that admitted the call, if it was admitted by the process' own breaker and is no probe.
    #[must_use]
    pub const fn plain_generation(&self) -> Option<u64> {
        if self.probe.is_none() { self.permit.generation() } else { None }
    }
}

impl Gate {
    /// A closed breaker, of which the fleet has said nothing.
    #[must_use]
    pub fn new(spec: Arc<BreakerSpec>, revision: Revision) -> Self {
        Self {
            breaker: Breaker::new(spec),
            held: Held::default(),
            revision,
            rejected: 0,
            touched: true,
            vetoes: false,
            ignores_fleet: false,
            behind: false,
            unshared: false,
        }
    }

    /// From here on no verdict is obeyed, however the own calls go: only the own breaker decides. Verdicts are held all the same, so that
    /// the server goes on counting what this process sees.
    pub const fn ignore_fleet(&mut self) {
        self.ignores_fleet = true;
    }

    /// Revision of the policy that it runs.
    #[must_use]
    pub const fn revision(&self) -> Revision {
        self.revision
    }

    /// The process' own breaker.
    #[must_use]
    pub const fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// What the fleet and its operators say.
    #[must_use]
    pub const fn held(&self) -> &Held {
        &self.held
    }

    /// Whether every call passes and quick successes change nothing but counts, as long as [`Gate::next_deadline`] has not come.
    #[must_use]
    pub fn is_at_rest(&self) -> bool {
        self.breaker.is_at_rest()
            && self.held.override_in_force().is_none()
            && self.held.verdict_state() == FleetState::Released
    }

    /// Until when every call is refused because the process' own breaker is open, if nothing else has a say;
    /// as long as [`Gate::next_deadline`] has not come.
    #[must_use]
    pub fn refuses_until(&self) -> Option<Timestamp> {
        let own = self.held.override_in_force().is_none() && self.held.verdict_state() == FleetState::Released;
        self.breaker.refuses_until().filter(|_| own)
    }

    /// Leave to make one call, for a gate at rest whose breaker is in this generation.
    pub const fn pass_at_rest(generation: u64) -> Pass {
        Pass { permit: Permit::of(generation), probe: None }
    }

    /// Counts so many quick successes that a gate at rest has let pass, and so many calls that one which refuses has refused. Both
    /// are of the breaker's present generation.
    pub fn tally(&mut self, successes: u64, rejected: u64, at: Timestamp) {
        if successes + rejected > 0 && !self.is_disabled() {
            self.touched = true;
            self.rejected += rejected;
            self.breaker.tally(successes, at);
        }
    }

    /// Whether the own breaker's time stands still: it is disabled, or somebody else keeps calls back, so that nobody could probe when its
    /// time is over.
    fn own_time_stands(&self) -> bool {
        let fleet = !self.vetoes && matches!(self.held.verdict_state(), FleetState::Open | FleetState::HalfOpen);
        match self.held.override_in_force().map(|forced| forced.effect) {
            Some(Forced::Open | Forced::Disabled) => true,
            Some(Forced::Closed) | None => fleet,
        }
    }

    /// Whether it lets every call pass and counts none: an operator has disabled it, or, where no operator says otherwise, its policy.
    #[must_use]
    pub fn is_disabled(&self) -> bool {
        match self.held.override_in_force() {
            Some(forced) => forced.effect == Forced::Disabled,
            None => self.breaker.spec().mode() == BreakerMode::Disabled,
        }
    }

    /// Whether it does not obey the verdict in force, since its own calls go well: as of the last time that it was asked anything.
    #[must_use]
    pub const fn vetoes(&self) -> bool {
        self.vetoes && self.held.override_in_force().is_none()
    }

    /// Whether only a few calls pass after the target was down: its own breaker, or the fleet's, is half-open or ramps up.
    #[must_use]
    pub fn is_recovering(&self, now: Timestamp) -> bool {
        let fleet = !self.vetoes && matches!(self.held.verdict_state(), FleetState::HalfOpen | FleetState::Ramp);
        let enforced = self.breaker.spec().mode() == BreakerMode::Enforced;
        self.held.override_in_force().is_none() && enforced && (fleet || self.breaker.is_recovering(now))
    }

    /// Looks at the own calls again: a veto goes on, or ends; under an open verdict it may also begin.
    fn reconsider(&mut self, now: Timestamp) {
        self.vetoes = match self.held.verdict_state() {
            FleetState::Released | FleetState::ForcedOpen | FleetState::ForcedClosed | FleetState::Disabled => false,
            FleetState::Open | FleetState::HalfOpen | FleetState::Ramp if self.ignores_fleet => true,
            // It has stopped looking.
            FleetState::Open | FleetState::HalfOpen | FleetState::Ramp if self.is_disabled() => false,
            FleetState::Open => veto::disagrees(&self.breaker, now),
            FleetState::HalfOpen | FleetState::Ramp => self.vetoes && veto::disagrees(&self.breaker, now),
        };
    }

    /// Makes happen what is due: leases and overrides end, the own breaker's time passes.
    pub fn tick(&mut self, now: Timestamp, draw: Draw) -> Vec<GateEffect> {
        let mut unused: Vec<HeldPermit> = self.held.expire_permits(now).collect();
        self.held.expire_override(now);
        if self.is_disabled() {
            unused.extend(self.held.drop_permits());
        }
        let given_back = |permit: HeldPermit| GateEffect::Probe(permit.probe_id(), ProbeResult::Inconclusive);
        let mut effects: Vec<GateEffect> = unused.into_iter().map(given_back).collect();
        self.reconsider(now);
        if let Some(state) = self.held.expire_verdict(now)
            && state != FleetState::Released
            && !self.is_disabled()
            // What was not obeyed leaves nothing behind.
            && !std::mem::take(&mut self.vetoes)
        {
            effects.extend(self.breaker.decay(now, draw).map(GateEffect::Transition));
        }
        if !self.own_time_stands() {
            effects.extend(self.breaker.advance(now, draw).map(GateEffect::Transition));
        }
        effects
    }

    /// When [`Gate::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        let own = if self.own_time_stands() { None } else { self.breaker.next_deadline() };
        self.held.next_deadline().into_iter().chain(own).min()
    }
}

/// What an override does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Forced {
    /// All calls are refused.
    Open,
    /// All calls pass. What the breaker would have let pass is counted.
    Closed,
    /// All calls pass, and none is counted: the breaker stands still and takes part in no decision.
    Disabled,
}
