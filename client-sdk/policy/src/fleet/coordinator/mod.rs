//! Everything that the control plane decides by itself: who is there, what their reports open, in which order verdicts go out,
//! who may probe.
//!
//! Messages, time and draws come in, [`Effect`]s go out. The control plane's owner task drives it and does what the effects ask;
//! the struct that runs is the struct that is model-checked. What operators decide (overrides) is not in here: it is above.

mod adopt;
mod effect;
pub(super) mod guards;
mod high_water;
mod limits;
mod members;
mod mode;
mod record;
mod report;
mod room;
mod term;
pub(super) mod zones;

use std::collections::{BTreeMap, BTreeSet};

use self::{adopt::Claims, members::Callers, record::Records, room::Room};
pub use self::{
    adopt::Holding,
    effect::{Decision, Effect, Recipients, Sighting},
    guards::Guard,
    limits::Limits,
    mode::{Mode, Suspicion},
    record::{Record, Witness},
    room::NoRoom,
};
use super::{
    BreakerKey,
    evidence::MemberId,
    gate::ProbeId,
    held::Fence,
    key::CallerId,
    shared::{FleetState, ProbeResult, Settings, SharedBreaker, View},
    term::RunId,
};
use crate::{Draw, Timestamp, Zone};

/// A shared breaker, and what was last said about it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Entry {
    breaker: SharedBreaker,
    newest: Option<Decision>,
    claims: Claims,
    records: Records,
    /// Since when no replica holds it. `None` while one does.
    deserted: Option<Timestamp>,
    /// Its verdict is of a term that was left behind, and is told no more: when the last lease of it has ended.
    lapses: Option<Timestamp>,
}

/// What the control plane knows and decides about all breakers.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Coordinator {
    limits: Limits,
    mode: Mode,
    term: u64,
    /// The term that the run began in.
    began: u64,
    /// How often it has risen since.
    rises: u32,
    run: RunId,
    /// The services of which a replica was told of the term by this run.
    told: BTreeSet<CallerId>,
    rev: u64,
    next_permit: u64,
    next_record: u64,
    /// Records that were not taken yet.
    unwritten: BTreeMap<(BreakerKey, u64), Record>,
    callers: Callers,
    entries: BTreeMap<BreakerKey, Entry>,
    /// Before this no permit is given: see [`Coordinator::new`].
    first_permit: Timestamp,
    room: Room,
    /// The newest transition of each run of a replica. It outlives sessions, since a replica tells again what it is not sure of.
    transitions: BTreeMap<(CallerId, MemberId), u64>,
}

impl Coordinator {
    /// Nobody is there, nothing is decided. `term` has been committed, and no run of the store that it knows of had it. `run` is new.
    ///
    /// It learns at first, unless the term is the first of its store: then there was no run that it could know of. There may have been
    /// one all the same, whose store was wiped, and that shows only when a replica connects that has seen it. Verdicts of such a run end
    /// with their leases, or are continued then; its permits must have ended before others are given.
    #[must_use]
    pub fn new(term: u64, run: RunId, now: Timestamp, limits: Limits) -> Self {
        let mode = if term <= 1 { Mode::Deciding } else { Mode::Learning { until: now.plus(limits.learning()) } };
        Self {
            limits,
            mode,
            term,
            began: term,
            rises: 0,
            run,
            told: BTreeSet::new(),
            rev: 0,
            next_permit: 1,
            next_record: 1,
            unwritten: BTreeMap::new(),
            callers: Callers::new(),
            entries: BTreeMap::new(),
            first_permit: now.plus(limits.permit_ttl),
            room: Room::new(),
            transitions: BTreeMap::new(),
        }
    }

    /// The times and bounds.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// Whether it may decide.
    #[must_use]
    pub const fn mode(&self) -> Mode {
        self.mode
    }

    /// The newest number within the run.
    #[must_use]
    pub const fn rev(&self) -> u64 {
        self.rev
    }

    /// The next place in the order of everything that is told.
    pub const fn next_fence(&mut self) -> Fence {
        self.rev += 1;
        Fence { term: self.term, rev: self.rev }
    }

    /// The number up to which verdicts of the run are renewed by a heartbeat. 0 while frozen: leases end.
    #[must_use]
    pub const fn renewable(&self) -> u64 {
        match self.mode {
            Mode::Frozen { .. } => 0,
            Mode::Learning { .. } | Mode::Deciding => self.rev,
        }
    }

