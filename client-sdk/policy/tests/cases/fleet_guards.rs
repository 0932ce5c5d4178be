//! What holds openings back.

use fusebox_policy::{
    breaker::BreakerInput,
    fleet::{
        BreakerKey, Coordination, CoordinationMode, CoordinationScope,
        coordinator::{Effect, Guard},
        evidence::Report,
        shared::{FleetState, ProbeResult, Settings},
    },
};

use crate::{
    driver::breaker_spec,
    fleet_driver::{Fleet, held, key, permits, settings, verdict},
    fleet_rule::{saw, tripped},
};

const TARGETS: [&str; 6] = ["b", "c", "d", "e", "f", "g"];

/// With so many targets, which three replicas hold and find well.
fn with_targets(count: usize) -> Fleet {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.coordinator.forget(&fleet.key.clone());
    for target in &TARGETS[..count] {
        for number in 0..3 {
            fleet.report_on(&key(target, None), number, saw(5, 0), 0);
        }
    }
    fleet
}

/// Two replicas trip on a target.
fn trip(fleet: &mut Fleet, target: &str, millis: u64) -> Vec<Effect> {
    let key = key(target, None);
    let mut effects = fleet.report_on(&key, 0, tripped(5), millis);
    effects.extend(fleet.report_on(&key, 1, tripped(5), millis));
    effects
}

#[test]
fn at_most_half_of_a_callers_targets_open() {
    // (targets, of which may open)
    for (count, may) in [(1, 1), (2, 2), (3, 3), (4, 2), (5, 2), (6, 3)] {
        let mut fleet = with_targets(count);
        for (number, target) in TARGETS[..count].iter().enumerate() {
            let effects = trip(&mut fleet, target, 100);
            if number < may {
                assert_eq!(verdict(&effects), Some(FleetState::Open), "{number} of {count}");
            } else {
                assert_eq!(held(&effects), Some(Guard::BlastRadius), "{number} of {count}");
                assert_eq!(fleet.state_of(&key(target, None)), FleetState::Released);
            }
        }
    }
}

#[test]
fn what_is_held_back_opens_when_there_is_room() {
    let mut fleet = with_targets(4);
    for target in ["b", "c", "d"] {
        trip(&mut fleet, target, 100);
    }
    let probed = key("b", None);
    fleet.report_on(&probed, 0, Report { rejected: 9, ..tripped(5) }, 5000);
    let mut effects = fleet.tick(5200);
    while fleet.state_of(&probed) == FleetState::HalfOpen {
        let (who, id) = permits(&effects)[0];
        fleet.key = probed.clone();
        effects = fleet.probe((who, id), ProbeResult::Success, 5200);
    }
    assert_eq!(verdict(&trip(&mut fleet, "d", 5300)), Some(FleetState::Open));
}

#[test]
fn a_target_that_is_open_already_may_open_another_breaker() {
    let mut fleet = with_targets(4);
    trip(&mut fleet, "b", 100);
    trip(&mut fleet, "c", 100);
    let mut other = key("b", None);
    other.strategy = fusebox_policy::StrategyName::try_new("second").unwrap();
    fleet.report_on(&other, 0, tripped(5), 100);
    assert_eq!(verdict(&fleet.report_on(&other, 1, tripped(5), 100)), Some(FleetState::Open));
}

#[test]
fn breakers_of_at_most_ten_targets_of_a_caller_open_within_ten_seconds() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.coordinator.forget(&fleet.key.clone());
    let targets: Vec<String> = (0..30).map(|number| format!("target-{number}")).collect();
    for target in &targets {
        fleet.report_on(&key(target, None), 2, saw(5, 0), 0);
    }
    for (number, target) in targets.iter().take(11).enumerate() {
        let effects = trip(&mut fleet, target, 1000 + number as u64);
        if number < 10 {
            assert_eq!(verdict(&effects), Some(FleetState::Open), "{number}");
        } else {
            assert_eq!(held(&effects), Some(Guard::OpeningRate));
        }
    }
    assert_eq!(verdict(&trip(&mut fleet, "target-10", 11_000)), Some(FleetState::Open), "the first is ten seconds old");
}

