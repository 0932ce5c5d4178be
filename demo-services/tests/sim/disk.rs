//! The control plane's disk: what outlives a crash, and what operators and fate do to it.
//!
//! A store in memory that all runs of the simulated server share. Overrides end at a wall-clock date, which the simulation does not
//! move: this keeps their ends in simulated time instead.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use fusebox_control_plane::{
    rollouts::machine::Step,
    store::{
        Adoption, Answer, Applied, Change, Ending, Loaded, NewOverride, NewRollout, NewToken, Note, Once, RequestKey,
        RolloutFilter, Stepped, Store, StoreError, StoreHandle, StoredDecision, StoredOverride, StoredRevision,
        StoredRollout, StoredToken, StoredTransition, TransitionFilter,
        audit::{AuditChain, AuditFilter, AuditOrder, AuditPage, AuditRecord, NewAudit},
        memory::MemoryStore,
    },
};
use fusebox_policy::{Namespace, PolicyName, Revision, fleet::BreakerKey};
use fusebox_proto::v1;
use futures_util::future::FutureExt as _;

use crate::{
    history::{History, What},
    properties::key_of,
    stored::Stored,
};

/// How well the disk works.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Health {
    /// What is written is there.
    Well,
    /// Nothing can be written.
    Refuses,
    /// What is written is there, and the answer is lost.
    Forgets,
}

/// The slot that a disk is in.
#[derive(Clone)]
pub(crate) struct Slot(Arc<Mutex<Inner>>);

struct Inner {
    disk: Arc<Disk>,
    /// All that have been in the slot before.
    before: Vec<Arc<Disk>>,
    backup: Option<MemoryStore>,
    wiped: u32,
}

impl Slot {
    pub(crate) fn new(history: History) -> Self {
        let disk = Arc::new(Disk::new(MemoryStore::new("simulated"), history));
        Self(Arc::new(Mutex::new(Inner { disk, before: Vec::new(), backup: None, wiped: 0 })))
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The disk that a server finds when it starts.
    pub(crate) fn disk(&self) -> StoreHandle {
        self.inner().disk.clone()
    }

    pub(crate) fn back_up(&self) {
        let mut inner = self.inner();
        inner.backup = Some(inner.disk.rows.copy());
    }

    /// Puts the backup in its place. A server that runs does not see it.
    pub(crate) fn restore(&self) {
        let mut inner = self.inner();
        let rows = inner.backup.as_ref().expect("a backup was made").copy();
        let (history, ends) = (inner.disk.history.clone(), lock(&inner.disk.ends).clone());
        inner.put(Disk { ends: Mutex::new(ends), ..Disk::new(rows, history) });
    }

    /// Puts an empty one in its place.
    pub(crate) fn wipe(&self) {
        let mut inner = self.inner();
        inner.wiped += 1;
        let rows = MemoryStore::new(&format!("simulated-{}", inner.wiped));
        let history = inner.disk.history.clone();
        inner.put(Disk::new(rows, history));
    }

    /// The audit log of every disk that has been in the slot, oldest records first, and both ends of its chain.
    pub(crate) fn audits(&self) -> Vec<(Vec<AuditRecord>, AuditChain)> {
        let inner = self.inner();
        let whole = |disk: &Arc<Disk>| {
            let mut records = Vec::new();
            loop {
                let after = records.last().map_or(0, |record: &AuditRecord| record.id);
                let filter =
                    AuditFilter { order: AuditOrder::OldestFirst(after), limit: 1000, ..AuditFilter::default() };
                let read = disk.rows.audit(filter).now_or_never().expect("memory answers at once");
                let AuditPage { records: page, more, chain } = read.expect("memory can be read");
                records.extend(page);
                if !more {
                    return (records, chain);
                }
            }
        };
        inner.before.iter().chain([&inner.disk]).map(whole).collect()
    }

    pub(crate) fn falls_ill(&self, health: Health) {
        *lock(&self.inner().disk.health) = health;
    }
}

impl Inner {
    fn put(&mut self, disk: Disk) {
        let before = std::mem::replace(&mut self.disk, Arc::new(disk));
        self.before.push(before);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The disk.
struct Disk {
    rows: MemoryStore,
    history: History,
    /// Override -> its end, since the simulation began.
    ends: Mutex<BTreeMap<u64, Duration>>,
    health: Mutex<Health>,
}

impl Disk {
    fn new(rows: MemoryStore, history: History) -> Self {
        Self { rows, history, ends: Mutex::default(), health: Mutex::new(Health::Well) }
    }

    /// A write, as well as the disk is. It must not begin before it is waited for.
    async fn write<T>(&self, write: impl Future<Output = Result<T, StoreError>>) -> Result<T, StoreError> {
        let health = *lock(&self.health);
        match health {
            Health::Well => write.await,
            Health::Refuses => Err(StoreError::Busy),
            Health::Forgets => {
                write.await?;
                Err(StoreError::Busy)
            }
        }
    }
}

fn now() -> Duration {
    turmoil::sim_elapsed().expect("only the simulated server reads its disk")
}

impl Store for Disk {
    fn store_id(&self) -> &str {
        self.rows.store_id()
    }

    fn load(&self) -> Answer<'_, Loaded> {
        async move {
            let loaded = self.rows.load().await?;
            self.history.stored(Stored::of(&loaded, None));
            Ok(loaded)
        }
        .boxed()
    }

    fn apply_once(
        &self,
        changes: Vec<Change>,
        note: Note,
        validate_only: bool,
        once: Option<Once<Applied>>,
    ) -> Answer<'_, Applied> {
        async move {
            let write = async move {
                let applied = self.rows.apply_once(changes, note, validate_only, once).await?;
                if !validate_only {
                    self.history.stored(Stored::of(&applied.state, None));
                }
                Ok(applied)
            };
            self.write(write).await
        }
        .boxed()
    }

