//! The network between the replicas and the control plane is bad.

use std::{sync::Arc, time::Duration};

use fusebox::FleetStateShown as FleetState;
use fusebox_proto::sync::v1::{SyncResponse, sync_response::Message as Down};

use super::{NAMES, POLICY, down, fleet, millis, open_in_time, secs, some_trouble, ten};
use crate::{
    faults::{self, Fault},
    relay::Meddler,
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
    seeds::run(1, make, |run| {
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
    if let Fault::Partition(_, cut) = first.1 {
        return (cut, first.0);
    }
    let Fault::OneWay(from, to) = first.1 else { panic!("the first fault is {:?}", first.1) };
    (if from == PLANE { to } else { from }, first.0)
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
    seeds::run(1, make, |run| {
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
    seeds::run(2, make, |_| {});
}

/// Links are clogged one after the other, and opened in another order.
#[test]
fn links_clogged_one_by_one_and_opened_in_another_order_bring_order() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), secs(3), secs(25)));
        let (mut clogged, mut opened) = (NAMES.to_vec(), NAMES.to_vec());
        rng.shuffle(&mut clogged);
        rng.shuffle(&mut opened);
        let mut at = millis(rng, 2_000, 5_000);
        for (names, clog) in [(clogged, true), (opened, false)] {
            for name in names {
                at += millis(rng, 100, 2_500);
                let fault = if clog { Fault::Hold(PLANE, name) } else { Fault::Release(PLANE, name) };
                scenario.faults.push((at, fault));
            }
        }
        scenario.calm = at.max(secs(25));
        scenario
    };
    seeds::run(1, make, |_| {});
}

/// Nothing reaches it, and everybody else is told as fast as ever.
#[test]
fn a_replica_that_hears_nothing_slows_nobody_down() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(Health::Failing, secs(8), secs(20)));
        scenario.faults =
            vec![(millis(rng, 6_000, 8_000), Fault::OneWay(PLANE, "a-4")), (secs(40), Fault::Repair(PLANE, "a-4"))];
        scenario.calm = secs(40);
        scenario
    };
    seeds::run(1, make, |run| {
        open_in_time(run, &NAMES[..3]);
    });
}

/// Ten replicas that all would probe, and permits of which some get lost: S4 says that no more are out, and all close in the end.
#[test]
fn a_storm_of_probes_stays_within_the_budget_though_permits_get_lost() {
    let make = |rng: &mut fastrand::Rng| {
        let loses = || {
            let down = |message: SyncResponse| {
                let lost = matches!(message.message, Some(Down::ProbePermit(_))) && fastrand::u8(0..4) == 0;
                if lost { Vec::new() } else { vec![message] }
            };
            Meddler { down: Box::new(down), ..Meddler::default() }
        };
        let length = millis(rng, 3_000, 8_000);
        let mut scenario = Scenario::new(ten(), POLICY).script(down(Health::Failing, secs(3), secs(3) + length));
        scenario.meddle = Some(Arc::new(move |_| Some(loses())));
        scenario.calm = secs(3) + length;
        // A permit that is lost is given again after its 3 s and 15 more.
        scenario.settles_within = Some(secs(180));
        scenario
    };
    seeds::run(1, make, |_| {});
}
