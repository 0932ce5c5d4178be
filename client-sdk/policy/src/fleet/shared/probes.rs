//! The probes of one half-open period: who may send one, and what they showed.

use std::{cmp::Reverse, collections::BTreeMap, time::Duration};

use super::ProbeResult;
use crate::{
    Timestamp,
    breaker::HalfOpenSpec,
    fleet::evidence::{Member, MemberId, Members},
};

/// How long after its end a permit whose holder says nothing is counted as lost: its call may still run.
const PERMIT_LOST_AFTER: Duration = Duration::from_secs(15);
/// Demand that is older than this says little about whether the next second brings a call.
const DEMAND_LIFETIME: Duration = Duration::from_secs(3);

/// A permit that is out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Out {
    holder: MemberId,
    lost_at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Probes {
    /// By number. Each has been given once.
    out: BTreeMap<u64, Out>,
    /// Conclusive ones.
    successes: u32,
    failures: u32,
}

impl Probes {
    /// Permits that may be in use.
    pub(super) fn in_flight(&self) -> usize {
        self.out.len()
    }

    /// Permits issued and not returned unused.
    pub(super) fn issued(&self) -> u32 {
        self.successes + self.failures + u32::try_from(self.out.len()).unwrap_or(u32::MAX)
    }

    pub(super) const fn successes(&self) -> u32 {
        self.successes
    }

    /// When the next permit counts as lost.
    pub(super) fn next_lost(&self) -> Option<Timestamp> {
        self.out.values().map(|out| out.lost_at).min()
    }

    /// Forgets the permits whose holders have said nothing for too long.
    pub(super) fn lose(&mut self, now: Timestamp) {
        self.out.retain(|_, out| now < out.lost_at);
    }

    /// Takes an outcome. Answers with the successes and failures so far, if it counts.
    pub(super) fn record(&mut self, member: &MemberId, permit: u64, result: ProbeResult) -> Option<(u32, u32)> {
        if self.out.get(&permit)?.holder != *member {
            return None;
        }
        self.out.remove(&permit);
        match result {
            ProbeResult::Success => self.successes += 1,
            ProbeResult::Failure => self.failures += 1,
            ProbeResult::Inconclusive => {}
        }
        Some((self.successes, self.failures))
    }

    pub(super) fn issue(
        &mut self,
        members: &mut Members,
        spec: HalfOpenSpec,
        id: u64,
        ttl: Duration,
        now: Timestamp,
    ) -> Option<MemberId> {
        let concurrent = usize::try_from(spec.concurrent_probes).unwrap_or(usize::MAX);
        if self.issued() >= spec.probes || self.out.len() >= concurrent {
            return None;
        }
        let demand = |member: &Member| member.demand_at.is_some_and(|at| now.since(at) <= DEMAND_LIFETIME);
        let (holder, member) = members
            .iter_mut()
            .filter(|(_, member)| demand(member))
            .min_by_key(|(_, member)| (member.permits, Reverse(member.report.rejected)))?;
        member.permits += 1;
        let lost_at = now.plus(ttl).plus(PERMIT_LOST_AFTER);
        self.out.insert(id, Out { holder: holder.clone(), lost_at });
        Some(holder.clone())
    }
}
