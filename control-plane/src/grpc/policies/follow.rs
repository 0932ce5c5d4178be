//! A watch: what is present, a mark, then changes, each followed by a mark.
//!
//! It remembers the snapshot that it told last and compares: however slow the reader, it costs one snapshot, and misses no end of a policy.

use std::{pin::Pin, sync::Arc};

use fusebox_policy::Namespace;
use fusebox_proto::v1::{self, watch_policies_response::Event};
use futures_util::{Stream, stream};
use tokio::sync::watch;
use tonic::Status;

use super::shows;
use crate::{
    grpc::status,
    hub::{Change, Snapshot},
    shutdown::Shutdown,
};

pub(super) type Events = Pin<Box<dyn Stream<Item = Result<v1::WatchPoliciesResponse, Status>> + Send>>;

/// Follows one namespace, or all.
pub(super) fn follow(cell: watch::Receiver<Arc<Snapshot>>, namespace: Option<Namespace>, shutdown: Shutdown) -> Events {
    let follow = Follow { namespace, cell, shutdown, told: None, pending: Vec::new(), over: false };
    Box::pin(stream::unfold(follow, |mut follow| async {
        let event = follow.next().await?;
        Some((event, follow))
    }))
}

/// One reader's place in the changes.
struct Follow {
    namespace: Option<Namespace>,
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
        let namespace = self.namespace.as_ref();
        let changes = match &self.told {
            None => snapshot.policies.iter().map(Arc::clone).map(Change::Upserted).collect(),
            Some(told) => snapshot.delta_since(told),
        };
        self.pending = std::iter::once(Event::Bookmark(snapshot.revision.0))
            .chain(changes.into_iter().rev().filter_map(|change| match change {
                Change::Upserted(stored) => shows(&stored, namespace).then(|| Event::Upserted(stored.wire.clone())),
                Change::Deleted(stored) => shows(&stored, namespace).then(|| Event::Deleted(stored.wire.name.clone())),
            }))
            .collect();
        self.told = Some(snapshot);
    }
}
