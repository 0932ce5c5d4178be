//! A term that was used before, in a store that was wiped or restored: nothing is told in it to whoever has seen it.

use fusebox_policy::fleet::{
    CoordinationMode,
    coordinator::Holding,
    held::Fence,
    shared::FleetState,
    term::{CLAIMED_BY_ANY, CLAIMED_OF_A_RUN, FARTHEST, GREATEST, RunId, SeenTerm, reach},
};

use crate::{
    driver::{at, ms},
    fleet_driver::{Fleet, causes, key, run, settings, verdict},
    fleet_rule::{member, tripped},
};

fn seen(term: u64, run: Option<RunId>) -> SeenTerm {
    SeenTerm { term, run }
}

#[test]
fn a_term_is_left_behind_when_another_run_has_used_it_or_a_later_one() {
    let fleet = Fleet::in_term(5, settings(CoordinationMode::Balanced));
    let ours = fleet.coordinator.run();
    let other = RunId::new(ours.get() + 1);
    let table = [
        ("nothing", seen(0, None), None),
        ("an earlier term of another run", seen(4, other), None),
        ("ours", seen(5, Some(ours)), None),
        ("ours, of another run", seen(5, other), Some(6)),
        ("a later one of another run", seen(8, other), Some(9)),
        ("a later one, and not whose", seen(8, None), Some(9)),
        ("a later one that bears our id", seen(8, Some(ours)), Some(9)),
    ];
    for (what, seen, rises) in table {
        assert_eq!(fleet.coordinator.must_rise_to(&fleet.caller, seen), rises, "{what}");
    }
}

#[test]
fn a_term_of_which_nobody_knows_whose_it_is_is_ours_only_if_we_have_told_of_it() {
    let mut fleet = Fleet::in_term(5, settings(CoordinationMode::Balanced));
    let (caller, unknown) = (fleet.caller.clone(), seen(5, None));
    assert_eq!(fleet.coordinator.must_rise_to(&caller, unknown), Some(6), "we have told nobody");
    fleet.coordinator.raise_term(6, at(0));
    assert_eq!(fleet.coordinator.must_rise_to(&caller, unknown), None, "it is an earlier term now");

    fleet.coordinator.join(&caller, &member(1), None, at(0));
    assert_eq!(fleet.coordinator.must_rise_to(&caller, seen(6, None)), None, "a replica of the service was told");
    let mut stranger = key("service-b", None).caller_id();
    stranger.caller = fusebox_policy::CallerName::try_new("service-z").unwrap();
    assert_eq!(fleet.coordinator.must_rise_to(&stranger, seen(6, None)), Some(7), "no replica of this one was");

    fleet.coordinator.raise_term(9, at(0));
    assert_eq!(fleet.coordinator.must_rise_to(&caller, seen(9, None)), None, "who is connected hears of a raised term");
    assert_eq!(fleet.coordinator.must_rise_to(&stranger, seen(9, None)), Some(10));
}

#[test]
fn claims_raise_a_run_no_further_than_a_replica_that_was_away_can_follow() {
    let table = [
        (1, CLAIMED_BY_ANY, "a new store, or one that was wiped"),
        (CLAIMED_BY_ANY - CLAIMED_OF_A_RUN, CLAIMED_BY_ANY, "just as far"),
        (CLAIMED_BY_ANY, CLAIMED_BY_ANY + CLAIMED_OF_A_RUN, "by so much"),
        (GREATEST - 1, GREATEST, "terms end"),
    ];
    for (began, reaches, what) in table {
        assert_eq!(reach(began), reaches, "{what}");
    }
    let mut fleet = Fleet::in_term(CLAIMED_BY_ANY, settings(CoordinationMode::Balanced));
    let end = fleet.coordinator.reach();
    fleet.coordinator.raise_term(end, at(0));
    assert_eq!(fleet.coordinator.reach(), end, "in all, and not with each claim");

    // Each run is raised as far as can be, from the first of the store on. A replica that has seen that one has never been there since.
    let mut term = 1;
    for run in 1..=500 {
        term = reach(term);
        assert!(term <= 1 + FARTHEST, "left behind by run {run}");
        term += 1;
    }
}

#[test]
fn a_replica_remembers_the_highest_term_and_whose_it_was_first() {
    let (a, b) = (run(7), run(8));
    let mut own = SeenTerm::default();
    assert!(!own.see(0, Some(a)), "no run has this term");
    assert!(own.see(3, None));
    assert!(own.see(3, Some(a)), "now it is known whose");
    assert!(!own.see(3, Some(b)), "the next server must hear of the first");
    assert!(!own.see(3, None) && !own.see(2, Some(b)));
    assert_eq!((own, own.run_number()), (seen(3, Some(a)), 7));
    assert!(own.see(4, None));
    assert_eq!((own, own.run_number()), (seen(4, None), 0), "a server that does not say");
    assert_eq!(RunId::new(0), None);
}

#[test]
fn two_runs_with_the_same_term_do_not_confirm_each_other_s_verdicts() {
    let mut fleet = Fleet::in_term(1, settings(CoordinationMode::Balanced));
    fleet.coordinator.raise_term(2, at(0));
    let holds = |state| Holding { fence: Fence { term: 1, rev: 5 }, state: Some(state), half_open_in: Some(ms(2000)) };
    assert_eq!(verdict(&fleet.claims(0, holds(FleetState::Released), 0)), None);
    assert_eq!(verdict(&fleet.claims(1, holds(FleetState::Open), 10)), None, "one replica's word alone");
    assert_eq!(fleet.state(), FleetState::Released);
}

#[test]
fn what_a_wiped_run_had_decided_goes_on_in_the_term_above() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    let before = fleet.coordinator.newest(&fleet.key).unwrap().fence;
    let other = RunId::new(fleet.coordinator.run().get() + 1);
    let term = fleet.coordinator.must_rise_to(&fleet.caller, seen(1, other)).unwrap();
    let effects = fleet.coordinator.raise_term(term, at(100));
    assert_eq!((verdict(&effects), causes(&effects)), (Some(FleetState::Open), vec!["adopted"]));
    let after = fleet.coordinator.newest(&fleet.key).unwrap().fence;
    assert!(after > before && after.term == 2);
}
