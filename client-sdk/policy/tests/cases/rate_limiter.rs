//! Rate limiters: when a call may begin, and what a turn that is not used is worth.

use std::time::Duration;

use fusebox_policy::{
    Timestamp,
    outcome::RejectionReason,
    pipeline::{Finish, StrategySpec},
    rate_limiter::{RateLimiter, RateLimiterInput, RateLimiterSpec, RateScope, Reserved},
    retry::{RetryInput, RetrySpec},
};

use crate::driver::{OK, Process, at, does, ms, retry, retry_input};

fn input(limit: u32, period: u64) -> RateLimiterInput {
    RateLimiterInput { limit, period: ms(period), ..RateLimiterInput::default() }
}

fn smooth(limit: u32, period: u64, max_wait: u64) -> RateLimiterSpec {
    RateLimiterSpec::try_new(RateLimiterInput { max_wait: ms(max_wait), ..input(limit, period) }).unwrap()
}

fn burst(limit: u32, period: u64, burst: u32) -> RateLimiterSpec {
    RateLimiterSpec::try_new(RateLimiterInput { burst, ..input(limit, period) }).unwrap()
}

/// How long a caller waits for its turn.
fn wait(limiter: &mut RateLimiter, spec: &RateLimiterSpec, now: Timestamp) -> Duration {
    match limiter.reserve(spec, now) {
        Reserved::Turn(turn) => now.until(turn),
        Reserved::Exceeded { retry_after } => panic!("refused, retry after {retry_after:?}"),
    }
}

#[test]
fn smooth_turns_come_one_interval_apart() {
    let spec = smooth(1, 500, 60_000);
    let mut limiter = RateLimiter::new();
    let waits: Vec<_> = (0..7).map(|_| wait(&mut limiter, &spec, at(0)).as_millis()).collect();
    assert_eq!(waits, [0, 500, 1000, 1500, 2000, 2500, 3000]);
    assert_eq!(limiter.wait(&spec, at(0)), Some(ms(3500)));
    let last = (0..3).map(|_| wait(&mut limiter, &spec, at(800))).last().unwrap();
    assert_eq!(last, ms(3700));
    let last = (0..3).map(|_| wait(&mut limiter, &spec, at(9100))).last().unwrap();
    assert_eq!(last, ms(1000));
    assert_eq!(wait(&mut limiter, &spec, at(11_000)), Duration::ZERO);
}

#[test]
fn a_bucket_gives_its_tokens_at_once_and_then_one_per_interval() {
    let spec = burst(10, 1000, 3);
    let mut limiter = RateLimiter::new();
    for _ in 0..3 {
        assert_eq!(limiter.reserve(&spec, at(5)), Reserved::Turn(at(5)));
    }
    assert_eq!(limiter.reserve(&spec, at(5)), Reserved::Exceeded { retry_after: ms(100) });
    assert_eq!(limiter.reserve(&spec, at(105)), Reserved::Turn(at(105)));
    assert_eq!(limiter.reserve(&spec, at(105)), Reserved::Exceeded { retry_after: ms(100) });
    // A rest fills the bucket, and no more than that.
    for _ in 0..3 {
        assert!(matches!(limiter.reserve(&spec, at(60_000)), Reserved::Turn(_)));
    }
    assert!(matches!(limiter.reserve(&spec, at(60_000)), Reserved::Exceeded { .. }));
}

#[test]
fn turns_are_reserved_ahead_up_to_the_longest_wait_and_no_further() {
    let spec = RateLimiterSpec::try_new(RateLimiterInput { burst: 3, max_wait: ms(12), ..input(3, 10) }).unwrap();
    let mut limiter = RateLimiter::new();
    let waits: Vec<_> = (0..9)
        .map(|nanos| {
            let now = Timestamp::from_nanos(nanos);
            match limiter.reserve(&spec, now) {
                Reserved::Turn(turn) => Some(now.until(turn).as_nanos()),
                Reserved::Exceeded { .. } => None,
            }
        })
        .collect();
    let third = 3_333_333;
    let ahead = [Some(third - 3), Some(2 * third - 4), Some(3 * third - 5)];
    assert_eq!(waits[..3], [Some(0); 3]);
    assert_eq!(waits[3..6], ahead);
    assert_eq!(waits[6..], [None; 3]);
}

