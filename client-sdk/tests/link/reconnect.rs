//! How a client comes, goes, and comes back.

use std::{sync::atomic::Ordering, time::Duration};

use fusebox::{Client, PolicySource};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, sync_response::Message as Down},
};
use tokio::time::Instant;
use tonic_types::StatusExt as _;

use super::{
    fake::{Fake, HEARTBEAT, domain, policy, shown},
    policies::BREAKER,
};

#[tokio::test]
async fn starting_needs_no_server() {
    let begun = std::time::Instant::now();
    // A port of this machine on which nobody listens, and a host that no resolver knows.
    for address in ["http://127.0.0.1:1", "http://no-such-host.invalid:7443"] {
        let client =
            Client::builder("service-a").control_plane(address).builtin_policy(domain(BREAKER)).start().unwrap();
        assert!(!client.status().connected);
        assert_eq!(client.status().source, PolicySource::Builtin);
        client.target("service-b").call(|| async { Ok::<_, &str>(()) }).await.unwrap();
    }
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    assert!(!Client::builder("service-a").start().unwrap().wait_ready(Duration::from_secs(60)).await);
}

#[tokio::test(start_paused = true)]
async fn after_a_restart_of_the_server_the_client_is_back_within_its_backoff_and_runs_on_meanwhile() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(3, vec![policy(3, BREAKER)]).await;
    fake.up.store(false, Ordering::Relaxed);
    drop(session);
    shown(&client, "the loss", |status| !status.connected).await;
    assert_eq!(client.status().source, PolicySource::Stream, "policies have no expiry");
    tokio::time::sleep(Duration::from_secs(5)).await;
    client.target("service-b").call(|| async { Ok::<_, &str>(()) }).await.unwrap();

    fake.up.store(true, Ordering::Relaxed);
    let back = Instant::now();
    let mut session = fake.session().await;
    // How many waits fit into five seconds is drawn; the longest is half a minute.
    assert!(back.elapsed() <= Duration::from_secs(30), "{:?}", back.elapsed());
    assert_eq!((session.hello.policy_revision, session.hello.store_id.as_str()), (3, "store"));
    session.welcome(2).await;
    session.say(Down::Delta(sync::Delta { from_revision: 3, revision: 3, upserted: vec![], deleted: vec![] })).await;
    shown(&client, "the return", |status| status.connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_long_outage_is_not_hammered() {
    let fake = Fake::start();
    fake.up.store(false, Ordering::Relaxed);
    let _client = fake.client().start().unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    let first_minute = fake.dials.swap(0, Ordering::Relaxed);
    tokio::time::sleep(Duration::from_secs(600)).await;
    let later = fake.dials.load(Ordering::Relaxed);
    assert!((5..=25).contains(&first_minute) && later >= 10, "{first_minute} {later}");
    // Full jitter below thirty seconds is fifteen on average: forty in ten minutes, with a wide margin.
    assert!(later <= 100, "{later}");
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_left_after_three_heartbeats() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![]).await;
    let begun = Instant::now();
    assert!(session.ended().await);
    assert!(begun.elapsed() >= HEARTBEAT * 2 && begun.elapsed() <= HEARTBEAT * 4, "{:?}", begun.elapsed());
    let _session = fake.welcomed(1).await;
    shown(&client, "the return", |status| status.connected).await;
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_at_all_is_left_too() {
    let mut fake = Fake::start();
    let _client = fake.client().start().unwrap();
    let mut session = fake.session().await;
    assert!(session.ended().await);
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_sent_away_stays_away_as_long_as_asked() {
    let mut fake = Fake::start();
    let _client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    let begun = Instant::now();
    let delay = Some(to_wire(Duration::from_secs(20)));
    session.say(Down::GoAway(sync::GoAway { delay, reason: "restart".to_owned() })).await;
    fake.session().await;
    assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn dropping_the_last_handle_ends_the_stream() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![]).await;
    let target = client.target("service-b");
    drop(client);
    session.heartbeat().await;
    drop(target);
    assert!(session.ended().await);
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(fake.dials.load(Ordering::Relaxed), 1, "it does not come back");
}

#[tokio::test(start_paused = true)]
async fn a_server_that_welcomes_and_ends_at_once_is_not_hammered_either() {
    let mut fake = Fake::start();
    let _client = fake.client().start().unwrap();
    let mut streams = 0;
    let minute = tokio::time::sleep(Duration::from_secs(60));
    tokio::pin!(minute);
    loop {
        tokio::select! {
            () = &mut minute => break,
            mut session = fake.session() => {
                session.welcome(1).await;
                streams += 1;
            }
        }
    }
    assert!((5..=25).contains(&streams), "{streams}");
}

#[tokio::test(start_paused = true)]
async fn a_client_that_is_told_to_come_later_comes_later() {
    let mut fake = Fake::start();
    let _client = fake.client().start().unwrap();
    let session = fake.session().await;
    let begun = Instant::now();
    let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(20)));
    session.fail(tonic::Status::with_error_details(tonic::Code::ResourceExhausted, "too many", details)).await;
    fake.session().await;
    assert!(begun.elapsed() >= Duration::from_secs(20), "{:?}", begun.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_term_from_far_away_is_not_believed_and_not_remembered() {
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    drop(fake.welcomed(7).await);
    for term in [u64::MAX, 1 << 53, 7 + (1 << 21)] {
        let mut session = fake.welcomed(term).await;
        assert!(session.ended().await);
        assert!(!client.status().connected);
        assert_eq!(session.hello.highest_term, 7);
    }
    assert_eq!(fake.session().await.hello.highest_term, 7);
}

#[tokio::test(start_paused = true)]
async fn each_hello_tells_the_highest_term_and_whose_it_was() {
    let mut fake = Fake::start();
    let _client = fake.client().start().unwrap();
    // Welcomed in a term by a run; what the next Hello says.
    let table = [
        ((7, 71), (7, 71), "the first"),
        ((7, 72), (7, 71), "the same term of another run: the next server must hear of the first"),
        ((6, 61), (7, 71), "a lower one"),
        ((8, 0), (8, 0), "a higher one of a server that has no run id"),
        ((8, 82), (8, 82), "now it is known whose"),
        ((9, 91), (9, 91), "a higher one"),
    ];
    let mut session = fake.session().await;
    assert_eq!((session.hello.highest_term, session.hello.highest_term_run), (0, 0));
    for ((term, run), said, what) in table {
        session.welcome_as("store", term, run).await;
        session.heartbeat().await;
        drop(session);
        session = fake.session().await;
        assert_eq!((session.hello.highest_term, session.hello.highest_term_run), said, "{what}");
    }
    // A run that raises its term while a stream lasts.
    session.welcome_as("store", 10, 101).await;
    let seq = session.heartbeat().await.seq;
    session.say(Down::HeartbeatAck(sync::HeartbeatAck { seq, term: 12, rev: 0, lease: None })).await;
    session.heartbeat().await;
    session.heartbeat().await;
    drop(session);
    let session = fake.session().await;
    assert_eq!((session.hello.highest_term, session.hello.highest_term_run), (12, 101));
}