    fn start_rollout(
        &self,
        new: NewRollout,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        async move {
            let write = async move {
                let stepped = self.rows.start_rollout(new, note, validate_only, once).await?;
                if !validate_only {
                    self.history.stored(Stored::of(&stepped.state, Some(&stepped.rollout)));
                }
                Ok(stepped)
            };
            self.write(write).await
        }
        .boxed()
    }

    fn step_rollout(
        &self,
        rollout: (Namespace, PolicyName, Revision),
        step: Step,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        async move {
            let write = async move {
                let stepped = self.rows.step_rollout(rollout, step, note, validate_only, once).await?;
                // What is only tried changes nothing.
                if !validate_only {
                    self.history.stored(Stored::of(&stepped.state, Some(&stepped.rollout)));
                }
                Ok(stepped)
            };
            self.write(write).await
        }
        .boxed()
    }

    fn rollouts(&self, filter: RolloutFilter) -> Answer<'_, Vec<StoredRollout>> {
        self.rows.rollouts(filter)
    }

    fn answered(&self, key: RequestKey) -> Answer<'_, Option<Vec<u8>>> {
        self.rows.answered(key)
    }

    fn revisions(
        &self,
        namespace: Namespace,
        name: PolicyName,
        before: Option<Revision>,
        limit: u32,
    ) -> Answer<'_, Vec<StoredRevision>> {
        self.rows.revisions(namespace, name, before, limit)
    }

    fn saw_revision(&self, revision: Revision) -> Answer<'_, Loaded> {
        async move { self.write(async move { self.rows.saw_revision(revision).await }).await }.boxed()
    }

    fn adopt_present_once(&self, note: Note, once: Option<Once<Adoption>>) -> Answer<'_, Adoption> {
        async move {
            let write = async move {
                let adopted = self.rows.adopt_present_once(note, once).await?;
                self.history.stored(Stored::of(&adopted.1, None));
                Ok(adopted)
            };
            self.write(write).await
        }
        .boxed()
    }

    fn next_term(&self, at_least: u64) -> Answer<'_, u64> {
        async move {
            let term = self.write(async move { self.rows.next_term(at_least).await }).await?;
            self.history.record(What::Term(term));
            Ok(term)
        }
        .boxed()
    }

    fn put_override_once(&self, new: NewOverride, once: Option<Once<StoredOverride>>) -> Answer<'_, StoredOverride> {
        async move {
            let length = new.expires.duration_since(new.created).unwrap_or_default();
            let stored = self.write(async move { self.rows.put_override_once(new, once).await }).await?;
            lock(&self.ends).insert(stored.id, now() + length);
            Ok(stored)
        }
        .boxed()
    }

    fn end_overrides_once(&self, ids: Vec<u64>, ending: Ending, note: Note, once: Option<Once<()>>) -> Answer<'_, ()> {
        async move { self.write(async move { self.rows.end_overrides_once(ids, ending, note, once).await }).await }
            .boxed()
    }

    fn overrides(&self) -> Answer<'_, Vec<StoredOverride>> {
        async move {
            let rows = self.rows.overrides().await?;
            let ends = lock(&self.ends);
            let today = SystemTime::now();
            Ok(rows
                .into_iter()
                .map(|row| {
                    let left = ends.get(&row.id).copied().unwrap_or_default().saturating_sub(now());
                    StoredOverride { expires: today + left, ..row }
                })
                .collect())
        }
        .boxed()
    }

    fn append_transitions(&self, transitions: Vec<StoredTransition>) -> Answer<'_, Vec<u64>> {
        async move {
            let decisions: Vec<What> = transitions
                .iter()
                .filter(|row| row.instance.is_none())
                .map(|row| What::Logged {
                    key: key_of(Some(&v1::BreakerKey::from(&row.key))),
                    object: format!("breakers/{}", row.key),
                    from: row.from.clone(),
                    to: row.to.clone(),
                })
                .collect();
            let write = async move {
                let ids = self.rows.append_transitions(transitions).await?;
                for decision in decisions {
                    self.history.record(decision);
                }
                Ok(ids)
            };
            self.write(write).await
        }
        .boxed()
    }

    fn transitions(&self, filter: TransitionFilter) -> Answer<'_, Vec<StoredTransition>> {
        self.rows.transitions(filter)
    }

    fn transitions_kept(&self) -> Answer<'_, Option<(u64, u64)>> {
        self.rows.transitions_kept()
    }

    fn forget_transitions(&self, before: SystemTime, most: u32) -> Answer<'_, u64> {
        self.rows.forget_transitions(before, most)
    }

    fn audit(&self, filter: AuditFilter) -> Answer<'_, AuditPage> {
        self.rows.audit(filter)
    }

    fn record(&self, new: NewAudit) -> Answer<'_, ()> {
        self.rows.record(new)
    }

    fn truncate_audit(&self, before: SystemTime, most: u32, note: Note) -> Answer<'_, u64> {
        self.rows.truncate_audit(before, most, note)
    }

    fn put_decisions(&self, decisions: Vec<StoredDecision>) -> Answer<'_, ()> {
        async move { self.write(async move { self.rows.put_decisions(decisions).await }).await }.boxed()
    }

    fn decisions(&self, key: BreakerKey) -> Answer<'_, Vec<StoredDecision>> {
        self.rows.decisions(key)
    }

    fn decided_breakers(&self) -> Answer<'_, Vec<BreakerKey>> {
        self.rows.decided_breakers()
    }

    fn put_token_once(&self, new: NewToken, note: Note, once: Option<Once<StoredToken>>) -> Answer<'_, StoredToken> {
        self.rows.put_token_once(new, note, once)
    }

    fn revoke_token_once(
        &self,
        id: String,
        note: Note,
        once: Option<Once<StoredToken>>,
    ) -> Answer<'_, Option<StoredToken>> {
        self.rows.revoke_token_once(id, note, once)
    }

    fn tokens(&self) -> Answer<'_, Vec<StoredToken>> {
        self.rows.tokens()
    }
}
