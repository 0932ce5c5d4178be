//! Lists of what is live: pages, filters, sums.

use fusebox_proto::v1;
use tonic::Code;

use crate::server::{Server, refusal};

#[tokio::test]
async fn replicas_are_listed_in_pages_by_name() {
    let server = Server::start().await;
    let mut connected = Vec::new();
    for number in 0..5 {
        connected.push(server.replica("service-a", &format!("a-{number}"), "eu-1").await);
    }
    let mut token = String::new();
    let mut pages = Vec::new();
    loop {
        let request = v1::ListInstancesRequest { page_size: 2, page_token: token, ..Default::default() };
        let page = server.fleet().list_instances(request).await.unwrap().into_inner();
        pages.push(page.instances.iter().map(|one| one.instance.clone()).collect::<Vec<_>>().join(" "));
        token = page.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(pages, ["a-0 a-1", "a-2 a-3", "a-4"]);
}

#[tokio::test]
async fn replicas_and_services_are_found_by_what_they_are() {
    let server = Server::start().await;
    let _a = server.replica("service-a", "a-1", "eu-1").await;
    let _b = server.replica("service-a", "a-2", "us-1").await;
    let _c = server.replica("service-c", "c-1", "eu-1").await;
    let found = async |filter: &str| {
        let request = v1::ListInstancesRequest { filter: filter.to_owned(), ..Default::default() };
        let answer = server.fleet().list_instances(request).await.unwrap().into_inner();
        answer.instances.iter().map(|one| one.instance.clone()).collect::<Vec<_>>()
    };
    assert_eq!(found("zone = eu-*").await, ["a-1", "c-1"]);
    assert_eq!(found("service = service-a AND NOT zone = eu-1").await, ["a-2"]);

    let answer = server.fleet().list_services(v1::ListServicesRequest::default()).await.unwrap().into_inner();
    let services: Vec<_> = answer.services.iter().map(|one| (one.service.as_str(), one.instances)).collect();
    assert_eq!(services, [("service-a", 2), ("service-c", 1)]);
    let request = v1::GetServiceRequest { name: "services/service-a".to_owned() };
    let one = server.fleet().get_service(request).await.unwrap().into_inner();
    assert_eq!(one.zones, [("eu-1".to_owned(), 1), ("us-1".to_owned(), 1)].into());
    let (code, reason, _) =
        refusal(server.fleet().get_service(v1::GetServiceRequest { name: "services/x".to_owned() }).await);
    assert_eq!((code, reason.as_str()), (Code::NotFound, "SERVICE_NOT_FOUND"));
}

#[tokio::test]
async fn overrides_are_listed_in_pages() {
    let server = Server::start().await;
    for number in 0..3 {
        let request = v1::ForceBreakerRequest {
            selector: Some(v1::BreakerKey { target: format!("t{number}"), ..v1::BreakerKey::default() }),
            state: v1::FleetState::ForcedOpen.into(),
            reason: "drill".to_owned(),
            duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
            ..v1::ForceBreakerRequest::default()
        };
        server.breakers().force_breaker(request).await.unwrap();
    }
    let request = |filter: &str, page_token: String| v1::ListOverridesRequest {
        page_size: 2,
        page_token,
        filter: filter.to_owned(),
    };
    let first = server.breakers().list_overrides(request("", String::new())).await.unwrap().into_inner();
    let second = server.breakers().list_overrides(request("", first.next_page_token)).await.unwrap().into_inner();
    assert_eq!((first.overrides.len(), second.overrides.len()), (2, 1));
    assert_eq!(second.next_page_token, "");
    let found = server.breakers().list_overrides(request("target = t1", String::new())).await.unwrap().into_inner();
    assert_eq!(found.overrides.len(), 1);
}

/// Whether a page that can't be had is refused for its token.
fn token_is_refused<T: std::fmt::Debug>(answer: Result<T, tonic::Status>) {
    let (code, _, details) = refusal(answer);
    let bad = details.bad_request().unwrap().field_violations[0].field.clone();
    assert_eq!((code, bad.as_str()), (Code::InvalidArgument, "page_token"));
}

#[tokio::test]
async fn a_token_of_another_list_is_refused() {
    let server = Server::start().await;
    let _replicas = (server.replica("a", "1", "").await, server.replica("a", "2", "").await);
    let first = v1::ListInstancesRequest { page_size: 1, ..Default::default() };
    let token = server.fleet().list_instances(first.clone()).await.unwrap().into_inner().next_page_token;
    let next = v1::ListInstancesRequest { page_token: token.clone(), ..first };
    let larger = v1::ListInstancesRequest { page_size: 7, ..next.clone() };
    assert_eq!(server.fleet().list_instances(larger).await.unwrap().into_inner().instances[0].instance, "2");
    for other in [
        v1::ListInstancesRequest { service: "a".to_owned(), ..next.clone() },
        v1::ListInstancesRequest { filter: "zone = x".to_owned(), ..next.clone() },
        v1::ListInstancesRequest { page_token: "made up".to_owned(), ..next.clone() },
        v1::ListInstancesRequest { page_token: "AAAA".to_owned(), ..next },
    ] {
        token_is_refused(server.fleet().list_instances(other).await);
    }
    let request = v1::ListBreakersRequest { page_token: token.clone(), ..Default::default() };
    token_is_refused(server.breakers().list_breakers(request).await);
    let request = v1::ListOverridesRequest { page_token: token.clone(), ..Default::default() };
    token_is_refused(server.breakers().list_overrides(request).await);
    let request = v1::ListServicesRequest { page_token: token, ..Default::default() };
    token_is_refused(server.fleet().list_services(request).await);
}

#[tokio::test]
async fn one_override_is_read_by_its_name_as_long_as_it_is_in_force() {
    let server = Server::start().await;
    let selector = Some(v1::BreakerKey { target: "service-b".to_owned(), ..v1::BreakerKey::default() });
    let request = v1::ForceBreakerRequest {
        selector: selector.clone(),
        state: v1::FleetState::ForcedOpen.into(),
        reason: "drill".to_owned(),
        duration: Some(prost_types::Duration { seconds: 60, nanos: 0 }),
        ..v1::ForceBreakerRequest::default()
    };
    let forced = server.breakers().force_breaker(request).await.unwrap().into_inner();
    let get = v1::GetOverrideRequest { name: forced.name.clone() };
    let found = server.breakers().get_override(get.clone()).await.unwrap().into_inner();
    assert_eq!((found.etag, found.reason.as_str()), (forced.etag, "drill"));
    let release = v1::ReleaseBreakerRequest { selector, reason: "over".to_owned(), ..Default::default() };
    server.breakers().release_breaker(release).await.unwrap();
    assert_eq!(refusal(server.breakers().get_override(get).await).1, "OVERRIDE_NOT_FOUND");
}

#[tokio::test]
async fn what_grows_by_itself_can_not_be_waited_for() {
    let server = Server::start().await;
    let _a = server.replica("service-a", "a-1", "eu-1").await;
    let listed = v1::ListInstancesRequest { filter: "connected_for >= 0s".to_owned(), ..Default::default() };
    assert_eq!(server.fleet().list_instances(listed).await.unwrap().into_inner().instances.len(), 1);
    for field in ["connected_for", "last_seen"] {
        let request = v1::WatchFleetRequest { filter: format!("{field} > 5m"), ..Default::default() };
        let (code, reason, _) = refusal(server.fleet().watch_fleet(request).await.map(|_| ()));
        assert_eq!((code, reason.as_str()), (Code::InvalidArgument, "FILTER_INVALID"), "{field}");
    }
}
