//! What must hold of a fleet: safety S1 to S15, liveness L1 to L7.
//!
//! One place says it, many check it. In here, functions over plain values, each true when its invariant holds: for the machines themselves
//! where it is cheap (`debug_assert!`), for the model in `tests/model`, and for whoever records a
//! [`History`](super::history::History) of a running fleet. [`check_step`], [`check_gate`] and [`check_permits`] are the same over the
//! structs that run, for debug builds and property tests.
//!
//! Liveness is stated with a bound ("within so long"), since neither a test nor a model can wait for ever: `eventually` of a model
//! checker is sound on paths without cycles only, so that the model checks reachability and the simulation checks the bounds.

mod machines;

use std::{collections::BTreeSet, fmt, time::Duration};

pub use machines::{
    Broken, Step, check_gate, check_permits, check_quiescence, check_step, most_transitions_per_hour,
    most_transitions_within, same_decisions,
};

use super::{
    gate::Forced,
    held::Fence,
    shared::FleetState,
    spec::{CoordinationMode, CoordinationScope},
};
use crate::{InstanceId, Revision, Timestamp, Zone};

macro_rules! invariants {
    ($($name:ident = $sentence:literal;)*) => {
        /// An invariant, by its number.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Invariant {
            $(#[doc = $sentence] $name,)*
        }

        impl Invariant {
            /// All of them, in order.
            pub const ALL: &'static [Self] = &[$(Self::$name),*];

            /// Its number: a letter (S for safety, L for liveness) and a digit or two.
            #[must_use]
            pub const fn id(self) -> &'static str {
                match self { $(Self::$name => stringify!($name),)* }
            }

            /// What it says.
            #[must_use]
            pub const fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

invariants! {
    S1 = "Fencing: the verdicts that a replica applies to a breaker get ever newer; the same one comes again only after it has lapsed.";
    S2 = "Lease bound: no replica enforces an automatic verdict once a lease has passed since a server last stood behind it.";
    S3 = "No single witness: an automatic opening rests on two distinct replicas, unless the policy's mode is `any`.";
    S4 = "Probe bound: the permits that can still be used never exceed the bound, and each admits at most one call, across restarts too.";
    S5 = "Least admission: without an override a call passes only if the own breaker and the fleet allow it, or on a probe permit.";
    S6 = "Overrides: an override in force decides alone, none is in force after its end, and nothing opens on what a disabled breaker saw.";
    S7 = "Quiescence: a server that learns, is frozen or does not lead neither opens anything nor issues a permit.";
    S8 = "Durable term: a term is used only after it is stored, and by one run of one server.";
    S9 = "Policy atomicity: a replica runs one complete set of policies, and enforces verdicts about exactly what it runs.";
    S10 = "Scope isolation: a verdict touches only replicas of its namespace, its calling service and its zone.";
    S11 = "Denominator: losing members alone never opens anything.";
    S12 = "Idempotence: a repeated report leaves the decision as it was.";
    S13 = "Silence is no evidence: nothing opens, and nothing is released, but for what replicas have reported, or a changed policy.";
    S14 = "Blast cap: automatic openings never hold more than the permitted share of a caller's targets.";
    S15 = "Audit: each effective change has exactly one row that says why.";
    L1 = "A healthy target with demand and no override is released in the end.";
    L2 = "Enough replicas that see failures open every connected replica in time.";
    L3 = "Without a control plane every replica decides alone within one lease.";
    L4 = "Every connected replica comes to run the newest policies.";
    L5 = "A policy that can't be used never keeps others from being applied.";
    L6 = "A breaker changes at most so often in an hour.";
    L7 = "Every live replica has acknowledged an override, or is listed as not having done so.";
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.id(), self.sentence())
    }
}

/// What a server may do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Phase {
    /// It decides.
    #[default]
    Active,
    /// It has just started and listens.
    Learning,
    /// It does not trust what it sees.
    Frozen,
    /// Another server decides.
    Following,
}

/// What made a decision come about.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Ground {
    /// A replica's report.
    Report,
    /// The outcome of a probe.
    Probe,
    /// Time alone.
    Time,
    /// A replica is gone.
    Departure,
    /// All leases have ended: no replica obeys it any more, and the server lets go of it too.
    Lapse,
    /// The policy has changed.
    Policy,
    /// What replicas hold of a former run, or term, goes on.
    Inherited,
}

