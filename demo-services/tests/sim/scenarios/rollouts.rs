//! A new revision goes to some replicas first. That nobody is ever sent or runs what its stage does not give it, and that no stage is
//! promoted against its gates, is held against every run of every story.

use std::{sync::Arc, time::Duration};

use fusebox_control_plane::{rollouts::machine::State, store::StoredRollout};
use fusebox_proto::{
    sync::v1::{SyncResponse, sync_response::Message as Down},
    v1::{self, rollout_stage::Selector},
};

use super::{NAMES, POLICY, TEN, down, fleet, millis, openings, secs, some_trouble, ten};
use crate::{
    disk::Health as Disk,
    faults::{self, Fault},
    history::{Taken, What},
    operator::Order,
    relay::Meddler,
    replica::Replica,
    seeds,
    stager::{Step, named, stages},
    stored::is_selected,
    target::Health,
    world::{PLANE, Run, Scenario},
};

/// A definition that does as well as the one in force.
fn harmless() -> String {
    POLICY.replace("timeout: 300ms", "timeout: 400ms")
}

/// One that gives up before service B can answer.
fn harmful() -> String {
    POLICY.replace("timeout: 300ms", "timeout: 2ms")
}

/// No more calls of either side than a short story has.
fn few_calls(spec: v1::RolloutSpec) -> v1::RolloutSpec {
    v1::RolloutSpec { gates: Some(v1::RolloutGates { margin_points: 20, min_calls: Some(5) }), ..spec }
}

/// Whatever fails: replicas that make no calls promote too.
fn no_calls(spec: v1::RolloutSpec) -> v1::RolloutSpec {
    v1::RolloutSpec { gates: Some(v1::RolloutGates { margin_points: 20, min_calls: Some(0) }), ..spec }
}

fn by_itself(spec: v1::RolloutSpec) -> v1::RolloutSpec {
    v1::RolloutSpec { auto: true, ..spec }
}

fn start(policy: String, spec: v1::RolloutSpec) -> Order {
    Order::Rollout(Step::Start(policy, spec))
}

impl Run {
    /// What became of the rollout, step by step.
    fn steps(&self) -> Vec<(Duration, &StoredRollout)> {
        let steps = self.events.iter().filter_map(|event| match &event.what {
            What::Stored(stored) => Some((event.at, stored.stepped.as_ref()?)),
            _ => None,
        });
        steps.collect()
    }

    /// The first step to this state.
    fn came_to(&self, state: State) -> Option<(Duration, &StoredRollout)> {
        self.steps().into_iter().find(|(_, rollout)| rollout.standing.state == state)
    }

    /// The numbers of service B's policy that a replica has shown.
    fn ran(&self, name: &str) -> Vec<u64> {
        let mut numbers: Vec<u64> = self.shown(name).iter().map(|(_, shown)| shown.policy_revision).collect();
        numbers.retain(|number| *number > 0);
        numbers.dedup();
        numbers
    }

    fn ends_with(&self, name: &str) -> (u64, u64) {
        let last = self.shown(name).last().unwrap_or_else(|| panic!("{name} shows nothing")).1;
        (last.revision, last.policy_revision)
    }

    fn newest(&self) -> u64 {
        let stored = self.events.iter().filter_map(|event| match &event.what {
            What::Stored(stored) => Some(stored.revision),
            _ => None,
        });
        stored.max().expect("something is stored")
    }

    /// What operators were told when a step was not made.
    fn refusals(&self) -> Vec<&str> {
        let told = self.events.iter().filter_map(|event| match &event.what {
            What::Ordered(Taken::Refused { why }) => Some(&**why),
            _ => None,
        });
        told.collect()
    }
}

/// Cannot use the candidate, as an SDK that is too old for it.
fn refuses_the_candidate(replica: &Replica) -> Option<Meddler> {
    let spoil = |policy: &mut v1::Policy| {
        let spec = policy.spec.iter_mut().flat_map(|spec| &mut spec.pipeline);
        for strategy in spec {
            if let Some(v1::strategy::Kind::Timeout(timeout)) = &mut strategy.kind
                && timeout.duration.is_some_and(|duration| duration.nanos == 400_000_000)
            {
                timeout.duration = Some(prost_types::Duration { seconds: -1, nanos: 0 });
            }
        }
    };
    let down = move |mut message: SyncResponse| {
        match &mut message.message {
            Some(Down::PolicyChunk(chunk)) => chunk.policies.iter_mut().for_each(spoil),
            Some(Down::Delta(delta)) => delta.upserted.iter_mut().for_each(spoil),
            _ => {}
        }
        vec![message]
    };
    (replica.name == "a-2").then(|| Meddler { down: Box::new(down), ..Meddler::default() })
}

