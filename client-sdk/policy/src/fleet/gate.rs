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

use std::{sync::Arc, time::Duration};

use super::{
    evidence::Report,
    held::{Held, HeldPermit, Override, Taken, Verdict},
    shared::{FleetState, ProbeResult},
    veto,
};
use crate::{
    Draw, Revision, Timestamp,
    breaker::{Breaker, BreakerMode, BreakerSpec, Ending, LocalState, Permit, Transition},
    condition::Class,
    outcome::{Outcome, RejectionReason},
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

    /// Asks to make a call.
    ///
    /// The effects are to be told whatever the answer is.
    pub fn try_acquire(&mut self, now: Timestamp, draw: Draw) -> (Result<Pass, RejectionReason>, Vec<GateEffect>) {
        let mut effects = self.tick(now, draw);
        let answer = self.admit(now, draw, &mut effects);
        self.touched = true;
        if answer.is_err() {
            self.rejected += 1;
        }
        (answer, effects)
    }

    fn admit(&mut self, now: Timestamp, draw: Draw, effects: &mut Vec<GateEffect>) -> Result<Pass, RejectionReason> {
        let plain = |permit| Pass { permit, probe: None };
        if let Some(forced) = self.held.override_in_force() {
            return match forced.effect {
                Forced::Open => Err(RejectionReason::ForcedOpen { retry_after: Some(now.until(forced.until)) }),
                // What passes by force still counts where the own breaker would have let it pass.
                Forced::Closed => match self.breaker.state() {
                    LocalState::Closed => {
                        Ok(plain(self.breaker.try_acquire(now, Draw::ZERO).unwrap_or(Permit::untracked())))
                    }
                    LocalState::Open | LocalState::HalfOpen => Ok(plain(Permit::untracked())),
                },
                Forced::Disabled => Ok(plain(Permit::untracked())),
            };
        }
        match self.breaker.spec().mode() {
            BreakerMode::Enforced => self.admit_enforced(now, draw, effects),
            // What would be refused is demand for probes, as it would be if it were refused; and it passes.
            BreakerMode::Shadow => Ok(self.admit_enforced(now, draw, effects).unwrap_or_else(|_| {
                self.rejected += 1;
                plain(Permit::untracked())
            })),
            BreakerMode::Disabled => self.breaker.try_acquire(now, draw).map(plain),
        }
    }

    fn admit_enforced(
        &mut self,
        now: Timestamp,
        draw: Draw,
        effects: &mut Vec<GateEffect>,
    ) -> Result<Pass, RejectionReason> {
        let plain = |permit| Pass { permit, probe: None };
        if self.vetoes {
            // Its calls pass anyway: one of them may as well be the probe that the fleet waits for.
            if let Some(permit) = self.held.take_permit(now) {
                let (own, transition) = self.breaker.acquire_probe(now);
                effects.extend(transition.map(GateEffect::Transition));
                return Ok(Pass { permit: own, probe: Some(permit.probe_id()) });
            }
            return self.breaker.try_acquire(now, draw).map(plain);
        }
        match self.held.verdict() {
            Some(verdict) => match verdict.state {
                FleetState::Open => {
                    let retry_after = verdict.half_open_at.map(|at| now.until(at));
                    Err(RejectionReason::FleetOpen { retry_after })
                }
                FleetState::HalfOpen => {
                    let Some(permit) = self.held.take_permit(now) else {
                        return Err(RejectionReason::FleetHalfOpen);
                    };
                    let (own, transition) = self.breaker.acquire_probe(now);
                    effects.extend(transition.map(GateEffect::Transition));
                    Ok(Pass { permit: own, probe: Some(permit.probe_id()) })
                }
                FleetState::Ramp if draw.get() * 1000.0 >= f64::from(verdict.admit_permille) => {
                    Err(RejectionReason::FleetRamp)
                }
                FleetState::Ramp
                | FleetState::Released
                | FleetState::ForcedOpen
                | FleetState::ForcedClosed
                | FleetState::Disabled => self.breaker.try_acquire(now, draw).map(plain),
            },
            None => self.breaker.try_acquire(now, draw).map(plain),
        }
    }

    /// Takes the outcome of a call.
    pub fn record(&mut self, pass: Pass, ending: &Ending, now: Timestamp, draw: Draw) -> Vec<GateEffect> {
        self.held.expire_override(now);
        if self.is_disabled() {
            return self.abandon(pass);
        }
        let Pass { permit, probe } = pass;
        self.touched = true;
        let result = match ending.class {
            Class::Success => ProbeResult::Success,
            Class::Failure => ProbeResult::Failure,
            Class::Ignored => ProbeResult::Inconclusive,
        };
        let transition = self.breaker.record(permit, ending, now, draw).map(GateEffect::Transition);
        self.reconsider(now);
        let probe = probe.map(|probe| GateEffect::Probe(probe, result));
        transition.into_iter().chain(probe).collect()
    }

    /// Gives a pass back: its call was dropped.
    pub fn abandon(&mut self, pass: Pass) -> Vec<GateEffect> {
        let Pass { permit, probe } = pass;
        self.breaker.abandon(permit);
        probe.map(|probe| GateEffect::Probe(probe, ProbeResult::Inconclusive)).into_iter().collect()
    }

    /// Takes a verdict, if it is newer than the held one, about the policy that runs, and still holds. Says whether it did.
    pub fn apply_verdict(&mut self, verdict: Verdict, now: Timestamp) -> (bool, Vec<GateEffect>) {
        if verdict.policy_revision != self.revision || self.behind {
            return (false, Vec::new());
        }
        let before = self.held.verdict_state();
        let after = verdict.state;
        let obeyed = !self.vetoes && !self.ignores_fleet;
        if !self.held.apply(verdict, now) {
            return (false, Vec::new());
        }
        // Until this verdict the process made calls as it liked: what it has seen may speak against any that keeps calls back.
        self.vetoes |= before == FleetState::Released;
        self.reconsider(now);
        // Calls were kept back, and the fleet has found the target well: all close together, and count afresh. What a replica has
        // seen itself during a ramp is not lifted by the end of it; and one that did not obey goes on by what it has seen.
        let kept_back = obeyed && matches!(before, FleetState::Open | FleetState::HalfOpen);
        let recovered = kept_back && !self.is_disabled() && matches!(after, FleetState::Released | FleetState::Ramp);
        let transition = if recovered { self.breaker.close_by_fleet(now) } else { None };
        (true, transition.map(GateEffect::Transition).into_iter().collect())
    }

    /// Takes leave for one probe, if it belongs to the held verdict.
    pub fn add_permit(&mut self, permit: HeldPermit, now: Timestamp) -> Taken {
        if self.ignores_fleet || self.is_disabled() { Taken::Refused } else { self.held.add_permit(permit, now) }
    }

    /// Renews the lease of the held verdict, if it has not ended.
    pub fn renew(&mut self, term: u64, rev: u64, until: Timestamp, now: Timestamp) {
        self.held.renew(term, rev, until, now);
    }

    /// Sets or ends the override.
    pub fn set_override(&mut self, forced: Option<Override>) {
        let before = self.is_disabled();
        self.held.set_override(forced);
        // The fleet must hear that it counts on this process no longer, or again.
        self.touched |= self.is_disabled() != before;
    }

    /// Takes a changed policy. A verdict about another revision is void: the own breaker goes on as after any verdict that ended
    /// without a successor.
    pub fn apply_spec(
        &mut self,
        spec: Arc<BreakerSpec>,
        revision: Revision,
        reset: bool,
        now: Timestamp,
        draw: Draw,
    ) -> Vec<GateEffect> {
        let mut effects = Vec::new();
        if revision != self.revision {
            self.revision = revision;
            self.behind = false;
            effects = self.void(!reset, now, draw);
        }
        if reset && *spec != **self.breaker.spec() {
            effects.extend(self.breaker.reset(spec, now).map(GateEffect::Transition));
        } else {
            self.breaker.apply(spec);
        }
        effects
    }

    /// The fleet knows it by another key from here on: what was said about the former one is void, and what comes has an order of
    /// its own.
    pub fn rekey(&mut self, now: Timestamp, draw: Draw) -> Vec<GateEffect> {
        let effects = self.void(true, now, draw);
        self.held.forget_order();
        self.announce();
        effects
    }

    /// The policy has a newer revision, which can't be used here: the fleet decides about that one. What it has said about the one that
    /// runs on here is void, and no server would end it. Holds until another revision [runs](Gate::apply_spec), or
    /// that one is [taken back](Gate::catch_up).
    pub fn fall_behind(&mut self, now: Timestamp, draw: Draw) -> Vec<GateEffect> {
        self.behind = true;
        self.void(true, now, draw)
    }

    /// The revision that runs is the newest again: what could not be used here has been taken back.
    pub const fn catch_up(&mut self) {
        self.behind = false;
    }

    /// Drops the fleet's verdict, and permits with it.
    fn void(&mut self, decays: bool, now: Timestamp, draw: Draw) -> Vec<GateEffect> {
        let permits = self.held.drop_permits().into_iter();
        let mut effects: Vec<GateEffect> =
            permits.map(|permit| GateEffect::Probe(permit.probe_id(), ProbeResult::Inconclusive)).collect();
        // What was not obeyed leaves nothing behind.
        let vetoed = std::mem::take(&mut self.vetoes);
        if self.held.drop_verdict() != FleetState::Released && decays && !vetoed && !self.is_disabled() {
            effects.extend(self.breaker.decay(now, draw).map(GateEffect::Transition));
        }
        effects
    }

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
