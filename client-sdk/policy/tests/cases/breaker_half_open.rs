//! A half-open breaker: how many probes, and what they decide.

use fusebox_policy::{
    Draw,
    breaker::{Breaker, BreakerInput, Cause, HalfOpenSpec, LocalState, RateRule, TripRules, WindowSpec},
    condition::Class,
    outcome::RejectionReason,
};

use crate::{
    breaker_closed::{ending, result},
    driver::{at, breaker_input, breaker_spec, ms},
};

fn half_open(probes: u32, concurrent_probes: u32, successes: u32) -> Breaker {
    let half_open = HalfOpenSpec { probes, concurrent_probes, successes, max_duration: None };
    let mut breaker = Breaker::new(breaker_spec(BreakerInput { half_open, ..breaker_input(1) }));
    result(&mut breaker, Class::Failure, 0);
    breaker.advance(at(5000), Draw::ZERO);
    breaker
}

#[test]
fn probes_in_flight_are_limited() {
    let mut breaker = half_open(3, 3, 3);
    let permits: Vec<_> = (0..3).map(|_| breaker.try_acquire(at(5000), Draw::ZERO).unwrap()).collect();
    for _ in 0..5 {
        assert_eq!(breaker.try_acquire(at(5000), Draw::ZERO), Err(RejectionReason::HalfOpenLimit));
    }
    for permit in permits {
        breaker.abandon(permit);
    }
}

#[test]
fn probes_are_a_total_per_period() {
    let mut breaker = half_open(3, 3, 3);
    let mut permits: Vec<_> = (0..3).map(|_| breaker.try_acquire(at(5000), Draw::ZERO).unwrap()).collect();
    breaker.record(permits.pop().unwrap(), &ending(Class::Success, ms(0)), at(5000), Draw::ZERO);
    assert_eq!(breaker.try_acquire(at(5000), Draw::ZERO), Err(RejectionReason::HalfOpenLimit));
    for permit in permits {
        breaker.abandon(permit);
    }
    assert!(breaker.try_acquire(at(5000), Draw::ZERO).is_ok(), "what was given back can be taken again");
}

#[test]
fn enough_successes_close_and_one_failure_too_many_opens() {
    let mut breaker = half_open(3, 1, 3);
    assert_eq!(result(&mut breaker, Class::Success, 5000), None);
    assert_eq!(result(&mut breaker, Class::Success, 5000), None);
    assert_eq!(result(&mut breaker, Class::Success, 5000).unwrap().cause, Cause::ProbeOk);
    assert_eq!(breaker.state(), LocalState::Closed);

    let mut breaker = half_open(3, 1, 3);
    result(&mut breaker, Class::Success, 5000);
    result(&mut breaker, Class::Success, 5000);
    assert_eq!(result(&mut breaker, Class::Failure, 5000).unwrap().cause, Cause::ProbeFailed);
    assert_eq!(breaker.state(), LocalState::Open);
}

#[test]
fn it_opens_as_soon_as_the_successes_can_not_be_reached() {
    let mut breaker = half_open(5, 1, 3);
    for class in [Class::Success, Class::Failure, Class::Success, Class::Failure] {
        assert_eq!(result(&mut breaker, class, 5000), None, "undecided");
    }
    assert!(result(&mut breaker, Class::Failure, 5000).is_some());
}

