//! The machine of one breaker that replicas share: what is decided about it, not whether it may be decided now.
//!
//! Released until the replicas' reports meet a rule; then open for the breaker's own delay, grown by each further opening; then
//! half-open with the breaker's own probe numbers, counted over the whole fleet; when enough probes succeeded released, by way of
//! a ramp if the policy asks for one. The growth is forgotten when it has stayed released for as long as it may be open at most,
//! and a minute at least. Losing members, silence and time alone never open it. Only the
//! [`Coordinator`](super::coordinator::Coordinator) drives it: it numbers verdicts and permits, and holds openings back.

mod canvass;
mod probes;
pub(super) mod ramp;
mod reports;
mod shown;
mod state;

use std::{collections::BTreeMap, time::Duration};

pub(super) use self::state::{Change, Inherited};
pub use self::state::{FleetState, MemberView, ProbeResult, Settings, View};
use self::{
    canvass::Canvass,
    probes::Probes,
    ramp::{Next, Ramp},
};
use super::{
    evidence::{Evidence, MemberId, Members},
    invariants::{Invariant, s4_probe_bound},
    rule::{Lost, Met},
    tally::Tally,
};
use crate::{Draw, InstanceId, Timestamp};

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Released,
    Open { until: Timestamp },
    HalfOpen { probes: Probes },
    Ramp(Ramp),
}

/// One breaker, shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedBreaker {
    settings: Settings,
    members: Members,
    /// What all of them said when they last reported.
    told: Tally,
    /// Replicas that have gone, when they last reported, and how they count for a while.
    lost: BTreeMap<InstanceId, (Timestamp, Lost)>,
    state: State,
    since: Timestamp,
    reason: String,
    /// Openings without a stable release in between.
    reopened: u32,
    canvass: Canvass,
    /// When it left released.
    opened: Option<Timestamp>,
    /// When it was last released.
    released: Option<Timestamp>,
    /// Whether it was opened by what its own replicas reported, and not by what other zones did.
    own: bool,
    /// Until when permits of former half-open periods may be used: their holders may not have heard that those are over.
    outstanding: Vec<Timestamp>,
    /// The present step of the ramp has lasted long enough, and waits for reports.
    ramp_judged: bool,
}

/// The shortest release after which an opening is taken for a new trouble.
const STABLE: Duration = Duration::from_secs(60);

