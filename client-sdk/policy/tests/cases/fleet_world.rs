//! A coordinator and several replicas with a bad network between them, in any order of events: what holds, holds.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fusebox_policy::{
    Draw, Revision, Timestamp, Zone,
    breaker::{BreakerInput, BreakerSpec, HalfOpenSpec, RateRule, TripRules},
    condition::Class,
    fleet::{
        BreakerKey, Coordination, CoordinationMode, CoordinationScope, Coordinator,
        coordinator::{Decision, Effect, Holding, Limits, Mode, Recipients, Sighting, Suspicion},
        evidence::{MemberId, Report},
        gate::{Forced, Gate, GateEffect, ProbeId},
        held::{Fence, HeldPermit, Override, Taken, Verdict},
        invariants::{self, Step},
        shared::{FleetState, ProbeResult, Settings},
    },
};
use proptest::prelude::*;

use crate::{
    breaker_closed::ending,
    driver::{breaker_input, breaker_spec, ms},
    fleet_driver::{Fleet, causes, key, permits, run, settings},
    fleet_rule::{member, saw, tripped},
};

/// On its way to a replica. Times are of the replica's own sending, which anchors them.
#[derive(Clone, Debug)]
enum Message {
    Verdict(Decision, Timestamp),
    Permit(ProbeId, Fence, Timestamp),
    Renewal(Fence, Timestamp),
}

pub(crate) struct Replica {
    id: MemberId,
    key: BreakerKey,
    pub(crate) gate: Gate,
    connected: bool,
    /// Cut off, until a test says otherwise.
    away: bool,
    seq: u64,
    /// When its newest heartbeat left.
    sent: Timestamp,
    inbox: VecDeque<Message>,
    sick: bool,
    /// Its process stands still, in the rounds.
    paused: bool,
}

pub(crate) struct World {
    pub(crate) coordinator: Coordinator,
    settings: Settings,
    pub(crate) replicas: Vec<Replica>,
    pub(crate) now: Timestamp,
    pub(crate) well: bool,
    draws: u64,
}

proptest! {
    /// S12: what comes twice, or later than what was sent after it, changes no decision.
    #[test]
    fn repeated_and_late_reports_change_no_decision(
        reports in prop::collection::vec((0..4_usize, 0..3_u8, 0..800_u64, any::<prop::sample::Index>()), 1..60),
    ) {
        let mut once = Fleet::new(CoordinationMode::Balanced);
        for number in 0..4 {
            once.join(&member(number), None, 0);
        }
        let mut again = once.coordinator.clone();
        let mut told: Vec<(MemberId, Sighting)> = Vec::new();
        let (mut now, key) = (Timestamp::ZERO, once.key.clone());
        for (seq, (who, what, passes, which)) in (1..).zip(reports) {
            now = now.plus(ms(passes));
            let report = match what {
                0 => tripped(5),
                1 => saw(20, 0),
                _ => Report { rejected: 1, ..tripped(5) },
            };
            let fence = once.coordinator.newest(&key).map(|newest| newest.fence).unwrap_or_default();
            let held = Holding { fence, ..Holding::default() };
            let sighting = Sighting { seq, report, policy_revision: Revision(1), held };
            told.push((member(who), sighting.clone()));
            once.coordinator.report(&key, &member(who), sighting.clone(), now, Draw::ZERO);
            again.report(&key, &member(who), sighting, now, Draw::ZERO);
            // One of all that was said so far, once more.
            let (late, old) = told[which.index(told.len())].clone();
            again.report(&key, &late, old, now, Draw::ZERO);
            prop_assert!(invariants::same_decisions(&once.coordinator, &again));
        }
    }
}

/// L6: the target fails as soon as it is released, and is well as soon as it is probed.
#[test]
fn a_breaker_that_flaps_as_fast_as_it_can_keeps_to_its_bound() {
    let input = BreakerInput { delay: ms(500), delay_factor: 1.0, ..breaker_input(5) };
    let settings = Settings { breaker: breaker_spec(input), ..settings(CoordinationMode::Balanced) };
    let most = invariants::most_transitions_per_hour(&settings.breaker);
    let mut fleet = Fleet::with(settings);
    let mut changes = 0;
    for millis in (0..3_600_000).step_by(100) {
        let mut effects = fleet.tick(millis);
        for number in 0..2 {
            effects.extend(fleet.report(number, Report { rejected: 1, ..tripped(5) }, millis));
        }
        while let Some(permit) = permits(&effects).last().copied().filter(|_| fleet.state() == FleetState::HalfOpen) {
            changes += causes(&effects).len();
            effects = fleet.probe(permit, ProbeResult::Success, millis);
        }
        changes += causes(&effects).len();
    }
    assert!((1000..=most).contains(&(changes as u128)), "{changes} changes, {most} may be");
}

