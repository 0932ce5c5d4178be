//! What control plane and replicas tell each other, as far as it matters here: the protocol's messages without names and words.

use std::time::Duration;

use fusebox_policy::{
    Revision,
    fleet::{
        coordinator::Holding,
        evidence::Report,
        gate::{Forced, ProbeId},
        held::Fence,
        history::Event,
        shared::{FleetState, ProbeResult},
    },
};

/// There is one breaker; replicas have numbers.
pub(crate) type Happened = Event<(), usize>;

/// What the control plane sends in one go. Where messages can't overtake each other, they arrive in one go as well.
pub(crate) type Letter = Vec<Down>;

/// From a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Up {
    /// A heartbeat, with the window of the breaker. Whether that is disabled is told apart from what the window says, for the ledger.
    Beat { seq: u64, report: Report, disabled: bool, held: Holding, policy: Revision },
    /// What became of a permit.
    Outcome { probe: ProbeId, result: ProbeResult },
}

/// From the control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Down {
    /// What the fleet has decided.
    Verdict {
        fence: Fence,
        state: FleetState,
        permille: u32,
        lease: Duration,
        anchor: u64,
        policy: Revision,
        half_open_in: Option<Duration>,
    },
    /// Leave for one probe.
    Permit { probe: ProbeId, rev: u64, ttl: Duration, anchor: u64 },
    /// The answer to a heartbeat: verdicts of this term up to `rev` hold on.
    Ack { seq: u64, term: u64, rev: u64, lease: Duration },
    /// All overrides: here, one or none, and how long it holds from the sending of heartbeat `anchor`.
    Overrides { term: u64, version: u64, forced: Option<(Forced, Duration)>, anchor: u64 },
    /// A revision of the policy.
    Policy(Revision),
}
