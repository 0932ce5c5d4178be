//! Everything that the control plane decides by itself: who is there, what their reports open, in which order verdicts go out,
//! who may probe.
//!
//! Messages, time and draws come in, [`Effect`]s go out. The control plane's owner task drives it and does what the effects ask;
//! the struct that runs is the struct that is model-checked. What operators decide (overrides) is not in here: it is above.

mod effect;
mod limits;
mod members;

use std::collections::BTreeMap;

use self::members::Callers;
pub use self::{
    effect::{Decision, Effect, Recipients, Sighting},
    limits::Limits,
};
use super::{
    BreakerKey,
    evidence::{MemberId, Report},
    gate::ProbeId,
    held::Fence,
    key::CallerId,
    shared::{Change, FleetState, ProbeResult, Settings, SharedBreaker, View},
};
use crate::{Draw, Timestamp, Zone};

/// A shared breaker, and what was last said about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    breaker: SharedBreaker,
    newest: Option<Decision>,
}

/// What the control plane knows and decides about all breakers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    limits: Limits,
    term: u64,
    rev: u64,
    next_permit: u64,
    callers: Callers,
    entries: BTreeMap<BreakerKey, Entry>,
    /// The newest transition of each run of a replica. It outlives sessions, since a replica tells again what it is not sure of.
    transitions: BTreeMap<(CallerId, MemberId), u64>,
}

impl Coordinator {
    /// Nobody is there, nothing is decided. `term` has been committed, and no run before had it.
    #[must_use]
    pub const fn new(term: u64, limits: Limits) -> Self {
        Self {
            limits,
            term,
            rev: 0,
            next_permit: 1,
            callers: Callers::new(),
            entries: BTreeMap::new(),
            transitions: BTreeMap::new(),
        }
    }

    /// The times and bounds.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The run.
    #[must_use]
    pub const fn term(&self) -> u64 {
        self.term
    }

    /// The newest number within the run: every verdict up to it may be renewed.
    #[must_use]
    pub const fn rev(&self) -> u64 {
        self.rev
    }

    /// Goes on in a later term, which has been committed: a replica has seen one that is later than ours.
    pub fn raise_term(&mut self, term: u64) {
        debug_assert!(term > self.term, "S8: a term is used once");
        self.term = self.term.max(term);
    }

    /// A replica has connected. Whoever had its place has left before.
    pub fn join(&mut self, caller: &CallerId, member: &MemberId, zone: Option<&Zone>, now: Timestamp) {
        self.callers.join(caller, member.clone(), zone.cloned(), now);
    }

    /// A replica has gone.
    pub fn leave(&mut self, caller: &CallerId, member: &MemberId, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let mut effects = Vec::new();
        for key in self.callers.leave(caller, member) {
            effects.extend(self.dropped(&key, member, now, draw));
        }
        effects
    }

    /// A replica holds a breaker no longer.
    pub fn drop_key(&mut self, key: &BreakerKey, member: &MemberId, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let held = self.callers.replica_mut(&key.caller_id(), member).is_some_and(|replica| replica.keys.remove(key));
        if held { self.dropped(key, member, now, draw) } else { Vec::new() }
    }

    fn dropped(&mut self, key: &BreakerKey, member: &MemberId, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        entry.breaker.leave(member);
        // What nobody holds and nothing was decided about need not be remembered.
        if entry.breaker.state() == FleetState::Released && self.callers.holders(key).next().is_none() {
            self.entries.remove(key);
            return Vec::new();
        }
        match entry.breaker.state() {
            FleetState::HalfOpen => self.advance(key, now, draw),
            FleetState::Released
            | FleetState::Open
            | FleetState::Ramp
            | FleetState::ForcedOpen
            | FleetState::ForcedClosed => Vec::new(),
        }
    }

    /// Whether one more breaker of the key's service may be shared.
    #[must_use]
    pub fn has_room_for(&self, key: &BreakerKey) -> bool {
        let same = |other: &&BreakerKey| other.caller == key.caller;
        self.entries.contains_key(key) || self.entries.keys().filter(same).count() < self.limits.most_keys
    }

