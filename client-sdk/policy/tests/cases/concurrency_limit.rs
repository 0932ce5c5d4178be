//! Adaptive limits: a rising latency means a queue, and a queue means fewer calls.

use std::time::Duration;

use fusebox_policy::{
    concurrency_limit::{AdaptiveLimit, ConcurrencyLimitInput, ConcurrencyLimitSpec},
    condition::Class,
    outcome::RejectionReason,
    pipeline::{Finish, StrategySpec},
};

use crate::driver::{OK, Process, at, does, ms};

fn spec(initial: u32, min: u32, max: u32) -> ConcurrencyLimitSpec {
    ConcurrencyLimitSpec::try_new(ConcurrencyLimitInput { initial, min, max, ..ConcurrencyLimitInput::default() })
        .unwrap()
}

/// Lets as many calls run as may; ten of them, which make a sample, take so long.
fn sample(limit: &mut AdaptiveLimit, spec: &ConcurrencyLimitSpec, took: Duration) {
    while limit.enter() {}
    for _ in 0..10 {
        limit.leave(spec, Class::Success, took, at(0));
    }
    while limit.in_flight() > 0 {
        limit.abandon();
    }
}

/// A limit of 20 that knows a baseline of one second.
fn twenty(spec: &ConcurrencyLimitSpec) -> AdaptiveLimit {
    let mut limit = AdaptiveLimit::new(spec);
    sample(&mut limit, spec, ms(1000));
    limit
}

#[test]
fn a_latency_at_the_baseline_raises_the_limit_and_a_doubled_one_lowers_it() {
    let spec = spec(19, 1, 200);
    let mut limit = twenty(&spec);
    assert_eq!(limit.limit(), 20);
    let mut faster = limit.clone();
    sample(&mut faster, &spec, ms(500));
    assert_eq!(faster.limit(), 21);
    assert_eq!(faster.baseline(), Some(ms(500)));
    let mut steady = limit.clone();
    sample(&mut steady, &spec, ms(1300));
    assert_eq!(steady.limit(), 20);
    sample(&mut limit, &spec, ms(2000));
    assert_eq!(limit.limit(), 19);
    sample(&mut limit, &spec, ms(2000));
    assert_eq!(limit.limit(), 18);
}

#[test]
fn it_stays_within_floor_and_ceiling() {
    let spec = spec(10, 8, 12);
    let mut limit = AdaptiveLimit::new(&spec);
    for _ in 0..50 {
        sample(&mut limit, &spec, ms(10));
    }
    assert_eq!(limit.limit(), 12);
    for _ in 0..50 {
        for _ in 0..4 {
            limit.enter();
        }
        for _ in 0..4 {
            limit.leave(&spec, Class::Failure, ms(10), at(0));
        }
        limit.enter();
        limit.leave(&spec, Class::Failure, ms(10), at(5000));
    }
    assert_eq!(limit.limit(), 8);
}

#[test]
fn a_limit_that_is_not_used_does_not_grow() {
    let spec = spec(100, 1, 200);
    let mut limit = AdaptiveLimit::new(&spec);
    for _ in 0..100 {
        limit.enter();
        limit.leave(&spec, Class::Success, ms(10), at(0));
    }
    assert_eq!(limit.limit(), 100);
}

#[test]
fn overload_lowers_it_by_a_tenth_whatever_the_latency() {
    let spec = spec(100, 1, 200);
    let mut limit = AdaptiveLimit::new(&spec);
    for _ in 0..10 {
        limit.enter();
    }
    limit.leave(&spec, Class::Failure, ms(1), at(0));
    for _ in 0..9 {
        limit.leave(&spec, Class::Success, ms(1), at(0));
    }
    limit.enter();
    limit.leave(&spec, Class::Success, ms(1), at(0));
    assert_eq!(limit.limit(), 90);
}

#[test]
fn a_call_beyond_the_limit_is_refused_and_a_dropped_one_gives_its_place_back() {
    let spec = StrategySpec::ConcurrencyLimit(spec(1, 1, 1));
    let mut process = Process::new(vec![spec]);
    process.drop_during_attempt();
    process.hold_one();
    let finish = process.call(|_| does(OK));
    assert_eq!(finish, Finish::Rejected { stage: 0, reason: RejectionReason::ConcurrencyLimit });
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    let input = |initial, min, max| ConcurrencyLimitInput { initial, min, max, ..ConcurrencyLimitInput::default() };
    for (initial, min, max) in [(5, 0, 10), (5, 6, 10), (11, 1, 10), (5, 10, 1), (5, 1, 1_000_000)] {
        assert!(ConcurrencyLimitSpec::try_new(input(initial, min, max)).is_err(), "{initial} {min} {max}");
    }
}
