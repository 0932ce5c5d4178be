//! The probes of one half-open period: who may send one, and what they showed.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use super::ProbeResult;
use crate::{
    InstanceId, Timestamp, Zone,
    breaker::HalfOpenSpec,
    fleet::evidence::{Member, MemberId, Members, named},
};

/// How long after its end a permit whose holder says nothing is counted as lost: its call may still run.
const PERMIT_LOST_AFTER: Duration = Duration::from_secs(15);
/// Demand that is older than this says little about whether the next second brings a call.
const DEMAND_LIFETIME: Duration = Duration::from_secs(3);

/// A permit that is out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Out {
    holder: MemberId,
    /// Until when it may be used.
    usable: Timestamp,
    lost_at: Timestamp,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Probes {
    /// By number. Each has been given once.
    out: BTreeMap<u64, Out>,
    /// Conclusive ones.
    successes: u32,
    failures: u32,
    /// The replicas that had a success.
    succeeded: BTreeSet<InstanceId>,
    /// Those that had a failure.
    failed: BTreeSet<InstanceId>,
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

    /// The replicas whose probes succeeded.
    pub(super) fn succeeded_at(&self) -> String {
        named(&self.succeeded)
    }

    /// The replicas whose probes failed.
    pub(super) fn failed_at(&self) -> String {
        named(&self.failed)
    }

    /// When the next permit counts as lost.
    pub(super) fn next_lost(&self) -> Option<Timestamp> {
        self.out.values().map(|out| out.lost_at).min()
    }

    /// Forgets the permits whose holders have said nothing for too long.
    pub(super) fn lose(&mut self, now: Timestamp) {
        self.out.retain(|_, out| now < out.lost_at);
    }

    /// Until when the permits that are out may be used.
    pub(super) fn usable(&self) -> impl Iterator<Item = Timestamp> {
        self.out.values().map(|out| out.usable)
    }

    /// Takes an outcome. Answers with the successes and failures so far, if it counts.
    pub(super) fn record(&mut self, member: &MemberId, permit: u64, result: ProbeResult) -> Option<(u32, u32)> {
        if self.out.get(&permit)?.holder != *member {
            return None;
        }
        self.out.remove(&permit);
        match result {
            ProbeResult::Success => {
                self.successes += 1;
                self.succeeded.insert(member.instance.clone());
            }
            ProbeResult::Failure => {
                self.failures += 1;
                self.failed.insert(member.instance.clone());
            }
            ProbeResult::Inconclusive => {}
        }
        Some((self.successes, self.failures))
    }

    /// Whether the target is back: enough successes, of two replicas where two have demand. Where all probes are used up and only
    /// one replica has brought conclusive ones, it must do: an operator's number of probes is the limit.
    pub(super) fn suffice(&self, members: &Members, spec: HalfOpenSpec, now: Timestamp) -> bool {
        let wanting: BTreeSet<&InstanceId> =
            members.iter().filter(|(_, member)| has_demand(member, now)).map(|(id, _)| &id.instance).collect();
        self.successes >= spec.successes
            && (self.succeeded.len() >= 2 || wanting.len() < 2 || self.issued() >= spec.probes)
    }

    /// Issues a permit: to a replica with demand, those that have had the fewest first, of these the zones that have had the fewest,
    /// then those that have not succeeded yet, then the busiest. So many `older` permits, of half-open periods before this one, may
    /// be in use too.
    pub(super) fn issue(
        &mut self,
        members: &mut Members,
        spec: HalfOpenSpec,
        older: usize,
        id: u64,
        ttl: Duration,
        now: Timestamp,
    ) -> Option<MemberId> {
        let concurrent = usize::try_from(spec.concurrent_probes).unwrap_or(usize::MAX);
        if self.issued() >= spec.probes || self.out.len() + older >= concurrent {
            return None;
        }
        let mut zones: BTreeMap<Option<Zone>, u32> = BTreeMap::new();
        for member in members.values() {
            *zones.entry(member.zone.clone()).or_default() += member.permits;
        }
        let (holder, member) =
            members.iter_mut().filter(|(_, member)| has_demand(member, now)).min_by_key(|(id, member)| {
                let of_zone = zones.get(&member.zone).copied().unwrap_or(0);
                let succeeded = self.succeeded.contains(&id.instance);
                (member.permits, of_zone, succeeded, Reverse(member.report.rejected))
            })?;
        member.permits += 1;
        let usable = now.plus(ttl);
        self.out.insert(id, Out { holder: holder.clone(), usable, lost_at: usable.plus(PERMIT_LOST_AFTER) });
        Some(holder.clone())
    }
}

fn has_demand(member: &Member, now: Timestamp) -> bool {
    member.demand_at.is_some_and(|at| now.since(at) <= DEMAND_LIFETIME)
}
