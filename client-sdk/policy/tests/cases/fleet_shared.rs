//! The fleet's machine of one breaker: opens on witnesses, probes within the budget, releases on successes.

use fusebox_policy::{
    Revision,
    breaker::LocalState,
    fleet::{
        CoordinationMode,
        coordinator::{Effect, Recipients},
        evidence::Report,
        shared::{FleetState, ProbeResult, Settings},
    },
};

use crate::{
    driver::at,
    fleet_driver::{Fleet, permits, settings, verdict},
    fleet_rule::{member, saw, tripped},
};

fn shared() -> Fleet {
    Fleet::new(CoordinationMode::Balanced)
}

fn wanting(rejected: u64) -> Report {
    Report { rejected, ..tripped(5) }
}

/// Opened at 0 by two of three replicas.
fn opened() -> Fleet {
    let mut shared = shared();
    shared.report(2, saw(0, 0), 0);
    shared.report(0, tripped(5), 0);
    assert_eq!(verdict(&shared.report(1, tripped(5), 0)), Some(FleetState::Open));
    shared
}

#[test]
fn the_first_trip_asks_the_others_and_the_second_opens() {
    let mut shared = shared();
    shared.report(1, saw(5, 0), 0);
    let asks = Effect::Canvass { key: shared.key.clone(), to: vec![member(1)] };
    assert_eq!(shared.report(0, tripped(5), 0), [asks]);
    assert!(shared.report(0, tripped(5), 10).is_empty(), "the same trip does not ask again");
    assert_eq!(verdict(&shared.report(1, tripped(5), 20)), Some(FleetState::Open));
    assert_eq!(shared.view(20).half_open_in.unwrap().as_secs(), 5);
}

#[test]
fn without_company_there_is_no_canvass_and_no_verdict() {
    let mut shared = shared();
    assert!(shared.report(0, tripped(5), 0).is_empty());
    assert!(shared.view(0).evidence.insufficient_witnesses);
}

#[test]
fn mode_local_decides_nothing() {
    let mut shared = Fleet::new(CoordinationMode::Local);
    for number in 0..5 {
        assert!(shared.report(number, tripped(5), 0).is_empty());
    }
    assert_eq!(shared.view(0).members.len(), 5);
}

#[test]
fn probes_go_one_at_a_time_to_replicas_with_demand_distinct_ones_first() {
    let mut shared = opened();
    shared.report(0, wanting(10), 4900);
    shared.report(1, wanting(1), 4900);
    let effects = shared.tick(5000);
    assert_eq!(verdict(&effects), Some(FleetState::HalfOpen));
    let first = permits(&effects);
    assert_eq!(first.len(), 1);
    assert_eq!(first[0].0, 0, "the busiest first");
    let second = permits(&shared.probe(first[0], ProbeResult::Success, 5010));
    assert_eq!(second.len(), 1);
    assert_eq!(second[0].0, 1, "then the one that had none");
    let third = permits(&shared.probe(second[0], ProbeResult::Success, 5020));
    let last = shared.probe(third[0], ProbeResult::Success, 5030);
    assert_eq!(verdict(&last), Some(FleetState::Released));
}

#[test]
fn without_demand_it_stays_half_open_and_gives_no_permit() {
    let mut shared = opened();
    assert!(permits(&shared.tick(5000)).is_empty());
    assert!(shared.tick(60_000).is_empty());
    assert_eq!(shared.state(), FleetState::HalfOpen);
    assert_eq!(permits(&shared.report(2, wanting(1), 60_000)).len(), 1, "demand is answered at once");
}

#[test]
fn a_failed_probe_opens_for_twice_as_long() {
    let mut shared = opened();
    shared.report(0, wanting(1), 4900);
    let permit = permits(&shared.tick(5000))[0];
    let effects = shared.probe(permit, ProbeResult::Failure, 5000);
    assert_eq!(verdict(&effects), Some(FleetState::Open));
    assert_eq!(shared.view(5000).half_open_in.unwrap().as_secs(), 10);
}

#[test]
fn an_inconclusive_probe_gives_the_permit_to_somebody() {
    let mut shared = opened();
    shared.report(0, wanting(1), 4900);
    shared.report(1, wanting(1), 4900);
    let first = permits(&shared.tick(5000))[0];
    let second = permits(&shared.probe(first, ProbeResult::Inconclusive, 5000));
    assert_eq!(second.len(), 1);
    assert_ne!(second[0].0, first.0);
}

