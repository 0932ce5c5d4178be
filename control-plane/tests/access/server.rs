//! A whole server that knows who calls, and clients that show something.

use std::{sync::Arc, time::Duration};

use fusebox_control_plane::{
    access::{self, Bootstrap},
    serve::{Settings, serve_with},
    shutdown::Shutdown,
    store::{StoreHandle, memory::MemoryStore},
    tls::{
        Files,
        accept::{Room, incoming},
        reload::Tls,
    },
};
use fusebox_proto::{
    sync::v1::{self as sync, sync_service_client::SyncServiceClient},
    v1::{
        self, admin_service_client::AdminServiceClient, breaker_service_client::BreakerServiceClient,
        fleet_service_client::FleetServiceClient, policy_service_client::PolicyServiceClient,
        rollout_service_client::RolloutServiceClient,
    },
};
use tokio::{net::TcpListener, sync::mpsc, task::JoinHandle, time::timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{
    Code, Request, Status, Streaming,
    metadata::AsciiMetadataValue,
    service::{Interceptor, interceptor::InterceptedService},
    transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity},
};
use tonic_types::{ErrorDetails, StatusExt as _};

use crate::pki::{Ca, Folder, Pair};

/// Nothing here takes long; what takes longer hangs.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);
/// What the bootstrap token of these servers is.
pub(crate) const BOOTSTRAP: &str = "0123456789abcdef0123456789abcdef";

pub(crate) struct Server {
    pub(crate) port: u16,
    pub(crate) ca: Ca,
    pub(crate) folder: Folder,
    pub(crate) shutdown: Shutdown,
    pub(crate) bootstrap: Bootstrap,
    secure: bool,
    task: JoinHandle<()>,
}

/// What a server is told beside what all of these are.
#[derive(Clone, Default)]
pub(crate) struct Told {
    pub(crate) tls: bool,
    pub(crate) grants: Vec<&'static str>,
    pub(crate) client_required: bool,
    pub(crate) limits: access::limits::Settings,
    pub(crate) room: Room,
}

impl Server {
    /// Plain, with tokens.
    pub(crate) async fn with_tokens() -> Self {
        Self::start(Told::default()).await
    }

