//! The last good responses, for fallbacks that answer with them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fusebox_policy::{
    Timestamp,
    fallback::{FallbackWith, StaleSpec},
    pipeline::StrategySpec,
};
use futures_util::{StreamExt as _, stream};
use http::{HeaderMap, Method, StatusCode, header};
use http_body_util::BodyDataStream;
use parking_lot::Mutex;

use super::body::rebuild;
use crate::{clock::Clock, pipeline::Live};

/// Request headers that may change what the answer is, or who may see it.
const TELLING: [header::HeaderName; 4] =
    [header::AUTHORIZATION, header::COOKIE, header::ACCEPT, header::ACCEPT_LANGUAGE];

/// What makes two requests the same: method, address, telling headers.
type Same = (Method, String, Vec<Option<Vec<u8>>>);

/// The same request, and how its answers are kept.
#[derive(Clone, Debug)]
pub(super) struct Key {
    request: Same,
    max_entries: usize,
    max_body: usize,
}

#[derive(Clone, Debug)]
struct Kept {
    at: Timestamp,
    status: StatusCode,
    headers: HeaderMap,
    body: Bytes,
}

#[derive(Debug, Default)]
pub(super) struct StaleStore {
    kept: Mutex<HashMap<Same, Kept>>,
}

/// The key of a request, if the policy answers with last good responses and the request only reads.
pub(super) fn key(live: &Live, request: &reqwest::Request) -> Option<Key> {
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        return None;
    }
    let specs = live.pipeline().strategies().iter().filter_map(|strategy| match strategy.spec() {
        StrategySpec::Fallback(fallback) => match fallback.with() {
            FallbackWith::Stale(stale) => Some(stale),
            FallbackWith::Response(_)
            | FallbackWith::Error(_)
            | FallbackWith::Function(_)
            | FallbackWith::Target(_) => None,
        },
        StrategySpec::Timeout(_) | StrategySpec::Retry(_) | StrategySpec::CircuitBreaker(_) => None,
    });
    let spec: &StaleSpec = specs.max_by_key(|spec| spec.max_entries)?;
    let telling =
        TELLING.iter().map(|name| request.headers().get(name).map(|value| value.as_bytes().to_vec())).collect();
    Some(Key {
        request: (request.method().clone(), request.url().to_string(), telling),
        max_entries: spec.max_entries as usize,
        max_body: spec.max_body_bytes as usize,
    })
}

impl StaleStore {
    /// A good response is kept as soon as its reader has read it to the end.
    pub(super) fn keep(self: &Arc<Self>, key: Key, response: reqwest::Response, clock: Clock) -> reqwest::Response {
        if !response.status().is_success() {
            return response;
        }
        let store = Arc::clone(self);
        let (status, headers) = (response.status(), response.headers().clone());
        rebuild(response, move |body| {
            let seen = Seen { body: BodyDataStream::new(body), copy: Some(Vec::new()) };
            reqwest::Body::wrap_stream(stream::unfold(Some(seen), move |seen| {
                let (store, key, headers) = (Arc::clone(&store), key.clone(), headers.clone());
                async move {
                    let mut seen = seen?;
                    match seen.body.next().await {
                        Some(Ok(chunk)) => {
                            seen.copy = seen.copy.filter(|copy| copy.len() + chunk.len() <= key.max_body);
                            if let Some(copy) = &mut seen.copy {
                                copy.extend_from_slice(&chunk);
                            }
                            Some((Ok(chunk), Some(seen)))
                        }
                        Some(Err(error)) => Some((Err(error), None)),
                        None => {
                            if let Some(copy) = seen.copy {
                                let body = Bytes::from(copy);
                                store.insert(key, Kept { at: clock.now(), status, headers, body });
                            }
                            None
                        }
                    }
                }
            }))
        })
    }

    fn insert(&self, key: Key, kept: Kept) {
        let mut all = self.kept.lock();
        if all.len() >= key.max_entries
            && !all.contains_key(&key.request)
            && let Some(oldest) = all.iter().min_by_key(|(_, kept)| kept.at).map(|(request, _)| request.clone())
        {
            all.remove(&oldest);
        }
        all.insert(key.request, kept);
    }

    /// The last good response of the same request, if it is young enough.
    pub(super) fn find(&self, key: &Key, max_age: Duration, now: Timestamp) -> Option<reqwest::Response> {
        let kept = self.kept.lock().get(&key.request).cloned().filter(|kept| now.since(kept.at) <= max_age)?;
        let mut response = http::Response::new(kept.body);
        *response.status_mut() = kept.status;
        *response.headers_mut() = kept.headers;
        Some(response.into())
    }
}

struct Seen {
    body: BodyDataStream<reqwest::Body>,
    /// `None` once it has become too large.
    copy: Option<Vec<u8>>,
}
