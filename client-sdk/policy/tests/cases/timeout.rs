//! Timeouts, alone and in company.

use fusebox_policy::{
    breaker::LocalState,
    pipeline::{Event, Finish},
};

use crate::driver::{FAILED, OK, Process, at, breaker, does, fallback, retry, slow, timeout};

#[test]
fn inside_a_retry_it_cuts_each_attempt() {
    let mut process = Process::new(vec![retry(3, 0), timeout(50)]);
    let finish = process.call(|attempt| if attempt < 3 { slow(OK, 100) } else { does(OK) });
    assert_eq!((finish, process.executed, process.now), (Finish::Value, 3, at(100)));
    assert_eq!(process.count_events(|event| matches!(event, Event::TimedOut { .. })), 2);
    assert_eq!(process.count_events(|event| matches!(event, Event::RetryScheduled { .. })), 2);
}

#[test]
fn outside_a_retry_it_cuts_a_pending_wait() {
    let mut process = Process::new(vec![timeout(1100), retry(3, 1000), timeout(100)]);
    assert_eq!(process.call(|_| slow(OK, 500)), Finish::Timeout { stage: 0 });
    assert_eq!((process.executed, process.now), (1, at(1100)));
}

#[test]
fn it_cuts_a_fallback_that_takes_too_long() {
    let mut process = Process::new(vec![timeout(100), fallback()]);
    process.fallback = slow(OK, 200);
    assert_eq!(process.call(|_| does(FAILED)), Finish::Timeout { stage: 0 });
    assert_eq!(process.now, at(100));
    assert!(!process.ended.borrow()[0].replaced, "it has not answered");
}

#[test]
fn a_breaker_around_it_sees_a_failure() {
    let mut process = Process::new(vec![breaker(1), timeout(50)]);
    assert_eq!(process.call(|_| slow(OK, 100)), Finish::Timeout { stage: 1 });
    assert_eq!(process.local_state(), LocalState::Open);
    assert_eq!(process.now, at(50), "the inside is dropped at the limit, not awaited");
}

#[test]
fn a_breaker_inside_of_it_gets_its_permit_back() {
    let mut process = Process::new(vec![timeout(50), breaker(1)]);
    assert_eq!(process.call(|_| slow(OK, 100)), Finish::Timeout { stage: 0 });
    assert_eq!(process.local_state(), LocalState::Closed);
    assert_eq!(process.count_failures(), (0, 0));
}

#[test]
fn a_call_dropped_by_its_caller_counts_for_nothing() {
    let process = Process::new(vec![retry(3, 0), breaker(1), timeout(50)]);
    process.drop_during_attempt();
    assert_eq!(process.count_failures(), (0, 0));
    assert_eq!(process.count_events(|event| matches!(event, Event::TimedOut { .. })), 0);
}
