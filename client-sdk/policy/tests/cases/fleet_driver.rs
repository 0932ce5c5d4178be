//! A coordinator with the replicas of one service, driven by hand.

use std::collections::BTreeSet;

use fusebox_policy::{
    CallerName, Draw, Namespace, PolicyName, Revision, StrategyName, TargetName, Zone,
    fleet::{
        BreakerKey, CoordinationMode, Coordinator,
        coordinator::{Effect, Guard, Holding, Limits, Recipients, Sighting},
        evidence::{MemberId, Report},
        gate::ProbeId,
        held::Fence,
        key::CallerId,
        shared::{FleetState, ProbeResult, Settings, View},
        term::RunId,
    },
};

use crate::{
    driver::{at, breaker_input, breaker_spec},
    fleet_rule::{coordination, member, saw},
};

pub(crate) fn settings(mode: CoordinationMode) -> Settings {
    Settings { breaker: breaker_spec(breaker_input(5)), coordination: coordination(mode), policy_revision: Revision(1) }
}

pub(crate) fn key(target: &str, zone: Option<&str>) -> BreakerKey {
    BreakerKey {
        namespace: Namespace::try_new("default").unwrap(),
        caller: CallerName::try_new("service-a").unwrap(),
        policy: PolicyName::try_new(target).unwrap(),
        strategy: StrategyName::try_new("breaker").unwrap(),
        target: TargetName::try_new(target).unwrap(),
        zone: zone.map(|zone| Zone::try_new(zone).unwrap()),
    }
}

/// A run of a server.
pub(crate) fn run(number: u64) -> RunId {
    RunId::new(number).unwrap()
}

/// One breaker of one service, unless a test says which.
pub(crate) struct Fleet {
    pub(crate) coordinator: Coordinator,
    pub(crate) key: BreakerKey,
    pub(crate) caller: CallerId,
    settings: Settings,
    joined: BTreeSet<MemberId>,
    pub(crate) seq: u64,
}

impl Fleet {
    /// In the first run of its store, with one breaker that opens after 5 failures in a row.
    pub(crate) fn new(mode: CoordinationMode) -> Self {
        Self::with(settings(mode))
    }

    pub(crate) fn with(settings: Settings) -> Self {
        Self::in_term(1, settings)
    }

    pub(crate) fn in_term(term: u64, settings: Settings) -> Self {
        let key = key("service-b", None);
        let caller = key.caller_id();
        let coordinator = Coordinator::new(term, run(term), at(0), Limits::default());
        let mut fleet = Self { coordinator, key, caller, settings, joined: BTreeSet::new(), seq: 0 };
        fleet.configure(&fleet.key.clone(), 0);
        fleet
    }

    pub(crate) fn configure(&mut self, key: &BreakerKey, millis: u64) -> Vec<Effect> {
        self.coordinator.configure(key, self.settings.clone(), at(millis))
    }

    pub(crate) fn join(&mut self, who: &MemberId, zone: Option<&str>, millis: u64) {
        let zone = zone.map(|zone| Zone::try_new(zone).unwrap());
        self.coordinator.join(&self.caller.clone(), who, zone.as_ref(), at(millis));
    }

    /// Reports on a breaker, as a replica that holds the newest verdict; joins first if need be.
    pub(crate) fn report_on(&mut self, key: &BreakerKey, number: usize, report: Report, millis: u64) -> Vec<Effect> {
        let newest = self.coordinator.newest(key).map(|newest| newest.fence);
        let held = match newest {
            Some(newest) if report.current => newest,
            Some(_) | None => Fence::default(),
        };
        self.sight(key, number, report, held, millis)
    }

    /// Reports as a replica whose newest verdict is this one.
    pub(crate) fn report_holding(&mut self, number: usize, report: Report, held: Fence, millis: u64) -> Vec<Effect> {
        self.sight(&self.key.clone(), number, report, held, millis)
    }

