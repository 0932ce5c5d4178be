//! Throttles: what the target refuses is not sent in the first place, the least important first.

use std::time::Duration;

use fusebox_policy::{
    Draw, Outcome,
    condition::Class,
    outcome::RejectionReason,
    pipeline::{Finish, StrategySpec},
    throttle::{Priority, Throttle, ThrottleInput, ThrottleSpec},
};

use crate::driver::{Process, at, does};

fn spec(multiplier: f64, min_calls: u32, max_rejection_percent: u32) -> ThrottleSpec {
    let input = ThrottleInput { multiplier, min_calls, max_rejection_percent, ..ThrottleInput::default() };
    ThrottleSpec::try_new(input).unwrap()
}

fn seen(spec: &ThrottleSpec, accepted: u32, refused: u32) -> Throttle {
    let mut throttle = Throttle::new();
    for _ in 0..accepted {
        throttle.leave(spec, Class::Success, at(0));
    }
    for _ in 0..refused {
        throttle.leave(spec, Class::Failure, at(0));
    }
    throttle
}

#[test]
fn the_rejection_rate_is_that_of_the_book() {
    let half = spec(2.0, 0, 100);
    assert_eq!(seen(&half, 0, 1).rejection_rate(&half, at(0)), 0.5);
    assert_eq!(Throttle::new().rejection_rate(&half, at(0)), 0.0);
    let nine_tenths = spec(1.0 / 0.9, 0, 100);
    let rate = seen(&nine_tenths, 90, 30).rejection_rate(&nine_tenths, at(0));
    assert!((rate - 20.0 / 121.0).abs() < 1e-4, "{rate}");
}

#[test]
fn it_never_refuses_more_than_its_maximum_nor_below_its_least_number_of_calls() {
    let capped = spec(2.0, 0, 80);
    assert_eq!(seen(&capped, 10, 990).rejection_rate(&capped, at(0)), 0.8);
    let patient = spec(2.0, 20, 100);
    assert_eq!(seen(&patient, 0, 19).rejection_rate(&patient, at(0)), 0.0);
    assert!(seen(&patient, 0, 20).rejection_rate(&patient, at(0)) > 0.9);
}

#[test]
fn calls_that_it_refuses_are_not_counted_as_requests() {
    let spec = spec(2.0, 0, 100);
    let mut throttle = seen(&spec, 0, 9);
    let before = throttle.rejection_rate(&spec, at(0));
    for _ in 0..100 {
        assert!(!throttle.enter(&spec, Priority::Normal, at(0), Draw::ZERO));
    }
    assert_eq!(throttle.rejection_rate(&spec, at(0)), before);
}

#[test]
fn the_window_forgets() {
    let spec = spec(2.0, 0, 100);
    let throttle = seen(&spec, 0, 9);
    assert_eq!(throttle.rejection_rate(&spec, at(0).plus(spec.window() + Duration::from_secs(12))), 0.0);
}

#[test]
fn the_least_important_calls_are_refused_first() {
    let spec = spec(1.0, 0, 100);
    // A third of the calls is to be refused, and half of them are of low priority.
    let mut throttle = seen(&spec, 66, 33);
    let mut refused = [0; 4];
    for turn in 0_u32..4000 {
        let priority = if turn.is_multiple_of(2) { Priority::Low } else { Priority::High };
        let draw = Draw::new(f64::from(turn * 7919 % 4000) / 4000.0);
        refused[priority as usize] += u32::from(!throttle.enter(&spec, priority, at(0), draw));
    }
    assert_eq!(refused[Priority::High as usize], 0, "{refused:?}");
    assert!((1200..1450).contains(&refused[Priority::Low as usize]), "two thirds of them: {refused:?}");
}

#[test]
fn critical_calls_are_refused_only_after_all_others() {
    let spec = spec(1.0, 0, 100);
    let mut throttle = seen(&spec, 10, 90);
    let mut refused = 0;
    for _ in 0..100 {
        throttle.enter(&spec, Priority::Normal, at(0), Draw::HALF);
    }
    for _ in 0..5 {
        refused += u32::from(!throttle.enter(&spec, Priority::Critical, at(0), Draw::ZERO));
    }
    assert_eq!(refused, 0);
}

#[test]
fn overload_throttles_and_other_failures_do_not() {
    let strategy = || StrategySpec::Throttle(spec(2.0, 0, 100));
    let mut process = Process::new(vec![strategy()]);
    assert_eq!(process.call(|_| does(Outcome::status(503))), Finish::Value);
    let rejected = Finish::Rejected { stage: 0, reason: RejectionReason::Throttled };
    assert_eq!(process.call(|_| does(Outcome::status(503))), rejected);
    let mut process = Process::new(vec![strategy()]);
    for _ in 0..10 {
        assert_eq!(process.call(|_| does(Outcome::status(500))), Finish::Value);
    }
}
