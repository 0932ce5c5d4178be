//! Policies come in bursts, too late, broken, or for many targets.

use std::sync::Arc;

use fusebox::FleetStateShown as FleetState;
use fusebox_policy::fleet::invariants as check;
use fusebox_proto::{
    sync::v1::{SyncResponse, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use super::{NAMES, POLICY, down, fleet, millis, secs, some_trouble};
use crate::{
    faults::Fault,
    history::{Taken, What},
    operator::Order,
    relay::Meddler,
    replica::Replica,
    seeds,
    target::Health,
    world::{PLANE, Scenario},
};

fn policy_of(target: &str) -> String {
    POLICY.replace("service-b", target)
}

const EIGHT: &[&str] =
    &["service-b", "service-c", "service-d", "service-e", "service-f", "service-g", "service-h", "service-i"];

/// All targets fail at once, as they do when it is the callers' own network: S14.
#[test]
fn when_everything_fails_the_fleet_opens_no_more_than_half_of_its_targets() {
    let make = |rng: &mut fastrand::Rng| {
        let replicas = NAMES[..3].iter().map(|name| Replica::busy(name).every(150).calls(EIGHT)).collect();
        let policies: Vec<String> = EIGHT.iter().map(|target| policy_of(target)).collect();
        let mut scenario =
            Scenario::new(replicas, &policies.join("---\n")).script(down(some_trouble(rng), secs(3), secs(9)));
        scenario.calm = secs(9);
        scenario
    };
    seeds::run(1, make, |run| {
        let most = NAMES[..3]
            .iter()
            .flat_map(|name| run.shown(name))
            .map(|(_, shown)| shown.others_held + usize::from(shown.is_held()))
            .max();
        let most = most.expect("they show something");
        assert!(most >= 2, "something opens: {most}");
        assert!(check::s14_blast_cap(most, EIGHT.len(), 50), "{most} of {} targets are held", EIGHT.len());
    });
}

/// What an SDK can't use, however it came to be: a policy with a timeout of less than nothing. L5.
fn spoil(policy: &mut v1::Policy) {
    if policy.name.ends_with("service-c")
        && let Some(spec) = &mut policy.spec
    {
        for strategy in &mut spec.pipeline {
            if let Some(v1::strategy::Kind::Timeout(timeout)) = &mut strategy.kind {
                timeout.duration = Some(prost_types::Duration { seconds: -1, nanos: 0 });
            }
        }
    }
}

fn poisons() -> Meddler {
    let down = |mut message: SyncResponse| {
        match &mut message.message {
            Some(Down::PolicyChunk(chunk)) => chunk.policies.iter_mut().for_each(spoil),
            Some(Down::Delta(delta)) => delta.upserted.iter_mut().for_each(spoil),
            _ => {}
        }
        vec![message]
    };
    Meddler { down: Box::new(down), ..Meddler::default() }
}

#[test]
fn one_policy_that_nobody_can_use_keeps_no_other_from_being_applied() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), &[policy_of("service-c"), policy_of("service-b")].join("---\n"))
            .script(down(some_trouble(rng), secs(8), secs(14)));
        scenario.orders.push((secs(4), Order::Apply(POLICY.replace("delay: 2s", "delay: 1s"))));
        scenario.meddle = Some(Arc::new(|_| Some(poisons())));
        scenario.calm = secs(14);
        scenario
    };
    seeds::run(1, make, |run| {
        for name in NAMES {
            let applied = run.shown(name).into_iter().filter(|(_, shown)| shown.rejected.len() == 1);
            let newest = applied.map(|(_, shown)| shown.policy_revision).max();
            assert_eq!(newest, Some(3), "{name} refuses one policy and applies the other one, and its change");
            assert!(run.ever(name, FleetState::Open), "{name} is coordinated all the same");
            let said = run.events.iter().any(|event| {
                matches!(&event.what, What::Arrived { replica, message } if replica == name
                    && matches!(&message.message, Some(Up::Ack(ack)) if ack.rejected.len() == 1))
            });
            assert!(said, "{name} says which one");
        }
    });
}