/// Short, so that much happens in little time.
fn limits() -> Limits {
    Limits { lease: ms(3000), permit_ttl: ms(3000), grace: ms(1000), ..Limits::default() }
}

const ZONES: [&str; 2] = ["zone-a", "zone-b"];

fn spec(ramp: bool, concurrent_probes: u32) -> Arc<BreakerSpec> {
    breaker_spec(BreakerInput {
        trip: TripRules {
            failure_rate: Some(RateRule { percent: 50, min_calls: 4 }),
            failures: None,
            consecutive_failures: Some(3),
            slow_call_rate: None,
        },
        half_open: HalfOpenSpec { probes: 4, concurrent_probes, successes: 3, max_duration: Some(ms(1500)) },
        // Shorter than a permit lives.
        delay: ms(500),
        delay_max: Some(ms(4000)),
        ramp: ramp.then(|| ms(4000)),
        ..BreakerInput::default()
    })
}

impl World {
    pub(crate) fn new(ramp: bool, concurrent_probes: u32) -> Self {
        let coordination =
            Coordination::try_new(CoordinationMode::Balanced, CoordinationScope::Zone, false, None, None).unwrap();
        let settings = Settings { breaker: spec(ramp, concurrent_probes), coordination, policy_revision: Revision(1) };
        let replicas = (0..6).map(|number| Replica {
            id: member(number),
            key: key("service-b", Some(ZONES[number % 2])),
            gate: Gate::new(Arc::clone(&settings.breaker), Revision(1)),
            connected: false,
            away: false,
            seq: 0,
            sent: Timestamp::ZERO,
            inbox: VecDeque::new(),
            sick: false,
            paused: false,
        });
        let replicas = replicas.collect();
        let coordinator = Coordinator::new(1, run(1), Timestamp::ZERO, limits());
        let mut world = Self { coordinator, settings, replicas, now: Timestamp::ZERO, well: true, draws: 0 };
        for number in 0..6 {
            world.connect(number);
        }
        world
    }

    fn draw(&mut self) -> Draw {
        self.draws += 1;
        Draw::ZERO.of(usize::try_from(self.draws).unwrap())
    }

    /// Does a step of the coordinator, and checks it.
    pub(crate) fn step(&mut self, step: &Step, act: impl FnOnce(&mut Coordinator, Timestamp, Draw) -> Vec<Effect>) {
        let draw = self.draw();
        let before = self.coordinator.clone();
        let effects = act(&mut self.coordinator, self.now, draw);
        invariants::check_step(&before, step, &effects, &self.coordinator).unwrap();
        for effect in effects {
            match effect {
                Effect::Verdict { key, to, decision } => {
                    let to: Vec<MemberId> = match to {
                        Recipients::Holders => self.coordinator.holders(&key).cloned().collect(),
                        Recipients::One(who) => vec![who],
                    };
                    for who in to {
                        self.send(&who, |sent| Message::Verdict(decision.clone(), sent));
                    }
                }
                Effect::Permit { member, id, fence, ttl, .. } => {
                    let probe = ProbeId { term: fence.term, id };
                    self.send(&member, |sent| Message::Permit(probe, fence, sent.plus(ttl)));
                }
                Effect::Canvass { .. } | Effect::Transition { .. } | Effect::Held { .. } | Effect::Mode { .. } => {}
            }
        }
    }

    fn send(&mut self, to: &MemberId, message: impl FnOnce(Timestamp) -> Message) {
        if let Some(replica) = self.replicas.iter_mut().find(|replica| replica.id == *to && replica.connected) {
            replica.inbox.push_back(message(replica.sent));
        }
    }

    fn connect(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        if replica.connected {
            return;
        }
        replica.connected = true;
        replica.seq = 0;
        replica.sent = self.now;
        replica.gate.announce();
        let (id, key) = (replica.id.clone(), replica.key.clone());
        let seen = replica.gate.held().highest().term;
        if seen > self.coordinator.term() {
            self.step(&Step::Other, |coordinator, now, _| coordinator.raise_term(seen + 1, now));
        }
        self.coordinator.join(&key.caller_id(), &id, key.zone.as_ref(), self.now);
    }

    fn disconnect(&mut self, number: usize) {
        let replica = &mut self.replicas[number];
        replica.connected = false;
        replica.inbox.clear();
        let (id, caller) = (replica.id.clone(), replica.key.caller_id());
        self.step(&Step::Passed, |coordinator, now, draw| coordinator.leave(&caller, &id, now, draw));
    }

