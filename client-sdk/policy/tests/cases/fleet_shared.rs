//! The fleet's machine of one breaker: opens on witnesses, probes within the budget, releases on successes.

use fusebox_policy::{
    Draw, Revision,
    breaker::LocalState,
    fleet::{
        CoordinationMode,
        evidence::Report,
        shared::{Effect, FleetState, ProbeResult, Settings, SharedBreaker},
    },
};

use crate::{
    driver::{at, breaker_input, breaker_spec},
    fleet_rule::{coordination, member, saw, tripped},
};

fn settings(mode: CoordinationMode) -> Settings {
    Settings { breaker: breaker_spec(breaker_input(5)), coordination: coordination(mode), policy_revision: Revision(1) }
}

fn shared() -> SharedBreaker {
    SharedBreaker::new(settings(CoordinationMode::Balanced), at(0))
}

fn report(shared: &mut SharedBreaker, number: usize, report: Report, millis: u64) -> Vec<Effect> {
    shared.report(&member(number), None, report, at(millis), Draw::ZERO)
}

fn verdict(effects: &[Effect]) -> Option<FleetState> {
    effects.iter().find_map(|effect| match effect {
        Effect::Verdict { state, .. } => Some(*state),
        Effect::Permit { .. } | Effect::Canvass | Effect::Transition { .. } => None,
    })
}

fn permits(effects: &[Effect]) -> Vec<(usize, u64)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Permit { member: to, id, .. } => Some(((0..10).find(|n| member(*n) == *to)?, *id)),
            Effect::Verdict { .. } | Effect::Canvass | Effect::Transition { .. } => None,
        })
        .collect()
}

fn wanting(rejected: u64) -> Report {
    Report { rejected, ..tripped(5) }
}

/// Opened at 0 by two of three replicas.
fn opened() -> SharedBreaker {
    let mut shared = shared();
    report(&mut shared, 2, saw(0, 0), 0);
    report(&mut shared, 0, tripped(5), 0);
    assert_eq!(verdict(&report(&mut shared, 1, tripped(5), 0)), Some(FleetState::Open));
    shared
}

#[test]
fn the_first_trip_asks_the_others_and_the_second_opens() {
    let mut shared = shared();
    report(&mut shared, 1, saw(5, 0), 0);
    assert_eq!(report(&mut shared, 0, tripped(5), 0), [Effect::Canvass]);
    assert!(report(&mut shared, 0, tripped(5), 10).is_empty(), "the same trip does not ask again");
    assert_eq!(verdict(&report(&mut shared, 1, tripped(5), 20)), Some(FleetState::Open));
    assert_eq!(shared.half_open_in(at(20)).unwrap().as_secs(), 5);
}

#[test]
fn without_company_there_is_no_canvass_and_no_verdict() {
    let mut shared = shared();
    assert!(report(&mut shared, 0, tripped(5), 0).is_empty());
    assert!(shared.view(at(0)).evidence.insufficient_witnesses);
}

#[test]
fn mode_local_decides_nothing() {
    let mut shared = SharedBreaker::new(settings(CoordinationMode::Local), at(0));
    for number in 0..5 {
        assert!(report(&mut shared, number, tripped(5), 0).is_empty());
    }
    assert_eq!(shared.view(at(0)).members.len(), 5);
}

#[test]
fn probes_go_one_at_a_time_to_replicas_with_demand_distinct_ones_first() {
    let mut shared = opened();
    report(&mut shared, 0, wanting(10), 4900);
    report(&mut shared, 1, wanting(1), 4900);
    let effects = shared.tick(at(5000), Draw::ZERO);
    assert_eq!(verdict(&effects), Some(FleetState::HalfOpen));
    let first = permits(&effects);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].0, 0, "the busiest first");
    let second = permits(&shared.probe_outcome(first[0].1, ProbeResult::Success, at(5010), Draw::ZERO));
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].0, 1, "then the one that had none");
    let third = permits(&shared.probe_outcome(second[0].1, ProbeResult::Success, at(5020), Draw::ZERO));
    let last = shared.probe_outcome(third[0].1, ProbeResult::Success, at(5030), Draw::ZERO);
    assert_eq!(verdict(&last), Some(FleetState::Released));
}

