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

use crate::{
    fleet::Identity,
    store::{Applied, Loaded, Staged, StoreError, StoreHandle, StoredPolicy},
};

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
    /// Rollouts in progress, in the order of their policies.
    pub rollouts: Vec<Arc<Staged>>,
    /// Recent changes, oldest first.
    log: VecDeque<Logged>,
    /// The log holds every change after this revision.
    log_from: Revision,
    /// Changes that the log holds at most.
    remembered: usize,
}

/// A change that is remembered.
#[derive(Clone, Debug)]
struct Logged {
    /// When.
    revision: Revision,
    /// The policy as of it, or before its deletion; of a rollout, the candidate.
    policy: Arc<StoredPolicy>,
    /// Whether it changed what is in force; a step of a rollout changes only who has what.
    in_force: bool,
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
        let logged = self.logged_since(from)?;
        Some(self.changes(logged.filter(|logged| logged.in_force), |name| self.get(name)))
    }

    /// The same for one replica, which may be selected by rollouts. With `anew`, what rollouts in progress bring or keep from it is told even
    /// if nothing has changed: it may have come back with another zone or other labels.
    #[must_use]
    pub fn delta_for(&self, replica: &Identity, from: Revision, anew: bool) -> Option<Vec<Change>> {
        let mut changes = self.changes(self.logged_since(from)?, |name| self.get_for(replica, name));
        for staged in self.rollouts.iter().filter(|_| anew) {
            let name = &staged.candidate.wire.name;
            let told = |change: &Change| match change {
                Change::Upserted(stored) | Change::Deleted(stored) => stored.wire.name == *name,
            };
            if !changes.iter().any(told) {
                changes.push(match self.get_for(replica, name) {
                    Some(present) => Change::Upserted(Arc::clone(present)),
                    None => Change::Deleted(Arc::clone(&staged.candidate)),
                });
            }
        }
        Some(changes)
    }

    /// The rollout of a policy that is in progress, by the policy's resource name.
    #[must_use]
    pub fn rollout_of(&self, policy: &str) -> Option<&Arc<Staged>> {
        self.rollouts.iter().find(|staged| staged.candidate.wire.name == policy)
    }

    /// The policy of this resource name as one replica is to have it.
    #[must_use]
    pub fn get_for(&self, replica: &Identity, name: &str) -> Option<&Arc<StoredPolicy>> {
        let staged = self.rollout_of(name).filter(|staged| staged.selects(replica));
        staged.map_or_else(|| self.get(name), |staged| Some(&staged.candidate))
    }

    /// All policies as one replica is to have them.
    pub fn all_for(&self, replica: &Identity) -> impl Iterator<Item = &Arc<StoredPolicy>> {
        let in_force = self.policies.iter().filter_map(|stored| self.get_for(replica, &stored.wire.name));
        let new = self.rollouts.iter().filter(|staged| staged.rollout.stable.is_none() && staged.selects(replica));
        in_force.chain(new.map(|staged| &staged.candidate))
    }

    /// Changes after a revision, newest first; `None` if the log does not reach back so far.
    fn logged_since(&self, from: Revision) -> Option<impl Iterator<Item = &Logged>> {
        let reaches = from >= self.log_from && from <= self.revision;
        reaches.then(|| self.log.iter().rev().take_while(move |logged| logged.revision > from))
    }

    /// The newest state of each policy once, oldest change first.
    fn changes<'a>(
        &self,
        newest_first: impl Iterator<Item = &'a Logged>,
        present: impl Fn(&str) -> Option<&'a Arc<StoredPolicy>>,
    ) -> Vec<Change> {
        let mut seen = BTreeSet::new();
        let mut changes = Vec::new();
        for Logged { policy, .. } in newest_first {
            if seen.insert(policy.wire.name.as_str()) {
                changes.push(match present(&policy.wire.name) {
                    Some(present) => Change::Upserted(Arc::clone(present)),
                    None => Change::Deleted(Arc::clone(policy)),
                });
            }
        }
        changes.reverse();
        changes
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
        let Loaded { revision, seen, policies, rollouts } = loaded;
        let (store_id, log) = (store_id.to_owned(), VecDeque::new());
        Self { store_id, revision, seen, policies, rollouts, log, log_from: revision, remembered }
    }

    /// The snapshot after this one.
    fn next(&self, loaded: Loaded) -> Self {
        if loaded.revision > self.revision && self.regressed().is_some() {
            // Whoever runs something of before the recovery runs what this log knows nothing of: everybody gets everything.
            return Self::load(&self.store_id, self.remembered, loaded);
        }
        let Loaded { revision, seen, policies, rollouts } = loaded;
        let mut log = self.log.clone();
        let mut log_from = self.log_from;
        let mut changes: Vec<_> = diff::diff(&self.policies, &policies)
            .into_iter()
            .map(|change| match change {
                // What was a candidate comes into force with a number from before.
                Change::Upserted(policy) if policy.policy.revision > self.revision => {
                    Logged { revision: policy.policy.revision, policy, in_force: true }
                }
                // It happened at or before this revision; where exactly makes no difference to anybody who was further back.
                Change::Upserted(policy) | Change::Deleted(policy) => Logged { revision, policy, in_force: true },
            })
            .collect();
        let moved = diff::moved(&self.rollouts, &rollouts);
        changes.extend(moved.map(|staged| Logged { revision, policy: Arc::clone(&staged.candidate), in_force: false }));
        changes.sort_by_key(|logged| logged.revision);
        log.extend(changes);
        while log.len() > self.remembered {
            if let Some(Logged { revision: forgotten, .. }) = log.pop_front() {
                log_from = forgotten;
            }
        }
        let (store_id, remembered) = (self.store_id.clone(), self.remembered);
        Self { store_id, revision, seen, policies, rollouts, log, log_from, remembered }
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
