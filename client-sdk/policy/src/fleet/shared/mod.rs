//! The machine of one breaker that replicas share: what is decided about it, not whether it may be decided now.
//!
//! Released until the replicas' reports meet a rule; then open for the breaker's own delay, grown by each further opening; then
//! half-open with the breaker's own probe numbers, counted over the whole fleet; released when enough probes succeeded. Losing
//! members, silence and time alone never open it. Only the [`Coordinator`](super::coordinator::Coordinator) drives it: it numbers
//! verdicts and permits, and holds openings back.

mod probes;

use std::{fmt, sync::Arc, time::Duration};

use self::probes::Probes;
use super::{
    evidence::{Evidence, Member, MemberId, Members, Report},
    rule::{self, Met},
    spec::{Coordination, CoordinationMode},
};
use crate::{Draw, Revision, Timestamp, Zone, breaker::BreakerSpec};

/// What the fleet has decided.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum FleetState {
    /// Nothing: each replica's own breaker decides.
    #[default]
    Released,
    /// All replicas refuse.
    Open,
    /// Only calls with a probe permit pass.
    HalfOpen,
    /// A share of calls passes.
    Ramp,
    /// An operator refuses all calls.
    ForcedOpen,
    /// An operator lets all calls pass.
    ForcedClosed,
}

impl FleetState {
    /// In lower case with underscores, as it is shown everywhere.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Released => "released",
            Self::Open => "open",
            Self::HalfOpen => "half_open",
            Self::Ramp => "ramp",
            Self::ForcedOpen => "forced_open",
            Self::ForcedClosed => "forced_closed",
        }
    }
}

impl fmt::Display for FleetState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// What a policy says about the breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Rules and numbers of the breaker itself.
    pub breaker: Arc<BreakerSpec>,
    /// How it is shared.
    pub coordination: Coordination,
    /// Revision of the policy. Verdicts are void for any other.
    pub policy_revision: Revision,
}

/// What became of a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ProbeResult {
    /// The call succeeded.
    Success,
    /// The call failed.
    Failure,
    /// Nothing was learned; the permit goes back.
    Inconclusive,
}

/// A change of state, for whoever tells and logs it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Change {
    /// Before.
    pub(super) from: FleetState,
    /// After.
    pub(super) to: FleetState,
    /// One word, as in [`Effect::Transition`](super::coordinator::Effect).
    pub(super) cause: &'static str,
    /// Numbers in words.
    pub(super) reason: String,
}

/// What operators see.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct View {
    /// The state.
    pub state: FleetState,
    /// How long in it.
    pub since: Duration,
    /// While open: until probes.
    pub half_open_in: Option<Duration>,
    /// Why, in words.
    pub reason: String,
    /// The numbers now.
    pub evidence: Evidence,
    /// Permits issued in this half-open period and not returned unused.
    pub probes_issued: u32,
    /// Successes in this half-open period.
    pub probes_succeeded: u32,
    /// The replicas.
    pub members: Vec<MemberView>,
}

/// What operators see of one replica.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MemberView {
    /// Which.
    pub member: MemberId,
    /// Its zone.
    pub zone: Option<Zone>,
    /// Its newest report.
    pub report: Report,
    /// Whether it has a vote.
    pub eligible: bool,
}

/// Least time between two canvasses of one breaker: the deadline for their answers.
const CANVASS_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum State {
    Released,
    Open { until: Timestamp },
    HalfOpen { probes: Probes },
}

/// One breaker, shared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SharedBreaker {
    settings: Settings,
    members: Members,
    state: State,
    since: Timestamp,
    reason: String,
    /// Openings without a release in between.
    reopened: u32,
    canvassed: Option<Timestamp>,
}

