//! Zones of one breaker: one alone changes nothing elsewhere, most of them together do.

use fusebox_policy::fleet::{
    BreakerKey, CoordinationMode, CoordinationScope,
    coordinator::Effect,
    evidence::Report,
    shared::{FleetState, ProbeResult, Settings},
};

use crate::{
    fleet_driver::{Fleet, causes, key, permits, settings},
    fleet_rule::{saw, tripped},
};

fn zone(letter: char) -> BreakerKey {
    key("service-b", Some(&format!("zone-{letter}")))
}

fn number(letter: char, which: usize) -> usize {
    (letter as usize - 'a' as usize) * 10 + which
}

/// Two replicas in each zone, well and with enough calls for a vote.
fn with_zones(letters: &str) -> Fleet {
    let coordination = fusebox_policy::fleet::Coordination::try_new(
        CoordinationMode::Balanced,
        CoordinationScope::Zone,
        false,
        None,
        None,
    )
    .unwrap();
    let mut fleet = Fleet::with(Settings { coordination, ..settings(CoordinationMode::Balanced) });
    fleet.coordinator.forget(&fleet.key.clone());
    for letter in letters.chars() {
        for which in 0..2 {
            fleet.report_on(&zone(letter), number(letter, which), saw(20, 0), 0);
        }
    }
    fleet
}

fn trip(fleet: &mut Fleet, letter: char, millis: u64) -> Vec<Effect> {
    let mut effects = fleet.report_on(&zone(letter), number(letter, 0), tripped(5), millis);
    effects.extend(fleet.report_on(&zone(letter), number(letter, 1), tripped(5), millis));
    effects
}

#[test]
fn one_zone_alone_changes_nothing_outside_of_it() {
    for zones in ["a", "ab", "abc", "abcdefghij"] {
        let mut fleet = with_zones(zones);
        trip(&mut fleet, 'a', 100);
        for letter in zones.chars() {
            let state = if letter == 'a' { FleetState::Open } else { FleetState::Released };
            assert_eq!(fleet.state_of(&zone(letter)), state, "{letter} of {zones}");
        }
    }
}

#[test]
fn the_rest_follows_when_at_least_two_and_half_of_the_zones_are_open() {
    for (zones, needed) in [("abc", 2), ("abcd", 2), ("abcde", 3), ("abcdefghij", 5)] {
        let mut fleet = with_zones(zones);
        for (opened, letter) in zones.chars().take(needed).enumerate() {
            let last = zones.chars().last().unwrap();
            assert_eq!(fleet.state_of(&zone(last)), FleetState::Released, "{opened} of {zones}");
            let effects = trip(&mut fleet, letter, 100);
            if opened + 1 == needed {
                assert!(causes(&effects).contains(&"zones"), "{zones}");
            }
        }
        assert!(zones.chars().all(|letter| fleet.state_of(&zone(letter)) == FleetState::Open), "{zones}");
    }
}

#[test]
fn a_zone_that_starts_during_the_outage_starts_open() {
    let mut fleet = with_zones("ab");
    trip(&mut fleet, 'a', 100);
    trip(&mut fleet, 'b', 100);
    fleet.report_on(&zone('c'), number('c', 0), saw(0, 0), 200);
    assert_eq!(fleet.state_of(&zone('c')), FleetState::Open);
}

/// Everything opened at 100 ms, and asks for probes at 5 s.
fn all_open(zones: &str) -> Fleet {
    let mut fleet = with_zones(zones);
    for letter in zones.chars() {
        trip(&mut fleet, letter, 100);
    }
    for letter in zones.chars() {
        for which in 0..2 {
            fleet.report_on(&zone(letter), number(letter, which), Report { rejected: 5, ..saw(0, 0) }, 5000);
        }
    }
    fleet
}

#[test]
fn all_zones_together_send_at_most_three_probes_at_a_time() {
    let mut fleet = all_open("abcde");
    let effects = fleet.tick(5100);
    let out = permits(&effects);
    assert_eq!(out.len(), 3, "{out:?}");
    let keys: std::collections::BTreeSet<_> = effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Permit { key, .. } => Some(key.clone()),
            Effect::Verdict { .. }
            | Effect::Canvass { .. }
            | Effect::Transition { .. }
            | Effect::Held { .. }
            | Effect::Mode { .. } => None,
        })
        .collect();
    assert_eq!(keys.len(), 3, "one in each");
    fleet.key = keys.first().unwrap().clone();
    let next = fleet.probe(out[0], ProbeResult::Inconclusive, 5200);
    assert_eq!(permits(&next).len(), 1, "what is given back goes to somebody");
}

#[test]
fn a_zone_that_has_come_back_is_not_opened_by_what_it_has_outlived() {
    let mut fleet = all_open("abc");
    fleet.key = zone('c');
    let mut out: Vec<_> = permits(&fleet.tick(5100));
    while fleet.state_of(&zone('c')) == FleetState::HalfOpen {
        let at = out.iter().position(|(who, _)| *who >= number('c', 0)).expect("zone c probes");
        out.extend(permits(&fleet.probe(out[at], ProbeResult::Success, 5200)));
        out.remove(at);
    }
    for letter in ['a', 'b'] {
        fleet.key = zone(letter);
        let at = out.iter().position(|(who, _)| who / 10 == number(letter, 0) / 10).expect("the zone probes");
        fleet.probe(out.remove(at), ProbeResult::Failure, 5300);
        assert_eq!(fleet.state_of(&zone(letter)), FleetState::Open);
    }
    fleet.report_on(&zone('c'), number('c', 0), saw(20, 0), 7000);
    assert_eq!(fleet.state_of(&zone('c')), FleetState::Released);
}
