//! A breaker that an operator has disabled: every call passes, nothing is counted, and the fleet does without it.

use std::time::Duration;

use fusebox_policy::{
    Draw, Revision,
    breaker::{BreakerInput, BreakerMode, HalfOpenSpec, LocalState},
    condition::Class,
    fleet::{
        CoordinationMode,
        evidence::Report,
        gate::{Forced, Gate, GateEffect, Pass},
        held::{Fence, HeldPermit, Override, Taken, Verdict},
        shared::{FleetState, ProbeResult},
    },
};

use crate::{
    breaker_closed::ending,
    driver::{at, breaker_input, breaker_spec, ms},
    fleet_driver::{Fleet, permits, verdict},
    fleet_rule::{saw, tripped},
};

fn gate(failures: u32) -> Gate {
    Gate::new(breaker_spec(breaker_input(failures)), Revision(1))
}

fn disabled_until(millis: u64) -> Option<Override> {
    Some(Override { effect: Forced::Disabled, until: at(millis), reason: "drill".to_owned() })
}

fn acquire(gate: &mut Gate, millis: u64) -> Pass {
    gate.try_acquire(at(millis), Draw::ZERO).0.expect("the call passes")
}

fn fail(gate: &mut Gate, millis: u64) -> Vec<GateEffect> {
    let pass = acquire(gate, millis);
    gate.record(pass, &ending(Class::Failure, Duration::ZERO), at(millis), Draw::ZERO)
}

fn half_open(rev: u64) -> Verdict {
    Verdict {
        fence: Fence { term: 1, rev },
        state: FleetState::HalfOpen,
        admit_permille: 0,
        expires: at(15_000),
        policy_revision: Revision(1),
        half_open_at: None,
        reason: String::new(),
    }
}

#[test]
fn a_disabled_breaker_lets_every_call_pass_and_records_none() {
    let mut gate = gate(2);
    fail(&mut gate, 0);
    gate.set_override(disabled_until(10_000));
    for millis in 1..100 {
        assert!(fail(&mut gate, millis).is_empty());
    }
    assert_eq!((gate.fleet_state(), gate.local_state()), (FleetState::Disabled, LocalState::Closed));
    assert_eq!((gate.admission(at(100)), gate.half_open_in(at(100))), (1.0, None));
    let counts = gate.breaker().counts(at(100));
    assert_eq!((counts.calls, counts.failures, gate.breaker().consecutive_failures()), (1, 1, 1));
    // It ends by itself, and goes on where it was: one more failure is the second in a row.
    assert!(matches!(fail(&mut gate, 10_000)[..], [GateEffect::Transition(_)]));
    assert_eq!((gate.fleet_state(), gate.local_state()), (FleetState::Released, LocalState::Open));
}

#[test]
fn forced_closed_still_counts_what_disabled_does_not() {
    let counted = |effect| {
        let mut gate = gate(5);
        gate.set_override(Some(Override { effect, until: at(10_000), reason: String::new() }));
        fail(&mut gate, 1);
        gate.breaker().counts(at(1)).calls
    };
    assert_eq!((counted(Forced::Closed), counted(Forced::Disabled)), (1, 0));
}

#[test]
fn a_call_that_was_under_way_when_its_breaker_was_disabled_is_not_counted() {
    let mut gate = gate(1);
    let pass = acquire(&mut gate, 0);
    gate.set_override(disabled_until(10_000));
    assert!(gate.record(pass, &ending(Class::Failure, Duration::ZERO), at(1), Draw::ZERO).is_empty());
    // And one that was let pass meanwhile is not counted afterwards either.
    let pass = acquire(&mut gate, 2);
    gate.set_override(None);
    assert!(gate.record(pass, &ending(Class::Failure, Duration::ZERO), at(3), Draw::ZERO).is_empty());
    assert_eq!((gate.local_state(), gate.breaker().counts(at(3)).calls), (LocalState::Closed, 0));
}

#[test]
fn an_open_breaker_that_is_disabled_stands_still_and_goes_on_where_it_was() {
    let half_open = HalfOpenSpec { max_duration: Some(ms(1000)), ..HalfOpenSpec::default() };
    let mut gate = Gate::new(breaker_spec(BreakerInput { half_open, ..breaker_input(1) }), Revision(1));
    fail(&mut gate, 0);
    gate.set_override(disabled_until(60_000));
    for second in 1..60 {
        assert!(fail(&mut gate, second * 1000).is_empty());
    }
    assert_eq!((gate.local_state(), gate.next_deadline()), (LocalState::Open, Some(at(60_000))));
    gate.tick(at(60_000), Draw::ZERO);
    assert_eq!(gate.local_state(), LocalState::HalfOpen, "its own time had long passed");
}

#[test]
fn an_operators_word_replaces_what_the_policy_says_about_being_disabled() {
    let off = breaker_spec(BreakerInput { mode: BreakerMode::Disabled, ..breaker_input(1) });
    let mut gate = Gate::new(off, Revision(1));
    assert!(gate.is_disabled());
    gate.set_override(Some(Override { effect: Forced::Open, until: at(10), reason: String::new() }));
    assert!(!gate.is_disabled());
    assert!(gate.try_acquire(at(0), Draw::ZERO).0.is_err());
}

