//! Fallbacks, and what strategies make of each other in other orders.

use fusebox_policy::{
    Outcome,
    breaker::LocalState,
    condition::{Conditions, StatusRange},
    fallback::{FallbackSpec, FallbackWith, StaticResponse},
    pipeline::{Event, Finish, PipelineSpec},
};

use crate::driver::{FAILED, OK, Process, breaker, does, fallback, fallback_on, retry, timeout};

#[test]
fn the_article_answers_every_call_and_spares_the_target() {
    let mut process = Process::new(vec![fallback(), retry(3, 0), breaker(5), timeout(50)]);
    for _ in 0..10 {
        assert_eq!(process.call(|_| does(Outcome::status(503))), Finish::Value);
    }
    assert_eq!(process.executed, 5, "after five failures nothing reaches the target");
    assert_eq!(process.count_events(|event| matches!(event, Event::FallbackExecuted { .. })), 10);
}

#[test]
fn it_does_not_run_on_success() {
    let mut process = Process::new(vec![fallback()]);
    process.call(|_| does(Outcome::status(200)));
    process.call(|_| does(Outcome::status(404)));
    assert!(process.events.borrow().is_empty());
}

#[test]
fn its_own_result_is_checked_by_what_stands_around_it() {
    let mut process = Process::new(vec![breaker(1), fallback()]);
    process.fallback = does(FAILED);
    assert_eq!(process.call(|_| does(FAILED)), Finish::Value);
    assert_eq!(process.local_state(), LocalState::Open);
}

#[test]
fn a_fallback_with_an_error_can_feed_an_outer_one() {
    let only_503 = Conditions { statuses: vec![StatusRange::parse("503").unwrap()], ..Conditions::default() };
    let mut process = Process::new(vec![fallback(), fallback_on(Some(only_503))]);
    process.call(|_| does(Outcome::status(503)));
    assert_eq!(process.count_events(|event| matches!(event, Event::FallbackExecuted { stage: 1, .. })), 1);
    assert_eq!(process.count_events(|event| matches!(event, Event::FallbackExecuted { stage: 0, .. })), 0);
}

#[test]
fn inside_a_retry_its_answer_is_a_success() {
    let mut process = Process::new(vec![retry(3, 0), fallback()]);
    process.call(|_| does(FAILED));
    assert_eq!(process.executed, 1);
}

#[test]
fn a_breaker_around_a_retry_counts_one_failure_a_call() {
    let mut process = Process::new(vec![breaker(3), retry(3, 0)]);
    process.call(|_| does(FAILED));
    assert_eq!(process.executed, 3);
    assert_eq!(process.count_failures(), (1, 1));
    assert_eq!(process.local_state(), LocalState::Closed);
}

#[test]
fn a_fallback_behind_one_that_answers_everything_is_refused() {
    let strategies = vec![(None, fallback()), (None, fallback())];
    let invalid = PipelineSpec::try_new(strategies).unwrap_err();
    assert_eq!(invalid.violations()[0].field, "[0].fallback");
}

#[test]
fn contradictions_name_both_places() {
    for (strategies, field) in [
        (vec![timeout(100), timeout(200)], "[1].timeout.duration"),
        (vec![timeout(100), retry(3, 1000)], "[1].retry.backoff"),
    ] {
        let invalid = PipelineSpec::try_new(strategies.into_iter().map(|spec| (None, spec)).collect()).unwrap_err();
        assert_eq!(invalid.violations()[0].field, field);
        assert!(invalid.violations()[0].reason.contains("([0])"), "{invalid}");
    }
}

#[test]
fn names_are_filled_in_and_unique() {
    let spec = PipelineSpec::try_new(vec![(None, retry(2, 0)), (None, retry(3, 0)), (None, breaker(1))]).unwrap();
    let names: Vec<_> = spec.strategies().iter().map(|strategy| strategy.name().as_str().to_owned()).collect();
    assert_eq!(names, ["retry", "retry-2", "circuit-breaker"]);
}

#[test]
fn an_empty_pipeline_and_an_oversized_one_are_refused() {
    assert!(PipelineSpec::try_new(vec![]).is_err());
    assert!(PipelineSpec::try_new((0..17).map(|_| (None, retry(2, 0))).collect()).is_err());
}

#[test]
fn a_static_response_is_checked() {
    let bad = StaticResponse { status: 99, ..StaticResponse::default() };
    let invalid = FallbackSpec::try_new(None, Conditions::default(), FallbackWith::Response(bad)).unwrap_err();
    assert_eq!(invalid.violations()[0].field, "response.status");
    let mut process = Process::new(vec![fallback()]);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
}
