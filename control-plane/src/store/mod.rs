//! Durable policies and their history, overrides, transitions, and the server's term.
//!
//! [`Store`] is the contract; [`memory`] and [`sqlite`] keep it, and one suite holds both to it. One method is one transaction and
//! one use case. What may be written is decided in `plan`, once for all stores.

mod alarm;
pub mod audit;
mod decision;
mod error;
pub mod memory;
mod plan;
mod quota;
mod request;
mod rollout;
pub mod sqlite;
#[cfg(test)]
mod suite;
mod tokens;

use std::{collections::BTreeMap, sync::Arc, time::SystemTime};

pub use alarm::{Alarm, AlarmKind};
pub use decision::{DECISIONS_KEPT, DECISIONS_OF_BREAKER, DecisionId, Grounds, StoredDecision};
pub use error::StoreError;
use fusebox_policy::{
    InstanceId, Namespace, Policy, PolicyName, Revision,
    fleet::{BreakerKey, gate::Forced, key::KeyPattern},
};
use fusebox_proto::v1;
use futures_util::future::BoxFuture;
pub(crate) use plan::{etag, to_timestamp as timestamp};
pub use quota::{Measure, Quota};
pub use request::{Once, REQUESTS_KEPT, RequestKey};
pub use rollout::{NewRollout, RolloutFilter, Staged, Stepped, StoredRollout};
use tempfile::NamedTempFile;
pub use tokens::{NewToken, Revoked, StoredToken};

use self::audit::{AuditAction, AuditFilter, AuditPage, NewAudit};
use crate::{caller::Caller, rollouts::machine::Step};

/// The greatest term: far beyond what a step per start can reach, and well inside what every database counts to.
pub const MAX_TERM: u64 = 1 << 53;

/// A store that services share.
pub type StoreHandle = Arc<dyn Store>;

/// What every method answers with.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, StoreError>>;

