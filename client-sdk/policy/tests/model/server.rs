//! The control plane: the coordinator that runs, with a shell around it that does what the server's owner task does. The one file of the
//! model that knows its structs.

use std::{
    collections::BTreeMap,
    sync::{Arc, LazyLock},
    time::Duration,
};

use fusebox_policy::{
    CallerName, Draw, InstanceId, Namespace, PolicyName, Revision, StrategyName, TargetName, Timestamp,
    fleet::{
        BreakerKey,
        coordinator::{Coordinator, Decision, Effect, Limits, Mode, Recipients, Sighting, Suspicion},
        evidence::MemberId,
        gate::{Forced, ProbeId},
        held::Fence,
        invariants::{Ground, Phase},
        key::CallerId,
        shared::{FleetState, Settings},
        term::{RunId, SeenTerm},
    },
};

use crate::{
    mutation::Mutation,
    rules::{Network, Rules},
    wire::{Down, Happened, Letter, Up},
};

/// One run of the control plane.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Server {
    policy: Revision,
    coordinator: Coordinator,
    /// The newest heartbeat of each connected replica, and when it came: what leases and overrides are anchored at.
    heartbeats: BTreeMap<usize, (u64, Timestamp)>,
    overrides: Overrides,
}

/// What operators have said. It is stored, and told as what is left of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Overrides {
    forced: Option<(Forced, Timestamp)>,
    version: u64,
}

/// What follows from a step.
#[derive(Debug, Default)]
pub(crate) struct Says {
    pub(crate) to: Vec<(usize, Letter)>,
    pub(crate) happened: Vec<Happened>,
}

impl Says {
    fn tell(&mut self, replica: usize, message: Down) {
        match self.to.iter_mut().find(|(to, _)| *to == replica) {
            Some((_, letter)) => letter.push(message),
            None => self.to.push((replica, vec![message])),
        }
    }
}

/// The one breaker.
static KEY: LazyLock<BreakerKey> = LazyLock::new(|| BreakerKey {
    namespace: Namespace::try_new("n").expect("a short name"),
    caller: CallerName::try_new("a").expect("a short name"),
    policy: PolicyName::try_new("p").expect("a short name"),
    strategy: StrategyName::try_new("s").expect("a short name"),
    target: TargetName::try_new("b").expect("a short name"),
    zone: None,
});
static CALLER: LazyLock<CallerId> = LazyLock::new(|| KEY.caller_id());

fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).expect("a few seconds")
}

fn member(replica: usize) -> MemberId {
    MemberId { instance: InstanceId::try_new(&replica.to_string()).expect("a short name"), incarnation: 1 }
}

fn number(member: &MemberId) -> usize {
    member.instance.as_str().parse().expect("replicas are numbered")
}

impl Server {
    /// Starts with a term that no run of this store had before, if the store is sound.
    pub(crate) fn start(rules: &Rules, run: u64, term: u64, policy: Revision, now: Timestamp) -> Self {
        Self::begun(rules, run, term, policy, rules.mutation != Some(Mutation::NoLearning), now)
    }

    /// One that has been running, and has learned all there is.
    pub(crate) fn start_long_ago(rules: &Rules, run: u64, term: u64, policy: Revision, now: Timestamp) -> Self {
        Self::begun(rules, run, term, policy, false, now)
    }

    fn begun(rules: &Rules, run: u64, term: u64, policy: Revision, learns: bool, now: Timestamp) -> Self {
        let limits = Limits {
            lease: rules.lease,
            permit_ttl: rules.permit_ttl,
            grace: Duration::ZERO,
            dwell: Duration::ZERO,
            most_records: 0,
            ..Limits::default()
        };
        // A run that began so long ago has learned all there is.
        let begun = if learns { now } else { Timestamp::from_nanos(now.as_nanos() - nanos(limits.learning())) };
        let run = RunId::new(run).expect("runs are numbered from 1");
        let mut coordinator = Coordinator::new(term, run, begun, limits);
        coordinator.tick(now, Draw::ZERO);
        let overrides = Overrides { forced: None, version: 1 };
        Self { policy, coordinator, heartbeats: BTreeMap::new(), overrides }
    }

