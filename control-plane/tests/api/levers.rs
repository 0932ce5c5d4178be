//! Overrides of breakers: set and ended once, however often they are asked for.

use fusebox_proto::v1;
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
