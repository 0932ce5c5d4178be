//! A breaker that does not act, or acts by somebody's word: disabled, shadow, forced, and what is left of it afterwards.

use std::time::Duration;

use fusebox_policy::{
    Draw, Revision,
    breaker::{Breaker, BreakerInput, BreakerMode, Cause, Ending, HalfOpenSpec, LocalState, RateRule, TripRules},
    condition::Class,
    fleet::{
        gate::{Forced, Gate},
        held::{Fence, Override, Verdict},
        shared::FleetState,
    },
    outcome::{RejectionReason, RetryHint},
};

use crate::{
    breaker_closed::{ending, result},
    driver::{FAILED, at, breaker_input, breaker_spec, ms},
};

fn mode(mode: BreakerMode) -> BreakerInput {
    BreakerInput { mode, ..breaker_input(1) }
}

fn forced(effect: Forced, until: u64) -> Option<Override> {
    Some(Override { effect, until: at(until), reason: "drill".to_owned() })
}

fn refusal(gate: &mut Gate, millis: u64) -> Option<RejectionReason> {
    match gate.try_acquire(at(millis), Draw::ZERO).0 {
        Ok(pass) => {
            gate.abandon(pass);
            None
        }
        Err(reason) => Some(reason),
    }
}

/// Records one failure, with a wait that it asks for.
fn fail(gate: &mut Gate, millis: u64, hint: RetryHint) {
    let pass = gate.try_acquire(at(millis), Draw::ZERO).0.unwrap();
    let ending = Ending { class: Class::Failure, outcome: FAILED, elapsed: Duration::ZERO, hint };
    gate.record(pass, &ending, at(millis), Draw::ZERO);
}

#[test]
fn a_disabled_breaker_passes_everything_and_counts_nothing() {
    let mut breaker = Breaker::new(breaker_spec(mode(BreakerMode::Disabled)));
    for _ in 0..10 {
        assert_eq!(result(&mut breaker, Class::Failure, 0), None);
    }
    assert_eq!(breaker.counts(at(0)).calls, 0);
}

#[test]
fn a_breaker_that_is_disabled_while_calls_run_neither_counts_them_nor_changes_its_state() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(1)));
    let running = breaker.try_acquire(at(0), Draw::ZERO).unwrap();
    breaker.apply(breaker_spec(mode(BreakerMode::Disabled)));
    assert_eq!(breaker.record(running, &ending(Class::Failure, ms(0)), at(0), Draw::ZERO), None);
    assert_eq!((breaker.state(), breaker.counts(at(0)).calls), (LocalState::Closed, 0));
}

#[test]
fn a_breaker_that_is_disabled_while_open_stands_still_and_goes_on_where_it_was() {
    let half_open = HalfOpenSpec { max_duration: Some(ms(1000)), ..HalfOpenSpec::default() };
    let enforced = || breaker_spec(BreakerInput { half_open, ..breaker_input(1) });
    let mut breaker = Breaker::new(enforced());
    result(&mut breaker, Class::Failure, 0);
    breaker.apply(breaker_spec(BreakerInput { half_open, ..mode(BreakerMode::Disabled) }));
    assert_eq!(breaker.next_deadline(), None);
    for second in 0..100 {
        assert_eq!(breaker.advance(at(second * 1000), Draw::ZERO), None);
        assert_eq!(result(&mut breaker, Class::Success, second * 1000), None);
    }
    assert_eq!(breaker.decay(at(100_000), Draw::HALF), None);
    assert_eq!(breaker.close_by_fleet(at(100_000)), None);
    breaker.apply(enforced());
    assert_eq!(breaker.state(), LocalState::Open);
    assert_eq!(breaker.advance(at(100_000), Draw::ZERO).unwrap().cause, Cause::DelayElapsed);
}

#[test]
fn a_shadow_breaker_changes_state_and_never_refuses() {
    let mut breaker = Breaker::new(breaker_spec(BreakerInput { mode: BreakerMode::Shadow, ..breaker_input(2) }));
    result(&mut breaker, Class::Failure, 0);
    assert!(result(&mut breaker, Class::Failure, 0).is_some());
    assert_eq!(breaker.state(), LocalState::Open);
    for _ in 0..10 {
        assert_eq!(result(&mut breaker, Class::Failure, 1), None);
    }
    assert!((breaker.admission(at(1)) - 1.0).abs() < f64::EPSILON);
}

#[test]
fn a_shadow_breaker_says_once_that_it_would_have_opened_with_its_numbers() {
    let trip = TripRules {
        failure_rate: Some(RateRule { percent: 50, min_calls: 5 }),
        failures: None,
        consecutive_failures: None,
        slow_call_rate: None,
    };
    let mut breaker = Breaker::new(breaker_spec(BreakerInput { trip, ..mode(BreakerMode::Shadow) }));
    let results = [Class::Success, Class::Success, Class::Failure, Class::Failure, Class::Failure, Class::Failure];
    let said: Vec<_> = results.into_iter().filter_map(|class| result(&mut breaker, class, 0)).collect();
    assert_eq!(said.len(), 1);
    assert_eq!((said[0].cause, said[0].counts.calls, said[0].counts.failures), (Cause::FailureRate, 5, 3));
}

