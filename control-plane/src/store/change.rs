//! Changes of policies: what is asked for, and what came of it.

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

use fusebox_policy::{Namespace, Policy, PolicyName, Revision};

use super::{Loaded, StoredPolicy};
use crate::caller::Caller;

/// A change of one policy.
#[derive(Clone, Debug)]
pub enum Change {
    /// Define it so.
    Put {
        /// The definition; its revision is ignored.
        policy: Box<Policy>,
        /// What must be so before.
        expect: Expect,
        /// Whether the definition was taken from an older revision.
        rollback: bool,
    },
    /// Take out of force every policy of a namespace that the other changes do not define. Must come last.
    Prune {
        /// The namespace.
        namespace: Namespace,
        /// Only those with all of these labels.
        labels: BTreeMap<String, String>,
    },
    /// Take it out of force. Its revisions stay.
    Delete {
        /// Its namespace.
        namespace: Namespace,
        /// Its name.
        name: PolicyName,
        /// Only if it has this etag.
        etag: Option<String>,
        /// It is well if there is none.
        allow_missing: bool,
    },
}

/// What must be so before a policy is defined.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expect {
    /// There is none.
    Absent,
    /// There is one; with this etag, if given.
    Present(Option<String>),
    /// Either; if an etag is given, there is one and it has it.
    Any(Option<String>),
}

/// Who changes something, why, and when.
#[derive(Clone, Debug)]
pub struct Note {
    /// Who, and from where.
    pub caller: Caller,
    /// Why, as given.
    pub message: String,
    /// When.
    pub at: SystemTime,
}

/// What came of changes. With `validate_only`, what would have.
#[derive(Clone, Debug)]
pub struct Applied {
    /// One per change, in the same order; of a prune one per policy that it took out of force.
    pub results: Vec<ChangeResult>,
    /// The newest revision afterwards.
    pub revision: Revision,
    /// Everything in force afterwards.
    pub state: Loaded,
}

/// What came of one change.
#[derive(Clone, Debug)]
pub struct ChangeResult {
    /// What was done.
    pub action: Action,
    /// The policy before.
    pub before: Option<Arc<StoredPolicy>>,
    /// The policy afterwards.
    pub after: Option<Arc<StoredPolicy>>,
}

/// What was done with a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// There was none.
    Created,
    /// It was changed.
    Configured,
    /// It was so already; no revision was written.
    Unchanged,
    /// It is no longer in force.
    Deleted,
}
