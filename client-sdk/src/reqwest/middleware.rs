//! The same for `reqwest-middleware`: a link in the chain of somebody else's client.

use async_trait::async_trait;
use fusebox_policy::{Outcome, outcome::ErrorKind};
use http::Extensions;
use reqwest_middleware::{Error, Middleware, Next};

use super::{
    errors,
    execute::{Http, Sender, Sent},
};
use crate::{error::CallError, target::Target};

/// Runs what comes after it in a chain of middleware under the policy of one target: once for each attempt, each with a copy of
/// the extensions that the call came with. Cheap to clone.
///
/// What a strategy makes of a call is [`Error::Middleware`] with a [`CallError`] in it: `error.downcast_ref::<CallError<Error>>()`.
///
/// Switch reqwest's own retries off (`ClientBuilder::retry(reqwest::retry::never())`), and use no other middleware that retries:
/// loops of retries multiply.
#[derive(Clone, Debug)]
pub struct PolicyMiddleware {
    http: Http,
}

impl Target {
    /// A middleware for a client that calls this target.
    #[must_use]
    pub fn middleware(&self) -> PolicyMiddleware {
        PolicyMiddleware { http: Http::new(self.clone()) }
    }
}

impl PolicyMiddleware {
    /// Sets the largest body, in bytes, that is kept to be sent again. Requests with a larger one are tried once. Default:
    /// [`DEFAULT_REPLAY_LIMIT`](crate::DEFAULT_REPLAY_LIMIT).
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
}

#[async_trait]
impl Middleware for PolicyMiddleware {
    async fn handle(
        &self,
        request: reqwest::Request,
        extensions: &mut Extensions,
        next: Next<'_>,
    ) -> reqwest_middleware::Result<reqwest::Response> {
        let chain = Chain { next, extensions: extensions.clone() };
        match self.http.execute(&chain, request).await {
            Ok(response) => Ok(response),
            Err(CallError::Inner(error)) => Err(error),
            Err(error) => Err(Error::middleware(error)),
        }
    }
}

/// The rest of the chain.
struct Chain<'a> {
    next: Next<'a>,
    extensions: Extensions,
}

impl Sender for Chain<'_> {
    type Error = Error;

    fn send(&self, request: reqwest::Request) -> Sent<'_, Error> {
        let next = self.next.clone();
        let mut extensions = self.extensions.clone();
        Box::pin(async move { next.run(request, &mut extensions).await })
    }

    fn outcome(error: &Error) -> Outcome {
        match error {
            Error::Reqwest(error) => errors::outcome(error),
            Error::Middleware(_) => Outcome::Error(ErrorKind::Other),
        }
    }
}
