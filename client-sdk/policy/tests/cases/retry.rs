//! Retries: when, how often, how late, and for whom not.

use std::time::Duration;

use fusebox_policy::{
    Draw, Outcome,
    breaker::BreakerInput,
    fallback::Answers,
    outcome::{ErrorKind, GrpcCode, RetryHint},
    pipeline::{Event, Finish, StrategySpec},
    retry::{
        CallRules, OnExhausted, RetryInput, RetrySpec, Stop,
        backoff::{Backoff, Jitter, Shape},
        budget::{Budget, BudgetSpec},
    },
};

use crate::driver::{FAILED, OK, Process, at, breaker, breaker_input, does, fixed, ms, retry, retry_input, says, slow};
use fusebox_policy::throttle::Priority;

fn spec(input: RetryInput) -> StrategySpec {
    StrategySpec::Retry(RetrySpec::try_new(input).unwrap())
}

fn stops(process: &Process) -> Vec<Stop> {
    let stop = |event: &Event| if let Event::RetryStopped { stop, .. } = event { Some(*stop) } else { None };
    process.events.borrow().iter().filter_map(stop).collect()
}

#[test]
fn three_attempts_by_default_and_then_the_last_outcome_itself() {
    let mut process = Process::new(vec![spec(RetryInput { backoff: fixed(0), ..RetryInput::default() })]);
    assert_eq!(process.call(|_| does(FAILED)), Finish::Value);
    assert_eq!(process.executed, 3);
    assert_eq!(stops(&process), [Stop::MaxAttempts]);
}

#[test]
fn exhaustion_is_an_error_where_it_was_asked_for() {
    let mut process = Process::new(vec![spec(RetryInput { on_exhausted: OnExhausted::Error, ..retry_input(2, 0) })]);
    assert_eq!(process.call(|_| does(FAILED)), Finish::Exhausted { stage: 0, attempts: 2 });
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
}

#[test]
fn it_stops_at_the_first_success_and_at_the_first_answer_that_no_retry_helps() {
    let mut process = Process::new(vec![retry(7, 0)]);
    process.call(|attempt| does(if attempt < 3 { Outcome::status(503) } else { Outcome::status(200) }));
    assert_eq!(process.executed, 3);
    for (outcome, executed) in [
        (Outcome::status(404), 1),
        (Outcome::status(500), 1),
        (Outcome::status(501), 1),
        (Outcome::status(429), 7),
        (Outcome::status(502), 7),
        (Outcome::grpc(GrpcCode::Unavailable), 7),
        (Outcome::grpc(GrpcCode::NotFound), 1),
        (Outcome::Error(ErrorKind::Connect), 7),
        (Outcome::Error(ErrorKind::Tls), 1),
        (Outcome::Error(ErrorKind::Request), 1),
    ] {
        let mut process = Process::new(vec![retry(7, 0)]);
        process.call(|_| does(outcome));
        assert_eq!(process.executed, executed, "{outcome}");
    }
}

#[test]
fn waits_grow_to_the_cap() {
    let shape = Shape::Exponential { initial: ms(1), factor: 2.0, max: Some(ms(10)) };
    let backoff = Backoff::try_new(shape, Some(Jitter::None)).unwrap();
    let mut process = Process::new(vec![spec(RetryInput { backoff, ..retry_input(7, 0) })]);
    process.call(|_| does(FAILED));
    assert_eq!(process.waits, [1, 2, 4, 8, 10, 10].map(ms));
}

#[test]
fn jitter_spreads_as_it_says() {
    let second = Backoff::try_new(Shape::Fixed { delay: ms(1000) }, Some(Jitter::Ratio(0.25))).unwrap();
    for (draw, expected) in [(0.0, 750), (0.4, 950), (0.6, 1050)] {
        assert_eq!(second.delay(1, None, Draw::new(draw)), ms(expected));
    }
    let shape = Shape::Linear { initial: ms(1000), step: ms(1000), max: None };
    let linear = Backoff::try_new(shape, Some(Jitter::Ratio(0.25))).unwrap();
    assert_eq!(linear.delay(3, None, Draw::ZERO), ms(2250));
    assert_eq!(linear.delay(3, None, Draw::HALF), ms(3000));
    let shape = Shape::Exponential { initial: ms(5), factor: 2.0, max: Some(ms(100)) };
    let full = Backoff::try_new(shape, Some(Jitter::Full)).unwrap();
    assert_eq!(full.delay(1, None, Draw::ZERO), ms(0));
    let equal = Backoff::try_new(shape, Some(Jitter::Equal)).unwrap();
    assert_eq!(equal.delay(2, None, Draw::ZERO), ms(5));
}

