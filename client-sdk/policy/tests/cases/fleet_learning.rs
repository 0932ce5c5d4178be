//! After a start, a raised term, or a reason for suspicion: nothing new is decided until nothing old can be in force.

use fusebox_policy::{
    Draw, Revision,
    breaker::BreakerInput,
    fleet::{
        CoordinationMode,
        coordinator::{Effect, Guard, Holding, Limits, Mode, Recipients, Sighting, Suspicion},
        evidence::Report,
        held::Fence,
        shared::{FleetState, ProbeResult, Settings},
    },
};

use crate::{
    driver::{at, breaker_input, breaker_spec, ms},
    fleet_driver::{Fleet, causes, held, permits, settings, verdict},
    fleet_rule::{member, saw, tripped},
};

/// The second run of its store.
fn restarted() -> Fleet {
    Fleet::in_term(2, settings(CoordinationMode::Balanced))
}

fn holds(state: FleetState, rev: u64) -> Holding {
    Holding { fence: Fence { term: 1, rev }, state: Some(state), half_open_in: Some(ms(2000)) }
}

fn modes(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Mode { to, .. } => Some(to.name()),
            Effect::Verdict { .. }
            | Effect::Permit { .. }
            | Effect::Canvass { .. }
            | Effect::Transition { .. }
            | Effect::Held { .. } => None,
        })
        .collect()
}

#[test]
fn the_first_run_of_a_store_has_nothing_to_learn() {
    assert_eq!(Fleet::new(CoordinationMode::Balanced).coordinator.mode(), Mode::Deciding);
    assert_eq!(restarted().coordinator.mode(), Mode::Learning { until: at(15_000) });
}

#[test]
fn while_learning_nothing_new_is_opened_and_it_is_said_why() {
    let mut fleet = restarted();
    fleet.report(0, tripped(5), 0);
    assert_eq!(held(&fleet.report(1, tripped(5), 0)), Some(Guard::Learning));
    assert!(fleet.report(1, tripped(6), 14_999).is_empty(), "it is said once");
    assert_eq!(modes(&fleet.tick(15_000)), ["deciding"]);
    assert_eq!(verdict(&fleet.report(0, tripped(6), 15_000)), Some(FleetState::Open));
}

#[test]
fn what_two_replicas_hold_of_the_former_run_goes_on_under_the_new_term() {
    let mut fleet = restarted();
    assert!(fleet.claims(0, holds(FleetState::Open, 7), 0).is_empty(), "one word is not enough");
    let effects = fleet.claims(1, holds(FleetState::Open, 7), 100);
    assert_eq!((verdict(&effects), causes(&effects)), (Some(FleetState::Open), vec!["adopted"]));
    let newest = fleet.coordinator.newest(&fleet.key).unwrap();
    assert_eq!((newest.fence, newest.half_open_at), (Fence { term: 2, rev: 1 }, Some(at(2000))));
    // Its open time is over, but a permit of the former run may still be in use. A run after this one will not go on with it.
    assert!(fleet.tick(2100).is_empty());
    assert!(permits(&fleet.claims(0, holds(FleetState::Open, 7), 2100)).is_empty());
    let effects = fleet.tick(15_000);
    assert_eq!((modes(&effects), verdict(&effects)), (vec!["deciding"], Some(FleetState::HalfOpen)));
    assert_eq!(permits(&fleet.report(0, Report { rejected: 1, ..tripped(5) }, 15_100)).len(), 1);
}

#[test]
fn what_waits_for_permits_or_is_overdue_is_left_to_its_leases() {
    let overdue = |half_open_in| Holding { half_open_in, ..holds(FleetState::Open, 7) };
    let left = [
        ("half-open", [holds(FleetState::HalfOpen, 7); 2]),
        ("ramp", [holds(FleetState::Ramp, 7); 2]),
        ("overdue", [overdue(Some(ms(0))); 2]),
        ("nobody says when", [overdue(None); 2]),
        ("one of them says that it is overdue", [overdue(Some(ms(2000))), overdue(Some(ms(0)))]),
    ];
    for (what, claims) in left {
        let mut fleet = restarted();
        for (number, held) in claims.into_iter().enumerate() {
            assert!(fleet.claims(number, held, 0).is_empty(), "{what}");
        }
        assert_eq!(fleet.state(), FleetState::Released, "{what}");
    }
    let mut fleet = restarted();
    fleet.claims(0, overdue(Some(ms(600_000))), 0);
    fleet.claims(1, holds(FleetState::Open, 7), 0);
    assert_eq!(fleet.view(0).half_open_in, Some(ms(2000)), "the lesser of what both say");
}

