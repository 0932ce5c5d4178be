//! A whole server on a free port, and what programs read from its refusals.

use std::sync::Arc;

use fusebox_control_plane::{
    config::Limits,
    serve::serve,
    shutdown::Shutdown,
    store::{StoreHandle, memory::MemoryStore},
};
use fusebox_proto::{
    manifest,
    sync::v1::{self as sync, sync_request::Message as Up, sync_service_client::SyncServiceClient},
    v1::{
        self, breaker_service_client::BreakerServiceClient, fleet_service_client::FleetServiceClient,
        policy_service_client::PolicyServiceClient,
    },
};
use tokio::{net::TcpListener, sync::mpsc};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Code, Status, transport::Channel};
use tonic_types::{ErrorDetails, StatusExt};

pub(crate) struct Server {
    pub(crate) channel: Channel,
    shutdown: Shutdown,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_on(Arc::new(MemoryStore::new("api")), Limits::default()).await
    }

    pub(crate) async fn start_on(store: StoreHandle, limits: Limits) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let end = shutdown.clone();
        tokio::spawn(async move {
            serve(TcpListenerStream::new(listener), store, limits, end).await.unwrap();
        });
        let channel = Channel::from_shared(address).unwrap().connect().await.unwrap();
        Self { channel, shutdown }
    }

    pub(crate) fn breakers(&self) -> BreakerServiceClient<Channel> {
        BreakerServiceClient::new(self.channel.clone())
    }

    pub(crate) fn policies(&self) -> PolicyServiceClient<Channel> {
        PolicyServiceClient::new(self.channel.clone())
    }

    /// Defines a policy with a circuit breaker for all calls to a target.
    pub(crate) async fn apply(&self, id: &str, target: &str) -> v1::Policy {
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: {id} }}\nspec:\n  match: {{ target: {target} }}\n  \
             pipeline: [{{ retry: {{}} }}, {{ circuitBreaker: {{}} }}]\n"
        );
        let policies = vec![v1::Policy::from(&manifest::parse("test", &text).unwrap().remove(0).policy)];
        let request = v1::ApplyPoliciesRequest { policies, ..v1::ApplyPoliciesRequest::default() };
        let answer = self.policies().apply_policies(request).await.unwrap().into_inner();
        answer.results.into_iter().next().unwrap().policy.unwrap()
    }

    pub(crate) fn fleet(&self) -> FleetServiceClient<Channel> {
        FleetServiceClient::new(self.channel.clone())
    }

    /// A replica of a service that stays connected as long as what is returned lives.
    pub(crate) async fn replica(&self, service: &str, instance: &str, zone: &str) -> mpsc::Sender<sync::SyncRequest> {
        let hello = sync::Hello {
            protocol: 1,
            namespace: "default".to_owned(),
            service: service.to_owned(),
            instance: instance.to_owned(),
            incarnation: 1,
            zone: zone.to_owned(),
            ..sync::Hello::default()
        };
        let (up, messages) = mpsc::channel(64);
        up.send(sync::SyncRequest { message: Some(Up::Hello(hello)) }).await.unwrap();
        let mut client = SyncServiceClient::new(self.channel.clone());
        let mut down = client.sync(ReceiverStream::new(messages)).await.unwrap().into_inner();
        // Welcomed: it is counted from here on.
        down.message().await.unwrap().unwrap();
        tokio::spawn(async move { while let Ok(Some(_)) = down.message().await {} });
        up
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shutdown.begin();
    }
}

/// What programs read from a refusal: code, reason, details.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, ErrorDetails) {
    let status = result.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "fusebox");
    (status.code(), info.reason.clone(), details)
}
