//! The control plane, its disk or its links fail while a rollout is in progress.

use std::time::Duration;

use fusebox_control_plane::rollouts::machine::State;
use fusebox_proto::v1::{self, rollout_stage::Selector};

use super::{
    super::{NAMES, POLICY, TEN, fleet, millis, secs, ten},
    by_itself, few_calls, harmless, no_calls, start,
};
use crate::{
    disk::Health as Disk,
    faults::{self, Fault},
    history::{Taken, What},
    operator::Order,
    seeds,
    stager::{Step, named, stages},
    world::{PLANE, Scenario},
};

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
        let told = run.events.iter().filter_map(|event| {
            let What::Ordered(Taken::Stepped { state, stage }) = event.what else { return None };
            Some((stage, state))
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
