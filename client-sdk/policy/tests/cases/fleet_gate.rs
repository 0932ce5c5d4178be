//! One replica's breaker under the fleet's word.

use std::time::Duration;

use fusebox_policy::{
    Draw, Revision, Timestamp,
    breaker::{BreakerInput, BreakerMode, Cause, LocalState},
    condition::Class,
    fleet::{
        gate::{Forced, Gate, GateEffect, ProbeId},
        held::{Fence, HeldPermit, Override, Taken, Verdict},
        shared::{FleetState, ProbeResult},
    },
    outcome::RejectionReason,
};

use crate::{
    breaker_closed::ending,
    driver::{at, breaker_input, breaker_spec, ms},
};

fn gate() -> Gate {
    Gate::new(breaker_spec(breaker_input(1)), Revision(1))
}

fn verdict(state: FleetState, rev: u64) -> Verdict {
    Verdict {
        fence: Fence { term: 1, rev },
        state,
        admit_permille: 0,
        expires: at(15_000),
        policy_revision: Revision(1),
        half_open_at: Some(at(5000)),
        reason: String::new(),
    }
}

fn permit(id: u64, rev: u64, expires: u64) -> HeldPermit {
    HeldPermit { id, fence: Fence { term: 1, rev }, expires: at(expires) }
}

fn refusal(gate: &mut Gate, now: Timestamp) -> Option<RejectionReason> {
    match gate.try_acquire(now, Draw::ZERO).0 {
        Ok(pass) => {
            gate.abandon(pass);
            None
        }
        Err(reason) => Some(reason),
    }
}

fn fail_once(gate: &mut Gate, millis: u64) {
    let pass = gate.try_acquire(at(millis), Draw::ZERO).0.unwrap();
    gate.record(pass, &ending(Class::Failure, Duration::ZERO), at(millis), Draw::ZERO);
}

#[test]
fn a_quiet_replica_refuses_when_the_fleet_is_open() {
    let mut gate = gate();
    assert!(gate.apply_verdict(verdict(FleetState::Open, 1), at(0)).0);
    assert_eq!(refusal(&mut gate, at(1000)), Some(RejectionReason::FleetOpen { retry_after: Some(ms(4000)) }));
    assert_eq!((gate.local_state(), gate.fleet_state()), (LocalState::Closed, FleetState::Open));
    assert_eq!(gate.half_open_in(at(1000)), Some(ms(4000)));
    assert!(gate.admission(at(1000)).abs() < f64::EPSILON);
}

#[test]
fn older_void_and_foreign_verdicts_are_dropped() {
    let mut gate = gate();
    gate.apply_verdict(verdict(FleetState::Open, 5), at(0));
    for wrong in [
        verdict(FleetState::Released, 5),
        verdict(FleetState::Released, 4),
        Verdict { fence: Fence { term: 0, rev: 99 }, ..verdict(FleetState::Released, 1) },
        Verdict { policy_revision: Revision(2), ..verdict(FleetState::Released, 6) },
        Verdict { expires: at(10), ..verdict(FleetState::Released, 6) },
    ] {
        assert!(!gate.apply_verdict(wrong, at(10)).0);
    }
    assert_eq!(gate.fleet_state(), FleetState::Open);
    let next_term = Verdict { fence: Fence { term: 2, rev: 1 }, ..verdict(FleetState::Released, 1) };
    assert!(gate.apply_verdict(next_term, at(10)).0);
}

#[test]
fn while_the_fleet_holds_the_own_clock_lets_nothing_pass() {
    let mut gate = gate();
    fail_once(&mut gate, 0);
    gate.apply_verdict(verdict(FleetState::Open, 1), at(0));
    assert!(matches!(refusal(&mut gate, at(6000)), Some(RejectionReason::FleetOpen { .. })));
    assert_eq!(gate.local_state(), LocalState::Open);
}

#[test]
fn half_open_admits_one_call_per_permit_and_reports_it() {
    let mut gate = gate();
    fail_once(&mut gate, 0);
    gate.apply_verdict(verdict(FleetState::HalfOpen, 2), at(100));
    assert_eq!(refusal(&mut gate, at(100)), Some(RejectionReason::FleetHalfOpen));
    assert_eq!(gate.add_permit(permit(7, 2, 3000), at(100)), Taken::Held);
    assert_eq!(gate.add_permit(permit(7, 2, 3000), at(100)), Taken::Again, "the same permit again is no second one");
    let (pass, effects) = gate.try_acquire(at(200), Draw::ZERO);
    assert!(matches!(&effects[..], [GateEffect::Transition(t)] if t.to == LocalState::HalfOpen));
    assert_eq!(refusal(&mut gate, at(200)), Some(RejectionReason::FleetHalfOpen));
    let effects = gate.record(pass.unwrap(), &ending(Class::Success, ms(1)), at(201), Draw::ZERO);
    assert_eq!(effects, [GateEffect::Probe(ProbeId { term: 1, id: 7 }, ProbeResult::Success)]);
}

