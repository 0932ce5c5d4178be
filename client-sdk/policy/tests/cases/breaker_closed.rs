//! A closed breaker: what trips it and what does not.

use std::time::Duration;

use fusebox_policy::{
    Draw, Outcome, Revision,
    breaker::{
        Breaker, BreakerInput, Cause, Ending, HalfOpenSpec, LocalState, RateRule, Sample, Transition, TripRules,
        Window, WindowSpec,
    },
    condition::{Class, Conditions, StatusRange},
    fleet::gate::{Gate, GateEffect},
    outcome::{NoFacts, RetryHint},
};

use crate::driver::{FAILED, OK, at, breaker_input, breaker_spec, ms};

pub(crate) fn ending(class: Class, elapsed: Duration) -> Ending {
    let outcome = if class == Class::Failure { FAILED } else { OK };
    Ending { class, outcome, elapsed, hint: RetryHint::None }
}

pub(crate) fn result(breaker: &mut Breaker, class: Class, millis: u64) -> Option<Transition> {
    let permit = breaker.try_acquire(at(millis), Draw::ZERO).expect("the breaker admits");
    breaker.record(permit, &ending(class, Duration::ZERO), at(millis), Draw::ZERO)
}

/// Feeds `S`, `F` and `I` at one moment; says what the last one changed.
fn feed(breaker: &mut Breaker, results: &str, millis: u64) -> Option<Transition> {
    let mut last = None;
    for letter in results.chars() {
        let class = match letter {
            'S' => Class::Success,
            'F' => Class::Failure,
            _ => Class::Ignored,
        };
        last = result(breaker, class, millis);
    }
    last
}

fn with(trip: TripRules, window: WindowSpec) -> Breaker {
    Breaker::new(breaker_spec(BreakerInput { trip, window, ..breaker_input(1) }))
}

fn rate(percent: u8, min_calls: u32) -> TripRules {
    TripRules {
        failure_rate: Some(RateRule { percent, min_calls }),
        failures: None,
        consecutive_failures: None,
        slow_call_rate: None,
    }
}

fn failures(limit: u32) -> TripRules {
    TripRules { failure_rate: None, failures: Some(limit), consecutive_failures: None, slow_call_rate: None }
}

#[test]
fn only_failures_in_a_row_trip_the_consecutive_rule() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(3)));
    assert_eq!(feed(&mut breaker, "FSFF", 0), None);
    assert_eq!(feed(&mut breaker, "F", 0).unwrap().cause, Cause::ConsecutiveFailures);

    let mut alternating = Breaker::new(breaker_spec(breaker_input(2)));
    assert_eq!(feed(&mut alternating, &"SF".repeat(20), 0), None);
    assert_eq!(alternating.state(), LocalState::Closed);

    let mut three_of_four = with(failures(3), WindowSpec::Count(4));
    assert_eq!(feed(&mut three_of_four, &"SF".repeat(20), 0), None);
    assert_eq!(three_of_four.state(), LocalState::Closed);
}

#[test]
fn a_number_of_failures_in_a_count_window_trips_on_the_last_of_them() {
    let mut breaker = with(failures(2), WindowSpec::Count(3));
    assert_eq!(feed(&mut breaker, "FS", 0), None);
    assert_eq!(feed(&mut breaker, "F", 0).unwrap().to, LocalState::Open);
}

#[test]
fn a_number_of_failures_trips_before_the_window_is_full() {
    let mut breaker = with(failures(3), WindowSpec::Count(10));
    assert_eq!(feed(&mut breaker, "FFF", 0).unwrap().cause, Cause::Failures);
}

#[test]
fn a_rate_needs_its_minimum_of_calls_and_trips_on_no_success() {
    let mut breaker = with(rate(50, 5), WindowSpec::Time(ms(20_000)));
    assert_eq!(feed(&mut breaker, "FFFS", 0), None);
    assert_eq!(feed(&mut breaker, "S", 0), None, "60 percent, but the fifth call was a success");
    let transition = feed(&mut breaker, "F", 0).expect("a failure is judged");
    assert_eq!((transition.counts.calls, transition.counts.failures), (6, 4));
    assert!(breaker.try_acquire(at(0), Draw::ZERO).is_err());

    let mut breaker = with(rate(50, 10), WindowSpec::Count(10));
    assert_eq!(feed(&mut breaker, &"F".repeat(9), 0), None);
    assert_eq!(feed(&mut breaker, "S", 0), None, "90 percent, but the tenth call was a success");
}