/// How a call fared at the gate of its breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Admission {
    /// Whether it passed.
    pub admitted: bool,
    /// The override in force.
    pub forced: Option<Forced>,
    /// Whether the process' own breaker would have let it pass.
    pub own_allows: bool,
    /// Whether the fleet's verdict lets calls pass, or there is none, or the replica's own healthy traffic overrules it.
    pub fleet_allows: bool,
    /// Whether it used up a probe permit.
    pub probe: bool,
}

// === safety ===

/// [`Invariant::S1`]: `held` is the newest ever applied, `lapsed` whether it is in force no more. Asserted where a replica applies a
/// verdict; the model with and without the fence.
#[must_use]
pub fn s1_fencing(held: Fence, lapsed: bool, applied: Fence) -> bool {
    applied > held || (lapsed && applied == held)
}

/// [`Invariant::S2`]: `stood_behind` is when a server last issued or renewed the verdict, in the time of whoever watches. The model.
#[must_use]
pub fn s2_lease_bound(stood_behind: Option<Timestamp>, lease: Duration, enforced_at: Timestamp) -> bool {
    stood_behind.is_some_and(|at| enforced_at < at.plus(lease))
}

/// [`Invariant::S3`]. Two runs of one replica are one witness: the control plane lets only the newest run speak. The model.
#[must_use]
pub fn s3_no_single_witness(mode: CoordinationMode, witnesses: &[InstanceId]) -> bool {
    let distinct: BTreeSet<&InstanceId> = witnesses.iter().collect();
    distinct.len() >= 2 || mode == CoordinationMode::Any
}

/// [`Invariant::S4`], the first half. Asserted where permits are issued; the model, across restarts.
#[must_use]
pub const fn s4_probe_bound(live: usize, bound: u32) -> bool {
    live <= bound as usize
}

/// [`Invariant::S4`], the second half: `uses` is how often a permit has let a call pass. The model.
#[must_use]
pub const fn s4_one_call_per_permit(uses: u32) -> bool {
    uses <= 1
}

/// [`Invariant::S5`]. The model, at each call.
#[must_use]
pub const fn s5_least_admission(call: Admission) -> bool {
    let Admission { admitted, forced, own_allows, fleet_allows, probe } = call;
    forced.is_some() || !admitted || probe || (own_allows && fleet_allows)
}

/// [`Invariant::S6`], the first part. The model, at each call.
#[must_use]
pub const fn s6_override_dominates(call: Admission) -> bool {
    match call.forced {
        Some(Forced::Open) => !call.admitted,
        Some(Forced::Closed | Forced::Disabled) => call.admitted,
        None => true,
    }
}

/// [`Invariant::S6`], the second part: `end` is the end that the operator asked for, in the time of whoever watches. The model.
#[must_use]
pub fn s6_override_ends(end: Timestamp, in_force_at: Timestamp) -> bool {
    in_force_at < end
}

/// [`Invariant::S6`], the third part, for an opening on reports: `disabled` are the replicas that said last that their breaker is. The
/// model, at each decision.
#[must_use]
pub fn s6_disabled_is_no_witness(disabled: &BTreeSet<InstanceId>, witnesses: &[InstanceId]) -> bool {
    witnesses.iter().all(|witness| !disabled.contains(witness))
}

/// [`Invariant::S7`], for an opening or a permit that has just been issued. What goes on from a former run is not opened by this one.
/// The model; see also [`check_quiescence`].
#[must_use]
pub const fn s7_quiescence(phase: Phase, ground: Ground) -> bool {
    matches!(phase, Phase::Active) || matches!(ground, Ground::Inherited)
}

/// [`Invariant::S8`]: `stored` is whether the term was, when it was first used; `users` are the runs that have used it. The model.
#[must_use]
pub const fn s8_durable_term(stored: bool, users: usize) -> bool {
    stored && users <= 1
}

/// [`Invariant::S9`], for a verdict in force. The model; the first half is tested with the SDK's link, where sets are applied.
#[must_use]
pub fn s9_policy_atomicity(about: Revision, running: Revision) -> bool {
    about == running
}

/// [`Invariant::S10`], for a key and a replica of the same namespace and calling service. Property tests.
#[must_use]
pub fn s10_scope_isolation(scope: CoordinationScope, of_key: Option<&Zone>, of_replica: Option<&Zone>) -> bool {
    match scope {
        CoordinationScope::Zone => of_key == of_replica,
        CoordinationScope::Fleet => of_key.is_none(),
    }
}

