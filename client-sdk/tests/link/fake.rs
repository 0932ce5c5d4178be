//! A control plane that says what the test says, over pipes in memory, so that paused time reaches both ends.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fusebox::{Client, Policy, Status};
use fusebox_proto::{
    duration::to_wire,
    manifest,
    sync::v1::{
        self as sync,
        sync_request::Message as Up,
        sync_response::Message as Down,
        sync_service_server::{SyncService, SyncServiceServer},
    },
    v1,
};
use hyper_util::rt::TokioIo;
use tokio::{io::DuplexStream, sync::mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Streaming, transport::Endpoint};

pub(crate) const HEARTBEAT: Duration = Duration::from_secs(1);
pub(crate) const LEASE: Duration = Duration::from_secs(3);
/// Long enough for anything that happens at all; on paused time it costs nothing.
const LIMIT: Duration = Duration::from_secs(120);

/// The control plane.
pub(crate) struct Fake {
    pub(crate) sessions: mpsc::Receiver<Session>,
    pub(crate) connect: mpsc::Sender<io::Result<DuplexStream>>,
    pub(crate) up: Arc<AtomicBool>,
    pub(crate) dials: Arc<std::sync::atomic::AtomicU32>,
}

/// One stream.
pub(crate) struct Session {
    pub(crate) hello: sync::Hello,
    requests: Streaming<sync::SyncRequest>,
    pub(crate) responses: mpsc::Sender<Result<sync::SyncResponse, tonic::Status>>,
}

struct Service {
    sessions: mpsc::Sender<Session>,
}

#[tonic::async_trait]
impl SyncService for Service {
    type SyncStream = ReceiverStream<Result<sync::SyncResponse, tonic::Status>>;

    async fn sync(
        &self,
        request: Request<Streaming<sync::SyncRequest>>,
    ) -> Result<Response<Self::SyncStream>, tonic::Status> {
        let mut requests = request.into_inner();
        let (responses, stream) = mpsc::channel(16);
        let sessions = self.sessions.clone();
        tokio::spawn(async move {
            let first = requests.message().await;
            if let Ok(Some(sync::SyncRequest { message: Some(Up::Hello(hello)) })) = first {
                let _ = sessions.send(Session { hello, requests, responses }).await;
            }
        });
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_snapshot(
        &self,
        _request: Request<sync::FetchSnapshotRequest>,
    ) -> Result<Response<sync::FetchSnapshotResponse>, tonic::Status> {
        Err(tonic::Status::unimplemented("not part of the script"))
    }
}

impl Fake {
    pub(crate) fn start() -> Self {
        let (sessions_sender, sessions) = mpsc::channel(4);
        let (connect, incoming) = mpsc::channel(4);
        let service = SyncServiceServer::new(Service { sessions: sessions_sender });
        tokio::spawn(
            tonic::transport::Server::builder().add_service(service).serve_with_incoming(ReceiverStream::new(incoming)),
        );
        Self { sessions, connect, up: Arc::new(AtomicBool::new(true)), dials: Arc::default() }
    }

    /// A builder of clients that reach this control plane.
    pub(crate) fn client(&self) -> fusebox::ClientBuilder {
        let (connect, up, dials) = (self.connect.clone(), Arc::clone(&self.up), Arc::clone(&self.dials));
        Client::builder("service-a").instance("a-1").control_plane("http://control-plane:7443").dial_with(
            move |endpoint: &Endpoint| {
                let (connect, up, dials) = (connect.clone(), Arc::clone(&up), Arc::clone(&dials));
                endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                    let (connect, up, dials) = (connect.clone(), Arc::clone(&up), Arc::clone(&dials));
                    async move {
                        dials.fetch_add(1, Ordering::Relaxed);
                        if !up.load(Ordering::Relaxed) {
                            return Err(io::Error::from(io::ErrorKind::ConnectionRefused));
                        }
                        let (near, far) = tokio::io::duplex(64 * 1024);
                        connect.send(Ok(far)).await.map_err(io::Error::other)?;
                        Ok(TokioIo::new(near))
                    }
                }))
            },
        )
    }

    /// The next stream, not yet welcomed.
    pub(crate) async fn session(&mut self) -> Session {
        tokio::time::timeout(LIMIT, self.sessions.recv()).await.expect("a stream comes in time").unwrap()
    }

    /// The next stream, welcomed.
    pub(crate) async fn welcomed(&mut self, term: u64) -> Session {
        let mut session = self.session().await;
        session.welcome(term).await;
        session
    }
}

