//! That what is judged here can fail: for each check that is this simulation's own, a history that breaks it and one that does not.

use std::{collections::BTreeMap, time::Duration};

use fusebox::{FleetStateShown as FleetState, PolicySource};
use fusebox_policy::{breaker::LocalState, fleet::invariants::Invariant};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, SyncRequest, SyncResponse, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use super::{OWN_POLICY, Rule, check, unsettled};
use crate::{
    history::{Event, History, Shown, Taken, What},
    replica::Replica,
    stored::Stored,
    target::SERVICE_B,
    world::{LEASE, Terms},
};

const NAMES: [&str; 2] = ["a-1", "a-2"];

type Story = Vec<(u64, What)>;

fn said(message: Down) -> [What; 2] {
    let message = Box::new(SyncResponse { message: Some(message) });
    let replica = NAMES[0].to_owned();
    [What::Issued { replica: replica.clone(), message: message.clone() }, What::Heard { replica, message }]
}

fn verdict(rev: u64, state: FleetState) -> [What; 2] {
    said(Down::Verdict(sync::Verdict {
        key: Some(v1::BreakerKey { policy: SERVICE_B.to_owned(), target: SERVICE_B.to_owned(), ..Default::default() }),
        term: 1,
        rev,
        state: v1::FleetState::from(state).into(),
        lease: Some(to_wire(LEASE)),
        policy_revision: 1,
        ..sync::Verdict::default()
    }))
}

fn answered(seq: u64, rev: u64) -> [What; 3] {
    let beat = What::Arrived {
        replica: NAMES[0].to_owned(),
        message: Box::new(SyncRequest {
            message: Some(Up::Heartbeat(sync::Heartbeat { seq, ..sync::Heartbeat::default() })),
        }),
    };
    let ack = sync::HeartbeatAck { seq, term: 1, rev, lease: Some(to_wire(LEASE)) };
    let [issued, heard] = said(Down::HeartbeatAck(ack));
    [beat, issued, heard]
}

fn shown(fleet: FleetState) -> Shown {
    Shown {
        connected: true,
        revision: 1,
        policy_revision: 1,
        local: LocalState::Closed,
        fleet,
        refuses: fleet != FleetState::Released,
        others_held: 0,
        policies: BTreeMap::from([(OWN_POLICY.to_owned(), 1)]),
        rejected: [].into(),
        source: PolicySource::Stream,
    }
}

fn shows(shown: Shown) -> What {
    What::Shown { replica: NAMES[0].to_owned(), shown }
}

fn broken(story: Story) -> Vec<Rule> {
    let mut events = vec![Event { at: Duration::ZERO, what: What::ServerUp }];
    events.extend(NAMES.map(|name| Event { at: Duration::ZERO, what: What::Started { replica: name.to_owned() } }));
    events.extend(story.into_iter().map(|(at, what)| Event { at: Duration::from_millis(at), what }));
    check(&events, &NAMES.map(Replica::busy), Terms::default(), false)
        .into_iter()
        .map(|violation| violation.rule)
        .collect()
}

/// The invariant does not hold of the story, and would hold without its last event.
fn breaks(invariant: Invariant, story: &Story) {
    let rule = Rule::from(invariant);
    let (_, before) = story.split_last().expect("something happens");
    assert!(!broken(before.to_vec()).contains(&rule), "{invariant} is broken before");
    assert!(broken(story.clone()).contains(&rule), "{invariant} holds");
}

fn at<const N: usize>(millis: u64, events: [What; N]) -> Story {
    events.map(|event| (millis, event)).to_vec()
}

#[test]
fn a_replica_that_obeys_an_older_word_than_it_has_heard_is_found() {
    let mut story = at(1000, verdict(1, FleetState::Open));
    story.extend(at(1020, [shows(shown(FleetState::Open))]));
    story.extend(at(3000, verdict(2, FleetState::HalfOpen)));
    story.extend(at(3020, [shows(shown(FleetState::HalfOpen))]));
    story.extend(at(5000, [shows(shown(FleetState::Open))]));
    breaks(Invariant::S1, &story);
}