#[test]
fn a_wait_longer_than_allowed_is_refused_with_the_time_of_the_next_turn() {
    let spec = smooth(1, 1000, 1500);
    let mut limiter = RateLimiter::new();
    assert_eq!(wait(&mut limiter, &spec, at(0)), ms(0));
    assert_eq!(wait(&mut limiter, &spec, at(0)), ms(1000));
    assert_eq!(limiter.reserve(&spec, at(0)), Reserved::Exceeded { retry_after: ms(2000) });
}

#[test]
fn the_last_turn_given_back_is_handed_out_again() {
    let spec = smooth(1, 1000, 10_000);
    let mut limiter = RateLimiter::new();
    wait(&mut limiter, &spec, at(0));
    wait(&mut limiter, &spec, at(0));
    limiter.give_back(&spec, at(1000), at(10));
    assert_eq!(wait(&mut limiter, &spec, at(10)), ms(990));
}

#[test]
fn a_turn_in_the_middle_given_back_goes_to_the_next_caller_at_its_own_time() {
    let spec = smooth(1, 1000, 10_000);
    let mut limiter = RateLimiter::new();
    for _ in 0..4 {
        wait(&mut limiter, &spec, at(0));
    }
    limiter.give_back(&spec, at(1000), at(100));
    assert_eq!(wait(&mut limiter, &spec, at(100)), ms(900));
    assert_eq!(wait(&mut limiter, &spec, at(100)), ms(3900));
}

#[test]
fn a_turn_given_back_that_nobody_took_in_time_is_gone() {
    let spec = smooth(1, 1000, 10_000);
    let mut limiter = RateLimiter::new();
    for _ in 0..4 {
        wait(&mut limiter, &spec, at(0));
    }
    limiter.give_back(&spec, at(1000), at(100));
    assert_eq!(wait(&mut limiter, &spec, at(1500)), ms(2500));
}

#[test]
fn a_doubled_limit_keeps_the_turns_that_are_reserved() {
    let spec = smooth(1, 1000, 10_000);
    let mut limiter = RateLimiter::new();
    wait(&mut limiter, &spec, at(0));
    wait(&mut limiter, &spec, at(0));
    let doubled = smooth(2, 1000, 10_000);
    assert_eq!(wait(&mut limiter, &doubled, at(0)), ms(2000), "reserved turns stay where they are");
    assert_eq!(wait(&mut limiter, &doubled, at(0)), ms(2500), "and new ones come at the new rate");
}

#[test]
fn a_share_divides_the_limit_and_no_share_lets_nothing_pass() {
    let spec = smooth(10, 1000, 10_000);
    let mut limiter = RateLimiter::new();
    limiter.set_share(&spec, 500_000, at(0));
    wait(&mut limiter, &spec, at(0));
    assert_eq!(wait(&mut limiter, &spec, at(0)), ms(200));
    limiter.set_share(&spec, 0, at(0));
    assert!(matches!(limiter.reserve(&spec, at(0)), Reserved::Exceeded { .. }));
}

#[test]
fn a_share_has_its_part_of_the_burst_and_at_least_one_call() {
    let spec = burst(300, 1000, 30);
    for (ppm, tokens) in [(1_000_000, 30), (500_000, 15), (100_000, 3), (10_000, 1), (1, 1)] {
        let mut limiter = RateLimiter::new();
        limiter.set_share(&spec, ppm, at(0));
        assert_eq!(limiter.available(&spec, at(0)), tokens, "{ppm}");
        let passed = (0..40).filter(|_| matches!(limiter.reserve(&spec, at(0)), Reserved::Turn(_))).count();
        assert_eq!(passed, tokens as usize, "{ppm}");
        assert_eq!(limiter.available(&spec, at(0)), 0, "{ppm}");
    }
}