impl SharedBreaker {
    /// Released, nobody holds it.
    pub(super) const fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            settings,
            members: Members::new(),
            told: Tally::ZERO,
            lost: BTreeMap::new(),
            state: State::Released,
            since: now,
            reason: String::new(),
            reopened: 0,
            canvass: Canvass::new(),
            opened: None,
            released: None,
            own: false,
            outstanding: Vec::new(),
            ramp_judged: false,
        }
    }

    /// The settings in force.
    #[must_use]
    pub const fn settings(&self) -> &Settings {
        &self.settings
    }

    /// The present state.
    #[must_use]
    pub const fn state(&self) -> FleetState {
        match self.state {
            State::Released => FleetState::Released,
            State::Open { .. } => FleetState::Open,
            State::HalfOpen { .. } => FleetState::HalfOpen,
            State::Ramp(_) => FleetState::Ramp,
        }
    }

    /// How many of a thousand calls its verdict lets pass.
    #[must_use]
    pub fn admit_permille(&self) -> u32 {
        match &self.state {
            State::Released => 1000,
            State::Open { .. } | State::HalfOpen { .. } => 0,
            State::Ramp(ramp) => ramp.permille(),
        }
    }

    /// While open: when probes begin.
    #[must_use]
    pub const fn half_open_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until } => Some(until),
            State::Released | State::HalfOpen { .. } | State::Ramp(_) => None,
        }
    }

    /// Why it is in the present state, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// What its replicas have reported.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// Takes a changed policy: present verdicts are void, and reports of the older revision no longer count. Replicas drop the
    /// verdict by its revision themselves, so that none has to be sent.
    pub(super) fn configure(&mut self, settings: Settings, now: Timestamp) -> Option<Change> {
        if settings == self.settings {
            return None;
        }
        self.settings = settings;
        self.members.clear();
        self.canvass.end();
        self.told = Tally::ZERO;
        self.reopened = 0;
        let reason = format!("the policy changed to revision {}", self.settings.policy_revision);
        (self.state() != FleetState::Released).then(|| self.enter(State::Released, "policy_change", reason, now))
    }

    /// Goes on as a former run left it. Nothing is decided anew: its probes begin afresh, its ramp at the first step.
    pub(super) fn inherit(&mut self, inherited: Inherited, reason: String, now: Timestamp) -> Change {
        self.reopened = self.reopened.max(1);
        let state = match inherited {
            Inherited::Released => State::Released,
            Inherited::Open(left) => State::Open { until: now.plus(left.min(self.settings.breaker.delay_max())) },
            Inherited::HalfOpen => self.half_open(),
            Inherited::Ramp => State::Ramp(Ramp::new(now)),
        };
        self.enter(state, "adopted", reason, now)
    }

    /// What it would take to go on in a new term, which is learned in first. What waits for permits does not go on.
    pub(super) fn inheritance(&self, now: Timestamp) -> Option<Inherited> {
        match self.state {
            State::Open { until } if now < until => Some(Inherited::Open(now.until(until))),
            State::Released | State::Open { .. } | State::HalfOpen { .. } | State::Ramp(_) => None,
        }
    }

    /// The leases of all its verdicts have ended, and what its replicas had said is old.
    pub(super) fn lapse(&mut self, now: Timestamp) -> Option<Change> {
        let reason = "all leases have ended".to_owned();
        let lapsed = self.state() != FleetState::Released;
        let change = lapsed.then(|| self.enter(State::Released, "leases_lapsed", reason, now));
        self.members.clear();
        self.canvass.end();
        self.told = Tally::ZERO;
        self.lost.clear();
        change
    }

    /// Opens on a rule that its own replicas meet.
    pub(super) fn open_on(&mut self, met: Met, evidence: Evidence, now: Timestamp, draw: Draw) -> Change {
        let (cause, reason) = met.words(&evidence);
        let change = self.open(cause, reason, now, draw);
        self.own = true;
        Change { evidence, ..change }
    }

    /// Opens since other zones are open.
    pub(super) fn open_with_zones(&mut self, reason: String, now: Timestamp, draw: Draw) -> Change {
        let change = self.open("zones", reason, now, draw);
        self.own = false;
        change
    }

    /// Takes the outcome of a probe. Only permits that are in flight with this replica count, each once.
    pub(super) fn probe_outcome(
        &mut self,
        member: &MemberId,
        permit: u64,
        result: ProbeResult,
        now: Timestamp,
        draw: Draw,
    ) -> Option<Change> {
        let half_open = self.settings.breaker.half_open();
        let State::HalfOpen { probes } = &mut self.state else {
            return None;
        };
        let (successes, failures) = probes.record(member, permit, result)?;
        // Whoever gives a permit back gets the next one when it has reported demand anew: to hand it the same one again at once would
        // go on for as long as it can't use it.
        if result == ProbeResult::Inconclusive
            && let Some(own) = self.members.get_mut(member)
        {
            own.demand_at = None;
        }
        if probes.suffice(&self.members, half_open, now) {
            let reason = format!("{successes} of {} probes succeeded: {}", half_open.probes, probes.succeeded_at());
            let ramps = self.settings.breaker.ramp().is_some();
            let state = if ramps { State::Ramp(Ramp::new(now)) } else { State::Released };
            return Some(self.enter(state, "probe_ok", reason, now));
        }
        if failures > half_open.probes - half_open.successes {
            let reason = format!("{failures} of at most {} probes failed: {}", half_open.probes, probes.failed_at());
            return Some(self.open("probe_failed", reason, now, draw));
        }
        None
    }

    /// When [`SharedBreaker::advance`] or [`SharedBreaker::issue`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        match &self.state {
            State::Released => self.canvass.deadline(),
            State::Open { until } => Some(*until),
            State::HalfOpen { probes } => {
                let limit = self.settings.breaker.half_open().max_duration.map(|limit| self.since.plus(limit));
                probes.next_lost().into_iter().chain(limit).chain(self.outstanding.iter().copied()).min()
            }
            // From then on it waits for reports.
            State::Ramp(ramp) => Some(ramp.due(&self.settings.breaker)).filter(|_| !self.ramp_judged),
        }
    }

    /// Makes happen what is due.
    pub(super) fn advance(&mut self, now: Timestamp, draw: Draw) -> Option<Change> {
        match &mut self.state {
            State::Released => None,
            State::Open { until } => {
                if now < *until {
                    return None;
                }
                let reason = "the open time is over".to_owned();
                let state = self.half_open();
                Some(self.enter(state, "delay_elapsed", reason, now))
            }
            State::HalfOpen { probes } => {
                probes.lose(now);
                self.outstanding.retain(|usable| now < *usable);
                let limit = self.settings.breaker.half_open().max_duration?;
                (now >= self.since.plus(limit))
                    .then(|| self.open("probes_timed_out", "the probes took too long".to_owned(), now, draw))
            }
            State::Ramp(ramp) => {
                let ramp = *ramp;
                self.climb(ramp, now, draw)
            }
        }
    }

    fn climb(&mut self, ramp: Ramp, now: Timestamp, draw: Draw) -> Option<Change> {
        let (evidence, met) = self.judge(now);
        let numbers = format!("{} of {} pooled calls failed", evidence.pooled_failures, evidence.pooled_calls);
        let at = ramp.permille();
        if met.is_some() {
            return Some(self.open("ramp_failed", format!("{numbers} at {at} permille"), now, draw));
        }
        match ramp.next(&self.settings.breaker, &evidence, now) {
            Next::Stay => {
                self.ramp_judged = now >= ramp.due(&self.settings.breaker);
                None
            }
            Next::Step(next) => {
                let to = next.permille();
                let cause = if to > at { "ramp_up" } else { "ramp_down" };
                Some(self.enter(State::Ramp(next), cause, format!("{numbers}: from {at} to {to} permille"), now))
            }
            Next::Release => Some(self.enter(State::Released, "ramp_done", numbers, now)),
            Next::Open => {
                Some(self.open("ramp_failed", format!("{numbers} at {at} permille, twice in a row"), now, draw))
            }
        }
    }

    /// Half-open from the beginning: nobody has had a permit.
    fn half_open(&mut self) -> State {
        for member in self.members.values_mut() {
            member.permits = 0;
        }
        State::HalfOpen { probes: Probes::default() }
    }

    /// Issues the permit that may be issued next, if there is one: to the replica with demand that has had the fewest so far.
    pub(super) fn issue(&mut self, id: u64, ttl: Duration, now: Timestamp) -> Option<MemberId> {
        let half_open = self.settings.breaker.half_open();
        let State::HalfOpen { probes } = &mut self.state else {
            return None;
        };
        let older = self.outstanding.iter().filter(|usable| now < **usable).count();
        let holder = probes.issue(&mut self.members, half_open, older, id, ttl, now);
        debug_assert!(s4_probe_bound(probes.in_flight(), half_open.concurrent_probes), "{}", Invariant::S4);
        holder
    }

    fn open(&mut self, cause: &'static str, reason: String, now: Timestamp, draw: Draw) -> Change {
        let stable = self.settings.breaker.delay_max().max(STABLE);
        if self.state() == FleetState::Released && self.released.is_none_or(|at| now.since(at) >= stable) {
            self.reopened = 0;
        }
        let delay = self.settings.breaker.open_for(self.reopened, draw);
        self.reopened = self.reopened.saturating_add(1);
        self.enter(State::Open { until: now.plus(delay) }, cause, reason, now)
    }

    fn enter(&mut self, state: State, cause: &'static str, reason: String, now: Timestamp) -> Change {
        let from = self.state();
        let evidence = self.judge(now).0;
        if let State::HalfOpen { probes } = &self.state {
            self.outstanding.extend(probes.usable());
        }
        self.outstanding.retain(|usable| now < *usable);
        self.state = state;
        self.since = now;
        self.canvass.end();
        self.ramp_judged = false;
        self.reason.clone_from(&reason);
        let to = self.state();
        match to {
            FleetState::Released => {
                self.opened = None;
                self.released = Some(now);
                self.own = false;
            }
            FleetState::Open
            | FleetState::HalfOpen
            | FleetState::Ramp
            | FleetState::ForcedOpen
            | FleetState::ForcedClosed
            | FleetState::Disabled => self.opened = self.opened.or(Some(now)),
        }
        if matches!(to, FleetState::Released | FleetState::Ramp) {
            // What replicas said before is no answer to this verdict: a fleet that has just closed is not opened by it.
            for member in self.members.values_mut() {
                member.report.current = false;
            }
        }
        Change { from, to, cause, reason, evidence }
    }
}