#[test]
fn no_wait_is_above_its_cap_and_none_overflows() {
    let day = Duration::from_secs(86_400);
    let shapes = [
        Shape::Linear { initial: ms(500), step: day, max: Some(ms(1000)) },
        Shape::Exponential { initial: ms(500), factor: 1000.0, max: Some(ms(1000)) },
        Shape::Decorrelated { initial: ms(500), max: ms(1000) },
        Shape::Random { min: ms(500), max: ms(1000) },
    ];
    for shape in shapes {
        for jitter in [Jitter::None, Jitter::Ratio(1.0), Jitter::Equal] {
            let Ok(backoff) = Backoff::try_new(shape, Some(jitter)) else { continue };
            for attempt in [1, 2, 1000, u32::MAX] {
                assert!(backoff.delay(attempt, Some(Duration::MAX), Draw::new(1.0)) <= ms(1000), "{shape:?}");
            }
        }
    }
    let unbounded = Shape::Exponential { initial: day, factor: 2.0, max: None };
    let backoff = Backoff::try_new(unbounded, Some(Jitter::None)).unwrap();
    assert_eq!(backoff.delay(1000, None, Draw::ZERO), Duration::from_nanos(u64::MAX));
}

#[test]
fn unlimited_attempts_need_a_limit_in_time_and_go_on_until_it() {
    let unlimited = RetryInput { max_attempts: None, unlimited: true, ..retry_input(1, 10) };
    assert!(RetrySpec::try_new(unlimited.clone()).is_err());
    let mut process = Process::new(vec![spec(RetryInput { max_duration: Some(ms(100)), ..unlimited })]);
    process.call(|attempt| does(if attempt <= 5 { FAILED } else { OK }));
    assert_eq!(process.executed, 6);
}

#[test]
fn no_wait_begins_after_which_no_attempt_could_start_in_time() {
    let limited = RetryInput { max_duration: Some(ms(100)), ..retry_input(10, 20) };
    let mut process = Process::new(vec![spec(limited)]);
    process.call(|_| slow(FAILED, 50));
    assert_eq!(process.executed, 2);
    assert_eq!(process.now, at(120), "the second attempt ended after the limit and nothing was slept");
    assert_eq!(stops(&process), [Stop::MaxDuration]);
}

#[test]
fn it_never_retries_earlier_than_asked() {
    for draw in [0.0, 0.5, 0.99] {
        let backoff = Backoff::try_new(Shape::Fixed { delay: ms(10) }, Some(Jitter::Ratio(0.5))).unwrap();
        let mut process = Process::new(vec![spec(RetryInput { backoff, ..retry_input(2, 0) })]);
        process.draw.set(Draw::new(draw));
        process.call(|_| says(Outcome::status(503), RetryHint::After(ms(1000))));
        assert!(process.waits[0] >= ms(1000), "{:?}", process.waits);
    }
}

#[test]
fn a_wait_beyond_what_is_allowed_ends_the_call_with_the_last_outcome() {
    let too_long = says(Outcome::status(429), RetryHint::After(Duration::from_secs(61)));
    let mut process = Process::new(vec![retry(3, 0)]);
    assert_eq!(process.call(|_| too_long), Finish::Value);
    assert_eq!((process.executed, stops(&process)), (1, vec![Stop::RetryAfterTooLong]));

    let mut process = Process::new(vec![crate::driver::timeout(500), retry(3, 0)]);
    assert_eq!(process.call(|_| says(Outcome::status(503), RetryHint::After(ms(600)))), Finish::Value);
    assert_eq!((process.executed, process.now), (1, at(0)));
}

#[test]
fn retry_after_means_something_only_where_it_is_defined() {
    let mut process = Process::new(vec![retry(2, 5)]);
    process.call(|_| says(Outcome::status(502), RetryHint::After(ms(1000))));
    assert_eq!(process.waits, [ms(5)]);
}

#[test]
fn a_negative_pushback_ends_the_call() {
    let mut process = Process::new(vec![retry(3, 0)]);
    process.call(|_| says(Outcome::grpc(GrpcCode::Unavailable), RetryHint::Never));
    assert_eq!((process.executed, stops(&process)), (1, vec![Stop::Pushback]));
}