#[test]
fn an_opening_that_goes_on_gives_way_to_what_was_said_after_it() {
    for state in [FleetState::HalfOpen, FleetState::Ramp] {
        let mut fleet = restarted();
        fleet.claims(0, holds(FleetState::Open, 6), 0);
        assert_eq!(verdict(&fleet.claims(1, holds(FleetState::Open, 6), 0)), Some(FleetState::Open));
        fleet.claims(2, holds(state, 7), 10);
        assert_eq!(verdict(&fleet.claims(3, holds(state, 7), 10)), Some(state));
        fleet.claims(4, holds(FleetState::Released, 8), 10);
        let effects = fleet.claims(5, holds(FleetState::Released, 8), 20);
        assert_eq!(verdict(&effects), Some(FleetState::Released), "{state}");
        assert_eq!(verdict(&fleet.claims(6, holds(state, 7), 30)), None, "{state} is old news");
    }
}

#[test]
fn what_replicas_saw_before_a_verdict_of_a_former_run_is_no_evidence_for_this_one() {
    let mut fleet = restarted();
    let obeys = |fleet: &mut Fleet, number| {
        fleet.seq += 1;
        let (held, policy_revision) = (holds(FleetState::HalfOpen, 7), Revision(1));
        let sighting = Sighting { seq: fleet.seq, report: tripped(5), policy_revision, held };
        fleet.join(&member(number), None, 14_000);
        fleet.coordinator.report(&fleet.key.clone(), &member(number), sighting, at(14_000), Draw::ZERO)
    };
    for number in 0..3 {
        obeys(&mut fleet, number);
    }
    fleet.tick(15_000);
    assert!(fleet.report(3, saw(1, 1), 15_100).is_empty(), "they tripped before they were told to refuse");
}

#[test]
fn what_has_expired_or_is_about_another_policy_does_not_go_on() {
    let mut fleet = restarted();
    let expired = Holding { state: None, ..holds(FleetState::Open, 7) };
    for number in 0..3 {
        assert_eq!(verdict(&fleet.claims(number, expired, 0)), None);
    }
    let ours = Holding { fence: Fence { term: 2, rev: 1 }, ..holds(FleetState::Open, 7) };
    for number in 0..3 {
        assert_eq!(verdict(&fleet.claims(number, ours, 0)), None, "no earlier term");
    }
    assert_eq!(fleet.state(), FleetState::Released);
}

#[test]
fn a_newcomer_is_told_what_goes_on() {
    let mut fleet = restarted();
    fleet.claims(0, holds(FleetState::Open, 7), 0);
    fleet.claims(1, holds(FleetState::Open, 7), 0);
    let effects = fleet.claims(2, Holding::default(), 10);
    assert!(matches!(&effects[..], [Effect::Verdict { to: Recipients::One(who), decision, .. }]
        if *who == member(2) && decision.state == FleetState::Open));
}

#[test]
fn a_raised_term_takes_what_is_in_force_with_it_and_learns() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    let effects = fleet.coordinator.raise_term(9, at(1000));
    assert_eq!((verdict(&effects), modes(&effects)), (Some(FleetState::Open), vec!["learning"]));
    let newest = fleet.coordinator.newest(&fleet.key).unwrap();
    assert_eq!((newest.fence.term, newest.half_open_at), (9, Some(at(5000))));
}

#[test]
fn what_waits_for_permits_is_told_in_no_later_term_and_released_when_its_leases_have_ended() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    assert_eq!(verdict(&fleet.tick(5000)), Some(FleetState::HalfOpen));
    assert_eq!(causes(&fleet.coordinator.raise_term(9, at(6000))), Vec::<&str>::new());
    assert!(fleet.report(2, saw(1, 0), 7000).is_empty(), "to tell a newcomer would be to renew it");
    // However often the term is raised meanwhile.
    for term in 10..13 {
        fleet.coordinator.raise_term(term, at(7000 * (term - 9)));
    }
    assert_eq!(fleet.coordinator.next_deadline(), Some(at(21_000)));
    let effects = fleet.tick(21_000);
    assert_eq!((causes(&effects), verdict(&effects)), (vec!["leases_lapsed"], Some(FleetState::Released)));
    assert_eq!(fleet.coordinator.mode(), Mode::Learning { until: at(36_000) });
}