/// Durable state of the control plane.
///
/// Guarantees: what a method has answered with success is committed and survives the end of the process; a method that fails has
/// changed nothing; revisions, terms and ids only grow, over the whole store. A write that was begun is brought to its end even
/// if nobody waits for it any more.
pub trait Store: Send + Sync + 'static {
    /// Random id of the data, made when it was created. A restored copy has the same.
    fn store_id(&self) -> &str;

    /// Everything in force, as of one revision. Read anew: what really is stored, whatever this process believes.
    fn load(&self) -> Answer<'_, Loaded>;

    /// Makes changes, all or none. Each policy that differs gets a revision of its own. With `validate_only` nothing is written, and
    /// the answer is what it would have been.
    fn apply(&self, changes: Vec<Change>, note: Note, validate_only: bool) -> Answer<'_, Applied> {
        self.apply_once(changes, note, validate_only, None)
    }

    /// The same for a request that may come again: the second time it is [`StoreError::Repeated`]. What is answered is kept in the
    /// transaction that makes the changes. With `validate_only`, a request is neither looked for nor kept.
    fn apply_once(
        &self,
        changes: Vec<Change>,
        note: Note,
        validate_only: bool,
        once: Option<Once<Applied>>,
    ) -> Answer<'_, Applied>;

    /// Begins a rollout of a policy that has none in progress. With `validate_only` nothing is written, and the answer is what it would
    /// have been. `once` is as for [`Store::apply_once`].
    fn start_rollout(
        &self,
        new: NewRollout,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped>;

    /// Makes a step of the rollout of a policy that has this candidate. `validate_only` and `once` are as for [`Store::start_rollout`].
    fn step_rollout(
        &self,
        rollout: (Namespace, PolicyName, Revision),
        step: Step,
        note: Note,
        validate_only: bool,
        once: Option<Once<Stepped>>,
    ) -> Answer<'_, Stepped>;

    /// Rollouts, those in progress and those that have ended, newest first.
    fn rollouts(&self, filter: RolloutFilter) -> Answer<'_, Vec<StoredRollout>>;

    /// What a request was answered, if it came within the last day.
    fn answered(&self, key: RequestKey) -> Answer<'_, Option<Vec<u8>>>;

    /// Remembers that a replica runs a revision. If that is above the newest one, the store is regressed from here on: see
    /// [`Loaded::seen`].
    fn saw_revision(&self, revision: Revision) -> Answer<'_, Loaded>;

    /// Ends a regression: what is in force becomes a revision above every one that was seen. Answers with what was before, `None` if the
    /// store was not regressed, and with what is afterwards.
    fn adopt_present(&self, note: Note) -> Answer<'_, Adoption> {
        self.adopt_present_once(note, None)
    }

    /// The same for a request that may come again: the second time it is [`StoreError::Repeated`].
    fn adopt_present_once(&self, note: Note, once: Option<Once<Adoption>>) -> Answer<'_, Adoption>;

    /// The revisions of one policy, newest first; of those before `before`, if given.
    fn revisions(
        &self,
        namespace: Namespace,
        name: PolicyName,
        before: Option<Revision>,
        limit: u32,
    ) -> Answer<'_, Vec<StoredRevision>>;

    /// A term that is greater than every earlier one and at least `at_least`. Committed before it is returned.
    /// Terms end at [`MAX_TERM`]: whoever passes one on from outside checks it first.
    fn next_term(&self, at_least: u64) -> Answer<'_, u64>;

    /// Adds an override.
    fn put_override(&self, new: NewOverride) -> Answer<'_, StoredOverride> {
        self.put_override_once(new, None)
    }

    /// The same for a request that may come again: the second time it is [`StoreError::Repeated`].
    fn put_override_once(&self, new: NewOverride, once: Option<Once<StoredOverride>>) -> Answer<'_, StoredOverride>;

    /// Ends overrides. Unknown and ended ones are left alone.
    fn end_overrides(&self, ids: Vec<u64>, ending: Ending, note: Note) -> Answer<'_, ()> {
        self.end_overrides_once(ids, ending, note, None)
    }

    /// The same for a request that may come again: the second time it is [`StoreError::Repeated`].
    fn end_overrides_once(&self, ids: Vec<u64>, ending: Ending, note: Note, once: Option<Once<()>>) -> Answer<'_, ()>;

    /// The overrides that have not been ended. Whether one has expired is for the reader to see.
    fn overrides(&self) -> Answer<'_, Vec<StoredOverride>>;

    /// Adds to the log of transitions; answers with the ids given, in the same order. Decisions of the fleet enter the audit log too.
    fn append_transitions(&self, transitions: Vec<StoredTransition>) -> Answer<'_, Vec<u64>>;

    /// Reads the log, newest first.
    fn transitions(&self, filter: TransitionFilter) -> Answer<'_, Vec<StoredTransition>>;

    /// The numbers of the oldest and the newest transition that are kept.
    fn transitions_kept(&self) -> Answer<'_, Option<(u64, u64)>>;

    /// Forgets transitions that are older than that, oldest first, at most so many. The newest always stays: numbers are not given twice.
    /// Answers how many were forgotten.
    fn forget_transitions(&self, before: SystemTime, most: u32) -> Answer<'_, u64>;

    /// Reads the audit log. Every method here that changes something writes there too, in the same transaction.
    fn audit(&self, filter: AuditFilter) -> Answer<'_, AuditPage>;

    /// Drops the oldest records of the audit log, at most `most` of them: those before the first that is not older than `before`. Answers
    /// with how many; if there are any, a new record says so.
    fn truncate_audit(&self, before: SystemTime, most: u32, note: Note) -> Answer<'_, u64>;

    /// Keeps decisions, each in place of what was kept under its id. Of each breaker the newest [`DECISIONS_OF_BREAKER`] stay, and of all
    /// the newest [`DECISIONS_KEPT`].
    fn put_decisions(&self, decisions: Vec<StoredDecision>) -> Answer<'_, ()>;

    /// The decisions that are kept of one breaker, oldest first.
    fn decisions(&self, key: BreakerKey) -> Answer<'_, Vec<StoredDecision>>;

    /// The breakers of which decisions are kept.
    fn decided_breakers(&self) -> Answer<'_, Vec<BreakerKey>>;

    /// Adds a token, whose name no other token in force at that time may have.
    fn put_token(&self, new: NewToken, note: Note) -> Answer<'_, StoredToken> {
        self.put_token_once(new, note, None)
    }

    /// The same for a request that may come again: the second time it is [`StoreError::Repeated`].
    fn put_token_once(&self, new: NewToken, note: Note, once: Option<Once<StoredToken>>) -> Answer<'_, StoredToken>;

    /// Ends a token; `None` if there is none of this id. One that has ended already stays as it is.
    fn revoke_token(&self, id: String, note: Note) -> Answer<'_, Option<StoredToken>> {
        self.revoke_token_once(id, note, None)
    }

    /// The same for a request that may come again: the second time it is [`StoreError::Repeated`].
    fn revoke_token_once(
        &self,
        id: String,
        note: Note,
        once: Option<Once<StoredToken>>,
    ) -> Answer<'_, Option<StoredToken>>;

    /// Every token that was ever made, the newest first.
    fn tokens(&self) -> Answer<'_, Vec<StoredToken>>;

    /// Writes to the audit log what changes nothing that is stored: that somebody took a copy of it.
    fn record(&self, new: NewAudit) -> Answer<'_, ()>;

    /// Writes a copy of everything, as of one moment, to a temporary file. Changes go on meanwhile.
    fn back_up(&self) -> Answer<'_, NamedTempFile> {
        Box::pin(async { Err(StoreError::NoBackup) })
    }

    /// Reads everything and tells what is not as it was written. What it finds is an alarm until a later look finds nothing.
    fn check(&self) -> Answer<'_, Vec<Finding>> {
        Box::pin(async { Ok(Vec::new()) })
    }

    /// Learns whether there is room for changes again. Asked while [`AlarmKind::StoreFull`] is on.
    fn try_write(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Room on the disk where everything is; `None` where it is not on one.
    fn room(&self) -> Answer<'_, Option<Room>> {
        Box::pin(async { Ok(None) })
    }

    /// What an operator must hear while the server goes on.
    fn alarms(&self) -> Vec<Alarm> {
        Vec::new()
    }
}