#[test]
fn a_permit_counts_once_and_only_while_in_flight() {
    let mut shared = opened();
    shared.report(0, wanting(1), 4900);
    let permit = permits(&shared.tick(5000))[0];
    shared.probe(permit, ProbeResult::Success, 5000);
    for forged in [permit, (0, 999), (1, permit.1)] {
        assert!(shared.probe(forged, ProbeResult::Success, 5001).is_empty());
    }
    assert_eq!(shared.view(5001).probes_succeeded, 1);
}

#[test]
fn a_holder_that_vanishes_holds_nobody_up_for_ever() {
    let mut shared = opened();
    shared.report(0, wanting(1), 4900);
    shared.tick(5000);
    shared.leave(0, 5100);
    let due = shared.coordinator.next_deadline().expect("the permit lapses");
    let millis = u64::try_from(due.since_origin().as_millis()).unwrap();
    shared.report(1, wanting(1), millis - 1);
    assert_eq!(permits(&shared.tick(millis)).len(), 1);
}

#[test]
fn late_news_from_before_the_release_does_not_open_it_again() {
    let mut shared = opened();
    shared.report(0, wanting(9), 4900);
    let mut effects = shared.tick(5000);
    while shared.state() == FleetState::HalfOpen {
        let permit = permits(&effects)[0];
        effects = shared.probe(permit, ProbeResult::Success, 5000);
    }
    let old = Report { current: false, ..tripped(5) };
    for number in 0..3 {
        assert_eq!(verdict(&shared.report(number, old, 5001)), None);
    }
    let closed = Report { local: LocalState::Closed, own_trip: false, ..saw(0, 0) };
    assert_eq!(verdict(&shared.report(0, closed, 5002)), None);
    assert_eq!(shared.state(), FleetState::Released);
}

#[test]
fn losing_members_alone_never_opens_it() {
    let mut shared = shared();
    for number in (0..10).rev() {
        shared.report(number, if number < 2 { tripped(5) } else { saw(20, 0) }, 0);
    }
    for number in 2..10 {
        assert_eq!(verdict(&shared.leave(number, 1)), None);
    }
    assert_eq!(shared.state(), FleetState::Released);
}

#[test]
fn a_changed_policy_voids_the_verdict_without_a_word() {
    let mut shared = opened();
    let changed = Settings { policy_revision: Revision(2), ..settings(CoordinationMode::Balanced) };
    let effects = shared.coordinator.configure(&shared.key.clone(), changed, at(100));
    assert!(matches!(&effects[..], [Effect::Transition { to: FleetState::Released, .. }]));
}

/// Found by the model: a replica whose verdict had lapsed gave each permit back at once, and got the next one at once, without end.
#[test]
fn who_gives_a_permit_back_gets_the_next_one_only_after_it_has_reported_demand_anew() {
    let mut shared = shared();
    shared.report(0, wanting(1), 0);
    shared.report(1, tripped(5), 0);
    shared.report(0, wanting(1), 4900);
    let [(0, first)] = permits(&shared.tick(5000))[..] else { panic!("not the one with demand") };
    assert_eq!(permits(&shared.probe((0, first), ProbeResult::Inconclusive, 5000)), []);
    assert!(matches!(permits(&shared.report(0, wanting(1), 5900))[..], [(0, _)]));
}

/// Found by the model: the fleet was released and its last replica left, so that all was forgotten; then one came back that had missed
/// the release, and its heartbeats renewed the opening for ever.
#[test]
fn a_replica_that_missed_the_release_is_told_when_it_comes_back_however_many_have_left() {
    let mut shared = opened();
    let open = shared.coordinator.newest(&shared.key.clone()).unwrap().fence;
    shared.report(0, wanting(1), 4900);
    shared.leave(2, 4900);
    shared.leave(1, 4900);
    let mut next = permits(&shared.tick(5000));
    while shared.state() == FleetState::HalfOpen {
        let effects = shared.probe(next[0], ProbeResult::Success, 5100);
        next = permits(&effects);
    }
    assert_eq!(shared.state(), FleetState::Released);
    shared.leave(0, 5200);
    let effects = shared.report_holding(1, saw(0, 0), open, 6000);
    let told = effects.iter().any(|effect| {
        matches!(effect, Effect::Verdict { to: Recipients::One(who), decision, .. }
            if *who == member(1) && decision.state == FleetState::Released && decision.fence > open)
    });
    assert!(told, "{effects:?}");

    shared.leave(1, 6000);
    let lease = shared.coordinator.limits().lease.as_millis() as u64;
    shared.report(1, saw(0, 0), 6000 + lease);
    shared.leave(1, 6000 + lease);
    assert_eq!(shared.coordinator.next_deadline(), Some(at(6000 + 2 * lease)));
    shared.tick(6000 + 2 * lease);
    assert_eq!(shared.coordinator.keys().count(), 0, "after a lease nobody can hold what was said before");
}
