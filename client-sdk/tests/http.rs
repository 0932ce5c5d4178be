//! HTTP calls under a policy, against a real server on a port of its own.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};

use axum::{
    Router,
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, Method, Response, Uri},
};
use fusebox::{Attempts, CallError, Client, FALLBACK_HEADER, FallbackFault, HttpClient, Replaced};
use futures_util::{StreamExt as _, stream};

/// One request as the server saw it.
#[derive(Clone, Debug)]
struct Seen {
    method: Method,
    path: String,
    headers: HeaderMap,
    body: Bytes,
}

type Answer = Box<dyn FnOnce() -> Response<Body> + Send>;

/// A server that gives the answers of a script, then 200 `hello`.
#[derive(Clone, Default)]
struct Server {
    seen: Arc<Mutex<Vec<Seen>>>,
    script: Arc<Mutex<VecDeque<Answer>>>,
}

impl Server {
    async fn start(script: Vec<Answer>) -> (Self, String) {
        let server = Self { script: Arc::new(Mutex::new(script.into())), ..Self::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}/", listener.local_addr().unwrap());
        let app = Router::new().fallback(answer).with_state(server.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        (server, url)
    }

    fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap().clone()
    }
}

async fn answer(
    State(server): State<Server>,
    method: Method,
    uri: Uri,
    headers: HeaderMap,
    body: Bytes,
) -> Response<Body> {
    server.seen.lock().unwrap().push(Seen { method, path: uri.to_string(), headers, body });
    let next = server.script.lock().unwrap().pop_front();
    match next {
        Some(answer) => answer(),
        None => Response::new(Body::from("hello")),
    }
}

fn status(status: u16) -> Answer {
    Box::new(move || Response::builder().status(status).body(Body::from("busy")).unwrap())
}

fn asking(retry_after: String) -> Answer {
    Box::new(move || Response::builder().status(503).header("retry-after", retry_after).body(Body::empty()).unwrap())
}

/// A head at once, and a body that never ends.
fn endless_body() -> Answer {
    Box::new(|| {
        let first = stream::once(async { Ok::<_, std::io::Error>(Bytes::from("he")) });
        Response::new(Body::from_stream(first.chain(stream::pending())))
    })
}

fn client(pipeline: &str) -> Client {
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
         pipeline:\n{pipeline}"
    );
    Client::builder("service-a").instance("a-1").builtin_manifest(&text).start().unwrap()
}

fn http(client: &Client) -> HttpClient {
    client.target("service-b").reqwest(reqwest::Client::builder()).unwrap()
}

const RETRY: &str = "    - retry: { maxAttempts: 3, backoff: { fixed: { delay: 1ms } } }\n";

#[tokio::test]
async fn a_get_is_retried_and_its_response_counts_the_attempts() {
    let (server, url) = Server::start(vec![status(503), status(502)]).await;
    // On another task, as handlers of a server do it.
    let response = tokio::spawn(http(&client(RETRY)).get(&url).send()).await.unwrap().unwrap();
    assert_eq!(response.extensions().get::<Attempts>(), Some(&Attempts(3)));
    assert_eq!(response.url().as_str(), url);
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!(server.seen().len(), 3);
}

#[tokio::test]
async fn after_the_last_attempt_the_caller_gets_the_last_response_with_its_body() {
    let (_server, url) = Server::start(vec![status(503), status(503), status(503)]).await;
    let response = http(&client(RETRY)).get(&url).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(response.extensions().get::<Attempts>(), Some(&Attempts(3)));
    assert_eq!(response.text().await.unwrap(), "busy");
}

