//! A replica that sees for itself that the target is well.

use fusebox_policy::{
    Draw, Revision,
    breaker::{BreakerInput, LocalState, RateRule, TripRules, WindowSpec},
    condition::Class,
    fleet::{
        CoordinationMode,
        evidence::Report,
        gate::{Forced, Gate, GateEffect, ProbeId},
        held::{Fence, HeldPermit, Override, Taken, Verdict},
        shared::{FleetState, ProbeResult},
    },
    outcome::RejectionReason,
};
use proptest::prelude::*;

use crate::{
    breaker_closed::ending,
    driver::{at, breaker_input, breaker_spec, ms},
    fleet_driver::{Fleet, permits},
    fleet_rule::{saw, tripped},
};

/// 50 percent of at least 10 calls, in 10 s.
fn rate() -> BreakerInput {
    let trip = TripRules {
        failure_rate: Some(RateRule { percent: 50, min_calls: 10 }),
        failures: None,
        consecutive_failures: None,
        slow_call_rate: None,
    };
    BreakerInput { trip, ..breaker_input(1) }
}

fn gate(input: BreakerInput) -> Gate {
    Gate::new(breaker_spec(input), Revision(1))
}

fn verdict(state: FleetState, rev: u64) -> Verdict {
    Verdict {
        fence: Fence { term: 1, rev },
        state,
        admit_permille: 0,
        expires: at(600_000),
        policy_revision: Revision(1),
        half_open_at: Some(at(5000)),
        reason: String::new(),
    }
}

/// Makes calls for as long as the gate lets them pass; says how many passed.
fn calls(gate: &mut Gate, results: &str, millis: u64) -> usize {
    let mut passed = 0;
    for letter in results.chars() {
        let Ok(pass) = gate.try_acquire(at(millis), Draw::ZERO).0 else { break };
        let class = if letter == 'F' { Class::Failure } else { Class::Success };
        gate.record(pass, &ending(class, ms(1)), at(millis), Draw::ZERO);
        passed += 1;
    }
    passed
}

#[test]
fn a_replica_with_healthy_calls_of_its_own_does_not_open_with_the_fleet() {
    let mut gate = gate(rate());
    calls(&mut gate, "SSSSSSSSSS", 0);
    assert!(gate.apply_verdict(verdict(FleetState::Open, 1), at(1)).0, "it is held, and not obeyed");
    assert_eq!(gate.fleet_state(), FleetState::Open);
    assert!(gate.vetoes() && gate.report(at(1)).vetoed && gate.wants_report());
    assert!(gate.admission(at(1)) > 0.99);
    assert!(!gate.is_at_rest(), "each call must look again");
    assert_eq!(calls(&mut gate, "SSSSS", 100), 5);
    gate.apply_verdict(verdict(FleetState::HalfOpen, 2), at(200));
    assert_eq!(calls(&mut gate, "SSSSS", 201), 5, "nor does it wait for permits");
    gate.apply_verdict(verdict(FleetState::Ramp, 3), at(300));
    assert_eq!(calls(&mut gate, "SSSSS", 301), 5, "nor ramps up what was never down");
    let (_, effects) = gate.apply_verdict(verdict(FleetState::Released, 4), at(400));
    assert!(effects.is_empty() && !gate.vetoes());
}

#[test]
fn too_few_calls_or_too_many_failures_are_no_veto() {
    for (what, results, vetoes) in [
        ("nine calls", "SSSSSSSSS", false),
        ("ten calls", "SSSSSSSSSS", true),
        ("just below half of the threshold", "FFSSSSSSSSS", true),
        ("half of the threshold", "FFFSSSSSSSSS", false),
    ] {
        let mut gate = gate(rate());
        calls(&mut gate, results, 0);
        gate.apply_verdict(verdict(FleetState::Open, 1), at(1));
        assert_eq!(gate.vetoes(), vetoes, "{what}");
        assert_eq!(gate.try_acquire(at(2), Draw::ZERO).0.is_ok(), vetoes, "{what}");
    }
}

#[test]
fn it_obeys_as_soon_as_its_own_failures_reach_half_of_the_threshold() {
    let mut gate = gate(rate());
    calls(&mut gate, "SSSSSSSSS", 0);
    calls(&mut gate, "S", 0);
    gate.apply_verdict(verdict(FleetState::Open, 1), at(1));
    // 4 of 14 are the first share that is not below 25 percent.
    assert_eq!(calls(&mut gate, "FFFFFF", 2), 4);
    assert!(!gate.vetoes());
    assert_eq!(gate.local_state(), LocalState::Closed, "long before its own breaker would have tripped");
    assert!(matches!(gate.try_acquire(at(3), Draw::ZERO).0, Err(RejectionReason::FleetOpen { .. })));
}

