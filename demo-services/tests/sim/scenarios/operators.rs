//! Operators change things while much is going wrong.

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;

use super::{NAMES, POLICY, down, fleet, millis, secs, some_trouble};
use crate::{
    faults::{self, Fault},
    history::{Taken, What},
    operator::Order,
    replica::LOOK_EVERY,
    seeds,
    world::{LATENCY, PLANE, Run, Scenario},
};

#[test]
fn policies_that_change_in_an_outage_reach_everybody_and_void_what_was_said() {
    let make = |rng: &mut fastrand::Rng| {
        let until = secs(30);
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(3), until));
        let mut at = secs(4);
        for change in 0..4 {
            at += millis(rng, 500, 6_000);
            let delay = ["delay: 3s", "delay: 1s", "delay: 2500ms", "delay: 1500ms"][change];
            let mut policy = POLICY.replace("delay: 2s", delay);
            if change == 1 {
                policy.push_str("  onChange: reset\n");
            }
            scenario.orders.push((at, Order::Apply(policy)));
        }
        scenario.faults = faults::bad_links(rng, &NAMES[..2], secs(5), until);
        scenario.calm = until;
        scenario
    };
    seeds::run(2, make, |_| {});
}

/// When an operator asked for an override and when that was taken, for how long it is, and what replicas must show.
fn forced(run: &Run) -> (Duration, Duration, Duration, FleetState) {
    let found = run.events.iter().find_map(|event| {
        let What::Ordered(Taken::Forced { state, asked, length }) = event.what else { return None };
        Some((asked, event.at, length, state))
    });
    found.expect("the operator was heard")
}

#[test]
fn an_override_outlives_the_stream_and_ends_at_its_own_time() {
    let make = |rng: &mut fastrand::Rng| {
        let length = secs(25);
        let mut scenario = Scenario::new(fleet(), POLICY);
        if rng.bool() {
            scenario = scenario.script(down(some_trouble(rng), secs(2), secs(20)));
        }
        let at = millis(rng, 3_000, 6_000);
        scenario.orders.push((at, Order::Force { open: rng.bool(), length }));
        scenario.orders.push((at + secs(1), Order::Overrides));
        let cut = at + millis(rng, 1_500, 3_000);
        if rng.bool() {
            scenario.faults =
                vec![(cut, Fault::Crash(PLANE)), (at + millis(rng, 18_000, 30_000), Fault::Bounce(PLANE))];
        } else {
            for name in NAMES {
                scenario.faults.push((cut, Fault::Partition(PLANE, name)));
                scenario.faults.push((at + millis(rng, 18_000, 30_000), Fault::Repair(PLANE, name)));
            }
        }
        scenario.calm = at + secs(31);
        scenario
    };
    seeds::run(2, make, |run| {
        let (asked, taken, length, state) = forced(run);
        let soon = LOOK_EVERY * 3;
        for name in NAMES {
            for (from, shown) in run.shown(name) {
                // It ends as much too early as the heartbeat that anchors it was on its way.
                let in_force = from > taken + soon && from < asked + length - LATENCY * 4 - LOOK_EVERY;
                assert!(!in_force || shown.fleet == state, "{name} at {from:?}: {shown}");
            }
            assert!(run.shown_at(name, taken + soon).fleet == state, "{name} is told within {soon:?}");
            let end = taken + length + soon;
            let shown = run.shown_at(name, end);
            assert!(!shown.is_forced(), "{name} still obeys at {end:?}: {shown}");
        }
        // L7: all have acknowledged it before the control plane is cut off.
        let acknowledged = run.events.iter().any(|event| {
            matches!(&event.what, What::Ordered(Taken::Overrides { acknowledged, unacknowledged, connected })
                if *acknowledged as usize == NAMES.len() && unacknowledged.is_empty() && connected.len() == NAMES.len())
        });
        assert!(acknowledged, "an override that all obey is acknowledged by all");
    });
}

