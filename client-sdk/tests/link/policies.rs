//! How policies arrive, change and survive.

use std::time::Duration;

use fusebox::{CallError, Client, LocalState, PolicySource, Revision};
use fusebox_proto::{
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1,
};

use super::fake::{Fake, domain, key, policy, shown};

pub(crate) const BREAKER: &str =
    "    - circuitBreaker: { trip: { consecutiveFailures: 2 }, delay: 5s, delayJitter: 0 }\n";
const TIMEOUT: &str = "    - timeout: { duration: 1s }\n";
const READY: Duration = Duration::from_secs(60);

pub(crate) async fn fail(client: &Client, times: usize) {
    for _ in 0..times {
        let failed: Result<(), CallError<&str>> = client.target("service-b").call(|| async { Err("down") }).await;
        assert!(failed.is_err());
    }
}

async fn nack(session: &mut super::fake::Session) -> sync::Nack {
    session.until("a nack", |message| if let Up::Nack(nack) = message { Some(nack) } else { None }).await
}

#[tokio::test(start_paused = true)]
async fn a_client_introduces_itself_and_runs_the_snapshot_that_it_gets() {
    let mut fake = Fake::start();
    let client = fake.client().zone("z1").label("team", "payments").start().unwrap();
    let mut session = fake.welcomed(1).await;
    let sync::Hello { protocol, namespace, service, instance, incarnation, zone, labels, policy_source, .. } =
        session.hello.clone();
    assert_eq!((protocol, namespace.as_str(), service.as_str()), (1, "default", "service-a"));
    assert_eq!((instance.as_str(), zone.as_str(), policy_source.as_str()), ("a-1", "z1", "none"));
    assert_ne!(incarnation, 0);
    assert_eq!(labels["team"], "payments");

    let ack = session.snapshot(7, vec![policy(7, BREAKER)]).await;
    assert_eq!(ack.rejected, vec![]);
    assert!(client.wait_ready(READY).await);
    let status = client.status();
    assert!(status.connected);
    assert_eq!((status.source, status.revision), (PolicySource::Stream, Revision(7)));
    assert_eq!(status.breakers[0].local, LocalState::Closed, "shown before its first call");
    let heartbeat = session.heartbeat().await;
    assert_eq!(heartbeat.windows[0].key.as_ref(), Some(&key()), "the server learns of it before its first call");
}

#[tokio::test(start_paused = true)]
async fn a_snapshot_takes_effect_only_as_a_whole() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.begin(1, vec![policy(1, TIMEOUT)]).await;
    session.heartbeat().await;
    assert_eq!(client.status().source, PolicySource::None, "it has not ended");
    session.end(1, 2).await;
    assert_eq!(nack(&mut session).await.revision, 1);
    assert_eq!(client.status().source, PolicySource::None, "one policy is missing");
    session.snapshot(1, vec![policy(1, TIMEOUT)]).await;
    shown(&client, "the policy", |status| status.policies.len() == 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_policy_leaves_its_last_good_version_and_the_others_apply() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![policy(1, TIMEOUT)]).await;

    let mut broken = policy(2, TIMEOUT);
    broken.spec.as_mut().unwrap().pipeline.clear();
    let mut other = policy(2, BREAKER);
    other.name = "namespaces/default/policies/service-c".to_owned();
    other.spec.as_mut().unwrap().r#match.as_mut().unwrap().target = "service-c".to_owned();
    let ack = session.snapshot(2, vec![broken, other]).await;
    assert_eq!(ack.rejected.len(), 1);
    assert_eq!(ack.rejected[0].name, "namespaces/default/policies/service-b");
    assert!(ack.rejected[0].reason.contains("pipeline"), "{}", ack.rejected[0].reason);
    let status = client.status();
    let running: Vec<_> = status.policies.iter().map(|own| (own.name.as_str(), own.revision.0)).collect();
    assert_eq!(running, [("service-b", 1), ("service-c", 2)]);
    assert_eq!(status.rejected.len(), 1);

    // The next update is listened to.
    let ack = session.snapshot(3, vec![policy(3, TIMEOUT)]).await;
    assert_eq!((ack.rejected.len(), client.status().rejected.len()), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_policy_with_a_strategy_that_is_not_known_is_refused_whole_with_its_place_and_the_former_runs() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    // What a newer server's strategy decodes to, beside one that is known and would be stricter.
    let newer = |revision| {
        let mut newer = policy(revision, TIMEOUT);
        newer.spec.as_mut().unwrap().pipeline.push(v1::Strategy::default());
        newer
    };
    let ack = session.snapshot(2, vec![newer(2)]).await;
    let delta = sync::Delta { from_revision: 2, revision: 3, upserted: vec![newer(3)], deleted: vec![] };
    session.say(Down::Delta(delta)).await;
    let again = session.until("an ack", |message| if let Up::Ack(ack) = message { Some(ack) } else { None }).await;
    for (ack, revision) in [(ack, 2), (again, 3)] {
        let [refused] = ack.rejected.as_slice() else { panic!("{ack:?}") };
        assert_eq!((refused.revision, ack.revision), (revision, revision));
        assert!(refused.reason.starts_with("spec.pipeline[1]: must be one of timeout, retry"), "{}", refused.reason);
    }
    let status = client.status();
    assert_eq!((status.policies.len(), status.policies[0].revision.0, status.revision.0), (1, 1, 3));
    assert_eq!(status.breakers.len(), 1, "the former one runs, with its breaker");
}

