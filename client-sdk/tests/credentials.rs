//! What a client shows to the control plane, over real TLS, and what it does when it is not let in.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking; clippy knows tests, but not what they call")]

use std::{path::PathBuf, time::Duration};

use fusebox::{Client, PolicySource, SetupError, Tls};
use fusebox_proto::{
    duration::to_wire,
    manifest,
    sync::v1::{
        self as sync,
        sync_response::Message as Down,
        sync_service_server::{SyncService, SyncServiceServer},
    },
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Certificate, Identity, Server, ServerTlsConfig},
};

/// Nothing here takes long; what takes longer hangs.
const LIMIT: Duration = Duration::from_secs(30);

struct Ca(CertifiedIssuer<'static, KeyPair>);

impl Ca {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Certificate and key for a name.
    fn sign(&self, name: &str) -> (String, String) {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new([name.to_owned()]).unwrap();
        (params.signed_by(&key, &self.0).unwrap().pem(), key.serialize_pem())
    }
}

/// A stream that somebody has opened: what they showed, and a way to answer.
struct Opened {
    authorization: Option<String>,
    certificates: usize,
    answers: mpsc::Sender<Result<sync::SyncResponse, Status>>,
}

impl Opened {
    async fn welcome(&self) {
        let say = |message| self.answers.send(Ok(sync::SyncResponse { message: Some(message) }));
        let (heartbeat_interval, lease) =
            (Some(to_wire(Duration::from_secs(1))), Some(to_wire(Duration::from_secs(3))));
        let welcome =
            sync::Welcome { store_id: "store".to_owned(), term: 1, heartbeat_interval, lease, ..Default::default() };
        say(Down::Welcome(welcome)).await.unwrap();
        say(Down::SnapshotBegin(sync::SnapshotBegin { revision: 1 })).await.unwrap();
        let end = sync::SnapshotEnd { revision: 1, policies: 0, empty_is_meant: true };
        say(Down::SnapshotEnd(end)).await.unwrap();
    }
}

struct Door(mpsc::Sender<Opened>);

#[tonic::async_trait]
impl SyncService for Door {
    type SyncStream = ReceiverStream<Result<sync::SyncResponse, Status>>;

    async fn sync(&self, request: Request<Streaming<sync::SyncRequest>>) -> Result<Response<Self::SyncStream>, Status> {
        let authorization = request.metadata().get("authorization").map(|value| value.to_str().unwrap().to_owned());
        let certificates = request.peer_certs().map_or(0, |certs| certs.len());
        let (answers, stream) = mpsc::channel(16);
        // Requests are drained for as long as they come.
        let mut requests = request.into_inner();
        tokio::spawn(async move { while let Ok(Some(_)) = requests.message().await {} });
        let _ = self.0.send(Opened { authorization, certificates, answers }).await;
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn fetch_snapshot(
        &self,
        _request: Request<sync::FetchSnapshotRequest>,
    ) -> Result<Response<sync::FetchSnapshotResponse>, Status> {
        Err(Status::unimplemented("not part of the script"))
    }
}

struct ControlPlane {
    address: String,
    opened: mpsc::Receiver<Opened>,
    folder: tempfile::TempDir,
    ca: Ca,
}

impl ControlPlane {
    async fn start() -> Self {
        let (ca, folder) = (Ca::new(), tempfile::tempdir().unwrap());
        let (certificate, key) = ca.sign("localhost");
        let tls = ServerTlsConfig::new()
            .identity(Identity::from_pem(certificate, key))
            .client_ca_root(Certificate::from_pem(ca.0.pem()))
            .client_auth_optional(true);
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("https://localhost:{}", listener.local_addr().unwrap().port());
        let (door, opened) = mpsc::channel(4);
        let server = Server::builder().tls_config(tls).unwrap().add_service(SyncServiceServer::new(Door(door)));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Self { address, opened, folder, ca }
    }

    fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).unwrap();
        path
    }

    fn client(&self) -> fusebox::ClientBuilder {
        Client::builder("service-a").control_plane(&self.address)
    }

    async fn next(&mut self) -> Opened {
        timeout(LIMIT, self.opened.recv()).await.expect("somebody comes in time").unwrap()
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_and_a_certificate_are_read_anew_for_each_connection() {
    let mut plane = ControlPlane::start().await;
    let (certificate, key) = plane.ca.sign("service-a");
    let token = plane.write("token", "fbx_first\n");
    let tls = Tls::new()
        .ca_file(plane.write("ca.pem", &plane.ca.0.pem()))
        .identity_files(plane.write("own.pem", &certificate), plane.write("own.key", &key));
    let client = plane.client().tls(tls).token_file(token).start().unwrap();
    let opened = plane.next().await;
    assert_eq!((opened.authorization.as_deref(), opened.certificates), (Some("Bearer fbx_first"), 1));
    opened.welcome().await;
    assert!(client.wait_ready(LIMIT).await);
    plane.write("token", "fbx_second");
    drop(opened);
    let opened = plane.next().await;
    assert_eq!(opened.authorization.as_deref(), Some("Bearer fbx_second"));
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_that_are_missing_keep_nobody_from_calling_and_are_picked_up_when_they_come() {
    let mut plane = ControlPlane::start().await;
    let ca = plane.folder.path().join("later.pem");
    let client = plane.client().tls(Tls::new().ca_file(&ca)).token("fbx_x").start().unwrap();
    client.target("service-b").call(|| async { Ok::<_, &str>(()) }).await.unwrap();
    assert!(!client.wait_ready(Duration::from_millis(300)).await);
    plane.write("later.pem", &plane.ca.0.pem());
    let opened = plane.next().await;
    assert_eq!((opened.authorization.as_deref(), opened.certificates), (Some("Bearer fbx_x"), 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_others_have_signed_is_not_spoken_to() {
    let mut plane = ControlPlane::start().await;
    let others = Ca::new().0.pem();
    let wrong_ca = plane.client().tls(Tls::new().ca_pem(others)).token("fbx_x").start().unwrap();
    let own = plane.ca.0.pem();
    let wrong_name =
        plane.client().tls(Tls::new().ca_pem(own).server_name("elsewhere")).token("fbx_x").start().unwrap();
    assert!(timeout(Duration::from_secs(2), plane.opened.recv()).await.is_err());
    assert!(!wrong_ca.status().connected && !wrong_name.status().connected);
}

#[tokio::test(flavor = "multi_thread")]
async fn not_being_let_in_takes_no_protection_away() {
    let mut plane = ControlPlane::start().await;
    let text = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: b }\nspec:\n  match: { target: service-b }\n  \
                pipeline: [{ timeout: 1s }]\n";
    let policy = manifest::parse("test", text).unwrap().remove(0).policy;
    let tls = Tls::new().ca_pem(plane.ca.0.pem());
    let client = plane.client().tls(tls).token("fbx_x").builtin_policy(policy).start().unwrap();
    let opened = plane.next().await;
    opened.answers.send(Err(Status::unauthenticated("the credential was revoked"))).await.unwrap();
    // It does not come back for half a minute: it was told that another try will hardly change anything.
    assert!(timeout(Duration::from_secs(3), plane.opened.recv()).await.is_err());
    assert_eq!(client.status().source, PolicySource::Builtin);
    client.target("service-b").call(|| async { Ok::<_, &str>(()) }).await.unwrap();
}

#[tokio::test]
async fn what_can_not_be_sent_is_told_at_the_start_and_never_shown() {
    let far = Client::builder("service-a").control_plane("http://192.0.2.1:7443").token("fbx_canary");
    assert!(!format!("{far:?}").contains("canary"));
    let error = far.start().unwrap_err();
    assert!(matches!(error, SetupError::PlaintextToken { .. }) && !error.to_string().contains("canary"), "{error}");
    let missing = Client::builder("service-a").token_from_env("FUSEBOX_NO_SUCH_VARIABLE").start().unwrap_err();
    assert!(matches!(missing, SetupError::NoTokenInEnv { .. }));
    let (certificate, key) = Ca::new().sign("x");
    let tls = Tls::new().identity_pem(certificate, key);
    assert!(!format!("{tls:?}").contains("BEGIN"));
}
