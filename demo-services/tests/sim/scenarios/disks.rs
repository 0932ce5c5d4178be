//! The control plane's disk is ill, or holds too little.

use super::{NAMES, POLICY, down, fleet, millis, secs, some_trouble};
use crate::{
    disk::Health as Disk,
    faults::Fault,
    history::{Taken, What},
    operator::Order,
    seeds,
    world::{PLANE, Scenario},
};

/// An operator is told of nothing that is not stored, and a replica of nothing that an operator was not: whatever the disk does.
#[test]
fn a_disk_that_fails_loses_nothing_that_was_acknowledged() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let ill = if rng.bool() { Disk::Refuses } else { Disk::Forgets };
        let from = millis(rng, 3_000, 5_000);
        scenario.orders.push((from + secs(1), Order::Apply(POLICY.replace("delay: 2s", "delay: 3s"))));
        scenario.orders.push((from + secs(2), Order::Apply(POLICY.replace("delay: 2s", "delay: 4s"))));
        let well = from + millis(rng, 3_000, 9_000);
        scenario.faults = vec![(from, Fault::Disk(ill)), (well, Fault::Disk(Disk::Well))];
        if rng.bool() {
            scenario.faults.extend([(well, Fault::Crash(PLANE)), (well + secs(1), Fault::Bounce(PLANE))]);
        }
        scenario.calm = well + secs(2);
        scenario
    };
    seeds::run(2, make, |run| {
        let taken = run.events.iter().filter_map(|event| {
            let What::Ordered(Taken::Applied { revision }) = event.what else { return None };
            Some(revision)
        });
        let newest = taken.max().expect("policies are applied");
        for name in NAMES {
            let last = run.shown(name).last().expect("it is there").1;
            assert_eq!(last.revision, newest, "{name}");
        }
    });
}

/// A server that can't write has no reason to trust itself: it freezes, and replicas go on alone.
#[test]
fn a_disk_that_takes_nothing_in_an_outage_leaves_nobody_stuck() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(3), secs(25)));
        let from = millis(rng, 2_000, 7_000);
        scenario.faults = vec![(from, Fault::Disk(Disk::Refuses)), (secs(25), Fault::Disk(Disk::Well))];
        scenario.calm = secs(25);
        // Rows wait for the disk for as long as it takes: what is on record comes later than decisions.
        scenario.recorded = false;
        scenario
    };
    seeds::run(1, make, |_| {});
}
