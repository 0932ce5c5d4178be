//! The coordinator as a whole: what it remembers, in which order, and what it can explain.

use fusebox_policy::{
    Draw, Revision,
    breaker::{BreakerInput, HalfOpenSpec, LocalState},
    fleet::{
        CoordinationMode,
        coordinator::{Effect, Guard, Holding, Recipients, Sighting},
        evidence::Report,
        held::Fence,
        shared::{FleetState, ProbeResult, Settings},
    },
};

use crate::{
    driver::{at, breaker_input, breaker_spec, ms},
    fleet_driver::{Fleet, key, permits, settings, verdict},
    fleet_rule::{member, saw, tripped},
};

fn fleet() -> Fleet {
    Fleet::new(CoordinationMode::Balanced)
}

fn tell(fleet: &mut Fleet, number: usize, seq: u64, report: Report) -> Vec<Effect> {
    let sighting = Sighting { seq, report, policy_revision: Revision(1), held: Holding::default() };
    fleet.coordinator.report(&fleet.key.clone(), &member(number), sighting, at(100), Draw::ZERO)
}

#[test]
fn late_and_repeated_reports_change_nothing() {
    let mut fleet = fleet();
    for number in 0..2 {
        fleet.join(&member(number), None, 0);
    }
    tell(&mut fleet, 0, 2, tripped(5));
    tell(&mut fleet, 1, 2, saw(5, 0));
    let before = fleet.coordinator.clone();
    assert!(tell(&mut fleet, 1, 1, tripped(5)).is_empty(), "it was sent before the other");
    assert!(tell(&mut fleet, 1, 2, saw(5, 0)).is_empty(), "it has been there");
    assert_eq!(fleet.coordinator, before);
    assert_eq!(verdict(&tell(&mut fleet, 1, 3, tripped(5))), Some(FleetState::Open));
}

#[test]
fn a_new_session_begins_its_numbers_anew() {
    let mut fleet = fleet();
    fleet.join(&member(0), None, 0);
    tell(&mut fleet, 0, 9, saw(5, 0));
    fleet.leave(0, 10);
    fleet.join(&member(0), None, 20);
    fleet.configure(&fleet.key.clone(), 20);
    tell(&mut fleet, 0, 1, saw(6, 0));
    assert_eq!(fleet.view(100).members[0].report.calls, 6);
}

#[test]
fn strangers_and_unknown_breakers_are_ignored() {
    let mut fleet = fleet();
    assert!(tell(&mut fleet, 0, 1, tripped(5)).is_empty());
    assert_eq!(fleet.view(100).members.len(), 0);
    fleet.coordinator.forget(&fleet.key.clone());
    fleet.join(&member(0), None, 0);
    assert!(tell(&mut fleet, 0, 1, tripped(5)).is_empty());
}

#[test]
fn a_release_makes_every_report_from_before_it_old_news() {
    let mut fleet = fleet();
    for number in 0..4 {
        fleet.report(number, tripped(5), 0);
    }
    for number in 0..4 {
        fleet.report(number, Report { rejected: 1, ..tripped(5) }, 4900);
    }
    let mut effects = fleet.tick(5000);
    while fleet.state() == FleetState::HalfOpen {
        let permit = permits(&effects)[0];
        effects = fleet.probe(permit, ProbeResult::Success, 5000);
    }
    // One has closed and says so; the others have not been heard yet.
    let closed = Report { local: LocalState::Closed, own_trip: false, ..saw(1, 0) };
    assert_eq!(verdict(&fleet.report(0, closed, 6500)), None);
    assert_eq!(fleet.state(), FleetState::Released);
}

#[test]
fn whoever_missed_a_verdict_is_told_again() {
    let mut fleet = fleet();
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    let effects = fleet.report(2, Report { current: false, ..saw(0, 0) }, 10);
    assert!(matches!(&effects[..], [Effect::Verdict { to: Recipients::One(who), .. }] if *who == member(2)));
    assert!(fleet.report(2, saw(0, 0), 20).is_empty(), "it holds it");
}

