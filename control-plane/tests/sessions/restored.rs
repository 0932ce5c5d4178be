//! A database that came back from an older backup, and one that was wiped.

use std::{path::Path, process::Stdio};

use fusebox_proto::{
    sync::v1::{self as sync, sync_request::Message as Up, sync_response::Message as Down},
    v1::{self, policy_service_client::PolicyServiceClient},
};
use sqlx::{Connection as _, SqliteConnection, sqlite::SqliteConnectOptions};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use super::server::{Replica, Server, hello, policy};

/// A server at revision 1 whose replicas run revision 3, and the id of its store.
async fn restored(folder: &Path, backup: &Path) -> (Server, String) {
    let server = Server::start(folder).await;
    server.apply("1s").await.unwrap();
    // As an operator does it, beside the server: the files of a database are one thing only for SQLite.
    let options = SqliteConnectOptions::new().filename(folder.join("fusebox.db"));
    let mut database = SqliteConnection::connect_with(&options).await.unwrap();
    let copy = backup.join("fusebox.db").display().to_string();
    sqlx::query("VACUUM INTO $1").bind(copy).execute(&mut database).await.unwrap();
    database.close().await.unwrap();
    server.apply("2s").await.unwrap();
    server.apply("3s").await.unwrap();
    let store_id = server.info().await.store_id;
    server.stop().await;
    (Server::start(backup).await, store_id)
}

fn running(instance: &str, store_id: &str, revision: u64) -> sync::Hello {
    sync::Hello { store_id: store_id.to_owned(), policy_revision: revision, ..hello(instance) }
}

fn reason(refused: Result<impl std::fmt::Debug, Status>) -> (Code, String) {
    let status = refused.unwrap_err();
    (status.code(), status.get_error_details().error_info().unwrap().reason.clone())
}

async fn adopt(server: &Server, reason: &str) -> Result<v1::AdoptPresentResponse, Status> {
    let mut client = PolicyServiceClient::new(server.channel().await);
    let request = v1::AdoptPresentRequest { reason: reason.to_owned(), ..Default::default() };
    Ok(client.adopt_present(request).await?.into_inner())
}

#[tokio::test(flavor = "multi_thread")]
async fn an_adoption_can_be_tried_and_is_made_once_however_often_it_is_sent() {
    let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, store_id) = restored(folder.path(), backup.path()).await;
    let mut client = PolicyServiceClient::new(server.channel().await);
    let request = v1::AdoptPresentRequest {
        reason: "restored".to_owned(),
        request_id: "6f1c0a52-7d0e-4c3b-9a68-00000000000a".to_owned(),
        ..Default::default()
    };
    let tried = v1::AdoptPresentRequest { validate_only: true, ..request.clone() };
    assert_eq!(reason(client.adopt_present(tried.clone()).await).1, "STORE_NOT_REGRESSED");
    let mut ahead = server.replica(running("a-1", &store_id, 3)).await.unwrap();
    ahead.welcome().await;
    let would = client.adopt_present(tried).await.unwrap().into_inner();
    assert!(server.info().await.regressed, "only tried");
    let done = client.adopt_present(request.clone()).await.unwrap().into_inner();
    assert_eq!((done, done.revision, done.seen_revision), (would, 4, 3));
    assert_eq!(client.adopt_present(request).await.unwrap().into_inner(), done, "the same answer");
    let info = server.info().await;
    assert_eq!((info.regressed, info.revision), (false, 4));
    server.shutdown.begin();
    server.stop().await;
}

