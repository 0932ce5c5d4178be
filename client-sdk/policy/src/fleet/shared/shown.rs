//! What operators see of a breaker.

use super::{MemberView, SharedBreaker, State, View};
use crate::{
    Timestamp,
    breaker::BreakerMode,
    fleet::{evidence::Member, rule},
};

impl SharedBreaker {
    /// When it left released. `None` while it is released.
    #[must_use]
    pub const fn opened_at(&self) -> Option<Timestamp> {
        self.opened
    }

    /// When it was last released after it was open.
    #[must_use]
    pub const fn released_at(&self) -> Option<Timestamp> {
        self.released
    }

    /// Whether it is open by what its own replicas reported, and not by what other zones did.
    #[must_use]
    pub const fn is_open_by_its_own(&self) -> bool {
        self.own && matches!(self.state, State::Open { .. })
    }

    /// Whether it refuses nothing, and only shows what it would do.
    #[must_use]
    pub fn is_shadow(&self) -> bool {
        self.settings.breaker.mode() == BreakerMode::Shadow
    }

    /// Whether what a replica has seen lately speaks against the target.
    pub(in crate::fleet) fn speaks_against(&self, member: &Member, now: Timestamp) -> bool {
        rule::speaks_against(member, &self.settings.breaker, now)
    }

    /// Probe permits of the present half-open period that may be in use.
    #[must_use]
    pub fn permits_out(&self) -> usize {
        match &self.state {
            State::HalfOpen { probes } => probes.in_flight(),
            State::Released | State::Open { .. } | State::Ramp(_) => 0,
        }
    }

    /// What operators see.
    pub(in crate::fleet) fn view(&self, now: Timestamp) -> View {
        let (evidence, _) = self.judge(now);
        let (probes_issued, probes_succeeded) = match &self.state {
            State::HalfOpen { probes } => (probes.issued(), probes.successes()),
            State::Released | State::Open { .. } | State::Ramp(_) => (0, 0),
        };
        View {
            state: self.state(),
            since: now.since(self.since),
            half_open_in: self.half_open_at().map(|at| now.until(at)),
            reason: self.reason.clone(),
            evidence,
            probes_issued,
            probes_succeeded,
            members: self
                .members
                .iter()
                .map(|(id, member)| MemberView {
                    member: id.clone(),
                    zone: member.zone.clone(),
                    report: member.report,
                    eligible: rule::is_eligible(member, &self.settings.breaker, now),
                })
                .collect(),
        }
    }
}
