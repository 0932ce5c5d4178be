//! What strategies make of each other: who sees which outcome, and how often something runs.

use fusebox_policy::{
    Outcome,
    breaker::{BreakerInput, BreakerSpec, HalfOpenSpec, LocalState},
    bulkhead::BulkheadSpec,
    cache::{CacheInput, CacheSpec},
    condition::{Conditions, ErrorRule, StatusRange},
    outcome::{ErrorKind, RejectionReason},
    pipeline::{Event, Finish, StrategySpec},
    rate_limiter::{RateLimiterInput, RateLimiterSpec},
    retry::{RetryInput, RetrySpec, Stop},
};

use crate::driver::{FAILED, OK, Process, breaker_input, does, fallback, ms, retry, retry_input};

fn on_status(text: &str) -> Option<Conditions> {
    Some(Conditions { statuses: vec![StatusRange::parse(text).unwrap()], ..Conditions::default() })
}

fn breaker(input: BreakerInput) -> StrategySpec {
    StrategySpec::CircuitBreaker(BreakerSpec::try_new(input).unwrap())
}

fn retries(process: &Process) -> usize {
    process.count_events(|event| matches!(event, Event::RetryScheduled { .. }))
}

/// Attempts that retries had made when they gave up.
fn given_up(process: &Process) -> Vec<(Stop, u32)> {
    let stopped = |event: &Event| {
        if let Event::RetryStopped { stop, attempts, .. } = event { Some((*stop, *attempts)) } else { None }
    };
    process.events.borrow().iter().filter_map(stopped).collect()
}

#[test]
fn what_its_rules_do_not_name_is_a_success_to_a_breaker() {
    let rules = BreakerInput { failure_when: on_status("503"), ..breaker_input(1) };
    let mut process = Process::new(vec![breaker(rules)]);
    for _ in 0..5 {
        assert_eq!(process.call(|_| does(FAILED)), Finish::Value);
    }
    assert_eq!((process.count_failures(), process.local_state()), ((5, 0), LocalState::Closed));
}

#[test]
fn a_breaker_judges_values_without_any_error() {
    let rules = BreakerInput { failure_when: on_status("409"), ..breaker_input(2) };
    let mut process = Process::new(vec![breaker(rules)]);
    for status in [202, 409] {
        process.call(|_| does(Outcome::status(status)));
    }
    assert_eq!((process.count_failures(), process.local_state()), ((2, 1), LocalState::Closed));
}

#[test]
fn a_retry_and_a_breaker_inside_it_judge_the_same_outcome_each_by_its_own_rules() {
    let rules = Conditions { errors: vec![ErrorRule::Kind(ErrorKind::Connect)], ..Conditions::default() };
    let inner = breaker(BreakerInput { failure_when: Some(rules), ..breaker_input(1) });
    let mut process = Process::new(vec![retry(3, 0), inner]);
    assert_eq!(process.call(|_| does(FAILED)), Finish::Value);
    assert_eq!((process.count_failures(), process.local_state()), ((3, 0), LocalState::Closed));
    assert_eq!(given_up(&process), [(Stop::MaxAttempts, 3)]);
}

#[test]
fn a_call_beyond_the_probes_is_refused_and_not_kept_waiting() {
    let waits = RetrySpec::try_new(RetryInput { wait_for_breaker: true, ..retry_input(3, 0) }).unwrap();
    let mut process = Process::new(vec![StrategySpec::Retry(waits), breaker(breaker_input(1))]);
    process.call(|_| does(Outcome::status(500)));
    process.now = process.now.plus(ms(5000));
    process.hold_one();
    let refused = process.call(|_| does(OK));
    assert_eq!(refused, Finish::Rejected { stage: 1, reason: RejectionReason::HalfOpenLimit });
    assert!(process.waits.is_empty(), "nobody knows when the probe will have ended");
}

#[test]
fn rejections_are_retried_only_where_the_policy_names_them() {
    let limiter = || {
        let input = RateLimiterInput { limit: 3, period: ms(60_000), burst: 3, ..RateLimiterInput::default() };
        StrategySpec::RateLimiter(RateLimiterSpec::try_new(input).unwrap())
    };
    let bulkhead = || StrategySpec::Bulkhead(BulkheadSpec::try_new(1, 0, None).unwrap());
    let any = Conditions { errors: vec![ErrorRule::Any], ..Conditions::default() };
    let asked = RetrySpec::try_new(RetryInput { failure_when: Some(any), ..retry_input(7, 0) }).unwrap();
    let asked = || StrategySpec::Retry(asked.clone());

    let mut process = Process::new(vec![retry(7, 0), limiter()]);
    process.call(|_| does(FAILED));
    assert_eq!((process.executed, given_up(&process)), (3, vec![(Stop::NotRetryable, 4)]));
    let mut process = Process::new(vec![asked(), limiter()]);
    process.call(|_| does(FAILED));
    assert_eq!((process.executed, given_up(&process)), (3, vec![(Stop::MaxAttempts, 7)]));

    let mut process = Process::new(vec![retry(7, 0), bulkhead()]);
    process.hold_one();
    process.call(|_| does(OK));
    assert_eq!((process.executed, given_up(&process)), (0, vec![(Stop::NotRetryable, 1)]));
    let mut process = Process::new(vec![asked(), bulkhead()]);
    process.hold_one();
    process.call(|_| does(OK));
    assert_eq!((process.executed, given_up(&process)), (0, vec![(Stop::MaxAttempts, 7)]));
}

#[test]
fn each_strategy_of_a_pipeline_tells_its_own_part_once() {
    let half_open = HalfOpenSpec { probes: 1, concurrent_probes: 1, successes: 1, max_duration: None };
    let failures = Conditions { errors: vec![ErrorRule::Any], ..on_status("503").unwrap() };
    let quick =
        BreakerInput { failure_when: Some(failures), delay: ms(1), delay_factor: 1.0, half_open, ..breaker_input(1) };
    let cache = CacheSpec::try_new(CacheInput { ttl: ms(60_000), ..CacheInput::default() }).unwrap();
    let mut process = Process::new(vec![fallback(), StrategySpec::Cache(cache), retry(10, 1), breaker(quick)]);
    let script = [FAILED, FAILED, Outcome::status(503), Outcome::status(503), OK];
    assert_eq!(process.call(|attempt| does(script[attempt as usize - 1])), Finish::Value);
    assert_eq!((process.executed, retries(&process)), (5, 4));
    let to = |state| process.transitions.borrow().iter().filter(|transition| transition.to == state).count();
    assert_eq!((to(LocalState::Open), to(LocalState::HalfOpen), to(LocalState::Closed)), (4, 4, 1));
    let asked = |wanted| process.count_events(|event| matches!(event, Event::CacheAsked { hit, .. } if *hit == wanted));
    assert_eq!((asked(true), asked(false)), (0, 1));
    assert_eq!(process.count_events(|event| matches!(event, Event::FallbackExecuted { .. })), 0);
    let ended = process.ended.borrow();
    assert_eq!(
        ended.iter().map(|end| (end.outcome, end.attempts, end.replaced)).collect::<Vec<_>>(),
        [(Some(OK), 5, false)]
    );
    drop(ended);
    process.call(|_| does(FAILED));
    assert_eq!(process.executed, 5, "the good answer was kept");
}