#[test]
fn the_call_that_completes_the_minimum_opens_it_and_the_next_one_is_refused_and_counted() {
    let trip = rate(50, 5);
    let window = WindowSpec::Time(ms(20_000));
    let mut gate = Gate::new(breaker_spec(BreakerInput { trip, window, ..breaker_input(1) }), Revision(1));
    let mut transitions = Vec::new();
    for class in [Class::Failure, Class::Failure, Class::Success, Class::Success, Class::Failure] {
        assert_eq!((gate.local_state(), transitions.len()), (LocalState::Closed, 0), "four calls are not enough");
        let pass = gate.try_acquire(at(0), Draw::ZERO).0.unwrap();
        transitions.extend(gate.record(pass, &ending(class, Duration::ZERO), at(0), Draw::ZERO));
    }
    let [GateEffect::Transition(transition)] = transitions[..] else { panic!("{transitions:?}") };
    assert_eq!(transition.cause, Cause::FailureRate);
    assert_eq!((transition.counts.calls, transition.counts.failures), (5, 3));
    assert_eq!(gate.report(at(0)).rejected, 0);
    assert!(gate.try_acquire(at(0), Draw::ZERO).0.is_err());
    assert_eq!(gate.report(at(0)).rejected, 1);
}

#[test]
fn the_failure_that_reaches_the_limit_is_the_last_call_that_runs() {
    let mut breaker = with(rate(50, 2), WindowSpec::Count(2));
    assert_eq!(feed(&mut breaker, "F", 0), None);
    assert_eq!(feed(&mut breaker, "F", 0).unwrap().to, LocalState::Open);
    assert!(breaker.try_acquire(at(0), Draw::ZERO).is_err());
}

#[test]
fn too_few_calls_never_trip_even_if_all_fail() {
    let mut breaker = with(rate(50, 20), WindowSpec::Time(ms(10_000)));
    assert_eq!(feed(&mut breaker, &"F".repeat(19), 0), None);
}

#[test]
fn ninety_nine_of_two_hundred_do_not_trip_half() {
    let mut breaker = with(rate(50, 200), WindowSpec::Count(200));
    feed(&mut breaker, &"S".repeat(101), 0);
    assert_eq!(feed(&mut breaker, &"F".repeat(99), 0), None);
    let mut breaker = with(rate(50, 200), WindowSpec::Count(200));
    feed(&mut breaker, &"S".repeat(100), 0);
    assert!(feed(&mut breaker, &"F".repeat(100), 0).is_some());
}

#[test]
fn a_long_healthy_past_does_not_delay_a_trip() {
    let mut breaker = with(rate(50, 5), WindowSpec::Count(10));
    feed(&mut breaker, &"S".repeat(10_000), 0);
    assert_eq!(feed(&mut breaker, "FFFF", 0), None);
    assert!(feed(&mut breaker, "F", 0).is_some());
}

#[test]
fn a_count_window_forgets_the_oldest() {
    let mut window = Window::new(WindowSpec::Count(100));
    let sample = |failed: bool| Sample {
        failure: failed.then_some(fusebox_policy::breaker::FailureCause::TargetError),
        slow: false,
    };
    for call in 0..50 {
        window.record(sample(call % 3 != 0), at(0));
    }
    let counts = window.counts(at(0));
    assert_eq!((counts.calls - counts.failures, counts.failures), (17, 33));
    for _ in 0..100 {
        window.record(sample(false), at(0));
    }
    let counts = window.counts(at(0));
    assert_eq!((counts.calls, counts.failures), (100, 0));
}

#[test]
fn reading_a_time_window_expires_what_is_old() {
    let mut window = Window::new(WindowSpec::Time(ms(10_000)));
    for second in 0..10 {
        window.record(Sample { failure: None, slow: false }, at(second * 1000));
    }
    assert_eq!(window.counts(at(9_999)).calls, 10);
    assert_eq!(window.counts(at(10_000)).calls, 9);
    assert_eq!(window.counts(at(11_000)).calls, 8);
    assert_eq!(window.counts(at(100_000)).calls, 0);
}

#[test]
fn failures_that_have_left_the_time_window_do_not_count() {
    let mut breaker = with(failures(2), WindowSpec::Time(ms(200)));
    assert_eq!(feed(&mut breaker, "FS", 0), None);
    assert_eq!(feed(&mut breaker, "FS", 210), None, "the first pair has left");
    assert!(feed(&mut breaker, "F", 260).is_some());
}

#[test]
fn a_rate_is_that_of_the_calls_still_in_the_time_window() {
    let mut breaker = with(rate(50, 3), WindowSpec::Time(ms(200)));
    assert_eq!(feed(&mut breaker, "FS", 0), None);
    assert_eq!(feed(&mut breaker, "SFS", 210), None, "a third of three, since the first pair has left");
    let transition = feed(&mut breaker, "F", 260).expect("a half of four");
    assert_eq!((transition.counts.calls, transition.counts.failures), (4, 2));
}

