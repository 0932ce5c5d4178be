//! `fusebox.sync.v1.SyncService`.

use std::pin::Pin;

use fusebox_policy::{CallerName, Namespace, invalid::Faults};
use fusebox_proto::sync::v1::{
    FetchSnapshotRequest, FetchSnapshotResponse, SyncRequest, SyncResponse, sync_service_server::SyncService,
};
use futures_util::Stream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status, Streaming};

use super::{principal, status, within::Within};
use crate::{
    access::Role,
    sessions::{self, Context, feed::concerns},
};

/// The service.
#[derive(Debug)]
pub struct SyncApi {
    context: Context,
}

impl SyncApi {
    /// Over what sessions need.
    #[must_use]
    pub const fn new(context: Context) -> Self {
        Self { context }
    }
}

#[tonic::async_trait]
impl SyncService for SyncApi {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<SyncResponse, Status>> + Send>>;

    async fn sync(&self, request: Request<Streaming<SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        if self.context.shutdown.has_begun() {
            return Err(status::unavailable("the server is shutting down"));
        }
        let principal = principal(&request)?;
        let (out, messages) = tokio::sync::mpsc::channel(sessions::QUEUE);
        tokio::spawn(sessions::run(self.context.clone(), principal, request.into_inner(), out));
        Ok(Response::new(Box::pin(ReceiverStream::new(messages))))
    }

    async fn fetch_snapshot(
        &self,
        request: Request<FetchSnapshotRequest>,
    ) -> Result<Response<FetchSnapshotResponse>, Status> {
        let (principal, within) = (principal(&request)?, Within::of(&request)?);
        let FetchSnapshotRequest { namespace, service } = request.into_inner();
        let mut faults = Faults::new();
        let namespace = faults.take("namespace", Namespace::try_new(&namespace));
        let caller = faults.take("service", CallerName::try_new(&service));
        let (namespace, caller) =
            faults.into_result(namespace.zip(caller)).map_err(|invalid| status::invalid_request(&invalid))?;
        if matches!(principal.role, Role::Agent { .. }) && !principal.speaks_for(&namespace, &caller) {
            return Err(status::not_own_service(&principal, namespace.as_str(), caller.as_str()));
        }
        within.check(&namespace)?;
        let snapshot = self.context.policies.hub().current();
        Ok(Response::new(FetchSnapshotResponse {
            store_id: snapshot.store_id.clone(),
            revision: snapshot.revision.0,
            policies: snapshot
                .policies
                .iter()
                .filter(|stored| concerns(stored, &namespace, &caller))
                .map(|stored| stored.wire.clone())
                .collect(),
        }))
    }
}
