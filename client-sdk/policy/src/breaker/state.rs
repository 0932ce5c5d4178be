//! What a breaker says and is told: states, transitions, permits, endings.

use std::{fmt, time::Duration};

use super::window::Counts;
use crate::{
    condition::Class,
    outcome::{Outcome, RetryHint},
};

/// What a breaker does with calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LocalState {
    /// They pass and are counted.
    Closed,
    /// They are refused.
    Open,
    /// A few pass as probes.
    HalfOpen,
}

impl LocalState {
    /// In lower case with underscores, as it is shown everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
        }
    }
}

impl fmt::Display for LocalState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a state changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// The share of failures.
    FailureRate,
    /// The number of failures.
    Failures,
    /// Failures in a row.
    ConsecutiveFailures,
    /// The share of slow calls.
    SlowCallRate,
    /// The open time is over.
    DelayElapsed,
    /// Enough probes succeeded.
    ProbeOk,
    /// Too many probes failed.
    ProbeFailed,
    /// The half-open period took too long.
    ProbesTimedOut,
    /// The failure rate rose again while ramping up.
    RampFailed,
    /// The fleet's verdict.
    Fleet,
    /// A fleet's verdict ended without a successor.
    Decay,
    /// An operator, or code.
    Operator,
    /// A changed policy asked for a fresh start.
    PolicyChange,
}

impl Cause {
    /// In lower case with underscores.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::FailureRate => "failure_rate",
            Self::Failures => "failures",
            Self::ConsecutiveFailures => "consecutive_failures",
            Self::SlowCallRate => "slow_call_rate",
            Self::DelayElapsed => "delay_elapsed",
            Self::ProbeOk => "probe_ok",
            Self::ProbeFailed => "probe_failed",
            Self::ProbesTimedOut => "probes_timed_out",
            Self::RampFailed => "ramp_failed",
            Self::Fleet => "fleet",
            Self::Decay => "decay",
            Self::Operator => "operator",
            Self::PolicyChange => "policy_change",
        }
    }
}

/// A change of state, as an effect for whoever reports it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Transition {
    /// Before.
    pub from: LocalState,
    /// After. Never the same.
    pub to: LocalState,
    /// Why.
    pub cause: Cause,
    /// What the window held at that moment.
    pub counts: Counts,
}

/// Leave to make one call. It must come back: by [`Breaker::record`](super::Breaker::record) or [`Breaker::abandon`](super::Breaker::abandon).
#[must_use = "a permit that does not come back blocks a half-open breaker"]
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct Permit {
    /// The generation that admitted it; `None` where its outcome counts for nothing.
    pub(super) generation: Option<u64>,
}

impl Permit {
    pub(crate) const fn of(generation: u64) -> Self {
        Self { generation: Some(generation) }
    }

    pub(crate) const fn generation(&self) -> Option<u64> {
        self.generation
    }

    /// A permit whose outcome counts for nothing.
    pub const fn untracked() -> Self {
        Self { generation: None }
    }
}

/// How a call ended, as its breaker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Ending {
    /// What it counts as.
    pub class: Class,
    /// What it was.
    pub outcome: Outcome,
    /// How long it took.
    pub elapsed: Duration,
    /// The wait that the answer asked for.
    pub hint: RetryHint,
}
