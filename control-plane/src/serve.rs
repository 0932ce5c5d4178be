//! Wires a server together, and takes it apart again.

use std::{io, net::SocketAddr, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};

use axum::{http::StatusCode, middleware, routing::get};
use fusebox_proto::{
    sync::v1::sync_service_server::SyncServiceServer,
    v1::{
        admin_service_server::AdminServiceServer, audit_service_server::AuditServiceServer,
        breaker_service_server::BreakerServiceServer, fleet_service_server::FleetServiceServer,
        policy_service_server::PolicyServiceServer, rollout_service_server::RolloutServiceServer,
    },
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpSocket},
};
use tokio_stream::{Stream, StreamExt as _};
use tonic::{
    service::Routes,
    transport::{Server, server::Connected},
};

#[cfg(feature = "jwt")]
use crate::access::jwt::{Jwts, KeysError};
use crate::{
    access::{self, Access, gate::gate, tokens::Tokens},
    backups::{
        Backups,
        schedule::{self, Schedule},
    },
    condition::Condition,
    config::{Config, ConfigError, Limits, ServeArgs, access::AccessConfig},
    fleet::Fleet,
    grpc::{
        admin::AdminApi, audit::AuditApi, breakers::BreakerApi, complete::complete, fleet::FleetApi,
        policies::PolicyApi, rollouts::RolloutApi, sync::SyncApi,
    },
    hub::{self, Hub},
    metrics::serve::{self as metrics, Endpoint, Sources},
    opening::Opening,
    policies::Policies,
    retention,
    rollouts::{self, Rollouts},
    sessions::{Context, admission::Admission},
    shutdown::Shutdown,
    store::{StoreError, StoreHandle, sqlite::SqliteStore},
    telemetry,
    tls::{
        TlsError,
        accept::incoming,
        reload::{self, BootstrapError, Tls},
    },
    upkeep,
    web::{self, Origin},
};

