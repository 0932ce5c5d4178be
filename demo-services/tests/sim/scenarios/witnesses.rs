//! Who is believed: liars, the lost, and those who are heard twice.

use std::{sync::Arc, time::Duration};

use fusebox_policy::fleet::invariants as check;
use fusebox_proto::{
    sync::v1::{self as sync, SyncRequest, sync_request::Message as Up},
    v1,
};

use super::{NAMES, NEVER, POLICY, TEN, down, fleet, millis, openings, secs, ten, two_sick, verdicts};
use crate::{
    faults::Fault,
    relay::Meddler,
    replica::Replica,
    seeds,
    target::Health,
    world::{self, PLANE, Scenario},
};

fn windows(message: &mut SyncRequest) -> Vec<&mut sync::BreakerWindow> {
    match &mut message.message {
        Some(Up::Heartbeat(heartbeat)) => heartbeat.windows.iter_mut().collect(),
        Some(Up::Transition(transition)) => transition.window.iter_mut().collect(),
        Some(Up::CanvassAnswer(answer)) => answer.window.iter_mut().collect(),
        _ => Vec::new(),
    }
}

/// Until then all are honest, so that each replica has seen enough for itself.
const HONEST: Duration = secs(6);

/// Says that every call has failed, whatever has happened.
fn slanders() -> Meddler {
    let up = |mut message: SyncRequest| {
        if turmoil::elapsed() < HONEST {
            return vec![message];
        }
        for window in windows(&mut message) {
            window.calls = window.calls.max(50);
            window.failures = window.calls;
            window.own_trip = true;
            window.vetoed = false;
            window.local_state = v1::LocalState::Open.into();
            window.causes = Some(sync::CauseCounts { target_error: window.calls, ..sync::CauseCounts::default() });
        }
        vec![message]
    };
    Meddler { up: Box::new(up), ..Meddler::default() }
}

/// Ten replicas, of which the first so many lie.
fn with_liars(liars: usize) -> Scenario {
    let mut scenario = Scenario::new(ten(), POLICY);
    let lies = |name: &str| TEN.iter().position(|own| *own == name);
    scenario.meddle =
        Some(Arc::new(move |replica| lies(replica.name).is_some_and(|place| place < liars).then(slanders)));
    scenario.calm = secs(25);
    scenario.settles_within = None;
    scenario
}

#[test]
fn fewer_liars_than_the_quorum_never_open_the_fleet() {
    // Of ten replicas three must see it.
    seeds::run(
        1,
        |rng| with_liars(rng.usize(1..=2)),
        |run| {
            assert_eq!(openings(run), NEVER);
            for name in TEN {
                let (well, all) = run.calls(name);
                assert!(well == all && all > 50, "{name}: {well} of {all}");
            }
        },
    );
}

#[test]
fn liars_at_the_quorum_or_above_stop_nobody_who_sees_for_himself() {
    seeds::run(
        1,
        |rng| with_liars(rng.usize(4..=6)),
        |run| {
            assert_ne!(openings(run), NEVER, "that many would open the fleet");
            for name in TEN {
                let (well, all) = run.calls(name);
                assert!(well * 100 >= all * 99 && all > 50, "{name}: {well} of {all}");
            }
        },
    );
}

/// Whether the fleet is released while service B is down.
fn released(run: &world::Run, from: Duration, until: Duration) -> bool {
    verdicts(run).iter().any(|(at, state)| *state == v1::FleetState::Released && *at > from && *at < until)
}

const DOWN: (Duration, Duration) = (secs(3), secs(20));

fn outage_with(meddler: fn() -> Meddler, who: &'static str) -> Scenario {
    let replicas = NAMES.iter().map(|name| Replica::busy(name)).collect();
    let mut scenario = Scenario::new(replicas, POLICY).script(down(Health::Failing, DOWN.0, DOWN.1));
    scenario.meddle = Some(Arc::new(move |replica| (replica.name == who).then(meddler)));
    scenario.calm = DOWN.1;
    scenario
}

#[test]
fn one_replica_that_lies_about_its_probes_does_not_close_the_fleet() {
    let lies = || {
        let up = |mut message: SyncRequest| {
            if let Some(Up::ProbeOutcome(outcome)) = &mut message.message {
                outcome.set_result(sync::probe_outcome::Result::Success);
            }
            vec![message]
        };
        Meddler { up: Box::new(up), ..Meddler::default() }
    };
    seeds::run(
        1,
        |rng| outage_with(lies, rng.choice(NAMES).expect("there are some")),
        |run| assert!(!released(run, DOWN.0, DOWN.1), "one replica's word has closed the fleet"),
    );
}