#[test]
fn a_candidate_that_a_replica_refuses_is_not_promoted_whoever_asks() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        scenario.meddle = Some(Arc::new(refuses_the_candidate));
        let at = millis(rng, 3_000, 5_000);
        let spec = no_calls(stages(Duration::ZERO, vec![named(&["a-1", "a-2"]), named(&["a-3"])]));
        let spec = if rng.bool() { by_itself(spec) } else { spec };
        scenario.orders.push((at, start(harmless(), spec)));
        scenario.orders.push((at + millis(rng, 300, 2_000), Order::Rollout(Step::Promote { force: false })));
        scenario.orders.push((at + secs(4), Order::Rollout(Step::Abort)));
        if rng.bool() {
            // Who comes back refuses it again.
            scenario.faults = vec![(at + secs(1), Fault::Crash("a-2")), (at + secs(2), Fault::Bounce("a-2"))];
        }
        scenario.calm = at + secs(6);
        scenario
    };
    seeds::run(2, make, |run| {
        let (_, paused) = run.came_to(State::Paused).expect("a refusal stops it");
        assert!(paused.standing.reason.contains("rejected failed"), "{}", paused.standing.reason);
        assert_eq!(run.refusals().len(), 1, "nobody promotes it");
        assert!(run.came_to(State::Promoted).is_none());
        assert_eq!(run.ran("a-1"), [1, 2, 1]);
        for name in ["a-2", "a-3", "a-4"] {
            assert!(!run.ran(name).contains(&2), "{name} runs what it ran");
        }
        for name in NAMES {
            assert_eq!(run.ends_with(name).0, run.newest(), "{name}");
        }
    });
}

#[test]
fn a_candidate_that_does_harm_is_taken_back_by_its_gate_and_the_others_never_notice() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let spec = few_calls(stages(secs(12), vec![named(&["a-1"]), Selector::Percent(50)]));
        let spec = v1::RolloutSpec { auto: rng.bool(), abort_on_failure: true, ..spec };
        let at = millis(rng, 3_000, 5_000);
        scenario.orders.push((at, start(harmful(), spec)));
        scenario.calm = at + secs(10);
        scenario
    };
    seeds::run(2, make, |run| {
        let (at, aborted) = run.came_to(State::Aborted).expect("its gate ends it");
        let reason = &aborted.standing.reason;
        assert!(reason.contains("trips failed") || reason.contains("failures failed"), "{reason}");
        assert_eq!(aborted.standing.stage, 0);
        let (begun, _) = run.steps()[0];
        assert!(at - begun < secs(6), "from {begun:?} to {at:?}");
        assert_eq!(run.ran("a-1"), [1, 2, 1], "a new revision of the store, and the former definition");
        for name in &NAMES[1..] {
            assert_eq!(run.ran(name), [1], "{name}");
            assert!(run.shown(name).iter().all(|(_, shown)| !shown.is_held()), "{name} has nothing to do with it");
            assert_eq!(run.ends_with(name).0, run.newest(), "{name}");
        }
    });
}

#[test]
fn a_fleet_that_opens_while_a_stage_bakes_stops_the_rollout_and_an_abort_leaves_it_open() {
    let make = |rng: &mut fastrand::Rng| {
        let falls = millis(rng, 8_000, 10_000);
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), falls, falls + secs(12)));
        let spec = by_itself(few_calls(stages(secs(20), vec![named(&["a-4"])])));
        scenario.orders.push((secs(4), start(harmless(), spec)));
        scenario.orders.push((falls + secs(6), Order::Rollout(Step::Abort)));
        scenario.calm = falls + secs(12);
        scenario
    };
    seeds::run(2, make, |run| {
        let opened = *openings(run).first().expect("it is an outage");
        let (at, paused) = run.came_to(State::Paused).expect("an outage is no time for a rollout");
        assert!(paused.standing.reason.contains("fleet_opens failed"), "{}", paused.standing.reason);
        assert!(at >= opened && at - opened < secs(2), "opened at {opened:?}, paused at {at:?}");
        let (aborted, _) = run.came_to(State::Aborted).expect("the operator gives it up");
        for name in &NAMES[..3] {
            assert_eq!(run.ran(name), [1], "{name}");
            let before = run.shown_at(name, aborted - Duration::from_millis(20));
            let after = run.shown_at(name, aborted + Duration::from_millis(200));
            assert!(!before.is_held() || after.is_held(), "{name} is protected through the abort: {before}; {after}");
        }
    });
}

