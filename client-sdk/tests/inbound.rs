//! A policy at the door of an axum server, asked over real connections.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::sync::Arc;

use axum::{Router, routing::any};
use fusebox::{Client, TestClient};
use tokio::sync::{Notify, mpsc};

fn client(pipeline: &str) -> TestClient {
    Client::for_test(&format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: inbound }}\nspec:\n  match: {{ target: shop, caller: shop }}\n  \
         pipeline:\n{pipeline}"
    ))
    .unwrap()
}

async fn serve(app: Router) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    tokio::spawn(async move { axum::serve(listener, app).await });
    url
}

#[tokio::test]
async fn a_full_server_answers_503_at_once_and_serves_again_when_there_is_room() {
    let client = client("    - bulkhead: { maxConcurrent: 1 }\n");
    let (entered, mut inside) = mpsc::channel(8);
    let leave = Arc::new(Notify::new());
    let handler = {
        let leave = Arc::clone(&leave);
        move || {
            let (entered, leave) = (entered.clone(), Arc::clone(&leave));
            async move {
                entered.send(()).await.unwrap();
                leave.notified().await;
                "served"
            }
        }
    };
    let url = serve(Router::new().fallback(any(handler)).layer(client.inbound())).await;
    let first = tokio::spawn(reqwest::get(url.clone()));
    inside.recv().await.unwrap();
    let refused = reqwest::get(&url).await.unwrap();
    assert_eq!(refused.status(), 503);
    assert_eq!(refused.headers()["retry-after"], "1");
    assert_eq!(refused.text().await.unwrap(), "rejected by inbound/bulkhead: full\n");
    leave.notify_one();
    assert_eq!(first.await.unwrap().unwrap().text().await.unwrap(), "served");
    leave.notify_one();
    assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
}

#[tokio::test]
async fn beyond_the_rate_a_request_is_answered_with_429_and_when_to_come_again() {
    let client = client("    - rateLimiter: { limit: 2, period: 1h, burst: 2 }\n");
    let url = serve(Router::new().fallback(any(|| async { "served" })).layer(client.inbound())).await;
    for _ in 0..2 {
        assert_eq!(reqwest::get(&url).await.unwrap().status(), 200);
    }
    let refused = reqwest::get(&url).await.unwrap();
    assert_eq!(refused.status(), 429);
    let wait: u64 = refused.headers()["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1700..=1800).contains(&wait), "{wait}");
}

#[tokio::test]
async fn an_adaptive_limit_refuses_what_is_above_it() {
    let client = client("    - concurrencyLimit: { initial: 1, min: 1, max: 1 }\n");
    let (entered, mut inside) = mpsc::channel(8);
    let handler = move || {
        let entered = entered.clone();
        async move {
            entered.send(()).await.unwrap();
            std::future::pending::<&str>().await
        }
    };
    let url = serve(Router::new().fallback(any(handler)).layer(client.inbound())).await;
    let stuck = tokio::spawn(reqwest::get(url.clone()));
    inside.recv().await.unwrap();
    let refused = reqwest::get(&url).await.unwrap();
    assert_eq!((refused.status().as_u16(), &refused.headers()["retry-after"]), (503, &"1".parse().unwrap()));
    // A caller that goes away leaves its place.
    stuck.abort();
    let freed = async {
        loop {
            tokio::select! {
                _ = inside.recv() => return,
                answer = reqwest::get(url.clone()) => assert_eq!(answer.unwrap().status(), 503),
            }
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(10), freed).await.unwrap();
}

#[tokio::test]
async fn a_request_without_a_policy_goes_through_untouched() {
    let other = Client::builder("someone").start().unwrap();
    let url = serve(Router::new().fallback(any(|| async { "served" })).layer(other.inbound())).await;
    assert_eq!(reqwest::get(&url).await.unwrap().text().await.unwrap(), "served");
}
