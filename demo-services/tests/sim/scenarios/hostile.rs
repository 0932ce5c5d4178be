//! A control plane, or somebody in its place, that means no good.

use std::{sync::Arc, time::Duration};

use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, SyncResponse, sync_response::Message as Down},
    v1,
};

use super::{NAMES, POLICY, down, fleet, secs};
use crate::{history::What, relay::Meddler, seeds, target::Health, world::Scenario};

const STATES: [v1::FleetState; 4] =
    [v1::FleetState::Released, v1::FleetState::Open, v1::FleetState::HalfOpen, v1::FleetState::Ramp];

fn key() -> Option<v1::BreakerKey> {
    Some(v1::BreakerKey {
        namespace: "default".to_owned(),
        caller: "service-a".to_owned(),
        policy: "service-b".to_owned(),
        strategy: "circuit-breaker".to_owned(),
        target: "service-b".to_owned(),
        zone: String::new(),
    })
}

/// Something that a control plane could say, in any order, about the term that it has and others.
fn word(term: u64, seq: u64) -> Down {
    let (rev, anchor_seq) = (fastrand::u64(0..1000), seq.saturating_sub(fastrand::u64(0..3)));
    let term = if fastrand::u8(0..10) == 0 { fastrand::u64(..) } else { term + fastrand::u64(0..3) };
    let lease = Some(to_wire(Duration::from_millis(fastrand::u64(0..60_000))));
    match fastrand::u8(0..6) {
        0..=2 => Down::Verdict(sync::Verdict {
            key: key(),
            term,
            rev,
            state: STATES[fastrand::usize(0..4)].into(),
            admit_permille: fastrand::u32(0..=1000),
            lease,
            anchor_seq,
            policy_revision: fastrand::u64(0..3),
            reason: "so it is".to_owned(),
            half_open_in: lease,
        }),
        3 => Down::ProbePermit(sync::ProbePermit {
            key: key(),
            id: fastrand::u64(0..100),
            term,
            rev,
            ttl: lease,
            anchor_seq,
        }),
        4 => Down::HeartbeatAck(sync::HeartbeatAck { seq: fastrand::u64(0..=seq + 1), term, rev, lease }),
        _ => Down::Canvass(sync::Canvass { id: fastrand::u64(..), key: key() }),
    }
}

/// Until then it is what it should be, so that each replica has seen enough for itself: who has just started obeys what it hears, and a
/// server that lies from the first moment can hold it for as long as the server is believed.
const HONEST: Duration = secs(6);

/// Adds words of its own to each answer to a heartbeat.
fn raves() -> Meddler {
    let mut term = 0;
    let down = move |message: SyncResponse| {
        let mut said = Vec::new();
        match &message.message {
            Some(Down::Welcome(welcome)) => term = welcome.term,
            Some(Down::HeartbeatAck(ack)) if turmoil::elapsed() > HONEST => {
                let own = std::iter::repeat_with(|| SyncResponse { message: Some(word(term, ack.seq)) });
                said.extend(own.take(fastrand::usize(1..8)));
            }
            _ => {}
        }
        said.insert(0, message);
        said
    };
    Meddler { down: Box::new(down), ..Meddler::default() }
}

/// Overrides and policies aside: they are an operator's words, and whoever can give them can stop every call.
#[test]
fn a_server_that_says_anything_costs_less_than_one_call_of_a_hundred() {
    let make = |_: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        scenario.meddle = Some(Arc::new(|_| Some(raves())));
        scenario.calm = secs(60);
        scenario.settles_within = None;
        scenario.judged = false;
        scenario
    };
    seeds::run(1, make, |run| {
        let heard = run.events.iter().any(
            |event| matches!(&event.what, What::Heard { message, .. } if matches!(&message.message, Some(Down::Verdict(_)))),
        );
        assert!(heard, "replicas hear what it says");
        for name in &NAMES[..3] {
            let (well, all) = run.calls(name);
            assert!(well * 100 >= all * 99 && all > 50, "{name}: {well} of {all}");
        }
    });
}

#[test]
fn a_term_from_far_away_fences_nobody_out() {
    let make = |rng: &mut fastrand::Rng| {
        let far = [u64::MAX, u64::MAX / 2, 1 << 40][rng.usize(0..3)];
        let poisons = move || {
            let down = move |message: SyncResponse| {
                let mut said = vec![message.clone()];
                // A copy of what is true, in a term that no server will ever have.
                if let Some(Down::Verdict(verdict)) = message.message {
                    let poisoned = sync::Verdict { term: far, ..verdict };
                    said.push(SyncResponse { message: Some(Down::Verdict(poisoned)) });
                }
                said
            };
            Meddler { down: Box::new(down), ..Meddler::default() }
        };
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(Health::Failing, secs(3), secs(20)));
        scenario.meddle = Some(Arc::new(move |replica| (replica.name == "a-1").then(poisons)));
        scenario.calm = secs(20);
        scenario
    };
    seeds::run(1, make, |run| {
        // Honest words are taken after it: it is released with the others.
        assert!(run.shown("a-1").iter().any(|(_, shown)| shown.is_held()), "a-1 obeys the fleet");
    });
}

#[test]
fn words_of_a_later_version_are_passed_over() {
    let make = |_: &mut fastrand::Rng| {
        let newer = || {
            let down = |mut message: SyncResponse| {
                let mut said = vec![SyncResponse { message: None }];
                if let Some(Down::Verdict(verdict)) = &message.message {
                    let mut unknown = verdict.clone();
                    (unknown.state, unknown.rev) = (99, verdict.rev);
                    said.push(SyncResponse { message: Some(Down::Verdict(unknown)) });
                }
                if let Some(Down::Welcome(welcome)) = &mut message.message {
                    welcome.server_version = "99.0.0".to_owned();
                }
                said.push(message);
                said
            };
            Meddler { down: Box::new(down), ..Meddler::default() }
        };
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(Health::Failing, secs(3), secs(9)));
        scenario.meddle = Some(Arc::new(move |_| Some(newer())));
        scenario.calm = secs(9);
        scenario
    };
    seeds::run(1, make, |run| {
        assert!(run.shown("a-1").iter().any(|(_, shown)| shown.is_held()), "what is understood is obeyed");
    });
}