/// In each state in which a rollout can be, and more than once.
#[test]
fn a_control_plane_that_dies_in_any_state_of_a_rollout_goes_on_where_it_was() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(ten(), POLICY);
        let spec =
            no_calls(stages(Duration::ZERO, vec![named(&["a-1"]), Selector::Percent(30), Selector::Percent(70)]));
        let end = if rng.bool() { Step::Abort } else { Step::Promote { force: true } };
        let steps = [
            Step::Start(harmless(), spec),
            Step::Promote { force: true },
            Step::Pause,
            Step::Resume,
            Step::Promote { force: true },
            end,
        ];
        let mut at = secs(3);
        for step in steps {
            scenario.orders.push((at, Order::Rollout(step)));
            // Before anybody has heard of it, before all have, or after that.
            let crash = at + millis(rng, 0, 600);
            let back = crash + millis(rng, 20, 1_500);
            scenario.faults.extend([(crash, Fault::Crash(PLANE)), (back, Fault::Bounce(PLANE))]);
            at = back + millis(rng, 300, 2_500);
        }
        scenario.calm = at;
        scenario
    };
    seeds::run(2, make, |run| {
        let steps = run.steps();
        let states: Vec<_> = steps.iter().map(|(_, own)| (own.standing.stage, own.standing.state)).collect();
        let way =
            [(0, State::Running), (1, State::Running), (1, State::Paused), (1, State::Running), (2, State::Running)];
        assert_eq!(states[..5], way, "each step is made once");
        assert_eq!(states.len(), 6, "{states:?}");
        let told = run.events.iter().filter_map(|event| match event.what {
            What::Ordered(Taken::Stepped { state, stage }) => Some((stage, state)),
            _ => None,
        });
        let (running, paused) = (v1::RolloutState::Running, v1::RolloutState::Paused);
        let told: Vec<_> = told.collect();
        assert_eq!(
            told[..5],
            [(1, running), (2, running), (2, paused), (2, running), (3, running)],
            "and told as it is"
        );
        let kept = if states[5].1 == State::Promoted { 2 } else { 1 };
        for name in TEN {
            assert_eq!(run.ends_with(name), (run.newest(), kept), "{name}");
        }
    });
}

#[test]
fn a_rollout_that_promotes_itself_comes_to_its_end_however_often_the_control_plane_dies() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let bake = millis(rng, 500, 2_500);
        let spec = by_itself(few_calls(stages(bake, vec![named(&["a-1"]), Selector::Percent(40)])));
        let at = millis(rng, 3_000, 6_000);
        scenario.orders.push((at, start(harmless(), spec)));
        scenario.faults = faults::crashes(rng, at, at + secs(20));
        scenario.calm = at + secs(45);
        scenario
    };
    seeds::run(2, make, |run| {
        let (_, promoted) = run.came_to(State::Promoted).unwrap_or_else(|| panic!("{:?}", run.steps().last()));
        assert_eq!(promoted.standing.reason, "all gates pass");
        for name in &NAMES[..3] {
            assert_eq!(run.ends_with(name), (run.newest(), 2), "{name}");
        }
    });
}

/// Of ten, all selected, one hears nothing: nine are less than 95 % of the live. When it is lost, or hears again, the stage is left.
#[test]
fn a_stage_is_held_until_95_percent_of_the_live_run_the_candidate() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(ten(), POLICY);
        let at = millis(rng, 5_000, 7_000);
        let cut = *rng.choice(TEN).expect("there are some");
        let spec = by_itself(no_calls(stages(Duration::ZERO, vec![named(TEN)])));
        scenario.orders.push((at, start(harmless(), spec)));
        scenario.faults = vec![
            (at - Duration::from_millis(100), Fault::OneWay(PLANE, cut)),
            (at + millis(rng, 3_000, 20_000), Fault::Repair(PLANE, cut)),
        ];
        scenario.calm = at + secs(21);
        scenario
    };
    seeds::run(2, make, |run| {
        let (begun, _) = run.steps()[0];
        let (at, _) = run.came_to(State::Promoted).expect("nobody is cut off for ever");
        // Heartbeats that nobody answers are what tells that a stream is dead.
        assert!(at - begun > secs(1), "from {begun:?} to {at:?}: nine of ten are too few");
        for name in TEN {
            assert_eq!(run.ends_with(name), (run.newest(), 2), "{name}");
        }
    });
}