#[test]
fn a_fleet_that_has_shrunk_opens_nothing_for_a_lease() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    for number in 0..5 {
        fleet.report(number, saw(5, 0), 0);
    }
    for number in 3..5 {
        fleet.leave(number, 1000);
    }
    assert_eq!(verdict(&trip_main(&mut fleet, 2000)), Some(FleetState::Open), "40 % is not more than 40 %");

    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    for number in 0..4 {
        fleet.report(number, saw(5, 0), 0);
    }
    for number in 2..4 {
        fleet.leave(number, 1000);
    }
    assert_eq!(held(&trip_main(&mut fleet, 2000)), Some(Guard::DenominatorShrink));
    assert_eq!(verdict(&trip_main(&mut fleet, 16_000)), Some(FleetState::Open));
}

fn zoned(mode: CoordinationMode) -> Fleet {
    let coordination = Coordination::try_new(mode, CoordinationScope::Zone, false, None, None).unwrap();
    let breaker = breaker_spec(BreakerInput::default());
    let mut fleet = Fleet::with(Settings { breaker, coordination, ..settings(mode) });
    fleet.coordinator.forget(&fleet.key.clone());
    fleet
}

/// Two that are ill report as often as the rest falls silent or goes; each is ill for the whole time.
fn ill(fleet: &mut Fleet, key: &BreakerKey, millis: u64) -> Vec<Effect> {
    let mut effects = fleet.report_on(key, 0, tripped(20), millis);
    effects.extend(fleet.report_on(key, 1, tripped(20), millis));
    effects
}

/// S11: of a zone of a hundred, in a service of four hundred, ninety-eight are lost.
#[test]
fn two_that_are_left_of_a_zone_do_not_speak_for_it() {
    for mode in [CoordinationMode::Balanced, CoordinationMode::Quorum, CoordinationMode::Pooled] {
        for leave in [true, false] {
            let mut fleet = zoned(mode);
            let (here, there) = (key("service-b", Some("zone-a")), key("service-b", Some("zone-b")));
            for number in 100..400 {
                fleet.report_on(&there, number, saw(20, 0), 0);
            }
            for number in 2..100 {
                fleet.report_on(&here, number, saw(20, 0), 0);
            }
            ill(&mut fleet, &here, 500);
            if leave {
                // One after the other, so that it is no mass disconnect.
                for number in 2..100 {
                    fleet.leave(number, 1000 + number as u64 * 20);
                }
            }
            for seconds in 3..=15 {
                ill(&mut fleet, &here, seconds * 1000);
                assert_eq!(fleet.state_of(&here), FleetState::Released, "{mode:?}, left: {leave}, {seconds} s");
            }
            if leave {
                assert_eq!(held(&ill(&mut fleet, &here, 16_000)), None, "it was said once");
                let guards: Vec<_> = fleet.coordinator.explain(&here).filter_map(|record| record.guard).collect();
                let lost_first = guards.is_empty() || guards == [Guard::DenominatorShrink];
                assert!(lost_first, "{mode:?}: {guards:?}");
            }
            assert_eq!(verdict(&ill(&mut fleet, &here, 40_000)), Some(FleetState::Open), "{mode:?}: they are the zone");
        }
    }
}

/// The guard counts the breaker's own zone: it holds also what the lost would not speak against.
#[test]
fn a_zone_that_has_shrunk_opens_nothing_for_a_lease() {
    let mut fleet = zoned(CoordinationMode::Balanced);
    let (here, there) = (key("service-b", Some("zone-a")), key("service-b", Some("zone-b")));
    for number in 10..40 {
        fleet.report_on(&there, number, saw(20, 0), 0);
    }
    for number in 0..4 {
        fleet.report_on(&here, number, saw(0, 0), 0);
    }
    for number in 2..4 {
        fleet.leave(number, 1000);
    }
    assert_eq!(held(&ill(&mut fleet, &here, 2000)), Some(Guard::DenominatorShrink));
    for number in 10..12 {
        fleet.report_on(&there, number, tripped(20), 2000);
    }
    for number in 12..20 {
        fleet.report_on(&there, number, tripped(20), 2000);
    }
    assert_eq!(fleet.state_of(&there), FleetState::Open, "the other zone is whole");
    assert_eq!(verdict(&ill(&mut fleet, &here, 16_000)), Some(FleetState::Open));
}