    /// What the policy in force says about a breaker. Verdicts about an older revision are void.
    pub fn configure(&mut self, key: &BreakerKey, settings: Settings, now: Timestamp) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(key) else {
            let breaker = SharedBreaker::new(settings, now);
            self.entries.insert(key.clone(), Entry { breaker, newest: None });
            return Vec::new();
        };
        if entry.breaker.settings().policy_revision != settings.policy_revision {
            entry.newest = None;
        }
        match entry.breaker.configure(settings, now) {
            Some(change) => vec![self.log(key, change, now)],
            None => Vec::new(),
        }
    }

    /// No policy knows the breaker any more.
    pub fn forget(&mut self, key: &BreakerKey) {
        self.entries.remove(key);
        self.callers.forget(key);
    }

    /// Takes what a replica has seen. Breakers that are not [configured](Coordinator::configure) and replicas that are not
    /// connected are ignored.
    pub fn report(
        &mut self,
        key: &BreakerKey,
        member: &MemberId,
        sighting: Sighting,
        now: Timestamp,
        draw: Draw,
    ) -> Vec<Effect> {
        let Sighting { report, policy_revision, held } = sighting;
        let (Some(entry), Some(replica)) =
            (self.entries.get_mut(key), self.callers.replica_mut(&key.caller_id(), member))
        else {
            return Vec::new();
        };
        let joins = replica.keys.insert(key.clone());
        let answers_newest = entry.newest.as_ref().is_none_or(|newest| newest.fence == held);
        let current = answers_newest && policy_revision == entry.breaker.settings().policy_revision;
        let tripped_anew = entry.breaker.observe(member, replica.zone.as_ref(), Report { current, ..report }, now);
        let mut effects = match entry.breaker.state() {
            FleetState::Released => self.judge(key, now, draw),
            FleetState::Open
            | FleetState::HalfOpen
            | FleetState::Ramp
            | FleetState::ForcedOpen
            | FleetState::ForcedClosed => self.advance(key, now, draw),
        };
        let Some(entry) = self.entries.get_mut(key) else {
            return effects;
        };
        if effects.is_empty() && tripped_anew && entry.breaker.canvass(now) {
            effects.push(Effect::Canvass { key: key.clone(), to: Recipients::HoldersBut(member.clone()) });
        }
        // Whoever is new, or has missed it, is told what holds.
        if (joins || !answers_newest)
            && let Some(decision) = entry.newest.clone()
            && !effects.iter().any(|effect| matches!(effect, Effect::Verdict { .. }))
        {
            effects.push(Effect::Verdict { key: key.clone(), to: Recipients::One(member.clone()), decision });
        }
        effects
    }

    /// Whether a numbered transition of a replica is one that has not been taken yet. Remembers that it is.
    pub fn transition_is_new(&mut self, caller: &CallerId, member: &MemberId, seq: u64) -> bool {
        let run = (caller.clone(), member.clone());
        if self.transitions.len() >= self.limits.most_runs && !self.transitions.contains_key(&run) {
            self.transitions.clear();
        }
        let newest = self.transitions.entry(run).or_default();
        let new = seq > *newest;
        *newest = seq.max(*newest);
        new
    }

    /// Takes the outcome of a probe, from the replica that was given the permit and no other.
    pub fn probe_outcome(
        &mut self,
        key: &BreakerKey,
        member: &MemberId,
        probe: ProbeId,
        result: ProbeResult,
        now: Timestamp,
        draw: Draw,
    ) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        if entry.newest.as_ref().is_none_or(|newest| newest.fence.term != probe.term) {
            return Vec::new();
        }
        match entry.breaker.probe_outcome(member, probe.id, result, now, draw) {
            Some(change) => self.decided(key, change, now),
            None => self.advance(key, now, draw),
        }
    }

    /// When [`Coordinator::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        self.entries.values().filter_map(|entry| entry.breaker.next_deadline()).min()
    }

    /// Makes happen what is due.
    pub fn tick(&mut self, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let due: Vec<BreakerKey> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.breaker.next_deadline().is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        let mut effects = Vec::new();
        for (number, key) in due.iter().enumerate() {
            effects.extend(self.advance(key, now, draw.of(number)));
        }
        effects
    }

    /// The breakers that are known.
    pub fn keys(&self) -> impl Iterator<Item = &BreakerKey> {
        self.entries.keys()
    }

    /// The machine of a breaker.
    #[must_use]
    pub fn breaker(&self, key: &BreakerKey) -> Option<&SharedBreaker> {
        self.entries.get(key).map(|entry| &entry.breaker)
    }

    /// The newest verdict about a breaker.
    #[must_use]
    pub fn newest(&self, key: &BreakerKey) -> Option<&Decision> {
        self.entries.get(key)?.newest.as_ref()
    }

    /// The replicas that hold a breaker.
    pub fn holders<'a>(&'a self, key: &'a BreakerKey) -> impl Iterator<Item = &'a MemberId> {
        self.callers.holders(key)
    }

    /// The breakers that a replica holds.
    pub fn held_by<'a>(
        &'a self,
        caller: &CallerId,
        member: &MemberId,
    ) -> impl Iterator<Item = &'a BreakerKey> + use<'a> {
        self.callers.replica(caller, member).into_iter().flat_map(|replica| &replica.keys)
    }

    /// What operators see of a breaker.
    #[must_use]
    pub fn view(&self, key: &BreakerKey, now: Timestamp) -> Option<View> {
        self.entries.get(key).map(|entry| entry.breaker.view(now))
    }

    /// Opens if the reports meet a rule.
    fn judge(&mut self, key: &BreakerKey, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let (evidence, met) = entry.breaker.judge(now);
        let Some(met) = met else {
            return Vec::new();
        };
        let change = entry.breaker.open_on(met, &evidence, now, draw);
        self.decided(key, change, now)
    }

    /// Makes happen what is due for one breaker.
    fn advance(&mut self, key: &BreakerKey, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let change = self.entries.get_mut(key).and_then(|entry| entry.breaker.advance(now, draw));
        let mut effects = change.map(|change| self.decided(key, change, now)).unwrap_or_default();
        effects.extend(self.permits(key, now));
        effects
    }

    /// Issues what permits may be issued.
    fn permits(&mut self, key: &BreakerKey, now: Timestamp) -> Vec<Effect> {
        let ttl = self.limits.permit_ttl;
        let Some(Entry { breaker, newest: Some(newest) }) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        while let Some(member) = breaker.issue(self.next_permit, ttl, now) {
            let id = self.next_permit;
            self.next_permit += 1;
            effects.push(Effect::Permit { key: key.clone(), member, id, fence: newest.fence, ttl });
        }
        effects
    }

    /// Numbers a change, and tells and logs it.
    fn decided(&mut self, key: &BreakerKey, change: Change, now: Timestamp) -> Vec<Effect> {
        self.rev += 1;
        let fence = Fence { term: self.term, rev: self.rev };
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        let decision = Decision {
            fence,
            state: change.to,
            admit_permille: if change.to == FleetState::Released { 1000 } else { 0 },
            half_open_at: entry.breaker.half_open_at(),
            policy_revision: entry.breaker.settings().policy_revision,
            reason: change.reason.clone(),
        };
        entry.newest = Some(decision.clone());
        vec![self.log(key, change, now), Effect::Verdict { key: key.clone(), to: Recipients::Holders, decision }]
    }

    fn log(&self, key: &BreakerKey, change: Change, now: Timestamp) -> Effect {
        let Change { from, to, cause, reason } = change;
        let evidence = self.entries.get(key).map(|entry| entry.breaker.judge(now).0).unwrap_or_default();
        Effect::Transition { key: key.clone(), from, to, cause, detail: reason, evidence }
    }
}
