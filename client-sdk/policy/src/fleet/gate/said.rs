//! What the fleet, operators and policies say: verdicts, permits, overrides, other settings.

use std::sync::Arc;

use super::{Gate, GateEffect};
use crate::{
    Draw, Revision, Timestamp,
    breaker::BreakerSpec,
    fleet::{
        held::{HeldPermit, Override, Taken, Verdict},
        shared::{FleetState, ProbeResult},
    },
};

impl Gate {
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
}
