//! One HTTP call: its attempts and its fallbacks.

use std::{pin::Pin, sync::Arc, time::Duration};

use bytes::Bytes;
use fusebox_policy::{
    Outcome, TargetName,
    chaos::Fault,
    fallback::{FallbackWith, StaticResponse},
    outcome::{Facts, NoFacts},
    timeout::{TimeoutScope, TimeoutSpec},
};
use http::{HeaderName, HeaderValue};

use super::{
    body,
    execute::{Http, Sender, Sent},
    kept::{self, Kept},
    stale::Key,
};
use crate::{
    classify::{self, Head},
    error::FallbackFault,
    pipeline::{Flight, Live, Looked, Operation, cache},
    target::{Failure, fallback_with},
};

type Fallback<'a> = Sent<'a, FallbackFault>;
type Lookup = Pin<Box<dyn Future<Output = Looked<reqwest::Response>> + Send>>;

pub(super) struct HttpCall<'a, S> {
    http: &'a Http,
    sender: &'a S,
    live: Arc<Live>,
    request: Option<reqwest::Request>,
    replayable: bool,
    key: Option<Key>,
}

impl<'a, S: Sender> HttpCall<'a, S> {
    pub(super) const fn new(
        http: &'a Http,
        sender: &'a S,
        live: Arc<Live>,
        request: reqwest::Request,
        replayable: bool,
        key: Option<Key>,
    ) -> Self {
        Self { http, sender, live, request: Some(request), replayable, key }
    }

    /// The request for one more sending.
    fn next_request(&mut self) -> Option<reqwest::Request> {
        if self.replayable { self.request.as_ref()?.try_clone() } else { self.request.take() }
    }

    fn timeouts(&self) -> impl Iterator<Item = &TimeoutSpec> {
        self.live.pipeline().strategies().iter().filter_map(|strategy| strategy.spec().as_timeout())
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
        for name in self.live.propagate_headers() {
            if let Ok(name) = HeaderName::from_bytes(name.as_bytes()) {
                let ms = u64::try_from(remaining.as_millis()).unwrap_or(u64::MAX);
                request.headers_mut().insert(name, HeaderValue::from(ms));
            }
        }
    }

    fn other_target(&mut self, target: &TargetName) -> Fallback<'a> {
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
        let sent = self.sender.send(request);
        Box::pin(async move { sent.await.map_err(|error| FallbackFault::Failed(error.into())) })
    }
}

impl<'a, S: Sender> Operation for HttpCall<'a, S> {
    type Value = reqwest::Response;
    type Error = S::Error;
    type Attempt = Sent<'a, S::Error>;
    type Fallback = Fallback<'a>;
    type Lookup = Lookup;

    fn attempt(&mut self, _live: Option<&Live>, remaining: Option<Duration>) -> Sent<'a, S::Error> {
        let rule = self.body_rule(remaining);
        let mut request = self.next_request().expect("the core never asks twice for what can't be sent again");
        self.propagate(&mut request, remaining);
        Box::pin(body::under(self.http.target.client.clock, rule, self.sender.send(request)))
    }

    fn fallback(&mut self, live: &Live, stage: usize, after: Outcome) -> Fallback<'a> {
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

    fn lookup(&mut self, live: &Arc<Live>, stage: usize) -> Lookup {
        let key = self.request.as_ref().and_then(kept::same);
        let Some((store, key)) = live.cache(stage).zip(key) else {
            return Box::pin(async { Looked::NotCacheable });
        };
        let looked = cache::look::<Kept>(Arc::clone(store), key.into(), self.http.target.client.clock);
        Box::pin(async move {
            match looked.await {
                Looked::Hit(kept) => Looked::Hit(kept.into_response()),
                Looked::Miss(flight) => Looked::Miss(flight),
                Looked::NotCacheable => Looked::NotCacheable,
            }
        })
    }

    fn keep(&mut self, flight: Flight, response: reqwest::Response) -> reqwest::Response {
        if !kept::may_keep(&response) {
            return response;
        }
        let clock = self.http.target.client.clock;
        kept::copy(response, flight.max_body(), move |kept| flight.land(kept, clock.now()))
    }

    fn inject(&mut self, fault: Fault) -> Option<Result<reqwest::Response, S::Error>> {
        let mut response = http::Response::new(Bytes::new());
        match fault {
            Fault::Status(status) => *response.status_mut() = http::StatusCode::from_u16(status).ok()?,
            Fault::Grpc(code) => {
                response.headers_mut().insert("grpc-status", HeaderValue::from(code as u16));
            }
            // reqwest's errors can't be made by others.
            Fault::Error(_) => return None,
        }
        Some(Ok(response.into()))
    }

    fn judge<R>(&self, result: Result<&reqwest::Response, &S::Error>, act: impl FnOnce(Outcome, &dyn Facts) -> R) -> R {
        match result {
            Ok(response) => act(classify::response(response.status(), response.headers()), &Head(response.headers())),
            Err(error) => act(S::outcome(error), &NoFacts),
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
