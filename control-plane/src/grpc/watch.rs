//! Follows a map of named things: all of them once, then each anew when it changes, and its end.

use std::{collections::BTreeMap, pin::Pin, sync::Arc};

use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::Status;

use super::status;
use crate::{fleet::View, shutdown::Shutdown};

/// One event.
pub(super) enum Event<T> {
    /// New or changed.
    Upserted(T),
    /// Gone.
    Deleted(String),
    /// Everything present has been told once.
    Synced,
}

pub(super) type Events<R> = Pin<Box<dyn Stream<Item = Result<R, Status>> + Send>>;

struct Follow<T, P> {
    cell: watch::Receiver<Arc<View>>,
    shutdown: Shutdown,
    pick: P,
    told: Option<BTreeMap<String, T>>,
    /// Newest last: taken from the end.
    pending: Vec<Event<T>>,
    over: bool,
}

/// Follows what `pick` finds in each view. It must leave out what changes by itself, like ages.
pub(super) fn follow<T, R>(
    cell: watch::Receiver<Arc<View>>,
    shutdown: Shutdown,
    pick: impl Fn(&View) -> BTreeMap<String, T> + Send + 'static,
    render: impl Fn(Event<T>) -> R + Send + Sync + Clone + 'static,
) -> Events<R>
where
    T: Clone + PartialEq + Send + 'static,
    R: Send + 'static,
{
    let follow = Follow { cell, shutdown, pick, told: None, pending: Vec::new(), over: false };
    Box::pin(stream::unfold(follow, move |mut follow| {
        let render = render.clone();
        async move {
            let event = follow.next().await?;
            Some((event.map(render), follow))
        }
    }))
}

impl<T: Clone + PartialEq, P: Fn(&View) -> BTreeMap<String, T>> Follow<T, P> {
    async fn next(&mut self) -> Option<Result<Event<T>, Status>> {
        loop {
            if let Some(event) = self.pending.pop() {
                return Some(Ok(event));
            }
            if self.over {
                return None;
            }
            if self.told.is_some() {
                let begun = self.shutdown.begun();
                let ended = tokio::select! {
                    changed = self.cell.changed() => changed.is_err(),
                    () = begun => true,
                };
                if ended {
                    self.over = true;
                    return Some(Err(status::unavailable("the server is shutting down")));
                }
            }
            let now = (self.pick)(&self.cell.borrow_and_update());
            let before = self.told.take();
            let mut events: Vec<Event<T>> = now
                .iter()
                .filter(|(name, thing)| before.as_ref().and_then(|told| told.get(*name)) != Some(*thing))
                .map(|(_, thing)| Event::Upserted(thing.clone()))
                .collect();
            match &before {
                None => events.push(Event::Synced),
                Some(told) => {
                    events.extend(told.keys().filter(|name| !now.contains_key(*name)).cloned().map(Event::Deleted));
                }
            }
            events.reverse();
            self.pending = events;
            self.told = Some(now);
        }
    }
}