#[test]
fn a_changed_share_makes_no_tokens() {
    let spec = burst(300, 1000, 30);
    let mut limiter = RateLimiter::new();
    limiter.set_share(&spec, 100_000, at(0));
    limiter.set_share(&spec, 1_000_000, at(0));
    assert_eq!(limiter.available(&spec, at(0)), 3, "those of before");
    assert_eq!(limiter.available(&spec, at(10)), 6, "and as many as come in ten milliseconds");
    for _ in 0..3 {
        limiter.reserve(&spec, at(0));
    }
    limiter.set_share(&spec, 100_000, at(0));
    assert_eq!(limiter.available(&spec, at(0)), 0);
    limiter.set_share(&spec, 1_000_000, at(0));
    assert_eq!(limiter.available(&spec, at(0)), 0);
}

#[test]
fn a_grown_share_ends_the_wait_that_a_small_one_made() {
    let spec = smooth(10, 1000, 0);
    let mut limiter = RateLimiter::new();
    limiter.set_share(&spec, 1000, at(0));
    wait(&mut limiter, &spec, at(0));
    assert_eq!(limiter.reserve(&spec, at(0)), Reserved::Exceeded { retry_after: ms(100_000) });
    limiter.set_share(&spec, 500_000, at(0));
    assert_eq!(limiter.reserve(&spec, at(0)), Reserved::Exceeded { retry_after: ms(200) });
}

#[test]
fn nobody_overtakes_those_who_wait_when_a_share_grows() {
    let spec = smooth(10, 1000, 60_000);
    let mut limiter = RateLimiter::new();
    limiter.set_share(&spec, 100_000, at(0));
    let waits: Vec<_> = (0..3).map(|_| wait(&mut limiter, &spec, at(0))).collect();
    assert_eq!(waits, [ms(0), ms(1000), ms(2000)]);
    limiter.set_share(&spec, 1_000_000, at(0));
    assert_eq!(wait(&mut limiter, &spec, at(0)), ms(2100));
}

#[test]
fn every_turn_that_is_asked_for_is_demand() {
    let spec = smooth(1, 1000, 1000);
    let mut limiter = RateLimiter::new();
    for _ in 0..5 {
        limiter.reserve(&spec, at(0));
    }
    assert_eq!((limiter.take_wanted(), limiter.take_wanted()), (5, 0), "one passed, one waits, three were refused");
}

#[test]
fn a_retry_around_a_limiter_runs_as_often_as_the_limiter_lets_it() {
    let limiter = StrategySpec::RateLimiter(burst(3, 60_000, 3));
    let mut process = Process::new(vec![retry(7, 0), limiter.clone()]);
    let finish = process.call(|_| does(crate::driver::FAILED));
    assert!(
        matches!(finish, Finish::Rejected { stage: 1, reason: RejectionReason::RateExceeded { .. } }),
        "{finish:?}"
    );
    assert_eq!(process.executed, 3);
}

#[test]
fn a_call_waits_for_its_turn_and_gives_it_back_when_it_is_dropped() {
    let spec = StrategySpec::RateLimiter(smooth(1, 1000, 5000));
    let mut process = Process::new(vec![spec]);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    process.drop_while_waiting();
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!(process.waits, [ms(1000)]);
}

#[test]
fn a_retry_that_waits_for_rejections_waits_for_the_turn() {
    let waits = RetrySpec::try_new(RetryInput { wait_for_breaker: true, ..retry_input(3, 0) }).unwrap();
    let mut process = Process::new(vec![StrategySpec::Retry(waits), StrategySpec::RateLimiter(smooth(1, 1000, 0))]);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!(process.waits, [ms(1000)]);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    for bad in [
        input(0, 1000),
        input(1, 0),
        RateLimiterInput { burst: 0, ..input(1, 1000) },
        RateLimiterInput { burst: 5, ..input(4, 1000) },
        RateLimiterInput { limit: 10, period: Duration::from_nanos(5), ..input(1, 1) },
    ] {
        assert!(RateLimiterSpec::try_new(bad.clone()).is_err(), "{bad:?}");
    }
    assert_eq!(smooth(1, 1000, 0).scope(), RateScope::Instance);
    let shared = RateLimiterInput { burst: 4, scope: RateScope::Fleet, ..input(4, 1000) };
    assert_eq!(RateLimiterSpec::try_new(shared).unwrap().scope(), RateScope::Fleet);
}
