//! The control plane's disk: what outlives a crash.
//!
//! A store in memory that all runs of the simulated server share. Overrides end at a wall-clock date, which the simulation does not
//! move: this keeps their ends in simulated time instead.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use fusebox_control_plane::{
    rollouts::machine::Step,
    store::{
        Answer, Applied, Change, Ending, Loaded, NewOverride, NewRollout, NewToken, Note, Once, RequestKey,
        RolloutFilter, Stepped, Store, StoredDecision, StoredOverride, StoredRevision, StoredRollout, StoredToken,
        StoredTransition, TransitionFilter,
        audit::{AuditFilter, AuditPage},
        memory::MemoryStore,
    },
};
use fusebox_policy::{Namespace, PolicyName, Revision, fleet::BreakerKey};
use futures_util::future::FutureExt as _;

use crate::history::{History, What};

/// The disk.
pub(crate) struct Disk {
    rows: MemoryStore,
    history: History,
    /// Override -> its end, since the simulation began.
    ends: Mutex<BTreeMap<u64, Duration>>,
}

impl Disk {
    pub(crate) fn new(history: History) -> Self {
        Self { rows: MemoryStore::new("simulated"), history, ends: Mutex::default() }
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
        self.rows.load()
    }

    fn apply_once(
        &self,
        changes: Vec<Change>,
        note: Note,
        validate_only: bool,
        once: Option<Once<Applied>>,
    ) -> Answer<'_, Applied> {
        self.rows.apply_once(changes, note, validate_only, once)
    }

    fn start_rollout(
        &self,
        new: NewRollout,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        self.rows.start_rollout(new, note, validate_only, once)
    }

    fn step_rollout(
        &self,
        rollout: (Namespace, PolicyName, Revision),
        step: Step,
        note: Note,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        self.rows.step_rollout(rollout, step, note, once)
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
        self.rows.saw_revision(revision)
    }

    fn adopt_present(&self, note: Note) -> Answer<'_, (Option<Loaded>, Loaded)> {
        self.rows.adopt_present(note)
    }

    fn next_term(&self, at_least: u64) -> Answer<'_, u64> {
        async move {
            let term = self.rows.next_term(at_least).await?;
            self.history.record(What::Term(term));
            Ok(term)
        }
        .boxed()
    }

    fn put_override_once(&self, new: NewOverride, once: Option<Once<StoredOverride>>) -> Answer<'_, StoredOverride> {
        async move {
            let length = new.expires.duration_since(new.created).unwrap_or_default();
            let stored = self.rows.put_override_once(new, once).await?;
            self.ends.lock().unwrap_or_else(PoisonError::into_inner).insert(stored.id, now() + length);
            Ok(stored)
        }
        .boxed()
    }

    fn end_overrides_once(&self, ids: Vec<u64>, ending: Ending, note: Note, once: Option<Once<()>>) -> Answer<'_, ()> {
        self.rows.end_overrides_once(ids, ending, note, once)
    }

    fn overrides(&self) -> Answer<'_, Vec<StoredOverride>> {
        async move {
            let rows = self.rows.overrides().await?;
            let ends = self.ends.lock().unwrap_or_else(PoisonError::into_inner);
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
        self.rows.append_transitions(transitions)
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

    fn truncate_audit(&self, before: SystemTime, most: u32, note: Note) -> Answer<'_, u64> {
        self.rows.truncate_audit(before, most, note)
    }

    fn put_decisions(&self, decisions: Vec<StoredDecision>) -> Answer<'_, ()> {
        self.rows.put_decisions(decisions)
    }

    fn decisions(&self, key: BreakerKey) -> Answer<'_, Vec<StoredDecision>> {
        self.rows.decisions(key)
    }

    fn decided_breakers(&self) -> Answer<'_, Vec<BreakerKey>> {
        self.rows.decided_breakers()
    }

    fn put_token(&self, new: NewToken, note: Note) -> Answer<'_, StoredToken> {
        self.rows.put_token(new, note)
    }

    fn revoke_token(&self, id: String, note: Note) -> Answer<'_, Option<StoredToken>> {
        self.rows.revoke_token(id, note)
    }

    fn tokens(&self) -> Answer<'_, Vec<StoredToken>> {
        self.rows.tokens()
    }
}