    fn heartbeat(&mut self, number: usize) {
        let now = self.now;
        let replica = &mut self.replicas[number];
        if !replica.connected {
            return;
        }
        replica.seq += 1;
        replica.sent = now;
        if replica.gate.wants_report() {
            let verdict = replica.gate.held().verdict().cloned();
            let held = Holding {
                fence: replica.gate.held().highest(),
                state: verdict.as_ref().map(|verdict| verdict.state),
                half_open_in: verdict.and_then(|verdict| verdict.half_open_at).map(|at| now.until(at)),
            };
            let sighting =
                Sighting { seq: replica.seq, report: replica.gate.report(now), policy_revision: Revision(1), held };
            let (id, key) = (replica.id.clone(), replica.key.clone());
            if self.coordinator.breaker(&key).is_none() {
                self.coordinator.configure(&key, self.settings.clone(), now);
            }
            self.step(&Step::Told(key.clone()), |coordinator, now, draw| {
                coordinator.report(&key, &id, sighting, now, draw)
            });
        }
        let fence = Fence { term: self.coordinator.term(), rev: self.coordinator.renewable() };
        let until = now.plus(self.coordinator.limits().lease);
        self.replicas[number].inbox.push_back(Message::Renewal(fence, until));
    }

    fn deliver(&mut self, number: usize) {
        let now = self.now;
        let lease = self.coordinator.limits().lease;
        let replica = &mut self.replicas[number];
        let Some(message) = replica.inbox.pop_front() else { return };
        match message {
            Message::Verdict(decision, sent) => {
                let Decision { fence, state, admit_permille, half_open_at, policy_revision, reason } = decision;
                let expires = sent.plus(lease);
                let verdict = Verdict { fence, state, admit_permille, expires, policy_revision, half_open_at, reason };
                let (_, effects) = replica.gate.apply_verdict(verdict, now);
                self.tell(number, effects);
            }
            Message::Permit(probe, fence, expires) => {
                let permit = HeldPermit { id: probe.id, fence, expires };
                if replica.gate.add_permit(permit, now) == Taken::Refused {
                    self.tell(number, vec![GateEffect::Probe(probe, ProbeResult::Inconclusive)]);
                }
            }
            Message::Renewal(fence, until) => replica.gate.renew(fence.term, fence.rev, until, now),
        }
    }

    /// What a replica's gate has to say about probes.
    fn tell(&mut self, number: usize, effects: Vec<GateEffect>) {
        let Replica { id, key, connected: true, .. } = &self.replicas[number] else { return };
        let (id, key) = (id.clone(), key.clone());
        for effect in effects {
            if let GateEffect::Probe(probe, result) = effect {
                self.step(&Step::Told(key.clone()), |coordinator, now, draw| {
                    coordinator.probe_outcome(&key, &id, probe, result, now, draw)
                });
            }
        }
    }

    fn call(&mut self, number: usize) {
        let (now, draw, well) = (self.now, self.draw(), self.well);
        let replica = &mut self.replicas[number];
        let (answer, mut effects) = replica.gate.try_acquire(now, draw);
        if let Ok(pass) = answer {
            let class = if well && !replica.sick { Class::Success } else { Class::Failure };
            effects.extend(replica.gate.record(pass, &ending(class, Duration::ZERO), now, draw));
        }
        self.tell(number, effects);
    }

    fn pass(&mut self, span: Duration) {
        self.now = self.now.plus(span);
        self.step(&Step::Passed, Coordinator::tick);
    }

    /// Every replica notices the time, and keeps its own invariants.
    pub(crate) fn settle(&mut self, before: &[Gate]) {
        let now = self.now;
        for (number, before) in before.iter().enumerate() {
            let draw = self.draw();
            let effects = self.replicas[number].gate.tick(now, draw);
            invariants::check_gate(before, &self.replicas[number].gate, now).unwrap();
            self.tell(number, effects);
        }
        for zone in ZONES {
            let zone = Some(Zone::try_new(zone).unwrap());
            let gates = self.replicas.iter().filter(|replica| replica.key.zone == zone).map(|replica| &replica.gate);
            invariants::check_permits(gates, &self.settings.breaker, now).unwrap();
        }
    }

    pub(crate) fn gates(&self) -> Vec<Gate> {
        self.replicas.iter().map(|replica| replica.gate.clone()).collect()
    }

    pub(crate) fn round(&mut self, millis: u16, calls: u8, hear: u8) {
        let is_in = |mask: u8, number: usize| mask & (1 << number) != 0;
        self.pass(ms(u64::from(millis)));
        for number in 0..self.replicas.len() {
            if self.replicas[number].paused {
                continue;
            }
            if !self.replicas[number].away {
                self.connect(number);
            }
            for _ in 0..if is_in(calls, number) { 3 } else { 0 } {
                self.call(number);
            }
            self.heartbeat(number);
        }
        for number in 0..self.replicas.len() {
            while is_in(hear, number) && !self.replicas[number].paused && !self.replicas[number].inbox.is_empty() {
                self.deliver(number);
            }
        }
    }

