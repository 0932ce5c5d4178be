//! How far a policy has got: which of the connected replicas run it.

use fusebox_proto::{
    sync::v1::{self as sync, sync_request::Message as Up},
    v1,
};

use crate::server::Server;

async fn status(server: &Server) -> v1::PolicyStatus {
    let request = v1::GetPolicyRequest { name: "namespaces/default/policies/b".to_owned() };
    server.policies().get_policy(request).await.unwrap().into_inner().status.unwrap()
}

#[tokio::test]
async fn a_policy_is_reconciling_until_every_replica_runs_it() {
    let server = Server::start().await;
    let policy = server.apply("b", "service-b").await;
    assert_eq!(status(&server).await, v1::PolicyStatus::default());
    let up = server.replica("service-a", "a-1", "").await;
    let now = status(&server).await;
    assert_eq!((now.reconciling, now.instances, now.current), (true, 1, 0));
    let ack = sync::Ack { revision: policy.revision, ..sync::Ack::default() };
    up.send(sync::SyncRequest { message: Some(Up::Ack(ack)) }).await.unwrap();
    while status(&server).await.reconciling {
        tokio::task::yield_now().await;
    }
    let list = v1::ListPoliciesRequest { parent: "namespaces/default".to_owned(), ..Default::default() };
    let listed = server.policies().list_policies(list).await.unwrap().into_inner().policies.remove(0).status.unwrap();
    assert_eq!((listed.instances, listed.current, listed.rejecting), (1, 1, 0));
    let asked = v1::ResolvePolicyRequest {
        parent: "namespaces/default".to_owned(),
        service: "service-a".to_owned(),
        target: "service-b".to_owned(),
        ..Default::default()
    };
    let resolved = server.policies().resolve_policy(asked.clone()).await.unwrap().into_inner();
    assert_eq!((resolved.instances, resolved.instances_current), (1, 1));
    // An override counts before any replica holds the breaker.
    let force = v1::ForceBreakerRequest {
        selector: Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() }),
        state: v1::FleetState::ForcedOpen.into(),
        reason: "drill".to_owned(),
        duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..v1::ForceBreakerRequest::default()
    };
    server.breakers().force_breaker(force).await.unwrap();
    let resolved = server.policies().resolve_policy(asked).await.unwrap().into_inner();
    let breaker = resolved.strategies.iter().find(|one| one.kind == "circuitBreaker").unwrap();
    assert!(breaker.notes.iter().any(|note| note.contains("forced open by override 1: drill")), "{breaker:?}");
}
