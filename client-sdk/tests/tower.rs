//! Tower services under a policy: tower's contract, and HTTP through a real connection.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::{
    io,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::Bytes;
use fusebox::{CallError, Client, TestClient};
use http_body_util::Full;
use hyper_util::{client::legacy, rt::TokioExecutor};
use tower::{Layer as _, Service, ServiceExt as _};

fn client(pipeline: &str) -> TestClient {
    Client::for_test(&format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: b }}\nspec:\n  match: {{ target: b }}\n  pipeline:\n{pipeline}"
    ))
    .unwrap()
}

/// A service that fails so many times, and panics when it is called without having said that it is ready.
struct Strict {
    failures: Arc<AtomicUsize>,
    calls: Arc<AtomicUsize>,
    held: Arc<AtomicUsize>,
    ready: AtomicBool,
}

impl Strict {
    fn new(failures: usize) -> Self {
        Self {
            failures: Arc::new(AtomicUsize::new(failures)),
            calls: Arc::default(),
            held: Arc::default(),
            ready: AtomicBool::new(false),
        }
    }
}

impl Clone for Strict {
    fn clone(&self) -> Self {
        let Self { failures, calls, held, .. } = self;
        // Readiness belongs to a handle, not to its clones.
        let (failures, calls, held) = (Arc::clone(failures), Arc::clone(calls), Arc::clone(held));
        Self { failures, calls, held, ready: AtomicBool::new(false) }
    }
}

impl Drop for Strict {
    fn drop(&mut self) {
        if *self.ready.get_mut() {
            self.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

impl Service<u32> for Strict {
    type Response = u32;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = Result<u32, io::Error>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.ready.swap(true, Ordering::SeqCst) {
            self.held.fetch_add(1, Ordering::SeqCst);
        }
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: u32) -> Self::Future {
        assert!(self.ready.swap(false, Ordering::SeqCst), "called before it was ready");
        self.held.fetch_sub(1, Ordering::SeqCst);
        self.calls.fetch_add(1, Ordering::SeqCst);
        let failed = self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_ok();
        Box::pin(async move { if failed { Err(io::Error::other("down")) } else { Ok(request) } })
    }
}

#[tokio::test(start_paused = true)]
async fn every_attempt_waits_for_readiness_and_none_is_held_between_them() {
    let strict = Strict::new(2);
    let client = client("    - retry: { backoff: { fixed: { delay: 1m } }, failureWhen: { errors: [any] } }\n");
    let mut service = client.target("b").layer().layer(strict.clone());
    let call = service.ready().await.unwrap().call(7);
    let running = tokio::spawn(call);
    tokio::time::sleep(Duration::from_secs(30)).await;
    // The first attempt has failed, and the retry waits: no place of the inner service may be kept meanwhile.
    assert_eq!((strict.calls.load(Ordering::SeqCst), strict.held.load(Ordering::SeqCst)), (1, 0));
    assert_eq!(running.await.unwrap().unwrap(), 7);
    assert_eq!(strict.calls.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn being_ready_takes_nothing_and_a_refused_call_never_asks_the_service() {
    let strict = Strict::new(2);
    let client = client("    - circuitBreaker: { trip: { consecutiveFailures: 2 }, delay: 1h, delayMax: 1h }\n");
    let service = client.target("b").layer().layer(strict.clone());
    let mut handles: Vec<_> = (0..10).map(|_| service.clone()).collect();
    for handle in &mut handles {
        handle.ready().await.unwrap();
    }
    assert_eq!(strict.held.load(Ordering::SeqCst), 0);
    // Clones share the state: two failures of two handles open the breaker of all.
    for handle in &mut handles[..2] {
        assert!(matches!(handle.call(1).await, Err(CallError::Inner(_))));
    }
    for handle in &mut handles[2..] {
        assert!(handle.call(1).await.unwrap_err().is_rejection());
    }
    assert_eq!((strict.calls.load(Ordering::SeqCst), strict.held.load(Ordering::SeqCst)), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn the_remaining_time_travels_in_the_header_that_the_policy_names() {
    let client = client(
        "    - timeout: { duration: 5s, propagateHeader: x-time-left }\n    - retry: { backoff: { fixed: { delay: 2s } } }\n",
    );
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let told = Arc::clone(&seen);
    let inner = tower::service_fn(move |request: axum::http::Request<()>| {
        told.lock().unwrap().push(request.headers()["x-time-left"].to_str().unwrap().to_owned());
        std::future::ready(axum::http::Response::builder().status(503).body(()))
    });
    let request = axum::http::Request::builder().uri("http://b/").body(()).unwrap();
    client.target("b").http_layer().layer(inner).oneshot(request).await.unwrap();
    assert_eq!(*seen.lock().unwrap(), ["5000", "3000", "1000"]);
}

#[tokio::test]
async fn a_typed_fallback_answers_where_the_policy_has_one() {
    let client = client("    - fallback: { function: cached }\n");
    let layer = client.target("b").layer().fallback_with(|failure: fusebox::Failure| async move {
        assert_eq!(failure.function.as_deref(), Some("cached"));
        Ok(99)
    });
    assert_eq!(layer.layer(Strict::new(1)).oneshot(1).await.unwrap(), 99);
}

#[tokio::test]
async fn http_through_a_real_connection_is_judged_by_its_head_and_tried_again_by_its_method() {
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let app =
        axum::Router::new().fallback(move || {
            let call = counted.fetch_add(1, Ordering::SeqCst);
            async move {
                if call.is_multiple_of(2) { Err(axum::http::StatusCode::SERVICE_UNAVAILABLE) } else { Ok("hello") }
            }
        });
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });

    let client = client("    - retry: { backoff: { fixed: { delay: 1ms } } }\n");
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<Bytes>>();
    let service = client.target("b").http_layer().layer(http);
    let request = |method: &str| {
        axum::http::Request::builder().method(method).uri(&url).body(Full::new(Bytes::from("x"))).unwrap()
    };
    assert_eq!(service.clone().oneshot(request("PUT")).await.unwrap().status(), 200);
    assert_eq!(calls.load(Ordering::SeqCst), 2);
    // A POST might do it twice.
    assert_eq!(service.clone().oneshot(request("POST")).await.unwrap().status(), 503);
    assert_eq!(calls.load(Ordering::SeqCst), 3);
}