#[test]
fn a_breaker_keeps_what_it_knows_when_it_becomes_a_shadow_in_any_state() {
    let open = |breaker: &mut Breaker| assert!(result(breaker, Class::Failure, 0).is_some());
    for state in [LocalState::Closed, LocalState::Open, LocalState::HalfOpen] {
        let mut breaker = Breaker::new(breaker_spec(breaker_input(1)));
        result(&mut breaker, Class::Success, 0);
        match state {
            LocalState::Closed => {}
            LocalState::Open => open(&mut breaker),
            LocalState::HalfOpen => {
                open(&mut breaker);
                breaker.advance(at(5000), Draw::ZERO);
            }
        }
        let before = breaker.counts(at(5000));
        breaker.apply(breaker_spec(mode(BreakerMode::Shadow)));
        assert_eq!((breaker.state(), breaker.counts(at(5000))), (state, before));
        for _ in 0..10 {
            let permit = breaker.try_acquire(at(5000), Draw::ZERO).expect("a shadow refuses nobody");
            breaker.abandon(permit);
        }
        breaker.apply(breaker_spec(breaker_input(1)));
        assert_eq!((breaker.state(), breaker.counts(at(5000))), (state, before));
    }
}

#[test]
fn a_forced_open_breaker_does_not_recover_by_itself() {
    let mut gate = Gate::new(breaker_spec(breaker_input(1)), Revision(1));
    gate.set_override(forced(Forced::Open, 60_000));
    // Longer than its own delay and a second.
    for _ in 0..3 {
        let reason = RejectionReason::ForcedOpen { retry_after: Some(ms(54_000)) };
        assert_eq!(refusal(&mut gate, 6000), Some(reason));
    }
    assert_eq!((gate.fleet_state(), gate.local_state()), (FleetState::ForcedOpen, LocalState::Closed));
    assert_eq!(gate.report(at(6000)).rejected, 3);
}

#[test]
fn a_forced_opening_refuses_also_where_the_breaker_is_disabled_or_a_shadow_and_shows_it() {
    for own in [BreakerMode::Disabled, BreakerMode::Shadow] {
        let mut gate = Gate::new(breaker_spec(mode(own)), Revision(1));
        gate.set_override(forced(Forced::Open, 1000));
        assert!(refusal(&mut gate, 0).is_some());
        assert_eq!((gate.fleet_state(), gate.admission(at(0))), (FleetState::ForcedOpen, 0.0), "{own:?}");
        assert_eq!(refusal(&mut gate, 1000), None);
        assert_eq!(gate.admission(at(1000)), 1.0, "{own:?}");
    }
}

#[test]
fn a_forced_opening_lets_the_breakers_own_time_stand_still() {
    let half_open = HalfOpenSpec { max_duration: Some(ms(1000)), ..HalfOpenSpec::default() };
    let mut gate = Gate::new(breaker_spec(BreakerInput { half_open, ..breaker_input(1) }), Revision(1));
    fail(&mut gate, 0, RetryHint::None);
    gate.set_override(forced(Forced::Open, 60_000));
    for second in 1..60 {
        assert!(gate.tick(at(second * 1000), Draw::ZERO).is_empty(), "nobody can probe, so no period of probes fails");
    }
    assert_eq!((gate.local_state(), gate.next_deadline()), (LocalState::Open, Some(at(60_000))));
    assert_eq!(refusal(&mut gate, 60_000), None, "it ends, and a probe may pass at once");
    assert_eq!(gate.local_state(), LocalState::HalfOpen);
}

#[test]
fn an_asked_wait_lengthens_no_forced_and_no_fleet_opening() {
    let hour = RetryHint::After(Duration::from_secs(3600));
    let short = BreakerInput { delay: ms(5), retry_after_max: Duration::from_secs(7200), ..breaker_input(2) };
    let mut gate = Gate::new(breaker_spec(short.clone()), Revision(1));
    fail(&mut gate, 0, hour);
    gate.set_override(forced(Forced::Open, 5));
    assert!(refusal(&mut gate, 4).is_some());
    assert_eq!(refusal(&mut gate, 5), None);

    let mut gate = Gate::new(breaker_spec(short), Revision(1));
    fail(&mut gate, 0, hour);
    let verdict = Verdict {
        fence: Fence { term: 1, rev: 1 },
        state: FleetState::Open,
        admit_permille: 0,
        expires: at(100),
        policy_revision: Revision(1),
        half_open_at: Some(at(5)),
        reason: String::new(),
    };
    gate.apply_verdict(verdict, at(0));
    assert_eq!(refusal(&mut gate, 1), Some(RejectionReason::FleetOpen { retry_after: Some(ms(4)) }));
    gate.tick(at(100), Draw::HALF);
    assert_eq!(gate.half_open_in(at(100)), Some(Duration::from_micros(2500)), "a part of its own delay");
}

#[test]
fn a_change_to_the_same_state_is_no_event() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(1)));
    assert_eq!(breaker.close_by_fleet(at(0)), None);
    assert_eq!(breaker.reset(breaker_spec(breaker_input(1)), at(0)), None);
    result(&mut breaker, Class::Failure, 0);
    assert_eq!(breaker.decay(at(0), Draw::HALF), None);
    let (first, transition) = breaker.acquire_probe(at(0));
    assert_eq!(transition.unwrap().to, LocalState::HalfOpen);
    let (second, transition) = breaker.acquire_probe(at(0));
    assert_eq!(transition, None);
    breaker.abandon(first);
    breaker.abandon(second);
}

#[test]
fn no_word_from_outside_makes_a_closed_breaker_half_open() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(1)));
    let (probe, transition) = breaker.acquire_probe(at(0));
    assert_eq!((transition, breaker.state()), (None, LocalState::Closed));
    breaker.record(probe, &ending(Class::Success, ms(0)), at(0), Draw::ZERO);
    assert_eq!(breaker.counts(at(0)).calls, 1, "it is a call like any other");
}