impl SharedBreaker {
    /// Released, nobody holds it.
    pub(super) const fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            settings,
            members: Members::new(),
            state: State::Released,
            since: now,
            reason: String::new(),
            reopened: 0,
            canvassed: None,
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
        }
    }

    /// While open: when probes begin.
    #[must_use]
    pub const fn half_open_at(&self) -> Option<Timestamp> {
        match self.state {
            State::Open { until } => Some(until),
            State::Released | State::HalfOpen { .. } => None,
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

    /// Probe permits that may be in use.
    #[must_use]
    pub fn permits_out(&self) -> usize {
        match &self.state {
            State::HalfOpen { probes } => probes.in_flight(),
            State::Released | State::Open { .. } => 0,
        }
    }

    /// Takes a changed policy: present verdicts are void, and reports of the older revision no longer count. Replicas drop the
    /// verdict by its revision themselves, so that none has to be sent.
    pub(super) fn configure(&mut self, settings: Settings, now: Timestamp) -> Option<Change> {
        if settings == self.settings {
            return None;
        }
        self.settings = settings;
        self.members.clear();
        self.reopened = 0;
        let reason = format!("the policy changed to revision {}", self.settings.policy_revision);
        (self.state() != FleetState::Released).then(|| self.enter(State::Released, "policy_change", reason, now))
    }

    /// Takes what a replica has seen. Says whether it has tripped anew.
    pub(super) fn observe(&mut self, id: &MemberId, zone: Option<&Zone>, report: Report, now: Timestamp) -> bool {
        let before = self.members.get(id);
        let tripped_anew = report.tripped() && before.is_none_or(|member| !member.report.tripped());
        let demand_at = if report.rejected > 0 { Some(now) } else { before.and_then(|member| member.demand_at) };
        let permits = before.map_or(0, |member| member.permits);
        self.members.insert(id.clone(), Member { zone: zone.cloned(), report, at: now, demand_at, permits });
        tripped_anew
    }

    /// Whether the others should be asked for their windows now. Remembers that they are.
    pub(super) fn canvass(&mut self, now: Timestamp) -> bool {
        let asks = self.members.len() > 1
            && self.settings.coordination.mode() != CoordinationMode::Local
            && self.canvassed.is_none_or(|last| now.since(last) >= CANVASS_INTERVAL);
        if asks {
            self.canvassed = Some(now);
        }
        asks
    }

    /// A replica has gone, or holds the breaker no longer. That alone never opens anything: the rest is judged again only when
    /// one of them reports.
    pub(super) fn leave(&mut self, id: &MemberId) {
        self.members.remove(id);
    }

    /// The numbers now, and the rule that they meet.
    pub(super) fn judge(&self, now: Timestamp) -> (Evidence, Option<Met>) {
        let Settings { breaker, coordination, .. } = &self.settings;
        rule::judge(&self.members, breaker, coordination, now)
    }

    /// Opens on a rule that is met.
    pub(super) fn open_on(&mut self, met: Met, evidence: &Evidence, now: Timestamp, draw: Draw) -> Change {
        let (cause, reason) = met.words(evidence);
        self.open(cause, reason, now, draw)
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
        if successes >= half_open.successes {
            self.reopened = 0;
            let reason = format!("{successes} of {} probes succeeded", half_open.probes);
            return Some(self.enter(State::Released, "probe_ok", reason, now));
        }
        if failures > half_open.probes - half_open.successes {
            let reason = format!("{failures} of at most {} probes failed", half_open.probes);
            return Some(self.open("probe_failed", reason, now, draw));
        }
        None
    }

    /// When [`SharedBreaker::advance`] or [`SharedBreaker::issue`] has something to do.
    pub(super) fn next_deadline(&self) -> Option<Timestamp> {
        match &self.state {
            State::Released => None,
            State::Open { until } => Some(*until),
            State::HalfOpen { probes } => {
                let limit = self.settings.breaker.half_open().max_duration.map(|limit| self.since.plus(limit));
                probes.next_lost().into_iter().chain(limit).min()
            }
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
                for member in self.members.values_mut() {
                    member.permits = 0;
                }
                let reason = "the open time is over".to_owned();
                let state = State::HalfOpen { probes: Probes::default() };
                Some(self.enter(state, "delay_elapsed", reason, now))
            }
            State::HalfOpen { probes } => {
                probes.lose(now);
                let limit = self.settings.breaker.half_open().max_duration?;
                (now >= self.since.plus(limit))
                    .then(|| self.open("probes_timed_out", "the probes took too long".to_owned(), now, draw))
            }
        }
    }

    /// Issues the permit that may be issued next, if there is one: to the replica with demand that has had the fewest so far.
    pub(super) fn issue(&mut self, id: u64, ttl: Duration, now: Timestamp) -> Option<MemberId> {
        let half_open = self.settings.breaker.half_open();
        let State::HalfOpen { probes } = &mut self.state else {
            return None;
        };
        probes.issue(&mut self.members, half_open, id, ttl, now)
    }

    /// What operators see.
    pub(super) fn view(&self, now: Timestamp) -> View {
        let (evidence, _) = self.judge(now);
        let (probes_issued, probes_succeeded) = match &self.state {
            State::HalfOpen { probes } => (probes.issued(), probes.successes()),
            State::Released | State::Open { .. } => (0, 0),
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

    fn open(&mut self, cause: &'static str, reason: String, now: Timestamp, draw: Draw) -> Change {
        let until = now.plus(self.settings.breaker.open_for(self.reopened, draw));
        self.reopened = self.reopened.saturating_add(1);
        self.enter(State::Open { until }, cause, reason, now)
    }

    fn enter(&mut self, state: State, cause: &'static str, reason: String, now: Timestamp) -> Change {
        let from = self.state();
        self.state = state;
        self.since = now;
        self.reason.clone_from(&reason);
        Change { from, to: self.state(), cause, reason }
    }
}