/// What was in force before a restored copy was adopted, `None` if there was nothing to adopt, and what is afterwards.
pub type Adoption = (Option<Loaded>, Loaded);

/// Room on a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Room {
    /// Bytes that may still be written.
    pub free: u64,
    /// Bytes of the whole disk.
    pub total: u64,
    /// Bytes that the data takes.
    pub used: u64,
}

/// Something stored that is not as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// Where.
    pub table: String,
    /// Which row; a dash for the file as a whole.
    pub key: String,
    /// What is wrong.
    pub reason: String,
}

impl std::fmt::Display for Finding {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { table, key, reason } = self;
        write!(f, "{table} {key}: {reason}")
    }
}

/// Everything in force.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The newest revision.
    pub revision: Revision,
    /// The highest revision that a replica was seen to run. Above the newest one, the store is *regressed*: it was restored from an older
    /// backup, and takes no changes.
    pub seen: Revision,
    /// Ordered by namespace and name.
    pub policies: Vec<Arc<StoredPolicy>>,
    /// Rollouts in progress, in the order of their policies.
    pub rollouts: Vec<Arc<Staged>>,
}

/// A policy in force.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredPolicy {
    /// The policy.
    pub policy: Policy,
    /// The same for the wire, complete with etag and times.
    pub wire: v1::Policy,
    /// Bytes of its definition, as they are kept.
    pub size: usize,
}

impl StoredPolicy {
    /// What a conditional change must name.
    #[must_use]
    pub fn etag(&self) -> &str {
        &self.wire.etag
    }
}

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
}

impl NewOverride {
    /// As it will be stored, and what the audit log says of it.
    fn numbered(self, id: u64) -> (StoredOverride, NewAudit) {
        let Self { pattern, state, reason, caller, created, expires } = self;
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
    const fn action(self) -> AuditAction {
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

/// A change of one breaker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredTransition {
    /// Its number; given by the store.
    pub id: u64,
    /// Which breaker.
    pub key: BreakerKey,
    /// The replica; `None` for a decision of the fleet.
    pub instance: Option<InstanceId>,
    /// State before.
    pub from: String,
    /// State after.
    pub to: String,
    /// Why, in one word.
    pub cause: String,
    /// Numbers in words.
    pub detail: String,
    /// When the server learned of it.
    pub at: SystemTime,
    /// Calls in the window.
    pub window_calls: u64,
    /// Failures in the window.
    pub window_failures: u64,
    /// Of a verdict: what it rests on. The audit log has it; in this log it is not kept, so that it is absent in what is read.
    pub grounds: Option<Grounds>,
}

/// Which transitions to read.
#[derive(Clone, Debug, Default)]
pub struct TransitionFilter {
    /// Only of this target.
    pub target: Option<String>,
    /// Only of this caller.
    pub caller: Option<String>,
    /// Only of breakers of this namespace.
    pub namespace: Option<Namespace>,
    /// Only with a smaller number.
    pub before: Option<u64>,
    /// Only with a greater number.
    pub after: Option<u64>,
    /// At most this many.
    pub limit: u32,
}