    /// A replica has connected. Whoever had its place has left before.
    pub fn join(&mut self, caller: &CallerId, member: &MemberId, zone: Option<&Zone>, now: Timestamp) {
        self.callers.join(caller, member.clone(), zone.cloned(), &self.limits, now);
        self.tells(caller);
    }

    /// A replica has gone.
    pub fn leave(&mut self, caller: &CallerId, member: &MemberId, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let keys = self.callers.leave(caller, member, &self.limits, now);
        let mut effects = if self.callers.mass_disconnect(&self.limits, now) {
            self.suspect(Suspicion::MassDisconnect, now)
        } else {
            Vec::new()
        };
        for key in keys {
            effects.extend(self.dropped(&key, member, now, draw));
        }
        effects
    }

    /// A replica holds a breaker no longer.
    pub fn drop_key(&mut self, key: &BreakerKey, member: &MemberId, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let held = self
            .callers
            .replica_mut(&key.caller_id(), member)
            .is_some_and(|replica| replica.keys.remove(key).is_some());
        if held { self.dropped(key, member, now, draw) } else { Vec::new() }
    }

    fn dropped(&mut self, key: &BreakerKey, member: &MemberId, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(key) else {
            return Vec::new();
        };
        entry.breaker.leave(member, now);
        // What nobody holds is remembered for one lease: a replica that was cut off may come back with an older verdict in force, and must
        // be told; and who comes first is not taken for all.
        let state = entry.breaker.state();
        if self.callers.holders(key).next().is_none() {
            entry.deserted = Some(now);
        }
        match state {
            FleetState::HalfOpen => self.advance(key, now, draw),
            FleetState::Released
            | FleetState::Open
            | FleetState::Ramp
            | FleetState::ForcedOpen
            | FleetState::ForcedClosed
            | FleetState::Disabled => Vec::new(),
        }
    }

    /// What the policy in force says about a breaker. Verdicts about an older revision are void.
    pub fn configure(&mut self, key: &BreakerKey, settings: Settings, now: Timestamp) -> Vec<Effect> {
        let Some(entry) = self.entries.get_mut(key) else {
            let breaker = SharedBreaker::new(settings, now);
            let entry = Entry {
                breaker,
                newest: None,
                claims: Claims::new(),
                records: Records::default(),
                deserted: Some(now),
                lapses: None,
            };
            self.entries.insert(key.clone(), entry);
            self.room.taken(key);
            return Vec::new();
        };
        if entry.breaker.settings().policy_revision != settings.policy_revision {
            entry.newest = None;
            entry.lapses = None;
        }
        match entry.breaker.configure(settings, now) {
            Some(change) => vec![self.log(key, change, None, now)],
            None => Vec::new(),
        }
    }

    /// No policy knows the breaker any more.
    pub fn forget(&mut self, key: &BreakerKey) {
        self.remove(key);
        self.callers.forget(key);
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
        let foreign = entry.newest.as_ref().is_none_or(|newest| newest.fence.term != probe.term);
        if foreign || self.mode != Mode::Deciding {
            return Vec::new();
        }
        match entry.breaker.probe_outcome(member, probe.id, result, now, draw) {
            Some(change) => {
                let mut effects = self.decided(key, change, now);
                effects.extend(self.permits(key, now));
                effects
            }
            None => self.advance(key, now, draw),
        }
    }

