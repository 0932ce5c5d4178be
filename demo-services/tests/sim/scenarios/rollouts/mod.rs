//! A new revision goes to some replicas first. That nobody is ever sent or runs what its stage does not give it, and that no stage is
//! promoted against its gates, is held against every run of every story.

mod plane;
mod replicas;

use std::{sync::Arc, time::Duration};

use fusebox_control_plane::{rollouts::machine::State, store::StoredRollout};
use fusebox_proto::{
    sync::v1::{SyncResponse, sync_response::Message as Down},
    v1::{self, rollout_stage::Selector},
};

use super::{NAMES, POLICY, down, fleet, millis, openings, secs, some_trouble};
use crate::{
    faults::Fault,
    history::{Taken, What},
    operator::Order,
    relay::Meddler,
    replica::Replica,
    seeds,
    stager::{Step, named, stages},
    world::{Run, Scenario},
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
        let steps = self.events.iter().filter_map(|event| {
            let What::Stored(stored) = &event.what else { return None };
            Some((event.at, stored.stepped.as_ref()?))
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
        let stored = self.events.iter().filter_map(|event| {
            let What::Stored(stored) = &event.what else { return None };
            Some(stored.revision)
        });
        stored.max().expect("something is stored")
    }

    /// What operators were told when a step was not made.
    fn refusals(&self) -> Vec<&str> {
        let told = self.events.iter().filter_map(|event| {
            let What::Ordered(Taken::Refused { why }) = &event.what else { return None };
            Some(&**why)
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