#[test]
fn what_is_opened_while_frozen_or_while_learning_after_it_is_found() {
    let opens = |after: u64| {
        let [issued, _] = verdict(2, FleetState::Open);
        (2000 + after, issued)
    };
    let mut story = at(1000, verdict(1, FleetState::Released));
    story.extend(at(2000, answered(5, 0)));
    let frozen = |mut story: Story, after: u64| {
        story.push(opens(after));
        story
    };
    breaks(Invariant::S7, &frozen(story.clone(), 1000));
    story.extend(at(3000, answered(6, 1)));
    breaks(Invariant::S7, &frozen(story.clone(), 14_000));
    assert!(!broken(frozen(story, 16_000)).contains(&Invariant::S7.into()), "it may decide again");
}

#[test]
fn a_replica_that_obeys_longer_than_a_lease_after_the_last_word_is_found() {
    let mut story = at(1000, verdict(1, FleetState::Open));
    story.extend(at(1020, [shows(shown(FleetState::Open))]));
    story.extend(at(17_000, [What::Reached { replica: NAMES[1].to_owned() }]));
    breaks(Invariant::L3, &story);
}

#[test]
fn a_policy_that_could_be_used_and_does_not_run_is_found() {
    let other = "namespaces/default/policies/service-c".to_owned();
    let in_force = BTreeMap::from([(OWN_POLICY.to_owned(), 1), (other, 2)]);
    let stored = Stored { revision: 2, in_force, rollouts: BTreeMap::new(), stepped: None };
    let mut story = at(0, [What::Stored(Box::new(stored))]);
    let refuses = Shown { revision: 2, rejected: [2].into(), ..shown(FleetState::Released) };
    story.extend(at(1000, [shows(refuses.clone())]));
    story.extend(at(2000, [shows(Shown { rejected: [].into(), ..refuses })]));
    breaks(Invariant::L5, &story);
}

#[test]
fn an_acknowledgement_that_nobody_gave_is_found() {
    let looks = |acknowledged, missing: &[&str]| {
        What::Ordered(Taken::Overrides {
            acknowledged,
            unacknowledged: missing.iter().map(|name| (*name).to_owned()).collect(),
            connected: NAMES.map(ToOwned::to_owned).into(),
        })
    };
    let mut story = at(1000, [looks(0, &NAMES)]);
    let forced = sync::OverrideSet { term: 1, version: 2, overrides: vec![sync::Override::default()], anchor_seq: 0 };
    story.extend(at(2000, said(Down::Overrides(forced))));
    let ack = sync::VerdictAck { key: None, term: 1, rev: 2 };
    let ack = Box::new(SyncRequest { message: Some(Up::VerdictAck(ack)) });
    story.extend(at(2000, [What::Arrived { replica: NAMES[0].to_owned(), message: ack }]));
    story.extend(at(3000, [looks(1, &NAMES[1..]), looks(2, &[])]));
    breaks(Invariant::L7, &story);
}

#[test]
fn who_is_held_and_who_is_behind_in_the_end_is_found() {
    let end = |own: Shown, revision| {
        let history = History::default();
        history.record_at(Duration::ZERO, shows(own));
        let stored = Stored { revision, in_force: BTreeMap::new(), rollouts: BTreeMap::new(), stepped: None };
        history.record_at(Duration::ZERO, What::Stored(Box::new(stored)));
        let found = unsettled(&history, &NAMES.map(Replica::busy), Duration::ZERO);
        found.into_iter().map(|violation| violation.rule).collect::<Vec<_>>()
    };
    assert_eq!(end(shown(FleetState::Open), 1), [Invariant::L1.into()]);
    assert_eq!(end(shown(FleetState::Released), 2), [Invariant::L4.into()]);
}