#[test]
fn who_comes_first_after_all_have_gone_is_not_taken_for_all() {
    let all_gone = |calls| {
        let mut fleet = Fleet::new(CoordinationMode::Balanced);
        // One after the other, so that it is no mass disconnect.
        for number in 0..8 {
            for left in number..8 {
                fleet.report(left, saw(calls, 0), 3000 * number as u64);
            }
            fleet.leave(number, 3000 * number as u64);
        }
        assert_eq!(fleet.coordinator.shown_keys().count(), 0, "nobody holds it");
        fleet
    };
    let newcomers = |fleet: &mut Fleet, millis| {
        fleet.report(10, tripped(20), millis);
        fleet.report(11, tripped(20), millis)
    };
    let mut fleet = all_gone(20);
    assert_eq!(held(&newcomers(&mut fleet, 22_000)), None, "two of those that there were lately");
    assert_eq!(fleet.state(), FleetState::Released);
    let mut fleet = all_gone(0);
    assert_eq!(held(&newcomers(&mut fleet, 22_000)), Some(Guard::DenominatorShrink), "fewer than there were");
    let mut fleet = all_gone(20);
    fleet.tick(36_000);
    assert!(fleet.coordinator.breaker(&fleet.key).is_none(), "it is forgotten after a lease");
    assert_eq!(verdict(&newcomers(&mut fleet, 37_000)), Some(FleetState::Open));
}

/// A true outage of one target, in more zones than breakers of different targets may open within ten seconds.
#[test]
fn all_zones_of_one_target_open_together() {
    let mut fleet = zoned(CoordinationMode::Balanced);
    let zones: Vec<BreakerKey> = (0..50).map(|zone| key("service-b", Some(&format!("cell-{zone}")))).collect();
    for (zone, key) in zones.iter().enumerate() {
        for which in 0..2 {
            fleet.report_on(key, zone * 2 + which, saw(20, 0), 0);
        }
    }
    for (zone, key) in zones.iter().enumerate() {
        for which in 0..2 {
            fleet.report_on(key, zone * 2 + which, tripped(20), 1000);
        }
    }
    for key in &zones {
        assert_eq!(fleet.state_of(key), FleetState::Open, "{key}");
    }
}

/// S11: two of ten are too few, and would be enough of the six that are left.
#[test]
fn who_is_lost_stays_in_the_denominator_for_a_while() {
    let ten = || {
        let mut fleet = Fleet::new(CoordinationMode::Quorum);
        for number in 2..10 {
            fleet.report(number, saw(5, 0), 0);
        }
        assert_eq!(verdict(&trip_main(&mut fleet, 100)), None, "three of ten are needed");
        fleet
    };
    let well = |fleet: &mut Fleet, millis| {
        for number in 2..6 {
            fleet.report(number, saw(5, 0), millis);
        }
    };

    // As many as may go within a lease without a guard: they leave,
    let mut fleet = ten();
    for number in 6..10 {
        fleet.leave(number, 1000);
    }
    well(&mut fleet, 2000);
    assert_eq!(verdict(&trip_main(&mut fleet, 2000)), None);
    well(&mut fleet, 30_000);
    assert_eq!(verdict(&trip_main(&mut fleet, 30_000)), Some(FleetState::Open), "six are the fleet now");

    // or fall silent.
    let mut fleet = ten();
    for seconds in 1..=15 {
        well(&mut fleet, seconds * 1000);
        assert_eq!(verdict(&trip_main(&mut fleet, seconds * 1000)), None, "after {seconds} s");
    }
    well(&mut fleet, 30_000);
    assert_eq!(verdict(&trip_main(&mut fleet, 30_000)), Some(FleetState::Open));
}

#[test]
fn who_comes_back_as_another_run_counts_once() {
    let mut fleet = Fleet::new(CoordinationMode::Quorum);
    for number in 0..6 {
        fleet.report(number, saw(5, 0), 0);
    }
    for number in 2..4 {
        fleet.leave(number, 1000);
        fleet.report(number, saw(5, 0), 2000);
    }
    assert_eq!(verdict(&trip_main(&mut fleet, 3000)), Some(FleetState::Open), "two of six");
}

