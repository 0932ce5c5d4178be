//! Whom the fleet asks when a replica has tripped: a few dozen first, more when that decides nothing, everybody in the end.

use std::collections::BTreeSet;

use fusebox_policy::{
    Draw,
    fleet::{CoordinationMode, coordinator::Effect, evidence::MemberId, shared::FleetState},
};

use crate::{
    driver::at,
    fleet_driver::{Fleet, verdict},
    fleet_rule::{member, saw, tripped},
};

const SIZE: usize = 200;

/// A fleet of so many, of which every second has calls, all well so far.
fn fleet() -> Fleet {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    for number in 0..SIZE {
        fleet.report(number, saw(if number.is_multiple_of(2) { 2 } else { 0 }, 0), 0);
    }
    fleet
}

/// Who is asked.
fn asked(effects: &[Effect]) -> Vec<MemberId> {
    effects
        .iter()
        .flat_map(|effect| if let Effect::Canvass { to, .. } = effect { to.clone() } else { Vec::new() })
        .collect()
}

fn number(id: &MemberId) -> usize {
    (0..SIZE).find(|number| member(*number) == *id).unwrap()
}

#[test]
fn a_few_dozen_that_have_calls_are_asked_first() {
    let first = asked(&fleet().report(0, tripped(5), 10));
    assert_eq!(first.len(), 32);
    assert!(first.iter().all(|id| *id != member(0) && number(id).is_multiple_of(2)), "{first:?}");
}

#[test]
fn what_the_first_have_seen_may_decide_and_then_nobody_else_is_asked() {
    let mut fleet = fleet();
    let first = asked(&fleet.report(0, tripped(5), 10));
    let answers = first.iter().map(|id| fleet.report(number(id), tripped(5), 11));
    let effects: Vec<Effect> = answers.flatten().collect();
    assert_eq!(verdict(&effects), Some(FleetState::Open));
    assert!(asked(&effects).is_empty(), "one that has tripped too decides, as few have a vote");
    assert!(asked(&fleet.tick(100)).is_empty());
}

#[test]
fn twice_as_many_are_asked_when_half_have_answered_and_in_the_end_everybody_once() {
    let mut fleet = fleet();
    let mut all: BTreeSet<MemberId> = BTreeSet::new();
    let mut wave = asked(&fleet.report(0, tripped(5), 10));
    let mut sizes = Vec::new();
    while !wave.is_empty() {
        sizes.push(wave.len());
        let mut next = Vec::new();
        for id in wave {
            assert!(all.insert(id.clone()), "{id:?} is asked twice");
            next.extend(asked(&fleet.report(number(&id), saw(3, 0), 11)));
        }
        wave = next;
    }
    assert_eq!(sizes, [32, 64, 103]);
}

#[test]
fn silence_is_waited_for_no_longer_than_the_time_for_answers() {
    let mut fleet = fleet();
    assert_eq!(asked(&fleet.report(0, tripped(5), 10)).len(), 32);
    assert!(asked(&fleet.tick(59)).is_empty());
    assert_eq!(asked(&fleet.tick(60)).len(), 167);
    assert!(asked(&fleet.tick(200)).is_empty());
}

#[test]
fn who_has_gone_is_not_asked() {
    let mut fleet = fleet();
    let first: BTreeSet<MemberId> = asked(&fleet.report(0, tripped(5), 10)).into_iter().collect();
    let gone: Vec<usize> = (1..SIZE).filter(|number| !first.contains(&member(*number))).take(100).collect();
    let key = fleet.key.clone();
    for number in &gone {
        fleet.coordinator.drop_key(&key, &member(*number), at(20), Draw::ZERO);
    }
    let rest = asked(&fleet.tick(60));
    assert_eq!(rest.len(), 67);
    assert!(gone.iter().all(|number| !rest.contains(&member(*number))));
}
