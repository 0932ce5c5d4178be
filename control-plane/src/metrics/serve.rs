//! The listener for those who read the metrics: `/metrics`, and `/healthz` and `/readyz` for those who watch the process.
//!
//! It asks nobody who they are, and speaks no TLS: it listens where it is told, on this machine only unless `--insecure` is given.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::get,
};
use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tokio::{net::TcpListener, sync::OnceCell};

pub use super::scrape::Sources;
use crate::shutdown::Shutdown;

/// The exporter gathers what histograms were told; otherwise it would keep each value until somebody asks.
const GATHER_EVERY: Duration = Duration::from_secs(5);
/// The text form of Prometheus.
const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What answers. A cheap handle; until it has its sources, the server is not ready.
#[derive(Clone, Debug)]
pub struct Endpoint {
    handle: PrometheusHandle,
    sources: Arc<OnceCell<Sources>>,
    shutdown: Shutdown,
}

impl Endpoint {
    /// Listens to what the program says of itself. Once in a process.
    ///
    /// # Errors
    /// Something listens already.
    pub fn install(shutdown: Shutdown) -> Result<Self, BuildError> {
        let buckets = Matcher::Full(super::STORE_WRITE.to_owned());
        let builder = PrometheusBuilder::new().set_buckets_for_metric(buckets, &super::WRITE_BUCKETS)?;
        let handle = builder.install_recorder()?;
        super::begin();
        Ok(Self { handle, sources: Arc::default(), shutdown })
    }

    /// The server has begun: this is where its figures come from.
    pub fn ready(&self, sources: Sources) {
        // A second server in the process has no figures of its own.
        let _ = self.sources.set(sources);
    }

    /// Answers until the server ends.
    pub async fn serve(self, listener: TcpListener) {
        let gather = self.clone();
        let gathering = tokio::spawn(async move {
            loop {
                tokio::time::sleep(GATHER_EVERY).await;
                gather.handle.run_upkeep();
            }
        });
        let end = self.shutdown.clone();
        let router = Router::new()
            .route("/metrics", get(metrics))
            .route("/healthz", get(|| async { "ok\n" }))
            .route("/readyz", get(ready))
            .with_state(self);
        let served = axum::serve(listener, router).with_graceful_shutdown(async move { end.begun().await });
        if let Err(error) = served.await {
            tracing::error!(%error, "the listener for metrics has failed");
        }
        gathering.abort();
    }
}

/// Binds the address.
///
/// # Errors
/// It can't be bound.
pub async fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address).await?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}

async fn metrics(State(endpoint): State<Endpoint>) -> impl IntoResponse {
    if let Some(sources) = endpoint.sources.get() {
        sources.look().await;
    }
    ([(header::CONTENT_TYPE, TEXT)], endpoint.handle.render())
}

async fn ready(State(endpoint): State<Endpoint>) -> (StatusCode, &'static str) {
    if endpoint.shutdown.has_begun() {
        (StatusCode::SERVICE_UNAVAILABLE, "shutting down\n")
    } else if endpoint.sources.initialized() {
        (StatusCode::OK, "ok\n")
    } else {
        (StatusCode::SERVICE_UNAVAILABLE, "starting\n")
    }
}