#[test]
fn a_dropped_or_unused_permit_goes_back() {
    let mut gate = gate();
    gate.apply_verdict(verdict(FleetState::HalfOpen, 2), at(0));
    gate.add_permit(permit(1, 2, 3000), at(0));
    let pass = gate.try_acquire(at(0), Draw::ZERO).0.unwrap();
    let back = |id| [GateEffect::Probe(ProbeId { term: 1, id }, ProbeResult::Inconclusive)];
    assert_eq!(gate.abandon(pass), back(1));
    gate.add_permit(permit(2, 2, 3000), at(0));
    assert_eq!(gate.next_deadline(), Some(at(3000)));
    assert_eq!(gate.tick(at(3000), Draw::ZERO), back(2));
    assert_eq!(gate.add_permit(permit(3, 2, 3000), at(3000)), Taken::Refused, "late");
    assert_eq!(gate.add_permit(permit(4, 1, 9000), at(3000)), Taken::Refused, "of another verdict");
}

/// Found by the model: a copy of a permit that a call has used let a second call pass, and one of a permit in use gave that back.
#[test]
fn a_permit_that_comes_again_neither_admits_a_second_call_nor_goes_back() {
    let mut gate = gate();
    gate.apply_verdict(verdict(FleetState::HalfOpen, 2), at(0));
    assert_eq!(gate.add_permit(permit(7, 2, 3000), at(0)), Taken::Held);
    let pass = gate.try_acquire(at(1), Draw::ZERO).0.unwrap();
    assert_eq!(gate.add_permit(permit(7, 2, 3000), at(1)), Taken::Again, "in use");
    gate.record(pass, &ending(Class::Success, ms(1)), at(2), Draw::ZERO);
    assert_eq!(gate.add_permit(permit(7, 2, 3000), at(2)), Taken::Again, "used");
    assert_eq!(refusal(&mut gate, at(2)), Some(RejectionReason::FleetHalfOpen));
    assert_eq!(gate.add_permit(permit(8, 2, 3000), at(2)), Taken::Held, "a new one is another one");
}

#[test]
fn a_verdict_that_has_lapsed_holds_again_when_it_is_told_again() {
    let mut gate = gate();
    gate.apply_verdict(Verdict { expires: at(1000), ..verdict(FleetState::Open, 2) }, at(0));
    assert!(!gate.apply_verdict(verdict(FleetState::Open, 2), at(500)).0, "it holds");
    gate.tick(at(1000), Draw::ZERO);
    assert!(!gate.apply_verdict(verdict(FleetState::Open, 1), at(1000)).0, "an older one");
    assert!(gate.apply_verdict(verdict(FleetState::Open, 2), at(1000)).0);
    assert_eq!(gate.fleet_state(), FleetState::Open);
}

/// Found by the model: heartbeats went on renewing a verdict about the policy that a replica ran on, and nobody could end it.
#[test]
fn a_replica_that_can_not_use_the_newer_policy_decides_alone() {
    let mut gate = gate();
    gate.apply_verdict(verdict(FleetState::HalfOpen, 2), at(0));
    gate.add_permit(permit(7, 2, 3000), at(0));
    let effects = gate.fall_behind(at(1), Draw::HALF);
    assert_eq!(effects[0], GateEffect::Probe(ProbeId { term: 1, id: 7 }, ProbeResult::Inconclusive));
    assert!(matches!(effects[1], GateEffect::Transition(own) if own.cause == Cause::Decay), "not all at once");
    gate.renew(1, 9, at(20_000), at(2));
    assert_eq!(gate.fleet_state(), FleetState::Released);
    assert!(!gate.apply_verdict(verdict(FleetState::Open, 3), at(2)).0, "it was on its way when the policy changed");
    gate.apply_spec(breaker_spec(breaker_input(1)), Revision(2), false, at(3), Draw::ZERO);
    let newer = Verdict { policy_revision: Revision(2), ..verdict(FleetState::Open, 4) };
    assert!(gate.apply_verdict(newer, at(3)).0);
}

#[test]
fn release_closes_all_together() {
    let mut gate = gate();
    fail_once(&mut gate, 0);
    gate.apply_verdict(verdict(FleetState::Open, 1), at(0));
    let (_, effects) = gate.apply_verdict(verdict(FleetState::Released, 2), at(1000));
    assert!(
        matches!(&effects[..], [GateEffect::Transition(t)] if t.to == LocalState::Closed && t.cause == Cause::Fleet)
    );
    assert_eq!(refusal(&mut gate, at(1000)), None);
}

#[test]
fn a_first_verdict_of_release_does_not_lift_an_own_opening() {
    let mut gate = gate();
    fail_once(&mut gate, 0);
    assert!(gate.apply_verdict(verdict(FleetState::Released, 1), at(10)).1.is_empty());
    assert_eq!(gate.local_state(), LocalState::Open);
}

