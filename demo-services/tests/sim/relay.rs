//! Somebody between a replica and the control plane who reads what they say and passes on something else: messages twice, late or out of
//! order, lies about what a replica has seen, or another server's words.

use std::{pin::Pin, sync::Arc};

use fusebox_proto::sync::v1::{
    FetchSnapshotRequest, FetchSnapshotResponse, SyncRequest, SyncResponse,
    sync_service_client::SyncServiceClient,
    sync_service_server::{SyncService, SyncServiceServer},
};
use futures_util::{Stream, StreamExt as _};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Endpoint, Server},
};

use crate::{
    net,
    replica::Replica,
    world::{PLANE_ADDRESS, PLANE_PORT},
};

/// What becomes of a message: none, one or many.
pub(crate) type Passes<T> = Box<dyn FnMut(T) -> Vec<T> + Send>;

/// What becomes of the messages of one stream.
pub(crate) struct Meddler {
    /// From the replica to the control plane.
    pub(crate) up: Passes<SyncRequest>,
    /// From the control plane to the replica.
    pub(crate) down: Passes<SyncResponse>,
}

impl Default for Meddler {
    fn default() -> Self {
        Self { up: Box::new(|message| vec![message]), down: Box::new(|message| vec![message]) }
    }
}

/// Who meddles with which replica: asked at the start, and for each stream again.
pub(crate) type Meddle = Arc<dyn Fn(&Replica) -> Option<Meddler> + Send + Sync>;

/// Its host.
pub(crate) fn host_of(replica: &str) -> String {
    format!("relay-{replica}")
}

/// Messages that may wait: a slow reader holds up the other end, as it would without a relay.
const WAITING: usize = 16;

/// The process.
pub(crate) async fn run(replica: Replica, meddle: Meddle) -> turmoil::Result {
    let incoming = net::incoming(PLANE_PORT, |_| None).await?;
    let relay = SyncServiceServer::new(Relay { replica, meddle });
    Server::builder().add_service(relay).serve_with_incoming(incoming).await?;
    Ok(())
}

struct Relay {
    replica: Replica,
    meddle: Meddle,
}

#[tonic::async_trait]
impl SyncService for Relay {
    type SyncStream = Pin<Box<dyn Stream<Item = Result<SyncResponse, Status>> + Send>>;

    async fn sync(&self, request: Request<Streaming<SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        let Meddler { mut up, mut down } = (self.meddle)(&self.replica).unwrap_or_default();
        let (pass, upwards) = tokio::sync::mpsc::channel(WAITING);
        let mut from_replica = request.into_inner();
        tokio::spawn(async move {
            while let Some(Ok(message)) = from_replica.next().await {
                for message in up(message) {
                    if pass.send(message).await.is_err() {
                        return;
                    }
                }
            }
        });
        let channel = Endpoint::from_static(PLANE_ADDRESS).connect_with_connector_lazy(net::connector(|| None));
        let from_plane = SyncServiceClient::new(channel).sync(ReceiverStream::new(upwards)).await?.into_inner();
        let downwards = from_plane.flat_map(move |message| {
            futures_util::stream::iter(match message {
                Ok(message) => down(message).into_iter().map(Ok).collect(),
                Err(status) => vec![Err(status)],
            })
        });
        Ok(Response::new(Box::pin(downwards)))
    }

    async fn fetch_snapshot(
        &self,
        _request: Request<FetchSnapshotRequest>,
    ) -> Result<Response<FetchSnapshotResponse>, Status> {
        Err(Status::unimplemented("replicas ask for streams"))
    }
}
