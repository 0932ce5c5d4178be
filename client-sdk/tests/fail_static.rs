//! Whatever the control plane does, calls go on as they did: a table of faults, each held for ten minutes of virtual time.
//!
//! Before the fault an honest server has given a policy; during it every call runs under that policy; after it the honest server is back
//! and its next revision takes effect. A process that starts during the fault has the policy given in code, and starts at once.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

#[path = "link/fake.rs"]
#[expect(dead_code, reason = "the tests of the link use the rest")]
mod fake;

use std::{
    convert::Infallible,
    future::{Ready, ready},
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use fusebox::{Client, ClientBuilder, PolicySource};
use fusebox_proto::{
    duration::to_wire,
    sync::v1::{self as sync, sync_response::Message as Down},
    v1,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream},
    sync::{mpsc, watch},
};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, server::NamedService, transport::Endpoint};

use self::fake::{Fake, LEASE, Session, domain, key, policy, shown};

/// A second attempt is how a test sees that a policy is in force.
const TWICE: &str = "    - retry: { maxAttempts: 2, budget: none, backoff: { fixed: { delay: 1ms } } }\n    - circuitBreaker: { trip: { consecutiveFailures: 1000 } }\n";
const OTHER: &str = "    - timeout: { duration: 1s }\n";

/// What a control plane may do.
#[derive(Clone, Debug)]
enum Fault {
    /// Nobody listens.
    Absent,
    /// Connections are taken, and nothing is ever said or read.
    BlackHole,
    /// Connections are taken and closed.
    Hangup,
    /// What comes is no HTTP.
    Noise,
    /// A byte in a second.
    Drip,
    /// HTTP/2, with this head and body as the answer to everything.
    Raw { status: u16, kind: &'static str, body: Vec<u8> },
    /// A stream that ends with an error.
    Refuses(Code),
    /// A stream on which a server of this database says this, over and over, after its welcome.
    Says { what: &'static str, store: &'static str, messages: fn() -> Vec<Down> },
    /// A server that welcomes in a strange way, and then gives an older set.
    Welcomes(sync::Welcome),
    /// A server that welcomes and is silent.
    Silent,
}

fn frame(length: u32, body: &[u8]) -> Vec<u8> {
    [&[0], length.to_be_bytes().as_slice(), body].concat()
}

fn whole(revision: u64, policies: Vec<v1::Policy>) -> Vec<Down> {
    let end = sync::SnapshotEnd { revision, policies: u32::try_from(policies.len()).unwrap(), empty_is_meant: false };
    vec![
        Down::SnapshotBegin(sync::SnapshotBegin { revision }),
        Down::PolicyChunk(sync::PolicyChunk { policies }),
        Down::SnapshotEnd(end),
    ]
}

fn welcome(store_id: &str, term: u64, millis: u64) -> sync::Welcome {
    let span = Some(to_wire(Duration::from_millis(millis)));
    sync::Welcome { store_id: store_id.to_owned(), term, heartbeat_interval: span, lease: span, ..Default::default() }
}

fn faults() -> Vec<Fault> {
    let grpc = "application/grpc";
    let says = |what, messages| Fault::Says { what, store: "store", messages };
    let other = |what, messages| Fault::Says { what, store: "another", messages };
    let raw = |status, kind, body| Fault::Raw { status, kind, body };
    let mut faults = vec![
        Fault::Absent,
        Fault::BlackHole,
        Fault::Hangup,
        Fault::Noise,
        Fault::Drip,
        raw(500, "text/html", b"<html>".to_vec()),
        raw(200, "text/html", b"<html>".to_vec()),
        raw(200, grpc, Vec::new()),
        raw(200, grpc, frame(5, &[0xff; 5])),
        raw(200, grpc, frame(u32::MAX, &[1; 100])),
        raw(200, grpc, frame(5 << 20, &vec![0; 5 << 20])),
        raw(200, grpc, [&[9][..], &frame(3, b"abc")[1..]].concat()),
        Fault::Silent,
        Fault::Welcomes(welcome("store", u64::MAX, 1000)),
        Fault::Welcomes(welcome("", 1, 1000)),
        Fault::Welcomes(welcome("store", 1, 0)),
        Fault::Welcomes(sync::Welcome::default()),
        says("goodbye", || vec![Down::GoAway(sync::GoAway { delay: None, reason: "again".to_owned() })]),
        other("an empty set", || whole(9, vec![])),
        other("nothing was ever written", || whole(0, vec![])),
        says("an older set", || whole(6, vec![policy(6, OTHER)])),
        says("a policy that can't be", || whole(9, vec![v1::Policy { spec: None, ..policy(9, OTHER) }])),
        says("half a set", || whole(9, vec![policy(9, OTHER)])[..2].to_vec()),
        says("a set of another size", || {
            let end = sync::SnapshotEnd { revision: 9, policies: 7, empty_is_meant: true };
            vec![Down::SnapshotBegin(sync::SnapshotBegin { revision: 9 }), Down::SnapshotEnd(end)]
        }),
        says("a change of what is not held", || {
            let deleted = vec!["namespaces/default/policies/service-b".to_owned()];
            vec![Down::Delta(sync::Delta { from_revision: 99, revision: 100, upserted: vec![], deleted })]
        }),
        says("a change into the past", || {
            let deleted = vec!["namespaces/default/policies/service-b".to_owned()];
            vec![Down::Delta(sync::Delta { from_revision: 7, revision: 1, upserted: vec![], deleted })]
        }),
        says("verdicts from nowhere", || {
            let verdict = sync::Verdict {
                key: Some(key()),
                term: u64::MAX,
                rev: u64::MAX,
                state: v1::FleetState::Open.into(),
                lease: Some(to_wire(LEASE)),
                policy_revision: 7,
                ..sync::Verdict::default()
            };
            vec![Down::Verdict(verdict.clone()), Down::Verdict(sync::Verdict { state: 99, term: 1, ..verdict })]
        }),
        says("answers to what was not asked", || {
            vec![
                Down::HeartbeatAck(sync::HeartbeatAck { seq: 99, term: u64::MAX, rev: 1, lease: None }),
                Down::Canvass(sync::Canvass { id: 1, key: None }),
                Down::ProbePermit(sync::ProbePermit::default()),
                Down::Overrides(sync::OverrideSet {
                    version: 1,
                    term: 1,
                    overrides: vec![sync::Override::default()],
                    anchor_seq: 0,
                }),
            ]
        }),
    ];
    faults.extend((1..=16).map(|code| Fault::Refuses(Code::from(code))));
    faults
}

/// Answers every request in the same way.
#[derive(Clone)]
struct Raw {
    status: u16,
    kind: &'static str,
    body: Vec<u8>,
}

impl NamedService for Raw {
    const NAME: &'static str = "fusebox.sync.v1.SyncService";
}

impl<B> tower::Service<http::Request<B>> for Raw {
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = Ready<Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Request<B>) -> Self::Future {
        let body = tonic::body::Body::new(http_body_util::Full::new(bytes::Bytes::from(self.body.clone())));
        let answer = http::Response::builder().status(self.status).header("content-type", self.kind).body(body);
        ready(Ok(answer.unwrap()))
    }
}

