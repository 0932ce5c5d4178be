//! What a set of changes does to what is in force. No I/O: the same for every store.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use fusebox_policy::{Namespace, Policy, PolicyName, Revision};
use fusebox_proto::v1;
use prost::Message;
use sha2::{Digest, Sha256};

use super::{
    Action, Applied, Change, ChangeResult, Expect, Loaded, MAX_TERM, Note, Quota, RevisionAction, Staged, StoreError,
    StoredPolicy, StoredRevision, audit::NewAudit,
};

/// Name of a policy in the whole store.
pub(super) type Key = (Namespace, PolicyName);

/// What is in force.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) revision: Revision,
    /// The highest one that a replica was seen to run.
    pub(super) seen: Revision,
    pub(super) policies: BTreeMap<Key, Arc<StoredPolicy>>,
    /// Those in progress, one of a policy at most.
    pub(super) rollouts: BTreeMap<Key, Arc<Staged>>,
}

/// What is to be written.
#[derive(Debug)]
pub(super) struct Plan {
    pub(super) applied: Applied,
    pub(super) revisions: Vec<StoredRevision>,
    pub(super) audit: Vec<NewAudit>,
    pub(super) after: State,
}

impl State {
    pub(super) fn loaded(&self) -> Loaded {
        Loaded {
            revision: self.revision,
            seen: self.seen,
            policies: self.policies.values().cloned().collect(),
            rollouts: self.rollouts.values().cloned().collect(),
        }
    }

    /// Whether it is an older copy of itself.
    pub(super) const fn is_regressed(&self) -> bool {
        self.seen.0 > self.revision.0
    }

    /// Refuses a change of an older copy.
    pub(super) const fn refuse_regressed(&self) -> Result<(), StoreError> {
        if self.is_regressed() {
            return Err(StoreError::Regressed { revision: self.revision, seen: self.seen });
        }
        Ok(())
    }

    /// The same policies, as a revision above every one that was seen.
    pub(super) fn adopted(&self) -> Self {
        Self { revision: Revision(self.seen.max(self.revision).0 + 1), ..self.clone() }
    }

    /// Works out what the changes do, or why they may not be made.
    pub(super) fn plan(&self, changes: Vec<Change>, note: &Note, quota: Quota) -> Result<Plan, StoreError> {
        self.refuse_regressed()?;
        let mut after = self.clone();
        let mut results = Vec::with_capacity(changes.len());
        let mut revisions = Vec::new();
        let mut defined = BTreeSet::new();
        for change in changes {
            match change {
                Change::Prune { namespace, labels } => {
                    for change in after.pruned(&namespace, &labels, &defined) {
                        results.push(after.change(change, note, &mut revisions)?);
                    }
                }
                Change::Put { .. } | Change::Delete { .. } => {
                    if let Change::Put { policy, .. } = &change {
                        defined.insert((policy.namespace.clone(), policy.name.clone()));
                    }
                    results.push(after.change(change, note, &mut revisions)?);
                }
            }
        }
        let changed = results.iter().filter(|result| result.action != Action::Unchanged);
        let audit = changed.zip(&revisions).map(|(result, revision)| {
            let before = result.before.as_ref().map(|stored| &stored.policy);
            let after = result.after.as_ref().map(|stored| &stored.policy);
            NewAudit::policy(revision.action, revision.revision, before, after, note)
        });
        let audit = audit.collect();
        // Ties are judged on what would be in force, so that two policies can swap their selectors in one go.
        for (index, result) in results.iter().enumerate() {
            if let (Action::Created | Action::Configured, Some(stored)) = (result.action, &result.after) {
                after.check_ties(&stored.policy).map_err(|invalid| StoreError::Contradiction(index, invalid))?;
            }
        }
        let grown: BTreeSet<&Namespace> = defined.iter().map(|(namespace, _)| namespace).collect();
        for namespace in grown {
            after.check_quota(self, namespace, quota)?;
        }
        let applied = Applied { results, revision: after.revision, state: after.loaded() };
        Ok(Plan { applied, revisions, audit, after })
    }

    /// The deletions of a namespace's policies with these labels that are not among the defined ones.
    fn pruned(&self, namespace: &Namespace, labels: &BTreeMap<String, String>, defined: &BTreeSet<Key>) -> Vec<Change> {
        let goes = |key: &Key, stored: &StoredPolicy| {
            let own = stored.policy.labels.as_map();
            key.0 == *namespace
                && !defined.contains(key)
                && labels.iter().all(|(key, value)| own.get(key) == Some(value))
        };
        let gone = self.policies.iter().filter(|(key, stored)| goes(key, stored));
        gone.map(|((namespace, name), stored)| Change::Delete {
            namespace: namespace.clone(),
            name: name.clone(),
            etag: Some(stored.etag().to_owned()),
            allow_missing: false,
        })
        .collect()
    }

    fn change(
        &mut self,
        change: Change,
        note: &Note,
        revisions: &mut Vec<StoredRevision>,
    ) -> Result<ChangeResult, StoreError> {
        match change {
            Change::Put { policy, expect, rollback } => self.put(*policy, &expect, rollback, note, revisions),
            // Made of deletions before it comes here.
            Change::Prune { .. } => Ok(ChangeResult { action: Action::Unchanged, before: None, after: None }),
            Change::Delete { namespace, name, etag, allow_missing } => {
                let full_name = format!("namespaces/{namespace}/policies/{name}");
                let Some(before) = self.policies.get(&(namespace.clone(), name.clone())).cloned() else {
                    return if allow_missing {
                        Ok(ChangeResult { action: Action::Unchanged, before: None, after: None })
                    } else {
                        Err(StoreError::NotFound(full_name))
                    };
                };
                check_etag(&before, etag.as_deref())?;
                self.refuse_rollout(&(namespace.clone(), name.clone()))?;
                self.policies.remove(&(namespace, name));
                self.revision = Revision(self.revision.0 + 1);
                revisions.push(revision(self.revision, RevisionAction::Delete, before.policy.clone(), note));
                Ok(ChangeResult { action: Action::Deleted, before: Some(before), after: None })
            }
        }
    }

