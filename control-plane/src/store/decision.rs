//! Why things were decided: records that outlive the breaker's place in memory, and the run.

use std::time::SystemTime;

use fusebox_policy::{
    InstanceId, Revision,
    fleet::{BreakerKey, term::RunId},
};
use fusebox_proto::v1;

/// Decisions that are kept of one breaker, the newest: as many as a run remembers itself.
pub const DECISIONS_OF_BREAKER: usize = 32;
/// Decisions that are kept in all, the newest: of six hundred breakers all that is kept of each, at about a kilobyte each.
pub const DECISIONS_KEPT: usize = 20_000;

/// Which decision it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DecisionId {
    /// The run of the server.
    pub run: RunId,
    /// Number within the run.
    pub number: u64,
}

/// An automatic decision about a breaker, or one that a guard has held back.
#[derive(Clone, Debug, PartialEq)]
pub struct StoredDecision {
    /// Which decision.
    pub id: DecisionId,
    /// About which breaker.
    pub key: BreakerKey,
    /// When it was first so.
    pub since: SystemTime,
    /// When it was last so.
    pub until: SystemTime,
    /// Everything else. It has no ages.
    pub decision: v1::BreakerDecision,
}

/// What a verdict rests on, and what sets it apart from all others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Grounds {
    /// Its fence: the server's term.
    pub term: u64,
    /// Its fence: number within the term.
    pub rev: u64,
    /// The revision of the policy that it was decided by.
    pub policy_revision: Revision,
    /// The replicas whose word counted, at most 20.
    pub witnesses: Vec<InstanceId>,
}