type Connections = mpsc::Sender<io::Result<DuplexStream>>;

/// Where connections go: to the honest server, or to the fault.
#[derive(Clone)]
struct World {
    honest: Connections,
    faulty: Option<Connections>,
    faulted: watch::Sender<bool>,
    dials: Arc<AtomicU32>,
}

impl World {
    fn new(honest: &Fake, fault: &Fault) -> Self {
        let faulted = watch::Sender::new(false);
        let listens = !matches!(fault, Fault::Absent);
        let faulty = listens.then(|| run(fault.clone(), &faulted));
        Self { honest: honest.connect.clone(), faulty, faulted, dials: Arc::default() }
    }

    fn client(&self) -> ClientBuilder {
        let world = self.clone();
        Client::builder("service-a").instance("a-1").control_plane("http://control-plane:7443").dial_with(
            move |endpoint: &Endpoint| {
                let world = world.clone();
                endpoint.connect_with_connector_lazy(tower::service_fn(move |_| {
                    let world = world.clone();
                    async move {
                        world.dials.fetch_add(1, Ordering::Relaxed);
                        let refused = || io::Error::from(io::ErrorKind::ConnectionRefused);
                        let faulted = *world.faulted.borrow();
                        let to = if faulted { world.faulty.as_ref().ok_or_else(refused)? } else { &world.honest };
                        let (near, far) = tokio::io::duplex(64 * 1024);
                        to.send(Ok(far)).await.map_err(io::Error::other)?;
                        Ok::<_, io::Error>(TokioIo::new(near))
                    }
                }))
            },
        )
    }
}