#[test]
fn a_burst_of_changes_ends_with_the_last_one_everywhere() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        let at = millis(rng, 2_000, 4_000);
        for change in 0..40_u32 {
            let text = POLICY.replace("delay: 2s", &format!("delay: {}ms", 1000 + change));
            scenario.orders.push((at, Order::Apply(text)));
        }
        scenario.faults = vec![
            (at, Fault::Slow(PLANE, "a-2", millis(rng, 200, 600))),
            (at + secs(2), Fault::Slow(PLANE, "a-2", crate::world::LATENCY)),
        ];
        scenario.calm = at + secs(3);
        scenario.settles_within = Some(secs(10));
        scenario
    };
    seeds::run(1, make, |run| {
        let last = run
            .events
            .iter()
            .filter_map(|event| matches!(event.what, What::Ordered(Taken::Applied { .. })).then_some(event.at));
        let last = last.max().expect("changes are taken");
        for name in ["a-1", "a-3", "a-4"] {
            assert_eq!(run.shown_at(name, last + secs(1)).revision, 41, "{name} a second after the last change");
        }
    });
}

#[test]
fn who_was_away_for_too_many_changes_gets_everything_again() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(vec![Replica::busy("a-1").every(400), Replica::idle("a-2")], POLICY);
        let at = millis(rng, 2_000, 4_000);
        let away = *rng.choice(&NAMES[..2]).expect("there are some");
        scenario.faults = vec![(at, Fault::Partition(PLANE, away)), (at + secs(8), Fault::Repair(PLANE, away))];
        // More than the control plane remembers, in few steps: each policy of each is a revision.
        for change in 0..6_u32 {
            let delay = format!("delay: {}ms", 1000 + change);
            let policies: Vec<String> =
                (0..180).map(|number| policy_of(&format!("service-{number}")).replace("delay: 2s", &delay)).collect();
            scenario.orders.push((at + secs(1), Order::Apply(policies.join("---\n"))));
        }
        scenario.calm = at + secs(8);
        scenario.settles_within = Some(secs(40));
        scenario
    };
    seeds::run(1, make, |run| {
        let whole = run.events.iter().any(|event| {
            matches!(&event.what, What::Heard { message, .. }
                if matches!(&message.message, Some(Down::SnapshotBegin(begin)) if begin.revision > 1024))
        });
        assert!(whole, "a difference from what is forgotten can't be told");
    });
}

#[test]
fn replicas_that_start_before_their_control_plane_are_protected_as_soon_as_it_is_there() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY).script(down(Health::Failing, secs(40), secs(44)));
        let starts = millis(rng, 5_000, 15_000);
        scenario.faults = vec![(millis(rng, 0, 10), Fault::Crash(PLANE)), (starts, Fault::Bounce(PLANE))];
        scenario.calm = secs(44);
        scenario
    };
    seeds::run(1, make, |run| {
        for name in &NAMES[..3] {
            let (_, all) = run.calls(name);
            assert!(all > 20, "{name} calls without a control plane");
            assert!(run.ever(name, FleetState::Open), "{name} is coordinated later");
        }
    });
}

#[test]
fn a_cache_that_nobody_can_read_counts_as_none() {
    let make = |rng: &mut fastrand::Rng| {
        let mut scenario = Scenario::new(fleet(), POLICY);
        scenario.caches = true;
        let at = millis(rng, 3_000, 5_000);
        scenario.faults = vec![
            (at, Fault::Crash("a-1")),
            (at, Fault::Spoil("a-1")),
            (at + millis(rng, 50, 900), Fault::Bounce("a-1")),
        ];
        scenario.calm = at + secs(2);
        scenario
    };
    seeds::run(1, make, |run| {
        let (back, _) = run.faults()[2];
        let shown = run.shown_at("a-1", back + crate::replica::LOOK_EVERY);
        assert_eq!(shown.source, fusebox::PolicySource::None, "{shown}");
    });
}
