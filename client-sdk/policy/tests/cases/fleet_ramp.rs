//! The way back in steps.

use fusebox_policy::{
    Draw, Revision,
    breaker::{BreakerInput, LocalState},
    fleet::{
        CoordinationMode,
        coordinator::Effect,
        evidence::Report,
        gate::Gate,
        held::{Fence, Verdict},
        shared::{FleetState, ProbeResult, Settings},
    },
    outcome::RejectionReason,
};

use crate::{
    driver::{at, breaker_input, breaker_spec, ms},
    fleet_driver::{Fleet, causes, permits, settings, verdict},
    fleet_rule::{saw, tripped},
};

/// Probed well at 5 s, ramping since, with steps of 5 s.
fn ramping() -> Fleet {
    let breaker = breaker_spec(BreakerInput { ramp: Some(ms(20_000)), ..breaker_input(5) });
    let mut fleet = Fleet::with(Settings { breaker, ..settings(CoordinationMode::Balanced) });
    fleet.report(0, tripped(5), 0);
    fleet.report(1, tripped(5), 0);
    for number in 0..2 {
        fleet.report(number, Report { rejected: 9, ..tripped(5) }, 4900);
    }
    let mut effects = fleet.tick(5000);
    for _ in 0..3 {
        let permit = permits(&effects)[0];
        effects = fleet.probe(permit, ProbeResult::Success, 5000);
    }
    assert_eq!((verdict(&effects), causes(&effects)), (Some(FleetState::Ramp), vec!["probe_ok"]));
    fleet
}

fn permille(effects: &[Effect]) -> Option<u32> {
    effects.iter().find_map(|effect| match effect {
        Effect::Verdict { decision, .. } => Some(decision.admit_permille),
        Effect::Permit { .. }
        | Effect::Canvass { .. }
        | Effect::Transition { .. }
        | Effect::Held { .. }
        | Effect::Mode { .. } => None,
    })
}

/// Both replicas report such windows.
fn both(fleet: &mut Fleet, report: Report, millis: u64) -> Vec<Effect> {
    let first = fleet.report(0, report, millis);
    let second = fleet.report(1, report, millis);
    if permille(&first).is_some() { first } else { second }
}

#[test]
fn it_climbs_as_long_as_the_calls_go_well_and_ends_released() {
    let mut fleet = ramping();
    for (millis, share) in [(10_000, 100), (15_000, 250), (20_000, 500)] {
        assert_eq!(permille(&both(&mut fleet, saw(10, 1), millis - 1)), None, "the step lasts its time");
        assert_eq!(permille(&fleet.tick(millis)), Some(share));
    }
    both(&mut fleet, saw(10, 1), 24_000);
    let effects = fleet.tick(25_000);
    assert_eq!((verdict(&effects), causes(&effects)), (Some(FleetState::Released), vec!["ramp_done"]));
}

#[test]
fn without_enough_calls_it_waits_for_them() {
    let mut fleet = ramping();
    both(&mut fleet, Report { rejected: 20, ..saw(2, 0) }, 9000);
    assert!(fleet.tick(10_000).is_empty());
    assert_eq!(fleet.coordinator.next_deadline(), None, "only reports can help");
    assert_eq!(permille(&both(&mut fleet, saw(3, 0), 12_000)), Some(100));
}

#[test]
fn a_fleet_that_asks_for_little_goes_on_and_one_that_asks_for_nothing_stays() {
    let mut fleet = ramping();
    assert!(fleet.tick(10_000).is_empty(), "silence is no evidence");
    fleet.report(0, Report { rejected: 2, ..saw(1, 0) }, 11_000);
    assert_eq!(fleet.view(11_000).state, FleetState::Ramp);
    assert_eq!(fleet.coordinator.newest(&fleet.key).unwrap().admit_permille, 100);
}

#[test]
fn a_breach_steps_down_and_a_second_one_in_a_row_opens_again() {
    let mut fleet = ramping();
    both(&mut fleet, saw(10, 0), 9000);
    assert_eq!(permille(&fleet.tick(10_000)), Some(100));
    both(&mut fleet, saw(12, 3), 14_000);
    let effects = fleet.tick(15_000);
    assert_eq!((permille(&effects), causes(&effects)), (Some(50), vec!["ramp_down"]), "a quarter is half of 50 %");
    both(&mut fleet, saw(12, 3), 19_000);
    let effects = fleet.tick(20_000);
    assert_eq!((verdict(&effects), causes(&effects)), (Some(FleetState::Open), vec!["ramp_failed"]));
    assert_eq!(fleet.view(20_000).half_open_in.unwrap(), ms(10_000), "it grows, as after a failed probe");
}

#[test]
fn between_two_breaches_a_good_step_is_forgiveness() {
    let mut fleet = ramping();
    both(&mut fleet, saw(12, 6), 9000);
    assert_eq!(permille(&fleet.tick(10_000)), Some(50), "never below the first step");
    both(&mut fleet, saw(12, 0), 14_000);
    assert_eq!(permille(&fleet.tick(15_000)), Some(100));
    both(&mut fleet, saw(12, 6), 19_000);
    assert_eq!(causes(&fleet.tick(20_000)), ["ramp_down"]);
}

#[test]
fn replicas_that_trip_in_a_ramp_open_it_at_once() {
    let mut fleet = ramping();
    fleet.report(0, tripped(5), 6000);
    let effects = fleet.report(1, tripped(5), 6000);
    assert_eq!((verdict(&effects), causes(&effects)), (Some(FleetState::Open), vec!["ramp_failed"]));
}

#[test]
fn what_was_seen_before_a_step_does_not_count_for_it() {
    let mut fleet = ramping();
    both(&mut fleet, saw(10, 0), 9000);
    assert_eq!(permille(&fleet.tick(10_000)), Some(100));
    assert!(fleet.tick(15_000).is_empty(), "nobody has told what the step brought");
    fleet.report(0, Report { current: false, ..saw(10, 0) }, 15_000);
    assert_eq!(fleet.coordinator.newest(&fleet.key).unwrap().admit_permille, 100);
}

#[test]
fn a_replica_closes_to_count_and_lets_a_share_pass() {
    let mut gate = Gate::new(breaker_spec(breaker_input(1)), Revision(1));
    let told = |state, rev, admit_permille| Verdict {
        fence: Fence { term: 1, rev },
        state,
        admit_permille,
        expires: at(90_000),
        policy_revision: Revision(1),
        half_open_at: None,
        reason: String::new(),
    };
    gate.apply_verdict(told(FleetState::HalfOpen, 1, 0), at(0));
    gate.apply_verdict(told(FleetState::Ramp, 2, 250), at(1));
    assert_eq!(gate.local_state(), LocalState::Closed);
    assert!(gate.try_acquire(at(2), Draw::new(0.249)).0.map(|pass| gate.abandon(pass)).is_ok());
    assert_eq!(gate.try_acquire(at(2), Draw::new(0.25)).0.unwrap_err(), RejectionReason::FleetRamp);
    assert!((gate.admission(at(2)) - 0.25).abs() < 1e-9);
}
