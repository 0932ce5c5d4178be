//! Requests that are sent again under the same id.

use fusebox_proto::v1;
use tonic::Code;

use crate::server::{Server, fields, name, refusal, seconds, timeout};

const ID: &str = "6f1c0a52-7d0e-4c3b-9a68-0d1f3f1f7b2e";

fn creation(seconds: i64) -> v1::CreatePolicyRequest {
    v1::CreatePolicyRequest {
        parent: "namespaces/default".to_owned(),
        policy_id: "b".to_owned(),
        policy: Some(timeout("b", "service-b", seconds)),
        request_id: ID.to_owned(),
        ..v1::CreatePolicyRequest::default()
    }
}

#[tokio::test]
async fn a_creation_that_is_sent_again_has_the_same_answer_even_after_a_restart() {
    let mut server = Server::start().await;
    let first = server.client.create_policy(creation(1)).await.unwrap().into_inner();
    server.update(timeout("b", "service-b", 9)).await.unwrap();
    let again = server.client.create_policy(creation(1)).await.unwrap().into_inner();
    assert_eq!(again, first);
    let mut server = server.restart().await;
    assert_eq!(server.client.create_policy(creation(1)).await.unwrap().into_inner(), first);
    assert_eq!(server.revision().await, 2, "it was written once");
    assert_eq!(seconds(&server.get("b").await.unwrap()), 9, "and what came later was not undone");
}

#[tokio::test]
async fn the_id_of_another_request_is_refused() {
    let mut server = Server::start().await;
    server.client.create_policy(creation(1)).await.unwrap();
    let (code, reason, details) = refusal(server.client.create_policy(creation(2)).await);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));
    assert_eq!(fields(&details), ["request_id"]);
    let deletion =
        v1::DeletePolicyRequest { name: name("b"), request_id: ID.to_owned(), ..v1::DeletePolicyRequest::default() };
    assert_eq!(refusal(server.client.delete_policy(deletion).await).1, "REQUEST_ID_REUSED");
    assert!(server.get("b").await.is_ok());
}

#[tokio::test]
async fn an_id_must_be_a_uuid() {
    let mut server = Server::start().await;
    for bad in ["1", "00000000-0000-0000-0000-000000000000", "6f1c0a52-7d0e-4c3b-9a68-0d1f3f1f7b2"] {
        let request = v1::CreatePolicyRequest { request_id: bad.to_owned(), ..creation(1) };
        let (code, _, details) = refusal(server.client.create_policy(request).await);
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["request_id".to_owned()]), "{bad}");
    }
    assert_eq!(server.revision().await, 0);
}

/// "The revision before the present one" is another one once the rollback has been made.
#[tokio::test]
async fn updates_deletions_applications_and_rollbacks_are_made_once() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let id = |number: u32| format!("6f1c0a52-7d0e-4c3b-9a68-{number:012}");
    for _ in 0..2 {
        let update = v1::UpdatePolicyRequest {
            policy: Some(timeout("b", "service-b", 2)),
            request_id: id(1),
            ..v1::UpdatePolicyRequest::default()
        };
        assert_eq!(server.client.update_policy(update).await.unwrap().into_inner().revision, 2);
    }
    for _ in 0..2 {
        let rollback =
            v1::RollbackPolicyRequest { name: name("b"), request_id: id(2), ..v1::RollbackPolicyRequest::default() };
        let policy = server.client.rollback_policy(rollback).await.unwrap().into_inner();
        assert_eq!((policy.revision, seconds(&policy)), (3, 1));
    }
    for _ in 0..2 {
        let apply = v1::ApplyPoliciesRequest {
            policies: vec![timeout("b", "service-b", 4), timeout("c", "service-c", 4)],
            request_id: id(3),
            ..v1::ApplyPoliciesRequest::default()
        };
        let answer = server.client.apply_policies(apply).await.unwrap().into_inner();
        let actions: Vec<_> = answer.results.iter().map(v1::AppliedPolicy::action).collect();
        use v1::applied_policy::Action;
        assert_eq!((actions, answer.revision), (vec![Action::Configured, Action::Created], 5));
    }
    for _ in 0..2 {
        let deletion =
            v1::DeletePolicyRequest { name: name("b"), request_id: id(4), ..v1::DeletePolicyRequest::default() };
        server.client.delete_policy(deletion).await.unwrap();
    }
    assert_eq!(server.revision().await, 6);
}

#[tokio::test]
async fn a_request_that_failed_may_be_sent_again_under_its_id() {
    let mut server = Server::start().await;
    server.create("rival", timeout("rival", "service-b", 1)).await.unwrap();
    assert_eq!(refusal(server.client.create_policy(creation(1)).await).1, "POLICY_INVALID");
    server.delete("rival").await.unwrap();
    server.client.create_policy(creation(1)).await.unwrap();
}

#[tokio::test]
async fn a_rollback_can_be_tried_first() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    server.update(timeout("b", "service-b", 2)).await.unwrap();
    let request =
        v1::RollbackPolicyRequest { name: name("b"), validate_only: true, ..v1::RollbackPolicyRequest::default() };
    assert_eq!(seconds(&server.client.rollback_policy(request).await.unwrap().into_inner()), 1);
    assert_eq!(server.revision().await, 2);
}