    /// When [`Coordinator::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match self.mode {
            Mode::Learning { until } => self.entries.values().filter_map(|entry| entry.lapses).chain([until]).min(),
            Mode::Frozen { until, .. } => Some(until),
            Mode::Deciding => {
                let ends =
                    |entry: &Entry| entry.breaker.next_deadline().into_iter().chain(self.forgotten_at(entry)).min();
                self.entries.values().filter_map(ends).min()
            }
        }
    }

    /// Makes happen what is due.
    pub fn tick(&mut self, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let mut effects = match self.mode {
            Mode::Learning { until } => {
                let mut effects = self.lapse(|entry| entry.lapses.is_some_and(|at| now >= at), now);
                if now >= until {
                    effects.extend(self.learned());
                }
                effects
            }
            Mode::Frozen { until, .. } if now >= until => self.thaw(now),
            Mode::Frozen { .. } | Mode::Deciding => Vec::new(),
        };
        self.forget_deserted(now);
        let due: Vec<BreakerKey> = self
            .entries
            .iter()
            .filter(|(_, entry)| entry.breaker.next_deadline().is_some_and(|at| at <= now))
            .map(|(key, _)| key.clone())
            .collect();
        for (number, key) in due.iter().enumerate() {
            effects.extend(self.advance(key, now, draw.of(number)));
        }
        effects
    }

    /// There is reason not to trust what is known: nothing is issued or renewed until all leases have ended, and then it learns
    /// again.
    pub fn suspect(&mut self, suspicion: Suspicion, now: Timestamp) -> Vec<Effect> {
        let until = now.plus(self.limits.lease);
        match &mut self.mode {
            Mode::Frozen { suspicion: known, until: end } if *known == suspicion => {
                *end = until;
                Vec::new()
            }
            Mode::Frozen { .. } | Mode::Learning { .. } | Mode::Deciding => {
                self.enter(Mode::Frozen { suspicion, until })
            }
        }
    }

    /// Whatever a former run had out has ended.
    fn learned(&mut self) -> Vec<Effect> {
        for entry in self.entries.values_mut() {
            entry.claims = Claims::new();
        }
        self.enter(Mode::Deciding)
    }

    /// All leases have ended, and what replicas said before and during the freeze may be as old as it. That all is released is told
    /// again, so that nobody goes on with what it holds because leases are renewed once more.
    fn thaw(&mut self, now: Timestamp) -> Vec<Effect> {
        let mut effects = self.lapse(|_| true, now);
        effects.extend(self.enter(Mode::Learning { until: now.plus(self.limits.learning()) }));
        effects
    }

    /// The leases of these breakers' verdicts have ended.
    fn lapse(&mut self, which: impl Fn(&Entry) -> bool, now: Timestamp) -> Vec<Effect> {
        let mut effects = Vec::new();
        let keys = self.entries.iter().filter(|(_, entry)| which(entry)).map(|(key, _)| key.clone());
        for key in keys.collect::<Vec<_>>() {
            let Some(entry) = self.entries.get_mut(&key) else { continue };
            entry.lapses = None;
            if let Some(change) = entry.breaker.lapse(now) {
                effects.extend(self.decided(&key, change, now));
            }
        }
        effects
    }

    fn enter(&mut self, mode: Mode) -> Vec<Effect> {
        let from = std::mem::replace(&mut self.mode, mode);
        vec![Effect::Mode { from, to: mode }]
    }

    /// The breakers that are known.
    pub fn keys(&self) -> impl Iterator<Item = &BreakerKey> {
        self.entries.keys()
    }

    /// Those of them that replicas hold, or about which something was decided.
    pub fn shown_keys(&self) -> impl Iterator<Item = &BreakerKey> {
        let shown = |entry: &Entry| entry.deserted.is_none() || entry.newest.is_some();
        self.entries.iter().filter(move |(_, entry)| shown(entry)).map(|(key, _)| key)
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
        let replica = self.callers.get(caller).and_then(|found| found.replicas.get(member));
        replica.into_iter().flat_map(|replica| replica.keys.keys())
    }

    /// What operators see of a breaker.
    #[must_use]
    pub fn view(&self, key: &BreakerKey, now: Timestamp) -> Option<View> {
        self.entries.get(key).map(|entry| entry.breaker.view(now))
    }

    /// Why things were decided about a breaker, or held back, oldest first.
    pub fn explain(&self, key: &BreakerKey) -> impl Iterator<Item = &Record> {
        self.entries.get(key).into_iter().flat_map(|entry| entry.records.iter())
    }

    /// Makes happen what is due for one breaker, if anything may be decided.
    fn advance(&mut self, key: &BreakerKey, now: Timestamp, draw: Draw) -> Vec<Effect> {
        if self.mode != Mode::Deciding {
            return Vec::new();
        }
        let change = self.entries.get_mut(key).and_then(|entry| entry.breaker.advance(now, draw));
        let mut effects = change.map(|change| self.decided(key, change, now)).unwrap_or_default();
        effects.extend(self.permits(key, now));
        effects.extend(self.canvass_more(key, now));
        effects
    }
}
