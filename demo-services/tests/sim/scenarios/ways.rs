//! Ways of a policy that most stories do not go: ramps, zones that follow each other, breakers that only watch, other modes.

use std::time::Duration;

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::fleet::CoordinationMode;
use fusebox_proto::{sync::v1::sync_response::Message as Down, v1};

use super::{NAMES, POLICY, down, fleet, millis, openings, secs, some_trouble, ten, verdicts};
use crate::{
    faults::Fault,
    history::What,
    replica::{LOOK_EVERY, Replica},
    seeds,
    target::Health,
    world::{LEASE, PLANE, Run, Scenario, Terms},
};

fn with_ramp() -> String {
    POLICY.replace("halfOpen: { probes: 3 }", "halfOpen: { probes: 3 }\n        ramp: 12s")
}

/// The outage of stories with a ramp: it is over when the fleet first probes, some 3 s after it has begun. The ramp then takes 12 s at least.
const OUTAGE: (Duration, Duration) = (secs(3), secs(5));

#[test]
fn a_target_that_falls_again_in_its_ramp_is_held_again_before_it_is_released() {
    let make = |rng: &mut fastrand::Rng| {
        let (again, how) = (millis(rng, 8_000, 12_000), some_trouble(rng));
        let well_again = again + secs(14);
        let script = move |at, _: &Replica| match at {
            _ if at >= OUTAGE.0 && at < OUTAGE.1 => Health::Failing,
            _ if at >= again && at < well_again => how,
            _ => Health::Well,
        };
        // Enough calls that a twentieth of them tells how the target is.
        let mut scenario = Scenario::new(ten(), &with_ramp()).script(script);
        scenario.calm = well_again;
        scenario.settles_within = Some(secs(60));
        scenario
    };
    seeds::run(2, make, |run| {
        let mut states: Vec<v1::FleetState> = verdicts(run).into_iter().map(|(_, state)| state).collect();
        states.dedup();
        let back = states.windows(2).any(|pair| pair == [v1::FleetState::Ramp, v1::FleetState::Open]);
        assert!(back, "what fails in its ramp is open again: {states:?}");
        let ended = states.windows(2).any(|pair| pair == [v1::FleetState::Ramp, v1::FleetState::Released]);
        assert!(ended, "what is well in its ramp is released: {states:?}");
        let skipped = states.windows(2).any(|pair| pair == [v1::FleetState::HalfOpen, v1::FleetState::Released]);
        assert!(!skipped, "nothing is released but by a ramp: {states:?}");
    });
}

/// Nothing would prove its next step while the successor learns. Each replica's own breaker probes then.
#[test]
fn a_ramp_ends_with_its_leases_when_the_control_plane_restarts_and_opens_nothing() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), &with_ramp()).script(down(Health::Failing, OUTAGE.0, OUTAGE.1));
        let crash = millis(rng, 8_000, 14_000);
        scenario.faults = vec![(crash, Fault::Crash(PLANE)), (crash + millis(rng, 50, 1_500), Fault::Bounce(PLANE))];
        scenario.calm = crash + secs(2);
        scenario.settles_within = Some(secs(60));
        scenario
    };
    seeds::run(2, make, |run| {
        let (crash, _) = run.faults()[0];
        assert_eq!(run.shown_at("a-1", crash).fleet, FleetState::Ramp, "it ramps when the control plane crashes");
        let states: Vec<_> = verdicts(run).into_iter().filter(|(at, _)| *at > crash).map(|(_, state)| state).collect();
        assert!(!states.contains(&v1::FleetState::Open), "service B is well: {states:?}");
        for name in NAMES {
            let shown = run.shown(name);
            let held = shown.iter().find(|(at, shown)| *at > crash + LEASE + LOOK_EVERY * 2 && shown.is_held());
            assert!(held.is_none(), "{name} obeys what a run that crashed at {crash:?} had said: {held:?}");
        }
    });
}

/// A zone that has seen too little to say anything opens when two others have.
#[test]
fn a_quiet_zone_follows_two_that_have_opened_and_comes_back_by_its_own_probes() {
    let make = |rng: &mut fastrand::Rng| {
        let replicas = vec![
            Replica::busy("a-1").in_zone("z1"),
            Replica::busy("a-2").in_zone("z1"),
            Replica::busy("a-3").in_zone("z2"),
            Replica::busy("a-4").in_zone("z2"),
            Replica::idle("a-5").in_zone("z3"),
            Replica::busy("a-6").every(2_000).in_zone("z3"),
        ];
        let (from, length) = (millis(rng, 5_000, 7_000), millis(rng, 3_000, 8_000));
        let mut scenario = Scenario::new(replicas, &POLICY.replace("scope: fleet", "scope: zone")).script(down(
            some_trouble(rng),
            from,
            from + length,
        ));
        scenario.calm = from + length;
        // Its few calls are all that can show that the target is back.
        scenario.settles_within = Some(secs(180));
        scenario
    };
    seeds::run(2, make, |run| {
        let first = |name: &str| {
            let open = run.shown(name).into_iter().find(|(_, shown)| shown.fleet == FleetState::Open);
            open.unwrap_or_else(|| panic!("{name} is never open")).0
        };
        let follows = first("a-5");
        for name in ["a-1", "a-3"] {
            let leads = first(name);
            assert!(follows + LOOK_EVERY * 3 >= leads, "a-5 opens at {follows:?}, {name} at {leads:?}");
        }
        let why = run.events.iter().any(|event| {
            matches!(&event.what, What::Heard { replica, message } if replica == "a-5"
                && matches!(&message.message, Some(Down::Verdict(verdict))
                    if verdict.reason.contains("zones with voters are open")))
        });
        assert!(why, "it is told why");
    });
}

