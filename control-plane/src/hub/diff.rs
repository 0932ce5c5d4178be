//! What makes two sets of policies different. Both are ordered by [`key`].

use std::sync::Arc;

use fusebox_policy::Revision;

use super::Change;
use crate::store::{Staged, StoredPolicy};

/// What policies are ordered by.
pub(super) fn key(stored: &StoredPolicy) -> (&str, &str) {
    (stored.policy.namespace.as_str(), stored.policy.name.as_str())
}

/// Deletions first, then the rest in the order of revisions: a policy may have taken over the calls of a deleted one.
pub(super) fn diff(old: &[Arc<StoredPolicy>], new: &[Arc<StoredPolicy>]) -> Vec<Change> {
    let mut changes = Vec::new();
    let mut old = old.iter().peekable();
    for present in new {
        while let Some(gone) = old.next_if(|own| key(own) < key(present)) {
            changes.push(Change::Deleted(Arc::clone(gone)));
        }
        match old.next_if(|own| key(own) == key(present)) {
            Some(before) if before.policy.revision == present.policy.revision => {}
            Some(_) | None => changes.push(Change::Upserted(Arc::clone(present))),
        }
    }
    changes.extend(old.map(|gone| Change::Deleted(Arc::clone(gone))));
    changes.sort_by_key(|change| match change {
        Change::Deleted(_) => Revision(0),
        Change::Upserted(stored) => stored.policy.revision,
    });
    changes
}

/// The rollouts that select other replicas than before, or none any more.
pub(super) fn moved<'a>(old: &'a [Arc<Staged>], new: &'a [Arc<Staged>]) -> impl Iterator<Item = &'a Arc<Staged>> {
    fn number(staged: &Staged) -> (Revision, Revision) {
        (staged.rollout.candidate, staged.rollout.stage_revision)
    }
    let ended = move |own: &&Arc<Staged>| !new.iter().any(|other| other.rollout.candidate == own.rollout.candidate);
    let changed = move |own: &&Arc<Staged>| !old.iter().any(|other| number(other) == number(own));
    old.iter().filter(ended).chain(new.iter().filter(changed))
}