/// The numbers of a half-open period, the results of its probes, and the state after the last one; before that it is undecided.
#[test]
fn probes_decide_as_soon_as_their_numbers_do() {
    let table = [
        (3, 3, "SSF", LocalState::Open),
        (4, 3, "SFSF", LocalState::Open),
        (4, 3, "SFSS", LocalState::Closed),
        (3, 2, "FSS", LocalState::Closed),
        (3, 2, "FSF", LocalState::Open),
        (3, 1, "FS", LocalState::Closed),
        (10, 10, "SSSSSSSSSS", LocalState::Closed),
        (10, 10, "F", LocalState::Open),
        // What counts for nothing gives its place back.
        (4, 3, "SSIFS", LocalState::Closed),
    ];
    for (probes, successes, results, end) in table {
        let half_open = HalfOpenSpec { probes, concurrent_probes: 1, successes, max_duration: None };
        // Two failures in a row trip it when it is closed: half-open has rules of its own.
        let mut breaker = Breaker::new(breaker_spec(BreakerInput { half_open, ..breaker_input(2) }));
        result(&mut breaker, Class::Failure, 0);
        result(&mut breaker, Class::Failure, 0);
        breaker.advance(at(5000), Draw::ZERO);
        for letter in results.chars() {
            assert_eq!(breaker.state(), LocalState::HalfOpen, "{results} of {probes} is undecided before {letter}");
            let class = match letter {
                'S' => Class::Success,
                'F' => Class::Failure,
                _ => Class::Ignored,
            };
            result(&mut breaker, class, 5000);
        }
        assert_eq!(breaker.state(), end, "{results} of {probes}, {successes} needed");
    }
}

#[test]
fn as_many_probes_pass_as_are_free_in_each_period_anew() {
    let mut breaker = half_open(4, 4, 4);
    let mut now = 5000;
    for _ in 0..2 {
        let mut permits: Vec<_> = (0..4).map(|_| breaker.try_acquire(at(now), Draw::ZERO).unwrap()).collect();
        assert_eq!(breaker.try_acquire(at(now), Draw::ZERO), Err(RejectionReason::HalfOpenLimit));
        breaker.abandon(permits.pop().unwrap());
        permits.push(breaker.try_acquire(at(now), Draw::ZERO).unwrap());
        assert_eq!(breaker.try_acquire(at(now), Draw::ZERO), Err(RejectionReason::HalfOpenLimit));
        breaker.record(permits.pop().unwrap(), &ending(Class::Failure, ms(0)), at(now), Draw::ZERO);
        assert_eq!(breaker.state(), LocalState::Open);
        now += 60_000;
        breaker.advance(at(now), Draw::ZERO);
        for permit in permits {
            breaker.abandon(permit);
        }
    }
}

#[test]
fn the_last_probe_that_is_out_decides_while_further_calls_are_refused() {
    let mut breaker = half_open(3, 3, 3);
    for _ in 0..4 {
        assert_eq!(result(&mut breaker, Class::Ignored, 5000), None, "ignored outcomes neither close nor exhaust it");
    }
    assert_eq!(result(&mut breaker, Class::Success, 5000), None);
    assert_eq!(result(&mut breaker, Class::Success, 5000), None);
    let third = breaker.try_acquire(at(5000), Draw::ZERO).unwrap();
    assert_eq!(breaker.try_acquire(at(5000), Draw::ZERO), Err(RejectionReason::HalfOpenLimit));
    breaker.record(third, &ending(Class::Success, ms(0)), at(5000), Draw::ZERO);
    assert_eq!(breaker.state(), LocalState::Closed);
}

#[test]
fn ignored_probes_give_their_permit_back_and_starve_nobody() {
    let mut breaker = half_open(4, 4, 4);
    for _ in 0..4 {
        assert_eq!(result(&mut breaker, Class::Ignored, 5000), None);
    }
    for _ in 0..3 {
        assert_eq!(result(&mut breaker, Class::Success, 5000), None);
    }
    assert!(result(&mut breaker, Class::Success, 5000).is_some());
}

#[test]
fn an_abandoned_probe_lets_the_next_caller_probe() {
    let mut breaker = half_open(1, 1, 1);
    let probe = breaker.try_acquire(at(5000), Draw::ZERO).unwrap();
    assert!(breaker.try_acquire(at(5000), Draw::ZERO).is_err());
    breaker.abandon(probe);
    let probe = breaker.try_acquire(at(55_000), Draw::ZERO).unwrap();
    assert!(breaker.record(probe, &ending(Class::Success, ms(0)), at(55_000), Draw::ZERO).is_some());
    assert_eq!(breaker.state(), LocalState::Closed);
}

