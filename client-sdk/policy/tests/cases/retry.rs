//! Retries: when, how often, how late, and for whom not.

use std::time::Duration;

use fusebox_policy::{
    Draw, Outcome,
    breaker::BreakerInput,
    condition::{Conditions, ErrorRule, StatusRange},
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
    assert_eq!(process.call(|_| does(Outcome::status(503))), Finish::Exhausted { stage: 0, attempts: 2 });
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
fn only_what_the_policy_names_is_tried_again() {
    let rules = Conditions { statuses: vec![StatusRange::parse("500").unwrap()], ..Conditions::default() };
    let mut process = Process::new(vec![spec(RetryInput { failure_when: Some(rules), ..retry_input(7, 0) })]);
    process.call(|attempt| does(if attempt < 3 { Outcome::status(500) } else { OK }));
    assert_eq!((process.executed, stops(&process)), (3, vec![]));
}

#[test]
fn an_outcome_that_the_policy_ignores_ends_the_call_and_says_so_once() {
    let reset = Conditions { errors: vec![ErrorRule::Kind(ErrorKind::Reset)], ..Conditions::default() };
    let unavailable = Conditions { statuses: vec![StatusRange::parse("503").unwrap()], ..Conditions::default() };
    for (ignore_when, last) in [(reset, Outcome::Error(ErrorKind::Reset)), (unavailable, Outcome::status(503))] {
        let mut process = Process::new(vec![spec(RetryInput { ignore_when, ..retry_input(7, 0) })]);
        process.call(|attempt| does(if attempt < 3 { FAILED } else { last }));
        assert_eq!((process.executed, stops(&process)), (3, vec![Stop::NotRetryable]), "{last}");
    }
}

#[test]
fn waits_grow_to_the_cap() {
    for (initial, max, attempts, expected) in
        [(1, 10, 7, &[1, 2, 4, 8, 10, 10][..]), (2000, 30_000, 6, &[2000, 4000, 8000, 16_000, 30_000][..])]
    {
        let shape = Shape::Exponential { initial: ms(initial), factor: 2.0, max: Some(ms(max)) };
        let backoff = Backoff::try_new(shape, Some(Jitter::None)).unwrap();
        let mut process = Process::new(vec![spec(RetryInput { backoff, ..retry_input(attempts, 0) })]);
        process.call(|_| does(FAILED));
        assert_eq!(process.waits, expected.iter().copied().map(ms).collect::<Vec<_>>());
    }
}

#[test]
fn full_jitter_spreads_each_wait_up_to_its_bound_and_each_call_starts_over() {
    let shape = Shape::Exponential { initial: ms(5), factor: 2.0, max: Some(ms(100)) };
    let backoff = Backoff::try_new(shape, Some(Jitter::Full)).unwrap();
    let mut process = Process::new(vec![spec(RetryInput { backoff, ..retry_input(8, 0) })]);
    process.draw.set(Draw::new(1.0));
    for _ in 0..2 {
        process.waits.clear();
        process.call(|_| does(FAILED));
        let whole: Vec<_> = process.waits.iter().map(Duration::as_millis).collect();
        assert_eq!(whole, [4, 9, 19, 39, 79, 99, 99], "just below 5, 10, 20, ...");
    }
}

#[test]
fn jitter_spreads_as_it_says() {
    let second = Backoff::try_new(Shape::Fixed { delay: ms(1000) }, Some(Jitter::Ratio(0.25))).unwrap();
    // A draw of 1 is the largest number below it.
    let about = |delay: Duration, millis: u64| {
        ms(millis).saturating_sub(delay) <= Duration::from_nanos(1) && delay <= ms(millis)
    };
    for (draw, expected) in [(0.0, 750), (0.4, 950), (0.6, 1050), (1.0, 1250)] {
        assert!(about(second.delay(1, None, Draw::new(draw)), expected), "{draw}");
    }
    let shape = Shape::Linear { initial: ms(1000), step: ms(1000), max: None };
    let linear = Backoff::try_new(shape, Some(Jitter::Ratio(0.25))).unwrap();
    for (draw, expected) in [(0.0, 2250), (0.4, 2850), (0.5, 3000), (0.6, 3150), (1.0, 3750)] {
        assert!(about(linear.delay(3, None, Draw::new(draw)), expected), "{draw}");
    }
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
        for jitter in [Jitter::None, Jitter::Ratio(1.0), Jitter::Equal, Jitter::Full] {
            let Ok(backoff) = Backoff::try_new(shape, Some(jitter)) else { continue };
            for attempt in [1, 2, 1000, u32::MAX] {
                assert!(backoff.delay(attempt, Some(Duration::MAX), Draw::new(1.0)) <= ms(1000), "{shape:?}");
            }
        }
    }
    let unbounded = Shape::Exponential { initial: day, factor: 2.0, max: None };
    let backoff = Backoff::try_new(unbounded, Some(Jitter::None)).unwrap();
    assert_eq!(backoff.delay(1000, None, Draw::ZERO), Duration::from_nanos(u64::MAX));
    let capped = Shape::Exponential { initial: day, factor: 2.0, max: Some(2 * day) };
    assert_eq!(Backoff::try_new(capped, Some(Jitter::None)).unwrap().delay(1000, None, Draw::ZERO), 2 * day);
    // A first wait above its cap is a mistake, and is said to be one.
    let (initial, max) = (ms(10_000), Some(ms(1000)));
    for shape in [
        Shape::Linear { initial, step: initial, max },
        Shape::Exponential { initial, factor: 2.0, max },
        Shape::Decorrelated { initial, max: ms(1000) },
        Shape::Random { min: initial, max: ms(1000) },
    ] {
        assert!(Backoff::try_new(shape, None).is_err(), "{shape:?}");
    }
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
fn an_attempt_that_outlives_the_longest_duration_is_the_last() {
    let limited = RetryInput { max_duration: Some(ms(100)), on_exhausted: OnExhausted::Error, ..retry_input(10, 0) };
    let mut process = Process::new(vec![spec(limited)]);
    let finish = process.call(|attempt| if attempt == 2 { slow(FAILED, 120) } else { does(FAILED) });
    assert_eq!(finish, Finish::Exhausted { stage: 0, attempts: 2 });
    assert_eq!((process.executed, stops(&process)), (2, vec![Stop::MaxDuration]));
}

#[test]
fn the_wait_is_what_the_answer_asks_for_or_else_the_policys_own() {
    let busy = |hint| says(Outcome::status(503), hint);
    for (own, hint, expected) in [
        (5, RetryHint::None, vec![ms(5)]),
        (0, RetryHint::After(ms(120)), vec![ms(120)]),
        (5, RetryHint::After(ms(120)), vec![ms(120)]),
        // No timer at all.
        (0, RetryHint::After(ms(0)), vec![]),
    ] {
        let mut process = Process::new(vec![retry(2, own)]);
        process.call(|attempt| if attempt == 1 { busy(hint) } else { does(OK) });
        assert_eq!((process.executed, &process.waits), (2, &expected), "{hint:?}");
    }
    let mut process = Process::new(vec![retry(5, 0)]);
    process.call(|attempt| if attempt < 3 { busy(RetryHint::After(ms(100 * u64::from(attempt)))) } else { does(OK) });
    assert_eq!((process.executed, process.now), (3, at(300)));
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
    let half = BudgetSpec::try_new(0.5, 0).unwrap();
    let mut small = Budget::new();
    small.call(at(0));
    small.call(at(0));
    assert!(small.try_retry(&half, at(0)) && !small.try_retry(&half, at(0)), "one for two calls");
    small.call(at(0));
    small.call(at(0));
    assert!(small.try_retry(&half, at(0)), "and one more for two more");
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
