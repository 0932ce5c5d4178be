//! Any tower service under a target's policy.
//!
//! The contract of tower is kept: an inner service is called only after it has said that it is ready, a clone of it is used
//! for each attempt, and its readiness is never held while a strategy makes a call wait or refuses it. The layer itself is
//! therefore always ready: how many calls may run is the policy's business.

pub(crate) mod call;
mod protocol;

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use ::tower::{Layer, Service};

use self::call::ServiceCall;
pub use self::protocol::{Http, Plain, Protocol};
use crate::{
    error::{BoxError, CallError},
    prepared::{Asked, Fixed, NoFallback, TypedFallback},
    target::{Failure, Target},
};

/// Puts a target's policy around a service. Made by [`Target::layer`] and [`Target::http_layer`].
#[derive(Clone, Debug)]
pub struct PolicyLayer<P, F = NoFallback> {
    target: Target,
    protocol: P,
    fallback: F,
}

/// A service under a target's policy. Clones share the policy's state.
#[derive(Clone, Debug)]
pub struct PolicyService<S, P, F = NoFallback> {
    inner: S,
    target: Target,
    protocol: P,
    fallback: F,
}

impl Target {
    /// A layer for services of any request and response: each response is a success, each error a failure, and each request may be
    /// made twice unless [`Target::idempotent`] says otherwise.
    #[must_use]
    pub fn layer(&self) -> PolicyLayer<Plain> {
        PolicyLayer { target: self.clone(), protocol: Plain, fallback: NoFallback }
    }

    /// A layer for HTTP services: statuses, headers, `Retry-After` and gRPC codes of the response's head count, the route is
    /// the request's own, and whether a request may be sent twice follows from its method. Bodies are of any type and go through
    /// untouched: a timeout of scope `body` ends with the head here, and is kept by [`Target::reqwest`] only.
    #[must_use]
    pub fn http_layer(&self) -> PolicyLayer<Http> {
        PolicyLayer { target: self.clone(), protocol: Http, fallback: NoFallback }
    }
}

impl<P, F> PolicyLayer<P, F> {
    /// What answers where the policy has a fallback strategy; but `error` stays an error.
    #[must_use]
    pub fn fallback_with<R, B, Fut>(self, function: B) -> PolicyLayer<P, Asked<B>>
    where
        B: FnMut(Failure) -> Fut + Clone,
        Fut: Future<Output = Result<R, BoxError>>,
    {
        PolicyLayer { target: self.target, protocol: self.protocol, fallback: Asked(function) }
    }

    /// A response for where the policy has a fallback strategy; but `error` stays an error.
    #[must_use]
    pub fn or_value<R: Clone>(self, response: R) -> PolicyLayer<P, Fixed<R>> {
        PolicyLayer { target: self.target, protocol: self.protocol, fallback: Fixed(response) }
    }
}

impl<S, P: Clone, F: Clone> Layer<S> for PolicyLayer<P, F> {
    type Service = PolicyService<S, P, F>;

    fn layer(&self, inner: S) -> Self::Service {
        let Self { target, protocol, fallback } = self.clone();
        PolicyService { inner, target, protocol, fallback }
    }
}

impl<S, R, P, F> Service<R> for PolicyService<S, P, F>
where
    S: Service<R> + Clone + Send + 'static,
    S::Future: Send,
    S::Response: Send,
    S::Error: Send,
    R: Send + 'static,
    P: Protocol<R, S::Response, S::Error> + Clone + Send + 'static,
    F: TypedFallback<S::Response> + Clone + Send + 'static,
    F::Answer: Send,
{
    type Response = S::Response;
    type Error = CallError<S::Error>;
    type Future = Pin<Box<dyn Future<Output = Result<S::Response, CallError<S::Error>>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: R) -> Self::Future {
        let Self { inner, target, protocol, fallback } = self.clone();
        Box::pin(async move {
            let own = protocol.route(&request);
            let route = target.route.clone();
            let rules = target.rules(protocol.idempotent(&request), protocol.again(&request).is_some(), F::ANSWERS);
            let mut call = ServiceCall::new(inner, request, rules.replayable, protocol, fallback);
            target.drive(&mut call, route.as_deref().or(own.as_deref()), rules).await
        })
    }
}
