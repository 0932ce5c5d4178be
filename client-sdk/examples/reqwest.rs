//! HTTP calls through `reqwest` under a policy: retries that know methods and `Retry-After`, a circuit breaker, fallbacks from the
//! policy and from code. In one terminal, then in another:
//!
//! ```sh
//! cargo run --bin fusebox -- serve --dev
//! cargo run --bin fusebox -- apply -f client-sdk/examples/policies/reqwest.yaml
//! cargo run -p fusebox --example reqwest
//! ```
//!
//! It prints which policies run and from where (`stream` is the control plane; without one it says `builtin`), then what became of
//! each request, and how many of them the server saw.
//!
//! If your control plane is elsewhere than at `http://127.0.0.1:7443`, say so to `apply` by `FUSEBOX_ADDRESS` and to the example by
//! `FUSEBOX_CONTROL_PLANE`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{StatusCode, Uri},
    response::{IntoResponse as _, Response},
    routing::any,
};
use fusebox::{Attempts, Client, Replaced};

/// What runs until the control plane says something else: the manifest that operators apply, built in.
const POLICIES: &str = include_str!("policies/reqwest.yaml");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::var("FUSEBOX_CONTROL_PLANE").unwrap_or_else(|_| "http://127.0.0.1:7443".to_owned());
    let client = Client::builder("service-a").builtin_manifest(POLICIES).control_plane(address).start()?;
    // A service need not wait: until the stream is there its calls run under the built-in policies.
    client.wait_ready(Duration::from_secs(5)).await;
    for policy in client.status().policies {
        println!("policy {}: {}, revision {}", policy.name, policy.source, policy.revision);
    }
    let (url, seen) = serve().await?;
    let orders = client.target("orders").reqwest(reqwest::Client::builder())?;

    // A GET may be sent again; the waits are the policy's, or longer where the server asks for it.
    let response = orders.get(&url).send().await?;
    println!("GET: {} after {} attempts", response.status(), attempts(&response));

    // A POST might do it twice; with a key the server can tell.
    let response = orders.post(format!("{url}/down")).json("an order").send().await?;
    println!("POST: {} attempt", attempts(&response));
    let response = orders.post(format!("{url}/down")).header("idempotency-key", "7").json("an order").send().await?;
    println!("POST with a key: {} attempts", attempts(&response));
    // What nobody answered, the policy did; a response says so itself.
    if let Some(replaced) = response.extensions().get::<Replaced>() {
        println!("fallback: {}/{} stands for {}", replaced.policy, replaced.strategy, replaced.outcome);
    }
    println!("fallback: {}", response.text().await?);

    // That made four failures in a row: from now on nothing is sent.
    let before = seen.load(Ordering::Relaxed);
    let response = orders.get(&url).send().await?;
    let replaced = response.extensions().get::<Replaced>().map(|own| own.outcome.to_string()).unwrap_or_default();
    println!("breaker: {replaced}; the server saw {} requests", seen.load(Ordering::Relaxed) - before);

    client.register_fallback("bestsellers", async |failure| {
        let body = format!("bestsellers, for {}", failure.outcome);
        Ok(Response::new(body.into()))
    });
    let suggestions = client.target("suggestions").reqwest(reqwest::Client::builder())?;
    let response = suggestions.get(format!("{url}/down")).send().await?;
    println!("function: {}", response.text().await?);
    Ok(())
}

fn attempts(response: &reqwest::Response) -> u32 {
    response.extensions().get::<Attempts>().map_or(0, |attempts| attempts.0)
}

/// A service that fails once, and at `/down` always; its address, and how many requests it has seen.
async fn serve() -> std::io::Result<(String, Arc<AtomicU32>)> {
    let seen = Arc::new(AtomicU32::new(0));
    let app = Router::new().fallback(any(answer)).with_state(Arc::clone(&seen));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((url, seen))
}

async fn answer(State(seen): State<Arc<AtomicU32>>, uri: Uri) -> Response {
    match (seen.fetch_add(1, Ordering::Relaxed), uri.path()) {
        (0, _) => (StatusCode::SERVICE_UNAVAILABLE, [("retry-after", "1")]).into_response(),
        (_, "/down") => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        (_, _) => "orders".into_response(),
    }
}
