//! One HTTP call: its attempts and its fallbacks.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use fusebox_policy::{
    Outcome, TargetName,
    fallback::{FallbackWith, StaticResponse},
    outcome::{ErrorKind, Facts, NoFacts},
    pipeline::StrategySpec,
    timeout::{TimeoutScope, TimeoutSpec},
};
use http::{HeaderName, HeaderValue};

use super::{HttpClient, body, stale::Key};
use crate::{
    classify::{self, Head},
    error::FallbackFault,
    pipeline::{Failed, Live, Operation},
    target::{Failure, fallback_with},
};

type Attempt = Pin<Box<dyn Future<Output = Result<reqwest::Response, reqwest::Error>> + Send>>;
type Fallback = Pin<Box<dyn Future<Output = Result<reqwest::Response, FallbackFault>> + Send>>;

pub(super) struct HttpCall<'a> {
    http: &'a HttpClient,
    live: Arc<Live>,
    request: Option<reqwest::Request>,
    replayable: bool,
    key: Option<Key>,
}

impl<'a> HttpCall<'a> {
    pub(super) fn new(
        http: &'a HttpClient,
        live: Arc<Live>,
        request: reqwest::Request,
        replayable: bool,
        key: Option<Key>,
    ) -> Self {
        Self { http, live, request: Some(request), replayable, key }
    }

    /// The request for one more sending.
    fn next_request(&mut self) -> Option<reqwest::Request> {
        if self.replayable { self.request.as_ref()?.try_clone() } else { self.request.take() }
    }

    fn timeouts(&self) -> impl Iterator<Item = &TimeoutSpec> {
        self.live.pipeline().strategies().iter().filter_map(|strategy| match strategy.spec() {
            StrategySpec::Timeout(timeout) => Some(timeout),
            StrategySpec::Retry(_) | StrategySpec::CircuitBreaker(_) | StrategySpec::Fallback(_) => None,
        })
    }

    /// How the body of the answer is limited.
    fn body_rule(&self, remaining: Option<Duration>) -> body::Rule {
        let limit =
            self.timeouts().filter(|timeout| timeout.scope() == TimeoutScope::Body).map(TimeoutSpec::duration).min();
        match limit {
            None => body::Rule::Free,
            // Every limit covers the body, so reading it is part of the attempt: strategies see how it ends.
            Some(limit) if self.timeouts().all(|timeout| timeout.scope() == TimeoutScope::Body) => {
                body::Rule::Attempt(remaining.unwrap_or(limit))
            }
            // A limit on the head alone must not cut the body: it is read later, under its own limit.
            Some(limit) => body::Rule::Later(limit),
        }
    }

    fn propagate(&self, request: &mut reqwest::Request, remaining: Option<Duration>) {
        let Some(remaining) = remaining else { return };
        for name in self.timeouts().filter_map(TimeoutSpec::propagate_header) {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                let ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
                request.headers_mut().insert(name, HeaderValue::from(ms));
            }
        }
    }

    fn other_target(&mut self, target: &TargetName) -> Fallback {
        let Some(base) = self.http.bases.get(target.as_str()).cloned() else {
            let unknown = FallbackFault::UnknownTarget(target.to_string());
            return Box::pin(async { Err(unknown) });
        };
        let Some(mut request) = self.next_request() else {
            return Box::pin(async { Err(FallbackFault::NotReplayable) });
        };
        let mut url = base;
        url.set_path(request.url().path());
        url.set_query(request.url().query());
        *request.url_mut() = url;
        // The former host's name must not travel to another one.
        request.headers_mut().remove(http::header::HOST);
        let sent = self.http.client.execute(request);
        Box::pin(async move { sent.await.map_err(|error| FallbackFault::Failed(Box::new(error))) })
    }
}

impl Operation for HttpCall<'_> {
    type Value = reqwest::Response;
    type Error = reqwest::Error;
    type Attempt = Attempt;
    type Fallback = Fallback;

    fn attempt(&mut self, remaining: Option<Duration>) -> Attempt {
        let rule = self.body_rule(remaining);
        let sent = match self.next_request() {
            Some(mut request) => {
                self.propagate(&mut request, remaining);
                self.http.client.execute(request)
            }
            // The core never asks twice for what can't be sent again. If it did, the answer would be reqwest's own error for a
            // request without an address.
            None => {
                let client = self.http.client.clone();
                return Box::pin(async move { client.get("").send().await });
            }
        };
        Box::pin(body::under(self.http.target.client.clock, rule, sent))
    }

    fn fallback(&mut self, live: &Live, stage: usize, after: Outcome) -> Fallback {
        match fallback_with(live, stage) {
            Some(FallbackWith::Response(response)) => {
                let response = fixed(response);
                Box::pin(async move { response })
            }
            Some(FallbackWith::Error(text)) => {
                let fault = FallbackFault::Asked(text.clone());
                Box::pin(async move { Err(fault) })
            }
            Some(FallbackWith::Function(name)) => {
                let Some(function) = self.http.target.client.functions.read().get(name).cloned() else {
                    let fault = FallbackFault::UnknownFunction(name.clone());
                    return Box::pin(async move { Err(fault) });
                };
                let answer = function(Failure::new(live, stage, after));
                Box::pin(async move { answer.await.map(reqwest::Response::from).map_err(FallbackFault::Failed) })
            }
            Some(FallbackWith::Target(target)) => self.other_target(target),
            Some(FallbackWith::Stale(stale)) => {
                let now = self.http.target.client.clock.now();
                let kept = self.key.as_ref().and_then(|key| self.http.stale.find(key, stale.max_age, now));
                Box::pin(async move { kept.ok_or(FallbackFault::NothingStale) })
            }
            // The core asks for fallbacks at fallback stages only.
            None => Box::pin(async { Err(FallbackFault::NothingStale) }),
        }
    }

    fn judge<R>(
        &self,
        result: &Result<reqwest::Response, Failed<reqwest::Error>>,
        act: impl FnOnce(Outcome, &dyn Facts) -> R,
    ) -> R {
        match result {
            Ok(response) => act(classify::response(response.status(), response.headers()), &Head(response.headers())),
            Err(Failed::Inner(error)) => act(classify::error(error), &NoFacts),
            Err(Failed::Fallback(_)) => act(Outcome::Error(ErrorKind::Other), &NoFacts),
        }
    }
}

/// A fresh response each time.
fn fixed(spec: &StaticResponse) -> Result<reqwest::Response, FallbackFault> {
    let StaticResponse { status, headers, body } = spec;
    let mut builder = http::Response::builder().status(*status);
    for (name, value) in headers {
        builder = builder.header(name, value);
    }
    builder
        .body(Bytes::copy_from_slice(body.as_bytes()))
        .map(reqwest::Response::from)
        .map_err(|error| FallbackFault::Failed(Box::new(error)))
}