#[test]
fn a_forced_fleet_is_released_everywhere_when_the_operator_says_so() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), secs(12)));
        let at = millis(rng, 3_000, 6_000);
        scenario.orders.push((at, Order::Force { open: true, length: secs(3600) }));
        scenario.orders.push((at + millis(rng, 2_000, 9_000), Order::Release));
        scenario.faults = faults::bad_links(rng, &NAMES[1..3], secs(3), secs(20));
        scenario.faults.extend(faults::crashes(rng, secs(7), secs(20)));
        scenario.calm = secs(20);
        scenario
    };
    seeds::run(1, make, |run| {
        assert!(run.ever("a-1", FleetState::ForcedOpen));
    });
}

#[test]
fn a_disabled_breaker_lets_every_call_pass_and_opens_no_fleet_until_it_ends_also_over_restarts() {
    let make = |rng: &mut fastrand::Rng| {
        let length = secs(20);
        let outage = secs(30);
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), outage));
        scenario.caches = true;
        // Before it has opened, while it is open, or while it probes.
        let at = millis(rng, 1_500, 7_000);
        scenario.orders.push((at, Order::Disable { length }));
        scenario.orders.push((at + secs(1), Order::Overrides));
        if rng.bool() {
            let crash = at + millis(rng, 2_000, 4_000);
            scenario.faults = vec![(crash, Fault::Crash("a-1")), (crash + secs(1), Fault::Bounce("a-1"))];
        }
        if rng.bool() {
            let crash = at + millis(rng, 2_000, 8_000);
            scenario.faults.extend([(crash, Fault::Crash(PLANE)), (crash + secs(2), Fault::Bounce(PLANE))]);
        }
        scenario.faults.sort_by_key(|(at, _)| *at);
        scenario.calm = outage;
        scenario
    };
    seeds::run(2, make, |run| {
        let (asked, taken, length, _) = forced(run);
        let soon = LOOK_EVERY * 3;
        let away = |name: &str, at: Duration| {
            run.faults().iter().any(|(from, fault)| {
                matches!(fault, Fault::Crash(who) if *who == name) && at >= *from && at < *from + secs(1) + soon
            })
        };
        for name in NAMES {
            for (from, shown) in run.shown(name) {
                // It ends as much too early as the heartbeat that anchors it was on its way.
                let in_force = from > taken + soon && from < asked + length - LATENCY * 4 - LOOK_EVERY;
                assert!(
                    !in_force || away(name, from) || shown.fleet == FleetState::Disabled,
                    "{name} at {from:?}: {shown}"
                );
                assert!(!in_force || away(name, from) || !shown.refuses, "{name} at {from:?}: {shown}");
            }
            let end = taken + length + soon;
            assert!(!run.shown_at(name, end).is_forced(), "{name} still obeys at {end:?}");
        }
        // What they do not look at opens nothing, though every call fails. A server that starts anew goes on with what it finds.
        let goes_on = run.faults().iter().any(|(_, fault)| matches!(fault, Fault::Crash(PLANE)));
        let quiet = taken + soon..asked + length - soon;
        let opened = run.events.iter().any(|event| {
            matches!(&event.what, What::Logged { from, to, .. } if from == "released" && to == "open")
                && quiet.contains(&event.at)
        });
        assert!(!opened || goes_on, "the fleet opens on what disabled breakers see");
        // Afterwards they look again.
        let held = run.shown("a-2").iter().any(|(at, shown)| *at > asked + length && shown.refuses);
        assert!(held, "a-2 is protected again");
    });
}

#[test]
fn who_has_not_heard_of_an_override_is_listed() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let at = millis(rng, 3_000, 6_000);
        // It is connected, and does not hear it yet.
        scenario.faults = vec![(at, Fault::OneWay(PLANE, "a-2")), (at + secs(2), Fault::Repair(PLANE, "a-2"))];
        scenario.orders.push((at + millis(rng, 100, 300), Order::Force { open: true, length: secs(8) }));
        scenario.orders.push((at + millis(rng, 600, 1_500), Order::Overrides));
        scenario.calm = at + secs(10);
        scenario
    };
    seeds::run(1, make, |run| {
        // L7, for each look of an operator, is that nobody is missing on both lists.
        let listed = run.events.iter().any(|event| {
            matches!(&event.what, What::Ordered(Taken::Overrides { acknowledged: 3, unacknowledged, connected })
                if connected.len() == 4 && unacknowledged.iter().eq(["a-2"]))
        });
        assert!(listed, "a-2 has not acknowledged it");
    });
}
