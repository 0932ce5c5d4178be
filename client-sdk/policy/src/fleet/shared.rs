//! The control plane's machine of one breaker that replicas share.
//!
//! Released until the replicas' reports meet a rule; then open for the breaker's own delay, grown by each further opening; then
//! half-open with the breaker's own probe numbers, counted over the whole fleet; released when enough probes succeeded. Losing
//! members, silence and time alone never open it.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

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
#[derive(Clone, Debug, PartialEq, Eq)]
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

/// What must be done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Tell every replica that holds the breaker.
    Verdict {
        /// The state.
        state: FleetState,
        /// While open: until probes.
        half_open_in: Option<Duration>,
        /// Why, in words.
        reason: String,
    },
    /// Give one replica leave for one probe.
    Permit {
        /// Whom.
        member: MemberId,
        /// Number, unique in this machine.
        id: u64,
        /// How long it may be used.
        ttl: Duration,
    },
    /// Ask every replica that holds the breaker for its window now.
    Canvass,
    /// Log a change.
    Transition {
        /// Before.
        from: FleetState,
        /// After.
        to: FleetState,
        /// One word: `quorum`, `pooled`, `any`, `delay_elapsed`, `probe_ok`, `probe_failed`, `probes_timed_out`, `policy_change`.
        cause: &'static str,
        /// Numbers in words.
        detail: String,
    },
}

/// What operators see.
#[derive(Clone, Debug)]
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
#[derive(Clone, Debug)]
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

/// How long a permit may wait for a call. Short, since an idle holder keeps the fleet waiting; long enough that the next heartbeat,
/// which anchors it, is on its way.
pub const PERMIT_TTL: Duration = Duration::from_secs(3);
/// How long after its end a permit whose holder says nothing is counted as lost: its call may still run.
const PERMIT_LOST_AFTER: Duration = Duration::from_secs(15);
/// Demand that is older than this says little about whether the next second brings a call.
const DEMAND_LIFETIME: Duration = Duration::from_secs(3);
/// Least time between two canvasses of one breaker: the deadline for their answers.
const CANVASS_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Released,
    Open { until: Timestamp },
    HalfOpen { probes: Probes },
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Probes {
    /// Permit -> when it counts as lost. Each has been given once.
    in_flight: BTreeMap<u64, Timestamp>,
    /// Conclusive ones.
    successes: u32,
    failures: u32,
}

impl Probes {
    fn issued(&self) -> u32 {
        self.successes + self.failures + u32::try_from(self.in_flight.len()).unwrap_or(u32::MAX)
    }
}

/// One breaker, shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SharedBreaker {
    settings: Settings,
    members: Members,
    state: State,
    since: Timestamp,
    reason: String,
    /// Openings without a release in between.
    reopened: u32,
    next_permit: u64,
    canvassed: Option<Timestamp>,
}

