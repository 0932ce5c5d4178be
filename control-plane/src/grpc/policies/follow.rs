//! A watch: what is present, a mark, then changes, each followed by a mark.
//!
//! It remembers the snapshot that it told last and compares: however slow the reader, it costs one snapshot, and misses no end of a policy.

use std::{pin::Pin, sync::Arc};

use fusebox_policy::{Namespace, Revision};
use fusebox_proto::v1::{self, watch_policies_response::Event};
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::Status;

use super::shows;
use crate::{
    filter::Filter,
    grpc::status,
    hub::{Change, Snapshot},
    shutdown::Shutdown,
    store::StoredPolicy,
};

pub(super) type Events = Pin<Box<dyn Stream<Item = Result<v1::WatchPoliciesResponse, Status>> + Send>>;

/// Which policies a reader wants, and from where on.
pub(super) struct Wanted {
    pub(super) namespace: Option<Namespace>,
    pub(super) filter: Filter,
    /// Only what changed after it.
    pub(super) from: Option<Revision>,
}

/// Follows what is wanted.
///
/// # Errors
/// The revision to begin from is not known, or not any more.
pub(super) fn follow(
    mut cell: watch::Receiver<Arc<Snapshot>>,
    wanted: Wanted,
    shutdown: Shutdown,
) -> Result<Events, Status> {
    let Wanted { namespace, filter, from } = wanted;
    let begun = match from {
        None => None,
        Some(from) => {
            let snapshot = Arc::clone(&cell.borrow_and_update());
            if from > snapshot.revision {
                return Err(status::revision_unknown(from.0, snapshot.revision.0));
            }
            let changes = snapshot.delta_from(from).ok_or_else(|| status::compacted(from.0, snapshot.oldest().0))?;
            Some((snapshot, changes))
        }
    };
    let mut follow = Follow { namespace, filter, cell, shutdown, told: None, pending: Vec::new(), over: false };
    if let Some((snapshot, changes)) = begun {
        follow.tell(snapshot, changes);
    }
    Ok(Box::pin(stream::unfold(follow, |mut follow| async {
        let event = follow.next().await?;
        Some((event, follow))
    })))
}

/// One reader's place in the changes.
struct Follow {
    namespace: Option<Namespace>,
    filter: Filter,
    cell: watch::Receiver<Arc<Snapshot>>,
    shutdown: Shutdown,
    told: Option<Arc<Snapshot>>,
    /// Newest last: taken from the end.
    pending: Vec<Event>,
    over: bool,
}

impl Follow {
    async fn next(&mut self) -> Option<Result<v1::WatchPoliciesResponse, Status>> {
        loop {
            if let Some(event) = self.pending.pop() {
                return Some(Ok(v1::WatchPoliciesResponse { event: Some(event) }));
            }
            if self.over {
                return None;
            }
            if self.told.is_some() {
                let begun = self.shutdown.begun();
                tokio::select! {
                    changed = self.cell.changed() => if changed.is_err() { return None },
                    () = begun => {
                        self.over = true;
                        return Some(Err(status::unavailable("the server is shutting down")));
                    }
                }
            }
            let snapshot = Arc::clone(&self.cell.borrow_and_update());
            self.take(snapshot);
        }
    }

    fn take(&mut self, snapshot: Arc<Snapshot>) {
        let changes = match &self.told {
            None => {
                let present = snapshot.policies.iter().map(Arc::clone);
                present.filter(|own| shows(own, self.namespace.as_ref(), &self.filter)).map(Change::Upserted).collect()
            }
            Some(told) => snapshot.delta_since(told),
        };
        self.tell(snapshot, changes);
    }

    /// Queues what changed on the way to a snapshot, and its mark.
    fn tell(&mut self, snapshot: Arc<Snapshot>, changes: Vec<Change>) {
        let namespace = self.namespace.as_ref();
        let events = changes.into_iter().rev().filter_map(|change| match change {
            Change::Upserted(stored) if shows(&stored, namespace, &self.filter) => {
                Some(Event::Upserted(stored.wire.clone()))
            }
            // For this reader it is gone, if it was ever there: what was is not always known.
            Change::Upserted(stored) if self.may_have_told(&stored) => Some(Event::Deleted(stored.wire.name.clone())),
            Change::Upserted(_) => None,
            Change::Deleted(stored) => {
                shows(&stored, namespace, &Filter::default()).then(|| Event::Deleted(stored.wire.name.clone()))
            }
        });
        self.pending = std::iter::once(Event::Bookmark(snapshot.revision.0)).chain(events).collect();
        self.told = Some(snapshot);
    }

    /// Whether this reader may hold a policy that its filter does not admit now.
    fn may_have_told(&self, stored: &StoredPolicy) -> bool {
        let namespace = self.namespace.as_ref();
        shows(stored, namespace, &Filter::default())
            && match &self.told {
                Some(told) => told.get(&stored.wire.name).is_some_and(|before| shows(before, namespace, &self.filter)),
                None => true,
            }
    }
}
