//! HTTP calls through `reqwest` under a target's policy.
//!
//! reqwest's own retries are switched off: one place decides. Bodies that lie in memory are sent again, up to a limit; others make
//! a call single-attempt.

mod body;
mod call;
mod errors;
mod execute;
mod kept;
#[cfg(feature = "reqwest-middleware")]
mod middleware;
mod stale;

use std::{pin::Pin, sync::Arc};

use fusebox_policy::Outcome;
use http::{HeaderMap, HeaderName, HeaderValue, Method};

use self::execute::Http;
#[cfg(feature = "reqwest-middleware")]
pub use self::middleware::PolicyMiddleware;
use crate::{
    error::{BoxError, CallError},
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
    http: Http,
    client: reqwest::Client,
}

impl Target {
    /// An HTTP client for this target.
    ///
    /// # Errors
    /// If reqwest can't build its client.
    pub fn reqwest(&self, builder: reqwest::ClientBuilder) -> Result<HttpClient, reqwest::Error> {
        // Two loops of retries would multiply the load in an outage.
        let client = builder.retry(reqwest::retry::never()).build()?;
        Ok(HttpClient { http: Http::new(self.clone()), client })
    }
}

impl HttpClient {
    /// Sets the largest body, in bytes, that is kept to be sent again. Requests with a larger one are tried once.
    #[must_use]
    pub const fn replay_limit(mut self, bytes: usize) -> Self {
        self.http.replay_limit = bytes;
        self
    }

    /// Says where another target lives, for policies whose fallback calls it: scheme, host and port are taken from `base`.
    #[must_use]
    pub fn target_url(mut self, target: impl Into<String>, base: reqwest::Url) -> Self {
        self.http.bases.insert(target.into(), base);
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
        RequestBuilder { client: self.clone(), inner: self.client.request(method, url) }
    }

    /// Sends a request under the target's policy.
    ///
    /// The extensions of the response tell how many [`Attempts`] it took and whether it was [`Replaced`] by a fallback.
    ///
    /// # Errors
    /// reqwest's own error, or what a strategy made of it.
    pub async fn execute(&self, request: reqwest::Request) -> Result<reqwest::Response, CallError<reqwest::Error>> {
        self.http.execute(&self.client, request).await
    }
}

/// A request that is being put together.
#[derive(Debug)]
#[must_use = "a request does nothing before it is sent"]
pub struct RequestBuilder {
    client: HttpClient,
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
        self.client.execute(request).await
    }
}
