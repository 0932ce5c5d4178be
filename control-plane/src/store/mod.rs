//! Durable policies and their history, overrides, transitions, and the server's term.
//!
//! [`Store`] is the contract; [`memory`] and [`sqlite`] keep it, and one suite holds both to it. One method is one transaction and
//! one use case. What may be written is decided in `plan`, once for all stores.

mod alarm;
pub mod audit;
mod change;
mod decision;
mod error;
mod health;
pub mod memory;
mod overrides;
mod plan;
mod quota;
mod request;
mod revision;
mod rollout;
pub mod sqlite;
#[cfg(test)]
mod suite;
mod tokens;
mod transition;

use std::{sync::Arc, time::SystemTime};

pub use alarm::{Alarm, AlarmKind};
pub use change::{Action, Applied, Change, ChangeResult, Expect, Note};
pub use decision::{DECISIONS_KEPT, DECISIONS_OF_BREAKER, DecisionId, Grounds, StoredDecision};
pub use error::StoreError;
use fusebox_policy::{Namespace, Policy, PolicyName, Revision, fleet::BreakerKey};
use fusebox_proto::v1;
use futures_util::future::BoxFuture;
pub use health::{Finding, Room};
pub use overrides::{Ending, NewOverride, StoredOverride};
pub(crate) use plan::{etag, to_timestamp as timestamp};
pub use quota::{Measure, Quota};
pub use request::{Once, REQUESTS_KEPT, RequestKey};
pub use revision::{RevisionAction, StoredRevision};
pub use rollout::{NewRollout, RolloutFilter, Staged, Stepped, StoredRollout};
use tempfile::NamedTempFile;
pub use tokens::{NewToken, Revoked, StoredToken};
pub use transition::{StoredTransition, TransitionFilter};

use self::audit::{AuditFilter, AuditPage, NewAudit};
use crate::rollouts::machine::Step;

/// The greatest term.
pub const MAX_TERM: u64 = fusebox_policy::fleet::term::GREATEST;

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

    /// Adds an override, and ends those in whose place it comes.
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
