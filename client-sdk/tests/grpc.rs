//! gRPC calls through a tonic channel under a policy, against a real server on a port of its own.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Poll},
    time::Duration,
};

use fusebox::{CallError, Client, GrpcChannel, TestClient};
use futures_util::{Stream, StreamExt as _, stream};
use tonic::{
    Code, Request, Response, Status,
    body::Body,
    codegen::{BoxFuture, http},
    metadata::{MetadataMap, MetadataValue},
    server::{NamedService, ServerStreamingService, UnaryService},
    transport::{Channel, Endpoint, Server},
};
use tonic_prost::ProstCodec;
use tonic_types::StatusExt as _;

type Codec = ProstCodec<String, String>;
type Messages = Pin<Box<dyn Stream<Item = Result<String, Status>> + Send>>;

/// What the server does with one call.
enum Answer {
    Value(&'static str),
    Fail(Status),
    Hang,
    /// Messages, and what they end in.
    Stream(Vec<&'static str>, Option<Status>),
}

/// A server that gives the answers of a script, then `hello`.
#[derive(Clone, Default)]
struct Echo {
    seen: Arc<Mutex<Vec<MetadataMap>>>,
    script: Arc<Mutex<VecDeque<Answer>>>,
}

impl NamedService for Echo {
    const NAME: &'static str = "test.Echo";
}

impl Echo {
    async fn start(script: Vec<Answer>) -> (Self, Channel) {
        let echo = Self { script: Arc::new(Mutex::new(script.into())), ..Self::default() };
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = format!("http://{}", listener.local_addr().unwrap());
        let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
        let server = Server::builder().add_service(echo.clone()).serve_with_incoming(incoming);
        tokio::spawn(server);
        (echo, Endpoint::from_shared(address).unwrap().connect_lazy())
    }

    fn next(&self, metadata: &MetadataMap) -> Answer {
        self.seen.lock().unwrap().push(metadata.clone());
        self.script.lock().unwrap().pop_front().unwrap_or(Answer::Value("hello"))
    }

    fn calls(&self) -> usize {
        self.seen.lock().unwrap().len()
    }
}

impl UnaryService<String> for Echo {
    type Response = String;
    type Future = BoxFuture<Response<String>, Status>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let answer = self.next(request.metadata());
        Box::pin(async move {
            match answer {
                Answer::Value(text) => Ok(Response::new(text.to_owned())),
                Answer::Fail(status) => Err(status),
                Answer::Hang | Answer::Stream(..) => std::future::pending().await,
            }
        })
    }
}

impl ServerStreamingService<String> for Echo {
    type Response = String;
    type ResponseStream = Messages;
    type Future = BoxFuture<Response<Messages>, Status>;

    fn call(&mut self, request: Request<String>) -> Self::Future {
        let answer = self.next(request.metadata());
        Box::pin(async move {
            let messages: Messages = match answer {
                Answer::Value(text) => Box::pin(stream::iter([Ok(text.to_owned())])),
                Answer::Fail(status) => return Err(status),
                Answer::Hang => Box::pin(stream::pending()),
                Answer::Stream(texts, end) => {
                    let texts = texts.into_iter().map(|text| Ok(text.to_owned()));
                    Box::pin(stream::iter(texts.chain(end.map(Err))))
                }
            };
            Ok(Response::new(messages))
        })
    }
}

impl tower::Service<http::Request<Body>> for Echo {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<http::Response<Body>, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let echo = self.clone();
        Box::pin(async move {
            let mut grpc = tonic::server::Grpc::new(Codec::default());
            Ok(match request.uri().path() {
                "/test.Echo/Many" => grpc.server_streaming(echo, request).await,
                _ => grpc.unary(echo, request).await,
            })
        })
    }
}

fn client(pipeline: &str) -> TestClient {
    Client::for_test(&format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: echo }}\nspec:\n  match: {{ target: echo }}\n  \
         pipeline:\n{pipeline}"
    ))
    .unwrap()
}

async fn once(channel: &GrpcChannel<Channel>) -> Result<String, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/test.Echo/Once");
    Ok(grpc.unary(Request::new("?".to_owned()), path, Codec::default()).await?.into_inner())
}

async fn many(channel: &GrpcChannel<Channel>) -> Result<tonic::Streaming<String>, Status> {
    let mut grpc = tonic::client::Grpc::new(channel.clone());
    grpc.ready().await?;
    let path = http::uri::PathAndQuery::from_static("/test.Echo/Many");
    Ok(grpc.server_streaming(Request::new("?".to_owned()), path, Codec::default()).await?.into_inner())
}

const QUICK: &str = "backoff: { fixed: { delay: 1ms } }";

#[tokio::test]
async fn a_code_that_may_pass_is_tried_again_where_the_call_may_run_twice() {
    let (echo, channel) = Echo::start(vec![Answer::Fail(Status::unavailable("busy"))]).await;
    let client = client(&format!("    - retry: {{ {QUICK} }}\n"));
    let target = client.target("echo");
    assert_eq!(once(&target.clone().idempotent(true).tonic(channel.clone())).await.unwrap(), "hello");
    assert_eq!(echo.calls(), 2);

    // Nobody has said that the method may run twice.
    echo.script.lock().unwrap().push_back(Answer::Fail(Status::unavailable("busy")));
    assert_eq!(once(&target.tonic(channel)).await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(echo.calls(), 3);
}

#[tokio::test]
async fn a_code_that_no_try_helps_goes_to_the_caller_as_it_is() {
    let (echo, channel) = Echo::start(vec![Answer::Fail(Status::invalid_argument("no"))]).await;
    let client = client(&format!("    - retry: {{ {QUICK} }}\n"));
    let status = once(&client.target("echo").idempotent(true).tonic(channel)).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (Code::InvalidArgument, "no"));
    assert_eq!(echo.calls(), 1);
}

