//! Hedges: when a further try begins, and which one counts.

use std::time::Duration;

use fusebox_policy::{
    condition::Class,
    hedge::{HedgeDelay, HedgeInput, HedgeRun, HedgeSpec, Latencies, Quantile, Race},
};

use crate::driver::{at, ms};

#[test]
fn further_tries_begin_one_delay_apart_up_to_the_limit() {
    let mut run = HedgeRun::start(Some(ms(10)), 2, at(0));
    assert_eq!(run.next_start(), Some(at(10)));
    assert_eq!(run.begin(at(10)), 1);
    assert_eq!(run.next_start(), Some(at(20)));
    assert_eq!(run.begin(at(21)), 2);
    assert_eq!(run.next_start(), None);
    assert_eq!(run.started(), 3);
}

#[test]
fn without_a_delay_all_begin_at_once() {
    let mut run = HedgeRun::start(Some(Duration::ZERO), 3, at(5));
    while run.next_start() == Some(at(5)) {
        run.begin(at(5));
    }
    assert_eq!(run.started(), 4);
}

#[test]
fn the_first_that_is_no_failure_wins() {
    let mut run = HedgeRun::start(Some(ms(10)), 2, at(0));
    run.begin(at(10));
    assert_eq!(run.ended(Class::Failure), Race::GoesOn);
    assert_eq!(run.ended(Class::Success), Race::Won);
}

#[test]
fn when_all_that_run_have_failed_the_race_is_over() {
    let mut run = HedgeRun::start(Some(ms(10)), 2, at(0));
    assert_eq!(run.ended(Class::Failure), Race::Lost, "nothing else runs: another try is a retry's business");
    let mut run = HedgeRun::start(Some(ms(10)), 1, at(0));
    run.begin(at(10));
    assert_eq!(run.ended(Class::Failure), Race::GoesOn);
    assert_eq!(run.ended(Class::Failure), Race::Lost);
}

#[test]
fn a_call_that_may_not_be_made_twice_is_never_hedged() {
    assert_eq!(HedgeRun::start(None, 5, at(0)).next_start(), None);
}

#[test]
fn a_used_up_budget_means_no_hedge_and_no_error() {
    let mut run = HedgeRun::start(Some(ms(10)), 2, at(0));
    run.give_up_starting();
    assert_eq!(run.next_start(), None);
    assert_eq!(run.ended(Class::Success), Race::Won);
}

#[test]
fn a_quantile_is_that_of_the_calls_seen() {
    let mut latencies = Latencies::default();
    assert_eq!(latencies.quantile(950_000), None);
    for millis in 1..=100 {
        latencies.record(ms(millis));
    }
    let p95 = latencies.quantile(950_000).unwrap();
    assert!(p95 >= ms(95) && p95 <= ms(102), "{p95:?}");
    assert_eq!(latencies.calls(), 100);
}

#[test]
fn settings_that_make_no_sense_are_refused() {
    assert!(Quantile::try_new(0.1, 100).is_err());
    assert!(Quantile::try_new(1.0, 100).is_err());
    assert!(Quantile::try_new(0.95, 0).is_err());
    let hedge = |max_hedges| {
        let delay = HedgeDelay::Fixed(ms(10));
        HedgeSpec::try_new(HedgeInput {
            delay,
            max_hedges,
            budget: None,
            failure_when: None,
            ignore_when: Default::default(),
        })
    };
    assert!(hedge(0).is_err());
    assert!(hedge(11).is_err());
    assert!(hedge(1).is_ok());
}