    pub(crate) fn run(&self) -> RunId {
        self.coordinator.run()
    }

    pub(crate) fn term(&self) -> u64 {
        self.coordinator.term()
    }

    pub(crate) fn revs(&self) -> u64 {
        self.coordinator.rev()
    }

    pub(crate) fn state(&self) -> FleetState {
        self.coordinator.breaker(&KEY).map_or(FleetState::Released, |breaker| breaker.state())
    }

    /// What it has decided, and how often.
    pub(crate) fn decision(&self) -> (FleetState, u64, usize) {
        let out = self.coordinator.breaker(&KEY).map_or(0, |breaker| breaker.permits_out());
        (self.state(), self.coordinator.rev(), out)
    }

    const fn phase(&self) -> Phase {
        match self.coordinator.mode() {
            Mode::Learning { .. } => Phase::Learning,
            Mode::Deciding => Phase::Active,
            Mode::Frozen { .. } => Phase::Frozen,
        }
    }

    /// A replica has said Hello; whatever stream it had before is gone.
    pub(crate) fn join(&mut self, replica: usize, seen: SeenTerm, rules: &Rules, now: Timestamp) -> Says {
        let mut says = Says::default();
        let seen = match rules.mutation {
            Some(Mutation::AnyRunsTerm) => SeenTerm { run: Some(self.run()), ..seen },
            Some(_) | None => seen,
        };
        if let Some(term) = self.coordinator.must_rise_to(&CALLER, seen) {
            let effects = self.coordinator.raise_term(term, now);
            let stored = rules.mutation != Some(Mutation::TermNotStored);
            says.happened.push(Happened::Term { run: self.run().get(), term, stored });
            self.carry_out(effects, Ground::Inherited, rules, now, &mut says);
        }
        let effects = self.coordinator.leave(&CALLER, &member(replica), now, Draw::ZERO);
        self.carry_out(effects, Ground::Departure, rules, now, &mut says);
        says.to.retain(|(to, _)| *to != replica);
        self.coordinator.join(&CALLER, &member(replica), None, now);
        self.heartbeats.insert(replica, (0, Self::came(rules, now)));
        if rules.change {
            says.tell(replica, Down::Policy(self.policy));
        }
        if rules.force.is_some() {
            says.tell(replica, self.override_set(replica));
        }
        says
    }

    /// When a heartbeat came, where that matters: what does not would only make equal states different ones.
    fn came(rules: &Rules, now: Timestamp) -> Timestamp {
        if rules.force.is_some() { now } else { Timestamp::ZERO }
    }

    /// A replica has said something.
    pub(crate) fn hear(&mut self, replica: usize, message: Up, rules: &Rules, now: Timestamp) -> Says {
        let mut says = Says::default();
        match message {
            Up::Beat { seq, report, disabled, held, policy } => {
                says.happened.push(Happened::Heard { key: (), instance: member(replica).instance, disabled });
                let Some(heartbeat) = self.heartbeats.get_mut(&replica) else { return says };
                *heartbeat = (*heartbeat).max((seq, Self::came(rules, now)));
                let sighting = Sighting { seq, report, policy_revision: policy, held };
                let effects = self.coordinator.configure(&KEY, Self::settings(rules, self.policy), now);
                self.carry_out(effects, Ground::Policy, rules, now, &mut says);
                let effects = self.coordinator.report(&KEY, &member(replica), sighting.clone(), now, Draw::ZERO);
                self.carry_out(effects, Ground::Report, rules, now, &mut says);
                if rules.mutation == Some(Mutation::WitnessTwice) {
                    let again = MemberId { incarnation: 2, ..member(replica) };
                    self.coordinator.join(&CALLER, &again, None, now);
                    let effects = self.coordinator.report(&KEY, &again, sighting, now, Draw::ZERO);
                    self.carry_out(effects, Ground::Report, rules, now, &mut says);
                }
                let term = self.coordinator.term();
                let rev = match rules.mutation {
                    Some(Mutation::FrozenRenews) => self.coordinator.rev(),
                    Some(_) | None => self.coordinator.renewable(),
                };
                says.tell(replica, Down::Ack { seq, term, rev, lease: rules.lease });
                for fence in self.renewed(rules) {
                    says.happened.push(Happened::Affirmed { member: replica, key: (), fence, lease: rules.lease });
                }
            }
            Up::Outcome { probe, result } => {
                let effects = self.coordinator.probe_outcome(&KEY, &member(replica), probe, result, now, Draw::ZERO);
                self.carry_out(effects, Ground::Probe, rules, now, &mut says);
            }
        }
        says
    }

