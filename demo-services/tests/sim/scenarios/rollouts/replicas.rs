//! Replicas are cut off, come, go and restart while a rollout is in progress.

use std::time::Duration;

use fusebox_control_plane::rollouts::machine::State;
use fusebox_proto::v1::{self, rollout_stage::Selector};

use super::{
    super::{NAMES, POLICY, TEN, fleet, millis, secs, some_trouble, ten},
    few_calls, harmful, harmless, no_calls, start,
};
use crate::{
    faults::{self, Fault},
    operator::Order,
    replica::Replica,
    seeds,
    stager::{Step, named, stages},
    stored::is_selected,
    target::Health,
    world::{PLANE, Scenario},
};

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
