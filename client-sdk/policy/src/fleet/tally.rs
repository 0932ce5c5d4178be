//! What replicas have said, added up: enough to see that nothing can open, without judging.
//!
//! In a fleet of a thousand nearly every report changes nothing, and some of them come every millisecond.

use super::{
    evidence::Member,
    rule::{MIN_WITNESSES, accuses},
    spec::{Coordination, CoordinationMode},
};
use crate::breaker::{BreakerSpec, RateRule};

/// The reports of some replicas.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Tally {
    tripped: u64,
    accusing: u64,
    /// Wide enough for whatever replicas say: a sum that is cut could not be taken back.
    calls: u128,
}

impl Tally {
    /// Nobody has reported.
    pub const ZERO: Self = Self { tripped: 0, accusing: 0, calls: 0 };

    /// What one replica reported, however long ago that was.
    #[must_use]
    pub fn of(member: &Member, spec: &BreakerSpec) -> Self {
        Self {
            tripped: u64::from(member.report.tripped()),
            accusing: u64::from(accuses(member, spec)),
            calls: u128::from(member.report.evident_calls()),
        }
    }

    /// Both.
    #[must_use]
    pub const fn plus(self, other: Self) -> Self {
        Self {
            tripped: self.tripped.saturating_add(other.tripped),
            accusing: self.accusing.saturating_add(other.accusing),
            calls: self.calls.saturating_add(other.calls),
        }
    }

    /// Without what was added before.
    #[must_use]
    pub const fn minus(self, other: Self) -> Self {
        Self {
            tripped: self.tripped.saturating_sub(other.tripped),
            accusing: self.accusing.saturating_sub(other.accusing),
            calls: self.calls.saturating_sub(other.calls),
        }
    }

    /// Whether a rule may be met. Never wrong when it says no, also when some of what was added counts no longer.
    #[must_use]
    pub fn may_meet(self, spec: &BreakerSpec, coordination: &Coordination) -> bool {
        let enough = |rule: RateRule| self.calls >= u128::from(rule.min_calls);
        let quorum = self.tripped >= MIN_WITNESSES;
        let pooled = self.accusing >= MIN_WITNESSES && spec.trip().failure_rate.is_some_and(enough);
        match coordination.mode() {
            CoordinationMode::Balanced => quorum || pooled,
            CoordinationMode::Quorum => quorum,
            CoordinationMode::Pooled => pooled,
            CoordinationMode::Any => self.tripped > 0,
            CoordinationMode::Local => false,
        }
    }
}
