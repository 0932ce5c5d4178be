//! Service A: answers with what service B says, through the policy that the control plane gave it.

use std::{net::SocketAddr, path::PathBuf, sync::Arc};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use fusebox::{CallError, Client, HttpClient};
use serde_json::{Value, json};

use crate::{
    PartError,
    logging::{self, LogFormat},
};

/// The service that A calls.
const TARGET: &str = "service-b";

/// Options of service A.
#[derive(Clone, Debug, clap::Parser)]
#[command(name = "service-a", about = "Service A of the article: calls service B through the fleet's policy")]
pub struct Args {
    /// Address to serve on; port 0 takes a free one
    #[arg(long, env = "FUSEBOX_SERVICE_A_LISTEN", default_value = "127.0.0.1:3000")]
    listen: SocketAddr,
    /// Address of the control plane; without one A runs on what it has
    #[arg(long, env = "FUSEBOX_CONTROL_PLANE", value_name = "URL")]
    control_plane: Option<String>,
    /// Address of service B
    #[arg(long, env = "FUSEBOX_SERVICE_B", default_value = "http://127.0.0.1:3001", value_name = "URL")]
    service_b: reqwest::Url,
    /// Name of this replica
    #[arg(long, env = "FUSEBOX_INSTANCE", default_value = "a-1")]
    instance: String,
    /// Zone of this replica
    #[arg(long, env = "FUSEBOX_ZONE", value_name = "ZONE")]
    zone: Option<String>,
    /// Folder for the last good policies; without one nothing is kept
    #[arg(long, env = "FUSEBOX_CACHE_DIR", value_name = "DIR")]
    cache_dir: Option<PathBuf>,
    /// Form of the log lines
    #[arg(long, env = "FUSEBOX_LOG_FORMAT", value_enum, default_value_t)]
    log_format: LogFormat,
}

struct Shared {
    client: Client,
    http: HttpClient,
    url: reqwest::Url,
    instance: String,
}

/// Service A over a client.
///
/// # Errors
/// No HTTP client can be made.
pub fn app(client: Client, service_b: reqwest::Url, instance: &str) -> Result<Router, PartError> {
    let target = client.target(TARGET);
    let http = target
        .reqwest(reqwest::Client::builder())
        .map_err(|error| PartError(format!("cannot make an HTTP client: {error}")))?;
    let shared = Shared { client, http, url: service_b, instance: instance.to_owned() };
    Ok(Router::new()
        .route("/", get(answer))
        .route("/status", get(status))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Arc::new(shared)))
}

/// Serves until asked to stop.
///
/// # Errors
/// Options that can't be, or an address that can't be used.
pub async fn main(args: Args) -> Result<(), PartError> {
    logging::install(args.log_format);
    let mut builder = Client::builder("service-a").instance(args.instance.clone());
    if let Some(zone) = args.zone.filter(|zone| !zone.is_empty()) {
        builder = builder.zone(zone);
    }
    if let Some(address) = args.control_plane.filter(|address| !address.is_empty()) {
        builder = builder.control_plane(address);
    }
    if let Some(folder) = args.cache_dir {
        builder = builder.cache_dir(folder);
    }
    let client = builder.start().map_err(|error| PartError(error.to_string()))?;
    crate::serve(args.listen, app(client, args.service_b, &args.instance)?).await
}

async fn answer(State(shared): State<Arc<Shared>>) -> Response {
    let Shared { client, http, url, instance } = shared.as_ref();
    // What B counts as probes: requests that arrive although this replica admits no traffic.
    let admission = client.status().breakers.iter().map(|breaker| breaker.admission).fold(1.0, f64::min);
    let request = http
        .get(url.clone())
        .header("x-instance", instance.as_str())
        .header("x-admission", if admission == 0.0 { "0" } else { "1" });
    let failure = match request.send().await {
        Ok(response) if response.status().is_success() => match response.json::<Value>().await {
            Ok(body) => {
                let message = body.get("message").cloned().unwrap_or(Value::Null);
                return Json(json!({ "messageA": "hello from service A", "messageB": message })).into_response();
            }
            Err(error) => (StatusCode::BAD_GATEWAY, None, format!("service B's answer broke: {error}")),
        },
        Ok(response) => (StatusCode::BAD_GATEWAY, None, format!("service B answered {}", response.status())),
        Err(error) => {
            let rejected = matches!(error, CallError::Rejected(_));
            let status = if rejected { StatusCode::SERVICE_UNAVAILABLE } else { StatusCode::BAD_GATEWAY };
            (status, error.retry_after(), error.to_string())
        }
    };
    let (status, retry_after, error) = failure;
    let body = Json(json!({ "messageA": "hello from service A", "error": error }));
    let mut response = (status, body).into_response();
    if let Some(wait) = retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

async fn status(State(shared): State<Arc<Shared>>) -> Json<Value> {
    let status = shared.client.status();
    let policy = status.policies.iter().find(|policy| policy.target.as_str() == TARGET);
    let breakers: Vec<Value> = status
        .breakers
        .iter()
        .map(|breaker| {
            json!({
                "policy": breaker.policy.as_str(),
                "target": breaker.target.as_str(),
                "local": breaker.local.name(),
                "fleet": breaker.fleet.name(),
                "admission": breaker.admission,
                "half_open_in_ms": breaker.half_open_in.map(|wait| u64::try_from(wait.as_millis()).unwrap_or(u64::MAX)),
            })
        })
        .collect();
    Json(json!({
        "service": status.service.as_str(),
        "instance": status.instance.as_str(),
        "zone": status.zone.as_ref().map(|zone| zone.as_str()),
        "policy": {
            "name": policy.map(|policy| policy.name.as_str()),
            "revision": policy.map(|policy| policy.revision.0),
            "source": policy.map_or(status.source, |policy| policy.source).name(),
        },
        "connected": status.connected,
        "breakers": breakers,
    }))
}