/// Starts a control plane with a fault.
fn run(fault: Fault, faulted: &watch::Sender<bool>) -> Connections {
    let (connect, mut incoming) = mpsc::channel::<io::Result<DuplexStream>>(4);
    match fault {
        Fault::Raw { status, kind, body } => {
            let server = tonic::transport::Server::builder().add_service(Raw { status, kind, body });
            tokio::spawn(server.serve_with_incoming(ReceiverStream::new(incoming)));
        }
        Fault::Absent | Fault::BlackHole | Fault::Hangup | Fault::Noise | Fault::Drip => {
            tokio::spawn(async move {
                let mut held = Vec::new();
                while let Some(Ok(mut io)) = incoming.recv().await {
                    match fault {
                        Fault::Hangup => drop(io),
                        Fault::Noise => {
                            tokio::spawn(async move {
                                let _ = io.write_all(&[0xa5; 10_000]).await;
                                let _ = io.read_to_end(&mut Vec::new()).await;
                            });
                        }
                        Fault::Drip => {
                            tokio::spawn(async move {
                                while io.write_all(&[0]).await.is_ok() {
                                    tokio::time::sleep(Duration::from_secs(1)).await;
                                }
                            });
                        }
                        Fault::Absent
                        | Fault::BlackHole
                        | Fault::Raw { .. }
                        | Fault::Refuses(_)
                        | Fault::Says { .. }
                        | Fault::Welcomes(_)
                        | Fault::Silent => held.push(io),
                    }
                }
            });
        }
        Fault::Refuses(_) | Fault::Says { .. } | Fault::Welcomes(_) | Fault::Silent => {
            let mut fake = Fake::start();
            let connect = fake.connect.clone();
            let faulted = faulted.subscribe();
            tokio::spawn(async move {
                loop {
                    let Some(session) = fake.sessions.recv().await else { return };
                    let (fault, mut faulted) = (fault.clone(), faulted.clone());
                    tokio::spawn(async move {
                        tokio::select! {
                            () = misbehave(session, fault) => {}
                            // The faulty server is gone, and its streams with it.
                            _ = faulted.wait_for(|faulted| !*faulted) => {}
                        }
                    });
                }
            });
            return connect;
        }
    }
    connect
}

/// Says something, if anybody still listens.
async fn say(session: &Session, message: Down) -> bool {
    session.responses.send(Ok(sync::SyncResponse { message: Some(message) })).await.is_ok()
}

async fn misbehave(mut session: Session, fault: Fault) {
    match fault {
        Fault::Refuses(code) => session.fail(Status::new(code, "no")).await,
        Fault::Says { what: _, store, messages } => {
            session.welcome_from(store, 1).await;
            loop {
                for message in messages() {
                    if !say(&session, message).await {
                        return;
                    }
                }
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }
        Fault::Welcomes(welcome) => {
            say(&session, Down::Welcome(welcome)).await;
            for message in whole(6, vec![policy(6, OTHER)]) {
                say(&session, message).await;
            }
            session.ended().await;
        }
        Fault::Absent
        | Fault::BlackHole
        | Fault::Hangup
        | Fault::Noise
        | Fault::Drip
        | Fault::Raw { .. }
        | Fault::Silent => {
            session.welcome(1).await;
            session.ended().await;
        }
    }
}

/// A call that needs the policy: its first attempt fails.
async fn is_protected(client: &Client) -> bool {
    let attempts = AtomicU32::new(0);
    let operation = || {
        let first = attempts.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first { Err("down") } else { Ok(()) } }
    };
    client.target("service-b").call(operation).await.is_ok()
}

async fn holds(fault: Fault) {
    let name = if let Fault::Says { what, .. } = &fault { (*what).to_owned() } else { format!("{fault:.80?}") };
    let mut honest = Fake::start();
    let world = World::new(&honest, &fault);
    let client = world.client().start().unwrap();
    let mut session = honest.welcomed(1).await;
    session.snapshot(7, vec![policy(7, TWICE)]).await;
    assert!(is_protected(&client).await);

    world.faulted.send_replace(true);
    drop(session);
    world.dials.store(0, Ordering::Relaxed);
    let begun = tokio::time::Instant::now();
    let newcomer = world.client().builtin_policy(domain(TWICE)).start().unwrap();
    assert_eq!(begun.elapsed(), Duration::ZERO, "{name}: start waits for nothing");
    assert_eq!(newcomer.status().source, PolicySource::Builtin);
    // What this server says may be news to a process that knows nothing; it may never leave it unprotected before.
    assert!(is_protected(&newcomer).await, "{name}");
    drop(newcomer);
    while begun.elapsed() < Duration::from_secs(600) {
        tokio::time::sleep(Duration::from_secs(5)).await;
        let waits = tokio::time::Instant::now();
        assert!(is_protected(&client).await, "{name}: {:?}", client.status());
        assert!(waits.elapsed() < Duration::from_millis(100), "{name}: a call waits for the control plane");
        assert_eq!(client.status().policies[0].revision.0, 7, "{name}: {:?}", client.status());
    }
    let dials = world.dials.load(Ordering::Relaxed);
    assert!(dials <= 120, "{name}: {dials} connections in ten minutes");

    world.faulted.send_replace(false);
    let mut session = honest.welcomed(2).await;
    assert_eq!(session.hello.store_id, "store", "{name}");
    assert!(session.hello.highest_term < 1000, "{name}");
    session.snapshot(20, vec![policy(20, OTHER)]).await;
    let status = shown(&client, "the next revision", |status| status.revision.0 == 20).await;
    assert!(status.connected, "{name}");
}

#[tokio::test(start_paused = true)]
async fn no_fault_of_the_control_plane_changes_calls() {
    for fault in faults() {
        holds(fault).await;
    }
}