#[tokio::test]
async fn retry_after_is_honoured_in_seconds_and_as_a_date() {
    let (_server, url) = Server::start(vec![asking("1".to_owned())]).await;
    let begun = Instant::now();
    http(&client(RETRY)).get(&url).send().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());

    // A date has whole seconds: one that is two seconds ahead is more than one second away.
    let date = httpdate::fmt_http_date(SystemTime::now() + Duration::from_secs(2));
    let (_server, url) = Server::start(vec![asking(date)]).await;
    let begun = Instant::now();
    http(&client(RETRY)).get(&url).send().await.unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn retry_after_is_whole_seconds_or_a_date_and_anything_else_says_nothing() {
    // What asks for more than the policy's limit ends the call; what asks for nothing does not.
    let retry = "    - retry: { maxAttempts: 2, backoff: { fixed: { delay: 1ms } }, retryAfterMax: 1s }\n";
    let date = |past: bool| {
        let now = SystemTime::now();
        let at = if past { now - Duration::from_secs(60) } else { now + Duration::from_secs(60) };
        httpdate::fmt_http_date(at)
    };
    let table = [
        ("5".to_owned(), true),
        ("0".to_owned(), false),
        ("2.5".to_owned(), false),
        ("-5".to_owned(), false),
        ("soon".to_owned(), false),
        (date(false), true),
        (date(true), false),
    ];
    for (text, ends) in table {
        let (server, url) = Server::start(vec![asking(text.clone())]).await;
        let response = http(&client(retry)).get(&url).send().await.unwrap();
        let expected = if ends { (503, 1) } else { (200, 2) };
        assert_eq!((response.status().as_u16(), server.seen().len()), expected, "{text}");
    }
}

#[tokio::test]
async fn what_another_try_can_help_is_tried_again_and_what_none_can_is_not() {
    const COUNTED: &str = "    - retry: { maxAttempts: 3, backoff: { fixed: { delay: 1ms } }, onExhausted: error }\n";
    let (server, url) = Server::start(vec![status(429), status(429)]).await;
    assert_eq!(http(&client(COUNTED)).get(&url).send().await.unwrap().status(), 200);
    assert_eq!(server.seen().len(), 3);

    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let nobody = format!("http://{}/", closed.local_addr().unwrap());
    drop(closed);
    let error = http(&client(COUNTED)).get(&nobody).send().await.unwrap_err();
    assert!(matches!(error, CallError::RetriesExhausted { attempts: 3, .. }), "{error:?}");

    let around = || -> Answer {
        Box::new(|| Response::builder().status(302).header("location", "/").body(Body::empty()).unwrap())
    };
    let (server, url) = Server::start((0..40).map(|_| around()).collect()).await;
    let limited = reqwest::Client::builder().redirect(reqwest::redirect::Policy::limited(3));
    let circle = client(COUNTED).target("service-b").reqwest(limited).unwrap();
    let error = circle.get(&url).send().await.unwrap_err();
    assert!(matches!(&error, CallError::Inner(inner) if inner.is_redirect()), "{error:?}");
    assert_eq!(server.seen().len(), 4, "one attempt, which went round three times");

    let error = http(&client(COUNTED)).get("gopher://127.0.0.1/").send().await.unwrap_err();
    assert!(matches!(&error, CallError::Inner(inner) if inner.is_builder()), "{error:?}");
}

#[tokio::test]
async fn an_asked_wait_that_is_too_long_ends_the_call_at_once() {
    let (server, url) = Server::start(vec![asking("3600".to_owned())]).await;
    let response = http(&client(RETRY)).get(&url).send().await.unwrap();
    assert_eq!(response.status(), 503);
    assert_eq!(server.seen().len(), 1);
}

#[tokio::test]
async fn a_post_is_not_retried_unless_it_is_idempotent() {
    let (server, url) = Server::start(vec![status(503)]).await;
    let response = http(&client(RETRY)).post(&url).body("order").send().await.unwrap();
    assert_eq!((response.status().as_u16(), server.seen().len()), (503, 1));

    let (server, url) = Server::start(vec![status(503)]).await;
    let response = http(&client(RETRY)).post(&url).header("idempotency-key", "1").body("order").send().await.unwrap();
    assert_eq!((response.status().as_u16(), server.seen().len()), (200, 2));
}

#[tokio::test]
async fn a_post_that_never_left_is_retried() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    drop(listener);
    let error =
        http(&client("    - retry: { maxAttempts: 2, backoff: { fixed: { delay: 1ms } }, onExhausted: error }\n"))
            .post(&url)
            .body("order")
            .send()
            .await
            .unwrap_err();
    assert!(matches!(error, CallError::RetriesExhausted { attempts: 2, .. }), "{error:?}");
}

