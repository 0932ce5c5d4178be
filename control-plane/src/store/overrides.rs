//! Operators' overrides, as they are stored.

use std::time::SystemTime;

use fusebox_policy::fleet::{gate::Forced, key::KeyPattern};

use super::{
    Note,
    audit::{AuditAction, NewAudit},
};
use crate::caller::Caller;

/// An override that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewOverride {
    /// Which breakers.
    pub pattern: KeyPattern,
    /// What it does.
    pub state: Forced,
    /// Why.
    pub reason: String,
    /// Who.
    pub caller: Caller,
    /// When it was set.
    pub created: SystemTime,
    /// When it ends by itself.
    pub expires: SystemTime,
    /// Those in whose place it comes, by number: they end in the same step. Unknown and ended ones are left alone.
    pub replaces: Vec<u64>,
}

impl NewOverride {
    /// What is said of those in whose place it comes.
    pub(super) fn replacement(&self, id: u64) -> Note {
        Note { caller: self.caller.clone(), message: format!("replaced by {id}"), at: self.created }
    }

    /// As it will be stored, and what the audit log says of it.
    pub(super) fn numbered(self, id: u64) -> (StoredOverride, NewAudit) {
        let Self { pattern, state, reason, caller, created, expires, replaces: _ } = self;
        let note = Note { caller: caller.clone(), message: reason.clone(), at: created };
        let stored = StoredOverride { id, pattern, state, reason, author: caller.name, created, expires };
        let audit = NewAudit::of_override(AuditAction::OverrideSet, &stored, note);
        (stored, audit)
    }
}

/// How an override ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// An operator ends it.
    Released,
    /// Another one takes its place.
    Replaced,
    /// Its time is over.
    Expired,
}

impl Ending {
    pub(super) const fn action(self) -> AuditAction {
        match self {
            Self::Released => AuditAction::OverrideRelease,
            Self::Replaced => AuditAction::OverrideReplace,
            Self::Expired => AuditAction::OverrideExpire,
        }
    }
}

/// An override.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredOverride {
    /// Its number.
    pub id: u64,
    /// Which breakers.
    pub pattern: KeyPattern,
    /// What it does.
    pub state: Forced,
    /// Why.
    pub reason: String,
    /// Who.
    pub author: String,
    /// When it was set.
    pub created: SystemTime,
    /// When it ends by itself.
    pub expires: SystemTime,
}
