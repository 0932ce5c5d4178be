//! What happens after the database was restored from an older backup.
//!
//! The replicas tell: one of them runs a later revision of the same database than is stored. From then on the store is *regressed*. It
//! takes no change of policies, since revisions that replicas know would come twice with different content; it is never sent to a replica
//! that runs something later; and it says so, until an operator puts the restored copy in force as a revision above all that were seen.
//! That a store is regressed is durable: it outlives a restart, and holds for every server on it.

use fusebox_policy::Revision;

use crate::{
    hub::Snapshot,
    policies::Policies,
    store::{Adoption, Loaded, Note, Once, StoreError},
};

/// Revisions grow by one at a time: a replica that is so far ahead is not believed.
const FARTHEST: u64 = 1 << 20;

/// Why a restored copy is not put in force.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is nothing to decide.
    #[error("the store is not regressed: no replica runs a later revision than {0}")]
    NotRegressed(Revision),
    /// The store's word.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// What was put in force.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Adopted {
    /// The new revision.
    pub revision: Revision,
    /// The revision of the restored copy.
    pub restored: Revision,
    /// The highest one that a replica ran.
    pub seen: Revision,
    /// Policies in force.
    pub policies: usize,
}

impl Adopted {
    /// What an adoption has done; `None` if there was nothing to adopt.
    #[must_use]
    pub fn of((before, after): &Adoption) -> Option<Self> {
        let before = before.as_ref()?;
        let policies = after.policies.len();
        Some(Self { revision: after.revision, restored: before.revision, seen: before.seen, policies })
    }
}

/// Tells operators, in the log, that the store is regressed.
pub(crate) fn alarm(snapshot: &Snapshot) {
    if let Some(seen) = snapshot.regressed() {
        tracing::error!(
            event.name = "store.regressed",
            revision = snapshot.revision.0,
            seen_revision = seen.0,
            "REGRESSED: replicas run revision {seen}, the store is at {}: it was restored from an older backup. Changes of policies are \
             refused and replicas keep what they run, until `fusebox recover --adopt-present`",
            snapshot.revision
        );
    }
}

impl Policies {
    /// A replica runs a revision of this very store. Says whether it may be served: one that is implausibly far ahead may not.
    pub async fn replica_runs(&self, revision: Revision, replica: &str) -> bool {
        let present = self.hub.current();
        if revision <= present.revision || Some(revision) <= present.regressed() {
            return true;
        }
        // Another server may have written what is not yet shown here.
        let stored = match self.store.load().await {
            Ok(loaded) => {
                self.hub.replace(loaded.clone());
                loaded
            }
            Err(error) => {
                tracing::error!(%error, replica, "a replica runs a later revision than is shown, and the store can't be read");
                return true;
            }
        };
        if revision <= stored.revision {
            return true;
        }
        if revision.0 - stored.revision.0 > FARTHEST {
            tracing::error!(
                replica,
                revision = revision.0,
                stored = stored.revision.0,
                "an implausible revision is not believed"
            );
            return false;
        }
        tracing::error!(
            event.name = "store.regressed",
            replica,
            revision = revision.0,
            "a replica runs a later revision than is stored"
        );
        let loaded = self.store.saw_revision(revision).await.unwrap_or_else(|error| {
            // Not durable, and all the same true.
            tracing::error!(%error, "that the store is regressed could not be stored");
            Loaded { seen: stored.seen.max(revision), ..stored }
        });
        if self.hub.replace(loaded) {
            alarm(&self.hub.current());
        }
        true
    }

    /// Puts the restored copy in force, as a revision above every one that a replica was seen to run.
    ///
    /// With `validate_only` nothing is written, and the answer is what it would have been.
    ///
    /// # Errors
    /// The store is not regressed, or its word.
    pub async fn adopt_present(
        &self,
        note: Note,
        validate_only: bool,
        once: Option<Once<Adoption>>,
    ) -> Result<Adopted, AdoptError> {
        if validate_only {
            let Loaded { revision, seen, policies, .. } = self.store.load().await?;
            if seen <= revision {
                return Err(AdoptError::NotRegressed(revision));
            }
            let next = Revision(seen.0 + 1);
            return Ok(Adopted { revision: next, restored: revision, seen, policies: policies.len() });
        }
        let adoption = self.store.adopt_present_once(note.clone(), once).await?;
        let adopted = Adopted::of(&adoption).ok_or(AdoptError::NotRegressed(adoption.1.revision))?;
        self.hub.replace(adoption.1);
        tracing::warn!(
            event.name = "store.recovered",
            revision = adopted.revision.0,
            restored_revision = adopted.restored.0,
            seen_revision = adopted.seen.0,
            author = note.caller.name,
            why = note.message,
            "the restored policies are in force as a new revision"
        );
        Ok(adopted)
    }
}
