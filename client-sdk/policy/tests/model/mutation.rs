//! The guards, and what their absence looks like. Nothing in the product knows of this: messages are changed before a machine sees them,
//! or the control plane is started as it should not be.

use fusebox_policy::fleet::invariants::Invariant;

use crate::rules::{Rules, Start};

/// A guard that is taken away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mutation {
    /// A verdict is applied whatever its fence: it is given one above all others.
    NoFence,
    /// A run of the control plane uses the term of the one before: nothing was written.
    TermNotStored,
    /// A replica that has seen a term takes it for that of any run which uses it.
    AnyRunsTerm,
    /// What is left of an override counts from when that arrives.
    OverrideFromArrival,
    /// Leases and permits count from when they arrive.
    AnchoredAtReceipt,
    /// A control plane that does not trust itself goes on renewing what it said.
    FrozenRenews,
    /// A restarted control plane decides at once.
    NoLearning,
    /// A permit goes to two replicas.
    PermitTwice,
    /// A permit that comes again is given back, as if it could not be used.
    CopyGoesBack,
    /// A verdict is taken to be about whatever policy runs.
    NoPolicyRevision,
    /// A replica that can't use a changed policy goes on as if it had not heard of it.
    NotBehind,
    /// An answer of one run of the control plane renews a verdict of another.
    AnyTermRenews,
    /// A replica whose breaker is disabled reports what that had seen before.
    DisabledSpeaks,
    /// Two runs of one replica count as two witnesses.
    WitnessTwice,
}

/// A guard, a configuration without it, and what that breaks.
pub(crate) struct Mutant {
    pub(crate) guard: &'static str,
    pub(crate) rules: Rules,
    pub(crate) breaks: Invariant,
}

impl Mutation {
    pub(crate) fn all() -> Vec<Mutant> {
        let mutant = |guard, rules: Rules, mutation, breaks| Mutant { guard, rules: rules.without(mutation), breaks };
        let opening = || Rules { start: Start::Opening, ..Rules::chaos() };
        let changing = || Rules { change: true, ..opening() };
        let disabled = || Rules { start: Start::Tripped, ..Rules::disabled() };
        let tripped = || Rules { start: Start::Tripped, ..Rules::streams() };
        vec![
            mutant("the fence", opening(), Self::NoFence, Invariant::S1),
            mutant("the durable term", Rules::restart(), Self::TermNotStored, Invariant::S8),
            mutant("the run id", Rules::wiped(), Self::AnyRunsTerm, Invariant::S8),
            mutant("the override's anchor at sending", Rules::forced(), Self::OverrideFromArrival, Invariant::S6),
            mutant("that a disabled breaker is no witness", disabled(), Self::DisabledSpeaks, Invariant::S6),
            mutant("the lease's anchor at sending", opening(), Self::AnchoredAtReceipt, Invariant::S2),
            mutant("the term in renewals", Rules::restart(), Self::AnyTermRenews, Invariant::S2),
            mutant("learning after a start", Rules::restart(), Self::NoLearning, Invariant::S4),
            mutant("that a frozen server renews nothing", Rules::freeze(), Self::FrozenRenews, Invariant::S2),
            mutant("the bound on probes", Rules::streams(), Self::PermitTwice, Invariant::S4),
            mutant("counting a repeated permit once", Rules::chaos(), Self::CopyGoesBack, Invariant::S4),
            mutant("the policy revision in verdicts", changing(), Self::NoPolicyRevision, Invariant::S9),
            mutant("leaving alone who refuses a policy", Rules::refused(), Self::NotBehind, Invariant::S2),
            mutant("the second witness", tripped(), Self::WitnessTwice, Invariant::S3),
        ]
    }
}
