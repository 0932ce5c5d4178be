//! HTTP calls through `reqwest` under a target's policy.
//!
//! reqwest's own retries are switched off: one place decides. Bodies that lie in memory are sent again, up to a limit; others make
//! a call single-attempt.

mod body;
mod call;
mod kept;
mod stale;

use std::{collections::HashMap, pin::Pin, sync::Arc};

use fusebox_policy::Outcome;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use self::{call::HttpCall, stale::StaleStore};
use crate::{
    error::{BoxError, CallError},
    pipeline::{Live, drive},
    target::{Failure, Target},
};

/// A function that answers in place of a failed HTTP call.
pub(crate) type Function = Arc<dyn Fn(Failure) -> FunctionAnswer + Send + Sync>;
/// Its answer.
pub(crate) type FunctionAnswer = Pin<Box<dyn Future<Output = Result<http::Response<bytes::Bytes>, BoxError>> + Send>>;

/// Largest body that is kept to be sent again, unless [`HttpClient::replay_limit`] says otherwise.
pub const DEFAULT_REPLAY_LIMIT: usize = 1024 * 1024;

/// The header of a response that a fallback gave: `policy/strategy; reason`.
pub const FALLBACK_HEADER: &str = "x-fusebox-fallback";

/// How many attempts a response took; in its extensions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts(pub u32);

/// That a fallback gave the response, and in place of what; in its extensions.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Replaced {
    /// The policy.
    pub policy: fusebox_policy::PolicyName,
    /// The element of its pipeline.
    pub strategy: fusebox_policy::StrategyName,
    /// What was replaced.
    pub outcome: Outcome,
}

/// A `reqwest::Client` whose requests run under the policy of one target. Cheap to clone.
#[derive(Clone, Debug)]
pub struct HttpClient {
    target: Target,
    client: reqwest::Client,
    replay_limit: usize,
    /// Where other targets live, for fallbacks that call them.
    bases: HashMap<String, reqwest::Url>,
    stale: Arc<StaleStore>,
}

impl Target {
    /// An HTTP client for this target.
    ///
    /// # Errors
    /// If reqwest can't build its client.
    pub fn reqwest(&self, builder: reqwest::ClientBuilder) -> Result<HttpClient, reqwest::Error> {
        // Two loops of retries would multiply the load in an outage.
        let client = builder.retry(reqwest::retry::never()).build()?;
        Ok(HttpClient {
            target: self.clone(),
            client,
            replay_limit: DEFAULT_REPLAY_LIMIT,
            bases: HashMap::new(),
            stale: Arc::default(),
        })
    }
}

impl HttpClient {
    /// Sets the largest body, in bytes, that is kept to be sent again. Requests with a larger one are tried once.
    #[must_use]
    pub const fn replay_limit(mut self, bytes: usize) -> Self {
        self.replay_limit = bytes;
        self
    }

    /// Says where another target lives, for policies whose fallback calls it: scheme, host and port are taken from `base`.
    #[must_use]
    pub fn target_url(mut self, target: impl Into<String>, base: reqwest::Url) -> Self {
        self.bases.insert(target.into(), base);
        self
    }

    /// Begins a GET request.
    pub fn get(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::GET, url)
    }

    /// Begins a POST request.
    pub fn post(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::POST, url)
    }

    /// Begins a PUT request.
    pub fn put(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::PUT, url)
    }

    /// Begins a PATCH request.
    pub fn patch(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::PATCH, url)
    }

    /// Begins a DELETE request.
    pub fn delete(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::DELETE, url)
    }

    /// Begins a HEAD request.
    pub fn head(&self, url: impl reqwest::IntoUrl) -> RequestBuilder {
        self.request(Method::HEAD, url)
    }

    /// Begins a request.
    pub fn request(&self, method: Method, url: impl reqwest::IntoUrl) -> RequestBuilder {
        RequestBuilder { http: self.clone(), inner: self.client.request(method, url) }
    }

    /// Sends a request under the target's policy.
    ///
    /// The extensions of the response tell how many [`Attempts`] it took and whether it was [`Replaced`] by a fallback.
    ///
    /// # Errors
    /// reqwest's own error, or what a strategy made of it.
    pub async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, CallError<reqwest::Error>> {
        let client = &self.target.client;
        let own_route = format!("{} {}", request.method(), request.url().path());
        let route = self.target.route.as_deref().unwrap_or(&own_route);
        let Some(live) = client.registry.resolve(&self.target.name, Some(route)) else {
            let mut response = self.client.execute(request).await.map_err(CallError::Inner)?;
            response.extensions_mut().insert(Attempts(1));
            return Ok(response);
        };
        let idempotent = is_idempotent(&request);
        let replayable = match request.body() {
            None => true,
            Some(body) => body.as_bytes().is_some_and(|bytes| bytes.len() <= self.replay_limit),
        };
        if !replayable && has_retry(&live) {
            tracing::debug!(
                target: "fusebox", target = %self.target.name, policy = %live.policy.name, route,
                "the body can't be sent again: one attempt"
            );
        }
        let key = stale::key(&live, &request);
        let mut call = HttpCall::new(self, Arc::clone(&live), request, replayable, key.clone());
        let rules = self.target.rules(idempotent, replayable);
        let driven = Box::pin(drive(client.clock, Arc::clone(&live), rules, &mut call)).await;
        let mut response = driven.result?;
        response.extensions_mut().insert(Attempts(driven.attempts));
        match driven.replaced {
            Some((stage, outcome)) => mark_replaced(&mut response, &live, stage, outcome),
            None => {
                if let Some(key) = key {
                    response = self.stale.keep(key, response, client.clock);
                }
            }
        }
        Ok(response)
    }
}

