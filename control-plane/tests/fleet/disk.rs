//! A store whose disk can be full: it answers what it has, and takes nothing more.

use std::{
    sync::atomic::{AtomicBool, AtomicU32, Ordering},
    time::SystemTime,
};

use fusebox_control_plane::{
    rollouts::machine::Step,
    store::{
        Adoption, Answer, Applied, Change, Ending, Loaded, NewOverride, NewRollout, NewToken, Note, Once, RequestKey,
        RolloutFilter, Stepped, Store, StoreError, StoredDecision, StoredOverride, StoredRevision, StoredRollout,
        StoredToken, StoredTransition, TransitionFilter,
        audit::{AuditFilter, AuditPage, NewAudit},
        memory::MemoryStore,
    },
};
use fusebox_policy::{Namespace, PolicyName, Revision, fleet::BreakerKey};
use futures_util::future::{FutureExt as _, ready};

pub(crate) struct Disk {
    rows: MemoryStore,
    full: AtomicBool,
    refused: AtomicU32,
}

impl Disk {
    pub(crate) fn new() -> Self {
        Self { rows: MemoryStore::new("disk"), full: AtomicBool::new(false), refused: AtomicU32::new(0) }
    }

    pub(crate) fn set_full(&self, full: bool) {
        self.full.store(full, Ordering::SeqCst);
    }

    /// How many writes it has refused.
    pub(crate) fn refused(&self) -> u32 {
        self.refused.load(Ordering::SeqCst)
    }

    fn write<'a, T: Send + 'a>(&'a self, write: impl FnOnce() -> Answer<'a, T>) -> Answer<'a, T> {
        if self.full.load(Ordering::SeqCst) {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return ready(Err(StoreError::Full)).boxed();
        }
        write()
    }
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
        self.write(|| self.rows.apply_once(changes, note, validate_only, once))
    }

    fn start_rollout(
        &self,
        new: NewRollout,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        self.write(|| self.rows.start_rollout(new, note, validate_only, once))
    }

    fn step_rollout(
        &self,
        rollout: (Namespace, PolicyName, Revision),
        step: Step,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        self.write(|| self.rows.step_rollout(rollout, step, note, validate_only, once))
    }

    fn rollouts(&self, filter: RolloutFilter) -> Answer<'_, Vec<StoredRollout>> {
        self.rows.rollouts(filter)
    }

    fn answered(&self, key: RequestKey) -> Answer<'_, Option<Vec<u8>>> {
        self.rows.answered(key)
    }

    fn saw_revision(&self, revision: Revision) -> Answer<'_, Loaded> {
        self.write(|| self.rows.saw_revision(revision))
    }

    fn adopt_present_once(&self, note: Note, once: Option<Once<Adoption>>) -> Answer<'_, Adoption> {
        self.write(|| self.rows.adopt_present_once(note, once))
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

    fn next_term(&self, at_least: u64) -> Answer<'_, u64> {
        self.write(|| self.rows.next_term(at_least))
    }

    fn put_override_once(&self, new: NewOverride, once: Option<Once<StoredOverride>>) -> Answer<'_, StoredOverride> {
        self.write(|| self.rows.put_override_once(new, once))
    }

    fn end_overrides_once(&self, ids: Vec<u64>, ending: Ending, note: Note, once: Option<Once<()>>) -> Answer<'_, ()> {
        self.write(|| self.rows.end_overrides_once(ids, ending, note, once))
    }

    fn overrides(&self) -> Answer<'_, Vec<StoredOverride>> {
        self.rows.overrides()
    }

    fn append_transitions(&self, transitions: Vec<StoredTransition>) -> Answer<'_, Vec<u64>> {
        self.write(|| self.rows.append_transitions(transitions))
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
        self.write(|| self.rows.record(new))
    }

    fn truncate_audit(&self, before: SystemTime, most: u32, note: Note) -> Answer<'_, u64> {
        self.write(|| self.rows.truncate_audit(before, most, note))
    }

    fn put_decisions(&self, decisions: Vec<StoredDecision>) -> Answer<'_, ()> {
        self.write(|| self.rows.put_decisions(decisions))
    }

    fn decisions(&self, key: BreakerKey) -> Answer<'_, Vec<StoredDecision>> {
        self.rows.decisions(key)
    }

    fn decided_breakers(&self) -> Answer<'_, Vec<BreakerKey>> {
        self.rows.decided_breakers()
    }

    fn put_token_once(&self, new: NewToken, note: Note, once: Option<Once<StoredToken>>) -> Answer<'_, StoredToken> {
        self.write(|| self.rows.put_token_once(new, note, once))
    }

    fn revoke_token_once(
        &self,
        id: String,
        note: Note,
        once: Option<Once<StoredToken>>,
    ) -> Answer<'_, Option<StoredToken>> {
        self.write(|| self.rows.revoke_token_once(id, note, once))
    }

    fn tokens(&self) -> Answer<'_, Vec<StoredToken>> {
        self.rows.tokens()
    }
}
