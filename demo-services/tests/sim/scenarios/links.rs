//! The network between the replicas and the control plane is bad.

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;

use super::{NAMES, POLICY, down, fleet, millis, secs, some_trouble};
use crate::{
    faults::{self, Fault},
    replica::LOOK_EVERY,
    seeds,
    target::Health,
    world::{LEASE, PLANE, Run, Scenario},
};

/// Service B is down for long, so that the fleet is held all the time but for probes.
const LONG: Duration = secs(45);

fn decides_alone(run: &Run, name: &str, from: Duration) {
    let at = from + LEASE + LOOK_EVERY * 2;
    let shown = run.shown_at(name, at);
    assert_eq!(shown.fleet, FleetState::Released, "{name} still obeys at {at:?}, cut off at {from:?}: {shown}");
}

#[test]
fn a_replica_that_is_cut_off_decides_alone_within_a_lease_and_joins_again() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), LONG));
        let cut = *rng.choice(NAMES).expect("there are some");
        let at = millis(rng, 4_000, 12_000);
        let begin =
            [Fault::Partition(PLANE, cut), Fault::OneWay(PLANE, cut), Fault::OneWay(cut, PLANE)][rng.usize(0..3)];
        scenario.faults = vec![(at, begin), (at + LEASE + secs(5), Fault::Repair(PLANE, cut))];
        scenario.calm = LONG;
        scenario
    };
    seeds::run(2, make, |run| {
        let (cut, at) = cut_at(run);
        decides_alone(run, cut, at);
        for name in NAMES.iter().filter(|name| **name != cut) {
            let shown = run.shown_at(name, at + LEASE);
            assert!(shown.connected, "{name} is not cut off: {shown}");
        }
        // It learns of the outage as soon as it is back, which may take as long as its longest wait between two tries.
        let back = run.shown(cut).into_iter().find(|(from, shown)| *from > at + secs(10) && shown.connected);
        let (back, _) = back.expect("the links are mended in the end");
        let soon = back + secs(2);
        let learns = run.shown(cut).iter().any(|(from, shown)| *from >= back && *from < soon && shown.is_held());
        assert!(learns || soon > LONG, "{cut} was not told what it had missed");
    });
}

fn cut_at(run: &Run) -> (&'static str, Duration) {
    let faults = run.faults();
    let first = faults.first().expect("the scenario has one");
    match first.1 {
        Fault::Partition(_, cut) => (cut, first.0),
        Fault::OneWay(from, to) => (if from == PLANE { to } else { from }, first.0),
        other @ (Fault::Repair(..)
        | Fault::Hold(..)
        | Fault::Release(..)
        | Fault::Slow(..)
        | Fault::Crash(_)
        | Fault::Bounce(_)) => panic!("the first fault is {other:?}"),
    }
}

#[test]
fn when_everybody_is_cut_off_everybody_decides_alone() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(2), secs(30)));
        let at = millis(rng, 4_000, 9_000);
        for name in NAMES {
            scenario.faults.push((at, Fault::Partition(PLANE, name)));
            scenario.faults.push((at + LEASE + secs(3), Fault::Repair(PLANE, name)));
        }
        scenario.calm = secs(30);
        scenario
    };
    seeds::run(2, make, |run| {
        let (at, _) = run.faults()[0];
        for name in NAMES {
            decides_alone(run, name, at);
        }
    });
}

#[test]
fn late_lost_and_bursting_messages_break_nothing() {
    let make = |rng: &mut fastrand::Rng| {
        let until = secs(40);
        let period = millis(rng, 3_000, 15_000);
        let how = some_trouble(rng);
        let mut scenario = Scenario::new(fleet(), POLICY).script(move |at, _| {
            let falls = (at.as_millis() / period.as_millis()) % 2 == 1;
            if falls && at < until { how } else { Health::Well }
        });
        scenario.faults = faults::bad_links(rng, NAMES, secs(1), until);
        scenario.calm = until;
        scenario
    };
    seeds::run(3, make, |_| {});
}