#[test]
fn forged_outcomes_of_probes_count_for_nothing() {
    let forges = || {
        let mut told = 0;
        let up = move |message: SyncRequest| {
            let mut messages = Vec::new();
            if let Some(Up::Heartbeat(heartbeat)) = &message.message {
                for window in &heartbeat.windows {
                    told += 1;
                    // Numbers that others may hold, in the present term.
                    messages.push(SyncRequest {
                        message: Some(Up::ProbeOutcome(sync::ProbeOutcome {
                            key: window.key.clone(),
                            id: told,
                            term: window.held_term,
                            result: sync::probe_outcome::Result::Success.into(),
                        })),
                    });
                }
            }
            messages.insert(0, message);
            messages
        };
        Meddler { up: Box::new(up), ..Meddler::default() }
    };
    seeds::run(
        1,
        |rng| {
            let mut scenario = outage_with(forges, rng.choice(NAMES).expect("there are some"));
            // It reports the outcome of other replicas' permits: the history can't tell whose they are.
            scenario.judged = false;
            scenario
        },
        |run| assert!(!released(run, DOWN.0, DOWN.1), "forged outcomes have closed the fleet"),
    );
}

#[test]
fn losing_members_alone_opens_nothing() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(ten(), POLICY).script(two_sick);
        let at = millis(rng, 10_000, 12_000);
        // As many as a rolling deployment may take within a lease, or more.
        for name in &TEN[rng.usize(5..=6)..] {
            scenario.faults.push((at + millis(rng, 0, 300), Fault::Crash(name)));
        }
        scenario.calm = at + secs(10);
        scenario.settles_within = None;
        scenario
    };
    seeds::run(1, make, |run| assert_eq!(openings(run), NEVER));
}

/// Heartbeats, transitions and answers come twice, and the second time after what was said later.
fn repeats() -> Meddler {
    let mut before: Option<SyncRequest> = None;
    let up = move |message: SyncRequest| {
        let report = matches!(message.message, Some(Up::Heartbeat(_) | Up::Transition(_) | Up::CanvassAnswer(_)));
        let again = report.then(|| before.replace(message.clone())).flatten();
        let mut passes = vec![message.clone()];
        passes.extend(again);
        if report {
            passes.push(message);
        }
        passes
    };
    // A verdict, a permit and an answer to a heartbeat too.
    let down = |message| vec![Clone::clone(&message), message];
    Meddler { up: Box::new(up), down: Box::new(down) }
}

fn states(run: &world::Run) -> Vec<v1::FleetState> {
    let mut states: Vec<_> = verdicts(run).into_iter().map(|(_, state)| state).collect();
    states.dedup();
    states
}

#[test]
fn reports_that_come_twice_and_out_of_order_lead_to_the_same_decisions() {
    let make = |rng: &mut fastrand::Rng| {
        let from = millis(rng, 2_000, 4_000);
        // Over before the first probe, and seen by all: no luck decides.
        let replicas = NAMES.iter().map(|name| Replica::busy(name)).collect();
        let mut scenario = Scenario::new(replicas, POLICY).script(down(Health::Failing, from, from + secs(2)));
        scenario.calm = from + secs(4);
        scenario.meddle = Some(Arc::new(|_| Some(Meddler::default())));
        scenario
    };
    let make_repeated = |rng: &mut fastrand::Rng| {
        let mut scenario = make(rng);
        scenario.meddle = Some(Arc::new(|_| Some(repeats())));
        scenario
    };
    seeds::run(1, make_repeated, |run| {
        let clean = world::run(run.seed, make(&mut fastrand::Rng::with_seed(run.seed)));
        let (once, twice) = (states(&clean), states(run));
        assert!(check::s12_idempotence(&once, &twice), "{once:?} is not {twice:?}");
    });
}

#[test]
fn one_sick_replica_that_is_heard_twice_is_one_witness() {
    let make = |rng: &mut fastrand::Rng| {
        let sick = *rng.choice(&NAMES[..3]).expect("there are some");
        let bad = move |_, asks: &Replica| if asks.name == sick { Health::Failing } else { Health::Well };
        let mut scenario = Scenario::new(fleet(), POLICY).script(bad);
        scenario.meddle = Some(Arc::new(|_| Some(repeats())));
        // Its stream is cut, and comes back as another one.
        let at = millis(rng, 6_000, 9_000);
        scenario.faults = vec![(at, Fault::Crash(sick)), (at + millis(rng, 20, 2_000), Fault::Bounce(sick))];
        scenario.faults.push((at, Fault::Slow(PLANE, "relay-a-2", Duration::from_millis(400))));
        scenario.calm = secs(25);
        scenario.settles_within = None;
        scenario
    };
    seeds::run(1, make, |run| assert_eq!(openings(run), NEVER));
}