#[test]
fn a_disabled_breaker_holds_verdicts_and_obeys_none() {
    let mut gate = gate(1);
    gate.set_override(disabled_until(20_000));
    let open = Verdict { state: FleetState::Open, ..half_open(1) };
    assert!(gate.apply_verdict(open, at(0)).0, "so that the fence stays true");
    fail(&mut gate, 1);
    assert!(!gate.vetoes());
    // Its lease ends while nobody obeyed it: nothing is left of it.
    assert!(gate.tick(at(15_000), Draw::HALF).is_empty());
    assert_eq!(gate.local_state(), LocalState::Closed);
    // One that is in force when the override ends is obeyed from there on.
    gate.apply_verdict(Verdict { expires: at(60_000), ..half_open(2) }, at(15_000));
    gate.tick(at(20_000), Draw::ZERO);
    assert!(gate.try_acquire(at(20_000), Draw::ZERO).0.is_err());
}

#[test]
fn a_disabled_breaker_takes_no_probes_and_gives_back_what_it_has() {
    let permit = |id| HeldPermit { id, fence: Fence { term: 1, rev: 1 }, expires: at(9000) };
    let mut gate = gate(1);
    gate.apply_verdict(half_open(1), at(0));
    assert_eq!(gate.add_permit(permit(1), at(0)), Taken::Held);
    assert_eq!(gate.add_permit(permit(2), at(0)), Taken::Held);
    let probe = acquire(&mut gate, 1);
    gate.set_override(disabled_until(10_000));
    let given_back = |effects: Vec<GateEffect>| {
        effects.iter().filter(|own| matches!(own, GateEffect::Probe(_, ProbeResult::Inconclusive))).count()
    };
    assert_eq!(given_back(gate.tick(at(2), Draw::ZERO)), 1, "the one that is not used");
    let ended = gate.record(probe, &ending(Class::Success, Duration::ZERO), at(3), Draw::ZERO);
    assert_eq!(given_back(ended), 1, "what its call showed decides nothing");
    assert_eq!(gate.add_permit(permit(3), at(4)), Taken::Refused);
}

#[test]
fn what_a_disabled_breaker_reports_is_its_state_and_no_evidence() {
    let mut gate = gate(1);
    fail(&mut gate, 0);
    assert!(gate.report(at(1)).tripped());
    gate.set_override(disabled_until(10_000));
    assert!(gate.wants_report(), "the fleet must hear of it");
    fail(&mut gate, 2);
    assert_eq!(gate.report(at(3)), Report::disabled(LocalState::Open));
    gate.tick(at(10_000), Draw::ZERO);
    assert!(!gate.report(at(10_000)).disabled);
}

#[test]
fn a_breaker_that_its_policy_disables_is_no_evidence_either() {
    let mut gate = gate(1);
    fail(&mut gate, 0);
    let off = breaker_spec(BreakerInput { mode: BreakerMode::Disabled, ..breaker_input(1) });
    gate.apply_spec(off, Revision(2), false, at(1), Draw::ZERO);
    assert_eq!(gate.report(at(2)), Report::disabled(LocalState::Open));
}

#[test]
fn two_replicas_that_tripped_before_they_were_disabled_open_nothing() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(2, saw(9, 0), 0);
    fleet.report(0, tripped(9), 0);
    fleet.report(0, Report::disabled(LocalState::Open), 10);
    assert_eq!(verdict(&fleet.report(1, tripped(9), 20)), None);
    assert_eq!(verdict(&fleet.report(1, Report::disabled(LocalState::Open), 30)), None);
    assert_eq!(fleet.view(40).evidence.open_voters, 0);
    // They are asked again when they look again.
    fleet.report(0, tripped(9), 50);
    assert_eq!(verdict(&fleet.report(1, tripped(9), 60)), Some(FleetState::Open));
}

#[test]
fn disabling_most_replicas_does_not_make_a_quorum_of_the_rest() {
    let mut fleet = Fleet::new(CoordinationMode::Quorum);
    for well in 2..10 {
        fleet.report(well, saw(20, 0), 0);
    }
    for well in 2..10 {
        fleet.report(well, Report::disabled(LocalState::Closed), 10);
        fleet.report(well, Report::disabled(LocalState::Closed), 1010);
    }
    // Three of ten are needed, not two of two.
    fleet.report(0, tripped(9), 1020);
    assert_eq!(verdict(&fleet.report(1, tripped(9), 1030)), None);
}

#[test]
fn no_probe_goes_to_a_disabled_breaker() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    fleet.report(0, tripped(9), 0);
    fleet.report(1, tripped(9), 0);
    for number in [0, 1] {
        fleet.report(number, Report { rejected: 5, ..tripped(9) }, 4900);
        fleet.report(number, Report::disabled(LocalState::Open), 4950);
    }
    assert!(permits(&fleet.tick(5100)).is_empty());
    assert_eq!(permits(&fleet.report(0, Report { rejected: 1, ..tripped(9) }, 5200)).len(), 1);
}