    /// What an acknowledgement stands behind: the newest verdict. Where messages overtake each other it may arrive before that, and
    /// then renews an older one; that is why the server's sessions send verdicts first.
    fn renewed(&self, rules: &Rules) -> Vec<Fence> {
        match rules.network {
            Network::Streams => {
                let newest = self.coordinator.newest(&KEY).map(|newest| newest.fence);
                newest.filter(|fence| fence.rev <= self.coordinator.renewable()).into_iter().collect()
            }
            Network::Chaos => {
                let term = self.coordinator.term();
                (1..=self.coordinator.renewable()).map(|rev| Fence { term, rev }).collect()
            }
        }
    }

    fn settings(rules: &Rules, policy_revision: Revision) -> Settings {
        Settings { breaker: Arc::clone(&rules.breaker), coordination: rules.coordination, policy_revision }
    }

    /// Makes happen what is due.
    pub(crate) fn tick(&mut self, rules: &Rules, now: Timestamp) -> Says {
        let mut says = Says::default();
        if self.coordinator.next_deadline().is_some_and(|at| at <= now) {
            let effects = self.coordinator.tick(now, Draw::ZERO);
            self.carry_out(effects, Ground::Time, rules, now, &mut says);
        }
        if self.overrides.forced.is_some_and(|(_, end)| end <= now) {
            self.overrides.forced = None;
            self.tell_overrides(&mut says);
        }
        says
    }

    /// It has been asleep, or something else has happened that it can't vouch for.
    pub(crate) fn freeze(&mut self, rules: &Rules, now: Timestamp) -> Says {
        let mut says = Says::default();
        let effects = self.coordinator.suspect(Suspicion::Stall, now);
        self.carry_out(effects, Ground::Time, rules, now, &mut says);
        says
    }

    /// An operator forces the breaker.
    pub(crate) fn force(&mut self, effect: Forced, lasts: Duration, now: Timestamp) -> Says {
        let mut says = Says::default();
        let end = now.plus(lasts);
        self.overrides.forced = Some((effect, end));
        says.happened.push(Happened::Forced { key: (), end });
        self.tell_overrides(&mut says);
        says
    }

    fn tell_overrides(&mut self, says: &mut Says) {
        self.overrides.version += 1;
        for replica in self.heartbeats.keys() {
            says.tell(*replica, self.override_set(*replica));
        }
    }

    /// What is left of the override counts from when the replica's newest heartbeat came: it was sent before.
    fn override_set(&self, replica: usize) -> Down {
        let Overrides { forced, version } = self.overrides;
        let (anchor, came) = self.heartbeats.get(&replica).copied().unwrap_or_default();
        let forced = forced.map(|(effect, end)| (effect, came.until(end)));
        Down::Overrides { term: self.coordinator.term(), version, forced, anchor }
    }

    /// What the store has of operators' words.
    pub(crate) fn stored_overrides(&self) -> Overrides {
        Overrides { version: 1, ..self.overrides }
    }

