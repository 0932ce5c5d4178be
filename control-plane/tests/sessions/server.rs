//! A whole server on a free port, and a replica that says what the test says.

use std::{path::Path, sync::Arc, time::Duration};

use fusebox_control_plane::{
    config::Limits,
    serve::serve,
    shutdown::Shutdown,
    store::{StoreError, StoreHandle, sqlite::SqliteStore},
};
use fusebox_proto::{
    manifest,
    sync::v1::{
        self as sync, sync_request::Message as Up, sync_response::Message as Down,
        sync_service_client::SyncServiceClient,
    },
    v1::{self, fleet_service_client::FleetServiceClient, policy_service_client::PolicyServiceClient},
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Status, Streaming, transport::Channel};

/// Nothing here takes long; what takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Server {
    pub(crate) address: String,
    pub(crate) shutdown: Shutdown,
    pub(crate) task: JoinHandle<()>,
}

impl Server {
    /// On the data in a folder.
    pub(crate) async fn start(folder: &Path) -> Self {
        Self::start_with(folder, Limits::default()).await
    }

    pub(crate) async fn start_with(folder: &Path, limits: Limits) -> Self {
        let store: StoreHandle = Arc::new(timeout(LIMIT, free(folder)).await.expect("the folder is free in time"));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let shutdown = Shutdown::new();
        let end = shutdown.clone();
        let task =
            tokio::spawn(async move { serve(TcpListenerStream::new(listener), store, limits, end).await.unwrap() });
        Self { address, shutdown, task }
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        timeout(LIMIT, self.task).await.expect("the server ends in time").unwrap();
    }

    pub(crate) async fn channel(&self) -> Channel {
        Channel::from_shared(self.address.clone()).unwrap().connect().await.unwrap()
    }

    /// Defines the policy of service-b with a timeout; returns its revision.
    pub(crate) async fn apply(&self, timeout: &str) -> Result<u64, Status> {
        let request = v1::ApplyPoliciesRequest { policies: vec![policy(timeout)], ..Default::default() };
        let mut client = PolicyServiceClient::new(self.channel().await);
        Ok(client.apply_policies(request).await?.into_inner().revision)
    }

    pub(crate) async fn info(&self) -> v1::ServerInfo {
        let mut client = FleetServiceClient::new(self.channel().await);
        client.get_server_info(v1::GetServerInfoRequest {}).await.unwrap().into_inner()
    }

    /// A replica that has said hello.
    pub(crate) async fn replica(&self, hello: sync::Hello) -> Result<Replica, Status> {
        let mut client = SyncServiceClient::new(self.channel().await);
        let (up, messages) = mpsc::channel(64);
        let hello = sync::SyncRequest { message: Some(Up::Hello(hello)) };
        up.send(hello).await.unwrap();
        let down = client.sync(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Replica { up, down })
    }
}

/// The store of a folder, as soon as the tasks of the server that had it before have let go of it.
async fn free(folder: &Path) -> SqliteStore {
    loop {
        match SqliteStore::open(folder).await {
            Err(StoreError::InUse(_)) => tokio::time::sleep(Duration::from_millis(10)).await,
            opened => return opened.unwrap(),
        }
    }
}

/// One stream.
pub(crate) struct Replica {
    up: mpsc::Sender<sync::SyncRequest>,
    pub(crate) down: Streaming<sync::SyncResponse>,
}

impl Replica {
    pub(crate) async fn next(&mut self) -> Result<Option<Down>, Status> {
        let message = timeout(LIMIT, self.down.message()).await.expect("the server says something in time")?;
        Ok(message.and_then(|message| message.message))
    }

    /// The first message that `wanted` takes.
    pub(crate) async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(Down) -> Option<T>) -> T {
        loop {
            let message = self.next().await.unwrap().unwrap_or_else(|| panic!("the stream ended before {what}"));
            if let Some(found) = wanted(message) {
                return found;
            }
        }
    }

    pub(crate) async fn welcome(&mut self) -> sync::Welcome {
        self.until("a welcome", |message| if let Down::Welcome(welcome) = message { Some(welcome) } else { None }).await
    }

    /// The policies of the next snapshot, and its end.
    pub(crate) async fn snapshot(&mut self) -> (Vec<v1::Policy>, sync::SnapshotEnd) {
        let mut policies = Vec::new();
        let end = self
            .until("the end of a snapshot", |message| {
                if let Down::PolicyChunk(chunk) = message {
                    policies.extend(chunk.policies);
                    return None;
                }
                if let Down::SnapshotEnd(end) = message { Some(end) } else { None }
            })
            .await;
        (policies, end)
    }

    /// The revision of the next update that changes something.
    pub(crate) async fn snapshot_or_delta(&mut self) -> u64 {
        self.until("an update", |message| {
            if let Down::SnapshotEnd(end) = &message {
                return (end.revision > 0).then_some(end.revision);
            }
            let Down::Delta(delta) = message else { return None };
            (delta.revision > delta.from_revision).then_some(delta.revision)
        })
        .await
    }

    pub(crate) async fn delta(&mut self) -> sync::Delta {
        self.until("a delta", |message| {
            assert!(!matches!(message, Down::SnapshotBegin(_)), "{message:?}");
            if let Down::Delta(delta) = message { Some(delta) } else { None }
        })
        .await
    }

    pub(crate) async fn say(&self, message: Up) {
        self.up.send(sync::SyncRequest { message: Some(message) }).await.unwrap();
    }
}

pub(crate) fn hello(instance: &str) -> sync::Hello {
    sync::Hello {
        protocol: 1,
        namespace: "default".to_owned(),
        service: "service-a".to_owned(),
        instance: instance.to_owned(),
        incarnation: 1,
        ..sync::Hello::default()
    }
}

pub(crate) fn policy(timeout: &str) -> v1::Policy {
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
         pipeline: [{{ timeout: {timeout} }}]\n"
    );
    v1::Policy::from(&manifest::parse("test", &text).unwrap().remove(0).policy)
}
