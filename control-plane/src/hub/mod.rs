//! What is in force, for everybody who wants to follow it.
//!
//! One `watch` cell holds the newest snapshot: a slow follower skips revisions, and can neither hold memory nor delay anyone else. A
//! bounded log of recent changes rides along, so that followers can be sent differences.

mod diff;
mod reconcile;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use fusebox_policy::Revision;
use parking_lot::Mutex;
use tokio::sync::watch;

pub use reconcile::reconcile;

use crate::store::{Applied, Loaded, StoreError, StoreHandle, StoredPolicy};

/// Changes that are remembered for differences. Whoever is further behind gets everything.
const LOG: usize = 1024;
/// Earlier snapshots that are kept for readers that are between two pages.
const RECENT: usize = 16;

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
        let wanted = name.strip_prefix("namespaces/")?.split_once("/policies/")?;
        let index = self.policies.binary_search_by(|own| diff::key(own).cmp(&wanted)).ok()?;
        self.policies.get(index)
    }

    /// What changed since a revision, the newest state of each policy once, in the order of revisions. `None` if the log does not reach
    /// back so far.
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

    /// What changed since an earlier snapshot, however much earlier.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Vec<Change> {
        self.delta_from(earlier.revision).unwrap_or_else(|| diff::diff(&earlier.policies, &self.policies))
    }

    fn load(store_id: &str, loaded: Loaded) -> Self {
        let Loaded { revision, policies } = loaded;
        Self { store_id: store_id.to_owned(), revision, policies, log: VecDeque::new(), log_from: revision }
    }

    /// The snapshot after this one.
    fn next(&self, loaded: Loaded) -> Self {
        let Loaded { revision, policies } = loaded;
        let mut log = self.log.clone();
        let mut log_from = self.log_from;
        let mut changes: Vec<_> = diff::diff(&self.policies, &policies)
            .into_iter()
            .map(|change| match change {
                Change::Upserted(stored) => (stored.policy.revision, stored),
                // It happened at or before this revision; where exactly makes no difference to anybody who was further back.
                Change::Deleted(stored) => (revision, stored),
            })
            .collect();
        changes.sort_by_key(|(revision, _)| *revision);
        log.extend(changes);
        while log.len() > LOG {
            if let Some((forgotten, _)) = log.pop_front() {
                log_from = forgotten;
            }
        }
        Self { store_id: self.store_id.clone(), revision, policies, log, log_from }
    }
}

/// A cheap handle on the cell.
#[derive(Clone, Debug)]
pub struct Hub {
    cell: Arc<watch::Sender<Arc<Snapshot>>>,
    /// Newest last; the newest is the cell's. Locked for a look only.
    recent: Arc<Mutex<VecDeque<Arc<Snapshot>>>>,
}

impl Hub {
    /// Loads what is in force.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start(store: &StoreHandle) -> Result<Self, StoreError> {
        let snapshot = Arc::new(Snapshot::load(store.store_id(), store.load().await?));
        Ok(Self {
            cell: Arc::new(watch::Sender::new(Arc::clone(&snapshot))),
            recent: Arc::new(Mutex::new(VecDeque::from([snapshot]))),
        })
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

    /// The snapshot of a revision, if it is one of the last few that were published.
    #[must_use]
    pub fn at(&self, revision: Revision) -> Option<Arc<Snapshot>> {
        self.recent.lock().iter().find(|snapshot| snapshot.revision == revision).map(Arc::clone)
    }

    /// Makes committed changes visible. Late and repeated ones are harmless: the newest revision wins, and holds all before it.
    pub fn publish(&self, applied: &Applied) {
        self.replace(applied.state.clone());
    }

    /// Shows what is stored, if that is newer than what is shown. Answers whether it was.
    pub fn replace(&self, loaded: Loaded) -> bool {
        self.cell.send_if_modified(|snapshot| {
            if loaded.revision <= snapshot.revision {
                return false;
            }
            *snapshot = Arc::new(snapshot.next(loaded));
            let mut recent = self.recent.lock();
            recent.push_back(Arc::clone(snapshot));
            while recent.len() > RECENT {
                recent.pop_front();
            }
            true
        })
    }
}