async fn fusebox(server: &Server, args: &[&str]) -> (Option<i32>, String, String) {
    let mut command = tokio::process::Command::new(env!("CARGO_BIN_EXE_fusebox"));
    command.args(args).args(["--address", &server.address]).stdin(Stdio::null());
    let output = command.output().await.unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

async fn run_and_say_so(replica: &Replica, revision: u64) {
    replica.say(Up::Ack(sync::Ack { revision, rejected: Vec::new() })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_restored_server_rolls_nobody_back_until_an_operator_says_so() {
    let (folder, backup) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (server, store_id) = restored(folder.path(), backup.path()).await;
    assert!(!server.info().await.regressed, "nobody has told it yet");
    assert_eq!(reason(adopt(&server, "why").await), (Code::FailedPrecondition, "STORE_NOT_REGRESSED".to_owned()));

    let mut ahead = server.replica(running("a-1", &store_id, 3)).await.unwrap();
    ahead.welcome().await;
    let delta = ahead.delta().await;
    assert_eq!((delta.from_revision, delta.revision), (3, 3), "it keeps what it runs");
    assert!(delta.upserted.is_empty() && delta.deleted.is_empty());
    run_and_say_so(&ahead, 3).await;

    let info = server.info().await;
    assert_eq!((info.regressed, info.revision, info.seen_revision), (true, 1, 3));
    assert_eq!(reason(server.apply("9s").await), (Code::FailedPrecondition, "STORE_REGRESSED".to_owned()));

    let mut fresh = server.replica(hello("a-2")).await.unwrap();
    let (policies, end) = fresh.snapshot().await;
    assert_eq!((policies.len(), end.revision), (1, 1), "something old protects better than nothing");

    let (code, _, told) = fusebox(&server, &["recover"]).await;
    assert!(code == Some(4) && told.contains("REGRESSED") && told.contains("--adopt-present"), "{code:?} {told}");
    let (code, out, told) = fusebox(&server, &["get", "instances"]).await;
    assert_eq!(code, Some(0));
    assert!(out.contains("ahead") && told.contains("REGRESSED"), "{out} {told}");

    // A refusal of even that does not bring the older set: what comes next is the end.
    ahead.say(Up::Nack(sync::Nack { revision: 3, reason: "no".to_owned() })).await;
    server.shutdown.begin();
    ahead
        .until("the end", |message| {
            assert!(!matches!(message, Down::SnapshotBegin(_)), "{message:?}");
            matches!(message, Down::GoAway(_)).then_some(())
        })
        .await;
    drop((ahead, fresh));
    server.stop().await;
    let server = Server::start(backup.path()).await;
    assert!(server.info().await.regressed, "that it is so outlives the process");
    let mut ahead = server.replica(running("a-1", &store_id, 3)).await.unwrap();
    let mut behind = server.replica(running("a-3", &store_id, 1)).await.unwrap();
    assert_eq!(ahead.delta().await.revision, 3);
    assert_eq!(behind.delta().await.revision, 1);

    assert_eq!(reason(adopt(&server, " ").await).0, Code::InvalidArgument, "a reason is required");
    let (code, out, told) = fusebox(&server, &["recover", "--adopt-present", "--reason", "monday's backup"]).await;
    assert_eq!(code, Some(0), "{out} {told}");
    assert!(out.contains("1 policies of rev 1 are in force as rev 4"), "{out}");
    for replica in [&mut ahead, &mut behind] {
        let (policies, end) = replica.snapshot().await;
        assert_eq!(end.revision, 4, "all converge");
        assert_eq!(policies[0].spec, policy("1s").spec);
    }
    assert!(!server.info().await.regressed);
    assert_eq!(server.apply("9s").await.unwrap(), 5);
    assert_eq!(behind.delta().await.revision, 5);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_implausible_revision_is_not_believed() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    server.apply("1s").await.unwrap();
    let store_id = server.info().await.store_id;
    for revision in [1 << 40, u64::MAX] {
        let mut liar = server.replica(running("a-1", &store_id, revision)).await.unwrap();
        assert_eq!(liar.next().await.unwrap_err().code(), Code::FailedPrecondition);
    }
    assert!(!server.info().await.regressed);
    server.apply("2s").await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_set_is_meant_only_where_the_namespace_has_policies() {
    let folder = tempfile::tempdir().unwrap();
    let server = Server::start(folder.path()).await;
    let mut replica = server.replica(running("a-1", "another", 7)).await.unwrap();
    let (_, end) = replica.snapshot().await;
    assert_eq!((end.policies, end.empty_is_meant), (0, false), "nothing was ever written here");

    let mut other = policy("1s");
    other.spec.as_mut().unwrap().r#match.as_mut().unwrap().caller = "service-c".to_owned();
    let request = v1::ApplyPoliciesRequest { policies: vec![other], ..Default::default() };
    PolicyServiceClient::new(server.channel().await).apply_policies(request).await.unwrap();
    let mut replica = server.replica(running("a-2", "another", 7)).await.unwrap();
    let (_, end) = replica.snapshot().await;
    assert_eq!((end.policies, end.empty_is_meant), (0, true));
}
