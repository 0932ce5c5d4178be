//! How much the policies of one namespace may be together. What is too much is refused before it is written; the same for every store.

use std::num::NonZeroUsize;

use fusebox_policy::Namespace;

use super::{StoreError, plan::State};

/// How much one namespace may hold: policies in force, and candidates of rollouts in progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Policies; one that is in force and has a candidate is one.
    pub policies: NonZeroUsize,
    /// Bytes of their definitions, in force and candidates, as they are stored and sent.
    pub bytes: NonZeroUsize,
}

impl Quota {
    /// Policies of a namespace when nothing is said: as many as one ApplyPolicies takes.
    pub const POLICIES: NonZeroUsize = NonZeroUsize::new(1000).expect("it is not zero");
    /// Bytes of a namespace when nothing is said: a replica keeps them all in memory and on its disk, whose cache takes 16 MiB.
    pub const BYTES: NonZeroUsize = NonZeroUsize::new(4 << 20).expect("it is not zero");
}

impl Default for Quota {
    fn default() -> Self {
        Self { policies: Self::POLICIES, bytes: Self::BYTES }
    }
}

/// What there may be too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Measure {
    /// Their number.
    Policies,
    /// Their bytes.
    Bytes,
}

impl Measure {
    /// The same in a sentence, behind a number.
    #[must_use]
    pub const fn words(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Bytes => "bytes of policies",
        }
    }

    /// Its name, for programs.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Policies => "policies",
            Self::Bytes => "bytes",
        }
    }

    /// The option of `fusebox serve` that sets its limit.
    #[must_use]
    pub const fn option(self) -> &'static str {
        match self {
            Self::Policies => "--policies-per-namespace",
            Self::Bytes => "--policy-bytes-per-namespace",
        }
    }
}

impl State {
    /// Refuses a change that takes a namespace beyond what it may hold. `self` is what would be. A namespace that is beyond it already, since
    /// the limit was lowered, may become smaller or stay.
    pub(super) fn check_quota(&self, before: &Self, namespace: &Namespace, quota: Quota) -> Result<(), StoreError> {
        let (had, has) = (before.held(namespace), self.held(namespace));
        for (measure, had, has, limit) in
            [(Measure::Policies, had.0, has.0, quota.policies.get()), (Measure::Bytes, had.1, has.1, quota.bytes.get())]
        {
            if has > limit && has > had {
                return Err(StoreError::NamespaceFull { namespace: namespace.clone(), measure, limit, would: has });
            }
        }
        Ok(())
    }

    /// Policies and bytes of a namespace.
    fn held(&self, namespace: &Namespace) -> (usize, usize) {
        let in_force = self.policies.iter().filter(|((own, _), _)| own == namespace);
        let candidates = self.rollouts.iter().filter(|((own, _), _)| own == namespace);
        let (mut policies, mut bytes) = (0, 0);
        for (_, stored) in in_force {
            policies += 1;
            bytes += stored.size;
        }
        for (key, staged) in candidates {
            policies += usize::from(!self.policies.contains_key(key));
            bytes += staged.candidate.size;
        }
        (policies, bytes)
    }
}