#[tokio::test]
async fn a_body_is_sent_again_up_to_the_limit() {
    let (server, url) = Server::start(vec![status(503), status(503)]).await;
    let http = http(&client(RETRY)).replay_limit(10);
    http.put(&url).body("0123456789").send().await.unwrap();
    let bodies: Vec<_> = server.seen().into_iter().map(|seen| (seen.method, seen.body)).collect();
    assert_eq!(bodies, vec![(Method::PUT, Bytes::from("0123456789")); 3]);

    let (server, url) = Server::start(vec![status(503), status(503)]).await;
    assert_eq!(http.put(&url).send().await.unwrap().status(), 200);
    assert_eq!(server.seen().len(), 3, "no body at all can be sent as often as one likes");

    let (server, url) = Server::start(vec![status(503)]).await;
    assert_eq!(http.put(&url).body("0123456789+").send().await.unwrap().status(), 503);
    assert_eq!(server.seen().len(), 1, "too large to be kept");

    let (server, url) = Server::start(vec![status(503)]).await;
    let stream = reqwest::Body::wrap_stream(stream::iter([Ok::<_, std::io::Error>("part")]));
    assert_eq!(http.put(&url).body(stream).send().await.unwrap().status(), 503);
    assert_eq!(server.seen().len(), 1, "a stream can't be read twice");
}