#[test]
fn each_failed_probe_costs_a_whole_new_open_time() {
    let mut breaker = half_open(1, 1, 1);
    // Failed twice, the second time after twice the time.
    for (now, until) in [(5000, 15_000), (15_000, 35_000)] {
        let probe = breaker.try_acquire(at(now), Draw::ZERO).unwrap();
        assert!(breaker.try_acquire(at(now), Draw::ZERO).is_err(), "one probe at a time");
        assert!(breaker.record(probe, &ending(Class::Failure, ms(0)), at(now), Draw::ZERO).is_some());
        assert!(breaker.advance(at(until - 1), Draw::ZERO).is_none());
        assert!(breaker.try_acquire(at(until - 1), Draw::ZERO).is_err());
        assert!(breaker.advance(at(until), Draw::ZERO).is_some());
    }
    assert!(result(&mut breaker, Class::Success, 35_000).is_some());
    for _ in 0..100 {
        result(&mut breaker, Class::Success, 35_000);
    }
}

#[test]
fn results_of_an_older_state_change_nothing() {
    let mut breaker = Breaker::new(breaker_spec(BreakerInput {
        half_open: HalfOpenSpec { probes: 1, concurrent_probes: 1, successes: 1, max_duration: None },
        ..breaker_input(1)
    }));
    let slow_success = breaker.try_acquire(at(0), Draw::ZERO).unwrap();
    let slow_failure = breaker.try_acquire(at(0), Draw::ZERO).unwrap();
    result(&mut breaker, Class::Failure, 0);
    breaker.advance(at(5000), Draw::ZERO);
    assert_eq!(breaker.record(slow_success, &ending(Class::Success, ms(5000)), at(5000), Draw::ZERO), None);
    assert_eq!(breaker.state(), LocalState::HalfOpen, "a success from before the trip closes nothing");
    assert_eq!(breaker.record(slow_failure, &ending(Class::Failure, ms(5000)), at(5000), Draw::ZERO), None);
    assert_eq!(breaker.state(), LocalState::HalfOpen, "a failure from before the trip opens nothing");
    assert_eq!(breaker.late(), 2);
}

#[test]
fn a_half_open_period_that_takes_too_long_opens_again() {
    let half_open = HalfOpenSpec { max_duration: Some(ms(1000)), ..HalfOpenSpec::default() };
    let mut breaker = Breaker::new(breaker_spec(BreakerInput { half_open, ..breaker_input(1) }));
    result(&mut breaker, Class::Failure, 0);
    breaker.advance(at(5000), Draw::ZERO);
    assert_eq!(breaker.advance(at(5999), Draw::ZERO), None);
    assert_eq!(breaker.advance(at(6000), Draw::ZERO).unwrap().cause, Cause::ProbesTimedOut);
}

#[test]
fn a_closed_breaker_ramps_up_and_opens_again_when_the_rate_rises() {
    let trip = TripRules {
        failure_rate: Some(RateRule { percent: 50, min_calls: 20 }),
        consecutive_failures: Some(20),
        ..TripRules { failure_rate: None, failures: None, consecutive_failures: None, slow_call_rate: None }
    };
    let input = BreakerInput { ramp: Some(ms(10_000)), trip, window: WindowSpec::Count(100), ..breaker_input(1) };
    let mut breaker = Breaker::new(breaker_spec(input));
    for _ in 0..20 {
        result(&mut breaker, Class::Failure, 0);
    }
    breaker.advance(at(5000), Draw::ZERO);
    for _ in 0..3 {
        result(&mut breaker, Class::Success, 5000);
    }
    assert_eq!(breaker.state(), LocalState::Closed);
    assert!((breaker.admission(at(5000)) - 0.1).abs() < 1e-9);
    assert!((breaker.admission(at(10_000)) - 0.55).abs() < 1e-9);
    assert_eq!(breaker.try_acquire(at(5000), Draw::HALF), Err(RejectionReason::Ramp));
    result(&mut breaker, Class::Failure, 5000);
    result(&mut breaker, Class::Failure, 5000);
    assert_eq!(result(&mut breaker, Class::Failure, 5000).unwrap().cause, Cause::RampFailed);
    assert_eq!(breaker.half_open_in(at(5000)), Some(ms(10_000)), "it never fully closed, so the delay has grown");
}
