//! Overrides of breakers: set and ended once, however often they are asked for.

use fusebox_proto::{
    sync::v1::{self as sync, sync_service_client::SyncServiceClient},
    v1,
};
use tonic::Code;

use crate::server::{Server, refusal};

fn force(id: &str, seconds: i64) -> v1::ForceBreakerRequest {
    v1::ForceBreakerRequest {
        selector: Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() }),
        state: v1::FleetState::ForcedOpen.into(),
        reason: "drill".to_owned(),
        duration: Some(prost_types::Duration { seconds, nanos: 0 }),
        request_id: id.to_owned(),
        ..v1::ForceBreakerRequest::default()
    }
}

fn release(id: &str, validate_only: bool) -> v1::ReleaseBreakerRequest {
    v1::ReleaseBreakerRequest {
        selector: force("", 1).selector,
        reason: "over".to_owned(),
        request_id: id.to_owned(),
        validate_only,
        ..v1::ReleaseBreakerRequest::default()
    }
}

async fn in_force(server: &Server) -> Vec<u64> {
    let answer = server.breakers().list_overrides(v1::ListOverridesRequest::default()).await.unwrap().into_inner();
    answer.overrides.iter().map(|own| own.id).collect()
}

#[tokio::test]
async fn an_override_that_is_asked_for_again_is_set_once_and_ended_once() {
    const SET: &str = "6f1c0a52-7d0e-4c3b-9a68-000000000001";
    const END: &str = "6f1c0a52-7d0e-4c3b-9a68-000000000002";
    let server = Server::start().await;
    let first = server.breakers().force_breaker(force(SET, 60)).await.unwrap().into_inner();
    let again = server.breakers().force_breaker(force(SET, 60)).await.unwrap().into_inner();
    assert_eq!((again.id, again.create_time), (first.id, first.create_time));
    assert!(again.remaining.is_some(), "it is in force, and shown so");
    assert_eq!(in_force(&server).await, [first.id]);
    let (code, reason, _) = refusal(server.breakers().force_breaker(force(SET, 61)).await);
    assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "REQUEST_ID_REUSED"));

    let tried = server.breakers().release_breaker(release("", true)).await.unwrap().into_inner();
    assert_eq!((tried.released.len(), in_force(&server).await.len()), (1, 1), "only told");
    for _ in 0..2 {
        let ended = server.breakers().release_breaker(release(END, false)).await.unwrap().into_inner();
        assert_eq!(ended.released.iter().map(|own| own.id).collect::<Vec<_>>(), [first.id]);
    }
    assert!(in_force(&server).await.is_empty());
    let after = server.breakers().force_breaker(force(SET, 60)).await.unwrap().into_inner();
    assert_eq!((after.id, after.remaining), (first.id, None), "what is over does not come back");
    assert!(in_force(&server).await.is_empty());
    assert_eq!(refusal(server.breakers().release_breaker(release("", false)).await).0, Code::NotFound);
}

#[tokio::test]
async fn an_override_is_replaced_and_ended_only_by_who_has_seen_it() {
    const AGAIN: &str = "6f1c0a52-7d0e-4c3b-9a68-000000000003";
    let server = Server::start().await;
    let mut breakers = server.breakers();
    let only_if = |etag: &str| v1::ForceBreakerRequest { etag: etag.to_owned(), ..force("", 60) };
    let first = breakers.force_breaker(only_if("0")).await.unwrap().into_inner();
    assert_eq!((first.name.as_str(), first.etag.len()), ("overrides/1", 32));
    let (code, reason, details) = refusal(breakers.force_breaker(only_if("0")).await);
    assert_eq!((code, reason.as_str()), (Code::Aborted, "ETAG_MISMATCH"));
    assert_eq!(details.error_info().unwrap().metadata["current_etag"], first.etag);

    let by_id = v1::ForceBreakerRequest { request_id: AGAIN.to_owned(), ..only_if(&first.etag) };
    let second = breakers.force_breaker(by_id.clone()).await.unwrap().into_inner();
    assert_ne!(second.etag, first.etag);
    let again = breakers.force_breaker(by_id).await.unwrap().into_inner();
    assert_eq!(again.etag, second.etag, "the request itself is nobody else");
    let tried = v1::ForceBreakerRequest { validate_only: true, ..only_if(&first.etag) };
    assert_eq!(refusal(breakers.force_breaker(tried).await).1, "ETAG_MISMATCH");

    for validate_only in [true, false] {
        let late = v1::ReleaseBreakerRequest { etag: first.etag.clone(), ..release("", validate_only) };
        assert_eq!(refusal(breakers.release_breaker(late).await).1, "ETAG_MISMATCH");
    }
    let seen = v1::ReleaseBreakerRequest { etag: second.etag.clone(), ..release("", false) };
    assert_eq!(breakers.release_breaker(seen).await.unwrap().into_inner().released.len(), 1);
    assert!(in_force(&server).await.is_empty());
}

#[tokio::test]
async fn whoever_asks_what_becomes_of_a_call_is_told_what_each_override_does() {
    let server = Server::start().await;
    server.apply("b", "service-b").await;
    let table = [
        (v1::FleetState::ForcedOpen, "forced open"),
        (v1::FleetState::ForcedClosed, "forced closed"),
        (v1::FleetState::Disabled, "disabled"),
    ];
    for (state, told) in table {
        let set = v1::ForceBreakerRequest { state: state.into(), ..force("", 60) };
        let id = server.breakers().force_breaker(set).await.unwrap().into_inner().id;
        let request = v1::ResolvePolicyRequest {
            parent: "namespaces/default".to_owned(),
            service: "service-a".to_owned(),
            target: "service-b".to_owned(),
            ..v1::ResolvePolicyRequest::default()
        };
        let answer = server.policies().resolve_policy(request).await.unwrap().into_inner();
        let breaker = answer.strategies.iter().find(|own| own.kind == "circuitBreaker").unwrap();
        assert_eq!(breaker.notes, [format!("{told} by override {id}: drill")]);
    }
}

#[tokio::test]
async fn bad_fields_of_what_holds_no_policy_are_those_of_a_bad_request() {
    let server = Server::start().await;
    let invalid = (Code::InvalidArgument, "REQUEST_INVALID".to_owned());
    let said = |(code, reason, _)| (code, reason);
    let endless = v1::ForceBreakerRequest { duration: None, ..force("", 60) };
    assert_eq!(said(refusal(server.breakers().force_breaker(endless).await)), invalid);
    let unexplained = v1::ReleaseBreakerRequest { reason: String::new(), ..release("", false) };
    assert_eq!(said(refusal(server.breakers().release_breaker(unexplained).await)), invalid);

    let mut replicas = SyncServiceClient::new(server.channel.clone());
    let nameless = sync::FetchSnapshotRequest { namespace: "default".to_owned(), service: String::new() };
    assert_eq!(said(refusal(replicas.fetch_snapshot(nameless).await)), invalid);
    let hello = sync::Hello { protocol: 1, namespace: "default".to_owned(), ..sync::Hello::default() };
    let hello = sync::SyncRequest { message: Some(sync::sync_request::Message::Hello(hello)) };
    let mut stream = replicas.sync(tokio_stream::iter([hello])).await.unwrap().into_inner();
    assert_eq!(said(refusal(stream.message().await)), invalid);
}
