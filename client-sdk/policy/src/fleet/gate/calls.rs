//! Calls: who may make one, and how it ended.

use super::{Forced, Gate, GateEffect, Pass};
use crate::{
    Draw, Timestamp,
    breaker::{BreakerMode, Ending, LocalState, Permit},
    condition::Class,
    fleet::shared::{FleetState, ProbeResult},
    outcome::RejectionReason,
};

impl Gate {
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
}