#[test]
fn a_time_window_forgets_part_by_part_and_never_everything_at_once() {
    let mut window = Window::new(WindowSpec::Time(ms(30_000)));
    for second in 0..30 {
        window.record(Sample { failure: None, slow: false }, at(second * 1000));
    }
    assert_eq!(window.counts(at(29_999)).calls, 30);
    window.record(Sample { failure: None, slow: false }, at(30_000));
    assert_eq!(window.counts(at(30_000)).calls, 28, "the oldest tenth has left, and the new call has come");
}

#[test]
fn statistics_follow_the_last_calls_also_through_probes() {
    let half_open = HalfOpenSpec { probes: 20, concurrent_probes: 1, successes: 15, max_duration: None };
    let input = BreakerInput { trip: failures(5), window: WindowSpec::Count(10), half_open, ..breaker_input(1) };
    let mut breaker = Breaker::new(breaker_spec(input));
    let seen = |breaker: &Breaker| {
        let counts = breaker.counts(at(0));
        (counts.failures, counts.calls - counts.failures)
    };
    feed(&mut breaker, "SFSFSFS", 0);
    assert_eq!(seen(&breaker), (3, 4));
    feed(&mut breaker, "SSSFSSSFSSSFSSS", 0);
    assert_eq!(seen(&breaker), (2, 8));
    assert_eq!(feed(&mut breaker, "FFFF", 0).unwrap().counts.failures, 5);
    breaker.advance(at(5000), Draw::ZERO);
    assert_eq!(feed(&mut breaker, &"SSF".repeat(5), 5000), None, "10 of 15 probes are undecided");
    let mut other = breaker.clone();
    assert_eq!(feed(&mut breaker, "SSSSS", 5000).unwrap().to, LocalState::Closed);
    assert_eq!(feed(&mut other, "F", 5000).unwrap().to, LocalState::Open);
}

#[test]
fn slow_calls_trip_even_when_they_succeed_and_exactly_the_limit_is_not_slow() {
    let trip = TripRules {
        failure_rate: Some(RateRule { percent: 50, min_calls: 5 }),
        failures: None,
        consecutive_failures: None,
        slow_call_rate: Some((RateRule { percent: 50, min_calls: 5 }, ms(4000))),
    };
    let calls = [(Class::Failure, 5000), (Class::Success, 5000), (Class::Failure, 100), (Class::Success, 100)];
    for (last, trips) in [(5000, true), (4000, false)] {
        let mut breaker = with(trip, WindowSpec::Count(10));
        let mut run = |class, took| {
            let permit = breaker.try_acquire(at(0), Draw::ZERO).unwrap();
            breaker.record(permit, &ending(class, ms(took)), at(0), Draw::ZERO)
        };
        for (class, took) in calls {
            assert_eq!(run(class, took), None);
        }
        let transition = run(Class::Success, last);
        assert_eq!(transition.map(|transition| transition.cause), trips.then_some(Cause::SlowCallRate));
        if let Some(transition) = transition {
            assert_eq!((transition.counts.slow, transition.counts.failures), (3, 2));
        }
    }
}

#[test]
fn ignored_outcomes_count_neither_way() {
    let mut breaker = with(rate(60, 3), WindowSpec::Count(100));
    assert_eq!(feed(&mut breaker, &"SFI".repeat(5), 0), None);
    let counts = breaker.counts(at(0));
    assert_eq!((counts.calls, counts.failures, breaker.ignored()), (10, 5, 5));
    assert_eq!(breaker.state(), LocalState::Closed, "a half of ten");
}

#[test]
fn what_is_not_in_the_rules_is_a_success() {
    let only_503 = Conditions { statuses: vec![StatusRange::parse("503").unwrap()], ..Conditions::default() };
    let spec = breaker_spec(BreakerInput { failure_when: Some(only_503), ..breaker_input(1) });
    let classify = |outcome| spec.classifier().classify(outcome, Duration::ZERO, &NoFacts);
    assert_eq!(classify(Outcome::status(500)), Class::Success);
    assert_eq!(classify(FAILED), Class::Success);
    assert_eq!(classify(Outcome::status(503)), Class::Failure);
}

#[test]
fn the_transition_carries_the_numbers_of_the_closed_state() {
    let mut breaker = with(failures(1), WindowSpec::Count(2));
    let transition = feed(&mut breaker, "SF", 0).unwrap();
    assert_eq!((transition.from, transition.to), (LocalState::Closed, LocalState::Open));
    assert_eq!((transition.counts.calls, transition.counts.failures), (2, 1));
}

#[test]
fn default_rules_trip_a_small_service_on_five_failures_in_a_row() {
    let mut breaker = Breaker::new(breaker_spec(BreakerInput::default()));
    assert_eq!(feed(&mut breaker, "FFFF", 0), None);
    assert!(feed(&mut breaker, "F", 0).is_some());
}
