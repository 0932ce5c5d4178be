//! The control plane crashes, comes back, or does not.

use std::{collections::BTreeMap, time::Duration};

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::breaker::LocalState;
use fusebox_proto::sync::v1::{sync_request::Message as Up, sync_response::Message as Down};

use super::{NAMES, POLICY, down, fleet, millis, secs, some_trouble};
use crate::{
    faults::{self, Fault},
    history::What,
    replica::{LOOK_EVERY, Replica},
    seeds,
    world::{LEASE, PLANE, Scenario},
};

#[test]
fn a_control_plane_that_crashes_again_and_again_leaves_nothing_stuck() {
    let make = |rng: &mut fastrand::Rng| {
        let until = secs(35);
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(3), until));
        scenario.faults = faults::crashes(rng, secs(2), until);
        scenario.calm = until;
        scenario
    };
    seeds::run(2, make, |_| {});
}

#[test]
fn without_a_control_plane_replicas_go_on_alone_for_ever() {
    let make = |rng: &mut fastrand::Rng| {
        let ends = secs(20);
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), ends));
        scenario.faults = vec![(millis(rng, 3_000, 12_000), Fault::Crash(PLANE))];
        scenario.calm = secs(55);
        scenario.settles_within = None;
        scenario
    };
    seeds::run(1, make, |run| {
        let (crash, _) = run.faults()[0];
        for name in NAMES {
            let later = crash + LEASE + LOOK_EVERY * 2;
            let after = run.shown(name).into_iter().filter(|(at, _)| *at >= later);
            for shown in after.map(|(_, shown)| shown).chain([run.shown_at(name, later)]) {
                assert_eq!(shown.fleet, FleetState::Released, "{name}: {shown}");
                assert!(!shown.connected, "{name}: {shown}");
                assert!(shown.policy_revision > 0, "{name} keeps its policies: {shown}");
            }
        }
        for name in &NAMES[..3] {
            let last = run.shown_at(name, secs(60));
            assert_eq!(last.local, LocalState::Closed, "{name} recovers by itself: {last}");
        }
        // Calls go on all the time, if only as probes of each replica's own.
        for window in 0..5 {
            let (from, until) = (secs(25 + window * 6), secs(31 + window * 6));
            let passed = run
                .events
                .iter()
                .any(|event| matches!(event.what, What::Admitted { .. }) && event.at >= from && event.at < until);
            assert!(passed, "no call between {from:?} and {until:?}");
        }
    });
}

const MANY: &[&str] = &["a-1", "a-2", "a-3", "a-4", "a-5", "a-6", "a-7", "a-8", "a-9", "a-10", "a-11", "a-12"];

#[test]
fn everybody_comes_back_after_a_restart_without_a_storm() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(MANY.iter().map(|name| Replica::idle(name)).collect(), POLICY);
        let crash = millis(rng, 2_000, 4_000);
        let back = crash + millis(rng, 200, 12_000);
        scenario.faults = vec![(crash, Fault::Crash(PLANE)), (back, Fault::Bounce(PLANE))];
        scenario.calm = back;
        scenario.settles_within = Some(secs(32));
        scenario
    };
    seeds::run(1, make, |run| {
        let back: Duration = run.faults()[1].0;
        let mut hellos: BTreeMap<&str, Vec<Duration>> = BTreeMap::new();
        for event in run.events.iter().filter(|event| event.at >= back) {
            if let What::Arrived { replica, message } = &event.what
                && matches!(message.message, Some(Up::Hello(_)))
            {
                hellos.entry(replica).or_default().push(event.at);
            }
        }
        for (replica, times) in &hellos {
            assert_eq!(times.len(), 1, "{replica} is served at its first try: {times:?}");
        }
        let mut first: Vec<Duration> = hellos.values().map(|times| times[0]).collect();
        first.sort();
        // Full jitter: no more than half of them in any tenth of a second.
        for (index, from) in first.iter().enumerate() {
            let together = first[index..].iter().take_while(|at| **at < *from + Duration::from_millis(50)).count();
            assert!(together <= MANY.len() / 2, "{together} replicas at {from:?}: {first:?}");
        }
    });
}

/// A process that is asked to end says goodbye, and its streams end before it does.
#[test]
fn a_control_plane_that_is_asked_to_end_sends_everybody_to_its_successor_and_costs_no_call() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let drains = millis(rng, 3_000, 6_000);
        let back = drains + millis(rng, 500, 3_000);
        scenario.faults = vec![(drains, Fault::Drain), (back, Fault::Bounce(PLANE))];
        scenario.calm = back;
        scenario
    };
    seeds::run(2, make, |run| {
        let (drains, _) = run.faults()[0];
        for name in NAMES {
            let told = run.events.iter().any(|event| {
                matches!(&event.what, What::Heard { replica, message } if replica == name
                    && matches!(message.message, Some(Down::GoAway(_))))
            });
            assert!(told, "{name} is told");
            let again = run.shown(name).iter().any(|(at, shown)| *at > drains && !shown.connected);
            assert!(again, "{name} leaves the one that ends");
        }
        for name in &NAMES[..3] {
            let (well, all) = run.calls(name);
            assert!(well == all && all > 10, "{name}: {well} of {all}");
        }
    });
}

/// What it had said is as old as its sleep when it wakes: that it then opens nothing and gives no permit is S7.
#[test]
fn a_control_plane_that_stood_still_for_longer_than_a_lease_renews_nothing_learns_and_decides_again() {
    let make = |rng: &mut fastrand::Rng| {
        let until = secs(60);
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(3), until));
        scenario.faults = vec![(millis(rng, 8_000, 12_000), Fault::Pause(PLANE, LEASE + secs(5)))];
        scenario.calm = until;
        scenario
    };
    seeds::run(2, make, |run| {
        let (wakes, _) = run.faults()[0];
        let soon = wakes + secs(1);
        let quiet = soon..wakes + LEASE;
        for event in run.events.iter().filter(|event| quiet.contains(&event.at)) {
            let What::Issued { replica, message } = &event.what else { continue };
            match &message.message {
                Some(Down::HeartbeatAck(ack)) => assert_eq!(ack.rev, 0, "{replica} is renewed something: {event}"),
                Some(Down::Verdict(_) | Down::ProbePermit(_)) => panic!("{event}"),
                _ => {}
            }
        }
        for name in NAMES {
            let alone = run.shown_at(name, soon + LEASE);
            assert_eq!(alone.fleet, FleetState::Released, "{name} goes on alone: {alone}");
            let again = run.shown(name).iter().any(|(at, shown)| *at > wakes + LEASE * 2 && shown.is_held());
            assert!(again, "{name} is coordinated again");
        }
    });
}