/// [`Invariant::S11`]. Property tests and the model.
#[must_use]
pub fn s11_denominator(from: FleetState, to: FleetState, ground: Ground) -> bool {
    ground != Ground::Departure || from != FleetState::Released || to == FleetState::Released
}

/// [`Invariant::S12`]: what was decided after a report, and after the same report once more. Property tests and the model.
#[must_use]
pub fn s12_idempotence<T: PartialEq>(once: &T, twice: &T) -> bool {
    once == twice
}

/// [`Invariant::S13`]. Property tests and the model.
#[must_use]
pub fn s13_silence_is_no_evidence(from: FleetState, to: FleetState, ground: Ground) -> bool {
    match ground {
        Ground::Report | Ground::Probe | Ground::Policy | Ground::Inherited => true,
        Ground::Lapse => to == FleetState::Released,
        // A ramp ends with time, on calls that were reported before.
        Ground::Time | Ground::Departure => {
            to == from || from == FleetState::Ramp || (from != FleetState::Released && to != FleetState::Released)
        }
    }
}

/// [`Invariant::S14`]: `open` of a caller's `targets` are held open by automatic verdicts. For simulations and the control plane's tests.
#[must_use]
pub const fn s14_blast_cap(open: usize, targets: usize, max_open_percent: u8) -> bool {
    // One target of one is not a blast.
    open <= 1 || open * 100 <= targets * max_open_percent as usize
}

/// [`Invariant::S15`]: every change is found exactly once among the rows. For the control plane's tests.
#[must_use]
pub fn s15_audit<T: PartialEq>(changes: &[T], rows: &[T]) -> bool {
    let times = |list: &[T], wanted: &T| list.iter().filter(|own| *own == wanted).count();
    changes.len() == rows.len() && changes.iter().all(|change| times(changes, change) == times(rows, change))
}

// === liveness, with bounds ===

/// [`Invariant::L1`], of the breakers of a fleet that has been well for long enough. For simulations; the model shows that it can be
/// reached.
#[must_use]
pub fn l1_released(states: impl IntoIterator<Item = FleetState>) -> bool {
    states.into_iter().all(|state| state == FleetState::Released)
}

/// [`Invariant::L2`]: when enough replicas had tripped, and when the last connected replica was open. For simulations; the model shows
/// that it can be reached.
#[must_use]
pub fn l2_opens_in_time(tripped: Timestamp, all_open: Option<Timestamp>, limit: Duration) -> bool {
    all_open.is_some_and(|at| at <= tripped.plus(limit))
}

/// [`Invariant::L3`]: `last_word` is when a replica last heard from a control plane. For simulations; a part of S2, which the model checks.
#[must_use]
pub fn l3_decides_alone_in_time(last_word: Timestamp, lease: Duration, now: Timestamp, held: FleetState) -> bool {
    held == FleetState::Released || now < last_word.plus(lease)
}

/// [`Invariant::L4`], of the connected replicas once no policy has changed for long enough. For simulations.
#[must_use]
pub fn l4_converged(newest: Revision, applied: impl IntoIterator<Item = Revision>) -> bool {
    applied.into_iter().all(|own| own == newest)
}

/// [`Invariant::L5`]: of the policies that a replica was given and can use, all are applied. For simulations.
#[must_use]
pub fn l5_poison_is_isolated<T: Ord>(usable: &BTreeSet<T>, applied: &BTreeSet<T>) -> bool {
    usable.is_subset(applied)
}

/// [`Invariant::L6`], of the times at which one breaker changed, in order, and for any span, however short. Each way from released back to released has at most four changes, and each of them passes
/// through an open time of at least `delay`. For simulations.
#[must_use]
pub fn l6_damped_by(changes: &[Timestamp], delay: Duration) -> bool {
    changes.iter().enumerate().all(|(first, from)| {
        let spans = changes[first..].iter().map(|until| until.since(*from));
        spans.enumerate().all(|(more, span)| (more as u128) < most_transitions_within(span, delay))
    })
}

/// [`Invariant::L7`]: `listed` are those that are shown as not having acknowledged it. For simulations.
#[must_use]
pub fn l7_acknowledged_or_listed<T: Ord>(live: &BTreeSet<T>, acknowledged: &BTreeSet<T>, listed: &BTreeSet<T>) -> bool {
    live.iter().all(|replica| acknowledged.contains(replica) != listed.contains(replica))
}
