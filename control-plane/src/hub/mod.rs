//! What is in force, for everybody who wants to follow it.
//!
//! One `watch` cell holds the newest snapshot: a slow follower skips revisions, and can neither hold memory nor delay anyone else. A
//! bounded log of recent changes rides along, so that followers can be sent differences.

mod reconcile;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use fusebox_policy::Revision;
use tokio::sync::watch;

pub use reconcile::reconcile;

use crate::store::{Applied, Loaded, StoreError, StoreHandle, StoredPolicy};

/// Changes that are remembered for differences. Whoever is further behind gets everything.
const LOG: usize = 1024;

/// What is in force as of one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Id of the store.
    pub store_id: String,
    /// The revision.
    pub revision: Revision,
    /// Ordered by namespace and name.
    pub policies: Vec<Arc<StoredPolicy>>,
    /// Recent changes, oldest first: (revision, the policy as of it or before its deletion).
    log: VecDeque<(Revision, Arc<StoredPolicy>)>,
    /// The log holds every change after this revision.
    log_from: Revision,
}

/// What became of one policy since some revision.
#[derive(Clone, Debug)]
pub enum Change {
    /// It is new or different.
    Upserted(Arc<StoredPolicy>),
    /// It is gone; this is how it last was.
    Deleted(Arc<StoredPolicy>),
}

impl Snapshot {
    /// The policy of this resource name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Arc<StoredPolicy>> {
        self.policies.iter().find(|stored| stored.wire.name == name)
    }

    /// What changed since a revision, the newest state of each policy once. `None` if the log does not reach back so far.
    #[must_use]
    pub fn delta_from(&self, from: Revision) -> Option<Vec<Change>> {
        if from < self.log_from || from > self.revision {
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut changes = Vec::new();
        for (_, changed) in self.log.iter().rev().take_while(|(revision, _)| *revision > from) {
            if seen.insert(changed.wire.name.as_str()) {
                changes.push(match self.get(&changed.wire.name) {
                    Some(present) => Change::Upserted(Arc::clone(present)),
                    None => Change::Deleted(Arc::clone(changed)),
                });
            }
        }
        changes.reverse();
        Some(changes)
    }

    fn load(store_id: &str, loaded: Loaded) -> Self {
        let Loaded { revision, policies } = loaded;
        Self { store_id: store_id.to_owned(), revision, policies, log: VecDeque::new(), log_from: revision }
    }
}

/// A cheap handle on the cell.
#[derive(Clone, Debug)]
pub struct Hub {
    cell: Arc<watch::Sender<Arc<Snapshot>>>,
}

impl Hub {
    /// Loads what is in force.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(store: &StoreHandle) -> Result<Self, StoreError> {
        let snapshot = Snapshot::load(store.store_id(), store.load().await?);
        Ok(Self { cell: Arc::new(watch::Sender::new(Arc::new(snapshot))) })
    }

    /// Follows. The present snapshot counts as seen.
    #[must_use]
    pub fn subscribe(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.cell.subscribe()
    }

    /// The newest snapshot.
    #[must_use]
    pub fn current(&self) -> Arc<Snapshot> {
        Arc::clone(&self.cell.borrow())
    }

    /// Makes committed changes visible. Late and repeated ones are harmless.
    pub fn publish(&self, applied: &Applied) {
        self.cell.send_if_modified(|snapshot| {
            if applied.revision <= snapshot.revision {
                return false;
            }
            let mut next = Snapshot::clone(snapshot);
            for result in &applied.results {
                let (revision, changed) = match (&result.before, &result.after) {
                    (_, Some(after)) => (after.policy.revision, after),
                    // Deletions are within the range of the whole change; where exactly does not matter to a difference.
                    (Some(before), None) => (applied.revision, before),
                    (None, None) => continue,
                };
                if revision > snapshot.revision {
                    next.log.push_back((revision, Arc::clone(changed)));
                }
                let name = &changed.wire.name;
                let place = next.policies.binary_search_by(|own| own.wire.name.as_str().cmp(name));
                match (place, &result.after) {
                    (Ok(index), Some(after)) => next.policies[index] = Arc::clone(after),
                    (Err(index), Some(after)) => next.policies.insert(index, Arc::clone(after)),
                    (Ok(index), None) => {
                        next.policies.remove(index);
                    }
                    (Err(_), None) => {}
                }
            }
            next.log.make_contiguous().sort_by_key(|(revision, _)| *revision);
            while next.log.len() > LOG {
                if let Some((forgotten, _)) = next.log.pop_front() {
                    next.log_from = forgotten;
                }
            }
            next.revision = applied.revision;
            *snapshot = Arc::new(next);
            true
        });
    }

    /// Replaces everything by what the store holds, if that is newer.
    pub(crate) fn replace(&self, store_id: &str, loaded: Loaded) -> bool {
        self.cell.send_if_modified(|snapshot| {
            if loaded.revision <= snapshot.revision {
                return false;
            }
            *snapshot = Arc::new(Snapshot::load(store_id, loaded));
            true
        })
    }
}
