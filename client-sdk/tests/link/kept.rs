//! What outlives the process: the last good policies, overrides and the highest term, in a folder that may fail.

use std::{path::Path, sync::atomic::Ordering, time::Duration};

use fusebox::{FleetStateShown, PolicySource, Revision};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, sync_response::Message as Down},
    v1,
};

use super::{
    fake::{Fake, Session, domain, policy, shown},
    policies::BREAKER,
};

async fn force(session: &mut Session, version: u64, overrides: Vec<sync::Override>) {
    session.say(Down::Overrides(sync::OverrideSet { version, term: 5, overrides, anchor_seq: 0 })).await;
}

fn forced_open() -> sync::Override {
    let selector = v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() };
    sync::Override {
        id: 1,
        selector: Some(selector),
        state: v1::FleetState::ForcedOpen.into(),
        remaining: Some(to_wire(Duration::from_secs(600))),
        reason: "drill".to_owned(),
    }
}

/// Waits until the file holds a text: it is written by a thread, to which paused time means nothing.
async fn written(dir: &Path, text: &str) {
    let file = dir.join("default.service-a.policies");
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while !std::fs::read(&file).is_ok_and(|bytes| bytes.windows(text.len()).any(|part| part == text.as_bytes())) {
        assert!(std::time::Instant::now() < limit, "{text} is written in time");
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn overrides_and_terms_come_back_without_a_server_and_a_wiped_one_ends_no_override() {
    let dir = tempfile::tempdir().unwrap();
    let mut fake = Fake::start();
    let client = fake.client().cache_dir(dir.path()).start().unwrap();
    let mut session = fake.session().await;
    session.welcome_as("store", 5, 51).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    force(&mut session, 1, vec![forced_open()]).await;
    session.acknowledged().await;
    written(dir.path(), "drill").await;
    drop((client, session));

    fake.up.store(false, Ordering::Relaxed);
    let client = fake.client().cache_dir(dir.path()).start().unwrap();
    assert_eq!(client.status().breakers[0].fleet, FleetStateShown::ForcedOpen, "before any server is heard");
    fake.up.store(true, Ordering::Relaxed);
    let mut session = fake.session().await;
    assert_eq!((session.hello.highest_term, session.hello.highest_term_run), (5, 51));
    session.welcome_from("another", 6).await;
    force(&mut session, 1, vec![]).await;
    session.heartbeat().await;
    session.heartbeat().await;
    assert_eq!(client.status().breakers[0].fleet, FleetStateShown::ForcedOpen, "another database knows nothing of it");
    drop(session);

    let mut session = fake.welcomed(6).await;
    force(&mut session, 1, vec![]).await;
    session.acknowledged().await;
    assert_eq!(client.status().breakers[0].fleet, FleetStateShown::Released, "its own one has ended it");
}

#[tokio::test(start_paused = true)]
async fn a_folder_that_can_not_be_written_is_counted_and_harms_no_call() {
    let dir = tempfile::tempdir().unwrap();
    // A file where the folder should be: not even root can write into it.
    let blocked = dir.path().join("file");
    std::fs::write(&blocked, "").unwrap();
    let mut fake = Fake::start();
    let client = fake.client().cache_dir(&blocked).builtin_policy(domain(BREAKER)).start().unwrap();
    let at_start = client.status().cache_faults;
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    let limit = std::time::Instant::now() + Duration::from_secs(60);
    while client.status().cache_faults <= at_start {
        assert!(std::time::Instant::now() < limit, "the fault is counted in time");
        tokio::task::yield_now().await;
    }
    client.target("service-b").call(|| async { Ok::<_, &str>(()) }).await.unwrap();
    let status = shown(&client, "the stream", |status| status.connected).await;
    assert_eq!((status.source, status.revision), (PolicySource::Stream, Revision(1)));
}

#[tokio::test(start_paused = true)]
async fn a_cache_with_a_key_counts_until_somebody_without_it_has_written_there() {
    let dir = tempfile::tempdir().unwrap();
    let key = dir.path().join("key");
    let secret = "0123456789abcdef0123456789abcdef";
    std::fs::write(&key, secret).unwrap();
    let mut fake = Fake::start();
    let keyed = |fake: &Fake| fake.client().cache_dir(dir.path()).cache_key_file(&key);
    assert!(!format!("{:?}", keyed(&fake)).contains(secret));
    let client = keyed(&fake).start().unwrap();
    let mut session = fake.session().await;
    session.welcome_as("store", 5, 51).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    force(&mut session, 1, vec![forced_open()]).await;
    session.acknowledged().await;
    written(dir.path(), "drill").await;
    drop((client, session));

    fake.up.store(false, Ordering::Relaxed);
    let told = |client: &fusebox::Client| (client.status().source, client.status().cache_faults);
    let client = keyed(&fake).start().unwrap();
    assert_eq!(told(&client), (PolicySource::Disk, 0));
    // Who does not ask for a key does not take what was written with one, and the other way round.
    assert_eq!(told(&fake.client().cache_dir(dir.path()).start().unwrap()), (PolicySource::None, 1));
    std::fs::write(&key, "another key that is long enough, too").unwrap();
    assert_eq!(told(&keyed(&fake).start().unwrap()), (PolicySource::None, 1));
    std::fs::remove_file(&key).unwrap();
    let client = keyed(&fake).builtin_policy(domain(BREAKER)).start().unwrap();
    assert_eq!(
        told(&client),
        (PolicySource::Builtin, 1),
        "without its key no cache, and the client starts all the same"
    );
    client.target("service-b").call(|| async { Ok::<_, &str>(()) }).await.unwrap();
    assert!(fake.client().cache_key_file(&key).start().is_err(), "a key without a cache is a mistake");
}
