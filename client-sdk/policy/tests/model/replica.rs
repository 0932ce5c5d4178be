//! A replica: the gate that runs in the SDK, with a stream around it that does what the SDK's link does.

use std::{sync::Arc, time::Duration};

use fusebox_policy::{
    Draw, Outcome, Revision, Timestamp,
    breaker::Ending,
    condition::Class,
    fleet::{
        coordinator::Holding,
        gate::{Gate, GateEffect, ProbeId},
        held::{Fence, HeldPermit, Override, Taken, Verdict, lease_end},
        invariants::Admission,
        shared::{FleetState, ProbeResult},
        term::{RunId, SeenTerm},
    },
    outcome::{ErrorKind, RetryHint},
};

use crate::{
    mutation::Mutation,
    rules::{Calls, Rules},
    wire::{Down, Happened, Up},
};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Replica {
    number: usize,
    gate: Gate,
    /// When each heartbeat of this stream was sent, by the replica's clock; Hello is number 0.
    sent: Vec<Timestamp>,
    /// The highest term ever seen.
    seen: SeenTerm,
    /// The run of the server at the other end, as far as it is known.
    run: Option<RunId>,
    overrides_seen: (u64, u64),
}

/// What follows from a step.
#[derive(Debug, Default)]
pub(crate) struct Does {
    pub(crate) says: Vec<Up>,
    pub(crate) happened: Vec<Happened>,
}

impl Does {
    fn effects(&mut self, effects: Vec<GateEffect>) {
        for effect in effects {
            match effect {
                // The next heartbeat tells the state; that it is told sooner in the product makes no difference to what may happen.
                GateEffect::Transition(_) => {}
                GateEffect::Probe(probe, result) => self.outcome(probe, result),
            }
        }
    }

    fn outcome(&mut self, probe: ProbeId, result: ProbeResult) {
        self.says.push(Up::Outcome { probe, result });
        if result == ProbeResult::Inconclusive {
            self.happened.push(Happened::Returned { key: (), probe });
        }
    }
}

impl Replica {
    /// A replica that has just tripped.
    pub(crate) fn new(number: usize, rules: &Rules, now: Timestamp) -> Self {
        let gate = Gate::new(Arc::clone(&rules.breaker), Revision(1));
        let mut own =
            Self { number, gate, sent: Vec::new(), seen: SeenTerm::default(), run: None, overrides_seen: (0, 0) };
        own.connect(now);
        own.call(false, now);
        own
    }

    /// Each replica's clock shows another time. All of them run alike.
    fn own_time(&self, now: Timestamp) -> Timestamp {
        now.plus(Duration::from_secs(1000) * u32::try_from(self.number).expect("replicas are few"))
    }

    /// Opens a stream and says Hello: the highest term seen.
    pub(crate) fn connect(&mut self, now: Timestamp) -> SeenTerm {
        self.sent = vec![self.own_time(now)];
        self.overrides_seen = (0, 0);
        self.gate.announce();
        self.run = None;
        self.seen
    }

    /// Learns who is at the other end. The message that says so comes before all others, so that it counts from the first of them.
    pub(crate) fn welcome(&mut self, run: RunId, rules: &Rules) {
        self.run = rules.know_runs.then_some(run);
    }

    pub(crate) fn beats(&self) -> usize {
        self.sent.len() - 1
    }

    /// Whether a call could show something that its refusal, which each heartbeat tells of, does not.
    pub(crate) fn may_call(&self, calls: Calls, now: Timestamp) -> bool {
        let probes = self.gate.held().verdict_state() == FleetState::HalfOpen;
        match calls {
            Calls::Probes if !probes => false,
            Calls::Probes | Calls::All => self.is_admitted(now) || self.gate.held().override_in_force().is_some(),
        }
    }

    fn is_admitted(&self, now: Timestamp) -> bool {
        self.gate.clone().try_acquire(self.own_time(now), Draw::ZERO).0.is_ok()
    }

