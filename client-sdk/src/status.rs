//! What a client shows of itself.

use std::{fmt, time::Duration};

use fusebox_policy::{
    CallerName, InstanceId, Namespace, PolicyName, Revision, StrategyName, TargetName, Zone, breaker::LocalState,
};

pub use fusebox_policy::fleet::shared::FleetState as FleetStateShown;

/// Where the policies in force came from, best first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PolicySource {
    /// The control plane.
    Stream,
    /// The last good ones on disk.
    Disk,
    /// Those given in code.
    Builtin,
    /// There are none: calls pass through.
    None,
}

impl PolicySource {
    /// In lower case.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Disk => "disk",
            Self::Builtin => "builtin",
            Self::None => "none",
        }
    }
}

impl fmt::Display for PolicySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A client at one moment.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Status {
    /// The calling service.
    pub service: CallerName,
    /// The namespace of its policies.
    pub namespace: Namespace,
    /// This replica.
    pub instance: InstanceId,
    /// Its zone.
    pub zone: Option<Zone>,
    /// Whether the stream to the control plane is up.
    pub connected: bool,
    /// Whether nothing is obeyed that the fleet, or an operator, says about breakers: `FUSEBOX_FLEET=off`, or
    /// [`ClientBuilder::ignore_fleet`](crate::ClientBuilder::ignore_fleet).
    pub ignores_fleet: bool,
    /// Times that the cache folder could not be written, or what was in it could not be used. Calls don't mind.
    pub cache_faults: u64,
    /// Where the policies came from.
    pub source: PolicySource,
    /// The store's revision that runs; zero for policies that no store has seen.
    pub revision: Revision,
    /// Policies that were refused; their last good version runs.
    pub rejected: Vec<RejectedPolicy>,
    /// The policies in force, by name.
    pub policies: Vec<PolicyStatus>,
    /// Every breaker of them, whether it has been called or not.
    pub breakers: Vec<BreakerStatus>,
    /// Every rate limit of them that the fleet shares, by policy.
    pub limits: Vec<LimitStatus>,
}

/// A policy in force.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct PolicyStatus {
    /// Its name.
    pub name: PolicyName,
    /// The revision that last changed it.
    pub revision: Revision,
    /// The service that is called.
    pub target: TargetName,
    /// Where it came from.
    pub source: PolicySource,
}

/// A policy that was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedPolicy {
    /// Its name, as the control plane wrote it.
    pub name: String,
    /// The refused revision.
    pub revision: Revision,
    /// Why.
    pub reason: String,
}

/// One breaker of this process, and what the fleet says about it.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct BreakerStatus {
    /// The policy.
    pub policy: PolicyName,
    /// The revision that last changed the policy.
    pub revision: Revision,
    /// The element of its pipeline.
    pub strategy: StrategyName,
    /// The service that is called.
    pub target: TargetName,
    /// The process' own state.
    pub local: LocalState,
    /// The fleet's, or an operator's.
    pub fleet: FleetStateShown,
    /// Why the fleet, or an operator, says so: the rule with its numbers, or the operator's words. `None` while released.
    pub fleet_reason: Option<String>,
    /// Whether the fleet's state is not obeyed here, since this process sees for itself that the target is well.
    pub vetoed: bool,
    /// The share of calls that is admitted, from 0 to 1.
    pub admission: f64,
    /// Until probes are let through, where that is known.
    pub half_open_in: Option<Duration>,
    /// Whether the control plane has said that it does not share this breaker, since it shares too many: it goes on by itself.
    pub unshared: bool,
}

/// This process' part of a rate limit that the fleet shares.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct LimitStatus {
    /// The policy.
    pub policy: PolicyName,
    /// The element of its pipeline.
    pub strategy: StrategyName,
    /// The service that is called.
    pub target: TargetName,
    /// The part of the limit that this process acts on, in millionths.
    pub share_ppm: u32,
    /// How many replicas share the limit, as it was told last; zero if nothing was ever told, and this process has the whole limit.
    pub members: u32,
    /// Whether the control plane has given the part out and its lease has not ended. If not, it is what this process falls back to.
    pub leased: bool,
}
