//! Service B: answers, unless it is told to fail.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    Json, Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Serialize;
use serde_json::{Value, json};

use crate::{
    PartError,
    logging::{self, LogFormat},
};

/// Options of service B.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "service-b", about = "Service B of the article: answers, unless it is told to fail")]
pub struct Args {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:3001")]
    listen: SocketAddr,
    /// Form of the log lines
    #[arg(long, value_enum, default_value_t)]
    log_format: LogFormat,
}

/// How B fails.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Faults {
    error_rate: f64,
    status: u16,
    #[serde(serialize_with = "span_or_null")]
    retry_after: Option<Duration>,
    #[serde(serialize_with = "span")]
    latency: Duration,
    latency_rate: f64,
}

fn span<S: serde::Serializer>(span: &Duration, to: S) -> Result<S::Ok, S::Error> {
    to.collect_str(&humantime::format_duration(*span))
}

fn span_or_null<S: serde::Serializer>(span: &Option<Duration>, to: S) -> Result<S::Ok, S::Error> {
    match span {
        Some(span) => to.collect_str(&humantime::format_duration(*span)),
        None => to.serialize_none(),
    }
}

impl Default for Faults {
    /// None.
    fn default() -> Self {
        Self { error_rate: 0.0, status: 503, retry_after: None, latency: Duration::ZERO, latency_rate: 1.0 }
    }
}

impl Faults {
    /// Reads faults from JSON; what is left out has its default.
    ///
    /// # Errors
    /// The first field that can't be, and what would be right.
    pub fn read(json: &Value) -> Result<Self, String> {
        let fields = json.as_object().ok_or("must be an object")?;
        let mut faults = Self::default();
        for (name, value) in fields {
            match name.as_str() {
                "errorRate" => faults.error_rate = rate(name, value)?,
                "latencyRate" => faults.latency_rate = rate(name, value)?,
                "status" => {
                    faults.status = value
                        .as_u64()
                        .and_then(|status| u16::try_from(status).ok())
                        .filter(|status| (400..=599).contains(status))
                        .ok_or_else(|| format!("status: must be from 400 to 599, is {value}"))?;
                }
                "retryAfter" => faults.retry_after = if value.is_null() { None } else { Some(read_span(name, value)?) },
                "latency" => faults.latency = read_span(name, value)?,
                other => {
                    return Err(format!(
                        "{other}: unknown field: known are errorRate, status, retryAfter, latency, latencyRate"
                    ));
                }
            }
        }
        Ok(faults)
    }
}

fn rate(name: &str, value: &Value) -> Result<f64, String> {
    value
        .as_f64()
        .filter(|rate| (0.0..=1.0).contains(rate))
        .ok_or_else(|| format!("{name}: must be from 0 to 1, is {value}"))
}

fn read_span(name: &str, value: &Value) -> Result<Duration, String> {
    value
        .as_str()
        .and_then(|text| humantime::parse_duration(text).ok())
        .ok_or_else(|| format!("{name}: must be a duration like \"100ms\" or \"1s\", is {value}"))
}

/// What B has seen.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
struct Stats {
    received: u64,
    failed: u64,
    /// Requests whose sender said that its breaker admitted nothing: what arrives all the same is a probe.
    probes: u64,
    by_caller: BTreeMap<String, u64>,
}

#[derive(Debug, Default)]
struct Shared {
    faults: Mutex<Faults>,
    stats: Mutex<Stats>,
}

/// Service B, fresh.
pub fn app() -> Router {
    Router::new()
        .route("/", get(answer))
        .route("/faults", get(show_faults).put(set_faults))
        .route("/stats", get(show_stats))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Arc::new(Shared::default()))
}

/// Serves until asked to stop.
///
/// # Errors
/// The address can't be used.
pub async fn main(args: Args) -> Result<(), PartError> {
    logging::install(args.log_format);
    crate::serve(args.listen, app()).await
}

async fn answer(State(shared): State<Arc<Shared>>, headers: HeaderMap) -> Response {
    let said = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let faults = shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let fails = fastrand::f64() < faults.error_rate;
    {
        let mut stats = shared.stats.lock().unwrap_or_else(PoisonError::into_inner);
        stats.received += 1;
        stats.failed += u64::from(fails);
        stats.probes += u64::from(said("x-admission") == Some("0"));
        /// Callers told apart; the rest is counted in the sum only.
        const MOST_CALLERS: usize = 100;
        if let Some(caller) = said("x-instance")
            && (stats.by_caller.len() < MOST_CALLERS || stats.by_caller.contains_key(caller))
        {
            *stats.by_caller.entry(caller.to_owned()).or_default() += 1;
        }
    }
    if !faults.latency.is_zero() && fastrand::f64() < faults.latency_rate {
        tokio::time::sleep(faults.latency).await;
    }
    if !fails {
        return Json(json!({ "message": "hello from service B" })).into_response();
    }
    tracing::debug!(status = faults.status, "failing as told");
    let status = StatusCode::from_u16(faults.status).unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    let mut response = (status, Json(json!({ "error": "service B fails, as it was told to" }))).into_response();
    if let Some(wait) = faults.retry_after {
        // The header knows whole seconds only; earlier than asked would be wrong.
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

async fn show_faults(State(shared): State<Arc<Shared>>) -> Json<Faults> {
    Json(shared.faults.lock().unwrap_or_else(PoisonError::into_inner).clone())
}

async fn set_faults(State(shared): State<Arc<Shared>>, body: String) -> Response {
    let read = serde_json::from_str::<Value>(&body)
        .map_err(|error| format!("the body is not JSON: {error}"))
        .and_then(|json| Faults::read(&json));
    match read {
        Ok(faults) => {
            tracing::info!(?faults, "faults set");
            *shared.faults.lock().unwrap_or_else(PoisonError::into_inner) = faults.clone();
            Json(faults).into_response()
        }
        Err(error) => (StatusCode::BAD_REQUEST, Json(json!({ "error": error }))).into_response(),
    }
}

async fn show_stats(State(shared): State<Arc<Shared>>) -> Json<Stats> {
    Json(shared.stats.lock().unwrap_or_else(PoisonError::into_inner).clone())
}