#[tokio::test(start_paused = true)]
async fn a_delta_changes_and_deletes_and_one_of_another_base_is_refused() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![policy(1, TIMEOUT)]).await;
    let delta = |from_revision, revision, upserted: Vec<v1::Policy>, deleted: Vec<String>| {
        Down::Delta(sync::Delta { from_revision, revision, upserted, deleted })
    };
    session.say(delta(5, 6, vec![], vec!["namespaces/default/policies/service-b".to_owned()])).await;
    assert_eq!(nack(&mut session).await.revision, 6);
    assert_eq!(client.status().revision, Revision(1));
    session.say(delta(1, 2, vec![policy(2, BREAKER)], vec![])).await;
    shown(&client, "the change", |status| status.breakers.len() == 1 && status.revision.0 == 2).await;
    session.say(delta(2, 3, vec![], vec!["namespaces/default/policies/service-b".to_owned()])).await;
    shown(&client, "the deletion", |status| status.policies.is_empty() && status.revision.0 == 3).await;
    let heartbeat = session
        .until("a dropped key", |message| {
            if let Up::Heartbeat(heartbeat) = message
                && !heartbeat.dropped.is_empty()
            {
                Some(heartbeat)
            } else {
                None
            }
        })
        .await;
    assert_eq!(heartbeat.dropped, [key()]);
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_takes_effect_on_the_next_call_and_keeps_the_breaker_open() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    fail(&client, 2).await;
    assert_eq!(client.status().breakers[0].local, LocalState::Open);

    let changed =
        "    - timeout: { duration: 9s }\n    - circuitBreaker: { trip: { consecutiveFailures: 9 }, delay: 60s }\n";
    session.snapshot(2, vec![policy(2, changed)]).await;
    let status = client.status();
    assert_eq!((status.breakers[0].local, status.breakers[0].revision), (LocalState::Open, Revision(2)));
    assert!(status.breakers[0].half_open_in.unwrap() <= Duration::from_secs(5), "the shorter rest counts");

    let reset = policy(3, "    - circuitBreaker: { trip: { consecutiveFailures: 8 } }\n");
    let mut reset = reset;
    reset.spec.as_mut().unwrap().on_change = v1::OnChange::Reset.into();
    session.snapshot(3, vec![reset]).await;
    assert_eq!(client.status().breakers[0].local, LocalState::Closed, "a fresh start was asked for");
}

#[tokio::test(start_paused = true)]
async fn the_built_in_policy_protects_until_something_better_is_known_and_hands_its_state_on() {
    let mut fake = Fake::start();
    let client = fake.client().builtin_policy(domain(BREAKER)).start().unwrap();
    assert_eq!(client.status().source, PolicySource::Builtin);
    fail(&client, 2).await;
    let mut session = fake.welcomed(1).await;
    session.snapshot(0, vec![]).await;
    assert_eq!(client.status().breakers[0].local, LocalState::Open, "an empty store takes no protection away");
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    let status = client.status();
    assert_eq!((status.source, status.breakers[0].local), (PolicySource::Stream, LocalState::Open));
}

