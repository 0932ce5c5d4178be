//! A request under the policy of a target, whoever sends it.

use std::{collections::HashMap, pin::Pin, sync::Arc};

use fusebox_policy::{Outcome, fallback::Answers, retry::CallRules};
use http::{HeaderName, HeaderValue};

use super::{
    Attempts, DEFAULT_REPLAY_LIMIT, FALLBACK_HEADER, Replaced, call::HttpCall, errors, stale, stale::StaleStore,
};
use crate::{
    error::{BoxError, CallError},
    pipeline::{Live, drive},
    target::Target,
};

/// What sends one request.
pub(super) trait Sender: Sync {
    /// Its error.
    type Error: From<reqwest::Error> + Into<BoxError> + Send;

    /// Sends a request.
    fn send(&self, request: reqwest::Request) -> Sent<'_, Self::Error>;
    /// What an error means to rules.
    fn outcome(error: &Self::Error) -> Outcome;
}

/// A request on its way.
pub(super) type Sent<'a, E> = Pin<Box<dyn Future<Output = Result<reqwest::Response, E>> + Send + 'a>>;

impl Sender for reqwest::Client {
    type Error = reqwest::Error;

    fn send(&self, request: reqwest::Request) -> Sent<'_, reqwest::Error> {
        Box::pin(self.execute(request))
    }

    fn outcome(error: &reqwest::Error) -> Outcome {
        errors::outcome(error)
    }
}

/// How requests to one target are sent.
#[derive(Clone, Debug)]
pub(super) struct Http {
    pub(super) target: Target,
    /// Bytes.
    pub(super) replay_limit: usize,
    /// Where other targets live, for fallbacks that call them.
    pub(super) bases: HashMap<String, reqwest::Url>,
    pub(super) stale: Arc<StaleStore>,
}

impl Http {
    pub(super) fn new(target: Target) -> Self {
        Self { target, replay_limit: DEFAULT_REPLAY_LIMIT, bases: HashMap::new(), stale: Arc::default() }
    }

    /// Sends a request under the target's policy.
    pub(super) async fn execute<S: Sender>(
        &self,
        sender: &S,
        request: reqwest::Request,
    ) -> Result<reqwest::Response, CallError<S::Error>> {
        let client = &self.target.client;
        let own_route = format!("{} {}", request.method(), request.url().path());
        let route = self.target.route.as_deref().unwrap_or(&own_route);
        let Some(live) = client.registry.resolve(&self.target.name, Some(route)) else {
            let mut response = sender.send(request).await.map_err(CallError::Inner)?;
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
        let mut call = HttpCall::new(self, sender, Arc::clone(&live), request, replayable, key.clone());
        let rules = self.target.rules(idempotent, replayable, Answers::Anything);
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
    CallRules::IDEMPOTENT_METHODS.contains(&request.method().as_str())
        || request.headers().contains_key("idempotency-key")
}