    fn put(
        &mut self,
        mut policy: Policy,
        expect: &Expect,
        rollback: bool,
        note: &Note,
        revisions: &mut Vec<StoredRevision>,
    ) -> Result<ChangeResult, StoreError> {
        let key = (policy.namespace.clone(), policy.name.clone());
        let before = self.policies.get(&key).cloned();
        self::expect(&policy.resource_name(), expect, before.as_ref())?;
        if before.as_ref().is_some_and(|stored| same(&stored.policy, &policy)) {
            return Ok(ChangeResult { action: Action::Unchanged, before: before.clone(), after: before });
        }
        self.refuse_rollout(&key)?;
        self.revision = Revision(self.revision.0 + 1);
        policy.revision = self.revision;
        let created = created(before.as_deref(), note.at);
        let (action, kind) = match (&before, rollback) {
            (_, true) => {
                (if before.is_some() { Action::Configured } else { Action::Created }, RevisionAction::Rollback)
            }
            (Some(_), false) => (Action::Configured, RevisionAction::Update),
            (None, false) => (Action::Created, RevisionAction::Create),
        };
        revisions.push(revision(self.revision, kind, policy.clone(), note));
        let stored = Arc::new(stored(policy, created, note.at));
        self.policies.insert(key, Arc::clone(&stored));
        Ok(ChangeResult { action, before, after: Some(stored) })
    }
}

/// Whether a policy is as it is expected to be.
pub(super) fn expect(name: &str, expect: &Expect, before: Option<&Arc<StoredPolicy>>) -> Result<(), StoreError> {
    match (expect, before) {
        (Expect::Absent, Some(_)) => Err(StoreError::AlreadyExists(name.to_owned())),
        (Expect::Present(_) | Expect::Any(Some(_)), None) => Err(StoreError::NotFound(name.to_owned())),
        (Expect::Present(etag) | Expect::Any(etag), Some(stored)) => check_etag(stored, etag.as_deref()),
        (Expect::Absent | Expect::Any(None), None) => Ok(()),
    }
}

/// Whether two policies say the same.
pub(super) fn same(one: &Policy, other: &Policy) -> bool {
    one.definition == other.definition && one.labels == other.labels
}

/// When a policy was created that is changed now.
pub(super) fn created(before: Option<&StoredPolicy>, now: SystemTime) -> SystemTime {
    before.and_then(|stored| stored.wire.create_time).map_or(now, from_timestamp)
}

pub(super) fn revision(revision: Revision, action: RevisionAction, policy: Policy, note: &Note) -> StoredRevision {
    let Note { caller, message, at } = note.clone();
    let author = caller.name;
    StoredRevision { revision, action, policy, author, message, at }
}

fn check_etag(stored: &StoredPolicy, wanted: Option<&str>) -> Result<(), StoreError> {
    match wanted {
        Some(etag) if etag != stored.etag() => {
            Err(StoreError::EtagMismatch { name: stored.policy.resource_name(), current: stored.etag().to_owned() })
        }
        Some(_) | None => Ok(()),
    }
}

/// A policy with everything that the wire shows of it.
pub(super) fn stored(policy: Policy, created: SystemTime, updated: SystemTime) -> StoredPolicy {
    let mut wire = v1::Policy::from(&policy);
    let bytes = encode(&policy);
    wire.etag = etag(&bytes);
    wire.create_time = Some(to_timestamp(created));
    wire.update_time = Some(to_timestamp(updated));
    StoredPolicy { policy, wire, size: bytes.len() }
}

/// The bytes that are kept: the wire form without what the store adds.
pub(super) fn encode(policy: &Policy) -> Vec<u8> {
    v1::Policy::from(policy).encode_to_vec()
}

pub(super) fn digest(bytes: &[u8]) -> Vec<u8> {
    Sha256::digest(bytes).to_vec()
}

/// The bytes hold the revision, so that a policy that was changed there and back has another etag.
pub(crate) fn etag(bytes: &[u8]) -> String {
    digest(bytes).iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

pub(crate) fn to_timestamp(time: SystemTime) -> prost_types::Timestamp {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    prost_types::Timestamp {
        seconds: i64::try_from(since.as_secs()).unwrap_or(i64::MAX),
        nanos: i32::try_from(since.subsec_micros() * 1000).unwrap_or(0),
    }
}

fn from_timestamp(time: prost_types::Timestamp) -> SystemTime {
    let seconds = u64::try_from(time.seconds).unwrap_or(0);
    UNIX_EPOCH + Duration::new(seconds, u32::try_from(time.nanos).unwrap_or(0))
}

/// Refuses a term that a store could not count on from.
pub(super) const fn check_term(term: u64) -> Result<u64, StoreError> {
    if term > MAX_TERM { Err(StoreError::TermTooHigh(term)) } else { Ok(term) }
}

pub(super) fn to_micros(time: SystemTime) -> i64 {
    i64::try_from(time.duration_since(UNIX_EPOCH).unwrap_or_default().as_micros()).unwrap_or(i64::MAX)
}

pub(super) fn from_micros(micros: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_micros(u64::try_from(micros).unwrap_or(0))
}