impl Session {
    pub(crate) async fn say(&mut self, message: Down) {
        self.responses.send(Ok(sync::SyncResponse { message: Some(message) })).await.unwrap();
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(self, status: tonic::Status) {
        self.responses.send(Err(status)).await.unwrap();
    }

    pub(crate) async fn welcome(&mut self, term: u64) {
        self.welcome_from("store", term).await;
    }

    pub(crate) async fn welcome_from(&mut self, store_id: &str, term: u64) {
        self.welcome_as(store_id, term, 0).await;
    }

    pub(crate) async fn welcome_as(&mut self, store_id: &str, term: u64, run_id: u64) {
        self.say(Down::Welcome(sync::Welcome {
            store_id: store_id.to_owned(),
            term,
            heartbeat_interval: Some(to_wire(HEARTBEAT)),
            lease: Some(to_wire(LEASE)),
            server_version: "fake".to_owned(),
            run_id,
        }))
        .await;
    }

    pub(crate) async fn begin(&mut self, revision: u64, policies: Vec<v1::Policy>) {
        self.say(Down::SnapshotBegin(sync::SnapshotBegin { revision })).await;
        for policy in policies {
            self.say(Down::PolicyChunk(sync::PolicyChunk { policies: vec![policy] })).await;
        }
    }

    pub(crate) async fn end(&mut self, revision: u64, policies: u32) {
        self.say(Down::SnapshotEnd(sync::SnapshotEnd { revision, policies, empty_is_meant: false })).await;
    }

    /// A whole snapshot; returns the answer.
    pub(crate) async fn snapshot(&mut self, revision: u64, policies: Vec<v1::Policy>) -> sync::Ack {
        let count = u32::try_from(policies.len()).unwrap();
        self.begin(revision, policies).await;
        self.end(revision, count).await;
        self.until("an ack", |message| {
            if let Up::Ack(ack) = message
                && ack.revision == revision
            {
                Some(ack)
            } else {
                None
            }
        })
        .await
    }

    /// The first message that `wanted` takes; heartbeats on the way are answered if `term` is given.
    pub(crate) async fn until<T>(&mut self, what: &str, mut wanted: impl FnMut(Up) -> Option<T>) -> T {
        let found = tokio::time::timeout(LIMIT, async {
            loop {
                let message = self.requests.message().await.unwrap().expect("the stream goes on");
                if let Some(found) = message.message.and_then(&mut wanted) {
                    return found;
                }
            }
        });
        found.await.unwrap_or_else(|_| panic!("{what} comes in time"))
    }

    pub(crate) async fn heartbeat(&mut self) -> sync::Heartbeat {
        self.until("a heartbeat", |message| if let Up::Heartbeat(heartbeat) = message { Some(heartbeat) } else { None })
            .await
    }

    /// Whether the client has ended the stream.
    pub(crate) async fn ended(&mut self) -> bool {
        let end = tokio::time::timeout(LIMIT, async { while let Ok(Some(_)) = self.requests.message().await {} });
        end.await.is_ok()
    }

    pub(crate) async fn acknowledged(&mut self) -> sync::VerdictAck {
        self.until("a verdict's ack", |message| if let Up::VerdictAck(ack) = message { Some(ack) } else { None }).await
    }
}

/// A policy of this pipeline for service-b, as the store gave it out at a revision.
pub(crate) fn policy(revision: u64, pipeline: &str) -> v1::Policy {
    v1::Policy { revision, ..v1::Policy::from(&domain(pipeline)) }
}

pub(crate) fn domain(pipeline: &str) -> Policy {
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
         coordination: {{ scope: fleet }}\n  pipeline:\n{pipeline}"
    );
    manifest::parse("test", &text).unwrap().remove(0).policy
}

/// The key of its breaker.
pub(crate) fn key() -> v1::BreakerKey {
    v1::BreakerKey {
        namespace: "default".to_owned(),
        caller: "service-a".to_owned(),
        policy: "service-b".to_owned(),
        strategy: "circuit-breaker".to_owned(),
        target: "service-b".to_owned(),
        zone: String::new(),
    }
}

/// Waits until the client shows something.
pub(crate) async fn shown(client: &Client, what: &str, wanted: impl Fn(&Status) -> bool) -> Status {
    for _ in 0..12_000 {
        let status = client.status();
        if wanted(&status) {
            return status;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{what}: {:?}", client.status());
}