    fn sight(&mut self, key: &BreakerKey, number: usize, report: Report, held: Fence, millis: u64) -> Vec<Effect> {
        let who = member(number);
        if self.joined.insert(who.clone()) {
            self.join(&who, key.zone.as_ref().map(Zone::as_str), millis);
        }
        if self.coordinator.breaker(key).is_none() {
            self.configure(key, millis);
        }
        let policy_revision = self.settings.policy_revision;
        self.seq += 1;
        let held = Holding { fence: held, ..Holding::default() };
        let sighting = Sighting { seq: self.seq, report, policy_revision, held };
        self.coordinator.report(key, &who, sighting, at(millis), Draw::ZERO)
    }

    /// As a replica that holds what it says it holds of another run.
    pub(crate) fn claims(&mut self, number: usize, held: Holding, millis: u64) -> Vec<Effect> {
        let who = member(number);
        if self.joined.insert(who.clone()) {
            self.join(&who, None, millis);
        }
        self.seq += 1;
        let report = Report { rejected: 1, ..saw(0, 0) };
        let sighting = Sighting { seq: self.seq, report, policy_revision: self.settings.policy_revision, held };
        self.coordinator.report(&self.key.clone(), &who, sighting, at(millis), Draw::ZERO)
    }

    pub(crate) fn report(&mut self, number: usize, report: Report, millis: u64) -> Vec<Effect> {
        self.report_on(&self.key.clone(), number, report, millis)
    }

    pub(crate) fn leave(&mut self, number: usize, millis: u64) -> Vec<Effect> {
        self.joined.remove(&member(number));
        self.coordinator.leave(&self.caller.clone(), &member(number), at(millis), Draw::ZERO)
    }

    pub(crate) fn tick(&mut self, millis: u64) -> Vec<Effect> {
        self.coordinator.tick(at(millis), Draw::ZERO)
    }

    /// The outcome of a permit, from its holder.
    pub(crate) fn probe(&mut self, permit: (usize, u64), result: ProbeResult, millis: u64) -> Vec<Effect> {
        let probe = ProbeId { term: self.coordinator.term(), id: permit.1 };
        let key = self.key.clone();
        self.coordinator.probe_outcome(&key, &member(permit.0), probe, result, at(millis), Draw::ZERO)
    }

    pub(crate) fn state_of(&self, key: &BreakerKey) -> FleetState {
        self.coordinator.breaker(key).map_or(FleetState::Released, |breaker| breaker.state())
    }

    pub(crate) fn state(&self) -> FleetState {
        self.state_of(&self.key)
    }

    pub(crate) fn view(&self, millis: u64) -> View {
        self.coordinator.view(&self.key, at(millis)).unwrap()
    }
}

/// The state that all holders are told.
pub(crate) fn verdict(effects: &[Effect]) -> Option<FleetState> {
    effects.iter().find_map(|effect| match effect {
        Effect::Verdict { to: Recipients::Holders, decision, .. } => Some(decision.state),
        Effect::Verdict { .. }
        | Effect::Permit { .. }
        | Effect::Canvass { .. }
        | Effect::Transition { .. }
        | Effect::Held { .. }
        | Effect::Mode { .. } => None,
    })
}

/// Permits, as (replica, number).
pub(crate) fn permits(effects: &[Effect]) -> Vec<(usize, u64)> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Permit { member: to, id, .. } => Some(((0..1000).find(|n| member(*n) == *to)?, *id)),
            Effect::Verdict { .. }
            | Effect::Canvass { .. }
            | Effect::Transition { .. }
            | Effect::Held { .. }
            | Effect::Mode { .. } => None,
        })
        .collect()
}

/// What holds openings back, as it is said.
pub(crate) fn held(effects: &[Effect]) -> Option<Guard> {
    effects.iter().find_map(|effect| match effect {
        Effect::Held { guard, .. } => Some(*guard),
        Effect::Verdict { .. }
        | Effect::Permit { .. }
        | Effect::Canvass { .. }
        | Effect::Transition { .. }
        | Effect::Mode { .. } => None,
    })
}

/// The words of the transitions.
pub(crate) fn causes(effects: &[Effect]) -> Vec<&'static str> {
    effects
        .iter()
        .filter_map(|effect| match effect {
            Effect::Transition { cause, .. } => Some(*cause),
            Effect::Verdict { .. }
            | Effect::Permit { .. }
            | Effect::Canvass { .. }
            | Effect::Held { .. }
            | Effect::Mode { .. } => None,
        })
        .collect()
}