#[test]
fn calls_that_leave_the_window_end_the_veto() {
    let mut gate = gate(rate());
    calls(&mut gate, "SSSSSSSSSS", 0);
    gate.apply_verdict(verdict(FleetState::Open, 1), at(1));
    assert!(gate.vetoes());
    assert!(matches!(gate.try_acquire(at(10_000), Draw::ZERO).0, Err(RejectionReason::FleetOpen { .. })));
    assert!(!gate.report(at(10_000)).vetoed);
}

#[test]
fn a_count_window_that_nobody_has_filled_for_a_minute_is_no_veto() {
    let stale = BreakerInput { window: WindowSpec::Count(100), ..rate() };
    let mut gate = gate(stale);
    calls(&mut gate, "SSSSSSSSSS", 0);
    gate.apply_verdict(verdict(FleetState::Open, 1), at(60_000));
    assert!(gate.vetoes());
    gate.tick(at(60_001), Draw::ZERO);
    assert!(!gate.vetoes());
}

#[test]
fn a_rule_for_failures_in_a_row_has_its_own_measure() {
    for (results, vetoes) in [("SSSS", false), ("SSSSS", true), ("SSSSSFF", true), ("SSSSSFFF", false)] {
        let mut gate = gate(breaker_input(5));
        calls(&mut gate, results, 0);
        gate.apply_verdict(verdict(FleetState::Open, 1), at(1));
        assert_eq!(gate.vetoes(), vetoes, "{results}");
    }
}

#[test]
fn an_own_breaker_that_is_not_closed_has_no_veto() {
    let mut input = rate();
    input.trip.consecutive_failures = Some(1);
    let mut gate = gate(input);
    calls(&mut gate, "SSSSSSSSSSSSSSSSSSSSF", 0);
    assert_eq!(gate.local_state(), LocalState::Open);
    gate.apply_verdict(verdict(FleetState::Open, 1), at(1));
    assert!(!gate.vetoes());
}

#[test]
fn a_veto_does_not_begin_from_the_few_calls_of_a_ramp() {
    let mut gate = gate(rate());
    gate.apply_verdict(verdict(FleetState::Open, 1), at(0));
    let ramp = Verdict { admit_permille: 500, ..verdict(FleetState::Ramp, 2) };
    gate.apply_verdict(ramp, at(1));
    assert_eq!(calls(&mut gate, "SSSSSSSSSSSSSSS", 2), 15, "the draw of each is below the share");
    let refused = gate.try_acquire(at(3), Draw::new(0.9)).0;
    assert_eq!(refused.unwrap_err(), RejectionReason::FleetRamp);
}

#[test]
fn overrides_are_not_vetoed() {
    let mut gate = gate(rate());
    calls(&mut gate, "SSSSSSSSSS", 0);
    gate.apply_verdict(verdict(FleetState::Open, 1), at(1));
    gate.set_override(Some(Override { effect: Forced::Open, until: at(60_000), reason: "drill".to_owned() }));
    assert!(matches!(gate.try_acquire(at(2), Draw::ZERO).0, Err(RejectionReason::ForcedOpen { .. })));
    assert!(!gate.vetoes() && !gate.report(at(2)).vetoed);
}

#[test]
fn a_vetoed_verdict_that_ends_leaves_nothing_behind() {
    let mut gate = gate(rate());
    calls(&mut gate, "SSSSSSSSSS", 0);
    gate.apply_verdict(Verdict { expires: at(1000), ..verdict(FleetState::Open, 1) }, at(1));
    assert!(gate.tick(at(1000), Draw::HALF).is_empty());
    assert!(gate.is_at_rest());

    calls(&mut gate, "SSSSSSSSSS", 1000);
    gate.apply_verdict(verdict(FleetState::Open, 2), at(1001));
    let changed = gate.apply_spec(breaker_spec(rate()), Revision(2), false, at(1002), Draw::HALF);
    assert!(changed.is_empty() && gate.is_at_rest(), "nor does a changed policy open it");
}

#[test]
fn a_permit_is_used_for_a_call_that_would_have_passed_anyway() {
    let mut gate = gate(rate());
    calls(&mut gate, "SSSSSSSSSS", 0);
    gate.apply_verdict(verdict(FleetState::HalfOpen, 1), at(1));
    let permit = HeldPermit { id: 7, fence: Fence { term: 1, rev: 1 }, expires: at(3000) };
    assert_eq!(gate.add_permit(permit, at(1)), Taken::Held);
    let pass = gate.try_acquire(at(2), Draw::ZERO).0.unwrap();
    let effects = gate.record(pass, &ending(Class::Success, ms(1)), at(2), Draw::ZERO);
    assert_eq!(effects, [GateEffect::Probe(ProbeId { term: 1, id: 7 }, ProbeResult::Success)]);
}

