//! Which policy is for a call, and why; and what becomes of it.

use fusebox_proto::v1;
use tonic::{Code, Status};

use crate::server::{Server, fields, refusal, timeout};

fn policy(id: &str, caller: &str, routes: &[&str]) -> v1::Policy {
    let mut policy = timeout(id, "service-b", 1);
    let spec = policy.spec.as_mut().unwrap();
    let selector = spec.r#match.as_mut().unwrap();
    caller.clone_into(&mut selector.caller);
    selector.routes = routes.iter().map(|route| (*route).to_owned()).collect();
    let retry = v1::strategy::Kind::Retry(v1::Retry { max_attempts: Some(3), ..v1::Retry::default() });
    spec.pipeline.insert(0, v1::Strategy { name: String::new(), kind: Some(retry) });
    policy
}

async fn resolve(server: &mut Server, service: &str, route: &str) -> Result<v1::ResolvePolicyResponse, Status> {
    let request = v1::ResolvePolicyRequest {
        parent: "namespaces/default".to_owned(),
        service: service.to_owned(),
        target: "service-b".to_owned(),
        route: route.to_owned(),
        ..v1::ResolvePolicyRequest::default()
    };
    server.client.resolve_policy(request).await.map(tonic::Response::into_inner)
}

fn told(answer: &v1::ResolvePolicyResponse) -> Vec<String> {
    let id = |name: &str| name.rsplit('/').next().unwrap().to_owned();
    let words = |one: &v1::PolicyCandidate| format!("{} {}: {}", one.matches, id(&one.name), one.reason);
    answer.candidates.iter().map(words).collect()
}

#[tokio::test]
async fn the_chain_of_candidates_says_why_each_is_where_it_is() {
    let mut server = Server::start().await;
    let all = vec![
        policy("any", "", &[]),
        policy("reads", "", &["GET /*"]),
        policy("orders", "", &["GET /orders/*"]),
        policy("shop", "shop", &[]),
        policy("pay", "", &["POST /pay"]),
    ];
    server.apply(all, false).await.unwrap();
    let answer = resolve(&mut server, "web", "GET /orders/1").await.unwrap();
    assert_eq!(
        told(&answer),
        [
            "true orders: closer than \"reads\": its route is longer",
            "true reads: \"orders\" is closer: its route is longer",
            "true any: \"orders\" is closer: it names a route",
            "false pay: it is for \"POST /pay\"",
            "false shop: it is for calls from shop",
        ]
    );
    assert_eq!(answer.candidates[0].route, "GET /orders/*");
    assert_eq!((answer.policy.unwrap().name, answer.worst_case_attempts), (crate::server::name("orders"), 3));
    let answer = resolve(&mut server, "shop", "GET /orders/1").await.unwrap();
    assert_eq!(told(&answer)[0], "true shop: closer than \"orders\": it names the caller");
    let answer = resolve(&mut server, "web", "").await.unwrap();
    assert_eq!(told(&answer)[0], "true any: the only one for this call");
    assert!(told(&answer).contains(&"false reads: it is for some routes, and the call has none".to_owned()));
}

#[tokio::test]
async fn what_may_not_be_repeated_is_said_with_the_retry() {
    let mut server = Server::start().await;
    server.create("b", policy("b", "", &[])).await.unwrap();
    let notes = |answer: &v1::ResolvePolicyResponse| answer.strategies[0].notes.len();
    assert_eq!(notes(&resolve(&mut server, "a", "GET /x").await.unwrap()), 0);
    let answer = resolve(&mut server, "a", "POST /x").await.unwrap();
    assert_eq!((answer.strategies[0].kind.as_str(), notes(&answer)), ("retry", 1));
    let request = v1::ResolvePolicyRequest {
        parent: "namespaces/default".to_owned(),
        service: "a".to_owned(),
        target: "service-b".to_owned(),
        route: "POST /x".to_owned(),
        headers: [("Idempotency-Key".to_owned(), "1".to_owned())].into(),
    };
    assert_eq!(notes(&server.client.resolve_policy(request).await.unwrap().into_inner()), 0);
}

#[tokio::test]
async fn a_call_that_no_policy_is_for_is_an_answer_and_a_bad_question_is_not() {
    let mut server = Server::start().await;
    let answer = resolve(&mut server, "a", "GET /x").await.unwrap();
    assert!(answer.policy.is_none() && answer.candidates.is_empty());
    let (code, _, details) = refusal(resolve(&mut server, "A b", "GET x").await);
    assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["service".to_owned(), "route".to_owned()]));
}

#[tokio::test]
async fn an_application_prunes_what_it_does_not_name() {
    use v1::applied_policy::Action;
    let mut server = Server::start().await;
    let labelled = |id: &str, team: &str| v1::Policy {
        labels: [("team".to_owned(), team.to_owned())].into(),
        ..timeout(id, id, 1)
    };
    server.apply(vec![labelled("a", "x"), labelled("b", "x"), labelled("c", "y")], false).await.unwrap();
    let request = |parent: &str| v1::ApplyPoliciesRequest {
        policies: vec![labelled("a", "x")],
        prune: Some(v1::Prune { parent: parent.to_owned(), labels: [("team".to_owned(), "x".to_owned())].into() }),
        ..v1::ApplyPoliciesRequest::default()
    };
    let answer = server.client.apply_policies(request("namespaces/default")).await.unwrap().into_inner();
    assert_eq!(
        answer.results.iter().map(v1::AppliedPolicy::action).collect::<Vec<_>>(),
        [Action::Unchanged, Action::Deleted]
    );
    assert_eq!(answer.results[1].previous.as_ref().unwrap().name, crate::server::name("b"));
    assert!(server.get("c").await.is_ok() && server.get("b").await.is_err());
    for bad in ["", "namespaces/-", "namespaces/"] {
        let (code, _, details) = refusal(server.client.apply_policies(request(bad)).await);
        assert_eq!((code, fields(&details)), (Code::InvalidArgument, vec!["prune.parent".to_owned()]), "{bad}");
    }
}