#[test]
fn a_breaker_in_shadow_lets_every_call_pass_whatever_the_fleet_says() {
    let make = |rng: &mut fastrand::Rng| {
        let (from, length) = (millis(rng, 3_000, 5_000), millis(rng, 4_000, 9_000));
        let policy = POLICY.replace("halfOpen: { probes: 3 }", "halfOpen: { probes: 3 }\n        mode: shadow");
        let mut scenario = Scenario::new(fleet(), &policy).script(down(some_trouble(rng), from, from + length));
        scenario.terms = Terms { shadow: true, ..Terms::default() };
        scenario.calm = from + length;
        scenario
    };
    seeds::run(1, make, |run| {
        for name in NAMES {
            assert!(run.ever(name, FleetState::Open), "{name} shows what the fleet says");
            assert!(run.shown(name).iter().all(|(_, shown)| !shown.refuses), "{name} refuses nothing");
        }
        let refused = run.events.iter().find(|event| matches!(event.what, What::Refused { .. }));
        assert!(refused.is_none(), "a call is refused: {refused:?}");
    });
}

fn in_mode(rng: &mut fastrand::Rng, mode: CoordinationMode) -> Scenario {
    let (from, length) = (millis(rng, 1_500, 2_500), millis(rng, 6_000, 9_000));
    let policy = POLICY.replace("mode: balanced", &format!("mode: {}", mode.name()));
    let policy = match mode {
        // Who trips after five failures in a row has most of a window that went well.
        CoordinationMode::Pooled => policy.replace(", consecutiveFailures: 5", ""),
        CoordinationMode::Any => policy.replace("scope: fleet", "scope: zone, acknowledgeSingleWitness: true"),
        CoordinationMode::Balanced | CoordinationMode::Quorum | CoordinationMode::Local => policy,
    };
    let mut scenario = Scenario::new(fleet(), &policy).script(down(Health::Failing, from, from + length));
    scenario.terms = Terms { mode, ..Terms::default() };
    scenario.calm = from + length;
    scenario
}

/// Why the fleet opened, each time.
fn reasons(run: &Run) -> Vec<&str> {
    let mut found: Vec<&str> = run
        .events
        .iter()
        .filter_map(|event| {
            let What::Issued { message, .. } = &event.what else { return None };
            let Some(Down::Verdict(verdict)) = &message.message else { return None };
            (verdict.state() == v1::FleetState::Open).then_some(verdict.reason.as_str())
        })
        .collect();
    found.dedup();
    found
}

#[test]
fn in_mode_quorum_votes_open_the_fleet() {
    seeds::run(
        1,
        |rng| in_mode(rng, CoordinationMode::Quorum),
        |run| {
            let reasons = reasons(run);
            assert!(reasons.first().is_some_and(|why| why.contains("eligible replicas are open")), "{reasons:?}");
        },
    );
}

#[test]
fn in_mode_pooled_the_sum_of_all_windows_opens_the_fleet() {
    seeds::run(
        1,
        |rng| in_mode(rng, CoordinationMode::Pooled),
        |run| {
            let reasons = reasons(run);
            assert!(reasons.first().is_some_and(|why| why.contains("pooled calls")), "{reasons:?}");
        },
    );
}

/// One replica is enough, and those who see for themselves that the target is well do not obey.
#[test]
fn in_mode_any_one_replica_whose_target_answers_with_failures_opens_the_fleet() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = in_mode(rng, CoordinationMode::Any);
        let (from, until) = (secs(4), scenario.calm);
        scenario = scenario.script(move |at, asks| {
            if asks.name == "a-1" && at >= from && at < until { Health::Failing } else { Health::Well }
        });
        scenario
    };
    seeds::run(1, make, |run| {
        assert!(!openings(run).is_empty(), "one replica opens the fleet");
        assert!(run.ever("a-4", FleetState::Open), "who has seen nothing obeys");
        let (well, all) = run.calls("a-2");
        assert!(well == all && all > 20, "a-2 sees that the target is well: {well} of {all}");
    });
}