#[test]
fn without_demand_it_stays_half_open_and_gives_no_permit() {
    let mut shared = opened();
    assert!(permits(&shared.tick(at(5000), Draw::ZERO)).is_empty());
    assert!(shared.tick(at(60_000), Draw::ZERO).is_empty());
    assert_eq!(shared.state(), FleetState::HalfOpen);
    assert_eq!(permits(&report(&mut shared, 2, wanting(1), 60_000)).len(), 1, "demand is answered at once");
}

#[test]
fn a_failed_probe_opens_for_twice_as_long() {
    let mut shared = opened();
    report(&mut shared, 0, wanting(1), 4900);
    let permit = permits(&shared.tick(at(5000), Draw::ZERO))[0].1;
    let effects = shared.probe_outcome(permit, ProbeResult::Failure, at(5000), Draw::ZERO);
    assert_eq!(verdict(&effects), Some(FleetState::Open));
    assert_eq!(shared.half_open_in(at(5000)).unwrap().as_secs(), 10);
}

#[test]
fn an_inconclusive_probe_gives_the_permit_to_somebody() {
    let mut shared = opened();
    report(&mut shared, 0, wanting(1), 4900);
    report(&mut shared, 1, wanting(1), 4900);
    let first = permits(&shared.tick(at(5000), Draw::ZERO))[0];
    let second = permits(&shared.probe_outcome(first.1, ProbeResult::Inconclusive, at(5000), Draw::ZERO));
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].0, first.0);
}

#[test]
fn a_permit_counts_once_and_only_while_in_flight() {
    let mut shared = opened();
    report(&mut shared, 0, wanting(1), 4900);
    let permit = permits(&shared.tick(at(5000), Draw::ZERO))[0].1;
    shared.probe_outcome(permit, ProbeResult::Success, at(5000), Draw::ZERO);
    for forged in [permit, 999] {
        assert!(shared.probe_outcome(forged, ProbeResult::Success, at(5001), Draw::ZERO).is_empty());
    }
    assert_eq!(shared.view(at(5001)).probes_succeeded, 1);
}

#[test]
fn a_holder_that_vanishes_holds_nobody_up_for_ever() {
    let mut shared = opened();
    report(&mut shared, 0, wanting(1), 4900);
    shared.tick(at(5000), Draw::ZERO);
    shared.leave(&member(0), at(5100), Draw::ZERO);
    let due = shared.next_deadline().expect("the permit lapses");
    let millis = u64::try_from(due.since_origin().as_millis()).unwrap();
    report(&mut shared, 1, wanting(1), millis - 1);
    assert_eq!(permits(&shared.tick(due, Draw::ZERO)).len(), 1);
}

#[test]
fn late_news_from_before_the_release_does_not_open_it_again() {
    let mut shared = opened();
    report(&mut shared, 0, wanting(9), 4900);
    let mut effects = shared.tick(at(5000), Draw::ZERO);
    while shared.state() == FleetState::HalfOpen {
        let permit = permits(&effects)[0].1;
        effects = shared.probe_outcome(permit, ProbeResult::Success, at(5000), Draw::ZERO);
    }
    let old = Report { current: false, ..tripped(5) };
    for number in 0..3 {
        assert_eq!(verdict(&report(&mut shared, number, old, 5001)), None);
    }
    let closed = Report { local: LocalState::Closed, own_trip: false, ..saw(0, 0) };
    assert_eq!(verdict(&report(&mut shared, 0, closed, 5002)), None);
    assert_eq!(shared.state(), FleetState::Released);
}

#[test]
fn losing_members_alone_never_opens_it() {
    let mut shared = shared();
    for number in (0..10).rev() {
        report(&mut shared, number, if number < 2 { tripped(5) } else { saw(20, 0) }, 0);
    }
    for number in 2..10 {
        assert!(shared.leave(&member(number), at(1), Draw::ZERO).is_empty());
    }
    assert_eq!(shared.state(), FleetState::Released);
}

#[test]
fn a_changed_policy_voids_the_verdict_without_a_word() {
    let mut shared = opened();
    let changed = Settings { policy_revision: Revision(2), ..settings(CoordinationMode::Balanced) };
    let effects = shared.configure(changed, at(100));
    assert!(matches!(&effects[..], [Effect::Transition { to: FleetState::Released, .. }]));
}
