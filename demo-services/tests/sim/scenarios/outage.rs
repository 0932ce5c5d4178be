//! Service B is down: really, for one replica, for one zone, or again and again.

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;
use fusebox_proto::v1;

use super::{NAMES, POLICY, down, fleet, millis, open_in_time, openings, secs, some_trouble, verdicts};
use crate::{
    faults::Fault,
    replica::Replica,
    seeds,
    target::Health,
    world::{Scenario, TARGET},
};

#[test]
fn a_true_outage_opens_every_replica_and_all_close_after_it() {
    let make = |rng: &mut fastrand::Rng| {
        let (from, length) = (millis(rng, 3_000, 6_000), millis(rng, 4_000, 12_000));
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(some_trouble(rng), from, from + length));
        scenario.calm = from + length;
        scenario.settles_within = Some(secs(15));
        scenario
    };
    seeds::run(2, make, |run| {
        open_in_time(run, NAMES);
    });
}

#[test]
fn what_was_seen_in_an_outage_does_not_open_a_fleet_that_has_closed() {
    let make = |rng: &mut fastrand::Rng| {
        let (from, length) = (millis(rng, 3_000, 4_000), millis(rng, 2_000, 5_000));
        // All are tripped, and all are asked to probe.
        let replicas = NAMES.iter().map(|name| Replica::busy(name)).collect();
        let mut scenario = Scenario::new(replicas, POLICY).script(down(Health::Failing, from, from + length));
        scenario.calm = from + length;
        scenario.settles_within = Some(secs(15));
        scenario
    };
    seeds::run(2, make, |run| {
        let states = verdicts(run);
        let reopened =
            states.windows(2).find(|pair| pair[0].1 == v1::FleetState::Released && pair[1].1 == v1::FleetState::Open);
        assert_eq!(reopened, None, "service B was down once");
    });
}

#[test]
fn one_sick_replica_never_opens_the_fleet() {
    let make = |rng: &mut fastrand::Rng| {
        let (from, length) = (millis(rng, 1_000, 4_000), millis(rng, 5_000, 15_000));
        let sick = *rng.choice(&NAMES[..3]).expect("there are some");
        let mut scenario = Scenario::new(fleet(), POLICY);
        if rng.bool() {
            // Its network is broken: calls hang.
            scenario.faults =
                vec![(from, Fault::Partition(sick, TARGET)), (from + length, Fault::Repair(sick, TARGET))];
        } else {
            let bad = move |at: Duration, asks: &Replica| asks.name == sick && at >= from && at < from + length;
            scenario = scenario.script(move |at, asks| if bad(at, asks) { Health::Failing } else { Health::Well });
        }
        scenario.calm = from + length;
        scenario.settles_within = Some(secs(15));
        scenario
    };
    seeds::run(2, make, |run| {
        assert_eq!(openings(run), Vec::<Duration>::new());
    });
}

#[test]
fn an_outage_of_one_zone_opens_that_zone_only() {
    let make = |rng: &mut fastrand::Rng| {
        let (from, length) = (millis(rng, 3_000, 6_000), millis(rng, 3_000, 10_000));
        let how = some_trouble(rng);
        let replicas = vec![
            Replica::busy("a-1").in_zone("z1"),
            Replica::busy("a-2").in_zone("z1"),
            Replica::busy("a-3").in_zone("z2"),
            Replica::busy("a-4").in_zone("z2"),
        ];
        let bad = move |at: Duration, asks: &Replica| asks.zone == Some("z1") && at >= from && at < from + length;
        let mut scenario = Scenario::new(replicas, &POLICY.replace("scope: fleet", "scope: zone"))
            .script(move |at, asks| if bad(at, asks) { how } else { Health::Well });
        scenario.calm = from + length;
        scenario.settles_within = Some(secs(15));
        scenario
    };
    seeds::run(1, make, |run| {
        assert!(run.ever("a-1", FleetState::Open) && run.ever("a-2", FleetState::Open));
        for name in ["a-3", "a-4"] {
            assert!(run.shown(name).iter().all(|(_, shown)| !shown.refuses), "{name} is in the other zone");
        }
    });
}

#[test]
fn a_flapping_target_does_not_make_the_fleet_flap() {
    let make = |rng: &mut fastrand::Rng| {
        let (period, until) = (millis(rng, 500, 9_000), secs(35));
        let flaps = move |at: Duration, _: &Replica| {
            let falls = (at.as_millis() / period.as_millis()) % 2 == 1;
            if falls && at < until { Health::Failing } else { Health::Well }
        };
        let mut scenario = Scenario::new(fleet(), POLICY).script(flaps);
        scenario.calm = until;
        scenario.settles_within = Some(secs(20));
        scenario
    };
    seeds::run(1, make, |run| {
        // Each opening lasts for the breaker's delay at least, whatever the target does meanwhile.
        let openings = openings(run);
        for pair in openings.windows(2) {
            let between = pair[1].saturating_sub(pair[0]);
            assert!(between >= secs(2), "opened at {:?} and again at {:?}", pair[0], pair[1]);
        }
        assert!(openings.len() <= 35 / 2, "{openings:?}");
    });
}

#[test]
fn a_probe_whose_holder_crashes_does_not_keep_the_fleet_closed() {
    let make = |rng: &mut fastrand::Rng| {
        let (from, length) = (secs(3), millis(rng, 3_000, 9_000));
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(Health::Failing, from, from + length));
        let mut at = from + secs(2);
        // About when the fleet probes; who holds the permit is a matter of luck, so that all but one crash, one after the other.
        for name in ["a-1", "a-2"] {
            at += millis(rng, 50, 1_500);
            scenario.faults.push((at, Fault::Crash(name)));
            scenario.faults.push((at + millis(rng, 20, 3_000), Fault::Bounce(name)));
        }
        scenario.calm = (from + length).max(at + secs(3));
        // A permit whose holder says nothing counts as lost after its 3 s and 15 more.
        scenario.settles_within = Some(secs(40));
        scenario
    };
    seeds::run(1, make, |_| {});
}
