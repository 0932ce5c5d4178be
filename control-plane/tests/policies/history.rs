//! Revisions, rollback, and what a restart leaves.

use fusebox_proto::v1::{self, policy_revision::Action};
use tonic::Code;

use crate::server::{Server, name, refusal, seconds, timeout};

#[tokio::test]
async fn every_change_is_a_revision() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    server.create("other", timeout("other", "elsewhere", 1)).await.unwrap();
    server.update(timeout("b", "service-b", 2)).await.unwrap();
    server.delete("b").await.unwrap();
    let history = server.history("b").await;
    let told: Vec<_> = history.iter().map(|own| (own.revision, own.action())).collect();
    assert_eq!(told, [(4, Action::Delete), (3, Action::Update), (1, Action::Create)]);
    assert_eq!(history[0].name, format!("{}/revisions/4", name("b")));
    assert_eq!(seconds(history[0].snapshot.as_ref().unwrap()), 2, "a deletion shows what was deleted");
    assert_eq!(seconds(history[2].snapshot.as_ref().unwrap()), 1);
    assert!(history.iter().all(|own| own.create_time.is_some()));
}

#[tokio::test]
async fn revisions_are_read_in_pages() {
    let mut server = Server::start().await;
    for round in 1..=5 {
        server.apply(vec![timeout("b", "service-b", round)], false).await.unwrap();
    }
    let (mut read, mut page_token) = (Vec::new(), String::new());
    loop {
        let request = v1::ListPolicyRevisionsRequest {
            name: name("b"),
            page_size: 2,
            page_token,
            ..v1::ListPolicyRevisionsRequest::default()
        };
        let page = server.client.list_policy_revisions(request).await.unwrap().into_inner();
        read.extend(page.revisions.iter().map(|own| own.revision));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!(read, [5, 4, 3, 2, 1]);
    let request = v1::ListPolicyRevisionsRequest { name: name("never"), ..v1::ListPolicyRevisionsRequest::default() };
    assert_eq!(refusal(server.client.list_policy_revisions(request).await).0, Code::NotFound);
}

#[tokio::test]
async fn a_rollback_is_a_new_revision_with_old_content() {
    let mut server = Server::start().await;
    for round in 1..=3 {
        server.apply(vec![timeout("b", "service-b", round)], false).await.unwrap();
    }
    let back = server.rollback("b", 1).await.unwrap();
    assert_eq!((seconds(&back), back.revision), (1, 4));
    let before = server.rollback("b", 0).await.unwrap();
    assert_eq!((seconds(&before), before.revision), (3, 5), "without a number it is the one before");
    assert_eq!(server.history("b").await[0].action(), Action::Rollback);
}

#[tokio::test]
async fn a_rollback_revives_a_deleted_policy() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 7)).await.unwrap();
    server.delete("b").await.unwrap();
    assert_eq!(refusal(server.get("b").await).0, Code::NotFound);
    let revived = server.rollback("b", 0).await.unwrap();
    assert_eq!((seconds(&revived), revived.revision), (7, 3));
    server.delete("b").await.unwrap();
    assert_eq!(seconds(&server.rollback("b", 1).await.unwrap()), 7);
}

#[tokio::test]
async fn a_rollback_to_what_is_not_a_definition_is_refused() {
    let mut server = Server::start().await;
    assert_eq!(refusal(server.rollback("b", 0).await).0, Code::NotFound);
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    assert_eq!(refusal(server.rollback("b", 0).await).0, Code::FailedPrecondition);
    assert_eq!(refusal(server.rollback("b", 99).await).1, "REVISION_NOT_FOUND");
    server.delete("b").await.unwrap();
    assert_eq!(refusal(server.rollback("b", 2).await).0, Code::FailedPrecondition);
}

#[tokio::test]
async fn a_rollback_must_not_take_the_calls_of_another_policy() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    server.delete("b").await.unwrap();
    server.create("heir", timeout("heir", "service-b", 1)).await.unwrap();
    assert_eq!(refusal(server.rollback("b", 0).await).1, "POLICY_INVALID");
}

#[tokio::test]
async fn what_was_acknowledged_is_there_after_a_restart() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let kept = server.update(timeout("b", "service-b", 2)).await.unwrap();
    server.create("gone", timeout("gone", "elsewhere", 1)).await.unwrap();
    server.delete("gone").await.unwrap();
    let history = server.history("b").await;
    let store_id = server.hub.current().store_id.clone();
    let mut server = server.restart().await;
    let found = v1::Policy { status: None, ..server.get("b").await.unwrap() };
    assert_eq!(found, kept, "etag and times included");
    assert_eq!(refusal(server.get("gone").await).0, Code::NotFound);
    assert_eq!(server.history("b").await, history);
    assert_eq!(server.hub.current().store_id, store_id);
    assert_eq!(server.rollback("gone", 0).await.unwrap().revision, 5, "revisions go on");
}

#[tokio::test]
async fn a_revision_is_a_resource_that_can_be_read_and_gone_back_to_by_its_name() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    server.update(timeout("b", "service-b", 2)).await.unwrap();
    let named = |number: &str| format!("{}/revisions/{number}", crate::server::name("b"));
    let get = |number: &str| v1::GetPolicyRevisionRequest { name: named(number) };
    let first = server.client.get_policy_revision(get("1")).await.unwrap().into_inner();
    assert_eq!((first.name.as_str(), first.revision, first.action()), (named("1").as_str(), 1, Action::Create));
    assert_eq!(refusal(server.client.get_policy_revision(get("9")).await).1, "REVISION_NOT_FOUND");
    for bad in [named("x"), crate::server::name("b"), "revisions/1".to_owned()] {
        let request = v1::GetPolicyRevisionRequest { name: bad };
        assert_eq!(refusal(server.client.get_policy_revision(request).await).0, Code::InvalidArgument);
    }
    let request = |revision| v1::RollbackPolicyRequest { name: named("1"), revision, ..Default::default() };
    assert_eq!(refusal(server.client.rollback_policy(request(2)).await).0, Code::InvalidArgument);
    let back = server.client.rollback_policy(request(0)).await.unwrap().into_inner();
    assert_eq!((back.revision, back.spec), (3, first.snapshot.unwrap().spec));
}