    pub(crate) fn restart(&mut self) {
        for replica in &mut self.replicas {
            replica.connected = false;
            replica.inbox.clear();
        }
        let term = self.coordinator.term() + 1;
        self.coordinator = Coordinator::new(term, run(term), self.now, limits());
    }
}

#[derive(Clone, Debug)]
enum Happens {
    /// So many milliseconds in which all send a heartbeat, these call, and these hear what waits for them.
    Round {
        millis: u16,
        calls: u8,
        hear: u8,
    },
    Calls(usize, u8),
    Heartbeat(usize),
    Deliver(usize),
    Pass(u16),
    Disconnect(usize),
    Connect(usize),
    Health(bool),
    Sick(usize, bool),
    Pause(usize, bool),
    Restart,
    Suspect,
    Force(usize, Forced),
}

fn happens() -> impl Strategy<Value = Happens> {
    let who = || 0..6_usize;
    let forced = prop_oneof![Just(Forced::Open), Just(Forced::Closed), Just(Forced::Disabled)];
    prop_oneof![
        20 => (100..1000_u16, any::<u8>(), prop_oneof![1 => Just(u8::MAX), 1 => any::<u8>()])
            .prop_map(|(millis, calls, hear)| Happens::Round { millis, calls, hear }),
        4 => (who(), 1..6_u8).prop_map(|(who, calls)| Happens::Calls(who, calls)),
        2 => who().prop_map(Happens::Heartbeat),
        2 => who().prop_map(Happens::Deliver),
        2 => (0..1500_u16).prop_map(Happens::Pass),
        1 => (3000..20_000_u16).prop_map(Happens::Pass),
        1 => who().prop_map(Happens::Disconnect),
        3 => who().prop_map(Happens::Connect),
        3 => any::<bool>().prop_map(Happens::Health),
        1 => (who(), any::<bool>()).prop_map(|(who, sick)| Happens::Sick(who, sick)),
        5 => (who(), any::<bool>()).prop_map(|(who, paused)| Happens::Pause(who, paused)),
        1 => Just(Happens::Restart),
        1 => Just(Happens::Suspect),
        2 => (who(), forced).prop_map(|(who, effect)| Happens::Force(who, effect)),
    ]
}

proptest! {
    // Each case is a long one.
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever happens in whatever order, every invariant holds; and when the world is well again, everything is released.
    #[test]
    fn invariants_hold_in_any_world_and_a_well_one_comes_back(
        steps in prop::collection::vec(happens(), 1..150),
        ramp in any::<bool>(),
        concurrent_probes in 1..3_u32,
    ) {
        let mut world = World::new(ramp, concurrent_probes);
        for step in steps {
            let before = world.gates();
            match step {
                Happens::Round { millis, calls, hear } => world.round(millis, calls, hear),
                Happens::Calls(who, calls) => (0..calls).for_each(|_| world.call(who)),
                Happens::Heartbeat(who) => world.heartbeat(who),
                Happens::Deliver(who) => world.deliver(who),
                Happens::Pass(millis) => world.pass(ms(u64::from(millis))),
                Happens::Disconnect(who) => {
                    world.replicas[who].away = true;
                    world.disconnect(who);
                }
                Happens::Connect(who) => {
                    world.replicas[who].away = false;
                    world.connect(who);
                }
                Happens::Health(well) => world.well = well,
                Happens::Sick(who, sick) => world.replicas[who].sick = sick,
                Happens::Pause(who, paused) => world.replicas[who].paused = paused,
                Happens::Restart => world.restart(),
                Happens::Suspect => {
                    world.step(&Step::Other, |coordinator, now, _| coordinator.suspect(Suspicion::Stall, now));
                }
                Happens::Force(who, effect) => {
                    let until = world.now.plus(ms(2000));
                    world.replicas[who].gate.set_override(Some(Override { effect, until, reason: String::new() }));
                }
            }
            world.settle(&before);
        }
        // L1: the target is well, there is demand, nothing is lost any more.
        world.well = true;
        for replica in &mut world.replicas {
            replica.sick = false;
        }
        for _ in 0..360 {
            let before = world.gates();
            world.pass(ms(250));
            for number in 0..6 {
                world.connect(number);
                world.call(number);
                world.heartbeat(number);
                while !world.replicas[number].inbox.is_empty() {
                    world.deliver(number);
                }
            }
            world.settle(&before);
        }
        prop_assert_eq!(world.coordinator.mode(), Mode::Deciding);
        for replica in &world.replicas {
            let state = world.coordinator.breaker(&replica.key).map(|breaker| breaker.state());
            prop_assert_eq!(state, Some(FleetState::Released));
            prop_assert!((replica.gate.admission(world.now) - 1.0).abs() < f64::EPSILON, "{:?}", replica.id);
        }
    }
}
