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

/// Changes that are remembered for differences when nothing else is said. Whoever is further behind gets everything.
pub const REMEMBERED: usize = 1024;
/// Earlier snapshots that are kept for readers that are between two pages.
const RECENT: usize = 16;

/// What is in force as of one revision.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Id of the store.
    pub store_id: String,
    /// The revision.
    pub revision: Revision,
    /// The highest revision that a replica was seen to run.
    pub seen: Revision,
    /// Ordered by namespace and name.
    pub policies: Vec<Arc<StoredPolicy>>,
    /// Recent changes, oldest first: (revision, the policy as of it or before its deletion).
    log: VecDeque<(Revision, Arc<StoredPolicy>)>,
    /// The log holds every change after this revision.
    log_from: Revision,
    /// Changes that the log holds at most.
    remembered: usize,
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
    /// The revision that a replica runs, if that is later than this one: then the store is an older copy of itself.
    #[must_use]
    pub fn regressed(&self) -> Option<Revision> {
        (self.seen > self.revision).then_some(self.seen)
    }

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

    /// The earliest revision that [`Self::delta_from`] can begin at.
    #[must_use]
    pub const fn oldest(&self) -> Revision {
        self.log_from
    }

    /// What changed since an earlier snapshot, however much earlier.
    #[must_use]
    pub fn delta_since(&self, earlier: &Self) -> Vec<Change> {
        self.delta_from(earlier.revision).unwrap_or_else(|| diff::diff(&earlier.policies, &self.policies))
    }

    fn load(store_id: &str, remembered: usize, loaded: Loaded) -> Self {
        let Loaded { revision, seen, policies } = loaded;
        let (store_id, log) = (store_id.to_owned(), VecDeque::new());
        Self { store_id, revision, seen, policies, log, log_from: revision, remembered }
    }

    /// The snapshot after this one.
    fn next(&self, loaded: Loaded) -> Self {
        let Loaded { revision, seen, policies } = loaded;
        if revision > self.revision && self.regressed().is_some() {
            // Whoever runs something of before the recovery runs what this log knows nothing of: everybody gets everything.
            return Self::load(&self.store_id, self.remembered, Loaded { revision, seen, policies });
        }
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
        while log.len() > self.remembered {
            if let Some((forgotten, _)) = log.pop_front() {
                log_from = forgotten;
            }
        }
        let (store_id, remembered) = (self.store_id.clone(), self.remembered);
        Self { store_id, revision, seen, policies, log, log_from, remembered }
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
        Self::start_remembering(store, REMEMBERED).await
    }

    /// The same with another number of changes that are remembered.
    ///
    /// # Errors
    /// What the store says.
    pub async fn start_remembering(store: &StoreHandle, changes: usize) -> Result<Self, StoreError> {
        let snapshot = Arc::new(Snapshot::load(store.store_id(), changes, store.load().await?));
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

    /// Shows what is stored, if that is newer than what is shown, or known to be older than what replicas run. Answers whether it was.
    pub fn replace(&self, loaded: Loaded) -> bool {
        self.cell.send_if_modified(|snapshot| {
            let same = loaded.revision == snapshot.revision && loaded.seen > snapshot.seen;
            if loaded.revision <= snapshot.revision && !same {
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

#[cfg(test)]
mod tests {
    use std::time::SystemTime;

    use fusebox_policy::Policy;

    use super::*;
    use crate::{
        caller::Caller,
        store::{Change as Write, Expect, Note, memory::MemoryStore},
    };

    fn put(name: &str) -> Vec<Write> {
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: {name} }}\nspec:\n  match: {{ target: {name} }}\n  \
             pipeline: [{{ timeout: 1s }}]\n"
        );
        let policy: Policy = fusebox_proto::manifest::parse("test", &text).unwrap().remove(0).policy;
        vec![Write::Put { policy: Box::new(policy), expect: Expect::Any(None), rollback: false }]
    }

    fn note() -> Note {
        Note { caller: Caller::unauthenticated("tester"), message: String::new(), at: SystemTime::UNIX_EPOCH }
    }

    fn names(changes: &[Change]) -> Vec<String> {
        let name = |stored: &StoredPolicy| stored.policy.name.to_string();
        changes
            .iter()
            .map(|change| match change {
                Change::Upserted(stored) => name(stored),
                Change::Deleted(stored) => format!("-{}", name(stored)),
            })
            .collect()
    }

    #[tokio::test]
    async fn a_publication_that_overtakes_another_hides_nothing() {
        let store: StoreHandle = Arc::new(MemoryStore::new("test"));
        let hub = Hub::start(&store).await.unwrap();
        let first = store.apply(put("a"), note(), false).await.unwrap();
        let second = store.apply(put("b"), note(), false).await.unwrap();
        hub.publish(&second);
        hub.publish(&first);
        let snapshot = hub.current();
        assert_eq!((snapshot.revision, snapshot.policies.len()), (Revision(2), 2));
        assert_eq!(names(&snapshot.delta_from(Revision(0)).unwrap()), ["a", "b"]);
        assert_eq!(names(&snapshot.delta_from(Revision(1)).unwrap()), ["b"]);
        assert!(snapshot.delta_from(Revision(2)).unwrap().is_empty());
        assert!(snapshot.delta_from(Revision(3)).is_none(), "of a future that this store does not know");
    }

    #[tokio::test]
    async fn a_delta_has_the_newest_state_of_each_policy_once() {
        let store: StoreHandle = Arc::new(MemoryStore::new("test"));
        let hub = Hub::start(&store).await.unwrap();
        let delete = |policy: &StoredPolicy| Write::Delete {
            namespace: policy.policy.namespace.clone(),
            name: policy.policy.name.clone(),
            etag: None,
            allow_missing: false,
        };
        for name in ["a", "b"] {
            hub.publish(&store.apply(put(name), note(), false).await.unwrap());
        }
        let stored = hub.current().policies.clone();
        hub.publish(&store.apply(vec![delete(&stored[0])], note(), false).await.unwrap());
        hub.publish(&store.apply(vec![delete(&stored[1])], note(), false).await.unwrap());
        hub.publish(&store.apply(put("b"), note(), false).await.unwrap());
        assert_eq!(names(&hub.current().delta_from(Revision(0)).unwrap()), ["-a", "b"]);
        assert_eq!(names(&hub.current().delta_from(Revision(3)).unwrap()), ["b"]);
    }

    #[tokio::test]
    async fn a_missed_publication_is_healed_from_the_store() {
        let store: StoreHandle = Arc::new(MemoryStore::new("test"));
        let hub = Hub::start(&store).await.unwrap();
        let mut follower = hub.subscribe();
        store.apply(put("a"), note(), false).await.unwrap();
        assert!(hub.replace(store.load().await.unwrap()));
        assert!(follower.has_changed().unwrap());
        assert_eq!(names(&follower.borrow_and_update().delta_from(Revision(0)).unwrap()), ["a"]);
        assert!(!hub.replace(store.load().await.unwrap()));
    }
}