#[tokio::test]
async fn pushback_of_the_server_is_obeyed() {
    let pushback = |text: &'static str| {
        let mut metadata = MetadataMap::new();
        metadata.insert("grpc-retry-pushback-ms", MetadataValue::from_static(text));
        Answer::Fail(Status::with_metadata(Code::Unavailable, "busy", metadata))
    };
    let (echo, channel) = Echo::start(vec![pushback("30"), pushback("-1")]).await;
    let client = client("    - retry: { maxAttempts: 5, backoff: { fixed: { delay: 1ms } } }\n");
    let begun = std::time::Instant::now();
    let status = once(&client.target("echo").idempotent(true).tonic(channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    // The first is tried again, but not before its 30 ms; the second not at all.
    assert!(begun.elapsed() >= Duration::from_millis(30));
    assert_eq!(echo.calls(), 2);
}

#[tokio::test]
async fn a_timeout_is_deadline_exceeded_and_tells_the_server_how_long_it_may_take() {
    let (echo, channel) = Echo::start(vec![Answer::Hang]).await;
    let client = client("    - timeout: { duration: 200ms, propagateHeader: grpc-timeout }\n");
    let status = once(&client.target("echo").tonic(channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
    assert!(status.message().contains("echo/timeout"), "{status:?}");
    let told = echo.seen.lock().unwrap()[0].get("grpc-timeout").unwrap().to_str().unwrap().to_owned();
    let millis: u32 = told.strip_suffix('m').unwrap().parse().unwrap();
    assert!((1..=200).contains(&millis), "{told}");
}

#[tokio::test]
async fn an_open_breaker_is_unavailable_and_says_who_refuses() {
    let down = || Answer::Fail(Status::unavailable("down"));
    let (echo, channel) = Echo::start(vec![down(), down()]).await;
    let client = client("    - circuitBreaker: { trip: { consecutiveFailures: 2 }, delay: 1h, delayMax: 1h }\n");
    let grpc = client.target("echo").tonic(channel);
    for _ in 0..2 {
        assert_eq!(once(&grpc).await.unwrap_err().message(), "down");
    }
    let status = once(&grpc.clone()).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    let error = std::error::Error::source(&status).unwrap().downcast_ref::<CallError<Status>>().unwrap();
    assert!(error.is_rejection() && error.retry_after() > Some(Duration::from_secs(3000)), "{error:?}");
    let told = status.get_error_details();
    let info = told.error_info().unwrap();
    assert_eq!(
        (info.reason.as_str(), info.domain.as_str(), info.metadata["state"].as_str()),
        ("BREAKER_OPEN", "fusebox", "open")
    );
    assert!(told.retry_info().unwrap().retry_delay > Some(Duration::from_secs(3000)), "{told:?}");
    assert_eq!(echo.calls(), 2);
}

#[tokio::test]
async fn a_stream_that_fails_before_its_first_message_is_tried_again() {
    let (echo, channel) = Echo::start(vec![
        Answer::Fail(Status::unavailable("busy")),
        Answer::Stream(vec![], Some(Status::unavailable("busy"))),
        Answer::Stream(vec!["a", "b"], None),
    ])
    .await;
    let client = client(&format!("    - retry: {{ maxAttempts: 5, {QUICK} }}\n"));
    let messages = many(&client.target("echo").idempotent(true).tonic(channel)).await.unwrap();
    let messages: Vec<_> = messages.map(Result::unwrap).collect().await;
    assert_eq!(messages, ["a", "b"]);
    assert_eq!(echo.calls(), 3);
}

#[tokio::test]
async fn after_its_first_message_a_stream_is_never_tried_again() {
    let broken = Answer::Stream(vec!["a"], Some(Status::unavailable("broke")));
    let (echo, channel) = Echo::start(vec![broken]).await;
    let client = client(&format!("    - retry: {{ maxAttempts: 5, {QUICK} }}\n"));
    let mut messages = many(&client.target("echo").idempotent(true).tonic(channel)).await.unwrap();
    assert_eq!(messages.message().await.unwrap().unwrap(), "a");
    assert_eq!(messages.message().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(echo.calls(), 1);
}

#[tokio::test]
async fn a_timeout_cuts_a_stream_that_has_no_first_message_and_none_that_has() {
    let (_echo, channel) = Echo::start(vec![Answer::Hang, Answer::Stream(vec!["a"], None)]).await;
    let client = client("    - timeout: 100ms\n");
    let grpc = client.target("echo").tonic(channel);
    let Err(silent) = many(&grpc).await else { panic!("there was no message") };
    assert_eq!(silent.code(), Code::DeadlineExceeded);
    let mut messages = many(&grpc).await.unwrap();
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(messages.message().await.unwrap().unwrap(), "a");
}

#[tokio::test]
async fn a_connection_that_can_not_be_made_is_tried_again_whatever_the_method() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    drop(listener);
    let channel = Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy();
    let client = client(&format!("    - retry: {{ maxAttempts: 3, {QUICK} }}\n"));
    let status = once(&client.target("echo").tonic(channel)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
    let retries = client.events().iter().filter(|own| format!("{:?}", own.what).contains("RetryScheduled")).count();
    assert_eq!(retries, 2);
}

#[tokio::test]
async fn a_fallback_can_call_another_target() {
    let (_down, first) = Echo::start(vec![Answer::Fail(Status::unavailable("down"))]).await;
    let (_up, second) = Echo::start(vec![Answer::Value("from the other one")]).await;
    let client = client("    - fallback: { target: other }\n");
    let grpc = client.target("echo").tonic(first).target_channel("other", second);
    assert_eq!(once(&grpc).await.unwrap(), "from the other one");
}