    pub(crate) fn fleet_state(&self) -> FleetState {
        self.gate.fleet_state()
    }

    /// Leases, permits and overrides end, the own breaker's time passes.
    pub(crate) fn tick(&mut self, now: Timestamp) -> Does {
        let mut does = Does::default();
        does.effects(self.gate.tick(self.own_time(now), Draw::ZERO));
        does
    }

    /// Sends a heartbeat. There is always demand: a replica that refuses calls has refused one since the last heartbeat.
    pub(crate) fn beat(&mut self, now: Timestamp, rules: &Rules) -> Up {
        if !self.is_admitted(now) {
            self.call(false, now);
        }
        let now = self.own_time(now);
        let seq = self.sent.len() as u64;
        self.sent.push(now);
        let verdict = self.gate.held().verdict();
        let held = Holding {
            fence: self.gate.held().highest(),
            state: verdict.map(|own| own.state),
            half_open_in: verdict.and_then(|own| own.half_open_at).map(|at| now.until(at)),
        };
        let disabled = self.gate.is_disabled();
        let forced = self.gate.held().override_in_force().cloned();
        if rules.mutation == Some(Mutation::DisabledSpeaks) {
            self.gate.set_override(None);
        }
        let report = self.gate.report(now);
        self.gate.set_override(forced);
        Up::Beat { seq, report, disabled, held, policy: self.gate.revision() }
    }

    /// One call, whose outcome is known at once.
    pub(crate) fn call(&mut self, succeeds: bool, now: Timestamp) -> Does {
        let now = self.own_time(now);
        let mut does = Does::default();
        let mut before = self.gate.clone();
        does.effects(before.tick(now, Draw::ZERO));
        let own_allows = before.breaker().clone().try_acquire(now, Draw::ZERO).is_ok();
        let fleet_allows = before.vetoes()
            || match before.held().verdict_state() {
                FleetState::Open | FleetState::HalfOpen => false,
                FleetState::Released
                | FleetState::Ramp
                | FleetState::ForcedOpen
                | FleetState::ForcedClosed
                | FleetState::Disabled => true,
            };
        let forced = before.held().override_in_force().map(|own| own.effect);
        let (answer, mut effects) = self.gate.try_acquire(now, Draw::ZERO);
        let admitted = answer.is_ok();
        let mut probe = None;
        if let Ok(pass) = answer {
            let (class, outcome) = if succeeds {
                (Class::Success, Outcome::OK)
            } else {
                (Class::Failure, Outcome::Error(ErrorKind::Other))
            };
            let ending = Ending { class, outcome, elapsed: Duration::ZERO, hint: RetryHint::None };
            let ended = self.gate.record(pass, &ending, now, Draw::ZERO);
            probe = ended.iter().find_map(|effect| match effect {
                GateEffect::Probe(probe, _) => Some(*probe),
                GateEffect::Transition(_) => None,
            });
            effects.extend(ended);
        }
        let mut does = Does::default();
        let admission = Admission { admitted, forced, own_allows, fleet_allows, probe: probe.is_some() };
        does.happened.push(Happened::Called { key: (), admission, probe });
        does.effects(effects);
        does
    }

    /// When a lease ends that counts from the sending of a heartbeat.
    fn lease_end(&self, anchor: u64, lease: Duration, now: Timestamp, rules: &Rules) -> Option<Timestamp> {
        if rules.mutation == Some(Mutation::AnchoredAtReceipt) {
            return Some(lease_end(now, lease));
        }
        let sent = self.sent.get(usize::try_from(anchor).ok()?)?;
        Some(lease_end(*sent, lease))
    }

