//! How a client obeys the fleet, and stops obeying.

use std::time::Duration;

use fusebox::{CallError, Client, FleetStateShown, LocalState, RejectionReason};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};
use tokio::time::Instant;

use super::{
    fake::{Fake, LEASE, Session, key, policy, shown},
    policies::{BREAKER, fail},
};

async fn connected() -> (Fake, Client, Session) {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(5).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    (fake, client, session)
}

pub(super) fn verdict(term: u64, rev: u64, state: v1::FleetState, anchor_seq: u64) -> Down {
    Down::Verdict(sync::Verdict {
        key: Some(key()),
        term,
        rev,
        state: state.into(),
        admit_permille: 0,
        lease: Some(to_wire(LEASE)),
        anchor_seq,
        policy_revision: 1,
        reason: "3 of 3 replicas are open".to_owned(),
        half_open_in: Some(to_wire(Duration::from_secs(2))),
    })
}

async fn call(client: &Client) -> Result<(), CallError<&'static str>> {
    client.target("service-b").call(|| async { Ok(()) }).await
}

fn fleet(client: &Client) -> FleetStateShown {
    client.status().breakers[0].fleet
}

/// Keeps the stream alive for a while: each heartbeat is answered.
async fn answer(session: &mut Session, heartbeats: usize, term: u64, rev: u64) {
    for _ in 0..heartbeats {
        let seq = session.heartbeat().await.seq;
        session.say(Down::HeartbeatAck(sync::HeartbeatAck { seq, term, rev, lease: Some(to_wire(LEASE)) })).await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_transition_is_told_at_once_and_a_heartbeat_carries_the_evidence() {
    let (_fake, client, mut session) = connected().await;
    fail(&client, 2).await;
    let told = session
        .until("a transition", |message| if let Up::Transition(transition) = message { Some(transition) } else { None })
        .await;
    let window = told.window.clone().unwrap();
    assert_eq!((told.cause.as_str(), told.seq), ("consecutive_failures", 1));
    assert_eq!((window.local_state(), told.from()), (v1::LocalState::Open, v1::LocalState::Closed));
    assert!(window.own_trip);
    assert_eq!((window.calls, window.failures, window.causes.unwrap().target_error), (2, 2, 2));

    assert!(matches!(call(&client).await, Err(CallError::Rejected(_))));
    let heartbeat = session
        .until("a heartbeat with demand", |message| {
            if let Up::Heartbeat(heartbeat) = message
                && heartbeat.windows.iter().any(|window| window.rejected == 1)
            {
                Some(heartbeat)
            } else {
                None
            }
        })
        .await;
    assert_eq!(heartbeat.windows.len(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_canvass_is_answered_for_breakers_that_are_held_and_for_others_too() {
    let (_fake, _client, mut session) = connected().await;
    let mut elsewhere = key();
    elsewhere.policy = "elsewhere".to_owned();
    for (id, key, held) in [(1, key(), true), (2, elsewhere, false)] {
        session.say(Down::Canvass(sync::Canvass { id, key: Some(key) })).await;
        let answer = session
            .until("an answer", |message| if let Up::CanvassAnswer(answer) = message { Some(answer) } else { None })
            .await;
        assert_eq!((answer.id, answer.window.is_some()), (id, held));
    }
}

#[tokio::test(start_paused = true)]
async fn a_replica_without_traffic_opens_with_the_fleet_and_closes_with_it() {
    let (_fake, client, mut session) = connected().await;
    session.say(verdict(5, 1, v1::FleetState::Open, 1)).await;
    let ack = session.acknowledged().await;
    assert_eq!((ack.key, ack.term, ack.rev), (Some(key()), 5, 1));
    let status = client.status();
    assert_eq!((status.breakers[0].fleet, status.breakers[0].local), (FleetStateShown::Open, LocalState::Closed));
    assert_eq!(status.breakers[0].admission, 0.0);
    assert_eq!(status.breakers[0].fleet_reason.as_deref(), Some("3 of 3 replicas are open"));
    let CallError::Rejected(rejection) = call(&client).await.unwrap_err() else { panic!("not refused") };
    assert!(matches!(rejection.reason, RejectionReason::FleetOpen { retry_after: Some(_) }), "{rejection}");

    session.say(verdict(5, 2, v1::FleetState::Released, 1)).await;
    session.acknowledged().await;
    assert_eq!(fleet(&client), FleetStateShown::Released);
    assert_eq!(client.status().breakers[0].fleet_reason, None);
    call(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_older_verdict_or_one_about_another_revision_changes_nothing() {
    let (_fake, client, mut session) = connected().await;
    session.say(verdict(5, 3, v1::FleetState::Open, 1)).await;
    session.acknowledged().await;
    session.say(verdict(5, 2, v1::FleetState::Released, 1)).await;
    session.say(verdict(4, 9, v1::FleetState::Released, 1)).await;
    session.say(verdict(5, 3, v1::FleetState::Released, 1)).await;
    let Down::Verdict(other) = verdict(5, 9, v1::FleetState::Released, 1) else { unreachable!() };
    session.say(Down::Verdict(sync::Verdict { policy_revision: 2, ..other.clone() })).await;
    session.say(Down::Verdict(sync::Verdict { anchor_seq: 99, ..other.clone() })).await;
    session.say(Down::Verdict(sync::Verdict { key: None, ..other.clone() })).await;
    session.say(Down::Verdict(sync::Verdict { state: 77, ..other })).await;
    session.say(Down::Canvass(sync::Canvass { id: 1, key: None })).await;
    // The answer comes after all that was said before.
    session.until("an answer", |message| matches!(message, Up::CanvassAnswer(_)).then_some(())).await;
    assert_eq!(fleet(&client), FleetStateShown::Open);
}

#[tokio::test(start_paused = true)]
async fn a_lease_is_renewed_by_answers_and_ends_without_them() {
    let (_fake, client, mut session) = connected().await;
    session.say(verdict(5, 1, v1::FleetState::Open, 1)).await;
    session.acknowledged().await;
    answer(&mut session, 10, 5, 1).await;
    assert_eq!(fleet(&client), FleetStateShown::Open, "ten seconds later");
    drop(session);
    let status =
        shown(&client, "the end of the lease", |status| status.breakers[0].fleet == FleetStateShown::Released).await;
    assert_eq!(status.breakers[0].local, LocalState::Open, "as if it had just opened itself");
    shown(&client, "its own probing", |status| status.breakers[0].local == LocalState::HalfOpen).await;
    call(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_half_open_fleet_lets_one_call_pass_for_each_permit() {
    let (_fake, client, mut session) = connected().await;
    session.say(verdict(5, 1, v1::FleetState::Open, 1)).await;
    session.say(verdict(5, 2, v1::FleetState::HalfOpen, 1)).await;
    assert_eq!(session.acknowledged().await.rev, 2, "the newest stands for both");
    let refused = call(&client).await.unwrap_err();
    let CallError::Rejected(rejection) = refused else { panic!("{refused:?}") };
    assert_eq!(rejection.reason, RejectionReason::FleetHalfOpen);

    // The acknowledgement has come with a heartbeat: the second, after that which follows a snapshot at once.
    let anchor_seq = session.heartbeat().await.seq;
    let permit = |id, rev| {
        let ttl = Some(to_wire(Duration::from_secs(1)));
        Down::ProbePermit(sync::ProbePermit { key: Some(key()), id, term: 5, rev, ttl, anchor_seq })
    };
    let outcome =
        |message| if let Up::ProbeOutcome(outcome) = message { Some((outcome.id, outcome.result())) } else { None };
    use sync::probe_outcome::Result::{Inconclusive, Success};
    session.say(permit(7, 1)).await;
    assert_eq!(session.until("the permit back", outcome).await, (7, Inconclusive), "of an older verdict");
    session.say(permit(8, 2)).await;
    session.say(Down::Canvass(sync::Canvass { id: 1, key: None })).await;
    session.until("an answer", |message| matches!(message, Up::CanvassAnswer(_)).then_some(())).await;
    call(&client).await.unwrap();
    assert!(call(&client).await.unwrap_err().is_rejection(), "one permit, one call");
    assert_eq!(session.until("the outcome", outcome).await, (8, Success));
    // Unused, it is void after its time, and says so.
    session.say(permit(9, 2)).await;
    assert_eq!(session.until("the end of the permit", outcome).await, (9, Inconclusive));
}

#[tokio::test(start_paused = true)]
async fn one_word_of_an_operator_holds_for_every_breaker_it_names_also_for_those_to_come() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(5).await;
    let forced = |version, overrides| Down::Overrides(sync::OverrideSet { version, term: 5, overrides, anchor_seq: 0 });
    let isolated = sync::Override {
        id: 1,
        selector: Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() }),
        state: v1::FleetState::ForcedOpen.into(),
        remaining: Some(to_wire(Duration::from_secs(600))),
        reason: "drill".to_owned(),
    };
    session.say(forced(1, vec![isolated])).await;
    session.acknowledged().await;
    let mut other = policy(1, BREAKER);
    other.name = "namespaces/default/policies/payments".to_owned();
    other.spec.as_mut().unwrap().r#match.as_mut().unwrap().routes = vec!["pay.Pay/*".to_owned()];
    session.snapshot(1, vec![policy(1, BREAKER), other]).await;
    let call = async |route: &str| {
        let target = client.target("service-b").route(route);
        target.call(|| async { Ok::<_, &str>(()) }).await
    };
    for (route, policy) in [("pay.Pay/Charge", "payments"), ("GET /", "service-b")] {
        let CallError::Rejected(rejection) = call(route).await.unwrap_err() else { panic!("not refused") };
        assert!(matches!(rejection.reason, RejectionReason::ForcedOpen { .. }), "{rejection}");
        assert_eq!(rejection.policy.as_str(), policy);
    }
    session.say(forced(2, vec![])).await;
    session.acknowledged().await;
    for route in ["pay.Pay/Charge", "GET /"] {
        call(route).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_operator_s_word_is_above_the_fleet_and_outlives_stream_and_process() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::start();
    let client = fake.client().cache_dir(dir.path()).start().unwrap();
    let mut session = fake.welcomed(5).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    let selector = v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() };
    let forced = |state: v1::FleetState, version| {
        Down::Overrides(sync::OverrideSet {
            anchor_seq: 0,
            version,
            term: 5,
            overrides: vec![sync::Override {
                id: version,
                selector: Some(selector.clone()),
                state: state.into(),
                remaining: Some(to_wire(Duration::from_secs(600))),
                reason: "drill".to_owned(),
            }],
        })
    };
    session.say(verdict(5, 1, v1::FleetState::Open, 1)).await;
    session.acknowledged().await;
    session.say(forced(v1::FleetState::ForcedClosed, 1)).await;
    assert_eq!(session.acknowledged().await, sync::VerdictAck { key: None, term: 5, rev: 1 });
    assert_eq!(fleet(&client), FleetStateShown::ForcedClosed);
    assert_eq!(client.status().breakers[0].fleet_reason.as_deref(), Some("drill"), "above the verdict's");
    call(&client).await.unwrap();

    session.say(forced(v1::FleetState::ForcedOpen, 2)).await;
    session.acknowledged().await;
    assert_eq!(fleet(&client), FleetStateShown::ForcedOpen);
    // The file is written by a thread, to which paused time means nothing.
    let file = dir.path().join("default.service-a.policies");
    while !std::fs::read(&file).is_ok_and(|bytes| bytes.windows(5).any(|part| part == b"drill")) {
        tokio::task::yield_now().await;
    }
    fake.up.store(false, std::sync::atomic::Ordering::Relaxed);
    drop(session);
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(fleet(&client), FleetStateShown::ForcedOpen, "no stream needed");
    let restarted = fake.client().cache_dir(dir.path()).start().unwrap();
    assert_eq!(fleet(&restarted), FleetStateShown::ForcedOpen, "nor the old process");
    tokio::time::advance(Duration::from_secs(600)).await;
    assert_eq!(fleet(&client), FleetStateShown::Released, "it ends by itself");
    call(&client).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_an_operator_disables_counts_nothing_and_stays_so_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::start();
    let client = fake.client().cache_dir(dir.path()).start().unwrap();
    let mut session = fake.session().await;
    assert!(
        session.hello.capabilities.contains(&sync::Capability::DisabledOverrides.into()),
        "it is told of it only then"
    );
    session.welcome(5).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    fail(&client, 1).await;
    let disabled = sync::Override {
        id: 1,
        selector: Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() }),
        state: v1::FleetState::Disabled.into(),
        remaining: Some(to_wire(Duration::from_secs(600))),
        reason: "drill".to_owned(),
    };
    let set = |version, overrides| Down::Overrides(sync::OverrideSet { version, term: 5, overrides, anchor_seq: 0 });
    session.say(set(1, vec![disabled])).await;
    assert_eq!(session.acknowledged().await, sync::VerdictAck { key: None, term: 5, rev: 1 });
    // Two in a row trip it.
    fail(&client, 20).await;
    let shown = client.status().breakers.remove(0);
    assert_eq!((shown.fleet, shown.local, shown.admission), (FleetStateShown::Disabled, LocalState::Closed, 1.0));
    let window = |wanted: bool| {
        move |message| {
            let Up::Heartbeat(heartbeat) = message else { return None };
            heartbeat.windows.into_iter().find(|window| window.disabled == wanted)
        }
    };
    let told = session.until("a window of a disabled breaker", window(true)).await;
    assert_eq!((told.calls, told.failures, told.rejected, told.own_trip), (0, 0, 0, false));

    // The file is written by a thread, to which paused time means nothing.
    let file = dir.path().join("default.service-a.policies");
    while !std::fs::read(&file).is_ok_and(|bytes| bytes.windows(5).any(|part| part == b"drill")) {
        tokio::task::yield_now().await;
    }
    let restarted = Fake::start().client().cache_dir(dir.path()).start().unwrap();
    assert_eq!(fleet(&restarted), FleetStateShown::Disabled);

    session.say(set(2, vec![])).await;
    session.acknowledged().await;
    session.until("a window of an enabled breaker", window(false)).await;
    // It goes on where it was.
    fail(&client, 1).await;
    assert_eq!(client.status().breakers[0].local, LocalState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_breaker_that_is_not_shared_goes_on_by_itself_and_is_told_of_again_when_policies_change() {
    let (_fake, client, mut session) = connected().await;
    // The first heartbeats carry it.
    let carries = |message| {
        let Up::Heartbeat(heartbeat) = message else { return None };
        (!heartbeat.windows.is_empty()).then_some(())
    };
    session.until("a window", carries).await;
    let reason = "this replica has 500 shared breakers, and no more are shared".to_owned();
    session.say(Down::BreakerRefused(sync::BreakerRefused { key: Some(key()), reason })).await;
    shown(&client, "that it is not shared", |status| status.breakers[0].unshared).await;
    fail(&client, 2).await;
    assert_eq!(client.status().breakers[0].local, LocalState::Open, "it protects all the same");
    for _ in 0..3 {
        let sync::Heartbeat { seq, windows, .. } = session
            .until("a heartbeat", |message| {
                assert!(!matches!(message, Up::Transition(_)), "nobody listens to it");
                if let Up::Heartbeat(heartbeat) = message { Some(heartbeat) } else { None }
            })
            .await;
        assert_eq!(windows, []);
        session.say(Down::HeartbeatAck(sync::HeartbeatAck { seq, term: 5, rev: 0, lease: Some(to_wire(LEASE)) })).await;
    }
    session.snapshot(2, vec![policy(2, BREAKER)]).await;
    session.until("a window again", carries).await;
    assert!(!client.status().breakers[0].unshared);
}

#[tokio::test(start_paused = true)]
async fn an_override_of_a_kind_that_is_not_known_is_not_acknowledged_and_changes_nothing() {
    let (_fake, client, mut session) = connected().await;
    for (version, state) in [(1, 99), (2, v1::FleetState::Unspecified.into()), (3, v1::FleetState::Open.into())] {
        let unknown = sync::Override {
            id: version,
            selector: Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() }),
            state,
            remaining: Some(to_wire(Duration::from_secs(600))),
            reason: "drill".to_owned(),
        };
        let set = sync::OverrideSet { version, term: 5, overrides: vec![unknown], anchor_seq: 0 };
        session.say(Down::Overrides(set)).await;
    }
    session.say(Down::Overrides(sync::OverrideSet { version: 4, term: 5, overrides: vec![], anchor_seq: 0 })).await;
    assert_eq!(session.acknowledged().await.rev, 4, "none of those before");
    assert_eq!(fleet(&client), FleetStateShown::Released);
}

#[tokio::test(start_paused = true)]
async fn an_override_that_comes_late_ends_when_the_operator_said() {
    let (_fake, client, mut session) = connected().await;
    let forced = |version, anchor_seq, remaining| {
        let selector = v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() };
        let forced = sync::Override {
            id: version,
            selector: Some(selector),
            state: v1::FleetState::ForcedOpen.into(),
            remaining: Some(to_wire(remaining)),
            reason: "drill".to_owned(),
        };
        Down::Overrides(sync::OverrideSet { version, term: 5, overrides: vec![forced], anchor_seq })
    };
    let anchor = session.heartbeat().await.seq;
    let sent = Instant::now();
    // The message is on its way for so long.
    answer(&mut session, 5, 5, 0).await;
    let under_way = sent.elapsed();
    session.say(forced(1, anchor, under_way + Duration::from_secs(2))).await;
    session.acknowledged().await;
    assert_eq!(fleet(&client), FleetStateShown::ForcedOpen);
    while sent.elapsed() < under_way + Duration::from_secs(2) {
        assert_eq!(fleet(&client), FleetStateShown::ForcedOpen);
        answer(&mut session, 1, 5, 0).await;
    }
    assert_eq!(fleet(&client), FleetStateShown::Released);
    call(&client).await.unwrap();

    session.say(forced(2, anchor, under_way)).await;
    session.acknowledged().await;
    assert_eq!(fleet(&client), FleetStateShown::Released, "it was over before it came");
    session.say(forced(3, u64::MAX, Duration::from_secs(600))).await;
    answer(&mut session, 2, 5, 0).await;
    assert_eq!(fleet(&client), FleetStateShown::Released, "no heartbeat of this stream");
    let newest = session.heartbeat().await.seq;
    session.say(forced(4, newest, Duration::from_secs(600))).await;
    assert_eq!(session.acknowledged().await.rev, 4);
    assert_eq!(fleet(&client), FleetStateShown::ForcedOpen);
}

#[tokio::test(start_paused = true)]
async fn a_replica_whose_own_calls_go_well_does_not_obey_and_says_so_until_they_fail() {
    let (_fake, client, mut session) = connected().await;
    for _ in 0..20 {
        call(&client).await.unwrap();
    }
    session.say(verdict(5, 1, v1::FleetState::Open, 1)).await;
    session.acknowledged().await;
    let shown = client.status().breakers.remove(0);
    assert_eq!((shown.fleet, shown.vetoed, shown.admission), (FleetStateShown::Open, true, 1.0));
    call(&client).await.unwrap();
    let vetoed = |wanted: bool| {
        move |message| {
            let Up::Heartbeat(heartbeat) = message else { return None };
            heartbeat.windows.iter().any(|window| window.vetoed == wanted).then_some(())
        }
    };
    session.until("a window with the veto", vetoed(true)).await;
    // One of two in a row is half of what trips its own breaker.
    fail(&client, 1).await;
    assert!(call(&client).await.unwrap_err().is_rejection());
    assert!(!client.status().breakers[0].vetoed);
    session.until("a window without the veto", vetoed(false)).await;
}

#[tokio::test(start_paused = true)]
async fn whoever_can_not_use_the_newer_policy_decides_alone_whatever_heartbeats_renew() {
    let (_fake, client, mut session) = connected().await;
    session.say(verdict(5, 1, v1::FleetState::Open, 1)).await;
    session.acknowledged().await;
    assert_eq!(fleet(&client), FleetStateShown::Open);

    let mut broken = policy(2, BREAKER);
    broken.spec.as_mut().unwrap().pipeline.clear();
    assert_eq!(session.snapshot(2, vec![broken]).await.rejected.len(), 1);
    // Longer than a lease.
    answer(&mut session, 10, 5, 1).await;
    assert_eq!(fleet(&client), FleetStateShown::Released, "the fleet decides about a policy that does not run here");
    let seq = session.heartbeat().await.seq;
    session.say(verdict(5, 2, v1::FleetState::Open, seq)).await;
    answer(&mut session, 1, 5, 2).await;
    assert_eq!(fleet(&client), FleetStateShown::Released, "nor does one that was on its way begin to hold");
}

#[tokio::test(start_paused = true)]
async fn whoever_refused_a_candidate_obeys_again_when_it_is_taken_back() {
    let (_fake, client, mut session) = connected().await;
    let mut broken = policy(2, BREAKER);
    broken.spec.as_mut().unwrap().pipeline.clear();
    let delta = |from_revision, policy| {
        let revision = from_revision + 1;
        Down::Delta(sync::Delta { from_revision, revision, upserted: vec![policy], deleted: Vec::new() })
    };
    let acked = |revision| {
        move |message| if let Up::Ack(ack) = message { (ack.revision == revision).then_some(ack) } else { None }
    };
    session.say(delta(1, broken)).await;
    assert_eq!(session.until("an ack", acked(2)).await.rejected.len(), 1);
    // What ran all along comes with the number that it has had.
    session.say(delta(2, policy(1, BREAKER))).await;
    assert_eq!(session.until("an ack", acked(3)).await.rejected.len(), 0);
    let seq = session.heartbeat().await.seq;
    session.say(verdict(5, 1, v1::FleetState::Open, seq)).await;
    session.acknowledged().await;
    assert_eq!(fleet(&client), FleetStateShown::Open);
}
