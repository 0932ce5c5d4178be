//! What every answer passes on its way out: an error has a reason, whoever made it; a request has an id, and an end.
//!
//! Much is refused before a handler sees it: bytes that are no message, a message that is too large, a method that nobody has. The
//! transport answers those itself, with a code and a text. Here they get what every other error has. Only the end of an answer is looked
//! at: the messages of a stream go through as they come.

use std::{
    panic::AssertUnwindSafe,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use http_body::{Frame, SizeHint};
use tonic::Status;

use super::{caller, status};
use crate::{access::rules, shutdown::Shutdown};

/// From a request to the head of its answer; streams go on for as long as they like.
const ANSWER_WITHIN: Duration = Duration::from_secs(20);
/// The transport has a clock of its own for what a caller allows, and no reason in its answer: this one is ahead of it by so much.
const AHEAD: Duration = Duration::from_millis(5);
/// The one stream whose handler, a library's, does not end it with the server: an open one would hold the end up.
const WITHOUT_END: &str = "/grpc.health.v1.Health/Watch";

/// As a middleware of the router, outside of all others that speak gRPC.
pub(crate) async fn complete(State(shutdown): State<Shutdown>, mut request: Request, next: Next) -> Response {
    let path = request.uri().path();
    if !is_grpc(request.headers()) {
        if rules::of(path).is_none() {
            return next.run(request).await;
        }
        let text = "this is a gRPC method: its content type is application/grpc\n";
        return (StatusCode::UNSUPPORTED_MEDIA_TYPE, text).into_response();
    }
    let asked = Asked { method: path.to_owned(), id: caller::request_id(request.headers_mut()) };
    let wait =
        allowed(request.headers()).map_or(ANSWER_WITHIN, |allowed| allowed.saturating_sub(AHEAD).min(ANSWER_WITHIN));
    let answer = tokio::time::timeout(wait, AssertUnwindSafe(next.run(request)).catch_unwind()).await;
    let mut response = match answer {
        Ok(Ok(response)) => response,
        Ok(Err(_panic)) => status::fault(&asked.method).into_http::<Body>(),
        Err(_elapsed) => status::too_late(&asked.method, wait).into_http::<Body>(),
    };
    asked.complete(response.headers_mut());
    if http_body::Body::is_end_stream(response.body()) {
        return response;
    }
    let ending: Option<Ending> = match &*asked.method {
        WITHOUT_END => Some(Box::pin(async move { shutdown.begun().await })),
        _ => None,
    };
    response.map(|inner| Body::new(Completed { inner: Some(inner), ending, asked }))
}

pub(crate) fn is_grpc(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// How long the caller waits, if it says so: up to eight digits and a unit.
fn allowed(headers: &HeaderMap) -> Option<Duration> {
    let text = headers.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let amount: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
    match unit {
        "H" => Some(Duration::from_secs(amount * 3600)),
        "M" => Some(Duration::from_secs(amount * 60)),
        "S" => Some(Duration::from_secs(amount)),
        "m" => Some(Duration::from_millis(amount)),
        "u" => Some(Duration::from_micros(amount)),
        "n" => Some(Duration::from_nanos(amount)),
        _ => None,
    }
}

/// What an answer is to.
struct Asked {
    method: String,
    id: String,
}

impl Asked {
    /// Gives a status what it lacks. It is in the headers of an answer without messages, else in its trailers.
    fn complete(&self, headers: &mut HeaderMap) {
        // Most have ended well: nothing of those is read.
        if headers.get(Status::GRPC_STATUS).is_none_or(|code| code == "0") {
            return;
        }
        let Some(answered) = Status::from_header_map(headers).filter(status::is_incomplete) else { return };
        for name in [Status::GRPC_STATUS, Status::GRPC_MESSAGE, Status::GRPC_STATUS_DETAILS] {
            headers.remove(name);
        }
        // Texts are encoded, so that they always fit into headers.
        let _ = status::completed(&answered, &self.method, &self.id).add_header(headers);
    }
}

type Ending = Pin<Box<dyn Future<Output = ()> + Send>>;

struct Completed {
    /// Taken when the server ends it.
    inner: Option<Body>,
    ending: Option<Ending>,
    asked: Asked,
}

impl http_body::Body for Completed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = self.get_mut();
        let Some(inner) = &mut this.inner else { return Poll::Ready(None) };
        match Pin::new(inner).poll_frame(cx) {
            Poll::Ready(Some(Ok(mut frame))) => {
                if let Some(trailers) = frame.trailers_mut() {
                    this.asked.complete(trailers);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(over) => Poll::Ready(over),
            Poll::Pending => {
                let Some(ending) = &mut this.ending else { return Poll::Pending };
                ready!(ending.as_mut().poll(cx));
                this.inner = None;
                let mut trailers = HeaderMap::new();
                // A status whose text is its own always fits into headers.
                let _ = status::unavailable("the server is shutting down").add_header(&mut trailers);
                Poll::Ready(Some(Ok(Frame::trailers(trailers))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), http_body::Body::size_hint)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, middleware, routing::post};
    use tonic::Code;
    use tonic_types::StatusExt as _;
    use tower::ServiceExt as _;

    use super::*;

    async fn ask(router: Router, timeout: &str) -> Status {
        let router = router.layer(middleware::from_fn_with_state(Shutdown::new(), complete));
        let request = Request::builder().uri("/x.Y/Z").method("POST");
        let request = request.header("content-type", "application/grpc").header("grpc-timeout", timeout);
        let answer = router.oneshot(request.body(Body::empty()).unwrap()).await.unwrap();
        Status::from_header_map(answer.headers()).unwrap()
    }

    #[tokio::test]
    async fn a_handler_that_panics_is_a_fault_of_the_server_with_the_id_to_look_for() {
        let router = Router::new().route("/x.Y/Z", post(async || -> String { panic!("a fault") }));
        let answer = ask(router, "1S").await;
        let details = answer.get_error_details();
        assert_eq!((answer.code(), details.error_info().unwrap().reason.as_str()), (Code::Internal, "INTERNAL"));
        assert_eq!(details.request_info().unwrap().request_id.len(), 32);
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_takes_longer_than_the_caller_waits_is_given_up() {
        let router = Router::new().route("/x.Y/Z", post(std::future::pending::<String>));
        for timeout in ["1S", "50m", "1n", "100H", "nonsense"] {
            let answer = ask(router.clone(), timeout).await;
            let details = answer.get_error_details();
            let info = details.error_info().unwrap();
            assert_eq!(
                (answer.code(), info.reason.as_str()),
                (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
                "{timeout}"
            );
            assert_eq!(info.metadata["method"], "/x.Y/Z");
        }
    }
}
