//! A policy at the door of an axum server: bulkhead, rate limiter, adaptive concurrency limit, timeout, each for the routes that
//! operators choose. In one terminal, then in another:
//!
//! ```sh
//! cargo run --bin fusebox -- serve --dev
//! cargo run --bin fusebox -- apply -f client-sdk/examples/policies/axum.yaml
//! cargo run -p fusebox --example axum
//! ```
//!
//! It prints which policies run and from where (`stream` is the control plane; without one it says `builtin`), then how requests are
//! answered that come at the same time, too fast, in too large a number, and one that takes too long.
//!
//! If your control plane is elsewhere than at `http://127.0.0.1:7443`, say so to `apply` by `FUSEBOX_ADDRESS` and to the example by
//! `FUSEBOX_CONTROL_PLANE`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{env, time::Duration};

use axum::{Router, routing::get};
use fusebox::Client;
use futures_util::future::join_all;

/// What runs until the control plane says something else: the manifest that operators apply, built in.
const POLICIES: &str = include_str!("policies/axum.yaml");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::var("FUSEBOX_CONTROL_PLANE").unwrap_or_else(|_| "http://127.0.0.1:7443".to_owned());
    let client = Client::builder("shop").builtin_manifest(POLICIES).control_plane(address).start()?;
    // A service need not wait: until the stream is there it is protected by the built-in policies.
    client.wait_ready(Duration::from_secs(5)).await;
    for policy in client.status().policies {
        println!("policy {}: {}, revision {}", policy.name, policy.source, policy.revision);
    }

    let slow = |answer: &'static str, time| async move {
        tokio::time::sleep(time).await;
        answer
    };
    let app = Router::new()
        .route("/report", get(move || slow("the report", Duration::from_millis(500))))
        .route("/search", get(|| async { "found" }))
        .route("/article", get(move || slow("an article", Duration::from_millis(500))))
        .route("/stuck", get(move || slow("too late", Duration::from_secs(60))))
        // The last layer is the outermost: what the policy refuses costs nothing of what is inside.
        .layer(client.inbound());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });

    let together = async |path: &str, count| {
        let mut answers = join_all((0..count).map(|_| ask(format!("{url}{path}")))).await;
        answers.sort();
        answers
    };
    for answer in together("/report", 2).await {
        println!("bulkhead of 1: {answer}");
    }
    for answer in together("/search", 3).await {
        println!("rate of 2 a minute: {answer}");
    }
    for answer in together("/article", 3).await {
        println!("adaptive limit, at first 2: {answer}");
    }
    for answer in together("/stuck", 1).await {
        println!("timeout: {answer}");
    }
    Ok(())
}

/// One request, and its answer in a line.
async fn ask(url: String) -> String {
    let response = match reqwest::get(url).await {
        Ok(response) => response,
        Err(error) => return error.to_string(),
    };
    let status = response.status().as_u16();
    let wait = response.headers().get("retry-after").and_then(|wait| wait.to_str().ok());
    let wait = wait.map(|wait| format!(", Retry-After: {wait}")).unwrap_or_default();
    format!("{status}{wait}, {}", response.text().await.unwrap_or_default().trim_end())
}
