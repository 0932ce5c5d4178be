//! The audit log: who changed what, when, from where and why.
//!
//! A record is written in the transaction of the change that it tells of: there is no change without its record, and no record of what did
//! not happen. Records are linked by their hashes, see [`chain`]. What a record says of before and after never holds a secret: whoever
//! writes one about something secret leaves that out.

pub mod chain;
mod wire;

use std::time::SystemTime;

use fusebox_policy::{Namespace, Policy, Revision};
use fusebox_proto::{manifest, v1};
use serde_json::{Value, json};

pub use self::chain::{AuditChain, Broken, Hash, Link, Walk};
use super::{Grounds, Note, RevisionAction, StoredOverride, StoredToken, StoredTransition, plan};
use crate::caller::Caller;

/// Bytes of before and after in one page: below the 4 MiB that gRPC clients read by default.
pub const PAGE_BYTES: usize = 2 << 20;

/// One list, from which the type and its names come.
macro_rules! actions {
    ($($(#[$doc:meta])* $variant:ident = $name:literal,)+) => {
        /// What was done. Names are `noun.verb`; a reader takes those that it does not know for what they say.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum AuditAction {
            $($(#[$doc])* $variant,)+
        }

        impl AuditAction {
            /// Every action.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Its name.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

actions! {
    /// A policy is defined where there was none.
    PolicyCreate = "policy.create",
    /// A policy is defined otherwise.
    PolicyUpdate = "policy.update",
    /// A policy is taken out of force.
    PolicyDelete = "policy.delete",
    /// An older definition of a policy is in force again.
    PolicyRollback = "policy.rollback",
    /// A candidate is stored, and sent to some replicas.
    RolloutStart = "rollout.start",
    /// A rollout goes on to its next stage, or to everybody.
    RolloutPromote = "rollout.promote",
    /// A rollout is stopped, by an operator or a gate.
    RolloutPause = "rollout.pause",
    /// A rollout goes on.
    RolloutResume = "rollout.resume",
    /// A rollout is given up.
    RolloutAbort = "rollout.abort",
    /// Breakers are forced.
    OverrideSet = "override.set",
    /// An operator ends an override.
    OverrideRelease = "override.release",
    /// Another override on the same breakers takes its place.
    OverrideReplace = "override.replace",
    /// The time of an override is over.
    OverrideExpire = "override.expire",
    /// The fleet's state of a breaker changes.
    FleetVerdict = "fleet.verdict",
    /// A run of the server begins, or rises above what a replica has seen.
    TermRaise = "term.raise",
    /// A replica runs a later revision than is stored.
    StoreRegress = "store.regress",
    /// A restored copy is put in force.
    StoreAdopt = "store.adopt",
    /// A token is made.
    TokenCreate = "token.create",
    /// A token is ended.
    TokenRevoke = "token.revoke",
    /// The oldest records are dropped.
    AuditTruncate = "audit.truncate",
    /// Somebody takes a copy of everything.
    BackupCreate = "backup.create",
}

/// A record that is to be written.
#[derive(Clone, Debug)]
pub struct NewAudit {
    /// What was done.
    pub action: AuditAction,
    /// With what: a resource name.
    pub object: String,
    /// Who, why and when.
    pub note: Note,
    /// The revision that it made; zero if it made none.
    pub revision: Revision,
    /// What was so before, as canonical JSON.
    pub before: Option<String>,
    /// What is so afterwards, as canonical JSON.
    pub after: Option<String>,
}

/// A record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Its number: one more than the one before.
    pub id: u64,
    /// When, in whole microseconds.
    pub at: SystemTime,
    /// Who.
    pub actor: String,
    /// How the actor was known: the name of an [`crate::caller::Authentication`].
    pub authentication: String,
    /// From where.
    pub address: String,
    /// Id of the request.
    pub request_id: String,
    /// What was done: the name of an [`AuditAction`].
    pub action: String,
    /// With what.
    pub object: String,
    /// Why.
    pub reason: String,
    /// The revision that it made, or zero.
    pub revision: Revision,
    /// What was so before.
    pub before: Option<String>,
    /// What is so afterwards.
    pub after: Option<String>,
    /// Over the record before and everything in this one.
    pub hash: Hash,
}

/// Which records to read.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    /// Only of this actor.
    pub actor: Option<String>,
    /// Only of this action, or of all of a noun: `policy.update`, `policy`.
    pub action: Option<String>,
    /// Only about this object, or those below it: `namespaces/default/policies/b`, `namespaces/default`.
    pub object: Option<String>,
    /// Only at this time or later.
    pub from: Option<SystemTime>,
    /// Only before this time.
    pub until: Option<SystemTime>,
    /// Where to begin, and which way to go.
    pub order: AuditOrder,
    /// Only what is about things of this namespace: see [`AuditRecord::is_of`].
    pub namespace: Option<Namespace>,
    /// At most this many.
    pub limit: u32,
}

/// Where to begin to read, and which way to go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuditOrder {
    /// Newest first; of those with a smaller number, if given.
    NewestFirst(Option<u64>),
    /// Oldest first; those with a greater number.
    OldestFirst(u64),
}

impl Default for AuditOrder {
    fn default() -> Self {
        Self::NewestFirst(None)
    }
}

/// Some records.
#[derive(Clone, Debug)]
pub struct AuditPage {
    /// In the order asked for; at most [`PAGE_BYTES`] of content, but at least one.
    pub records: Vec<AuditRecord>,
    /// Whether there are more.
    pub more: bool,
    /// Both ends of the whole log, as of the same moment.
    pub chain: AuditChain,
}

/// Collects a page until it is full. Stores push what they find, in order.
#[derive(Debug)]
pub(super) struct Page {
    records: Vec<AuditRecord>,
    bytes: usize,
    limit: usize,
    more: bool,
}

impl Page {
    pub(super) const fn new(limit: u32) -> Self {
        Self { records: Vec::new(), bytes: 0, limit: limit as usize, more: false }
    }

    /// Takes a record; says whether another one may fit.
    pub(super) fn push(&mut self, record: AuditRecord) -> bool {
        self.bytes += [&record.before, &record.after].into_iter().flatten().map(String::len).sum::<usize>();
        if self.records.len() >= self.limit || (self.bytes > PAGE_BYTES && !self.records.is_empty()) {
            self.more = true;
            return false;
        }
        self.records.push(record);
        true
    }

    pub(super) fn done(self, chain: AuditChain) -> AuditPage {
        AuditPage { records: self.records, more: self.more, chain }
    }
}

// === impl AuditFilter ===

impl AuditFilter {
    /// Whether a record is asked for.
    pub(super) fn admits(&self, record: &AuditRecord) -> bool {
        let below = |wanted: Option<&String>, found: &str, separator: char| {
            wanted.is_none_or(|wanted| {
                found.strip_prefix(wanted.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with(separator))
            })
        };
        self.actor.as_ref().is_none_or(|actor| *actor == record.actor)
            && below(self.action.as_ref(), &record.action, '.')
            && below(self.object.as_ref(), &record.object, '/')
            && self.from.is_none_or(|from| record.at >= from)
            && self.until.is_none_or(|until| record.at < until)
            && self.namespace.as_ref().is_none_or(|namespace| record.is_of(namespace))
            && match self.order {
                AuditOrder::NewestFirst(before) => before.is_none_or(|before| record.id < before),
                AuditOrder::OldestFirst(after) => record.id > after,
            }
    }
}

// === impl AuditRecord ===

impl AuditRecord {
    /// Whether it is about a thing of a namespace: its policies and rollouts, breakers, and the overrides and tokens that are for this
    /// namespace alone. What is about the server, or about several namespaces, is of none.
    #[must_use]
    pub fn is_of(&self, namespace: &Namespace) -> bool {
        let (kind, rest) = self.object.split_once('/').unwrap_or((&self.object, ""));
        let said = |path: &str| {
            let content = self.after.as_ref().or(self.before.as_ref());
            let content = content.and_then(|text| serde_json::from_str::<Value>(text).ok());
            content.is_some_and(|content| content.pointer(path).and_then(Value::as_str) == Some(namespace.as_str()))
        };
        match kind {
            "namespaces" | "breakers" => rest.split('/').next() == Some(namespace.as_str()),
            "overrides" => said("/selector/namespace"),
            "tokens" => said("/namespace"),
            _ => false,
        }
    }
}

// === impl NewAudit ===

impl NewAudit {
    /// Of a policy.
    pub(super) fn policy(
        kind: RevisionAction,
        revision: Revision,
        before: Option<&Policy>,
        after: Option<&Policy>,
        note: &Note,
    ) -> Self {
        let action = match kind {
            RevisionAction::Create => AuditAction::PolicyCreate,
            RevisionAction::Update => AuditAction::PolicyUpdate,
            RevisionAction::Delete => AuditAction::PolicyDelete,
            RevisionAction::Rollback => AuditAction::PolicyRollback,
            RevisionAction::Candidate => AuditAction::RolloutStart,
            RevisionAction::Promote => AuditAction::RolloutPromote,
        };
        let text = |policy: &Policy| manifest::to_json(policy).to_string();
        Self {
            action,
            object: after.or(before).map(Policy::resource_name).unwrap_or_default(),
            note: note.clone(),
            revision,
            before: before.map(text),
            after: after.map(text),
        }
    }

    /// Of an override: that it is set, or with what it ends.
    pub(super) fn of_override(action: AuditAction, stored: &StoredOverride, note: Note) -> Self {
        let text = Some(override_json(stored).to_string());
        let (before, after) = if action == AuditAction::OverrideSet { (None, text) } else { (text, None) };
        Self { action, object: format!("overrides/{}", stored.id), note, revision: Revision(0), before, after }
    }

    /// Of a decision of the fleet; `None` for what a replica's own breaker did.
    pub(super) fn verdict(transition: &StoredTransition) -> Option<Self> {
        let StoredTransition {
            id: _,
            key,
            instance,
            from,
            to,
            cause,
            detail,
            at,
            window_calls,
            window_failures,
            grounds,
        } = transition;
        if instance.is_some() {
            return None;
        }
        let mut after = json!({ "state": to, "windowCalls": window_calls, "windowFailures": window_failures });
        if let Some(Grounds { term, rev, policy_revision, witnesses }) = grounds {
            let witnesses: Vec<_> = witnesses.iter().map(ToString::to_string).collect();
            after["verdict"] =
                json!({ "term": term, "rev": rev, "policyRevision": policy_revision.0, "witnesses": witnesses });
        }
        let message = if detail.is_empty() { cause.clone() } else { format!("{cause}: {detail}") };
        Some(Self {
            action: AuditAction::FleetVerdict,
            object: format!("breakers/{key}"),
            note: Note { caller: Caller::server("fleet"), message, at: *at },
            revision: Revision(0),
            before: Some(json!({ "state": from }).to_string()),
            after: Some(after.to_string()),
        })
    }

    /// Of a token, without what it is recognised by.
    pub(super) fn of_token(action: AuditAction, stored: &StoredToken, note: Note) -> Self {
        let StoredToken { id, name, digest: _, role, creator: _, created: _, expires, revoked: _ } = stored;
        let expires = humantime::format_rfc3339_seconds(*expires).to_string();
        let mut json = json!({ "name": name, "role": role.to_string(), "expires": expires });
        if let Some(namespace) = role.namespace() {
            json["namespace"] = namespace.as_str().into();
        }
        let text = Some(json.to_string());
        let (before, after) = if action == AuditAction::TokenCreate { (None, text) } else { (text, None) };
        Self { action, object: format!("tokens/{id}"), note, revision: Revision(0), before, after }
    }

    /// Of the store as a whole.
    pub(super) fn store(action: AuditAction, note: Note, before: &Value, after: &Value) -> Self {
        let (before, after) = (Some(before.to_string()), Some(after.to_string()));
        Self { action, object: "store".to_owned(), note, revision: Revision(0), before, after }
    }

    /// That a term begins.
    pub(super) fn term(before: u64, after: u64) -> Self {
        let note = Note { caller: Caller::server("server"), message: String::new(), at: SystemTime::now() };
        Self::store(AuditAction::TermRaise, note, &json!({ "term": before }), &json!({ "term": after }))
    }

    /// That a replica runs what is not stored.
    pub(super) fn regress(revision: Revision, seen: (Revision, Revision)) -> Self {
        let note = Note {
            caller: Caller::server("server"),
            message: "a replica runs a later revision than is stored".to_owned(),
            at: SystemTime::now(),
        };
        let json = |seen: Revision| json!({ "revision": revision.0, "seenRevision": seen.0 });
        Self::store(AuditAction::StoreRegress, note, &json(seen.0), &json(seen.1))
    }

    /// That a restored copy is in force.
    pub(super) fn adopt(before: &plan::State, after: &plan::State, note: Note) -> Self {
        let json = |state: &plan::State| json!({ "revision": state.revision.0, "seenRevision": state.seen.0 });
        let new = Self::store(AuditAction::StoreAdopt, note, &json(before), &json(after));
        Self { revision: after.revision, ..new }
    }

    /// That somebody takes a copy of everything.
    #[must_use]
    pub fn backup(note: Note) -> Self {
        let object = "store".to_owned();
        Self { action: AuditAction::BackupCreate, object, note, revision: Revision(0), before: None, after: None }
    }

    /// That the oldest records are gone, up to this one.
    pub(super) fn truncate(dropped: &Link, note: Note) -> Self {
        let after = json!({ "droppedId": dropped.id, "droppedHash": dropped.hash.to_string() });
        Self {
            action: AuditAction::AuditTruncate,
            object: "audit".to_owned(),
            note,
            revision: Revision(0),
            before: None,
            after: Some(after.to_string()),
        }
    }
}

fn override_json(stored: &StoredOverride) -> Value {
    let StoredOverride { id: _, pattern, state, reason, author, created, expires } = stored;
    let v1::BreakerKey { namespace, caller, policy, strategy, target, zone } = pattern.into();
    let parts = [
        ("target", target),
        ("namespace", namespace),
        ("caller", caller),
        ("policy", policy),
        ("strategy", strategy),
        ("zone", zone),
    ];
    let selector: serde_json::Map<_, _> = parts
        .into_iter()
        .filter(|(_, part)| !part.is_empty())
        .map(|(name, part)| (name.to_owned(), part.into()))
        .collect();
    let time = |time: &SystemTime| humantime::format_rfc3339_micros(*time).to_string();
    json!({
        "selector": selector,
        "state": state_name(*state),
        "reason": reason,
        "author": author,
        "createTime": time(created),
        "expireTime": time(expires),
    })
}

const fn state_name(state: fusebox_policy::fleet::gate::Forced) -> &'static str {
    match state {
        fusebox_policy::fleet::gate::Forced::Open => "forced_open",
        fusebox_policy::fleet::gate::Forced::Closed => "forced_closed",
        fusebox_policy::fleet::gate::Forced::Disabled => "disabled",
    }
}
