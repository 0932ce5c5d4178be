//! Tokens, as they are kept: without their secret.

use std::time::SystemTime;

use super::{
    Note,
    audit::{AuditAction, NewAudit},
};
use crate::access::{Role, Scope, secret::Digest};

/// A token that is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewToken {
    /// The part of it that is no secret.
    pub id: String,
    /// What people call it. No other token in force of the same namespace, or of none, may have it.
    pub name: String,
    /// By what it is recognised.
    pub digest: Digest,
    /// What it allows.
    pub role: Role,
    /// From when on it counts no more.
    pub expires: SystemTime,
}

/// A token, in force or not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredToken {
    /// The part of it that is no secret.
    pub id: String,
    /// What people call it.
    pub name: String,
    /// By what it is recognised.
    pub digest: Digest,
    /// What it allows.
    pub role: Role,
    /// Who made it.
    pub creator: String,
    /// When it was made.
    pub created: SystemTime,
    /// From when on it counts no more.
    pub expires: SystemTime,
    /// Its end before that time.
    pub revoked: Option<Revoked>,
}

/// The end of a token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Revoked {
    /// When.
    pub at: SystemTime,
    /// By whom.
    pub by: String,
    /// Why.
    pub reason: String,
}

impl NewToken {
    /// As it will be stored, and what the audit log says of it.
    pub(super) fn stored(self, note: Note) -> (StoredToken, NewAudit) {
        let Self { id, name, digest, role, expires } = self;
        let (creator, created) = (note.caller.name.clone(), note.at);
        let stored = StoredToken { id, name, digest, role, creator, created, expires, revoked: None };
        let audit = NewAudit::of_token(AuditAction::TokenCreate, &stored, note);
        (stored, audit)
    }
}

impl Revoked {
    pub(super) fn by(note: &Note) -> Self {
        Self { at: note.at, by: note.caller.name.clone(), reason: note.message.clone() }
    }
}

impl StoredToken {
    /// What records call whoever uses it: its name, behind its namespace if it has one. Names are given once in a namespace only.
    #[must_use]
    pub fn identity(&self) -> String {
        match self.role.namespace() {
            Some(namespace) => format!("{namespace}/{}", self.name),
            None => self.name.clone(),
        }
    }

    /// Whether somebody with this scope may know of it. One that goes over everything is of no namespace.
    #[must_use]
    pub fn is_within(&self, scope: &Scope) -> bool {
        scope.namespace().is_none_or(|own| self.role.namespace() == Some(own))
    }

    /// Whether it counts.
    #[must_use]
    pub fn in_force(&self, now: SystemTime) -> bool {
        self.revoked.is_none() && self.expires > now
    }
}
