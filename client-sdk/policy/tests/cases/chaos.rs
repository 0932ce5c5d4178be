//! Trouble on purpose: how much, of which kind, and until when.

use std::time::Duration;

use fusebox_policy::{
    Draw, Outcome,
    chaos::{Chaos, ChaosSpec, Fault, Trouble, UnixTime},
    outcome::ErrorKind,
    pipeline::{Finish, StrategySpec},
};

use crate::driver::{OK, Process, at, breaker, does, fallback, ms};

const LATER: UnixTime = UnixTime(2_000_000_000);

fn chaos(percent: f64, latency: Duration, fault: Option<Fault>) -> StrategySpec {
    StrategySpec::Chaos(ChaosSpec::try_new(percent, latency, fault, LATER).unwrap())
}

#[test]
fn it_strikes_as_often_as_it_says_and_not_after_its_end() {
    let spec = ChaosSpec::try_new(25.0, ms(5), None, LATER).unwrap();
    let chaos = Chaos::new(at(1000));
    assert_eq!(chaos.strike(&spec, at(0), Draw::new(0.249)), Some(Trouble { latency: ms(5), fault: None }));
    assert_eq!(chaos.strike(&spec, at(0), Draw::new(0.25)), None);
    assert_eq!(chaos.strike(&spec, at(999), Draw::ZERO), Some(Trouble { latency: ms(5), fault: None }));
    assert_eq!(chaos.strike(&spec, at(1000), Draw::ZERO), None);
}

#[test]
fn a_fault_stands_for_the_call_and_strategies_around_it_see_it() {
    let mut process = Process::new(vec![breaker(1), chaos(100.0, Duration::ZERO, Some(Fault::Status(503)))]);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!(process.executed, 0);
    assert_eq!(process.local_state(), fusebox_policy::breaker::LocalState::Open);
}

#[test]
fn latency_comes_before_the_call_or_before_the_fault() {
    let mut process = Process::new(vec![chaos(100.0, ms(50), None)]);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!((process.executed, process.now), (1, at(50)));
    let mut process = Process::new(vec![fallback(), chaos(100.0, ms(50), Some(Fault::Error(ErrorKind::Connect)))]);
    assert_eq!(process.call(|_| does(OK)), Finish::Value);
    assert_eq!((process.executed, process.now), (0, at(50)));
    let replaced = process.events.borrow().iter().any(|event| {
        matches!(
            event,
            fusebox_policy::pipeline::Event::FallbackExecuted { after: Outcome::Error(ErrorKind::Connect), .. }
        )
    });
    assert!(replaced);
}

#[test]
fn chaos_without_trouble_or_end_is_refused() {
    assert!(ChaosSpec::try_new(0.0, ms(5), None, LATER).is_err());
    assert!(ChaosSpec::try_new(101.0, ms(5), None, LATER).is_err());
    assert!(ChaosSpec::try_new(5.0, Duration::ZERO, None, LATER).is_err());
    assert!(ChaosSpec::try_new(5.0, ms(5), None, UnixTime(0)).is_err());
    assert!(ChaosSpec::try_new(5.0, ms(5), Some(Fault::Status(99)), LATER).is_err());
}
