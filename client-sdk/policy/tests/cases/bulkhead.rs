//! Bulkheads: how many run, who waits, and in which order.

use std::time::Duration;

use fusebox_policy::{
    bulkhead::{Bulkhead, BulkheadSpec, Entered, Ticket},
    outcome::RejectionReason,
    pipeline::{Finish, StrategySpec},
};

use crate::driver::{FAILED, OK, Process, at, does, ms, retry, slow, timeout};

fn bulkhead(max_concurrent: u32, max_waiting: u32, max_wait: Option<Duration>) -> StrategySpec {
    StrategySpec::Bulkhead(BulkheadSpec::try_new(max_concurrent, max_waiting, max_wait).unwrap())
}

fn admitted(entered: Entered) -> Ticket {
    let Entered::Admitted(ticket) = entered else { panic!("{entered:?}") };
    ticket
}

fn queued(entered: Entered) -> Ticket {
    let Entered::Queued(ticket) = entered else { panic!("{entered:?}") };
    ticket
}

#[test]
fn the_third_of_two_is_refused_at_once() {
    let mut bulkhead = Bulkhead::new();
    let first = admitted(bulkhead.enter(2, 0));
    admitted(bulkhead.enter(2, 0));
    assert_eq!(bulkhead.enter(2, 0), Entered::Full);
    bulkhead.leave(first, 2);
    admitted(bulkhead.enter(2, 0));
}

#[test]
fn a_free_place_goes_to_whoever_has_waited_longest() {
    let mut bulkhead = Bulkhead::new();
    let runs = admitted(bulkhead.enter(1, 2));
    let first = queued(bulkhead.enter(1, 2));
    let second = queued(bulkhead.enter(1, 2));
    assert_eq!(bulkhead.enter(1, 2), Entered::Full);
    assert_eq!(bulkhead.leave(runs, 1), Some(first));
    assert!(!bulkhead.waits(first) && bulkhead.waits(second));
    assert_eq!(bulkhead.leave(first, 1), Some(second));
}

#[test]
fn whoever_gives_up_waiting_leaves_the_queue_and_takes_no_place() {
    let mut bulkhead = Bulkhead::new();
    let runs = admitted(bulkhead.enter(1, 2));
    let gone = queued(bulkhead.enter(1, 2));
    let stays = queued(bulkhead.enter(1, 2));
    assert_eq!(bulkhead.leave(gone, 1), None);
    assert_eq!((bulkhead.running(), bulkhead.waiting()), (1, 1));
    assert_eq!(bulkhead.leave(runs, 1), Some(stays));
}

#[test]
fn a_queue_takes_all_up_to_its_bound_and_none_beyond_and_no_wait_is_too_short_for_a_free_place() {
    let mut bulkhead = Bulkhead::new();
    admitted(bulkhead.enter(1, 3));
    for _ in 0..3 {
        queued(bulkhead.enter(1, 3));
    }
    assert_eq!((bulkhead.enter(1, 3), bulkhead.waiting()), (Entered::Full, 3));
    let mut process = Process::new(vec![self::bulkhead(2, 1, Some(Duration::from_nanos(1)))]);
    process.hold_one();
    assert_eq!((process.call(|_| does(OK)), process.now), (Finish::Value, at(0)));
}

#[test]
fn nobody_overtakes_the_queue() {
    let mut bulkhead = Bulkhead::new();
    let runs = admitted(bulkhead.enter(1, 1));
    let waits = queued(bulkhead.enter(1, 1));
    assert_eq!(bulkhead.leave(runs, 1), Some(waits));
    // The place is the waiter's, although it has not woken up yet.
    assert!(matches!(bulkhead.enter(1, 1), Entered::Queued(_)));
}

#[test]
fn a_grown_bound_admits_those_who_wait_and_a_shrunk_one_lets_those_run_that_do() {
    let mut bulkhead = Bulkhead::new();
    let first = admitted(bulkhead.enter(2, 2));
    let second = admitted(bulkhead.enter(2, 2));
    let third = queued(bulkhead.enter(2, 2));
    assert_eq!(bulkhead.resize(3), [third]);
    assert_eq!(bulkhead.resize(1), []);
    assert_eq!(bulkhead.running(), 3);
    bulkhead.leave(first, 1);
    bulkhead.leave(second, 1);
    assert_eq!(bulkhead.enter(1, 0), Entered::Full);
    bulkhead.leave(third, 1);
    admitted(bulkhead.enter(1, 0));
}

#[test]
fn a_place_comes_back_after_success_failure_timeout_and_a_dropped_call() {
    let mut process = Process::new(vec![timeout(100), bulkhead(1, 0, None)]);
    for _ in 0..3 {
        assert_eq!(process.call(|_| does(OK)), Finish::Value);
        assert_eq!(process.call(|_| does(FAILED)), Finish::Value);
        assert_eq!(process.call(|_| slow(OK, 200)), Finish::Timeout { stage: 0 });
        process.drop_during_attempt();
    }
}

#[test]
fn a_retry_around_a_full_bulkhead_tries_nothing_unless_it_is_asked_to() {
    let mut process = Process::new(vec![retry(7, 0), bulkhead(1, 0, None)]);
    process.hold_one();
    assert_eq!(process.call(|_| does(OK)), Finish::Rejected { stage: 1, reason: RejectionReason::Full });
    assert_eq!(process.executed, 0);
}

#[test]
fn whoever_waits_too_long_is_refused_with_that_reason() {
    let mut process = Process::new(vec![bulkhead(1, 1, Some(ms(20)))]);
    process.hold_one();
    let finish = process.call(|_| does(OK));
    assert_eq!(finish, Finish::Rejected { stage: 0, reason: RejectionReason::WaitedTooLong });
    assert_eq!(process.now, at(20));
    // Its place in the queue is free again.
    assert_eq!(process.call(|_| does(OK)), finish);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(BulkheadSpec::try_new(0, 0, None).is_err());
    assert!(BulkheadSpec::try_new(1, 0, Some(ms(10))).is_err());
    assert!(BulkheadSpec::try_new(1, 1, Some(Duration::ZERO)).is_err());
}