#[test]
fn verdicts_of_all_breakers_are_numbered_in_one_order() {
    let mut fleet = fleet();
    let other = key("other", None);
    for key in [fleet.key.clone(), other.clone()] {
        fleet.report_on(&key, 0, tripped(5), 0);
        fleet.report_on(&key, 1, tripped(5), 0);
    }
    let fence = |key| fleet.coordinator.newest(key).unwrap().fence;
    assert_eq!((fence(&fleet.key), fence(&other)), (Fence { term: 1, rev: 1 }, Fence { term: 1, rev: 2 }));
}

#[test]
fn a_target_is_back_when_two_replicas_say_so() {
    let half_open = HalfOpenSpec { probes: 5, concurrent_probes: 1, successes: 2, max_duration: None };
    let breaker = breaker_spec(BreakerInput { half_open, ..breaker_input(5) });
    let mut fleet = Fleet::with(Settings { breaker, ..settings(CoordinationMode::Balanced) });
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    for number in 0..2 {
        fleet.report(number, Report { rejected: 1, ..tripped(5) }, 4900);
    }
    let first = permits(&fleet.tick(5000))[0];
    let other = permits(&fleet.probe(first, ProbeResult::Success, 5010))[0];
    assert_ne!(first.0, other.0);
    let next = permits(&fleet.probe(other, ProbeResult::Inconclusive, 5020))[0];
    assert_eq!(next.0, first.0, "whoever gave it back has to show demand anew");
    fleet.report(other.0, Report { rejected: 1, ..tripped(5) }, 5030);
    let effects = fleet.probe(next, ProbeResult::Success, 5040);
    let again = permits(&effects)[0];
    assert_eq!((verdict(&effects), again.0), (None, other.0), "the one that has not succeeded first");
    assert_eq!(verdict(&fleet.probe(again, ProbeResult::Success, 5050)), Some(FleetState::Released));
}

#[test]
fn a_permit_that_a_silent_replica_may_still_use_counts_in_the_next_half_open_period_too() {
    let half_open = HalfOpenSpec { probes: 2, concurrent_probes: 2, successes: 2, max_duration: None };
    let breaker = breaker_spec(BreakerInput { half_open, delay: ms(500), delay_factor: 1.0, ..breaker_input(5) });
    let mut fleet = Fleet::with(Settings { breaker, ..settings(CoordinationMode::Balanced) });
    fleet.report(0, tripped(5), 3000);
    fleet.report(1, tripped(5), 3000);
    for number in 0..2 {
        fleet.report(number, Report { rejected: 1, ..tripped(5) }, 3400);
    }
    let out = permits(&fleet.tick(3500));
    assert_eq!(out.len(), 2);
    assert_eq!(verdict(&fleet.probe(out[0], ProbeResult::Failure, 3600)), Some(FleetState::Open));
    let next = fleet.tick(4100);
    assert_eq!((verdict(&next), permits(&next).len()), (Some(FleetState::HalfOpen), 1));
    fleet.report(0, Report { rejected: 1, ..tripped(5) }, 6400);
    assert_eq!(permits(&fleet.tick(6500)).len(), 1, "it is void by now");
}

#[test]
fn one_replica_must_do_where_no_other_has_demand_or_the_probes_are_used_up() {
    let mut fleet = fleet();
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    fleet.report(0, Report { rejected: 1, ..tripped(5) }, 4900);
    let mut effects = fleet.tick(5000);
    for _ in 0..3 {
        let permit = permits(&effects)[0];
        assert_eq!(permit.0, 0);
        effects = fleet.probe(permit, ProbeResult::Success, 5000);
    }
    assert_eq!(verdict(&effects), Some(FleetState::Released));
}