    pub(crate) fn hear(&mut self, message: Down, now: Timestamp, rules: &Rules) -> Does {
        let now = self.own_time(now);
        let mut does = Does::default();
        match message {
            Down::Verdict { fence, state, permille, lease, anchor, policy, half_open_in } => {
                self.seen.see(fence.term, self.run);
                let Some(expires) = self.lease_end(anchor, lease, now, rules) else { return does };
                let told = fence;
                let highest = self.gate.held().highest();
                let lapsed = self.gate.held().verdict().is_none();
                let fence = match rules.mutation {
                    Some(Mutation::NoFence) => fence.max(Fence { rev: highest.rev + 1, ..highest }),
                    Some(_) | None => fence,
                };
                let about = match rules.mutation {
                    Some(Mutation::NoPolicyRevision) => self.gate.revision(),
                    Some(_) | None => policy,
                };
                let verdict = Verdict {
                    fence,
                    state,
                    admit_permille: permille,
                    expires,
                    policy_revision: about,
                    half_open_at: half_open_in.map(|left| now.plus(left)),
                    reason: String::new(),
                };
                let (applied, effects) = self.gate.apply_verdict(verdict, now);
                if applied {
                    does.happened.push(Happened::Applied { member: self.number, key: (), fence: told, lapsed });
                    if about != policy {
                        does.happened.push(Happened::Enforced {
                            member: self.number,
                            key: (),
                            fence,
                            about: policy,
                            running: self.gate.revision(),
                        });
                    }
                }
                does.effects(effects);
            }
            Down::Permit { probe, rev, ttl, anchor } => {
                let fence = Fence { term: probe.term, rev };
                let Some(expires) = self.lease_end(anchor, ttl, now, rules) else { return does };
                match self.gate.add_permit(HeldPermit { id: probe.id, fence, expires }, now) {
                    Taken::Again if rules.mutation != Some(Mutation::CopyGoesBack) => {}
                    Taken::Again | Taken::Refused => does.outcome(probe, ProbeResult::Inconclusive),
                    Taken::Held => {}
                }
            }
            Down::Ack { seq, term, rev, lease } => {
                self.seen.see(term, self.run);
                let renewed = match rules.mutation {
                    Some(Mutation::AnyTermRenews) => self.gate.held().highest(),
                    Some(_) | None => Fence { term, rev },
                };
                if let Some(until) = self.lease_end(seq, lease, now, rules) {
                    self.gate.renew(renewed.term, renewed.rev, until, now);
                }
            }
            Down::Overrides { term, version, forced, anchor } => {
                self.seen.see(term, self.run);
                if (term, version) >= self.overrides_seen {
                    self.overrides_seen = (term, version);
                    let from = match rules.mutation {
                        Some(Mutation::OverrideFromArrival) => Some(now),
                        Some(_) | None => usize::try_from(anchor).ok().and_then(|seq| self.sent.get(seq)).copied(),
                    };
                    let Some(from) = from else { return does };
                    let forced = forced.map(|(effect, left)| (effect, from.plus(left)));
                    let forced = forced.filter(|(_, until)| *until > now);
                    self.gate.set_override(forced.map(|(effect, until)| Override {
                        effect,
                        until,
                        reason: String::new(),
                    }));
                }
            }
            Down::Policy(revision) => {
                let refuses = rules.refuses && self.number + 1 == rules.replicas;
                if revision > self.gate.revision() && refuses {
                    if rules.mutation != Some(Mutation::NotBehind) {
                        does.effects(self.gate.fall_behind(now, Draw::ZERO));
                    }
                } else if revision > self.gate.revision() {
                    does.effects(self.gate.apply_spec(Arc::clone(&rules.breaker), revision, false, now, Draw::ZERO));
                }
            }
        }
        does
    }

    /// What it enforces at this moment.
    pub(crate) fn enforces(&self) -> Vec<Happened> {
        let held = self.gate.held();
        let verdict =
            held.verdict().filter(|verdict| verdict.state != FleetState::Released).map(|verdict| Happened::Enforced {
                member: self.number,
                key: (),
                fence: verdict.fence,
                about: verdict.policy_revision,
                running: self.gate.revision(),
            });
        let forced = held.override_in_force().map(|_| Happened::Obeyed { key: () });
        verdict.into_iter().chain(forced).collect()
    }
}