#[test]
fn a_replica_that_vetoes_has_calls_to_probe_with() {
    let mut fleet = Fleet::new(CoordinationMode::Balanced);
    for id in [0, 1] {
        fleet.report(id, tripped(5), 0);
    }
    assert_eq!(fleet.state(), FleetState::Open);
    fleet.report(2, Report { vetoed: true, ..saw(20, 0) }, 4900);
    assert_eq!(permits(&fleet.tick(5000)).first().map(|(holder, _)| *holder), Some(2));
}

#[test]
fn who_ignores_the_fleet_goes_on_by_its_own_breaker_and_holds_verdicts_for_the_record() {
    let mut gate = gate(rate());
    gate.ignore_fleet();
    for (rev, state) in [(1, FleetState::Open), (2, FleetState::HalfOpen), (3, FleetState::Ramp)] {
        assert!(gate.apply_verdict(verdict(state, rev), at(rev)).0);
        assert_eq!(gate.held().highest(), Fence { term: 1, rev });
        assert_eq!(calls(&mut gate, "S", rev), 1, "without any call of before");
        assert!(gate.vetoes() && !gate.report(at(rev)).vetoed, "it has no opinion on this one");
    }
    let permit = HeldPermit { id: 1, fence: Fence { term: 1, rev: 3 }, expires: at(600_000) };
    assert_eq!(gate.add_permit(permit, at(3)), Taken::Refused, "another one may probe");
    calls(&mut gate, "FFFFFFFFFFFFFFFF", 4);
    assert_eq!(gate.local_state(), LocalState::Open, "its own breaker still acts");
    gate.apply_verdict(verdict(FleetState::Released, 4), at(5));
    assert_eq!(gate.local_state(), LocalState::Open, "and is closed by nobody else");
}

#[derive(Clone, Debug)]
enum Happens {
    Wait(u64),
    Call(bool),
    Verdict(u8),
    Permit,
    Override(Option<bool>),
}

fn happens() -> impl Strategy<Value = Happens> {
    prop_oneof![
        3 => (0..3000_u64).prop_map(Happens::Wait),
        30 => prop_oneof![4 => Just(true), 1 => Just(false)].prop_map(Happens::Call),
        2 => (0..4_u8).prop_map(Happens::Verdict),
        1 => Just(Happens::Permit),
        1 => proptest::option::of(any::<bool>()).prop_map(Happens::Override),
    ]
}

proptest! {
    /// Without an override a call passes only if the own breaker allows it, and the fleet allows it or the own calls go well.
    #[test]
    fn what_passes_is_allowed_by_both_or_by_the_own_eyes(steps in prop::collection::vec(happens(), 1..200)) {
        let mut gate = gate(rate());
        let (mut now, mut rev, mut permits) = (0, 0, 0);
        let mut fleet = FleetState::Released;
        let mut forced = None;
        for step in steps {
            match step {
                Happens::Wait(millis) => now += millis,
                Happens::Verdict(which) => {
                    rev += 1;
                    permits = 0;
                    fleet = [FleetState::Released, FleetState::Open, FleetState::HalfOpen, FleetState::Ramp][which as usize];
                    gate.apply_verdict(verdict(fleet, rev), at(now));
                }
                Happens::Permit => {
                    let permit = HeldPermit { id: now, fence: Fence { term: 1, rev }, expires: at(600_000) };
                    permits += usize::from(gate.add_permit(permit, at(now)) == Taken::Held);
                }
                Happens::Override(effect) => {
                    forced = effect;
                    gate.set_override(effect.map(|open| Override {
                        effect: if open { Forced::Open } else { Forced::Closed },
                        until: at(600_000),
                        reason: String::new(),
                    }));
                }
                Happens::Call(good) => {
                    let counts = gate.breaker().counts(at(now));
                    let well = gate.local_state() == LocalState::Closed
                        && counts.calls >= 10
                        && counts.failures * 4 < counts.calls;
                    let answer = gate.try_acquire(at(now), Draw::ZERO).0;
                    let allowed = match fleet {
                        FleetState::Released | FleetState::ForcedOpen | FleetState::ForcedClosed | FleetState::Disabled => true,
                        FleetState::Open | FleetState::Ramp => false,
                        FleetState::HalfOpen => permits > 0,
                    };
                    if forced.is_some() {
                        prop_assert_eq!(forced == Some(true), answer.is_err());
                        prop_assert!(!gate.vetoes());
                    } else if answer.is_ok() {
                        prop_assert!(allowed || well, "{:?} {:?}", fleet, counts);
                        prop_assert!(fleet == FleetState::HalfOpen || gate.local_state() != LocalState::Open);
                    } else if fleet == FleetState::Open {
                        prop_assert!(!well, "its own calls go well: {:?}", counts);
                    }
                    if let Ok(pass) = answer {
                        if forced.is_none() && fleet == FleetState::HalfOpen && permits > 0 {
                            permits -= 1;
                        }
                        let class = if good { Class::Success } else { Class::Failure };
                        gate.record(pass, &ending(class, ms(1)), at(now), Draw::ZERO);
                    }
                }
            }
        }
    }
}
