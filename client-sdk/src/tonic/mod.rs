//! gRPC calls through a tonic channel under a target's policy.
//!
//! An attempt lasts until the first message, or until the trailers where there is none: that is where its code is known.
//! Unary calls have exactly that; of streaming calls what comes after the first message is the caller's own, and never
//! runs twice. A request that is complete at once (unary, server streaming) can be sent again; one that is still being
//! written is sent once.

mod answer;
mod call;
mod refusal;
mod request;

use std::{
    collections::HashMap,
    pin::Pin,
    task::{Context, Poll},
};

use ::tonic::{Code, Status, body::Body};
use ::tower::Service;
use fusebox_policy::fallback::Answers;

use self::call::GrpcCall;
use crate::{
    error::{BoxError, CallError, FallbackFault},
    target::Target,
};

/// Largest request, in bytes, that is kept to be sent again.
const REPLAY_LIMIT: usize = 1024 * 1024;

/// A channel whose calls run under the policy of one target: generated clients take it as they take a tonic `Channel`. Clones
/// share the policy's state.
#[derive(Clone, Debug)]
pub struct GrpcChannel<S> {
    inner: S,
    target: Target,
    others: HashMap<String, S>,
}

impl Target {
    /// A gRPC channel for this target. The route of a call is its full method: `package.Service/Method`.
    ///
    /// Calls are retried by the policy's rules for gRPC codes and pushback, provided that [`Target::idempotent`] says that they may
    /// run twice, or that the policy says `nonIdempotent: true`, or that the request has not left. Strategies' refusals come as
    /// `UNAVAILABLE` (`RESOURCE_EXHAUSTED` from a rate limiter), timeouts as `DEADLINE_EXCEEDED`; the message names policy and strategy,
    /// and the source of the status is a [`CallError`] of `Status`, which tells a refusal from the server's own `UNAVAILABLE`.
    pub fn tonic<S>(&self, channel: S) -> GrpcChannel<S> {
        GrpcChannel { inner: channel, target: self.clone(), others: HashMap::new() }
    }
}

impl<S> GrpcChannel<S> {
    /// Says where another target lives, for policies whose fallback calls it.
    #[must_use]
    pub fn target_channel(mut self, target: impl Into<String>, channel: S) -> Self {
        self.others.insert(target.into(), channel);
        self
    }
}

impl<S, B> Service<http::Request<Body>> for GrpcChannel<S>
where
    S: Service<http::Request<Body>, Response = http::Response<B>> + Clone + Send + Sync + 'static,
    S::Future: Send,
    S::Error: Into<BoxError> + Send,
    B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    type Response = http::Response<Body>;
    type Error = Status;
    type Future = Pin<Box<dyn Future<Output = Result<http::Response<Body>, Status>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Status>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let Self { inner, target, others } = self.clone();
        Box::pin(async move {
            let route = request.uri().path().trim_start_matches('/').to_owned();
            let request = request::Request::read(request, REPLAY_LIMIT);
            let rules = target.rules(false, request.is_replayable(), Answers::Target);
            let mut call = GrpcCall { channel: inner, others, request, route: route.clone() };
            let route = target.route.as_deref().unwrap_or(&route).to_owned();
            target.drive(&mut call, Some(&route), rules).await.map_err(into_status)
        })
    }
}

/// What a caller of a generated client gets.
fn into_status(error: CallError<Status>) -> Status {
    let code = match &error {
        CallError::Timeout { .. } => Code::DeadlineExceeded,
        CallError::Rejected(rejection) => {
            let mut status = refusal::status(rejection, error.to_string());
            status.set_source(std::sync::Arc::new(error));
            return status;
        }
        CallError::Fallback(fallback) => match &fallback.reason {
            FallbackFault::Failed(_)
            | FallbackFault::Asked(_)
            | FallbackFault::NoTypedValue(_)
            | FallbackFault::UnknownFunction(_)
            | FallbackFault::UnknownTarget(_)
            | FallbackFault::NothingStale
            | FallbackFault::NotReplayable => Code::Unavailable,
        },
        CallError::Inner(status) => return status.clone(),
        CallError::RetriesExhausted { .. } | CallError::Injected { .. } => Code::Unavailable,
    };
    let mut status = Status::new(code, error.to_string());
    status.set_source(std::sync::Arc::new(error));
    status
}
