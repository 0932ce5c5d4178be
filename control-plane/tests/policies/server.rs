//! A server on a free port, and short words for requests.

use std::{sync::Arc, time::Duration};

use fusebox_control_plane::{
    access::{self, Access, gate::gate, tokens::Tokens},
    fleet::Fleet,
    grpc::policies::PolicyApi,
    hub::{Hub, REMEMBERED},
    policies::Policies,
    shutdown::Shutdown,
    store::{Quota, StoreHandle, sqlite::SqliteStore},
};
use fusebox_proto::v1::{self, policy_service_client::PolicyServiceClient, policy_service_server::PolicyServiceServer};
use tempfile::TempDir;
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Code, Status, service::Routes, transport::Channel};
use tonic_types::{ErrorDetails, StatusExt};

/// Nothing here takes long; what takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(20);

pub(crate) type Client = PolicyServiceClient<Channel>;

pub(crate) struct Server {
    pub(crate) client: Client,
    pub(crate) hub: Hub,
    pub(crate) shutdown: Shutdown,
    folder: TempDir,
    task: JoinHandle<()>,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), REMEMBERED, Quota::default()).await
    }

    /// Whose namespaces take so much.
    pub(crate) async fn start_with(quota: Quota) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), REMEMBERED, quota).await
    }

    /// With another length of memory for watches that resume.
    pub(crate) async fn start_remembering(changes: usize) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), changes, Quota::default()).await
    }

    async fn start_in(folder: TempDir, changes: usize, quota: Quota) -> Self {
        let store: StoreHandle = Arc::new(SqliteStore::open(folder.path()).await.unwrap().with_quota(quota));
        let hub = Hub::start_remembering(&store, changes).await.unwrap();
        let shutdown = Shutdown::new();
        let fleet = Fleet::start(Arc::clone(&store), hub.clone(), shutdown.clone()).await.unwrap();
        // Nobody is asked, and everybody passes the gate all the same: it says who calls.
        let access = Access::new(access::Settings::default(), Tokens::load(Arc::clone(&store)).await.unwrap());
        let api = PolicyApi::new(Policies::new(store, hub.clone()), fleet, shutdown.clone());
        let router = Routes::new(PolicyServiceServer::new(api)).into_axum_router();
        let router = router.layer(axum::middleware::from_fn_with_state(access, gate));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let end = shutdown.begun();
        let task = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .add_routes(Routes::from(router))
                .serve_with_incoming_shutdown(TcpListenerStream::new(listener), end)
                .await
                .unwrap();
        });
        let client = PolicyServiceClient::connect(format!("http://{address}")).await.unwrap();
        Self { client, hub, shutdown, folder, task }
    }

    /// Ends, and starts again on the same data.
    pub(crate) async fn restart(self) -> Self {
        let Self { client, hub, shutdown, folder, task } = self;
        drop((client, hub));
        shutdown.begin();
        tokio::time::timeout(LIMIT, task).await.unwrap().unwrap();
        Self::start_in(folder, REMEMBERED, Quota::default()).await
    }

    pub(crate) async fn create(&mut self, id: &str, policy: v1::Policy) -> Result<v1::Policy, Status> {
        let request = v1::CreatePolicyRequest {
            parent: "namespaces/default".to_owned(),
            policy_id: id.to_owned(),
            policy: Some(policy),
            ..v1::CreatePolicyRequest::default()
        };
        self.client.create_policy(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn update(&mut self, policy: v1::Policy) -> Result<v1::Policy, Status> {
        let request = v1::UpdatePolicyRequest { policy: Some(policy), ..v1::UpdatePolicyRequest::default() };
        self.client.update_policy(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn get(&mut self, id: &str) -> Result<v1::Policy, Status> {
        let request = v1::GetPolicyRequest { name: name(id) };
        self.client.get_policy(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn delete(&mut self, id: &str) -> Result<(), Status> {
        let request = v1::DeletePolicyRequest { name: name(id), ..v1::DeletePolicyRequest::default() };
        self.client.delete_policy(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn apply(
        &mut self,
        policies: Vec<v1::Policy>,
        validate_only: bool,
    ) -> Result<v1::ApplyPoliciesResponse, Status> {
        let request = v1::ApplyPoliciesRequest { policies, validate_only, ..v1::ApplyPoliciesRequest::default() };
        self.client.apply_policies(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn rollback(&mut self, id: &str, revision: u64) -> Result<v1::Policy, Status> {
        let request = v1::RollbackPolicyRequest { name: name(id), revision, ..v1::RollbackPolicyRequest::default() };
        self.client.rollback_policy(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn list(
        &mut self,
        parent: &str,
        page_size: i32,
        page_token: &str,
    ) -> Result<v1::ListPoliciesResponse, Status> {
        let (parent, page_token) = (parent.to_owned(), page_token.to_owned());
        let request = v1::ListPoliciesRequest { parent, page_size, page_token, ..v1::ListPoliciesRequest::default() };
        self.client.list_policies(request).await.map(tonic::Response::into_inner)
    }

    pub(crate) async fn history(&mut self, id: &str) -> Vec<v1::PolicyRevision> {
        let request = v1::ListPolicyRevisionsRequest { name: name(id), ..v1::ListPolicyRevisionsRequest::default() };
        self.client.list_policy_revisions(request).await.unwrap().into_inner().revisions
    }

    /// The store's revision, as a list shows it.
    pub(crate) async fn revision(&mut self) -> u64 {
        self.list("namespaces/-", 1, "").await.unwrap().revision
    }
}

pub(crate) fn name(id: &str) -> String {
    format!("namespaces/default/policies/{id}")
}

/// A policy for all calls to a target.
pub(crate) fn timeout(id: &str, target: &str, seconds: i64) -> v1::Policy {
    let duration = Some(prost_types::Duration { seconds, nanos: 0 });
    let kind = v1::strategy::Kind::Timeout(v1::Timeout { duration, ..v1::Timeout::default() });
    v1::Policy {
        name: name(id),
        spec: Some(v1::PolicySpec {
            r#match: Some(v1::Selector { target: target.to_owned(), ..v1::Selector::default() }),
            pipeline: vec![v1::Strategy { name: String::new(), kind: Some(kind) }],
            ..v1::PolicySpec::default()
        }),
        ..v1::Policy::default()
    }
}

/// The seconds of its timeout.
pub(crate) fn seconds(policy: &v1::Policy) -> i64 {
    let strategy = policy.spec.as_ref().unwrap().pipeline.first().unwrap();
    let Some(v1::strategy::Kind::Timeout(timeout)) = &strategy.kind else { panic!("not a timeout: {strategy:?}") };
    timeout.duration.unwrap().seconds
}

/// What programs read from a refusal: code, reason, details.
pub(crate) fn refusal<T: std::fmt::Debug>(result: Result<T, Status>) -> (Code, String, ErrorDetails) {
    let status = result.unwrap_err();
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "fusebox");
    (status.code(), info.reason.clone(), details)
}

/// The fields of a refusal's violations.
pub(crate) fn fields(details: &ErrorDetails) -> Vec<String> {
    details.bad_request().unwrap().field_violations.iter().map(|violation| violation.field.clone()).collect()
}