#[test]
fn suspicion_stops_everything_until_all_leases_have_ended_and_then_it_learns() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    assert_eq!(modes(&fleet.coordinator.suspect(Suspicion::Stall, at(1000))), ["frozen"]);
    assert_eq!(fleet.coordinator.renewable(), 0, "leases are not renewed");
    assert!(fleet.report(2, tripped(5), 2000).is_empty(), "nothing is told, not even to a newcomer");
    assert!(fleet.tick(15_999).is_empty(), "no probes");
    let effects = fleet.tick(16_000);
    assert_eq!((modes(&effects), causes(&effects)), (vec!["learning"], vec!["leases_lapsed"]));
    assert_eq!((verdict(&effects), fleet.state()), (Some(FleetState::Released), FleetState::Released));
    assert_eq!(fleet.view(16_000).members.len(), 0, "what was said before is old");
    fleet.report(0, tripped(5), 20_000);
    assert_eq!(held(&fleet.report(1, tripped(5), 20_000)), Some(Guard::Learning));
    assert_eq!(modes(&fleet.tick(31_000)), ["deciding"]);
}

#[test]
fn suspicion_that_goes_on_prolongs_the_freeze() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.coordinator.suspect(Suspicion::StoreUnwritable, at(0));
    assert!(fleet.coordinator.suspect(Suspicion::StoreUnwritable, at(10_000)).is_empty());
    assert!(fleet.tick(15_000).is_empty());
    assert_eq!(modes(&fleet.tick(25_000)), ["learning"]);
}

#[test]
fn more_than_half_gone_at_once_is_a_mass_disconnect() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    for number in 0..6 {
        fleet.report(number, saw(5, 0), 0);
    }
    for number in 0..3 {
        assert!(modes(&fleet.leave(number, 100)).is_empty());
    }
    assert_eq!(modes(&fleet.leave(3, 200)), ["frozen"]);
}

#[test]
fn few_replicas_or_a_slow_loss_are_no_mass_disconnect() {
    let mut few = Fleet::new(CoordinationMode::Balanced);
    let mut slow = Fleet::new(CoordinationMode::Balanced);
    for number in 0..3 {
        few.report(number, saw(5, 0), 0);
    }
    for number in 0..10 {
        slow.report(number, saw(5, 0), 0);
    }
    for number in 0..3 {
        assert!(modes(&few.leave(number, 100)).is_empty());
    }
    for number in 0..9 {
        assert!(modes(&slow.leave(number as usize, 10_000 + number * 6000)).is_empty(), "{number}");
    }
}

#[test]
fn a_probe_that_ends_in_a_freeze_counts_for_nothing() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    fleet.report(0, Report { rejected: 1, ..tripped(5) }, 4900);
    let permit = permits(&fleet.tick(5000))[0];
    fleet.coordinator.suspect(Suspicion::Stall, at(5000));
    assert!(fleet.probe(permit, ProbeResult::Failure, 5100).is_empty());
}

#[test]
fn many_due_at_once_draw_apart() {
    let draws: Vec<f64> = (0..100).map(|number| Draw::HALF.of(number).get()).collect();
    assert!((draws[0] - 0.5).abs() < f64::EPSILON);
    let mut sorted = draws;
    sorted.sort_by(f64::total_cmp);
    assert!(sorted.windows(2).all(|pair| pair[1] - pair[0] < 0.03), "no gaps: {sorted:?}");
}

#[test]
fn a_first_run_gives_no_permit_while_those_of_a_run_that_it_can_not_know_of_may_be_used() {
    let breaker = breaker_spec(BreakerInput { delay: ms(500), ..breaker_input(5) });
    let mut fleet = Fleet::with(Settings { breaker, ..settings(CoordinationMode::Balanced) });
    let wanting = |rejected| Report { rejected, ..tripped(5) };
    fleet.report(0, wanting(1), 0);
    assert_eq!(verdict(&fleet.report(1, wanting(1), 0)), Some(FleetState::Open));
    assert_eq!(verdict(&fleet.tick(500)), Some(FleetState::HalfOpen));
    let ttl = u64::try_from(Limits::default().permit_ttl.as_millis()).unwrap();
    assert!(permits(&fleet.report(0, wanting(2), ttl - 1)).is_empty());
    assert_eq!(permits(&fleet.report(0, wanting(3), ttl)).len(), 1);
}
