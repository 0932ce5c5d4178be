//! A policy as a link in a chain of `reqwest-middleware`: what comes after it runs once for each attempt. In one terminal, then in
//! another:
//!
//! ```sh
//! cargo run --bin fusebox -- serve --dev
//! cargo run --bin fusebox -- apply -f client-sdk/examples/policies/middleware.yaml
//! cargo run -p fusebox --example middleware
//! ```
//!
//! It prints which policies run and from where (`stream` is the control plane; without one it says `builtin`), each attempt of a
//! call that succeeds at last, a failure of the service, and the refusal by the open breaker.
//!
//! If your control plane is elsewhere than at `http://127.0.0.1:7443`, say so to `apply` by `FUSEBOX_ADDRESS` and to the example by
//! `FUSEBOX_CONTROL_PLANE`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{
    env,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{Extensions, StatusCode, Uri},
    routing::any,
};
use fusebox::{CallError, Client};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};

/// What runs until the control plane says something else: the manifest that operators apply, built in.
const POLICIES: &str = include_str!("policies/middleware.yaml");

/// A middleware of ours, which signs, counts, or as here prints.
struct Printing;

#[async_trait::async_trait]
impl Middleware for Printing {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let line = format!("attempt: {} {}", request.method(), request.url().path());
        let response = next.run(request, extensions).await?;
        println!("{line} was answered with {}", response.status());
        Ok(response)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let address = env::var("FUSEBOX_CONTROL_PLANE").unwrap_or_else(|_| "http://127.0.0.1:7443".to_owned());
    let client = Client::builder("service-a").builtin_manifest(POLICIES).control_plane(address).start()?;
    // A service need not wait: until the stream is there its calls run under the built-in policies.
    client.wait_ready(Duration::from_secs(5)).await;
    for policy in client.status().policies {
        println!("policy {}: {}, revision {}", policy.name, policy.source, policy.revision);
    }
    let url = serve().await?;

    // Two loops of retries would multiply: reqwest's own is switched off.
    let inner = reqwest::Client::builder().retry(reqwest::retry::never()).build()?;
    // The order of the chain: before the policy, once for each call; after it, once for each attempt.
    let http = ClientBuilder::new(inner).with(client.target("users").middleware()).with(Printing).build();

    let response = http.get(format!("{url}/")).send().await?;
    println!("retry: {}", response.text().await?);

    // The caller gets the last answer itself, and asks whether it likes it.
    let response = http.get(format!("{url}/down")).send().await?;
    println!("exhausted: {}", response.status());

    // The third failure in a row has opened the breaker. What a strategy makes of a call lies inside of the middleware's error.
    match http.get(format!("{url}/")).send().await {
        Ok(response) => println!("not expected: {}", response.status()),
        Err(error) => match &error {
            Error::Middleware(inner) => match inner.downcast_ref::<CallError<Error>>() {
                Some(refused) => println!("breaker: {refused}, is_rejection() is {}", refused.is_rejection()),
                None => println!("another middleware failed: {error}"),
            },
            Error::Reqwest(_) => println!("the network failed: {error}"),
        },
    }
    Ok(())
}

/// A service that fails once, and at `/down` always; its address.
async fn serve() -> std::io::Result<String> {
    let app = Router::new().fallback(any(answer)).with_state(Arc::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok(url)
}

async fn answer(State(warm): State<Arc<AtomicBool>>, uri: Uri) -> Result<&'static str, StatusCode> {
    let warm = warm.swap(true, Ordering::Relaxed);
    if warm && uri.path() != "/down" { Ok("users") } else { Err(StatusCode::SERVICE_UNAVAILABLE) }
}
