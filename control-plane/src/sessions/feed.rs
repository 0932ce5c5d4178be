//! The policies of one replica: what to send so that it has what is in force.

use std::sync::Arc;

use fusebox_policy::{CallerName, Namespace, Revision};
use fusebox_proto::sync::v1::{self as sync, sync_response::Message};
use prost::Message as _;
use tokio::sync::watch;

use crate::{
    fleet::Identity,
    hub::{Change, Hub, Snapshot},
    store::StoredPolicy,
};

/// Policies of one chunk, and their bytes: well below what a client takes by default (4 MiB).
const CHUNK: (usize, usize) = (100, 256 * 1024);

/// Follows what is in force for one caller.
pub(super) struct Feed {
    replica: Identity,
    cell: watch::Receiver<Arc<Snapshot>>,
    /// What the replica has, or will have when it has read what was sent. `None`: nothing to build on.
    sent: Option<Revision>,
    /// What the replica ran when it came, of this very store: nothing older is ever sent to it.
    floor: Revision,
    /// Whether it was told what rollouts have for it: what it is may have changed since it was told last.
    placed: bool,
    /// Whether it was told that there is nothing for it.
    told: bool,
    /// The revision for which everything was sent again.
    started_over: Option<Revision>,
}

impl Feed {
    pub(super) fn new(hub: &Hub, identity: &Identity, store_id: &str, held: Revision) -> Self {
        let cell = hub.subscribe();
        let same_store = cell.borrow().store_id == store_id;
        let floor = if same_store { held } else { Revision(0) };
        Self {
            replica: identity.clone(),
            cell,
            sent: (floor > Revision(0)).then_some(floor),
            floor,
            placed: false,
            told: false,
            started_over: None,
        }
    }

    pub(super) fn store_id(&self) -> String {
        self.cell.borrow().store_id.clone()
    }

    /// Waits for something new; false when there will be no more.
    pub(super) async fn changed(&mut self) -> bool {
        self.cell.changed().await.is_ok()
    }

    /// The replica could use nothing of a revision: send everything again, once. Says whether there is something to send.
    pub(super) fn start_over(&mut self, refused: Revision) -> bool {
        if self.started_over == Some(refused) {
            return false;
        }
        self.started_over = Some(refused);
        self.sent = None;
        true
    }

    /// What brings the replica up to date.
    pub(super) fn next(&mut self) -> Vec<Message> {
        let snapshot = Arc::clone(&self.cell.borrow_and_update());
        if self.floor > snapshot.revision {
            // The store is an older copy of itself. The replica keeps what it runs.
            let nothing = sync::Delta { from_revision: self.floor.0, revision: self.floor.0, ..sync::Delta::default() };
            return if std::mem::replace(&mut self.told, true) { Vec::new() } else { vec![Message::Delta(nothing)] };
        }
        let from = self.sent.replace(snapshot.revision);
        let anew = !std::mem::replace(&mut self.placed, true);
        match from.and_then(|from| Some((from, snapshot.delta_for(&self.replica, from, anew)?))) {
            Some((from, changes)) => vec![Message::Delta(self.delta(from, snapshot.revision, &changes))],
            None => whole(&snapshot, &self.replica),
        }
    }

    fn delta(&self, from: Revision, revision: Revision, changes: &[Change]) -> sync::Delta {
        let mut delta = sync::Delta { from_revision: from.0, revision: revision.0, ..sync::Delta::default() };
        for change in changes {
            match change {
                Change::Upserted(stored) if concerns(stored, &self.replica.namespace, &self.replica.caller) => {
                    delta.upserted.push(stored.wire.clone());
                }
                // It may have concerned the replica before it changed. One too many does no harm.
                Change::Upserted(stored) | Change::Deleted(stored) => {
                    if stored.policy.namespace == self.replica.namespace {
                        delta.deleted.push(stored.wire.name.clone());
                    }
                }
            }
        }
        delta
    }
}

/// Whether a caller has to know a policy.
pub(crate) fn concerns(stored: &StoredPolicy, namespace: &Namespace, caller: &CallerName) -> bool {
    stored.policy.namespace == *namespace && stored.policy.definition.selector.admits_caller(caller)
}

fn whole(snapshot: &Snapshot, replica: &Identity) -> Vec<Message> {
    let Identity { namespace, caller, .. } = replica;
    let revision = snapshot.revision.0;
    let mut messages = vec![Message::SnapshotBegin(sync::SnapshotBegin { revision })];
    let mut chunk = sync::PolicyChunk::default();
    let (mut bytes, mut policies) = (0, 0);
    for stored in snapshot.all_for(replica).filter(|stored| concerns(stored, namespace, caller)) {
        let size = stored.wire.encoded_len();
        if !chunk.policies.is_empty() && (chunk.policies.len() >= CHUNK.0 || bytes + size > CHUNK.1) {
            messages.push(Message::PolicyChunk(std::mem::take(&mut chunk)));
            bytes = 0;
        }
        bytes += size;
        policies += 1;
        chunk.policies.push(stored.wire.clone());
    }
    if !chunk.policies.is_empty() {
        messages.push(Message::PolicyChunk(chunk));
    }
    // Where policies of the namespace are in force, one that calls without any was meant to.
    let empty_is_meant = policies == 0 && snapshot.policies.iter().any(|stored| stored.policy.namespace == *namespace);
    messages.push(Message::SnapshotEnd(sync::SnapshotEnd { revision, policies, empty_is_meant }));
    messages
}
