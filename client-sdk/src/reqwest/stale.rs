//! The last good responses, for fallbacks that answer with them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fusebox_policy::{
    Timestamp,
    fallback::{FallbackWith, StaleSpec},
};
use parking_lot::Mutex;

use super::kept::{self, Kept};
use crate::{clock::Clock, pipeline::Live};

/// The same request, and how its answers are kept.
#[derive(Clone, Debug)]
pub(super) struct Key {
    request: Vec<u8>,
    max_entries: usize,
    max_body: usize,
}

#[derive(Debug, Default)]
pub(super) struct StaleStore {
    kept: Mutex<HashMap<Vec<u8>, (Timestamp, Kept)>>,
}

/// The key of a request, if the policy answers with last good responses and the request only reads.
pub(super) fn key(live: &Live, request: &reqwest::Request) -> Option<Key> {
    let specs =
        live.pipeline().strategies().iter().filter_map(|strategy| match strategy.spec().as_fallback()?.with() {
            FallbackWith::Stale(stale) => Some(stale),
            FallbackWith::Response(_)
            | FallbackWith::Error(_)
            | FallbackWith::Function(_)
            | FallbackWith::Target(_) => None,
        });
    let spec: &StaleSpec = specs.max_by_key(|spec| spec.max_entries)?;
    Some(Key {
        request: kept::same(request)?,
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
        kept::copy(response, key.max_body, move |kept| store.insert(key, kept, clock.now()))
    }

    fn insert(&self, key: Key, kept: Kept, now: Timestamp) {
        let mut all = self.kept.lock();
        if all.len() >= key.max_entries
            && !all.contains_key(&key.request)
            && let Some(oldest) = all.iter().min_by_key(|(_, (at, _))| *at).map(|(request, _)| request.clone())
        {
            all.remove(&oldest);
        }
        all.insert(key.request, (now, kept));
    }

    /// The last good response of the same request, if it is young enough.
    pub(super) fn find(&self, key: &Key, max_age: Duration, now: Timestamp) -> Option<reqwest::Response> {
        let (at, kept) = self.kept.lock().get(&key.request).cloned()?;
        (now.since(at) <= max_age).then(|| kept.into_response())
    }
}