#[test]
fn it_explains_what_it_decided_and_what_was_held_back() {
    let mut fleet = fleet();
    fleet.report(2, saw(20, 0), 0);
    fleet.report(0, tripped(5), 60_000);
    for millis in 0..5 {
        fleet.report(1, tripped(5 + millis), 60_000 + millis);
    }
    fleet.report(0, tripped(6), 65_000);
    let records: Vec<_> = fleet.coordinator.explain(&fleet.key).cloned().collect();
    assert_eq!(records.len(), 2);
    let (held, opened) = (&records[0], &records[1]);
    assert_eq!((held.guard, held.cause, held.times), (Some(Guard::StartupGrace), "quorum", 5));
    assert_eq!((held.since, held.until), (at(60_000), at(60_004)));
    assert_eq!((opened.guard, opened.from, opened.to), (None, FleetState::Released, FleetState::Open));
    assert_eq!(opened.detail, "2 of 2 eligible replicas are open, 2 needed");
    let witnesses: Vec<_> = opened.witnesses.iter().map(|own| (own.member.clone(), own.failures)).collect();
    assert_eq!(witnesses, [(member(0), 6), (member(1), 9)]);
}

#[test]
fn records_are_passed_on_once_and_again_when_they_change_and_when_the_breaker_has_gone() {
    let mut fleet = fleet();
    let taken = |fleet: &mut Fleet| {
        let all = fleet.coordinator.take_records();
        all.map(|(_, record)| (record.number, record.times, record.fence)).collect::<Vec<_>>()
    };
    fleet.report(2, saw(20, 0), 0);
    fleet.report(0, tripped(5), 60_000);
    fleet.report(1, tripped(5), 60_000);
    fleet.report(1, tripped(6), 60_001);
    assert_eq!(taken(&mut fleet), [(1, 2, None)], "held back twice");
    assert_eq!(taken(&mut fleet), []);
    fleet.report(1, tripped(7), 60_002);
    assert_eq!(taken(&mut fleet), [(1, 3, None)], "a third time");
    fleet.report(0, tripped(6), 65_000);
    let key = fleet.key.clone();
    fleet.coordinator.forget(&key);
    assert_eq!(taken(&mut fleet), [(2, 1, Some(Fence { term: 1, rev: 1 }))]);
    assert_eq!(fleet.coordinator.explain(&fleet.key).count(), 0);
}

#[test]
fn it_remembers_a_bounded_number_of_records() {
    let mut fleet = fleet();
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    let mut now = 0;
    for _ in 0..100 {
        now += 120_000;
        let effects = fleet.report(0, Report { rejected: 1, ..tripped(5) }, now);
        fleet.probe(permits(&effects)[0], ProbeResult::Failure, now);
    }
    assert_eq!(fleet.coordinator.explain(&fleet.key).count(), 32);
}

#[test]
fn the_lists_of_states_guards_and_modes_leave_none_out() {
    // Each has its place: a new one does not compile until it has one too.
    let state = |own| match own {
        FleetState::Released => 0,
        FleetState::Open => 1,
        FleetState::HalfOpen => 2,
        FleetState::Ramp => 3,
        FleetState::ForcedOpen => 4,
        FleetState::ForcedClosed => 5,
        FleetState::Disabled => 6,
    };
    let guard = |own| match own {
        Guard::Learning => 0,
        Guard::Frozen => 1,
        Guard::Dwell => 2,
        Guard::BlastRadius => 3,
        Guard::OpeningRate => 4,
        Guard::DenominatorShrink => 5,
        Guard::StartupGrace => 6,
        Guard::SickReporter => 7,
    };
    let mode = |own| match own {
        CoordinationMode::Balanced => 0,
        CoordinationMode::Quorum => 1,
        CoordinationMode::Pooled => 2,
        CoordinationMode::Any => 3,
        CoordinationMode::Local => 4,
    };
    assert_eq!(FleetState::ALL.map(state), std::array::from_fn(|place| place));
    assert_eq!(Guard::ALL.map(guard), std::array::from_fn(|place| place));
    assert_eq!(CoordinationMode::ALL.map(mode), std::array::from_fn(|place| place));
}