#[test]
fn a_part_of_the_fleet_that_is_cut_off_has_what_it_is_to_have_when_it_is_back() {
    let make = |rng: &mut fastrand::Rng| {
        let replicas = TEN
            .iter()
            .enumerate()
            .map(|(index, name)| Replica::busy(name).every(300).in_zone(if index < 5 { "z1" } else { "z2" }));
        let mut scenario = Scenario::new(replicas.collect(), POLICY);
        let at = millis(rng, 3_000, 5_000);
        let spec = no_calls(stages(Duration::ZERO, vec![Selector::Zone("z2".to_owned()), Selector::Percent(50)]));
        scenario.orders.push((at, start(harmless(), spec)));
        scenario.orders.push((at + millis(rng, 500, 4_000), Order::Rollout(Step::Promote { force: true })));
        let end = if rng.bool() { Step::Abort } else { Step::Promote { force: true } };
        scenario.orders.push((at + millis(rng, 5_000, 12_000), Order::Rollout(end)));
        for name in &TEN[3..8] {
            let cut = at + millis(rng, 0, 4_000);
            scenario.faults.push((cut, Fault::Partition(PLANE, name)));
            scenario.faults.push((at + millis(rng, 6_000, 14_000), Fault::Repair(PLANE, name)));
        }
        scenario.calm = at + secs(14);
        scenario
    };
    seeds::run(2, make, |run| {
        let kept = if run.came_to(State::Promoted).is_some() { 2 } else { 1 };
        for name in TEN {
            assert_eq!(run.ends_with(name), (run.newest(), kept), "{name}");
        }
    });
}

#[test]
fn replicas_that_come_and_go_during_a_rollout_have_at_once_what_the_hash_gives_them() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(ten(), POLICY);
        scenario.caches = rng.bool();
        // Some join in the middle.
        for name in &TEN[6..] {
            scenario.faults.push((Duration::ZERO, Fault::Crash(name)));
            scenario.faults.push((millis(rng, 4_000, 14_000), Fault::Bounce(name)));
        }
        // Some restart.
        for name in &TEN[..6] {
            let at = millis(rng, 4_000, 14_000);
            scenario.faults.push((at, Fault::Crash(name)));
            scenario.faults.push((at + millis(rng, 20, 3_000), Fault::Bounce(name)));
        }
        let spec = no_calls(stages(Duration::ZERO, vec![Selector::Percent(20), Selector::Percent(60)]));
        scenario.orders.push((secs(3), start(harmless(), spec)));
        let mut at = secs(3);
        for step in [Step::Pause, Step::Resume, Step::Promote { force: true }, Step::Pause, Step::Abort] {
            at += millis(rng, 500, 3_000);
            scenario.orders.push((at, Order::Rollout(step)));
        }
        scenario.calm = secs(20);
        scenario
    };
    seeds::run(2, make, |run| {
        let (_, aborted) = run.came_to(State::Aborted).expect("it is given up");
        let (selected, others): (Vec<&str>, Vec<&str>) =
            TEN.iter().copied().partition(|name| is_selected(aborted, &Replica::busy(name)));
        assert!(!selected.is_empty() && !others.is_empty(), "{selected:?} and {others:?}");
        assert!(selected.iter().any(|name| run.ran(name).contains(&2)), "some of {selected:?} have tried it");
        for name in TEN {
            assert_eq!(run.ends_with(name), (run.newest(), 1), "{name}");
        }
    });
}

