//! What can be done with policies: the one writer. Committed first, then published.

use std::{collections::BTreeSet, time::SystemTime};

use fusebox_policy::{Namespace, PolicyName, Revision};

use crate::{
    caller::Caller,
    hub::Hub,
    store::{Action, Applied, Change, Expect, Note, Once, RevisionAction, StoreError, StoreHandle, StoredRevision},
};

/// A cheap handle.
#[derive(Clone)]
pub struct Policies {
    pub(crate) store: StoreHandle,
    pub(crate) hub: Hub,
}

impl std::fmt::Debug for Policies {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Policies").finish_non_exhaustive()
    }
}

/// Why a rollback is not possible.
#[derive(Debug, thiserror::Error)]
pub enum RollbackError {
    /// The policy never had this revision.
    #[error("policy {name} has no revision {revision}")]
    NoSuchRevision {
        /// The policy.
        name: String,
        /// The revision asked for.
        revision: u64,
    },
    /// There is nothing before the present one.
    #[error("policy {0} has no earlier revision")]
    NothingEarlier(String),
    /// That revision is the deletion.
    #[error("revision {revision} of policy {name} is its deletion: delete it instead")]
    Deletion {
        /// The policy.
        name: String,
        /// The revision asked for.
        revision: u64,
    },
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// A rollback that is to be made.
#[derive(Clone, Debug)]
pub struct Rollback {
    /// What it writes.
    pub change: Change,
    /// Why, where nobody says.
    pub reason: String,
}

/// Revisions among which the one before the present is looked for: between them there may be candidates, of rollouts that were aborted.
const LOOKED_AT: u32 = 200;

/// Those that were in force for everybody. A candidate was not, nor was its end a deletion of anything.
fn were_in_force(revisions: Vec<StoredRevision>) -> Vec<StoredRevision> {
    let of =
        |action| revisions.iter().filter(move |stored| stored.action == action).map(|stored| stored.policy.revision);
    let promoted: BTreeSet<Revision> = of(RevisionAction::Promote).collect();
    let aborted: BTreeSet<Revision> =
        of(RevisionAction::Candidate).filter(|candidate| !promoted.contains(candidate)).collect();
    let mut revisions = revisions;
    revisions.retain(|stored| {
        let content = stored.policy.revision;
        stored.action != RevisionAction::Candidate
            && !(stored.action == RevisionAction::Delete && aborted.contains(&content))
    });
    revisions
}

impl Policies {
    /// Over a store and the hub that shows it.
    #[must_use]
    pub fn new(store: StoreHandle, hub: Hub) -> Self {
        Self { store, hub }
    }

    /// What is in force.
    #[must_use]
    pub const fn hub(&self) -> &Hub {
        &self.hub
    }

    /// Makes changes, all or none. With `once` it is a request that may come again: see [`StoreError::Repeated`].
    ///
    /// # Errors
    /// Why none was made.
    pub async fn apply(
        &self,
        changes: Vec<Change>,
        caller: Caller,
        message: String,
        validate_only: bool,
        once: Option<Once<Applied>>,
    ) -> Result<Applied, StoreError> {
        let note = Note { caller, message, at: SystemTime::now() };
        let applied = self.store.apply_once(changes, note.clone(), validate_only, once).await?;
        if !validate_only {
            self.hub.publish(&applied);
            for result in applied.results.iter().filter(|result| result.action != Action::Unchanged) {
                if let Some(stored) = result.after.as_ref().or(result.before.as_ref()) {
                    tracing::info!(
                        event.name = "policy.changed",
                        policy = stored.wire.name,
                        action = ?result.action,
                        revision = applied.revision.0,
                        author = note.caller.name,
                        why = note.message,
                        "policy changed"
                    );
                }
            }
        }
        Ok(applied)
    }

    /// The revisions of a policy, newest first.
    ///
    /// # Errors
    /// What the store says.
    pub async fn revisions(
        &self,
        namespace: Namespace,
        name: PolicyName,
        before: Option<Revision>,
        limit: u32,
    ) -> Result<Vec<StoredRevision>, StoreError> {
        self.store.revisions(namespace, name, before, limit).await
    }

    /// The change that writes the content of an older revision as a new one; with `None`, of the one before the present.
    ///
    /// # Errors
    /// There is no such revision, or the store's word.
    pub async fn rollback(
        &self,
        namespace: Namespace,
        name: PolicyName,
        revision: Option<Revision>,
        etag: Option<String>,
    ) -> Result<Rollback, RollbackError> {
        let full_name = format!("namespaces/{namespace}/policies/{name}");
        let (older, reason, expect) = match revision {
            Some(Revision(number)) => {
                let before = Revision(number.saturating_add(1));
                let found = self.revisions(namespace, name, Some(before), 1).await?.pop();
                let older = found
                    .filter(|stored| stored.revision.0 == number)
                    .ok_or(RollbackError::NoSuchRevision { name: full_name.clone(), revision: number })?;
                if older.action == RevisionAction::Delete {
                    return Err(RollbackError::Deletion { name: full_name, revision: number });
                }
                (older, format!("roll back to revision {number}"), Expect::Any(etag))
            }
            None => {
                let newest = self.revisions(namespace, name, None, LOOKED_AT).await?;
                let mut newest = were_in_force(newest).into_iter();
                let last = newest.next();
                // What was in force all along through an aborted rollout is there once more.
                let content = last.as_ref().map_or(Revision(0), |last| last.policy.revision);
                let older = newest.find(|older| older.policy.revision < content);
                match (last, older) {
                    (None, _) => return Err(StoreError::NotFound(full_name).into()),
                    // The row of a deletion holds what was in force before it.
                    (Some(last), _) if last.action == RevisionAction::Delete => {
                        let reason = format!("revive after its deletion in revision {}", last.revision);
                        (last, reason, etag.map_or(Expect::Absent, |etag| Expect::Any(Some(etag))))
                    }
                    (Some(_), None) => return Err(RollbackError::NothingEarlier(full_name)),
                    (Some(_), Some(older)) if older.action == RevisionAction::Delete => {
                        return Err(RollbackError::Deletion { name: full_name, revision: older.revision.0 });
                    }
                    // "The one before the present" holds for the present that was just read.
                    (Some(last), Some(older)) => {
                        let reason = format!("roll back to revision {}", older.revision);
                        (older, reason, Expect::Present(Some(etag.unwrap_or_else(|| last.etag()))))
                    }
                }
            }
        };
        let change = Change::Put { policy: Box::new(older.policy), expect, rollback: true };
        Ok(Rollback { change, reason })
    }
}
