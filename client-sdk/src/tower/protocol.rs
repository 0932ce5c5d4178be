//! What requests and responses of a protocol mean to a policy.

use std::time::Duration;

use fusebox_policy::{
    outcome::{ErrorKind, Facts, NoFacts, Outcome},
    retry::CallRules,
};
use http::{HeaderName, HeaderValue, Method, Request, Response};

use crate::classify::{self, Head};

/// What requests, responses and errors of a service mean to a policy.
pub trait Protocol<Req, Res, E> {
    /// The route, where the request tells it.
    fn route(&self, request: &Req) -> Option<String>;
    /// Whether making the request twice is as good as once.
    fn idempotent(&self, request: &Req) -> bool;
    /// The same request once more; `None` if it can't be made again.
    fn again(&self, request: &Req) -> Option<Req>;
    /// Tells the service in a header how much time remains, in milliseconds; nothing, where requests have no headers.
    fn propagate(&self, request: &mut Req, header: &str, remaining: Duration) {
        let _ = (request, header, remaining);
    }
    /// Calls `act` with what the result is.
    fn judge(&self, result: Result<&Res, &E>, act: &mut dyn FnMut(Outcome, &dyn Facts));
}

/// Nothing is known of requests and responses: every response is a success, every error a failure.
#[derive(Clone, Copy, Debug, Default)]
pub struct Plain;

impl<Req: Clone, Res, E> Protocol<Req, Res, E> for Plain {
    fn route(&self, _request: &Req) -> Option<String> {
        None
    }

    fn idempotent(&self, _request: &Req) -> bool {
        true
    }

    fn again(&self, request: &Req) -> Option<Req> {
        Some(request.clone())
    }

    fn judge(&self, result: Result<&Res, &E>, act: &mut dyn FnMut(Outcome, &dyn Facts)) {
        act(if result.is_ok() { Outcome::OK } else { Outcome::Error(ErrorKind::Other) }, &NoFacts);
    }
}

/// HTTP.
#[derive(Clone, Copy, Debug, Default)]
pub struct Http;

/// By its method, or because it carries a key.
pub(crate) fn is_idempotent(method: &Method, headers: &http::HeaderMap) -> bool {
    CallRules::IDEMPOTENT_METHODS.contains(&method.as_str()) || headers.contains_key("idempotency-key")
}

impl<B: Clone, C, E> Protocol<Request<B>, Response<C>, E> for Http {
    fn route(&self, request: &Request<B>) -> Option<String> {
        Some(format!("{} {}", request.method(), request.uri().path()))
    }

    fn idempotent(&self, request: &Request<B>) -> bool {
        is_idempotent(request.method(), request.headers())
    }

    fn again(&self, request: &Request<B>) -> Option<Request<B>> {
        Some(request.clone())
    }

    fn propagate(&self, request: &mut Request<B>, header: &str, remaining: Duration) {
        if let Ok(name) = HeaderName::from_bytes(header.as_bytes()) {
            let ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
            request.headers_mut().insert(name, HeaderValue::from(ms));
        }
    }

    fn judge(&self, result: Result<&Response<C>, &E>, act: &mut dyn FnMut(Outcome, &dyn Facts)) {
        match result {
            Ok(response) => act(classify::response(response.status(), response.headers()), &Head(response.headers())),
            // Whether the request has left can't be told from an error of any type: it is taken as having left.
            Err(_) => act(Outcome::Error(ErrorKind::Other), &NoFacts),
        }
    }
}
