//! Creating, updating, deleting, and several at once.

use fusebox_proto::v1::{self, applied_policy::Action};
use tonic::{Code, Request};

use crate::server::{Server, name, refusal, seconds, timeout};

#[tokio::test]
async fn a_policy_is_created_once() {
    let mut server = Server::start().await;
    let created = server.create("b", timeout("ignored", "service-b", 1)).await.unwrap();
    assert_eq!((created.name, created.revision), (name("b"), 1));
    assert!(!created.etag.is_empty() && created.create_time.is_some() && created.update_time == created.create_time);
    let (code, reason, details) = refusal(server.create("b", timeout("b", "service-b", 2)).await);
    assert_eq!((code, reason.as_str()), (Code::AlreadyExists, "POLICY_EXISTS"));
    assert_eq!(details.resource_info().unwrap().resource_name, name("b"));
    assert_eq!(seconds(&server.get("b").await.unwrap()), 1);
}

#[tokio::test]
async fn a_stale_etag_is_refused_and_told_the_current_one() {
    let mut server = Server::start().await;
    let first = server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let fresh = v1::Policy { etag: first.etag.clone(), ..timeout("b", "service-b", 2) };
    let second = server.update(fresh).await.unwrap();
    assert_ne!(first.etag, second.etag);
    let stale = v1::Policy { etag: first.etag.clone(), ..timeout("b", "service-b", 3) };
    let (code, reason, details) = refusal(server.update(stale).await);
    assert_eq!((code, reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    assert_eq!(details.error_info().unwrap().metadata.get("current_etag"), Some(&second.etag));
    let deletion = v1::DeletePolicyRequest { name: name("b"), etag: first.etag, ..v1::DeletePolicyRequest::default() };
    assert_eq!(refusal(server.client.delete_policy(deletion).await).0, Code::Aborted);
    assert_eq!(seconds(&server.get("b").await.unwrap()), 2);
}

#[tokio::test]
async fn there_and_back_is_another_etag() {
    let mut server = Server::start().await;
    let first = server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    server.update(timeout("b", "service-b", 2)).await.unwrap();
    let back = server.update(timeout("b", "service-b", 1)).await.unwrap();
    assert_ne!(first.etag, back.etag);
}

#[tokio::test]
async fn an_equal_definition_is_no_change() {
    let mut server = Server::start().await;
    let first = server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    assert_eq!(server.update(timeout("b", "service-b", 1)).await.unwrap(), first);
    assert_eq!(server.revision().await, 1);
    assert_eq!(server.history("b").await.len(), 1);
}

#[tokio::test]
async fn a_mask_leaves_the_rest_alone() {
    let mut server = Server::start().await;
    let mut first = timeout("b", "service-b", 1);
    first.labels.insert("team".to_owned(), "payments".to_owned());
    server.create("b", first).await.unwrap();
    let request = |path: &str, policy: v1::Policy| v1::UpdatePolicyRequest {
        policy: Some(policy),
        update_mask: Some(prost_types::FieldMask { paths: vec![path.to_owned()] }),
        ..v1::UpdatePolicyRequest::default()
    };
    let changed = request("spec.pipeline", timeout("b", "elsewhere", 5));
    let changed = server.client.update_policy(changed).await.unwrap().into_inner();
    assert_eq!(seconds(&changed), 5);
    assert_eq!(changed.labels.get("team").map(String::as_str), Some("payments"));
    assert_eq!(changed.spec.unwrap().r#match.unwrap().target, "service-b");
    let bare =
        v1::UpdatePolicyRequest { policy: Some(timeout("b", "service-b", 6)), ..v1::UpdatePolicyRequest::default() };
    let some = server.client.update_policy(bare.clone()).await.unwrap().into_inner();
    assert_eq!((seconds(&some), some.labels.len()), (6, 1), "without a mask, what it has is taken");
    let whole = request("*", timeout("b", "service-b", 7));
    assert!(server.client.update_policy(whole).await.unwrap().into_inner().labels.is_empty(), "with *, all of it");
    server.client.update_policy(request("labels", v1::Policy { etag: String::new(), ..some })).await.unwrap();
    server.client.update_policy(bare).await.unwrap();
    let unlabelled = request("labels", v1::Policy { name: name("b"), ..v1::Policy::default() });
    let unlabelled = server.client.update_policy(unlabelled).await.unwrap().into_inner();
    assert!(unlabelled.labels.is_empty());
    assert_eq!(seconds(&unlabelled), 6);
    let (code, _, details) = refusal(server.client.update_policy(request("etag", timeout("b", "x", 1))).await);
    assert_eq!(code, Code::InvalidArgument);
    assert_eq!(crate::server::fields(&details), ["update_mask"]);
}

#[tokio::test]
async fn what_is_missing_is_told_unless_it_may_be() {
    let mut server = Server::start().await;
    let (code, reason, details) = refusal(server.update(timeout("b", "service-b", 1)).await);
    assert_eq!((code, reason.as_str()), (Code::NotFound, "POLICY_NOT_FOUND"));
    assert_eq!(details.resource_info().unwrap().resource_name, name("b"));
    assert_eq!(refusal(server.get("b").await).0, Code::NotFound);
    assert_eq!(refusal(server.delete("b").await).0, Code::NotFound);
    let deletion =
        v1::DeletePolicyRequest { name: name("b"), allow_missing: true, ..v1::DeletePolicyRequest::default() };
    server.client.delete_policy(deletion).await.unwrap();
    let upsert = v1::UpdatePolicyRequest {
        policy: Some(timeout("b", "service-b", 1)),
        allow_missing: true,
        ..v1::UpdatePolicyRequest::default()
    };
    assert_eq!(server.client.update_policy(upsert).await.unwrap().into_inner().revision, 1);
}

#[tokio::test]
async fn several_are_applied_in_one_revision_each() {
    let mut server = Server::start().await;
    server.create("a", timeout("a", "service-a", 1)).await.unwrap();
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let changes = vec![timeout("c", "service-c", 1), timeout("a", "service-a", 1), timeout("b", "service-b", 2)];
    let applied = server.apply(changes, false).await.unwrap();
    let actions: Vec<_> = applied.results.iter().map(v1::AppliedPolicy::action).collect();
    assert_eq!(actions, [Action::Created, Action::Unchanged, Action::Configured]);
    assert_eq!(applied.revision, 4);
    assert_eq!(applied.results[0].policy.as_ref().unwrap().revision, 3);
    assert!(applied.results[0].previous.is_none());
    assert_eq!(seconds(applied.results[2].previous.as_ref().unwrap()), 1);
    assert_eq!(seconds(applied.results[2].policy.as_ref().unwrap()), 2);
}

#[tokio::test]
async fn one_bad_policy_keeps_all_from_being_written() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let stale = v1::Policy { etag: "stale".to_owned(), ..timeout("b", "service-b", 2) };
    for (bad, code) in [
        (timeout("d", "service-d", 0), Code::InvalidArgument),
        (stale, Code::Aborted),
        (timeout("rival", "service-b", 1), Code::InvalidArgument),
    ] {
        let changes = vec![timeout("c", "service-c", 1), bad];
        assert_eq!(
            refusal(server.apply(changes.clone(), true).await).0,
            code,
            "validate_only fails exactly when it would"
        );
        assert_eq!(refusal(server.apply(changes, false).await).0, code);
        assert_eq!(server.revision().await, 1);
        assert_eq!(refusal(server.get("c").await).0, Code::NotFound);
    }
}

#[tokio::test]
async fn validate_only_tells_what_would_be_and_writes_nothing() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let changes = vec![timeout("b", "service-b", 2), timeout("c", "service-c", 1)];
    let tried = server.apply(changes.clone(), true).await.unwrap();
    assert_eq!(server.revision().await, 1);
    let done = server.apply(changes, false).await.unwrap();
    let told = |response: &v1::ApplyPoliciesResponse| {
        let etags = response.results.iter().map(|result| result.policy.as_ref().unwrap().etag.clone());
        (response.revision, etags.collect::<Vec<_>>())
    };
    assert_eq!(told(&tried), told(&done));
}

#[tokio::test]
async fn two_policies_can_swap_their_calls_in_one_go() {
    let mut server = Server::start().await;
    server.apply(vec![timeout("a", "x", 1), timeout("b", "y", 1)], false).await.unwrap();
    assert_eq!(refusal(server.update(timeout("a", "y", 1)).await).0, Code::InvalidArgument);
    server.apply(vec![timeout("a", "y", 1), timeout("b", "x", 1)], false).await.unwrap();
}

#[tokio::test]
async fn changes_from_many_hands_are_all_there() {
    let mut server = Server::start().await;
    let mut tasks = tokio::task::JoinSet::new();
    for number in 0..40 {
        let mut client = server.client.clone();
        tasks.spawn(async move {
            let policy = timeout(&format!("p{number}"), &format!("t{number}"), 1);
            let request = v1::UpdatePolicyRequest {
                policy: Some(policy),
                allow_missing: true,
                ..v1::UpdatePolicyRequest::default()
            };
            client.update_policy(request).await.unwrap().into_inner().revision
        });
    }
    let mut revisions = tasks.join_all().await;
    revisions.sort_unstable();
    assert_eq!(revisions, (1..=40).collect::<Vec<u64>>());
    assert_eq!(server.list("namespaces/default", 1000, "").await.unwrap().policies.len(), 40);
}

#[tokio::test]
async fn the_history_names_who_changed_it() {
    let mut server = Server::start().await;
    server.create("b", timeout("b", "service-b", 1)).await.unwrap();
    let mut request = Request::new(v1::UpdatePolicyRequest {
        policy: Some(timeout("b", "service-b", 2)),
        message: "calmer".to_owned(),
        ..v1::UpdatePolicyRequest::default()
    });
    request.metadata_mut().insert("x-fusebox-author", "ada".parse().unwrap());
    server.client.update_policy(request).await.unwrap();
    let history = server.history("b").await;
    assert_eq!((history[0].author.as_str(), history[0].message.as_str()), ("ada", "calmer"));
    assert_eq!(history[1].author, "127.0.0.1");
}
