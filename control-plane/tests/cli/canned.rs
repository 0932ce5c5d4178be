//! A control plane with a fixed fleet: three replicas of service A, one breaker. Its levers work.

use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{Arc, Mutex},
};

use fusebox_proto::v1::{self, breaker_service_server as breakers, fleet_service_server as fleet};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status};
use tonic_types::{ErrorDetails, StatusExt as _};

type Answer<T> = Result<Response<T>, Status>;
type Events<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// A server for one test; it ends with the test's runtime.
#[derive(Clone, Debug)]
pub(crate) struct Canned {
    breaker: Arc<Mutex<v1::Breaker>>,
    pub(crate) address: String,
}

/// The name of the one breaker.
pub(crate) const BREAKER: &str = "breakers/default/service-a/service-b/circuit-breaker/service-b/-";

impl Canned {
    pub(crate) async fn start() -> Self {
        let listener = tokio::net::TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0))).await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let own = Self { breaker: Arc::new(Mutex::new(breaker())), address };
        let router = tonic::transport::Server::builder()
            .add_service(breakers::BreakerServiceServer::new(own.clone()))
            .add_service(fleet::FleetServiceServer::new(own.clone()));
        tokio::spawn(router.serve_with_incoming(TcpListenerStream::new(listener)));
        own
    }

    fn set(&self, state: v1::FleetState, word: Option<v1::Override>) {
        let mut breaker = self.breaker.lock().unwrap();
        breaker.fleet_state = state.into();
        breaker.r#override = word;
    }

    fn now(&self) -> v1::Breaker {
        self.breaker.lock().unwrap().clone()
    }
}

fn breaker() -> v1::Breaker {
    let replica = |name: &str, state: v1::LocalState| v1::InstanceBreaker {
        instance: name.to_owned(),
        zone: "eu-1".to_owned(),
        local_state: state.into(),
        window_calls: 20,
        window_failures: 12,
        eligible: true,
        acknowledged: true,
        ..v1::InstanceBreaker::default()
    };
    v1::Breaker {
        name: BREAKER.to_owned(),
        key: Some(v1::BreakerKey {
            namespace: "default".to_owned(),
            caller: "service-a".to_owned(),
            policy: "service-b".to_owned(),
            strategy: "circuit-breaker".to_owned(),
            target: "service-b".to_owned(),
            zone: String::new(),
        }),
        fleet_state: v1::FleetState::Open.into(),
        reason: "2 of 3 replicas are open".to_owned(),
        evidence: Some(v1::Evidence { eligible: 3, open_voters: 2, witnesses: 2, ..v1::Evidence::default() }),
        instances: vec![
            replica("a-1", v1::LocalState::Open),
            replica("a-2", v1::LocalState::Open),
            replica("a-3", v1::LocalState::Closed),
        ],
        half_open_in: Some(prost_types::Duration { seconds: 3, nanos: 0 }),
        term: 2,
        rev: 5,
        mode: "balanced".to_owned(),
        ..v1::Breaker::default()
    }
}

fn transition(id: u64, from: &str, to: &str) -> v1::BreakerTransition {
    v1::BreakerTransition {
        id,
        key: breaker().key,
        instance: if id == 2 { String::new() } else { format!("a-{id}") },
        from: from.to_owned(),
        to: to.to_owned(),
        cause: "failure_rate".to_owned(),
        time: Some(prost_types::Timestamp { seconds: 1_800_000_000 + i64::try_from(id).unwrap(), nanos: 0 }),
        ..v1::BreakerTransition::default()
    }
}

/// A stream that stays open after what it has to tell.
fn events<T: Send + 'static>(items: Vec<T>) -> Events<T> {
    Box::pin(tokio_stream::iter(items.into_iter().map(Ok)).chain(tokio_stream::pending()))
}

#[tonic::async_trait]
impl breakers::BreakerService for Canned {
    type WatchBreakersStream = Events<v1::WatchBreakersResponse>;
    type WatchBreakerTransitionsStream = Events<v1::BreakerTransition>;

    async fn list_breakers(&self, _: Request<v1::ListBreakersRequest>) -> Answer<v1::ListBreakersResponse> {
        Ok(Response::new(v1::ListBreakersResponse { breakers: vec![self.now()], ..Default::default() }))
    }

    async fn get_breaker(&self, _: Request<v1::GetBreakerRequest>) -> Answer<v1::Breaker> {
        Ok(Response::new(self.now()))
    }

    async fn explain_breaker(&self, _: Request<v1::ExplainBreakerRequest>) -> Answer<v1::ExplainBreakerResponse> {
        let ago = |seconds| Some(prost_types::Duration { seconds, nanos: 0 });
        let decision = |guard: &str, seconds, times| v1::BreakerDecision {
            since: ago(seconds),
            until: ago(3),
            times,
            from: v1::FleetState::Released.into(),
            to: v1::FleetState::Open.into(),
            cause: "quorum".to_owned(),
            guard: guard.to_owned(),
            detail: "2 of 3 eligible replicas are open, 2 needed".to_owned(),
            evidence: breaker().evidence,
            witnesses: breaker()
                .instances
                .into_iter()
                .take(2)
                .map(|own| v1::InstanceBreaker { mute: guard.to_owned(), ..own })
                .collect(),
            term: 3,
            rev: if guard.is_empty() { 17 } else { 0 },
        };
        Ok(Response::new(v1::ExplainBreakerResponse {
            breaker: Some(self.now()),
            mode: "frozen".to_owned(),
            mode_ends_in: ago(9),
            suspicion: "stall".to_owned(),
            decisions: vec![decision("", 3, 1), decision("startup_grace", 8, 5)],
        }))
    }

