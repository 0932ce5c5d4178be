//! What comes into the coordinator, and what it wants done.

use std::time::Duration;

use super::{Guard, Holding, Mode};
use crate::{
    Revision, Timestamp,
    fleet::{
        BreakerKey,
        evidence::{Evidence, MemberId, Report},
        held::Fence,
        shared::FleetState,
    },
};

/// What a replica says about one breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sighting {
    /// Number of the replica's newest heartbeat when it said so: within one session it never falls. What is older than another
    /// report of the same breaker is late, and ignored.
    pub seq: u64,
    /// What it has seen. `current` is for the coordinator to find out, and overwritten.
    pub report: Report,
    /// Revision of the policy that it runs.
    pub policy_revision: Revision,
    /// What it holds of the fleet's word.
    pub held: Holding,
}

/// The newest verdict about a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Decision {
    /// Its place in the order.
    pub fence: Fence,
    /// Released, open, half-open or ramp.
    pub state: FleetState,
    /// How many of a thousand calls pass: 0 unless released or ramping.
    pub admit_permille: u32,
    /// While open: when probes begin, on the coordinator's clock.
    pub half_open_at: Option<Timestamp>,
    /// Revision of the policy that it is about.
    pub policy_revision: Revision,
    /// Why, in words.
    pub reason: String,
}

/// Whom something goes to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Recipients {
    /// Every replica that holds the breaker: [`Coordinator::holders`](super::Coordinator::holders).
    Holders,
    /// One replica.
    One(MemberId),
}

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Tell a verdict.
    Verdict {
        /// About which breaker.
        key: BreakerKey,
        /// Whom.
        to: Recipients,
        /// The verdict.
        decision: Decision,
    },
    /// Give one replica leave for one probe.
    Permit {
        /// Of which breaker.
        key: BreakerKey,
        /// Whom.
        member: MemberId,
        /// Number, unique in the term.
        id: u64,
        /// The half-open verdict that it belongs to.
        fence: Fence,
        /// How long it may be used.
        ttl: Duration,
    },
    /// Ask replicas for their windows now.
    Canvass {
        /// Of which breaker.
        key: BreakerKey,
        /// Whom. At least one.
        to: Vec<MemberId>,
    },
    /// Log a change.
    Transition {
        /// Of which breaker.
        key: BreakerKey,
        /// Before.
        from: FleetState,
        /// After.
        to: FleetState,
        /// One word: `quorum`, `pooled`, `any`, `zones`, `delay_elapsed`, `probe_ok`, `probe_failed`, `probes_timed_out`, `ramp_up`,
        /// `ramp_down`, `ramp_failed`, `ramp_done`, `adopted`, `leases_lapsed`, `policy_change`.
        cause: &'static str,
        /// Numbers in words.
        detail: String,
        /// The numbers.
        evidence: Evidence,
    },
    /// Say that an opening is held back. It is said once, not with each report that asks for it again.
    Held {
        /// Of which breaker.
        key: BreakerKey,
        /// By what.
        guard: Guard,
        /// Numbers in words.
        detail: String,
    },
    /// Say that the mode has changed.
    Mode {
        /// Before.
        from: Mode,
        /// After.
        to: Mode,
    },
}
