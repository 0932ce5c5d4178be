//! The history of a policy.

use std::time::SystemTime;

use fusebox_policy::{Policy, Revision};

use super::plan;

/// What kind of change a revision is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RevisionAction {
    /// A definition where there was none.
    Create,
    /// Another definition.
    Update,
    /// The end.
    Delete,
    /// An older definition, written anew; or what was in force all along, at the end of a rollout that was aborted.
    Rollback,
    /// A definition for some replicas only.
    Candidate,
    /// A candidate, now for everybody.
    Promote,
}

impl RevisionAction {
    /// Its name, as stores keep it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Create => "create",
            Self::Update => "update",
            Self::Delete => "delete",
            Self::Rollback => "rollback",
            Self::Candidate => "candidate",
            Self::Promote => "promote",
        }
    }
}

/// One change in the history of a policy.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredRevision {
    /// Its number.
    pub revision: Revision,
    /// What was done.
    pub action: RevisionAction,
    /// The policy as of it; for a deletion, as it was before.
    pub policy: Policy,
    /// Who.
    pub author: String,
    /// Why.
    pub message: String,
    /// When.
    pub at: SystemTime,
}

impl StoredRevision {
    /// The etag that the policy had as of this revision.
    #[must_use]
    pub fn etag(&self) -> String {
        plan::etag(&plan::encode(&self.policy))
    }
}
