//! Answers kept in memory, and the flights that equal calls share.

use std::{any::Any, collections::HashMap, num::NonZeroUsize, sync::Arc};

use fusebox_policy::{Timestamp, cache::CacheSpec};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::watch;

/// What makes two calls the same.
pub(crate) type Key = Arc<[u8]>;
/// An answer of any type.
type Answer = Arc<dyn Any + Send + Sync>;

/// The answers of one cache strategy. It outlives the policies that describe it.
#[derive(Debug)]
pub(crate) struct CacheStore {
    inner: Mutex<Inner>,
}

#[derive(Debug)]
struct Inner {
    spec: CacheSpec,
    kept: LruCache<Key, (Timestamp, Answer)>,
    flights: HashMap<Key, watch::Receiver<()>>,
}

/// What a cache says to a key.
#[derive(Debug)]
pub(crate) enum Found<T> {
    /// The answer.
    Hit(T),
    /// Nobody has it: go and get it.
    Lead(Flight),
    /// Somebody is on the way to get it.
    Follow(watch::Receiver<()>),
}

/// Leave to keep an answer. While it lives, equal calls wait for it.
#[derive(Debug)]
pub(crate) struct Flight {
    store: Arc<CacheStore>,
    key: Key,
    /// `None`: nobody waits for it.
    shared: Option<watch::Sender<()>>,
}

impl CacheStore {
    pub(crate) fn new(spec: &CacheSpec) -> Self {
        let inner = Inner { spec: spec.clone(), kept: LruCache::new(room(spec)), flights: HashMap::new() };
        Self { inner: Mutex::new(inner) }
    }

    /// Takes changed settings: answers stay, as far as there is room.
    pub(crate) fn adapt(&self, spec: &CacheSpec) {
        let mut inner = self.inner.lock();
        if inner.spec.classifier() != spec.classifier() {
            inner.kept.clear();
        }
        inner.kept.resize(room(spec));
        inner.spec = spec.clone();
    }

    /// Asks for an answer. With `alone` nobody is waited for.
    pub(crate) fn find<T: Clone + 'static>(self: &Arc<Self>, key: &Key, now: Timestamp, alone: bool) -> Found<T> {
        let mut inner = self.inner.lock();
        match inner.kept.get(key) {
            Some((until, answer)) if now < *until => {
                // The same key with another type is another question; the younger answer wins the place.
                if let Some(answer) = answer.downcast_ref::<T>() {
                    return Found::Hit(answer.clone());
                }
            }
            Some(_) => {
                inner.kept.pop(key);
            }
            None => {}
        }
        if !inner.spec.coalesce() || alone {
            return Found::Lead(Flight { store: Arc::clone(self), key: Arc::clone(key), shared: None });
        }
        if let Some(flight) = inner.flights.get(key) {
            return Found::Follow(flight.clone());
        }
        let (sender, receiver) = watch::channel(());
        inner.flights.insert(Arc::clone(key), receiver);
        Found::Lead(Flight { store: Arc::clone(self), key: Arc::clone(key), shared: Some(sender) })
    }
}

fn room(spec: &CacheSpec) -> NonZeroUsize {
    NonZeroUsize::new(spec.max_entries() as usize).unwrap_or(NonZeroUsize::MIN)
}

impl Flight {
    /// Keeps the answer for the cache's time.
    pub(crate) fn land<T: Send + Sync + 'static>(self, answer: T, now: Timestamp) {
        let mut inner = self.store.inner.lock();
        let until = now.plus(inner.spec.ttl());
        inner.kept.put(Arc::clone(&self.key), (until, Arc::new(answer)));
    }

    /// Largest body worth keeping.
    #[cfg(feature = "reqwest")]
    pub(crate) fn max_body(&self) -> usize {
        self.store.inner.lock().spec.max_body_bytes() as usize
    }
}

impl Drop for Flight {
    fn drop(&mut self) {
        if self.shared.is_some() {
            self.store.inner.lock().flights.remove(&self.key);
        }
        // Dropping the sender wakes who waits: they find the answer, or go themselves.
    }
}

/// Asks for an answer, and waits once for a call that is already on its way to get it.
pub(crate) async fn look<T: Clone + 'static>(
    store: Arc<CacheStore>,
    key: Key,
    clock: crate::clock::Clock,
) -> super::Looked<T> {
    let mut flight = match store.find(&key, clock.now(), false) {
        Found::Hit(answer) => return super::Looked::Hit(answer),
        Found::Lead(flight) => return super::Looked::Miss(flight),
        Found::Follow(flight) => flight,
    };
    // An error means that the flight has ended, which is what is waited for.
    let _ = flight.changed().await;
    match store.find(&key, clock.now(), true) {
        Found::Hit(answer) => super::Looked::Hit(answer),
        Found::Lead(flight) => super::Looked::Miss(flight),
        Found::Follow(_) => super::Looked::NotCacheable,
    }
}