#[test]
fn what_is_not_idempotent_is_tried_once_unless_it_never_left() {
    let rules =
        CallRules { idempotent: false, replayable: true, priority: Priority::Normal, answers: Answers::Anything };
    let mut process = Process::new(vec![retry(3, 0)]);
    process.rules = rules;
    process.call(|_| does(Outcome::status(503)));
    assert_eq!((process.executed, stops(&process)), (1, vec![Stop::NotIdempotent]));

    let mut process = Process::new(vec![retry(3, 0)]);
    process.rules = rules;
    process.call(|_| does(Outcome::Error(ErrorKind::Connect)));
    assert_eq!(process.executed, 3);

    let mut process = Process::new(vec![spec(RetryInput { non_idempotent: true, ..retry_input(3, 0) })]);
    process.rules = rules;
    process.call(|_| does(Outcome::status(503)));
    assert_eq!(process.executed, 3);
}

#[test]
fn a_body_that_can_not_be_sent_again_makes_a_single_attempt() {
    let mut process = Process::new(vec![retry(3, 0)]);
    process.rules =
        CallRules { idempotent: true, replayable: false, priority: Priority::Normal, answers: Answers::Anything };
    process.call(|_| does(FAILED));
    assert_eq!((process.executed, stops(&process)), (1, vec![Stop::NotReplayable]));
}

#[test]
fn an_open_breaker_inside_is_not_retried() {
    let mut process = Process::new(vec![retry(7, 0), breaker(1)]);
    assert!(matches!(process.call(|_| does(FAILED)), Finish::Rejected { stage: 1, .. }));
    assert_eq!(process.executed, 1);
}

#[test]
fn waiting_for_the_breaker_tries_again_when_it_says() {
    let waiting =
        RetryInput { wait_for_breaker: true, budget: Some(BudgetSpec::try_new(0.0, 0).unwrap()), ..retry_input(3, 0) };
    let opens = StrategySpec::CircuitBreaker(
        fusebox_policy::breaker::BreakerSpec::try_new(BreakerInput { delay: ms(1000), ..breaker_input(1) }).unwrap(),
    );
    let mut process = Process::new(vec![spec(waiting), opens]);
    process.call(|_| does(Outcome::status(500)));
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!((process.now, process.executed), (at(1000), 2));
}

#[test]
fn the_budget_bounds_retries_by_calls_with_a_floor() {
    let spec = BudgetSpec::try_new(0.2, 0).unwrap();
    let mut budget = Budget::new();
    for _ in 0..20 {
        budget.call(at(0));
    }
    let granted = (0..10).filter(|_| budget.try_retry(&spec, at(0))).count();
    assert_eq!(granted, 4);
    let all = BudgetSpec::try_new(1.0, 0).unwrap();
    assert!(budget.try_retry(&all, at(0)), "a raised share is honoured by the next decision");
    let floor = BudgetSpec::try_new(0.0, 3).unwrap();
    let mut idle = Budget::new();
    assert_eq!((0..100).filter(|_| idle.try_retry(&floor, at(0))).count(), 30);
    assert!(idle.try_retry(&floor, at(10_000)), "ten seconds later it is fresh");
}

#[test]
fn over_the_budget_the_last_outcome_is_returned_and_marked() {
    let mut process = Process::new(vec![spec(RetryInput {
        budget: Some(BudgetSpec::try_new(0.0, 0).unwrap()),
        ..retry_input(3, 0)
    })]);
    assert_eq!(process.call(|_| does(FAILED)), Finish::Value);
    assert_eq!((process.executed, stops(&process)), (1, vec![Stop::Budget]));
}

#[test]
fn nested_retries_keep_their_state_per_inner_call() {
    let mut process = Process::new(vec![retry(10, 0), retry(1, 0)]);
    process.call(|attempt| does(if attempt <= 5 { FAILED } else { OK }));
    assert_eq!(process.executed, 6);
    let mut process = Process::new(vec![retry(3, 0), retry(3, 0)]);
    process.call(|_| does(FAILED));
    assert_eq!(process.executed, 9);
}

#[test]
fn an_outcome_no_retry_helps_is_not_reported_as_used_up() {
    let mut process = Process::new(vec![retry(1, 0)]);
    process.call(|_| does(Outcome::Error(ErrorKind::Tls)));
    assert_eq!(stops(&process), [Stop::NotRetryable]);
}
