//! An open breaker: how long, and what it refuses.

use std::time::Duration;

use fusebox_policy::{
    Draw, Revision,
    breaker::{Breaker, BreakerInput, Ending, LocalState},
    condition::Class,
    fleet::gate::{Gate, GateEffect},
    outcome::{RejectionReason, RetryHint},
};

use crate::{
    breaker_closed::{ending, result},
    driver::{FAILED, at, breaker_input, breaker_spec, ms},
};

fn opened(input: BreakerInput) -> Breaker {
    let mut breaker = Breaker::new(breaker_spec(input));
    result(&mut breaker, Class::Failure, 0).expect("one failure trips");
    breaker
}

fn refused(breaker: &mut Breaker, millis: u64) -> Option<RejectionReason> {
    breaker.advance(at(millis), Draw::ZERO);
    match breaker.try_acquire(at(millis), Draw::ZERO) {
        Ok(permit) => {
            breaker.abandon(permit);
            None
        }
        Err(reason) => Some(reason),
    }
}

#[test]
fn it_refuses_until_exactly_its_delay_has_elapsed() {
    let mut breaker = opened(breaker_input(1));
    assert_eq!(refused(&mut breaker, 1), Some(RejectionReason::Open { retry_after: ms(4999) }));
    assert!(refused(&mut breaker, 4999).is_some());
    assert!(refused(&mut breaker, 5000).is_none());
    assert_eq!(breaker.state(), LocalState::HalfOpen);
}

#[test]
fn half_open_shows_without_traffic() {
    let mut breaker = opened(breaker_input(1));
    assert_eq!(breaker.next_deadline(), Some(at(5000)));
    let transition = breaker.advance(at(5000), Draw::ZERO).expect("it is due");
    assert_eq!(transition.to, LocalState::HalfOpen);
    assert_eq!(breaker.advance(at(6000), Draw::ZERO), None, "the same state is no event");
}

#[test]
fn the_remaining_delay_shrinks_and_is_none_when_not_open() {
    let mut breaker = opened(breaker_input(1));
    assert_eq!(breaker.half_open_in(at(0)), Some(ms(5000)));
    assert_eq!(breaker.half_open_in(at(110)), Some(ms(4890)));
    assert_eq!(breaker.half_open_in(at(6000)), Some(ms(0)), "due, and not yet looked at");
    breaker.advance(at(5000), Draw::ZERO);
    assert_eq!(breaker.half_open_in(at(5000)), None);
    assert_eq!(Breaker::new(breaker_spec(breaker_input(1))).half_open_in(at(0)), None);
}

#[test]
fn retry_after_on_the_tripping_outcome_sets_the_delay_up_to_its_cap() {
    for (delay, asked, respect, expected) in [
        (5000, 7, true, 7000),
        (60_000, 7, true, 7000),
        (5000, 600, true, 60_000),
        (5000, 7, false, 5000),
        // "Now" is no time to rest.
        (5000, 0, true, 5000),
    ] {
        let input = BreakerInput { delay: ms(delay), respect_retry_after: respect, ..breaker_input(1) };
        let mut breaker = Breaker::new(breaker_spec(input));
        let permit = breaker.try_acquire(at(0), Draw::ZERO).unwrap();
        let hint = RetryHint::After(Duration::from_secs(asked));
        let ending = Ending { class: Class::Failure, outcome: FAILED, elapsed: Duration::ZERO, hint };
        breaker.record(permit, &ending, at(0), Draw::ZERO);
        assert_eq!(breaker.half_open_in(at(0)), Some(ms(expected)));
    }
}

#[test]
fn the_delay_grows_with_each_opening_without_a_close_and_starts_over_after_one() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(1)));
    let mut now = 0;
    let mut delays = Vec::new();
    for _ in 0..5 {
        breaker.advance(at(now), Draw::ZERO);
        result(&mut breaker, Class::Failure, now);
        let delay = breaker.half_open_in(at(now)).unwrap();
        delays.push(delay.as_secs());
        now += u64::try_from(delay.as_millis()).unwrap();
    }
    assert_eq!(delays, [5, 10, 20, 40, 60]);
    breaker.advance(at(now), Draw::ZERO);
    for _ in 0..3 {
        result(&mut breaker, Class::Success, now);
    }
    assert_eq!(breaker.state(), LocalState::Closed);
    for expected in [5, 10, 20] {
        breaker.advance(at(now), Draw::ZERO);
        result(&mut breaker, Class::Failure, now);
        assert_eq!(breaker.half_open_in(at(now)), Some(Duration::from_secs(expected)));
        now += expected * 1000;
    }
}

#[test]
fn a_long_opening_refuses_to_its_end_and_counts_whom_it_refused() {
    const HOUR: u64 = 3_600_000;
    let spec = breaker_spec(BreakerInput { delay: ms(2 * HOUR), ..breaker_input(1) });
    let mut gate = Gate::new(spec, Revision(1));
    let pass = gate.try_acquire(at(0), Draw::ZERO).0.unwrap();
    gate.record(pass, &ending(Class::Failure, Duration::ZERO), at(0), Draw::ZERO);
    for _ in 0..2 {
        assert!(gate.try_acquire(at(HOUR), Draw::ZERO).0.is_err());
    }
    assert_eq!(gate.report(at(HOUR)).rejected, 2);
    let (pass, effects) = gate.try_acquire(at(2 * HOUR + 1000), Draw::ZERO);
    assert!(matches!(&effects[..], [GateEffect::Transition(t)] if t.to == LocalState::HalfOpen));
    gate.abandon(pass.unwrap());
    assert_eq!(gate.report(at(2 * HOUR + 1000)).rejected, 0);
}

#[test]
fn jitter_only_adds_and_the_cap_holds() {
    let spec = breaker_spec(BreakerInput { delay_jitter: 0.5, delay_max: Some(ms(6000)), ..breaker_input(1) });
    assert_eq!(spec.open_for(0, Draw::ZERO), ms(5000));
    assert_eq!(spec.open_for(0, Draw::new(0.2)), ms(5500));
    assert_eq!(spec.open_for(0, Draw::new(1.0)), ms(6000));
    assert_eq!(spec.open_for(u32::MAX, Draw::ZERO), ms(6000));
}

#[test]
fn an_enormous_delay_saturates() {
    let mut breaker = opened(BreakerInput { delay: Duration::MAX, ..breaker_input(1) });
    assert!(refused(&mut breaker, u64::from(u32::MAX)).is_some());
}

#[test]
fn a_failure_that_arrives_while_open_does_not_extend_it() {
    let mut breaker = Breaker::new(breaker_spec(breaker_input(1)));
    let late = breaker.try_acquire(at(0), Draw::ZERO).unwrap();
    result(&mut breaker, Class::Failure, 0);
    assert_eq!(breaker.record(late, &ending(Class::Failure, ms(0)), at(3000), Draw::ZERO), None);
    assert_eq!(breaker.half_open_in(at(3000)), Some(ms(2000)));
    assert_eq!(breaker.late(), 1);
}
