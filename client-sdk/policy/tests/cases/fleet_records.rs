//! What is remembered of decisions names those on whom they rest.

use fusebox_policy::fleet::{
    BreakerKey, Coordination, CoordinationMode, CoordinationScope,
    coordinator::{Guard, Holding, Record},
    evidence::Report,
    held::Fence,
    shared::{FleetState, ProbeResult, Settings},
};

use crate::{
    driver::ms,
    fleet_driver::{Fleet, key, permits, settings},
    fleet_rule::{member, saw, tripped},
};

fn last<'a>(fleet: &'a Fleet, key: &BreakerKey) -> &'a Record {
    fleet.coordinator.explain(key).last().expect("something was decided")
}

/// Five names at most, so that it can be read.
#[test]
fn an_opening_by_zones_names_the_zones() {
    let coordination =
        Coordination::try_new(CoordinationMode::Balanced, CoordinationScope::Zone, false, None, None).unwrap();
    let mut fleet = Fleet::with(Settings { coordination, ..settings(CoordinationMode::Balanced) });
    fleet.coordinator.forget(&fleet.key.clone());
    let zones: Vec<BreakerKey> = (0..14).map(|zone| key("service-b", Some(&format!("z-{zone:02}")))).collect();
    for (zone, key) in zones.iter().enumerate() {
        for which in 0..2 {
            fleet.report_on(key, zone * 2 + which, saw(20, 0), 0);
        }
    }
    for (zone, key) in zones.iter().enumerate().take(7) {
        for which in 0..2 {
            fleet.report_on(key, zone * 2 + which, tripped(5), 100);
        }
    }
    let record = last(&fleet, &zones[13]);
    assert_eq!(
        (record.cause, record.detail.as_str()),
        ("zones", "7 of 14 zones with voters are open: z-00, z-01, z-02, z-03, z-04 and 2 more")
    );
}

#[test]
fn what_probes_decide_names_who_probed() {
    for (result, cause, words) in [
        (ProbeResult::Failure, "probe_failed", "1 of at most 3 probes failed: a-0000"),
        (ProbeResult::Success, "probe_ok", "3 of 3 probes succeeded: a-0000, a-0001"),
    ] {
        let mut fleet = Fleet::new(CoordinationMode::Balanced);
        fleet.report(0, tripped(5), 0);
        fleet.report(1, tripped(5), 0);
        for number in 0..2 {
            fleet.report(number, Report { rejected: 1, ..tripped(5) }, 4900);
        }
        let mut effects = fleet.tick(5000);
        while fleet.state() == FleetState::HalfOpen {
            effects = fleet.probe(permits(&effects)[0], result, 5100);
        }
        let record = last(&fleet, &fleet.key);
        assert_eq!((record.cause, record.detail.as_str()), (cause, words));
    }
}

#[test]
fn what_goes_on_names_who_holds_it() {
    let mut fleet = Fleet::in_term(2, settings(CoordinationMode::Balanced));
    let holds =
        Holding { fence: Fence { term: 1, rev: 7 }, state: Some(FleetState::Open), half_open_in: Some(ms(2000)) };
    fleet.claims(4, holds, 0);
    fleet.claims(2, holds, 0);
    let record = last(&fleet, &fleet.key);
    let words = "goes on from term 1, as a-0004, a-0002 hold it";
    assert_eq!((record.cause, record.detail.as_str()), ("adopted", words));
}

#[test]
fn witnesses_without_a_vote_are_marked() {
    let marks = |fleet: &Fleet| {
        let witnesses = last(fleet, &fleet.key).witnesses.iter();
        witnesses.map(|own| (own.member.clone(), own.eligible, own.mute)).collect::<Vec<_>>()
    };
    let mute = |number| (member(number), false, Some(Guard::StartupGrace));
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, saw(20, 0), 0);
    fleet.report(1, tripped(5), 60_000);
    fleet.report(2, tripped(5), 60_000);
    assert_eq!(last(&fleet, &fleet.key).guard, Some(Guard::StartupGrace));
    assert_eq!(marks(&fleet), [mute(1), mute(2)]);

    fleet.report(3, tripped(5), 64_000);
    fleet.report(1, tripped(6), 65_000);
    assert_eq!(fleet.state(), FleetState::Open);
    assert_eq!(marks(&fleet), [(member(1), true, None), (member(2), true, None), mute(3)], "one that has just come");
}
