//! What the zones of one breaker have to do with each other: a breaker that is open in most of them opens in the rest, and all of
//! them together probe a target that is coming back.
//!
//! | zones with voters | 1 | 2 | 3 | 4 | 5 | 10 |
//! |---|---|---|---|---|---|---|
//! | open by their own replicas' reports, so that the rest opens | never | 2 | 2 | 2 | 3 | 5 |
//!
//! One zone alone changes nothing outside of it. A zone without voters (quiet, or new) counts as neither, and opens with the rest.
//! A zone that other zones have opened speaks for nobody, and one that has come back is not opened again by what it has outlived.

use super::{
    Coordinator, Effect, Entry, guards,
    report::{Held, Mute},
};
use crate::{
    Draw, Timestamp,
    fleet::{BreakerKey, CoordinationScope, evidence::named, shared::FleetState},
};

/// Zones that must be open: of one nobody knows whether it is the target or the zone.
const LEAST_ZONES: usize = 2;
/// Probes of all zones of one breaker together, where more than one zone probes.
pub(in crate::fleet) const MOST_PROBES: usize = 3;

impl Coordinator {
    /// The breaker of each zone, this one included.
    fn zones<'a>(&'a self, key: &BreakerKey) -> impl Iterator<Item = (&'a BreakerKey, &'a Entry)> {
        let first = BreakerKey { zone: None, ..key.clone() };
        self.entries
            .range(first.clone()..)
            .take_while(move |(other, _)| BreakerKey { zone: None, ..(*other).clone() } == first)
    }

    /// Opens this zone if enough others are open.
    pub(super) fn follow_zones(&mut self, key: &BreakerKey, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let Some(entry) = self.entries.get(key) else {
            return Vec::new();
        };
        if entry.breaker.settings().coordination.scope() != CoordinationScope::Zone
            || entry.breaker.state() != FleetState::Released
        {
            return Vec::new();
        }
        let outlived = entry.breaker.released_at();
        let (mut voting, mut open) = (0, Vec::new());
        for (other, zone) in self.zones(key) {
            let is_open = zone.breaker.is_open_by_its_own();
            let news = outlived.is_none_or(|at| zone.breaker.opened_at().is_some_and(|opened| opened > at));
            voting += usize::from(is_open || zone.breaker.judge(now).0.eligible > 0);
            if is_open && news && other != key {
                open.push(guards::zone_name(other));
            }
        }
        if open.len() < LEAST_ZONES || open.len() * 2 < voting {
            return Vec::new();
        }
        let reason = format!("{} of {voting} zones with voters are open: {}", open.len(), named(&open));
        if let Some((guard, detail)) = self.held_back(key, &entry.breaker, now) {
            let evidence = entry.breaker.judge(now).0;
            let detail = format!("{reason}; {detail}");
            return self.hold(key, Held { guard, cause: "zones", detail, evidence, mute: &Mute::new() }, now);
        }
        self.opening(key, now);
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let change = entry.breaker.open_with_zones(reason, now, draw);
        self.decided(key, change, now)
    }

    /// A zone has opened by its own replicas' reports: others may follow.
    pub(super) fn spread(&mut self, key: &BreakerKey, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let others: Vec<BreakerKey> =
            self.zones(key).map(|(other, _)| other.clone()).filter(|other| other != key).collect();
        let mut effects = Vec::new();
        for (number, other) in others.iter().enumerate() {
            effects.extend(self.follow_zones(other, now, draw.of(number + 1)));
        }
        effects
    }

    /// Whether one more probe may be sent in this zone.
    fn has_room_for_probe(&self, key: &BreakerKey) -> bool {
        let (mut all, mut own, mut probing) = (0, 0, 0);
        for (other, zone) in self.zones(key) {
            let out = zone.breaker.permits_out();
            all += out;
            own += if other == key { out } else { 0 };
            probing += usize::from(zone.breaker.state() == FleetState::HalfOpen);
        }
        probing < 2 || (own == 0 && all < MOST_PROBES)
    }

    /// Issues what permits may be issued, in this zone and then in the others, which may have waited for it.
    pub(super) fn permits(&mut self, key: &BreakerKey, now: Timestamp) -> Vec<Effect> {
        if now < self.first_permit {
            return Vec::new();
        }
        let others =
            self.zones(key).filter(|(other, zone)| *other != key && zone.breaker.state() == FleetState::HalfOpen);
        let keys: Vec<BreakerKey> = std::iter::once(key).chain(others.map(|(other, _)| other)).cloned().collect();
        let ttl = self.limits.permit_ttl;
        let mut effects = Vec::new();
        for key in keys {
            while self.has_room_for_probe(&key) {
                let Some(entry) = self.entries.get_mut(&key) else { break };
                let Some(fence) = entry.newest.as_ref().map(|newest| newest.fence) else { break };
                let Some(member) = entry.breaker.issue(self.next_permit, ttl, now) else { break };
                let id = self.next_permit;
                self.next_permit += 1;
                effects.push(Effect::Permit { key: key.clone(), member, id, fence, ttl });
            }
        }
        effects
    }
}