/// A policy that is new: the others have none, and after an abort nobody has.
#[test]
fn a_policy_that_is_new_is_taken_from_those_who_tried_it() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        scenario.caches = rng.bool();
        let spec = no_calls(stages(Duration::ZERO, vec![named(&["a-1", "a-2"])]));
        let at = millis(rng, 1_000, 3_000);
        // The only policy there is.
        scenario.orders = vec![(at, start(POLICY.to_owned(), spec)), (at + secs(4), Order::Rollout(Step::Abort))];
        let away = at + millis(rng, 1_000, 3_500);
        scenario.faults = vec![(away, Fault::Partition(PLANE, "a-2")), (at + secs(9), Fault::Repair(PLANE, "a-2"))];
        if rng.bool() {
            // A server that has forgotten what was before sends everything.
            scenario.faults.extend([(at + secs(6), Fault::Crash(PLANE)), (at + secs(7), Fault::Bounce(PLANE))]);
        }
        scenario.calm = at + secs(9);
        scenario
    };
    seeds::run(2, make, |run| {
        assert_eq!(run.ran("a-1")[..1], [1]);
        for name in NAMES {
            assert_eq!(run.ends_with(name), (run.newest(), 0), "{name} has no policy in the end");
        }
        assert!(run.ran("a-3").is_empty(), "it was never selected");
    });
}

#[test]
fn a_disk_that_fails_during_a_rollout_loses_no_step_and_makes_none_twice() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let spec = no_calls(stages(Duration::ZERO, vec![named(&["a-1"]), named(&["a-2"])]));
        let mut at = secs(3);
        for step in
            [Step::Start(harmless(), spec), Step::Pause, Step::Resume, Step::Promote { force: true }, Step::Abort]
        {
            let ill = if rng.bool() { Disk::Refuses } else { Disk::Forgets };
            scenario.faults.push((at, Fault::Disk(ill)));
            scenario.orders.push((at + millis(rng, 50, 200), Order::Rollout(step)));
            at += millis(rng, 500, 2_500);
            scenario.faults.push((at, Fault::Disk(Disk::Well)));
            at += millis(rng, 500, 2_000);
        }
        scenario.calm = at;
        scenario
    };
    seeds::run(2, make, |run| {
        let states: Vec<_> = run.steps().iter().map(|(_, own)| (own.standing.stage, own.standing.state)).collect();
        let (running, paused) = (State::Running, State::Paused);
        assert_eq!(states, [(0, running), (0, paused), (0, running), (1, running), (1, State::Aborted)]);
        assert!(run.refusals().is_empty(), "{:?}", run.refusals());
        for name in &NAMES[..3] {
            assert_eq!(run.ends_with(name), (run.newest(), 1), "{name}");
        }
    });
}

#[test]
fn whatever_happens_during_a_rollout_everybody_has_what_its_stage_gives_it() {
    let make = |rng: &mut fastrand::Rng| {
        let until = secs(40);
        let period = millis(rng, 4_000, 15_000);
        let how = some_trouble(rng);
        let mut scenario = Scenario::new(fleet(), POLICY).script(move |at, _| {
            let falls = (at.as_millis() / period.as_millis()) % 3 == 2;
            if falls && at < until { how } else { Health::Well }
        });
        scenario.caches = rng.bool();
        scenario.faults = faults::bad_links(rng, NAMES, secs(2), until);
        scenario.faults.extend(faults::crashes(rng, secs(4), until));
        for name in &NAMES[..2] {
            let at = millis(rng, 5_000, 35_000);
            scenario.faults.extend([(at, Fault::Crash(name)), (at + millis(rng, 20, 5_000), Fault::Bounce(name))]);
        }
        let mut at = secs(3);
        for _ in 0..2 {
            let policy = if rng.bool() { harmless() } else { harmful() };
            let spec = few_calls(stages(millis(rng, 0, 3_000), vec![named(&["a-1"]), Selector::Percent(50)]));
            let spec = v1::RolloutSpec { auto: rng.bool(), abort_on_failure: rng.bool(), ..spec };
            scenario.orders.push((at, start(policy, spec)));
            for _ in 0..4 {
                at += millis(rng, 500, 4_000);
                let step = match rng.u8(0..6) {
                    0 => Step::Pause,
                    1 => Step::Resume,
                    2 => Step::Promote { force: true },
                    _ => Step::Promote { force: false },
                };
                scenario.orders.push((at, Order::Rollout(step)));
            }
            at += millis(rng, 500, 4_000);
            scenario.orders.push((at, Order::Rollout(Step::Abort)));
        }
        // However the rollouts have ended, all are to have this.
        scenario.orders.push((until, Order::Apply(POLICY.replace("delay: 2s", "delay: 1s"))));
        scenario.calm = until + secs(5);
        scenario
    };
    seeds::run(3, make, |run| {
        let ended = run.steps().into_iter().filter(|(_, own)| !own.standing.state.in_progress()).count();
        assert!(ended >= 1, "a rollout has come to its end");
    });
}
