//! Lists, page by page.

use fusebox_proto::v1;
use tonic::Code;

use crate::server::{Server, fields, refusal, timeout};

async fn with_policies(count: usize) -> Server {
    let mut server = Server::start().await;
    let policies = (0..count).map(|number| timeout(&format!("p{number:02}"), &format!("t{number}"), 1)).collect();
    server.apply(policies, false).await.unwrap();
    server
}

fn ids(response: &v1::ListPoliciesResponse) -> Vec<&str> {
    response.policies.iter().map(|policy| policy.name.rsplit('/').next().unwrap()).collect()
}

#[tokio::test]
async fn pages_are_of_one_revision_whatever_happens_in_between() {
    let mut server = with_policies(5).await;
    let first = server.list("namespaces/default", 2, "").await.unwrap();
    assert_eq!((ids(&first), first.revision), (vec!["p00", "p01"], 5));
    server.delete("p03").await.unwrap();
    server.create("p00a", timeout("p00a", "new", 1)).await.unwrap();
    let second = server.list("namespaces/default", 2, &first.next_page_token).await.unwrap();
    assert_eq!((ids(&second), second.revision), (vec!["p02", "p03"], 5));
    let third = server.list("namespaces/default", 2, &second.next_page_token).await.unwrap();
    assert_eq!((ids(&third), third.next_page_token.as_str()), (vec!["p04"], ""));
    let anew = server.list("namespaces/default", 0, "").await.unwrap();
    assert_eq!((ids(&anew), anew.revision), (vec!["p00", "p00a", "p01", "p02", "p04"], 7));
}

#[tokio::test]
async fn a_reader_that_is_too_slow_is_told_to_begin_again() {
    let mut server = with_policies(3).await;
    let first = server.list("namespaces/default", 2, "").await.unwrap();
    for round in 2..40 {
        server.update(timeout("p00", "t0", round)).await.unwrap();
    }
    assert_eq!(refusal(server.list("namespaces/default", 2, &first.next_page_token).await).0, Code::Aborted);
}

#[tokio::test]
async fn a_list_shows_what_its_filter_admits_in_full_pages() {
    let mut server = with_policies(6).await;
    let labels = [("team".to_owned(), "payments".to_owned())];
    for id in ["p01", "p03", "p05"] {
        server.update(v1::Policy { labels: labels.clone().into(), ..timeout(id, id, 1) }).await.unwrap();
    }
    let mut request = v1::ListPoliciesRequest {
        parent: "namespaces/-".to_owned(),
        page_size: 2,
        filter: "labels.team = payments AND target = p*".to_owned(),
        ..v1::ListPoliciesRequest::default()
    };
    let first = server.client.list_policies(request.clone()).await.unwrap().into_inner();
    assert_eq!(ids(&first), ["p01", "p03"]);
    request.page_token = first.next_page_token;
    let second = server.client.list_policies(request.clone()).await.unwrap().into_inner();
    assert_eq!((ids(&second), second.next_page_token.as_str()), (vec!["p05"], ""));

    request.filter = "labels.team = payments AND targt = x".to_owned();
    let (code, reason, details) = refusal(server.client.list_policies(request).await);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "FILTER_INVALID"));
    assert_eq!(details.error_info().unwrap().metadata["position"], "28");
    assert_eq!(fields(&details), ["filter"]);
}

#[tokio::test]
async fn a_history_is_filtered_across_pages() {
    let mut server = with_policies(1).await;
    for round in 2..=9 {
        server.update(timeout("p00", "t0", round)).await.unwrap();
    }
    server.rollback("p00", 0).await.unwrap();
    let request = |filter: &str, page_size| v1::ListPolicyRevisionsRequest {
        name: crate::server::name("p00"),
        filter: filter.to_owned(),
        page_size,
        ..v1::ListPolicyRevisionsRequest::default()
    };
    let found = server.client.list_policy_revisions(request("action = CREATE", 1)).await.unwrap().into_inner();
    assert_eq!(found.revisions.iter().map(|own| own.revision).collect::<Vec<_>>(), [1]);
    assert_eq!(found.next_page_token, "");
    let found = server.client.list_policy_revisions(request("revision < 9", 2)).await.unwrap().into_inner();
    assert_eq!(found.revisions.iter().map(|own| own.revision).collect::<Vec<_>>(), [8, 7]);
    let rest = v1::ListPolicyRevisionsRequest { page_token: found.next_page_token, ..request("revision < 9", 2) };
    let found = server.client.list_policy_revisions(rest).await.unwrap().into_inner();
    assert_eq!(found.revisions.iter().map(|own| own.revision).collect::<Vec<_>>(), [6, 5]);
}

#[tokio::test]
async fn a_list_is_of_one_namespace_or_of_all_in_order() {
    let mut server = with_policies(1).await;
    // "a-b" comes before "a/" as text, and after "a" as a name.
    for (namespace, id) in [("a-b", "x"), ("a", "y"), ("a", "z")] {
        let name = format!("namespaces/{namespace}/policies/{id}");
        server.apply(vec![v1::Policy { name, ..timeout(id, id, 1) }], false).await.unwrap();
    }
    let mut names = Vec::new();
    let mut token = String::new();
    loop {
        let page = server.list("namespaces/-", 1, &token).await.unwrap();
        names.extend(page.policies.iter().map(|policy| policy.name.clone()));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    let expected = ["a/policies/y", "a/policies/z", "a-b/policies/x", "default/policies/p00"];
    assert_eq!(names, expected.map(|rest| format!("namespaces/{rest}")));
    assert_eq!(ids(&server.list("namespaces/a", 0, "").await.unwrap()), ["y", "z"]);
    assert!(server.list("namespaces/none", 0, "").await.unwrap().policies.is_empty());
    let name = "namespaces/a-b/policies/x".to_owned();
    assert_eq!(
        server.client.get_policy(v1::GetPolicyRequest { name: name.clone() }).await.unwrap().into_inner().name,
        name
    );
}

#[tokio::test]
async fn page_sizes_are_capped_and_never_negative() {
    let mut server = with_policies(3).await;
    assert_eq!(server.list("namespaces/default", i32::MAX, "").await.unwrap().policies.len(), 3);
    let (code, _, details) = refusal(server.list("namespaces/default", -1, "").await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["page_size".to_owned()]));
    let (code, _, details) = refusal(server.list("namespaces/default", 1, "made up").await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["page_token".to_owned()]));
}
