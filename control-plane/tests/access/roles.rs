//! Each RPC by each role, over the wire.

use std::collections::BTreeMap;

use fusebox_control_plane::access::rules::{Rule, TABLE};
use fusebox_proto::{
    sync::v1 as sync,
    v1::{self, Role},
};
use http::uri::PathAndQuery;
use tonic::{Code, Request, Status};

use crate::server::{Caller, Server, reason, refusal};

/// Calls any RPC with an empty message, which every service takes or refuses for its content. What is told is the code that came first.
async fn call(caller: &Caller, path: &str) -> Result<(), Status> {
    let mut raw = caller.raw.clone();
    raw.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<(), ()>::default();
    let path: PathAndQuery = path.parse().unwrap();
    let streamed = raw.streaming(Request::new(futures_util::stream::iter([()])), path, codec);
    let mut answer =
        tokio::time::timeout(crate::server::LIMIT, streamed).await.expect("an answer in time")?.into_inner();
    match tokio::time::timeout(std::time::Duration::from_millis(200), answer.message()).await {
        Ok(Err(status)) => Err(status),
        // A message, an end, or a stream that waits for something to tell.
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[tokio::test]
async fn each_role_reaches_what_the_table_allows_and_nothing_else() {
    let server = Server::with_tokens().await;
    let roles = [Role::Viewer, Role::Operator, Role::Admin, Role::Agent];
    let mut callers = BTreeMap::new();
    for role in roles {
        let agent = (role == Role::Agent).then_some("service-a");
        let name = role.as_str_name().to_lowercase().replace('_', "-");
        let (_, secret) = server.token(&name, role, agent).await;
        callers.insert(role.as_str_name(), server.caller(Some(&secret)).await);
    }
    let stranger = server.caller(None).await;
    for row in TABLE {
        let path = format!("/{}/{}", row.service, row.method);
        let open = row.service == "grpc.health.v1.Health" && row.method == "Check";
        let code = call(&stranger, &path).await.err().map(|status| status.code());
        // From the twentieth on it is not even looked at.
        let stopped = matches!(code, Some(Code::Unauthenticated | Code::ResourceExhausted));
        assert_eq!(stopped, !open, "{path} by a stranger: {code:?}");
        for (role, caller) in &callers {
            let answer = call(caller, &path).await;
            let denied = answer.as_ref().is_err_and(|status| status.code() == Code::PermissionDenied);
            let may = match (row.rule, *role) {
                (Rule::Everyone, _) | (Rule::Known, _) | (Rule::AgentOrViewer, _) => true,
                (Rule::Agent, role) => role == "ROLE_AGENT",
                (Rule::Viewer, role) => role != "ROLE_AGENT",
                (Rule::Operator, role) => role == "ROLE_OPERATOR" || role == "ROLE_ADMIN",
                (Rule::Admin, role) => role == "ROLE_ADMIN",
            };
            assert_eq!(denied, !may, "{path} by {role}: {answer:?}");
            assert!(!matches!(&answer, Err(status) if status.code() == Code::Unauthenticated), "{path} by {role}");
        }
    }
    server.stop().await;
}

#[tokio::test]
async fn permission_is_checked_before_existence_and_says_what_is_missing() {
    let server = Server::with_tokens().await;
    let (_, secret) = server.token("reader", Role::Viewer, None).await;
    let mut reader = server.caller(Some(&secret)).await;
    let name = "namespaces/default/policies/none".to_owned();
    let request = v1::DeletePolicyRequest { name: name.clone(), ..v1::DeletePolicyRequest::default() };
    let (code, reason, details) = refusal(reader.policies.delete_policy(request).await);
    assert_eq!((code, reason.as_str()), (Code::PermissionDenied, "ROLE_INSUFFICIENT"));
    let facts = &details.error_info().unwrap().metadata;
    assert_eq!((facts["principal"].as_str(), facts["role"].as_str()), ("reader", "viewer"));
    assert_eq!(reader.policies.get_policy(v1::GetPolicyRequest { name }).await.unwrap_err().code(), Code::NotFound);
    server.stop().await;
}

#[tokio::test]
async fn an_agent_speaks_for_its_own_service_only() {
    let server = Server::with_tokens().await;
    let (_, secret) = server.token("cart", Role::Agent, Some("service-a")).await;
    let mut agent = server.caller(Some(&secret)).await;
    let (_up, mut down) = agent.sync("service-a").await.unwrap();
    assert!(matches!(down.message().await.unwrap().unwrap().message, Some(sync::sync_response::Message::Welcome(_))));
    let (_up, mut down) = agent.sync("service-b").await.unwrap();
    assert_eq!(reason(down.message().await), (Code::PermissionDenied, "NOT_OWN_SERVICE".to_owned()));
    let fetch =
        |service: &str| sync::FetchSnapshotRequest { namespace: "default".to_owned(), service: service.to_owned() };
    agent.sync.fetch_snapshot(fetch("service-a")).await.unwrap();
    let refused = agent.sync.fetch_snapshot(fetch("service-b")).await;
    assert_eq!(reason(refused), (Code::PermissionDenied, "NOT_OWN_SERVICE".to_owned()));
    let other = sync::FetchSnapshotRequest { namespace: "other".to_owned(), ..fetch("service-a") };
    assert_eq!(reason(agent.sync.fetch_snapshot(other).await).0, Code::PermissionDenied);
    let instances = server.admin().await.fleet.list_instances(v1::ListInstancesRequest::default()).await.unwrap();
    assert!(instances.into_inner().instances.iter().all(|instance| instance.service == "service-a"));
    server.stop().await;
}

#[tokio::test]
async fn what_the_table_does_not_know_is_not_served() {
    let server = Server::with_tokens().await;
    let admin = server.admin().await;
    for path in ["/fusebox.v1.PolicyService/Nothing", "/other.Service/Method"] {
        let answer = call(&admin, path).await;
        assert_eq!(reason(answer), (Code::Unimplemented, "METHOD_UNKNOWN".to_owned()));
    }
    server.stop().await;
}

#[tokio::test]
async fn everybody_who_is_known_may_ask_what_they_may() {
    let server = Server::with_tokens().await;
    let (_, secret) = server.token("reader", Role::Viewer, None).await;
    let mut reader = server.caller(Some(&secret)).await;
    let mut ask = async |verb: &str, kind: &str| {
        let request = v1::CheckAccessRequest { verb: verb.to_owned(), r#type: kind.to_owned() };
        reader.admin.check_access(request).await.map(|answer| answer.into_inner().allowed)
    };
    assert!(ask("list", "policies").await.unwrap());
    assert!(!ask("apply", "policies").await.unwrap());
    assert!(ask("apply", "nothing").await.unwrap_err().message().contains("must be one of"));
    assert!(ask("eat", "policies").await.unwrap_err().message().contains("apply"));
    let who = reader.who().await.unwrap();
    assert_eq!((who.name.as_str(), who.role(), who.method.as_str()), ("reader", Role::Viewer, "token"));
    server.stop().await;
}