    /// With TLS, tokens, and certificates that mean something.
    pub(crate) async fn with_certificates(grants: &[&'static str]) -> Self {
        Self::start(Told { tls: true, grants: grants.to_vec(), ..Told::default() }).await
    }

    pub(crate) async fn start(told: Told) -> Self {
        let Told { tls, grants, client_required, limits, room } = told;
        let (ca, folder, shutdown) = (Ca::new(), Folder::new(), Shutdown::new());
        let Pair { certificate, key } = ca.server();
        let files = Files {
            certificate: folder.write("server.pem", &certificate),
            key: folder.write("server.key", &key),
            client_ca: Some(folder.write("ca.pem", &ca.pem())),
            client_required,
        };
        let bootstrap = Bootstrap::default();
        bootstrap.set(Some(BOOTSTRAP));
        let limited = access::Settings { limits, ..access::Settings::default() };
        let access = access::Settings {
            tokens: true,
            certificates: !grants.is_empty(),
            bootstrap: Some(bootstrap.clone()),
            grants: grants.iter().map(|grant| grant.parse().unwrap()).collect(),
            ..limited
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let secured = tls.then(|| Tls::start(files, &shutdown).unwrap());
        let connections = incoming(listener, secured, room, shutdown.clone());
        let store: StoreHandle = Arc::new(MemoryStore::new("memory"));
        let settings = Settings { access, ..Settings::default() };
        let end = shutdown.clone();
        let task = tokio::spawn(async move { serve_with(connections, store, settings, end).await.unwrap() });
        Self { port, ca, folder, shutdown, bootstrap, secure: tls, task }
    }

    /// Ends it, and waits until it has.
    pub(crate) async fn stop(self) {
        self.shutdown.begin();
        timeout(LIMIT, self.task).await.expect("the server ends in time").unwrap();
    }

    /// A connection; with a certificate, if one is given.
    pub(crate) async fn channel(&self, identity: Option<&Pair>) -> Result<Channel, tonic::transport::Error> {
        self.channel_trusting(&self.ca.pem(), identity).await
    }

    pub(crate) async fn channel_trusting(
        &self,
        ca: &str,
        identity: Option<&Pair>,
    ) -> Result<Channel, tonic::transport::Error> {
        if !self.secure {
            return Endpoint::from_shared(format!("http://127.0.0.1:{}", self.port)).unwrap().connect().await;
        }
        let mut tls = ClientTlsConfig::new().ca_certificate(Certificate::from_pem(ca));
        if let Some(Pair { certificate, key }) = identity {
            tls = tls.identity(Identity::from_pem(certificate, key));
        }
        let endpoint = Endpoint::from_shared(format!("https://localhost:{}", self.port)).unwrap();
        endpoint.connect_timeout(LIMIT).tls_config(tls)?.connect().await
    }

    /// Somebody with a token, or with nothing.
    pub(crate) async fn caller(&self, token: Option<&str>) -> Caller {
        Caller::new(self.channel(None).await.unwrap(), token)
    }

    pub(crate) async fn admin(&self) -> Caller {
        self.caller(Some(BOOTSTRAP)).await
    }

    /// Makes a token; answers with it and its secret.
    pub(crate) async fn token(&self, name: &str, role: v1::Role, agent: Option<&str>) -> (v1::Token, String) {
        let service = agent.unwrap_or_default().to_owned();
        let namespace = if agent.is_some() { "default" } else { "" }.to_owned();
        let token =
            v1::Token { display_name: name.to_owned(), role: role.into(), namespace, service, ..v1::Token::default() };
        let request = v1::CreateTokenRequest { token: Some(token), ..Default::default() };
        let made = self.admin().await.admin.create_token(request).await.unwrap().into_inner();
        (made.token.unwrap(), made.secret)
    }

    pub(crate) async fn revoke(&self, token: &v1::Token) -> v1::Token {
        let request =
            v1::RevokeTokenRequest { name: token.name.clone(), reason: "lost".to_owned(), ..Default::default() };
        self.admin().await.admin.revoke_token(request).await.unwrap().into_inner()
    }
}

/// Puts a token on every request.
#[derive(Clone)]
pub(crate) struct Show(Option<AsciiMetadataValue>);

impl Interceptor for Show {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

pub(crate) type Shown = InterceptedService<Channel, Show>;

/// Everything that somebody may try.
#[derive(Clone)]
pub(crate) struct Caller {
    pub(crate) admin: AdminServiceClient<Shown>,
    pub(crate) breakers: BreakerServiceClient<Shown>,
    pub(crate) policies: PolicyServiceClient<Shown>,
    pub(crate) rollouts: RolloutServiceClient<Shown>,
    pub(crate) fleet: FleetServiceClient<Shown>,
    pub(crate) sync: SyncServiceClient<Shown>,
    pub(crate) raw: tonic::client::Grpc<Shown>,
}

impl Caller {
    pub(crate) fn new(channel: Channel, token: Option<&str>) -> Self {
        let show = Show(token.map(|token| format!("Bearer {token}").parse().unwrap()));
        let shown = || InterceptedService::new(channel.clone(), show.clone());
        Self {
            admin: AdminServiceClient::new(shown()),
            breakers: BreakerServiceClient::new(shown()),
            policies: PolicyServiceClient::new(shown()),
            rollouts: RolloutServiceClient::new(shown()),
            fleet: FleetServiceClient::new(shown()),
            sync: SyncServiceClient::new(shown()),
            raw: tonic::client::Grpc::new(shown()),
        }
    }

    pub(crate) async fn who(&mut self) -> Result<v1::Principal, Status> {
        self.admin.who_am_i(v1::WhoAmIRequest {}).await.map(tonic::Response::into_inner)
    }

    /// A stream of a service's replica, and what keeps it open.
    pub(crate) async fn sync(
        &mut self,
        service: &str,
    ) -> Result<(mpsc::Sender<sync::SyncRequest>, Streaming<sync::SyncResponse>), Status> {
        let (up, messages) = mpsc::channel(64);
        let hello = sync::Hello {
            protocol: 1,
            namespace: "default".to_owned(),
            service: service.to_owned(),
            instance: "one".to_owned(),
            incarnation: 1,
            ..sync::Hello::default()
        };
        let hello = sync::SyncRequest { message: Some(sync::sync_request::Message::Hello(hello)) };
        up.send(hello).await.unwrap();
        Ok((up, self.sync.sync(ReceiverStream::new(messages)).await?.into_inner()))
    }
}

/// How a stream ends.
pub(crate) async fn end_of<T>(mut stream: Streaming<T>) -> Option<Status> {
    let end = async {
        loop {
            match stream.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    };
    timeout(LIMIT, end).await.expect("the stream ends in time")
}

/// What programs read from a refusal: code, reason, details.
pub(crate) fn refusal<T>(result: Result<T, Status>) -> (Code, String, ErrorDetails) {
    let Err(status) = result else { panic!("it was allowed") };
    let details = status.get_error_details();
    let info = details.error_info().unwrap_or_else(|| panic!("no ErrorInfo in {status:?}"));
    assert_eq!(info.domain, "fusebox");
    (status.code(), info.reason.clone(), details)
}

/// Code and reason.
pub(crate) fn reason<T>(result: Result<T, Status>) -> (Code, String) {
    let (code, reason, _) = refusal(result);
    (code, reason)
}
