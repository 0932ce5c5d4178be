//! A policy as a link in a chain of `reqwest-middleware`, against a real server.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use fusebox::{Attempts, CallError, Client, TestClient};
use reqwest_middleware::{ClientBuilder, Error, Middleware, Next};

fn client(pipeline: &str) -> TestClient {
    Client::for_test(&format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: b }}\nspec:\n  match: {{ target: b }}\n  pipeline:\n{pipeline}"
    ))
    .unwrap()
}

/// A server whose first answers are 503.
async fn serve(failures: usize) -> (Arc<AtomicUsize>, String) {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let app = axum::Router::new().fallback(move || {
        let call = counted.fetch_add(1, Ordering::SeqCst);
        async move { if call < failures { Err(axum::http::StatusCode::SERVICE_UNAVAILABLE) } else { Ok("hello") } }
    });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    (calls, url)
}

#[derive(Clone, Debug, PartialEq)]
struct Tenant(&'static str);

/// Somebody else's middleware, which sees every attempt with the extensions of the call.
struct Watching(Arc<AtomicUsize>);

#[async_trait::async_trait]
impl Middleware for Watching {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut axum::http::Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        assert_eq!(extensions.remove::<Tenant>(), Some(Tenant("acme")));
        self.0.fetch_add(1, Ordering::SeqCst);
        next.run(request, extensions).await
    }
}

#[tokio::test]
async fn what_comes_after_it_runs_once_for_each_attempt_with_the_calls_own_extensions() {
    let (calls, url) = serve(2).await;
    let client = client("    - retry: { backoff: { fixed: { delay: 1ms } } }\n");
    let watched = Arc::new(AtomicUsize::new(0));
    let http = ClientBuilder::new(reqwest::Client::new())
        .with(client.target("b").middleware())
        .with(Watching(Arc::clone(&watched)))
        .build();
    let response = http.get(&url).with_extension(Tenant("acme")).send().await.unwrap();
    assert_eq!(response.extensions().get::<Attempts>(), Some(&Attempts(3)));
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!((calls.load(Ordering::SeqCst), watched.load(Ordering::SeqCst)), (3, 3));
}

#[tokio::test]
async fn what_a_strategy_makes_of_a_call_can_be_told_from_other_errors() {
    let (calls, url) = serve(2).await;
    let client = client("    - circuitBreaker: { trip: { consecutiveFailures: 2 }, delay: 1h, delayMax: 1h }\n");
    let http = ClientBuilder::new(reqwest::Client::new()).with(client.target("b").middleware()).build();
    for _ in 0..2 {
        assert_eq!(http.get(&url).send().await.unwrap().status(), 503);
    }
    let Error::Middleware(error) = http.get(&url).send().await.unwrap_err() else { panic!("it was refused") };
    let error = error.downcast_ref::<CallError<Error>>().unwrap();
    assert!(error.is_rejection() && error.retry_after().is_some(), "{error:?}");
    assert_eq!(calls.load(Ordering::SeqCst), 2);
}

#[tokio::test]
async fn a_fallback_goes_to_another_address_through_the_same_chain() {
    let (_, down) = serve(99).await;
    let (up, other) = serve(0).await;
    let client = client("    - fallback: { target: other }\n");
    let policy = client.target("b").middleware().target_url("other", other.parse().unwrap());
    let http = ClientBuilder::new(reqwest::Client::new()).with(policy).build();
    assert_eq!(http.get(&down).send().await.unwrap().text().await.unwrap(), "hello");
    assert_eq!(up.load(Ordering::SeqCst), 1);
}
