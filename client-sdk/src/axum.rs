//! A policy at the door of an axum server.

use std::{
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use ::tower::{Layer, Service};
use axum_core::body::Body;
use fusebox_policy::{
    fallback::Answers,
    outcome::{Facts, NoFacts, Outcome, Refuser},
};
use http::{HeaderValue, Request, Response, StatusCode, header};

use crate::{
    classify::{self, Head},
    client::Client,
    error::CallError,
    prepared::NoFallback,
    target::Target,
    tower::{Protocol, call::ServiceCall},
};

/// Protects a server by the policy whose target is the service itself. Made by [`Client::inbound`].
#[derive(Clone, Debug)]
pub struct InboundLayer {
    target: Target,
}

/// A server under a policy. Clones share the policy's state.
#[derive(Clone, Debug)]
pub struct InboundService<S> {
    inner: S,
    target: Target,
}

impl Client {
    /// A layer for an axum `Router` that runs requests *to* this service under the policy whose target is this service: bulkhead, rate
    /// limiter, adaptive concurrency limit and the others. A refused request is answered with 429 (rate exceeded) or 503,
    /// with `Retry-After`: the time where it is known, else one second; a request that is cut by a timeout with 503. Requests are
    /// never run twice.
    ///
    /// The policy should name this service as its caller too (`match: { caller: shop, target: shop }`): one without a caller also runs
    /// in every service that calls this one.
    #[must_use]
    pub fn inbound(&self) -> InboundLayer {
        InboundLayer { target: self.target(self.service()) }
    }
}

impl<S> Layer<S> for InboundLayer {
    type Service = InboundService<S>;

    fn layer(&self, inner: S) -> InboundService<S> {
        InboundService { inner, target: self.target.clone() }
    }
}

impl<S, B> Service<Request<B>> for InboundService<S>
where
    S: Service<Request<B>, Response = Response<Body>, Error = Infallible> + Clone + Send + 'static,
    S::Future: Send,
    B: Send + 'static,
{
    type Response = Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Body>, Infallible>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        // Always: what must wait or go away is the policy's business, and readiness must not be held meanwhile.
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let Self { inner, target } = self.clone();
        Box::pin(async move {
            let route = format!("{} {}", request.method(), request.uri().path());
            let rules = target.rules(false, false, Answers::Error);
            let mut call = ServiceCall::new(inner, request, false, Inbound, NoFallback);
            Ok(match target.drive(&mut call, Some(&route), rules).await {
                Ok(response) => response,
                Err(error) => refusal(&error),
            })
        })
    }
}

/// What a refused caller is told to wait where nobody knows how long it will take.
const SOON: Duration = Duration::from_secs(1);

/// The answer to a request that was not served.
fn refusal(error: &CallError<Infallible>) -> Response<Body> {
    let status = match error {
        CallError::Rejected(rejection) => match rejection.reason.refuser() {
            Refuser::RateLimiter => StatusCode::TOO_MANY_REQUESTS,
            Refuser::CircuitBreaker | Refuser::Bulkhead | Refuser::ConcurrencyLimit | Refuser::Throttle => {
                StatusCode::SERVICE_UNAVAILABLE
            }
        },
        CallError::Inner(never) => match *never {},
        CallError::Timeout { .. }
        | CallError::RetriesExhausted { .. }
        | CallError::Fallback(_)
        | CallError::Injected { .. } => StatusCode::SERVICE_UNAVAILABLE,
    };
    let mut response = Response::new(Body::from(format!("{error}\n")));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    // A place in a full server may be free at any moment: nobody knows when, and at once is too soon.
    let unknown = error.is_rejection().then_some(SOON);
    if let Some(wait) = error.retry_after().or(unknown) {
        // Whole seconds, and never too early (RFC 9110, 10.2.3).
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

/// Requests to this service: they are run once.
struct Inbound;

impl<B> Protocol<Request<B>, Response<Body>, Infallible> for Inbound {
    fn route(&self, _request: &Request<B>) -> Option<String> {
        None
    }

    fn idempotent(&self, _request: &Request<B>) -> bool {
        false
    }

    fn again(&self, _request: &Request<B>) -> Option<Request<B>> {
        None
    }

    fn judge(&self, result: Result<&Response<Body>, &Infallible>, act: &mut dyn FnMut(Outcome, &dyn Facts)) {
        match result {
            Ok(response) => act(classify::response(response.status(), response.headers()), &Head(response.headers())),
            Err(_) => act(Outcome::OK, &NoFacts),
        }
    }
}
