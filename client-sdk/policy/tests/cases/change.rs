//! New settings for a breaker that is in use.

use fusebox_policy::{
    Draw, Revision, StrategyName,
    breaker::{Breaker, BreakerInput, Cause, HalfOpenSpec, LocalState, WindowSpec},
    condition::Class,
    fleet::gate::{Gate, GateEffect},
    pipeline::{PipelineSpec, StrategySpec},
};

use crate::{
    breaker_closed::result,
    driver::{at, breaker, breaker_input, breaker_spec, ms, retry},
};

#[test]
fn an_equal_definition_touches_nothing() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(2)));
    result(&mut breaker, Class::Failure, 0);
    let before = breaker.clone();
    breaker.apply(breaker_spec(breaker_input(2)));
    assert_eq!(breaker, before);
    result(&mut breaker, Class::Failure, 100);
    let open = breaker.clone();
    breaker.apply(breaker_spec(breaker_input(2)));
    assert_eq!((breaker.half_open_in(at(600)), breaker), (Some(ms(4500)), open));
}

#[test]
fn a_half_open_breaker_whose_probes_are_cut_down_is_judged_at_the_next_result() {
    let probes = |probes, successes| {
        let half_open = HalfOpenSpec { probes, concurrent_probes: 1, successes, max_duration: None };
        breaker_spec(BreakerInput { half_open, ..breaker_input(1) })
    };
    for (class, end) in [(Class::Success, LocalState::Closed), (Class::Failure, LocalState::Open)] {
        let mut breaker = Breaker::new(probes(5, 5));
        result(&mut breaker, Class::Failure, 0);
        breaker.advance(at(5000), Draw::ZERO);
        for _ in 0..3 {
            result(&mut breaker, Class::Success, 5000);
        }
        breaker.apply(probes(2, 2));
        assert_eq!(breaker.state(), LocalState::HalfOpen, "applying decides nothing");
        let probe = breaker.try_acquire(at(5000), Draw::ZERO).expect("somebody must bring the next result");
        assert!(breaker.try_acquire(at(5000), Draw::ZERO).is_err());
        breaker.abandon(probe);
        result(&mut breaker, class, 5000);
        assert_eq!(breaker.state(), end);
    }
}

#[test]
fn new_thresholds_keep_statistics_and_are_judged_at_the_next_result() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(10)));
    for _ in 0..5 {
        result(&mut breaker, Class::Failure, 0);
    }
    breaker.apply(breaker_spec(breaker_input(3)));
    assert_eq!(breaker.state(), LocalState::Closed, "applying never trips");
    assert!(result(&mut breaker, Class::Failure, 0).is_some());
}

#[test]
fn an_open_breaker_keeps_the_lesser_of_old_and_new_remaining_time() {
    for (delay, expected) in [(1000, 500), (60_000, 4500)] {
        let mut breaker = Breaker::new(breaker_spec(breaker_input(1)));
        result(&mut breaker, Class::Failure, 0);
        breaker.apply(breaker_spec(BreakerInput { delay: ms(delay), ..breaker_input(1) }));
        assert_eq!(breaker.half_open_in(at(500)), Some(ms(expected)));
    }
}

#[test]
fn another_window_keeps_the_state_and_starts_statistics_afresh() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(3)));
    result(&mut breaker, Class::Failure, 0);
    breaker.apply(breaker_spec(BreakerInput { window: WindowSpec::Count(7), ..breaker_input(3) }));
    assert_eq!(breaker.counts(at(0)).calls, 0);
}

#[test]
fn a_running_call_reports_into_the_same_breaker_after_a_change() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(2)));
    let running = breaker.try_acquire(at(0), Draw::ZERO).unwrap();
    breaker.apply(breaker_spec(breaker_input(1)));
    let ending = crate::breaker_closed::ending(Class::Failure, ms(0));
    assert!(breaker.record(running, &ending, at(0), Draw::ZERO).is_some());
}

#[test]
fn a_renamed_strategy_is_the_one_before_where_that_is_beyond_doubt() {
    let named = |strategies: &[(&str, StrategySpec)]| {
        let name = |text: &str| Some(StrategyName::try_new(text).unwrap());
        PipelineSpec::try_new(strategies.iter().map(|(text, spec)| (name(text), spec.clone())).collect()).unwrap()
    };
    let (own, other) = (breaker(1), breaker(2));
    let before = named(&[("a", own.clone()), ("r", retry(2, 0)), ("b", other.clone())]);
    let former = |after: &PipelineSpec| -> Vec<_> {
        (0..after.strategies().len()).map(|index| after.former_index(index, &before)).collect()
    };
    let moved = named(&[("r", retry(3, 0)), ("b", other.clone()), ("a", own.clone())]);
    assert_eq!(former(&moved), [Some(1), Some(2), Some(0)]);
    let renamed = named(&[("x", own.clone()), ("r", retry(2, 0)), ("b", other.clone())]);
    assert_eq!(former(&renamed), [Some(0), Some(1), Some(2)]);
    let both = named(&[("x", own.clone()), ("y", other.clone())]);
    assert_eq!(former(&both), [Some(0), Some(2)]);
    let one_more = named(&[("x", own.clone()), ("y", other.clone()), ("z", other)]);
    assert_eq!(former(&one_more), [None, None, None]);
    let other_kind = named(&[("a", retry(2, 0)), ("b", own)]);
    assert_eq!(former(&other_kind), [Some(1), Some(2)]);
}

#[test]
fn reset_starts_fresh_when_the_definition_differs() {
    let mut gate = Gate::new(breaker_spec(breaker_input(1)), Revision(1));
    let (pass, _) = gate.try_acquire(at(0), Draw::ZERO);
    gate.record(pass.unwrap(), &crate::breaker_closed::ending(Class::Failure, ms(0)), at(0), Draw::ZERO);
    assert_eq!(gate.local_state(), LocalState::Open);
    assert!(gate.apply_spec(breaker_spec(breaker_input(1)), Revision(2), true, at(0), Draw::ZERO).is_empty());
    let effects = gate.apply_spec(breaker_spec(breaker_input(2)), Revision(3), true, at(0), Draw::ZERO);
    assert!(matches!(&effects[..], [GateEffect::Transition(transition)] if transition.cause == Cause::PolicyChange));
    assert_eq!(gate.local_state(), LocalState::Closed);
}
