//! Who is there: the replicas of each service, and which breakers they hold.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

use super::{guards::BURST_SPAN, high_water::HighWater, limits::Limits};
use crate::{
    TargetName, Timestamp, Zone,
    fleet::{BreakerKey, evidence::MemberId, key::CallerId},
};

/// One connected replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Replica {
    pub(super) zone: Option<Zone>,
    pub(super) joined: Timestamp,
    /// The breakers that it has reported, each with the number of its newest report.
    pub(super) keys: BTreeMap<BreakerKey, u64>,
}

/// The connected replicas of one service.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Caller {
    pub(super) replicas: BTreeMap<MemberId, Replica>,
    /// How many replicas there were lately.
    pub(super) high_water: HighWater,
    /// How many of each zone.
    zones: BTreeMap<Option<Zone>, HighWater>,
    /// When breakers of which targets were newly opened, as far back as the guard looks; each target once.
    openings: VecDeque<(Timestamp, TargetName)>,
}

impl Caller {
    /// A breaker of this target has been newly opened. It counts from its first: its zones follow each other.
    pub(super) fn opened(&mut self, target: &TargetName, now: Timestamp) {
        while self.openings.front().is_some_and(|(at, _)| now.since(*at) >= BURST_SPAN) {
            self.openings.pop_front();
        }
        if !self.lately_opened(now).contains(target) {
            self.openings.push_back((now, target.clone()));
        }
    }

    /// The targets of which breakers were newly opened lately.
    pub(super) fn lately_opened(&self, now: Timestamp) -> BTreeSet<&TargetName> {
        let lately = self.openings.iter().filter(|(at, _)| now.since(*at) < BURST_SPAN);
        lately.map(|(_, target)| target).collect()
    }

    /// How many replicas there are, and how many there were lately: of a zone, or of all.
    pub(super) fn left_of_peak(&self, zone: Option<&Option<Zone>>, span: Duration, now: Timestamp) -> (usize, usize) {
        match zone {
            None => (self.replicas.len(), self.high_water.peak(span, now)),
            Some(zone) => {
                let left = self.replicas.values().filter(|replica| replica.zone == *zone).count();
                (left, self.zones.get(zone).map_or(left, |high_water| high_water.peak(span, now)))
            }
        }
    }

    fn count(&mut self, zone: Option<Zone>, span: Duration, now: Timestamp) {
        self.high_water.set(self.replicas.len(), span, now);
        let of_zone = self.replicas.values().filter(|replica| replica.zone == zone).count();
        self.zones.entry(zone).or_default().set(of_zone, span, now);
        self.zones.retain(|_, high_water| high_water.peak(span, now) > 0);
    }

    /// The breakers that a replica holds.
    pub(super) fn keys_of(&self, member: &MemberId) -> impl Iterator<Item = &BreakerKey> {
        self.replicas.get(member).into_iter().flat_map(|replica| replica.keys.keys())
    }
}

/// All connected replicas.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Callers {
    by_id: BTreeMap<CallerId, Caller>,
    /// How many replicas of all services there were lately.
    high_water: HighWater,
}

impl Callers {
    pub(super) const fn new() -> Self {
        Self { by_id: BTreeMap::new(), high_water: HighWater::new() }
    }

    pub(super) fn get(&self, caller: &CallerId) -> Option<&Caller> {
        self.by_id.get(caller)
    }

    /// The services of which a replica is connected.
    pub(super) fn ids(&self) -> impl Iterator<Item = &CallerId> {
        self.by_id.iter().filter(|(_, caller)| !caller.replicas.is_empty()).map(|(id, _)| id)
    }

    pub(super) fn get_mut(&mut self, caller: &CallerId) -> Option<&mut Caller> {
        self.by_id.get_mut(caller)
    }

    pub(super) fn replica_mut(&mut self, caller: &CallerId, member: &MemberId) -> Option<&mut Replica> {
        self.by_id.get_mut(caller)?.replicas.get_mut(member)
    }

    /// A replica has connected.
    pub(super) fn join(
        &mut self,
        id: &CallerId,
        member: MemberId,
        zone: Option<Zone>,
        limits: &Limits,
        now: Timestamp,
    ) {
        let caller = self.by_id.entry(id.clone()).or_default();
        let replica = Replica { zone: zone.clone(), joined: now, keys: BTreeMap::new() };
        caller.replicas.insert(member, replica);
        self.count(id, zone, limits, now);
    }

    /// A replica has gone. Answers with what it held.
    pub(super) fn leave(
        &mut self,
        id: &CallerId,
        member: &MemberId,
        limits: &Limits,
        now: Timestamp,
    ) -> Vec<BreakerKey> {
        let gone = self.by_id.get_mut(id).and_then(|caller| caller.replicas.remove(member));
        let zone = gone.as_ref().and_then(|replica| replica.zone.clone());
        self.count(id, zone, limits, now);
        gone.map(|replica| replica.keys.into_keys().collect()).unwrap_or_default()
    }

    /// A service of which nobody is left is remembered for a lease, so that those who come first are not taken for all of it.
    fn count(&mut self, id: &CallerId, zone: Option<Zone>, limits: &Limits, now: Timestamp) {
        let all = self.all();
        self.high_water.set(all, limits.mass_span, now);
        if let Some(caller) = self.by_id.get_mut(id) {
            caller.count(zone, limits.lease, now);
        }
        self.by_id.retain(|_, caller| !caller.replicas.is_empty() || caller.high_water.peak(limits.lease, now) > 0);
    }

    fn all(&self) -> usize {
        self.by_id.values().map(|caller| caller.replicas.len()).sum()
    }

    /// Whether more than half of all replicas have gone in a moment.
    pub(super) fn mass_disconnect(&self, limits: &Limits, now: Timestamp) -> bool {
        let (peak, left) = (self.high_water.peak(limits.mass_span, now), self.all());
        peak >= limits.mass_from && (peak - left.min(peak)) * 2 > peak
    }

    /// Nobody holds the breaker any more.
    pub(super) fn forget(&mut self, key: &BreakerKey) {
        if let Some(caller) = self.by_id.get_mut(&key.caller_id()) {
            for replica in caller.replicas.values_mut() {
                replica.keys.remove(key);
            }
        }
    }

    /// The replicas that hold a breaker.
    pub(super) fn holders<'a>(&'a self, key: &'a BreakerKey) -> impl Iterator<Item = &'a MemberId> {
        self.by_id
            .get(&key.caller_id())
            .into_iter()
            .flat_map(|caller| &caller.replicas)
            .filter(|(_, replica)| replica.keys.contains_key(key))
            .map(|(id, _)| id)
    }
}