#[test]
fn a_lease_that_ends_leaves_the_own_breaker_and_not_an_open_door() {
    let mut gate = gate();
    gate.apply_verdict(verdict(FleetState::Open, 1), at(0));
    gate.renew(1, 1, at(20_000), at(0));
    gate.renew(2, 9, at(90_000), at(0));
    assert!(gate.tick(at(19_999), Draw::HALF).is_empty());
    let effects = gate.tick(at(20_000), Draw::HALF);
    assert!(matches!(&effects[..], [GateEffect::Transition(t)] if t.cause == Cause::Decay));
    assert_eq!(gate.fleet_state(), FleetState::Released);
    assert_eq!(gate.half_open_in(at(20_000)), Some(ms(2500)), "a random part of the delay");
    gate.tick(at(22_500), Draw::ZERO);
    assert_eq!(gate.local_state(), LocalState::HalfOpen);
}

#[test]
fn a_process_that_slept_past_a_lease_does_not_get_it_renewed() {
    let mut gate = gate();
    gate.apply_verdict(verdict(FleetState::Open, 1), at(0));
    gate.renew(1, 1, at(40_000), at(15_000));
    gate.tick(at(15_001), Draw::ZERO);
    assert_eq!(gate.fleet_state(), FleetState::Released);
}

#[test]
fn a_shadowed_breaker_refuses_nothing_and_takes_part_in_probes_all_the_same() {
    let input = BreakerInput { mode: BreakerMode::Shadow, ..breaker_input(1) };
    let mut gate = Gate::new(breaker_spec(input), Revision(1));
    for (state, rev) in [(FleetState::Open, 1), (FleetState::HalfOpen, 2), (FleetState::Ramp, 3)] {
        gate.apply_verdict(verdict(state, rev), at(0));
        assert_eq!(refusal(&mut gate, at(100)), None, "{state}");
        assert!((gate.admission(at(100)) - 1.0).abs() < f64::EPSILON, "{state}");
        assert_eq!(gate.report(at(100)).rejected, 1, "what would be refused in {state} is demand");
    }
    gate.apply_verdict(verdict(FleetState::HalfOpen, 4), at(100));
    gate.add_permit(permit(7, 4, 3000), at(100));
    let pass = gate.try_acquire(at(200), Draw::ZERO).0.unwrap();
    let effects = gate.record(pass, &ending(Class::Success, ms(1)), at(201), Draw::ZERO);
    assert_eq!(effects, [GateEffect::Probe(ProbeId { term: 1, id: 7 }, ProbeResult::Success)]);
}

#[test]
fn an_override_is_above_everything_and_ends_by_itself() {
    let mut gate = gate();
    gate.set_override(Some(Override { effect: Forced::Open, until: at(60_000), reason: "drill".to_owned() }));
    gate.apply_verdict(verdict(FleetState::Released, 1), at(0));
    assert_eq!(refusal(&mut gate, at(1000)), Some(RejectionReason::ForcedOpen { retry_after: Some(ms(59_000)) }));
    assert_eq!(refusal(&mut gate, at(60_000)), None);

    fail_once(&mut gate, 60_000);
    gate.set_override(Some(Override { effect: Forced::Closed, until: at(70_000), reason: "trust me".to_owned() }));
    assert_eq!(refusal(&mut gate, at(60_001)), None);
    assert_eq!(gate.local_state(), LocalState::Open, "what is needed to come back is kept");
    gate.set_override(None);
    assert!(refusal(&mut gate, at(60_002)).is_some());
}

#[test]
fn a_changed_policy_voids_the_verdict() {
    let mut gate = gate();
    gate.apply_verdict(verdict(FleetState::Open, 1), at(0));
    let effects = gate.apply_spec(breaker_spec(breaker_input(2)), Revision(2), false, at(100), Draw::ZERO);
    assert!(matches!(&effects[..], [GateEffect::Transition(t)] if t.cause == Cause::Decay));
    assert_eq!(gate.fleet_state(), FleetState::Released);
}

#[test]
fn under_another_key_it_knows_what_it_has_seen_and_nothing_of_what_the_fleet_said() {
    let mut gate = gate();
    gate.report(at(0));
    gate.apply_verdict(verdict(FleetState::HalfOpen, 9), at(0));
    gate.add_permit(permit(7, 9, 3000), at(0));
    let effects = gate.rekey(at(100), Draw::HALF);
    assert_eq!(effects[0], GateEffect::Probe(ProbeId { term: 1, id: 7 }, ProbeResult::Inconclusive));
    assert!(matches!(&effects[1..], [GateEffect::Transition(t)] if t.cause == Cause::Decay), "no open door");
    assert!(gate.wants_report(), "the server must learn of it");
    let first = verdict(FleetState::Open, 1);
    assert!(gate.apply_verdict(first, at(200)).0, "the other key's verdicts have their own order");
}

#[test]
fn refusals_are_demand_until_they_are_reported() {
    let mut gate = gate();
    assert!(gate.wants_report(), "a new one announces itself");
    gate.report(at(0));
    assert!(!gate.wants_report());
    gate.apply_verdict(verdict(FleetState::Open, 1), at(0));
    refusal(&mut gate, at(0));
    refusal(&mut gate, at(0));
    assert_eq!(gate.report(at(0)).rejected, 2);
    assert_eq!(gate.report(at(0)).rejected, 0);
}
