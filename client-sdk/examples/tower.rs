//! A policy as a tower layer: `layer()` for a service of any request and response, `http_layer()` for an HTTP client. In one
//! terminal, then in another:
//!
//! ```sh
//! cargo run --bin fusebox -- serve --dev
//! cargo run --bin fusebox -- apply -f client-sdk/examples/policies/tower.yaml
//! cargo run -p fusebox --example tower
//! ```
//!
//! It prints which policies run and from where (`stream` is the control plane; without one it says `builtin`), an answer at the
//! second attempt, a fallback from code, an HTTP call that was tried again, one that must not be, and the refusal by the open
//! breaker.
//!
//! If your control plane is elsewhere than at `http://127.0.0.1:7443`, say so to `apply` by `FUSEBOX_ADDRESS` and to the example by
//! `FUSEBOX_CONTROL_PLANE`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{
    env, io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use axum::{
    Router,
    extract::State,
    http::{Request, StatusCode, Uri},
    routing::any,
};
use fusebox::{CallError, Client};
use hyper_util::{client::legacy, rt::TokioExecutor};
use tower::{Service as _, ServiceBuilder, ServiceExt as _};

/// What runs until the control plane says something else: the manifest that operators apply, built in.
const POLICIES: &str = include_str!("policies/tower.yaml");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let address = env::var("FUSEBOX_CONTROL_PLANE").unwrap_or_else(|_| "http://127.0.0.1:7443".to_owned());
    let client = Client::builder("service-a").builtin_manifest(POLICIES).control_plane(address).start()?;
    // A service need not wait: until the stream is there its calls run under the built-in policies.
    client.wait_ready(Duration::from_secs(5)).await;
    for policy in client.status().policies {
        println!("policy {}: {}, revision {}", policy.name, policy.source, policy.revision);
    }

    // Any service whose requests can be cloned. Layers above the policy see a call once, those below it each attempt.
    let asked = Arc::new(AtomicU32::new(0));
    let guess = client.target("geocoder").layer().fallback_with(async |_| Ok("somewhere"));
    let mut geocoder = ServiceBuilder::new().layer(guess).service_fn(move |place: &'static str| {
        let first = asked.fetch_add(1, Ordering::Relaxed) == 0;
        async move { if first || place != "Bern" { Err(io::Error::other("down")) } else { Ok("46.9 N, 7.4 E") } }
    });
    println!("retry: {}", geocoder.ready().await?.call("Bern").await?);
    println!("fallback: {}", geocoder.ready().await?.call("Atlantis").await?);

    // HTTP: statuses, `Retry-After`, methods and paths count. A request is sent again if its body can be cloned.
    let (url, seen) = serve().await?;
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<String>();
    let search = ServiceBuilder::new().layer(client.target("search").http_layer()).service(http);
    let request = |method, path| Request::builder().method(method).uri(format!("{url}{path}")).body(String::new());

    let response = search.clone().oneshot(request("GET", "/")?).await?;
    println!("GET: {}, the server saw {} requests", response.status(), seen.load(Ordering::Relaxed));
    // A POST might do it twice: it is sent once, and the caller gets the answer itself.
    let response = search.clone().oneshot(request("POST", "/down")?).await?;
    println!("POST: {}, the server saw {}", response.status(), seen.load(Ordering::Relaxed));
    let response = search.clone().oneshot(request("GET", "/down")?).await?;
    println!("exhausted: {}, the server saw {}", response.status(), seen.load(Ordering::Relaxed));

    // That made four failures in a row, and clones share the breaker: from now on nothing is sent.
    match search.oneshot(request("GET", "/")?).await {
        Err(CallError::Rejected(rejection)) => {
            println!("breaker: {rejection}, the server saw {}", seen.load(Ordering::Relaxed));
        }
        other => println!("not expected: {other:?}"),
    }
    Ok(())
}

/// A service that fails once, and at `/down` always; its address, and how many requests it has seen.
async fn serve() -> io::Result<(String, Arc<AtomicU32>)> {
    let seen = Arc::new(AtomicU32::new(0));
    let app = Router::new().fallback(any(answer)).with_state(Arc::clone(&seen));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", listener.local_addr()?);
    tokio::spawn(async move { axum::serve(listener, app).await });
    Ok((url, seen))
}

async fn answer(State(seen): State<Arc<AtomicU32>>, uri: Uri) -> Result<&'static str, StatusCode> {
    let first = seen.fetch_add(1, Ordering::Relaxed) == 0;
    if first || uri.path() == "/down" { Err(StatusCode::SERVICE_UNAVAILABLE) } else { Ok("found") }
}
