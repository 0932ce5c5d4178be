//! Retries around a breaker whose target is just coming back.

use std::time::Duration;

use fusebox_policy::{
    Revision,
    breaker::{BreakerInput, BreakerSpec, HalfOpenSpec, LocalState},
    fleet::{
        gate::Forced,
        held::{Fence, HeldPermit, Override, Verdict},
        shared::FleetState,
    },
    pipeline::{Event, StrategySpec},
    retry::{RetrySpec, Stop},
};

use crate::driver::{FAILED, OK, Process, at, breaker_input, does, ms, retry, retry_input};

/// Opens after one failure for 5 s; two of three probes close it.
fn breaker() -> BreakerInput {
    let half_open = HalfOpenSpec { probes: 3, successes: 2, ..HalfOpenSpec::default() };
    BreakerInput { half_open, ..breaker_input(1) }
}

fn strategy(input: BreakerInput) -> StrategySpec {
    StrategySpec::CircuitBreaker(BreakerSpec::try_new(input).unwrap())
}

fn last_stop(process: &Process) -> Option<Stop> {
    let stop = |event: &Event| if let Event::RetryStopped { stop, .. } = event { Some(*stop) } else { None };
    process.events.borrow().iter().rev().find_map(stop)
}

/// Attempts of a call that always fails.
fn attempts(process: &mut Process) -> u32 {
    let before = process.executed;
    process.call(|_| does(FAILED));
    process.executed - before
}

fn verdict(state: FleetState, admit_permille: u32) -> Verdict {
    Verdict {
        fence: Fence { term: 1, rev: 1 },
        state,
        admit_permille,
        expires: at(600_000),
        policy_revision: Revision(1),
        half_open_at: None,
        reason: String::new(),
    }
}

#[test]
fn a_failed_probe_is_not_tried_again() {
    let mut process = Process::new(vec![retry(3, 0), strategy(breaker())]);
    attempts(&mut process);
    assert_eq!(process.local_state(), LocalState::Open);
    process.now = at(5000);
    assert_eq!(attempts(&mut process), 1);
    assert_eq!(last_stop(&process), Some(Stop::Recovering));
    assert_eq!(Stop::Recovering.name(), "recovering");
    assert_eq!(process.local_state(), LocalState::HalfOpen, "one more may fail");
}

#[test]
fn while_the_breaker_ramps_up_nothing_is_tried_again_and_afterwards_it_is() {
    let mut input = breaker();
    input.ramp = Some(Duration::from_secs(10));
    input.trip.consecutive_failures = Some(5);
    let mut process = Process::new(vec![retry(3, 0), strategy(input)]);
    attempts(&mut process);
    attempts(&mut process);
    process.now = at(5000);
    process.call(|_| does(OK));
    process.call(|_| does(OK));
    assert_eq!(process.local_state(), LocalState::Closed);
    assert_eq!(attempts(&mut process), 1);
    assert_eq!(last_stop(&process), Some(Stop::Recovering));
    process.now = at(20_000);
    assert_eq!(attempts(&mut process), 3);
}

#[test]
fn what_the_fleet_is_careful_with_is_not_tried_again_either() {
    for (state, permille) in [(FleetState::HalfOpen, 0), (FleetState::Ramp, 500)] {
        let mut input = breaker();
        input.trip.consecutive_failures = Some(9);
        let mut process = Process::new(vec![retry(3, 0), strategy(input)]);
        assert_eq!(attempts(&mut process), 3);
        process.with_gate(|gate| {
            gate.apply_verdict(verdict(state, permille), at(0));
            gate.add_permit(HeldPermit { id: 1, fence: Fence { term: 1, rev: 1 }, expires: at(600_000) }, at(0));
        });
        assert_eq!(attempts(&mut process), 1, "{state:?}");
        assert_eq!(last_stop(&process), Some(Stop::Recovering));
    }
}

#[test]
fn an_override_or_a_veto_leaves_retries_alone() {
    let mut input = breaker();
    input.trip.consecutive_failures = Some(20);
    let mut process = Process::new(vec![retry(3, 0), strategy(input)]);
    for _ in 0..20 {
        process.call(|_| does(OK));
    }
    process.with_gate(|gate| gate.apply_verdict(verdict(FleetState::HalfOpen, 0), at(0)));
    assert_eq!(attempts(&mut process), 3, "its own calls go well");

    let mut process = Process::new(vec![retry(3, 0), strategy(breaker())]);
    process.with_gate(|gate| {
        gate.apply_verdict(verdict(FleetState::HalfOpen, 0), at(0));
        gate.set_override(Some(Override { effect: Forced::Closed, until: at(60_000), reason: String::new() }));
    });
    assert_eq!(attempts(&mut process), 3, "an operator says that all is well");
}

#[test]
fn only_breakers_inside_of_the_retry_are_asked() {
    let mut process = Process::new(vec![strategy(breaker()), retry(3, 0)]);
    attempts(&mut process);
    process.now = at(5000);
    assert_eq!(attempts(&mut process), 3, "the probe is the whole call");
}

#[test]
fn waiting_for_an_open_breaker_is_no_retry_of_what_recovers() {
    let waits = StrategySpec::Retry(
        RetrySpec::try_new(fusebox_policy::retry::RetryInput { wait_for_breaker: true, ..retry_input(3, 0) }).unwrap(),
    );
    let mut process = Process::new(vec![waits, strategy(breaker())]);
    process.call(|attempt| does(if attempt == 1 { FAILED } else { OK }));
    assert_eq!((process.executed, process.waits.as_slice()), (2, [ms(5000)].as_slice()));
}