    /// Reads them again after a restart.
    pub(crate) fn restore(&mut self, overrides: Overrides) {
        self.overrides = overrides;
    }

    /// The policy has changed.
    pub(crate) fn change(&mut self, policy: Revision, rules: &Rules, now: Timestamp) -> Says {
        let mut says = Says::default();
        self.policy = policy;
        if self.coordinator.breaker(&KEY).is_some() {
            let effects = self.coordinator.configure(&KEY, Self::settings(rules, policy), now);
            self.carry_out(effects, Ground::Policy, rules, now, &mut says);
        }
        for replica in self.heartbeats.keys() {
            says.tell(*replica, Down::Policy(policy));
        }
        says
    }

    fn carry_out(&self, effects: Vec<Effect>, ground: Ground, rules: &Rules, now: Timestamp, says: &mut Says) {
        let mut decided = None;
        for effect in effects {
            match effect {
                Effect::Transition { key: _, from, to: _, cause, detail: _, evidence } => {
                    let ground = match cause {
                        "adopted" => Ground::Inherited,
                        "leases_lapsed" => Ground::Lapse,
                        _ => ground,
                    };
                    decided = Some((from, ground, evidence.witness_instances));
                }
                Effect::Verdict { key: _, to, decision } => {
                    if let Some((from, ground, witnesses)) = decided.take() {
                        says.happened.push(Happened::Decided {
                            key: (),
                            run: self.run().get(),
                            fence: decision.fence,
                            from,
                            to: decision.state,
                            ground,
                            mode: rules.coordination.mode(),
                            witnesses,
                            phase: self.phase(),
                        });
                    }
                    for replica in self.recipients(&to) {
                        self.push_verdict(replica, &decision, rules, now, says);
                    }
                }
                Effect::Permit { key: _, member: holder, id, fence, ttl } => {
                    says.happened.push(Happened::Granted {
                        key: (),
                        probe: ProbeId { term: fence.term, id },
                        ttl,
                        bound: rules.probes,
                        phase: self.phase(),
                    });
                    if rules.mutation == Some(Mutation::PermitTwice) {
                        for replica in self.heartbeats.keys().filter(|replica| **replica != number(&holder)) {
                            self.push_permit(*replica, ProbeId { term: fence.term, id }, fence.rev, ttl, says);
                        }
                    }
                    self.push_permit(number(&holder), ProbeId { term: fence.term, id }, fence.rev, ttl, says);
                }
                // Heartbeats come at any time in this model, as answers to a canvass would.
                Effect::Canvass { .. } | Effect::Held { .. } | Effect::Mode { .. } => {}
            }
        }
    }

    fn recipients(&self, to: &Recipients) -> Vec<usize> {
        let holders = self.coordinator.holders(&KEY).filter(|member| member.incarnation == 1);
        match to {
            Recipients::Holders => holders.map(number).collect(),
            Recipients::One(member) => vec![number(member)],
        }
    }

    fn push_verdict(&self, replica: usize, decision: &Decision, rules: &Rules, now: Timestamp, says: &mut Says) {
        let Some((anchor, _)) = self.heartbeats.get(&replica).copied() else { return };
        let Decision { fence, state, admit_permille, half_open_at, policy_revision, reason: _ } = *decision;
        let verdict = Down::Verdict {
            fence,
            state,
            permille: admit_permille,
            lease: rules.lease,
            anchor,
            policy: policy_revision,
            half_open_in: half_open_at.map(|at| now.until(at)),
        };
        says.tell(replica, verdict);
        says.happened.push(Happened::Affirmed { member: replica, key: (), fence, lease: rules.lease });
    }

    fn push_permit(&self, replica: usize, probe: ProbeId, rev: u64, ttl: Duration, says: &mut Says) {
        let Some((anchor, _)) = self.heartbeats.get(&replica).copied() else { return };
        says.tell(replica, Down::Permit { probe, rev, ttl, anchor });
    }
}
