//! A store in memory: for simulations, where no other thread may hold up the virtual clock, and for tests. It keeps the same promises
//! as long as the process lives.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::SystemTime,
};

use fusebox_policy::{Namespace, PolicyName, Revision, fleet::BreakerKey};
use futures_util::future::{FutureExt, ready};

use super::{
    Adoption, Answer, Applied, Change, DECISIONS_KEPT, DECISIONS_OF_BREAKER, Ending, Loaded, NewOverride, NewRollout,
    NewToken, Note, Once, Quota, RequestKey, Revoked, RolloutFilter, Stepped, Store, StoreError, StoredDecision,
    StoredOverride, StoredRevision, StoredRollout, StoredToken, StoredTransition, TransitionFilter,
    audit::{AuditAction, AuditChain, AuditFilter, AuditOrder, AuditPage, AuditRecord, Link, NewAudit, Page},
    plan::{self, State},
    request::{self, Kept, REQUESTS_KEPT},
    rollout::RolloutPlan,
};
use crate::rollouts::machine::Step;

/// Everything, behind one lock that no await crosses.
#[derive(Debug)]
pub struct MemoryStore {
    store_id: String,
    inner: Mutex<Inner>,
    quota: Quota,
}

#[derive(Clone, Debug, Default)]
struct Inner {
    state: State,
    revisions: Vec<StoredRevision>,
    term: u64,
    overrides: Vec<StoredOverride>,
    last_override: u64,
    transitions: Vec<StoredTransition>,
    /// Oldest first.
    decisions: Vec<StoredDecision>,
    requests: BTreeMap<String, Kept>,
    rollouts: BTreeMap<Revision, StoredRollout>,
    audit: Vec<AuditRecord>,
    chain: AuditChain,
    tokens: Vec<StoredToken>,
}

impl Inner {
    fn record(&mut self, audit: impl IntoIterator<Item = NewAudit>) {
        for new in audit {
            self.audit.push(self.chain.append(new));
        }
    }

    fn end_overrides(&mut self, ids: &[u64], ending: Ending, note: &Note) {
        let (ended, kept): (Vec<StoredOverride>, _) =
            std::mem::take(&mut self.overrides).into_iter().partition(|own| ids.contains(&own.id));
        self.overrides = kept;
        self.record(ended.iter().map(|own| NewAudit::of_override(ending.action(), own, note.clone())));
    }

    fn refuse_repeated<T>(&self, once: Option<&Once<T>>) -> Result<(), StoreError> {
        once.map_or(Ok(()), |once| request::refuse_repeated(self.requests.get(&once.key.id).cloned(), &once.key))
    }

    fn keep<T>(&mut self, once: Option<Once<T>>, outcome: &T) {
        let Some(once) = once else { return };
        let (RequestKey { id, sha256, at }, answer) = once.into_kept(outcome);
        self.requests.retain(|_, kept| kept.at + REQUESTS_KEPT > at);
        self.requests.insert(id, Kept { sha256, answer, at });
    }
}

impl Inner {
    /// Writes what was planned; or, with `validate_only`, does not.
    fn step(&mut self, plan: RolloutPlan, validate_only: bool, once: Option<Once<Stepped>>) -> Stepped {
        let stepped = plan.stepped();
        if !validate_only {
            let RolloutPlan { rollout, revision, audit, after } = plan;
            self.state = after;
            self.revisions.extend(revision);
            self.rollouts.insert(rollout.candidate, rollout);
            self.record([audit]);
            self.keep(once, &stepped);
        }
        stepped
    }
}

impl MemoryStore {
    /// Empty.
    #[must_use]
    pub fn new(store_id: &str) -> Self {
        Self { store_id: store_id.to_owned(), inner: Mutex::default(), quota: Quota::default() }
    }

    /// The same, whose namespaces take so much.
    #[must_use]
    pub const fn with_quota(mut self, quota: Quota) -> Self {
        self.quota = quota;
        self
    }