    async fn watch_breakers(&self, _: Request<v1::WatchBreakersRequest>) -> Answer<Self::WatchBreakersStream> {
        use v1::watch_breakers_response::Event;
        let steps = [Event::Upserted(self.now()), Event::Synced(true), Event::Deleted(BREAKER.to_owned())];
        let steps = steps.map(|event| v1::WatchBreakersResponse { event: Some(event) });
        // This one ends, as a server does that shuts down.
        Ok(Response::new(Box::pin(tokio_stream::iter(steps.map(Ok)))))
    }

    async fn force_breaker(&self, request: Request<v1::ForceBreakerRequest>) -> Answer<v1::Override> {
        let request = request.into_inner();
        if request.reason.trim().is_empty() {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation("reason", "is required");
            let text = "the request is not valid";
            return Err(Status::with_error_details(tonic::Code::InvalidArgument, text, details));
        }
        let word = v1::Override {
            selector: request.selector.clone(),
            state: request.state,
            reason: request.reason.clone(),
            remaining: request.duration,
            id: 1,
            acknowledged: 2,
            unacknowledged: vec!["a-3".to_owned()],
            ..v1::Override::default()
        };
        if !request.validate_only {
            self.set(request.state(), Some(word.clone()));
        }
        Ok(Response::new(word))
    }

    async fn release_breaker(&self, _: Request<v1::ReleaseBreakerRequest>) -> Answer<v1::ReleaseBreakerResponse> {
        match self.now().r#override {
            Some(word) => {
                self.set(v1::FleetState::Released, None);
                Ok(Response::new(v1::ReleaseBreakerResponse { released: vec![word] }))
            }
            None => Err(Status::not_found("no override is in force for this selector")),
        }
    }

    async fn get_override(&self, _: Request<v1::GetOverrideRequest>) -> Answer<v1::Override> {
        let word = self.now().r#override;
        word.map(Response::new).ok_or_else(|| Status::not_found("there is no override"))
    }

    async fn list_overrides(&self, _: Request<v1::ListOverridesRequest>) -> Answer<v1::ListOverridesResponse> {
        Ok(Response::new(v1::ListOverridesResponse {
            overrides: self.now().r#override.into_iter().collect(),
            ..Default::default()
        }))
    }

    async fn list_breaker_transitions(
        &self,
        request: Request<v1::ListBreakerTransitionsRequest>,
    ) -> Answer<v1::ListBreakerTransitionsResponse> {
        // Two pages, newest first.
        let (transitions, next_page_token) = match request.into_inner().page_token.as_str() {
            "" => (vec![transition(3, "closed", "open"), transition(2, "released", "open")], "2".to_owned()),
            _ => (vec![transition(1, "closed", "open")], String::new()),
        };
        Ok(Response::new(v1::ListBreakerTransitionsResponse { transitions, next_page_token }))
    }

    async fn watch_breaker_transitions(
        &self,
        _: Request<v1::WatchBreakerTransitionsRequest>,
    ) -> Answer<Self::WatchBreakerTransitionsStream> {
        Ok(Response::new(events(vec![transition(1, "closed", "open"), transition(2, "released", "open")])))
    }
}

#[tonic::async_trait]
impl fleet::FleetService for Canned {
    type WatchFleetStream = Events<v1::WatchFleetResponse>;

    async fn list_instances(&self, _: Request<v1::ListInstancesRequest>) -> Answer<v1::ListInstancesResponse> {
        let replica = |number: u64| v1::Instance {
            name: format!("services/service-a/instances/a-{number}"),
            service: "service-a".to_owned(),
            instance: format!("a-{number}"),
            namespace: "default".to_owned(),
            applied_revision: 40 + number,
            wanted_revision: 43,
            sdk_version: "0.1.0".to_owned(),
            ..v1::Instance::default()
        };
        Ok(Response::new(v1::ListInstancesResponse { instances: (1..=3).map(replica).collect(), ..Default::default() }))
    }

    async fn list_services(&self, _: Request<v1::ListServicesRequest>) -> Answer<v1::ListServicesResponse> {
        let service = v1::Service {
            name: "services/service-a".to_owned(),
            service: "service-a".to_owned(),
            instances: 3,
            behind: 2,
            revisions: [(41, 1), (42, 1), (43, 1)].into(),
            targets: vec!["service-b".to_owned()],
            ..v1::Service::default()
        };
        Ok(Response::new(v1::ListServicesResponse { services: vec![service], ..Default::default() }))
    }

    async fn get_service(&self, _: Request<v1::GetServiceRequest>) -> Answer<v1::Service> {
        Err(Status::not_found("no such service"))
    }

    async fn get_instance(&self, _: Request<v1::GetInstanceRequest>) -> Answer<v1::Instance> {
        Err(Status::not_found("no such replica"))
    }

    async fn watch_fleet(&self, _: Request<v1::WatchFleetRequest>) -> Answer<Self::WatchFleetStream> {
        Ok(Response::new(events(vec![])))
    }

    async fn get_server_info(&self, _: Request<v1::GetServerInfoRequest>) -> Answer<v1::ServerInfo> {
        Ok(Response::new(v1::ServerInfo { version: "9.9.9".to_owned(), term: 2, ..v1::ServerInfo::default() }))
    }
}
