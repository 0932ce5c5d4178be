//! What a shared breaker is told and says: states, settings, changes, and what operators see of it.

use std::{fmt, sync::Arc, time::Duration};

use crate::{
    Revision, Zone,
    breaker::BreakerSpec,
    fleet::{
        evidence::{Evidence, MemberId, Report},
        spec::Coordination,
    },
};

/// What the fleet has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FleetState {
    /// Nothing: each replica's own breaker decides.
    #[default]
    Released,
    /// All replicas refuse.
    Open,
    /// Only calls with a probe permit pass.
    HalfOpen,
    /// A share of calls passes.
    Ramp,
    /// An operator refuses all calls.
    ForcedOpen,
    /// An operator lets all calls pass.
    ForcedClosed,
    /// An operator lets all calls pass, and none is counted.
    Disabled,
}

impl FleetState {
    /// Every state.
    pub const ALL: [Self; 7] =
        [Self::Released, Self::Open, Self::HalfOpen, Self::Ramp, Self::ForcedOpen, Self::ForcedClosed, Self::Disabled];

    /// In lower case with underscores, as it is shown everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramp => "ramp",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
            Self::Disabled => "disabled",
        }
    }
}

impl fmt::Display for FleetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a policy says about the breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Rules and numbers of the breaker itself.
    pub breaker: Arc<BreakerSpec>,
    /// How it is shared.
    pub coordination: Coordination,
    /// Revision of the policy. Verdicts are void for any other.
    pub policy_revision: Revision,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    /// The call succeeded.
    Success,
    /// The call failed.
    Failure,
    /// Nothing was learned; the permit goes back.
    Inconclusive,
}

/// A change of state, for whoever tells and logs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::fleet) struct Change {
    /// Before.
    pub(in crate::fleet) from: FleetState,
    /// After.
    pub(in crate::fleet) to: FleetState,
    /// One word, as in [`Effect::Transition`](crate::fleet::coordinator::Effect).
    pub(in crate::fleet) cause: &'static str,
    /// Numbers in words.
    pub(in crate::fleet) reason: String,
    /// The numbers on which it rests.
    pub(in crate::fleet) evidence: Evidence,
}

/// What operators see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The state.
    pub state: FleetState,
    /// How long in it.
    pub since: Duration,
    /// While open: until probes.
    pub half_open_in: Option<Duration>,
    /// Why, in words.
    pub reason: String,
    /// The numbers now.
    pub evidence: Evidence,
    /// Permits issued in this half-open period and not returned unused.
    pub probes_issued: u32,
    /// Successes in this half-open period.
    pub probes_succeeded: u32,
    /// The replicas.
    pub members: Vec<MemberView>,
}

/// What operators see of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberView {
    /// Which.
    pub member: MemberId,
    /// Its zone.
    pub zone: Option<Zone>,
    /// Its newest report.
    pub report: Report,
    /// Whether it has a vote.
    pub eligible: bool,
}

/// How a breaker that a former run of the control plane had not released goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::fleet) enum Inherited {
    /// Released meanwhile.
    Released,
    /// Open for so long.
    Open(Duration),
    /// Half-open, from the beginning.
    HalfOpen,
    /// Ramping, from the first step.
    Ramp,
}