#[test]
fn replicas_that_come_back_end_the_shrink() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    for number in 0..4 {
        fleet.report(number, saw(5, 0), 0);
    }
    for number in 2..4 {
        fleet.leave(number, 1000);
    }
    for number in 2..4 {
        fleet.report(number, saw(5, 0), 1500);
    }
    assert_eq!(verdict(&trip_main(&mut fleet, 2000)), Some(FleetState::Open));
}

fn trip_main(fleet: &mut Fleet, millis: u64) -> Vec<Effect> {
    let mut effects = fleet.report(0, tripped(5), millis);
    effects.extend(fleet.report(1, tripped(5), millis));
    effects
}

#[test]
fn newcomers_among_others_have_no_vote_for_a_while() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, saw(20, 0), 0);
    fleet.report(1, tripped(5), 60_000);
    assert_eq!(held(&fleet.report(2, tripped(5), 60_000)), Some(Guard::StartupGrace));
    assert_eq!(verdict(&fleet.report(1, tripped(6), 65_000)), Some(FleetState::Open));
}

#[test]
fn a_service_that_starts_as_a_whole_is_nobodys_newcomer() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, saw(20, 0), 0);
    fleet.report(1, tripped(5), 2000);
    assert_eq!(verdict(&fleet.report(2, tripped(5), 5000)), Some(FleetState::Open));
}

#[test]
fn a_replica_that_fails_everywhere_alone_has_no_vote() {
    // Of five replicas two have a bad network card.
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.coordinator.forget(&fleet.key.clone());
    for target in &TARGETS[..4] {
        for number in 2..5 {
            fleet.report_on(&key(target, None), number, saw(20, 0), 0);
        }
    }
    let mut effects = Vec::new();
    for target in &TARGETS[..3] {
        fleet.report_on(&key(target, None), 0, tripped(5), 100);
    }
    for target in &TARGETS[..3] {
        effects.push(fleet.report_on(&key(target, None), 1, tripped(5), 200));
    }
    // Before the second one has failed on three, it might be the target.
    assert_eq!(held(&effects[0]), Some(Guard::SickReporter), "one of the two is known to be sick");
    for target in &TARGETS[..3] {
        assert_eq!(fleet.state_of(&key(target, None)), FleetState::Released, "{target}");
    }
    // A fourth target fails for the well ones too.
    for number in 2..4 {
        effects.push(fleet.report_on(&key("e", None), number, tripped(20), 300));
    }
    assert_eq!(fleet.state_of(&key("e", None)), FleetState::Open);
}

#[test]
fn an_outage_of_many_targets_is_nobodys_sickness() {
    let mut fleet = with_targets(6);
    for target in &TARGETS[..3] {
        for number in 0..2 {
            fleet.report_on(&key(target, None), number, tripped(5), 100);
        }
        fleet.report_on(&key(target, None), 2, tripped(5), 150);
    }
    for target in &TARGETS[..3] {
        assert_eq!(fleet.state_of(&key(target, None)), FleetState::Open, "{target}");
    }
}

#[test]
fn a_breaker_that_was_just_released_does_not_open_in_the_same_second() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    trip_main(&mut fleet, 0);
    fleet.report(0, Report { rejected: 9, ..tripped(5) }, 4900);
    let mut effects = fleet.tick(5000);
    while fleet.state() == FleetState::HalfOpen {
        let permit = permits(&effects)[0];
        effects = fleet.probe(permit, ProbeResult::Success, 5000);
    }
    assert_eq!(held(&trip_main(&mut fleet, 5500)), Some(Guard::Dwell));
    assert_eq!(verdict(&trip_main(&mut fleet, 6000)), Some(FleetState::Open));
    assert_eq!(fleet.view(6000).half_open_in.unwrap().as_secs(), 10, "the trouble goes on: twice as long");
}

#[test]
fn after_a_stable_release_an_opening_is_a_new_trouble() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    trip_main(&mut fleet, 0);
    fleet.report(0, Report { rejected: 9, ..tripped(5) }, 4900);
    let mut effects = fleet.tick(5000);
    while fleet.state() == FleetState::HalfOpen {
        let permit = permits(&effects)[0];
        effects = fleet.probe(permit, ProbeResult::Success, 5000);
    }
    assert_eq!(verdict(&trip_main(&mut fleet, 65_000)), Some(FleetState::Open));
    assert_eq!(fleet.view(65_000).half_open_in.unwrap().as_secs(), 5);
}