#[tokio::test]
async fn an_open_breaker_refuses_before_anything_is_sent() {
    let (server, url) = Server::start(vec![status(503), status(503)]).await;
    let client = client("    - circuitBreaker: { trip: { consecutiveFailures: 2 }, delay: 60s }\n");
    let http = http(&client);
    for _ in 0..2 {
        assert_eq!(http.get(&url).send().await.unwrap().status(), 503);
    }
    let error = http.get(&url).send().await.unwrap_err();
    assert!(error.is_rejection() && error.retry_after().unwrap() > Duration::from_secs(50), "{error:?}");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn a_retry_after_on_the_outcome_that_trips_sets_the_open_time() {
    let (_server, url) = Server::start(vec![asking("20".to_owned())]).await;
    let http = http(&client("    - circuitBreaker: { trip: { consecutiveFailures: 1 }, delay: 1s }\n"));
    http.get(&url).send().await.unwrap();
    let wait = http.get(&url).send().await.unwrap_err().retry_after().unwrap();
    assert!(wait > Duration::from_secs(15) && wait <= Duration::from_secs(20), "{wait:?}");
}

#[tokio::test]
async fn a_static_fallback_is_fresh_each_time_and_says_what_it_replaced() {
    let (_server, url) = Server::start((0..2).map(|_| status(503)).collect()).await;
    let http = http(&client(
        "    - fallback: { response: { status: 200, headers: { content-type: application/json }, body: '{\"message\":\"sorry\"}' } }\n",
    ));
    for _ in 0..2 {
        let response = http.get(&url).send().await.unwrap();
        assert_eq!(response.status(), 200);
        assert_eq!(response.headers()["content-type"], "application/json");
        assert_eq!(response.headers()[FALLBACK_HEADER], "service-b/fallback; status 503");
        assert_eq!(response.extensions().get::<Replaced>().unwrap().strategy.as_str(), "fallback");
        assert_eq!(response.text().await.unwrap(), r#"{"message":"sorry"}"#);
    }
    let response = http.get(&url).send().await.unwrap();
    assert!(!response.headers().contains_key(FALLBACK_HEADER), "a good answer is left alone");
}

#[tokio::test]
async fn a_function_answers_if_it_is_registered() {
    let (_server, url) = Server::start((0..2).map(|_| status(503)).collect()).await;
    let client = client("    - fallback: { function: menu }\n");
    let http = http(&client);
    let CallError::Fallback(fault) = http.get(&url).send().await.unwrap_err() else { panic!("no fallback") };
    assert!(matches!(fault.reason, FallbackFault::UnknownFunction(name) if name == "menu"));
    client.register_fallback("menu", |failure| async move {
        Ok(http::Response::new(Bytes::from(failure.outcome.to_string())))
    });
    assert_eq!(http.get(&url).send().await.unwrap().text().await.unwrap(), "status 503");
}

#[tokio::test]
async fn another_target_answers_the_same_request() {
    let (_server, url) = Server::start(vec![status(503)]).await;
    let (other, base) = Server::start(vec![]).await;
    let http = http(&client("    - fallback: { target: service-c }\n")).target_url("service-c", base.parse().unwrap());
    let response = http.put(format!("{url}orders?id=7")).body("order").send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    let seen = &other.seen()[0];
    assert_eq!((seen.path.as_str(), &seen.body[..]), ("/orders?id=7", &b"order"[..]));
    assert_eq!(seen.headers["host"], base.trim_start_matches("http://").trim_end_matches('/'));
}

#[tokio::test]
async fn the_last_good_response_answers_while_it_is_young() {
    let good =
        || -> Answer { Box::new(|| Response::builder().header("x-kept", "yes").body(Body::from("news")).unwrap()) };
    let (_server, url) = Server::start(vec![status(503), good(), status(503), status(503)]).await;
    let http = http(&client("    - fallback: { stale: { maxAge: 60s } }\n"));
    assert!(http.get(&url).send().await.is_err(), "nothing is kept yet");
    assert_eq!(http.get(&url).send().await.unwrap().text().await.unwrap(), "news");
    let stale = http.get(&url).send().await.unwrap();
    assert_eq!(stale.headers()["x-kept"], "yes");
    assert!(stale.headers().contains_key(FALLBACK_HEADER));
    assert_eq!(stale.text().await.unwrap(), "news");
    assert!(http.get(&url).bearer_auth("somebody else").send().await.is_err(), "others' answers are not shown");
}

#[tokio::test]
async fn a_timeout_covers_the_body_only_where_the_policy_says_so() {
    let (_server, url) = Server::start(vec![endless_body()]).await;
    let error = http(&client("    - timeout: { duration: 100ms, scope: body }\n")).get(&url).send().await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");

    let (_server, url) = Server::start(vec![endless_body()]).await;
    let mut response = http(&client("    - timeout: { duration: 100ms }\n")).get(&url).send().await.unwrap();
    assert_eq!(response.chunk().await.unwrap().unwrap(), "he");
    let more = tokio::time::timeout(Duration::from_millis(200), response.chunk()).await;
    assert!(more.is_err(), "the body goes on without a limit");
}

#[tokio::test]
async fn a_body_that_hangs_is_tried_again_and_counts_as_failure() {
    let (server, url) = Server::start(vec![endless_body()]).await;
    let http = http(&client(&format!("{RETRY}    - timeout: {{ duration: 100ms, scope: body }}\n")));
    let response = http.get(&url).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), "hello");
    assert_eq!(server.seen().len(), 2);
}

#[tokio::test]
async fn the_remaining_time_travels_in_the_header_that_the_policy_names() {
    let (server, url) = Server::start(vec![]).await;
    let http = http(&client("    - timeout: { duration: 5s, propagateHeader: x-time-left }\n"));
    http.get(&url).send().await.unwrap();
    let left: u64 = server.seen()[0].headers["x-time-left"].to_str().unwrap().parse().unwrap();
    assert!((4000..=5000).contains(&left), "{left}");
}

#[tokio::test]
async fn a_request_of_a_route_runs_under_the_route_s_policy() {
    let text = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: orders }\nspec:\n  match: { target: service-b, routes: \
                ['GET /orders/*'] }\n  pipeline:\n    - fallback: { response: { body: none } }\n";
    let client = Client::builder("service-a").builtin_manifest(text).start().unwrap();
    let (_server, url) = Server::start((0..2).map(|_| status(503)).collect()).await;
    assert_eq!(http(&client).get(format!("{url}orders/7")).send().await.unwrap().status(), 200);
    assert_eq!(http(&client).get(&url).send().await.unwrap().status(), 503);
}