fn mark_replaced(response: &mut reqwest::Response, live: &Live, stage: usize, outcome: Outcome) {
    // Names and outcomes are plain ASCII; if that ever changes, the extension still tells.
    if let Ok(text) = HeaderValue::from_str(&format!("{}/{}; {outcome}", live.policy.name, live.strategy(stage))) {
        response.headers_mut().insert(HeaderName::from_static(FALLBACK_HEADER), text);
    }
    response.extensions_mut().insert(Replaced {
        policy: live.policy.name.clone(),
        strategy: live.strategy(stage).clone(),
        outcome,
    });
}

fn has_retry(live: &Live) -> bool {
    live.pipeline().strategies().iter().any(|strategy| strategy.spec().as_retry().is_some())
}

fn is_idempotent(request: &reqwest::Request) -> bool {
    let by_method = [Method::GET, Method::HEAD, Method::OPTIONS, Method::TRACE, Method::PUT, Method::DELETE];
    by_method.contains(request.method()) || request.headers().contains_key("idempotency-key")
}

/// A request that is being put together.
#[derive(Debug)]
#[must_use = "a request does nothing before it is sent"]
pub struct RequestBuilder {
    http: HttpClient,
    inner: reqwest::RequestBuilder,
}

impl RequestBuilder {
    /// Changes the request by any of reqwest's own methods.
    pub fn with(mut self, change: impl FnOnce(reqwest::RequestBuilder) -> reqwest::RequestBuilder) -> Self {
        self.inner = change(self.inner);
        self
    }

    /// Adds a header.
    pub fn header<K, V>(self, key: K, value: V) -> Self
    where
        HeaderName: TryFrom<K>,
        <HeaderName as TryFrom<K>>::Error: Into<http::Error>,
        HeaderValue: TryFrom<V>,
        <HeaderValue as TryFrom<V>>::Error: Into<http::Error>,
    {
        self.with(|inner| inner.header(key, value))
    }

    /// Adds headers; those of the same name are replaced.
    pub fn headers(self, headers: HeaderMap) -> Self {
        self.with(|inner| inner.headers(headers))
    }

    /// Adds a bearer token.
    pub fn bearer_auth(self, token: impl std::fmt::Display) -> Self {
        self.with(|inner| inner.bearer_auth(token))
    }

    /// Sets the body.
    pub fn body(self, body: impl Into<reqwest::Body>) -> Self {
        self.with(|inner| inner.body(body))
    }

    /// Sets the body to JSON.
    pub fn json<T: serde::Serialize + ?Sized>(self, json: &T) -> Self {
        self.with(|inner| inner.json(json))
    }

    /// The request as it stands.
    ///
    /// # Errors
    /// What was wrong with its parts.
    pub fn build(self) -> Result<reqwest::Request, reqwest::Error> {
        self.inner.build()
    }

    /// Sends it under the target's policy; see [`HttpClient::execute`].
    ///
    /// # Errors
    /// What was wrong with its parts, reqwest's own error, or what a strategy made of it.
    pub async fn send(self) -> Result<reqwest::Response, CallError<reqwest::Error>> {
        let request = self.inner.build().map_err(CallError::Inner)?;
        self.http.execute(request).await
    }
}