impl SharedBreaker {
    /// Released, nobody holds it.
    #[must_use]
    pub fn new(settings: Settings, now: Timestamp) -> Self {
        Self {
            settings,
            members: Members::new(),
            state: State::Released,
            since: now,
            reason: String::new(),
            reopened: 0,
            next_permit: 1,
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

    /// While open: until probes.
    #[must_use]
    pub const fn half_open_in(&self, now: Timestamp) -> Option<Duration> {
        match self.state {
            State::Open { until } => Some(now.until(until)),
            State::Released | State::HalfOpen { .. } => None,
        }
    }

    /// Why it is in the present state, in words.
    #[must_use]
    pub fn reason(&self) -> &str {
        &self.reason
    }

    /// Nobody holds it: it may be forgotten.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        self.members.is_empty()
    }

    /// Takes a changed policy: present verdicts are void, and reports of the older revision no longer count. Replicas drop the
    /// verdict by its revision themselves, so that none has to be sent.
    pub fn configure(&mut self, settings: Settings, now: Timestamp) -> Vec<Effect> {
        if settings == self.settings {
            return Vec::new();
        }
        self.settings = settings;
        self.members.clear();
        self.reopened = 0;
        let from = self.state();
        if from == FleetState::Released {
            return Vec::new();
        }
        let reason = format!("the policy changed to revision {}", self.settings.policy_revision);
        self.enter(State::Released, "policy_change", reason.clone(), now)
            .into_iter()
            .filter(|effect| matches!(effect, Effect::Transition { .. }))
            .collect()
    }

    /// Takes what a replica has seen.
    pub fn report(
        &mut self,
        id: &MemberId,
        zone: Option<&Zone>,
        report: Report,
        now: Timestamp,
        draw: Draw,
    ) -> Vec<Effect> {
        let before = self.members.get(id);
        let tripped_anew = report.tripped() && before.is_none_or(|member| !member.report.tripped());
        // A replica that does not obey refuses nothing, and has calls all the same.
        let demand = report.rejected > 0 || (report.vetoed && report.calls > 0);
        let demand_at = if demand { Some(now) } else { before.and_then(|member| member.demand_at) };
        let permits = before.map_or(0, |member| member.permits);
        self.members.insert(id.clone(), Member { zone: zone.cloned(), report, at: now, demand_at, permits });
        match self.state {
            State::Released => {
                let opened = self.judge(now, draw);
                if opened.is_empty() && tripped_anew && self.may_canvass(now) {
                    self.canvassed = Some(now);
                    return vec![Effect::Canvass];
                }
                opened
            }
            State::Open { .. } | State::HalfOpen { .. } => self.tick(now, draw),
        }
    }

    fn may_canvass(&self, now: Timestamp) -> bool {
        self.members.len() > 1
            && self.settings.coordination.mode() != CoordinationMode::Local
            && self.canvassed.is_none_or(|last| now.since(last) >= CANVASS_INTERVAL)
    }

    /// A replica has gone, or holds the breaker no longer. That alone never opens anything: the rest is judged again only when
    /// one of them reports.
    pub fn leave(&mut self, id: &MemberId, now: Timestamp, draw: Draw) -> Vec<Effect> {
        self.members.remove(id);
        match self.state {
            State::Released | State::Open { .. } => Vec::new(),
            State::HalfOpen { .. } => self.tick(now, draw),
        }
    }

    /// Takes the outcome of a probe. Only permits that are in flight count, each once.
    pub fn probe_outcome(&mut self, permit: u64, result: ProbeResult, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let half_open = self.settings.breaker.half_open();
        let State::HalfOpen { probes } = &mut self.state else {
            return Vec::new();
        };
        if probes.in_flight.remove(&permit).is_none() {
            return Vec::new();
        }
        match result {
            ProbeResult::Success => probes.successes += 1,
            ProbeResult::Failure => probes.failures += 1,
            ProbeResult::Inconclusive => {}
        }
        let (successes, failures) = (probes.successes, probes.failures);
        if successes >= half_open.successes {
            self.reopened = 0;
            let reason = format!("{successes} of {} probes succeeded", half_open.probes);
            return self.enter(State::Released, "probe_ok", reason, now);
        }
        if failures > half_open.probes - half_open.successes {
            let reason = format!("{failures} of at most {} probes failed", half_open.probes);
            return self.open("probe_failed", reason, now, draw);
        }
        self.tick(now, draw)
    }

    /// When [`SharedBreaker::tick`] has something to do.
    #[must_use]
    pub fn next_deadline(&self) -> Option<Timestamp> {
        match &self.state {
            State::Released => None,
            State::Open { until } => Some(*until),
            State::HalfOpen { probes } => {
                let limit = self.settings.breaker.half_open().max_duration.map(|limit| self.since.plus(limit));
                probes.in_flight.values().copied().min().into_iter().chain(limit).min()
            }
        }
    }

    /// Makes happen what is due.
    pub fn tick(&mut self, now: Timestamp, draw: Draw) -> Vec<Effect> {
        match &mut self.state {
            State::Released => Vec::new(),
            State::Open { until } => {
                if now < *until {
                    return Vec::new();
                }
                for member in self.members.values_mut() {
                    member.permits = 0;
                }
                let reason = "the open time is over".to_owned();
                let state = State::HalfOpen { probes: Probes::default() };
                let mut effects = self.enter(state, "delay_elapsed", reason, now);
                effects.extend(self.permits(now));
                effects
            }
            State::HalfOpen { probes } => {
                probes.in_flight.retain(|_, lost_at| now < *lost_at);
                let limit = self.settings.breaker.half_open().max_duration;
                if limit.is_some_and(|limit| now >= self.since.plus(limit)) {
                    let reason = "the probes took too long".to_owned();
                    return self.open("probes_timed_out", reason, now, draw);
                }
                self.permits(now)
            }
        }
    }

    /// Issues what permits may be issued: to replicas with demand, those with the fewest so far first.
    fn permits(&mut self, now: Timestamp) -> Vec<Effect> {
        let half_open = self.settings.breaker.half_open();
        let State::HalfOpen { probes } = &mut self.state else {
            return Vec::new();
        };
        let mut effects = Vec::new();
        while probes.issued() < half_open.probes
            && probes.in_flight.len() < usize::try_from(half_open.concurrent_probes).unwrap_or(usize::MAX)
        {
            let demand = |member: &Member| member.demand_at.is_some_and(|at| now.since(at) <= DEMAND_LIFETIME);
            let next = self
                .members
                .iter_mut()
                .filter(|(_, member)| demand(member))
                .min_by_key(|(_, member)| (member.permits, std::cmp::Reverse(member.report.rejected)));
            let Some((id, member)) = next else {
                break;
            };
            member.permits += 1;
            let permit = self.next_permit;
            self.next_permit += 1;
            probes.in_flight.insert(permit, now.plus(PERMIT_TTL).plus(PERMIT_LOST_AFTER));
            effects.push(Effect::Permit { member: id.clone(), id: permit, ttl: PERMIT_TTL });
        }
        effects
    }

    /// What operators see.
    #[must_use]
    pub fn view(&self, now: Timestamp) -> View {
        let Settings { breaker, coordination, .. } = &self.settings;
        let (evidence, _) = rule::judge(&self.members, breaker, coordination, now);
        let (probes_issued, probes_succeeded) = match &self.state {
            State::HalfOpen { probes } => (probes.issued(), probes.successes),
            State::Released | State::Open { .. } => (0, 0),
        };
        View {
            state: self.state(),
            since: now.since(self.since),
            half_open_in: self.half_open_in(now),
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
                    eligible: rule::is_eligible(member, breaker, now),
                })
                .collect(),
        }
    }

    fn judge(&mut self, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let Settings { breaker, coordination, .. } = &self.settings;
        let (evidence, met) = rule::judge(&self.members, breaker, coordination, now);
        let Some(met) = met else {
            return Vec::new();
        };
        let (cause, reason) = match met {
            Met::Quorum { needed } => (
                "quorum",
                format!(
                    "{} of {} eligible replicas are open, {needed} needed",
                    evidence.open_voters, evidence.eligible
                ),
            ),
            Met::Pooled => (
                "pooled",
                format!(
                    "{} of {} pooled calls of {} replicas failed, {} of them by themselves",
                    evidence.pooled_failures, evidence.pooled_calls, evidence.contributors, evidence.witnesses
                ),
            ),
            Met::Any => ("any", "the target itself answered one replica with failures".to_owned()),
        };
        self.open(cause, reason, now, draw)
    }

    fn open(&mut self, cause: &'static str, reason: String, now: Timestamp, draw: Draw) -> Vec<Effect> {
        let until = now.plus(self.settings.breaker.open_for(self.reopened, draw));
        self.reopened = self.reopened.saturating_add(1);
        self.enter(State::Open { until }, cause, reason, now)
    }

    fn enter(&mut self, state: State, cause: &'static str, reason: String, now: Timestamp) -> Vec<Effect> {
        let from = self.state();
        self.state = state;
        self.since = now;
        self.reason.clone_from(&reason);
        let to = self.state();
        vec![
            Effect::Transition { from, to, cause, detail: reason.clone() },
            Effect::Verdict { state: to, half_open_in: self.half_open_in(now), reason },
        ]
    }
}