#[tokio::test(start_paused = true)]
async fn the_last_good_policies_come_from_disk_when_there_is_no_server() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::start();
    let client = fake.client().cache_dir(dir.path()).start().unwrap();
    let mut session = fake.welcomed(9).await;
    session.snapshot(4, vec![policy(4, BREAKER)]).await;
    // The file is written by a thread, to which paused time means nothing.
    while std::fs::read_dir(dir.path()).unwrap().flatten().all(|entry| entry.path().extension().unwrap() != "policies")
    {
        tokio::task::yield_now().await;
    }
    drop((client, session));

    fake.up.store(false, std::sync::atomic::Ordering::Relaxed);
    let client = fake.client().cache_dir(dir.path()).builtin_policy(domain(TIMEOUT)).start().unwrap();
    let status = client.status();
    assert_eq!((status.source, status.revision), (PolicySource::Disk, Revision(4)));
    assert_eq!(status.breakers.len(), 1);
    fake.up.store(true, std::sync::atomic::Ordering::Relaxed);
    let session = fake.session().await;
    let sync::Hello { store_id, policy_revision, highest_term, policy_source, .. } = session.hello;
    assert_eq!((store_id.as_str(), policy_revision, highest_term, policy_source.as_str()), ("store", 4, 9, "disk"));

    // Nothing may be writing still: a folder of its own.
    let damaged = tempfile::tempdir().unwrap();
    std::fs::write(damaged.path().join("default.service-a.policies"), "damaged").unwrap();
    let dir = damaged;
    let client = fake.client().cache_dir(dir.path()).builtin_policy(domain(TIMEOUT)).start().unwrap();
    assert_eq!(client.status().source, PolicySource::Builtin, "a damaged file counts as none");
    assert_eq!(client.status().cache_faults, 1, "and is counted");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_was_restored_from_a_backup_rolls_nobody_back() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(7, vec![policy(7, BREAKER)]).await;
    session.begin(6, vec![policy(6, TIMEOUT)]).await;
    session.end(6, 1).await;
    assert_eq!(nack(&mut session).await.revision, 6);
    let older = sync::Delta { from_revision: 7, revision: 6, upserted: vec![policy(6, TIMEOUT)], deleted: vec![] };
    session.say(Down::Delta(older)).await;
    assert_eq!(nack(&mut session).await.revision, 6);
    // What such a server does say.
    session.say(Down::Delta(sync::Delta { from_revision: 7, revision: 7, ..sync::Delta::default() })).await;
    session.until("an ack", |message| matches!(message, Up::Ack(_)).then_some(())).await;
    let status = client.status();
    assert_eq!((status.revision, status.breakers.len(), status.rejected.len()), (Revision(7), 1, 0));
    // And what it says when an operator has decided.
    session.snapshot(8, vec![policy(6, TIMEOUT)]).await;
    assert_eq!(client.status().policies[0].revision, Revision(6));
}

#[tokio::test(start_paused = true)]
async fn a_wiped_database_strips_nobody_and_takes_over_with_its_first_policy() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(7, vec![policy(7, BREAKER)]).await;
    drop(session);

    let mut session = fake.session().await;
    session.welcome_from("another", 1).await;
    for revision in [0, 2] {
        session.begin(revision, vec![]).await;
        session.end(revision, 0).await;
        assert_eq!(nack(&mut session).await.revision, revision);
        let status = client.status();
        assert_eq!((status.revision, status.breakers.len()), (Revision(7), 1), "what is held stays");
    }
    // A change of what it never had is of no use to it either.
    let delta = sync::Delta { from_revision: 2, revision: 3, upserted: vec![policy(3, TIMEOUT)], deleted: vec![] };
    session.say(Down::Delta(delta)).await;
    assert_eq!(nack(&mut session).await.revision, 3);
    session.snapshot(3, vec![policy(3, TIMEOUT)]).await;
    let status = client.status();
    assert_eq!((status.revision, status.policies.len(), status.breakers.len()), (Revision(3), 1, 0));
    // From now on it is its store: what is deleted there is gone.
    session.snapshot(4, vec![]).await;
    assert!(client.status().policies.is_empty());
}

#[tokio::test(start_paused = true)]
async fn an_empty_set_of_another_store_that_is_meant_is_applied() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(7, vec![policy(7, BREAKER)]).await;
    drop(session);
    let mut session = fake.session().await;
    session.welcome_from("another", 1).await;
    session.begin(2, vec![]).await;
    session.say(Down::SnapshotEnd(sync::SnapshotEnd { revision: 2, policies: 0, empty_is_meant: true })).await;
    session.until("an ack", |message| matches!(message, Up::Ack(_)).then_some(())).await;
    assert!(client.status().policies.is_empty());
}