/// Why a server can't start, or ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    /// The settings.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The files of TLS.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// The keys of JWTs.
    #[cfg(feature = "jwt")]
    #[error(transparent)]
    Jwt(#[from] KeysError),
    /// The file of the bootstrap token.
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    /// The port.
    #[error("cannot listen on {address}")]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// What listens to the metrics.
    #[error("cannot count what the server does")]
    Metrics(#[source] metrics_exporter_prometheus::BuildError),
    /// The temporary folder.
    #[error("cannot make a temporary folder")]
    Temporary(#[source] io::Error),
    /// The descriptor of the services.
    #[error("cannot describe the services")]
    Reflection(#[source] tonic_reflection::server::Error),
    /// The transport.
    #[error("the server failed")]
    Transport(#[source] tonic::transport::Error),
}

/// Connections that the kernel keeps until they are taken.
const BACKLOG: u32 = 4096;
/// How long open streams may take to end. A connection that never speaks would take for ever.
const DRAIN: Duration = Duration::from_secs(10);
/// How long the record of the last decisions may take to be written.
const WRITE_WITHIN: Duration = Duration::from_secs(2);
/// PINGs find peers that have vanished without a word.
const KEEPALIVE: (Duration, Duration) = (Duration::from_secs(20), Duration::from_secs(10));
/// An SDK needs one stream and a command line a few.
const STREAMS_PER_CONNECTION: u32 = 256;
/// Resets that the server provokes itself, before it takes the peer for an attacker ("MadeYouReset"); tonic has no limit by default.
const LOCAL_RESETS: usize = 256;
/// Streams that were reset before they were looked at ("rapid reset").
const PENDING_RESETS: usize = 20;
/// Largest message of an operator: a thousand policies.
const OPERATOR_MESSAGE: usize = 8 << 20;
/// Largest message of an SDK.
const SDK_MESSAGE: usize = 1 << 20;
/// Largest message that an SDK reads.
const SDK_READS: usize = 4 << 20;

/// Runs `fusebox serve`.
pub async fn main(args: &ServeArgs) -> ExitCode {
    telemetry::install(args.log_format);
    match run(args).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            anstream::eprintln!("error: {error}");
            let mut cause = std::error::Error::source(&error);
            while let Some(inner) = cause {
                anstream::eprintln!("  because: {inner}");
                cause = inner.source();
            }
            if let ServeError::Store(StoreError::Corrupt { .. }) = error {
                anstream::eprintln!(
                    "  fix: put a backup in its place with `fusebox restore FILE --force`; replicas keep what they run meanwhile"
                );
            }
            // Settings that can't be are a wrong use of the command; the rest is a failure.
            ExitCode::from(if matches!(error, ServeError::Config(_) | ServeError::Tls(_) | ServeError::Bootstrap(_)) {
                2
            } else {
                1
            })
        }
    }
}

async fn run(args: &ServeArgs) -> Result<(), ServeError> {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let config = Config::new(args, folder("XDG_DATA_HOME"), folder("HOME"))?;
    let temporary = match &config.data_dir {
        None => Some(tempfile::Builder::new().prefix("fusebox-").tempdir().map_err(ServeError::Temporary)?),
        Some(_) => None,
    };
    let data = match (&config.data_dir, &temporary) {
        (Some(folder), _) => folder.clone(),
        (None, Some(folder)) => folder.path().to_owned(),
        (None, None) => return Err(ServeError::Config(ConfigError::NoHome)),
    };
    let shutdown = Shutdown::new();
    #[cfg(feature = "jwt")]
    let jwt = config.access.jwt.clone();
    let AccessConfig { tls, bootstrap, access, room, in_words, .. } = config.access;
    let tls = tls.map(|files| Tls::start(files, &shutdown)).transpose()?;
    let bootstrap = bootstrap.map(|file| reload::bootstrap(file, &shutdown)).transpose()?;
    #[cfg(feature = "jwt")]
    let access = access::Settings { jwts: jwt.map(|files| Jwts::start(files, &shutdown)).transpose()?, ..access };
    let access = access::Settings { bootstrap, ..access };
    let metrics = match config.metrics_listen {
        None => None,
        Some(address) => {
            let unusable = |source| ServeError::Listen { address, source };
            let endpoint = Endpoint::install(shutdown.clone()).map_err(ServeError::Metrics)?;
            Some((endpoint, metrics::listen(address).await.map_err(unusable)?))
        }
    };
    let database = Arc::new(SqliteStore::open(&data).await?.with_quota(config.quota));
    let store: StoreHandle = Arc::<SqliteStore>::clone(&database);
    let unusable = |source| ServeError::Listen { address: config.listen, source };
    let listener = listen(config.listen).map_err(unusable)?;
    let address = listener.local_addr().map_err(unusable)?;
    anstream::eprintln!("fusebox {}", env!("CARGO_PKG_VERSION"));
    anstream::eprintln!("data in {}{}", data.display(), if temporary.is_some() { " (temporary)" } else { "" });
    anstream::eprintln!("access: {in_words}");
    anstream::eprintln!("listening on {}://{address}", if tls.is_some() { "https" } else { "http" });
    let metrics = metrics.map(|(endpoint, (listener, address))| {
        anstream::eprintln!("metrics on http://{address}/metrics");
        tokio::spawn(endpoint.clone().serve(listener));
        endpoint
    });
    tokio::spawn(end_on_signal(shutdown.clone()));
    let condition = Condition::new(tls.clone());
    let connections = incoming(listener, tls, room, shutdown.clone());
    let (limits, backups, web_origins) = (config.limits, config.backups, config.web_origins);
    serve_with(connections, store, Settings { limits, backups, web_origins, access, condition, metrics }, shutdown)
        .await?;
    if tokio::time::timeout(WRITE_WITHIN, database.end()).await.is_err() {
        tracing::warn!("the database is still in use: the next start reads its log as well");
    }
    tracing::info!("ended");
    Ok(())
}

/// Listens with room for a whole fleet that connects at once.
fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// The first signal begins the end, the second ends at once.
async fn end_on_signal(shutdown: Shutdown) {
    let mut terminate = match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
        Ok(terminate) => terminate,
        Err(error) => {
            tracing::warn!(%error, "cannot listen for SIGTERM");
            return;
        }
    };
    for round in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        if round == 0 {
            tracing::info!("shutting down: open streams have {} s", DRAIN.as_secs());
            shutdown.begin();
        }
    }
    std::process::exit(1);
}

