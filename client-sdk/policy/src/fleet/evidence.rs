//! What replicas report.

use std::{collections::BTreeMap, fmt};

use crate::{
    InstanceId, Timestamp, Zone,
    breaker::{Causes, Counts, LocalState},
};

/// One run of one replica.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberId {
    /// The replica.
    pub instance: InstanceId,
    /// Random number of its start.
    pub incarnation: u64,
}

/// What one replica's own breaker has seen lately. A full state: a lost or repeated one does no harm.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// Its state.
    pub local: LocalState,
    /// Whether it tripped on what the replica saw itself.
    pub own_trip: bool,
    /// Whether the replica holds the newest verdict of this breaker, so that its state is an answer to it and not to an older
    /// one. True where there has been no verdict.
    pub current: bool,
    /// Calls in the window.
    pub calls: u64,
    /// Failures in the window.
    pub failures: u64,
    /// Slow calls in the window.
    pub slow: u64,
    /// Calls refused since the report before: demand.
    pub rejected: u64,
    /// Whether the replica does not obey the fleet's verdict, since its own calls go well.
    pub vetoed: bool,
    /// The failures by cause.
    pub causes: Causes,
    /// Whether the breaker lets every call pass and counts none: see [`Report::disabled`].
    pub disabled: bool,
}

impl Report {
    /// From a breaker's window.
    #[must_use]
    pub const fn new(local: LocalState, own_trip: bool, counts: Counts, rejected: u64) -> Self {
        let Counts { calls, failures, slow, causes } = counts;
        Self { local, own_trip, current: true, calls, failures, slow, rejected, vetoed: false, causes, disabled: false }
    }

    /// Of a breaker that is disabled: its state, for people, and no evidence. It has no vote, brings no calls and no demand.
    #[must_use]
    pub const fn disabled(local: LocalState) -> Self {
        let causes = Causes { connect_error: 0, timeout: 0, target_error: 0, target_overload: 0, local_error: 0 };
        let counts = Counts { calls: 0, failures: 0, slow: 0, causes };
        Self { disabled: true, ..Self::new(local, false, counts, 0) }
    }

    /// Calls that say something about the target: a replica's own trouble is no evidence.
    #[must_use]
    pub const fn evident_calls(&self) -> u64 {
        self.calls.saturating_sub(self.causes.local_error)
    }

    /// Failures that say something about the target.
    #[must_use]
    pub const fn evident_failures(&self) -> u64 {
        self.failures.saturating_sub(self.causes.local_error)
    }

    /// Whether its own breaker is not closed, by what the replica saw itself.
    #[must_use]
    pub const fn tripped(&self) -> bool {
        self.own_trip && matches!(self.local, LocalState::Open | LocalState::HalfOpen)
    }
}

/// What the fleet knows of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Member {
    /// Its zone.
    pub zone: Option<Zone>,
    /// Its newest report.
    pub report: Report,
    /// When that came, by the control plane's clock.
    pub at: Timestamp,
    /// When it last had calls that were refused.
    pub demand_at: Option<Timestamp>,
    /// Permits that it got in the present half-open period.
    pub permits: u32,
}

/// The replicas that hold a breaker.
pub type Members = BTreeMap<MemberId, Member>;

/// The numbers behind a decision.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Evidence {
    /// Replicas with a vote.
    pub eligible: u32,
    /// Of these, those whose own breaker has tripped.
    pub open_voters: u32,
    /// Replicas whose own window reaches the failure rate.
    pub witnesses: u32,
    /// Calls of all windows, after trimming and capping.
    pub pooled_calls: u64,
    /// Failures of all windows, after trimming and capping.
    pub pooled_failures: u64,
    /// Replicas behind the pooled numbers, before trimming.
    pub contributors: u32,
    /// The replicas that witnessed or voted, at most 20.
    pub witness_instances: Vec<InstanceId>,
    /// Fewer than two replicas have a vote or a window: the fleet can't decide.
    pub insufficient_witnesses: bool,
    /// Failures of all windows by cause.
    pub causes: Causes,
}

/// Names as people are told them: five, and how many more there are.
pub(super) fn named<T: fmt::Display>(names: impl IntoIterator<Item = T>) -> String {
    const TOLD: usize = 5;
    let mut names = names.into_iter();
    let told: Vec<String> = names.by_ref().take(TOLD).map(|name| name.to_string()).collect();
    match names.count() {
        0 => told.join(", "),
        more => format!("{} and {more} more", told.join(", ")),
    }
}
