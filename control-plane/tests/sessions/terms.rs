//! Terms that were used before: a store that was wiped, or restored from before its last start.

use std::{path::Path, time::Duration};

use fusebox_policy::fleet::term::{CLAIMED_BY_ANY, CLAIMED_OF_A_RUN, FARTHEST, GREATEST, MOST_RISES};
use fusebox_proto::{
    duration::{from_wire, to_wire},
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1::{self, breaker_service_client::BreakerServiceClient},
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};

use tonic_types::StatusExt as _;

use super::server::{Server, hello};

/// The term and the run that a replica is welcomed with.
async fn welcomed(server: &Server, hello: sync::Hello) -> (u64, u64) {
    let sync::Welcome { term, run_id, .. } = server.replica(hello).await.unwrap().welcome().await;
    assert_ne!(run_id, 0);
    (term, run_id)
}

fn saw(instance: &str, (highest_term, highest_term_run): (u64, u64)) -> sync::Hello {
    sync::Hello { highest_term, highest_term_run, ..hello(instance) }
}

/// Why a replica is refused.
async fn refused(server: &Server, hello: sync::Hello) -> String {
    let refusal = server.replica(hello).await.unwrap().next().await.unwrap_err();
    refusal.get_error_details().error_info().unwrap().reason.clone()
}

async fn backup(folder: &Path, backup: &Path) {
    let options = SqliteConnectOptions::new().filename(folder.join("fusebox.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let copy = backup.join("fusebox.db").display().to_string();
    sqlx::query("VACUUM INTO $1").bind(copy).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wiped_server_speaks_in_no_term_that_a_replica_has_heard_from_another_run() {
    let (folder, wiped) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(folder.path()).await;
    let first = welcomed(&server, hello("a-1")).await;
    assert_eq!(welcomed(&server, saw("a-1", first)).await, first, "its own term is no reason to raise it");
    server.stop().await;

    let server = Server::start(wiped.path()).await;
    let (fresh, run) = welcomed(&server, hello("a-2")).await;
    assert_eq!(fresh, first.0, "nobody has told it yet");
    assert_ne!(run, first.1);
    let raised = welcomed(&server, saw("a-1", first)).await;
    assert_eq!(raised, (first.0 + 1, run));
    assert_eq!(welcomed(&server, saw("a-2", (fresh, run))).await, raised);
    server.stop().await;

    let server = Server::start(wiped.path()).await;
    let next = welcomed(&server, saw("a-1", raised)).await;
    assert!(next.0 > raised.0, "a raised term is stored before it is told");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_restored_from_before_its_last_start_leaves_the_term_behind_that_this_had() {
    let (folder, copy) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let server = Server::start(folder.path()).await;
    backup(folder.path(), copy.path()).await;
    server.stop().await;
    let server = Server::start(folder.path()).await;
    let last = welcomed(&server, hello("a-1")).await;
    server.stop().await;

    let server = Server::start(copy.path()).await;
    let (term, run) = welcomed(&server, saw("a-1", last)).await;
    assert!(term > last.0 && run != last.1);
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn who_does_not_know_whose_its_term_is_raises_it_only_where_nobody_of_its_service_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (term, _) = welcomed(&server, saw("a-1", (1, 0))).await;
    assert_eq!(term, 2, "this run has told nobody");
    for instance in ["a-1", "a-2"] {
        assert_eq!(welcomed(&server, saw(instance, (2, 0))).await.0, 2, "it will have been this run");
    }
    let other = sync::Hello { service: "service-z".to_owned(), ..saw("z-1", (2, 0)) };
    assert_eq!(welcomed(&server, other).await.0, 3, "nobody of this service was told");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_term_from_far_away_is_not_believed_and_ends_nothing_for_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let first = welcomed(&server, hello("a-1")).await;
    for far in [FARTHEST, 1 << 40, GREATEST - 1, GREATEST, u64::MAX] {
        for run in [0, 7] {
            assert_eq!(refused(&server, saw("liar", (far, run))).await, "TERM_TOO_HIGH", "{far}");
        }
    }
    assert_eq!(welcomed(&server, saw("a-1", first)).await, first, "the others go on as if nothing had been said");
    server.stop().await;

    let server = Server::start(folder.path()).await;
    assert_eq!(welcomed(&server, saw("a-1", first)).await.0, first.0 + 1, "nothing was stored of it");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_run_is_raised_no_further_than_replicas_that_were_away_can_follow() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (highest, _) = welcomed(&server, saw("a-1", (CLAIMED_BY_ANY - 1, 7))).await;
    assert_eq!(highest, CLAIMED_BY_ANY, "what a store that was wiped may find");
    assert_eq!(refused(&server, saw("a-2", (CLAIMED_BY_ANY + CLAIMED_OF_A_RUN, 7))).await, "TERM_TOO_HIGH");
    server.stop().await;

    let server = Server::start(folder.path()).await;
    let (begun, run) = welcomed(&server, hello("a-1")).await;
    let end = begun + CLAIMED_OF_A_RUN;
    assert_eq!(welcomed(&server, saw("a-2", (end - 1, 7))).await, (end, run));
    for seen in [(end, 7), (end + 1, 7)] {
        assert_eq!(refused(&server, saw("a-3", seen)).await, "TERM_TOO_HIGH", "neither by much nor by one each time");
    }
    assert_eq!(welcomed(&server, saw("a-1", (begun, run))).await, (end, run));
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_liar_keeps_a_server_learning_for_a_while_and_not_for_ever() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let (mut term, run) = welcomed(&server, hello("a-1")).await;
    for _ in 0..MOST_RISES {
        // The same, and of another run.
        let (raised, _) = welcomed(&server, saw("liar", (term, 7))).await;
        assert_eq!(raised, term + 1);
        term = raised;
    }
    assert_eq!(refused(&server, saw("liar", (term, 7))).await, "TERM_TOO_HIGH");
    assert_eq!(welcomed(&server, saw("a-1", (term, run))).await, (term, run), "who has heard it from this run");
    assert_eq!(welcomed(&server, hello("a-2")).await, (term, run), "who has heard none");
    server.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_left_of_an_override_counts_from_the_newest_heartbeat_of_each_replica() {
    const LASTS: Duration = Duration::from_secs(600);
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut replica = server.replica(hello("a-1")).await.unwrap();
    let set = |message| if let Down::Overrides(set) = message { Some(set) } else { None };
    let none = replica.until("the overrides of a newcomer", set).await;
    assert_eq!((none.anchor_seq, none.overrides.len()), (0, 0));
    for seq in 1..=4 {
        replica.say(Up::Heartbeat(sync::Heartbeat { seq, ..sync::Heartbeat::default() })).await;
    }
    let answered = |message| if let Down::HeartbeatAck(ack) = message { (ack.seq == 4).then_some(()) } else { None };
    replica.until("the answer", answered).await;

    let mut breakers = BreakerServiceClient::new(server.channel().await);
    let request = v1::ForceBreakerRequest {
        selector: Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() }),
        state: v1::FleetState::ForcedOpen.into(),
        reason: "drill".to_owned(),
        duration: Some(to_wire(LASTS)),
        ..Default::default()
    };
    breakers.force_breaker(request).await.unwrap();
    let told = replica.until("the override", set).await;
    assert_eq!((told.anchor_seq, told.overrides.len()), (4, 1));
    let left = from_wire(told.overrides[0].remaining.unwrap()).unwrap();
    assert!(left >= LASTS, "the heartbeat had come before: {left:?}");
    server.stop().await;
}