/// What a server is told beside its connections and its store.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// What it takes.
    pub limits: Limits,
    /// The backups that it makes by itself.
    pub backups: Option<Schedule>,
    /// Whose pages may call it.
    pub web_origins: Vec<Origin>,
    /// Whom it knows. Nothing: an open server.
    pub access: access::Settings,
    /// What is known of its surroundings.
    pub condition: Condition,
    /// Who reads what it counts.
    pub metrics: Option<Endpoint>,
}

/// Serves everybody who connects, as an open server: see [`serve_with`].
///
/// # Errors
/// The store can't be read, or the transport failed.
pub async fn serve<S, IO>(incoming: S, store: StoreHandle, limits: Limits, shutdown: Shutdown) -> Result<(), ServeError>
where
    S: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    IO::ConnectInfo: Clone + Send + Sync + 'static,
{
    serve_with(incoming, store, Settings { limits, ..Settings::default() }, shutdown).await
}

/// Serves connections until the end begins, then lets open streams end, within a bound.
///
/// # Errors
/// The store can't be read, or the transport failed.
pub async fn serve_with<S, IO>(
    incoming: S,
    store: StoreHandle,
    settings: Settings,
    shutdown: Shutdown,
) -> Result<(), ServeError>
where
    S: Stream<Item = io::Result<IO>>,
    IO: AsyncRead + AsyncWrite + Connected + Unpin + Send + 'static,
    IO::ConnectInfo: Clone + Send + Sync + 'static,
{
    let Settings { limits, backups: schedule, web_origins, access, condition, metrics } = settings;
    let access = Access::new(access, Tokens::load(Arc::clone(&store)).await?);
    let hub = Hub::start_remembering(&store, limits.remember_changes).await?;
    let fleet = Fleet::start(Arc::clone(&store), hub.clone(), shutdown.clone()).await?;
    let reconciler = tokio::spawn(hub::reconcile(hub.clone(), Arc::clone(&store), shutdown.clone()));
    let backups = Backups::new(Arc::clone(&store));
    if let Some(schedule) = schedule {
        tokio::spawn(schedule::keep(schedule, backups.clone(), condition.clone(), shutdown.clone()));
    }
    tokio::spawn(upkeep::look_after(Arc::clone(&store), limits.check_every, condition.clone(), shutdown.clone()));
    tokio::spawn(retention::keep(limits.audit_retention, Arc::clone(&store), shutdown.clone()));
    tokio::spawn(retention::keep_transitions(limits.transition_retention, Arc::clone(&store), shutdown.clone()));
    let policies = Policies::new(Arc::clone(&store), hub.clone());
    crate::recovery::alarm(&hub.current());
    let (health_reporter, health) = tonic_health::server::health_reporter();
    let policy_api = PolicyServiceServer::new(PolicyApi::new(policies.clone(), fleet.clone(), shutdown.clone()))
        .max_decoding_message_size(OPERATOR_MESSAGE);
    let breaker_api = BreakerServiceServer::new(BreakerApi::new(fleet.clone(), Arc::clone(&store), shutdown.clone()));
    let audit_api = AuditServiceServer::new(AuditApi::new(Arc::clone(&store)));
    let rollouts = Rollouts::new(Arc::clone(&store), hub.clone(), fleet.clone());
    let rollout_api = RolloutServiceServer::new(RolloutApi::new(rollouts.clone(), hub.clone(), shutdown.clone()))
        .max_decoding_message_size(OPERATOR_MESSAGE);
    let watcher = tokio::spawn(rollouts::watch::watch(rollouts, shutdown.clone()));
    let sources =
        Sources { fleet: fleet.clone(), hub: hub.clone(), store: Arc::clone(&store), condition: condition.clone() };
    let fleet_api =
        FleetServiceServer::new(FleetApi::new(fleet.clone(), hub, Arc::clone(&store), condition, shutdown.clone()));
    if let Some(metrics) = metrics {
        metrics.ready(sources);
    }
    let admin_api = AdminServiceServer::new(AdminApi::new(&access, backups.clone()));
    let version = env!("CARGO_PKG_VERSION");
    let admission = Arc::new(Admission::new(limits.streams_per_second));
    let decided = fleet.clone();
    let context = Context { fleet, policies: policies.clone(), admission, shutdown: shutdown.clone(), version };
    let sync_api = SyncServiceServer::new(SyncApi::new(context))
        .max_decoding_message_size(SDK_MESSAGE)
        .max_encoding_message_size(SDK_READS);
    health_reporter.set_serving::<PolicyServiceServer<PolicyApi>>().await;
    health_reporter.set_serving::<BreakerServiceServer<BreakerApi>>().await;
    health_reporter.set_serving::<FleetServiceServer<FleetApi>>().await;
    health_reporter.set_serving::<AuditServiceServer<AuditApi>>().await;
    health_reporter.set_serving::<AdminServiceServer<AdminApi>>().await;
    health_reporter.set_serving::<RolloutServiceServer<RolloutApi>>().await;
    health_reporter.set_serving::<SyncServiceServer<SyncApi>>().await;
    let describe = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(fusebox_proto::FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let ready = shutdown.clone();
    let router = Routes::new(policy_api)
        .add_service(breaker_api)
        .add_service(fleet_api)
        .add_service(audit_api)
        .add_service(admin_api)
        .add_service(rollout_api)
        .add_service(sync_api)
        .add_service(health)
        .add_service(describe().build_v1().map_err(ServeError::Reflection)?)
        .add_service(describe().build_v1alpha().map_err(ServeError::Reflection)?)
        .into_axum_router()
        .route("/healthz", get(|| async { "ok\n" }))
        .route(
            "/readyz",
            get(move || async move {
                if ready.has_begun() {
                    (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
                } else {
                    (StatusCode::OK, "ok\n")
                }
            }),
        )
        .layer(middleware::from_fn_with_state(access, gate))
        .layer(middleware::from_fn_with_state(shutdown.clone(), complete));
    let begun = shutdown.begun();
    let opening = shutdown.clone();
    let server = Server::builder()
        .accept_http1(true)
        .http2_keepalive_interval(Some(KEEPALIVE.0))
        .http2_keepalive_timeout(Some(KEEPALIVE.1))
        .max_concurrent_streams(STREAMS_PER_CONNECTION)
        .http2_max_local_error_reset_streams(Some(LOCAL_RESETS))
        .http2_max_pending_accept_reset_streams(Some(PENDING_RESETS))
        .http2_max_header_list_size(16 * 1024)
        .add_routes(Routes::from(web::serve(router, &web_origins)))
        .serve_with_incoming_shutdown(incoming.map(|io| io.map(|io| Opening::new(io, &opening))), begun);
    let bound = async {
        shutdown.begun().await;
        health_reporter.set_service_status("", tonic_health::ServingStatus::NotServing).await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        served = server => served.map_err(ServeError::Transport)?,
        () = bound => tracing::warn!("some connections did not end in time: cut"),
    }
    // A transport that ends by itself takes everything else with it.
    shutdown.begin();
    reconciler.abort();
    if tokio::time::timeout(WRITE_WITHIN, decided.written()).await.is_err() {
        tracing::warn!("what was decided last could not be written in time");
    }
    watcher.abort();
    Ok(())
}