    /// A backup: the same store as it is now, and later another one.
    #[must_use]
    pub fn copy(&self) -> Self {
        let inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        Self { store_id: self.store_id.clone(), inner: Mutex::new(inner.clone()), quota: self.quota }
    }

    fn with<T: Send + 'static>(&self, work: impl FnOnce(&mut Inner) -> Result<T, StoreError>) -> Answer<'_, T> {
        let mut inner = self.inner.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        ready(work(&mut inner)).boxed()
    }
}

impl Store for MemoryStore {
    fn store_id(&self) -> &str {
        &self.store_id
    }

    fn load(&self) -> Answer<'_, Loaded> {
        self.with(|inner| Ok(inner.state.loaded()))
    }

    fn apply_once(
        &self,
        changes: Vec<Change>,
        note: Note,
        validate_only: bool,
        once: Option<Once<Applied>>,
    ) -> Answer<'_, Applied> {
        self.with(|inner| {
            let once = once.filter(|_| !validate_only);
            inner.refuse_repeated(once.as_ref())?;
            let plan = inner.state.plan(changes, &note, self.quota)?;
            if !validate_only {
                inner.state = plan.after;
                inner.revisions.extend(plan.revisions);
                inner.record(plan.audit);
            }
            inner.keep(once, &plan.applied);
            Ok(plan.applied)
        })
    }

    fn start_rollout(
        &self,
        new: NewRollout,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        self.with(|inner| {
            let once = once.filter(|_| !validate_only);
            inner.refuse_repeated(once.as_ref())?;
            let plan = inner.state.start_rollout(new, &note, self.quota)?;
            Ok(inner.step(plan, validate_only, once))
        })
    }

    fn step_rollout(
        &self,
        (namespace, policy, candidate): (Namespace, PolicyName, Revision),
        step: Step,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped> {
        self.with(|inner| {
            let once = once.filter(|_| !validate_only);
            inner.refuse_repeated(once.as_ref())?;
            let plan = inner.state.step_rollout(&namespace, &policy, candidate, step, &note)?;
            Ok(inner.step(plan, validate_only, once))
        })
    }

    fn rollouts(&self, filter: RolloutFilter) -> Answer<'_, Vec<StoredRollout>> {
        self.with(|inner| {
            let found = inner.rollouts.values().rev().filter(|rollout| filter.admits(rollout));
            Ok(found.take(filter.limit as usize).cloned().collect())
        })
    }

    fn answered(&self, key: RequestKey) -> Answer<'_, Option<Vec<u8>>> {
        self.with(|inner| request::recall(inner.requests.get(&key.id).cloned(), &key))
    }

    fn saw_revision(&self, revision: Revision) -> Answer<'_, Loaded> {
        self.with(|inner| {
            let before = inner.state.seen;
            inner.state.seen = before.max(revision);
            if inner.state.is_regressed() && inner.state.seen > before {
                let regress = NewAudit::regress(inner.state.revision, (before, inner.state.seen));
                inner.record([regress]);
            }
            Ok(inner.state.loaded())
        })
    }

    fn adopt_present_once(&self, note: Note, once: Option<Once<Adoption>>) -> Answer<'_, Adoption> {
        self.with(|inner| {
            inner.refuse_repeated(once.as_ref())?;
            if !inner.state.is_regressed() {
                return Ok((None, inner.state.loaded()));
            }
            let before = std::mem::take(&mut inner.state);
            inner.state = before.adopted();
            let adopt = NewAudit::adopt(&before, &inner.state, note);
            inner.record([adopt]);
            let adoption = (Some(before.loaded()), inner.state.loaded());
            inner.keep(once, &adoption);
            Ok(adoption)
        })
    }

    fn revisions(
        &self,
        namespace: Namespace,
        name: PolicyName,
        before: Option<Revision>,
        limit: u32,
    ) -> Answer<'_, Vec<StoredRevision>> {
        self.with(|inner| {
            let own = |stored: &&StoredRevision| {
                stored.policy.namespace == namespace
                    && stored.policy.name == name
                    && before.is_none_or(|before| stored.revision < before)
            };
            Ok(inner.revisions.iter().rev().filter(own).take(limit as usize).cloned().collect())
        })
    }

    fn next_term(&self, at_least: u64) -> Answer<'_, u64> {
        self.with(|inner| {
            let before = inner.term;
            inner.term = plan::check_term(at_least.max(before + 1))?;
            let raise = NewAudit::term(before, inner.term);
            inner.record([raise]);
            Ok(inner.term)
        })
    }

    fn put_override_once(&self, new: NewOverride, once: Option<Once<StoredOverride>>) -> Answer<'_, StoredOverride> {
        self.with(|inner| {
            inner.refuse_repeated(once.as_ref())?;
            inner.last_override += 1;
            let (replaces, replacement) = (new.replaces.clone(), new.replacement(inner.last_override));
            let (stored, audit) = new.numbered(inner.last_override);
            inner.record([audit]);
            inner.end_overrides(&replaces, Ending::Replaced, &replacement);
            inner.overrides.push(stored.clone());
            inner.keep(once, &stored);
            Ok(stored)
        })
    }

    fn end_overrides_once(&self, ids: Vec<u64>, ending: Ending, note: Note, once: Option<Once<()>>) -> Answer<'_, ()> {
        self.with(|inner| {
            inner.refuse_repeated(once.as_ref())?;
            inner.end_overrides(&ids, ending, &note);
            inner.keep(once, &());
            Ok(())
        })
    }

    fn overrides(&self) -> Answer<'_, Vec<StoredOverride>> {
        self.with(|inner| Ok(inner.overrides.clone()))
    }

    fn append_transitions(&self, transitions: Vec<StoredTransition>) -> Answer<'_, Vec<u64>> {
        self.with(|inner| {
            let mut ids = Vec::with_capacity(transitions.len());
            for mut transition in transitions {
                transition.id = inner.transitions.last().map_or(0, |last| last.id) + 1;
                ids.push(transition.id);
                inner.record(NewAudit::verdict(&transition));
                inner.transitions.push(transition);
            }
            Ok(ids)
        })
    }

    fn transitions(&self, filter: TransitionFilter) -> Answer<'_, Vec<StoredTransition>> {
        self.with(|inner| {
            let TransitionFilter { target, caller, namespace, before, after, limit } = filter;
            let fits = |stored: &&StoredTransition| {
                target.as_ref().is_none_or(|target| stored.key.target.as_str() == target)
                    && caller.as_ref().is_none_or(|caller| stored.key.caller.as_str() == caller)
                    && namespace.as_ref().is_none_or(|namespace| stored.key.namespace == *namespace)
                    && before.is_none_or(|before| stored.id < before)
                    && after.is_none_or(|after| stored.id > after)
            };
            Ok(inner.transitions.iter().rev().filter(fits).take(limit as usize).cloned().collect())
        })
    }

    fn transitions_kept(&self) -> Answer<'_, Option<(u64, u64)>> {
        self.with(|inner| {
            Ok(inner.transitions.first().zip(inner.transitions.last()).map(|(old, new)| (old.id, new.id)))
        })
    }

    fn forget_transitions(&self, before: SystemTime, most: u32) -> Answer<'_, u64> {
        self.with(|inner| {
            let old = inner.transitions.iter().take_while(|stored| stored.at < before).count();
            let gone = old.min(most as usize).min(inner.transitions.len().saturating_sub(1));
            inner.transitions.drain(..gone);
            Ok(gone as u64)
        })
    }

    fn audit(&self, filter: AuditFilter) -> Answer<'_, AuditPage> {
        self.with(|inner| {
            let mut page = Page::new(filter.limit);
            let found = inner.audit.iter().filter(|record| filter.admits(record)).cloned();
            match filter.order {
                AuditOrder::NewestFirst(_) => found.rev().all(|record| page.push(record)),
                AuditOrder::OldestFirst(_) => {
                    let mut found = found;
                    found.all(|record| page.push(record))
                }
            };
            Ok(page.done(inner.chain))
        })
    }

    fn record(&self, new: NewAudit) -> Answer<'_, ()> {
        self.with(|inner| {
            inner.record([new]);
            Ok(())
        })
    }

    fn truncate_audit(&self, before: SystemTime, most: u32, note: Note) -> Answer<'_, u64> {
        self.with(|inner| {
            let old = inner.audit.iter().take_while(|record| record.at < before).take(most as usize).count();
            let Some(last) = inner.audit.drain(..old).next_back() else { return Ok(0) };
            inner.chain.dropped = Link { id: last.id, hash: last.hash };
            let truncate = NewAudit::truncate(&inner.chain.dropped, note);
            inner.record([truncate]);
            Ok(old as u64)
        })
    }

    fn put_decisions(&self, decisions: Vec<StoredDecision>) -> Answer<'_, ()> {
        self.with(|inner| {
            let kept = &mut inner.decisions;
            for decision in decisions {
                if let Some(place) = kept.iter_mut().find(|own| own.id == decision.id) {
                    *place = decision;
                    continue;
                }
                let own = |other: &&StoredDecision| other.key == decision.key;
                if kept.iter().filter(own).count() >= DECISIONS_OF_BREAKER
                    && let Some(oldest) = kept.iter().position(|other| own(&other))
                {
                    kept.remove(oldest);
                }
                if kept.len() >= DECISIONS_KEPT {
                    kept.remove(0);
                }
                kept.push(decision);
            }
            Ok(())
        })
    }

    fn decisions(&self, key: BreakerKey) -> Answer<'_, Vec<StoredDecision>> {
        self.with(|inner| Ok(inner.decisions.iter().filter(|own| own.key == key).cloned().collect()))
    }

    fn decided_breakers(&self) -> Answer<'_, Vec<BreakerKey>> {
        self.with(|inner| {
            let keys: BTreeSet<&BreakerKey> = inner.decisions.iter().map(|own| &own.key).collect();
            Ok(keys.into_iter().cloned().collect())
        })
    }

    fn put_token_once(&self, new: NewToken, note: Note, once: Option<Once<StoredToken>>) -> Answer<'_, StoredToken> {
        self.with(|inner| {
            inner.refuse_repeated(once.as_ref())?;
            let same = |stored: &&StoredToken| {
                stored.name == new.name && stored.role.namespace() == new.role.namespace() && stored.in_force(note.at)
            };
            if inner.tokens.iter().find(same).is_some() {
                return Err(StoreError::TokenExists(new.name));
            }
            let (stored, audit) = new.stored(note);
            inner.tokens.push(stored.clone());
            inner.record([audit]);
            inner.keep(once, &stored);
            Ok(stored)
        })
    }

    fn revoke_token_once(
        &self,
        id: String,
        note: Note,
        once: Option<Once<StoredToken>>,
    ) -> Answer<'_, Option<StoredToken>> {
        self.with(|inner| {
            inner.refuse_repeated(once.as_ref())?;
            let Some(stored) = inner.tokens.iter_mut().find(|stored| stored.id == id) else { return Ok(None) };
            let ends = stored.in_force(note.at);
            if ends {
                stored.revoked = Some(Revoked::by(&note));
            }
            let stored = stored.clone();
            if ends {
                inner.record([NewAudit::of_token(AuditAction::TokenRevoke, &stored, note)]);
            }
            inner.keep(once, &stored);
            Ok(Some(stored))
        })
    }

    fn tokens(&self) -> Answer<'_, Vec<StoredToken>> {
        self.with(|inner| Ok(inner.tokens.iter().rev().cloned().collect()))
    }
}
