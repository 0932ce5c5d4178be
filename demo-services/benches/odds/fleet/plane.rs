//! The control plane's side: what its owner does around the coordinator.

use std::sync::Arc;

use fusebox_policy::{
    CallerName, InstanceId, Namespace, PolicyName, StrategyName, TargetName, Timestamp,
    breaker::BreakerSpec,
    fleet::{
        BreakerKey, Coordination, Coordinator,
        coordinator::{Decision, Effect, Holding, Limits, Mode, Recipients, Sighting},
        evidence::{MemberId, Report},
        gate::ProbeId,
        held::Fence,
        key::CallerId,
        shared::{FleetState, Settings},
        term::RunId,
    },
};

use super::{
    Fleet, REVISION,
    agenda::{Down, Event, Up},
};

pub(super) struct Plane {
    pub(super) alive: bool,
    pub(super) coordinator: Coordinator,
    settings: Settings,
    key: BreakerKey,
    caller: CallerId,
    members: Vec<MemberId>,
    /// The newest heartbeat of each replica.
    heartbeats: Vec<u64>,
    due: Option<Timestamp>,
}

fn member(who: usize) -> MemberId {
    MemberId { instance: InstanceId::try_new(&format!("a-{who:04}")).expect("a name"), incarnation: 1 }
}

impl Plane {
    pub(super) fn new(breaker: Arc<BreakerSpec>, coordination: Coordination, size: usize) -> Self {
        let key = BreakerKey {
            namespace: Namespace::default_namespace(),
            caller: CallerName::try_new("service-a").expect("a name"),
            policy: PolicyName::try_new("service-b").expect("a name"),
            strategy: StrategyName::try_new("breaker").expect("a name"),
            target: TargetName::try_new("service-b").expect("a name"),
            zone: None,
        };
        Self {
            alive: true,
            // The first run of its store: it need not learn.
            coordinator: Coordinator::new(
                1,
                RunId::new(1).expect("it is not zero"),
                Timestamp::ZERO,
                Limits::default(),
            ),
            settings: Settings { breaker, coordination, policy_revision: REVISION },
            caller: key.caller_id(),
            key,
            members: (0..size).map(member).collect(),
            heartbeats: vec![0; size],
            due: None,
        }
    }

    pub(super) fn state(&self) -> FleetState {
        self.coordinator.breaker(&self.key).map_or(FleetState::Released, |breaker| breaker.state())
    }

    fn number(&self, member: &MemberId) -> usize {
        self.members.iter().position(|own| own == member).expect("a member")
    }

    fn recipients(&self, to: &Recipients) -> Vec<usize> {
        let holders = || self.coordinator.holders(&self.key);
        match to {
            Recipients::Holders => holders().map(|member| self.number(member)).collect(),
            Recipients::One(member) => vec![self.number(member)],
        }
    }
}

impl Fleet {
    pub(super) fn plane_joins(&mut self, who: usize) {
        if self.plane.alive {
            let Plane { coordinator, caller, members, .. } = &mut self.plane;
            coordinator.join(caller, &members[who], None, self.now);
        }
    }

    pub(super) fn plane_hears(&mut self, who: usize, message: Up) {
        if !self.plane.alive {
            return;
        }
        match message {
            Up::Heartbeat { seq, window } => {
                self.plane.heartbeats[who] = seq;
                if let Some((report, held)) = window {
                    self.window(who, report, held);
                }
                let coordinator = &self.plane.coordinator;
                let fence = Fence { term: coordinator.term(), rev: coordinator.renewable() };
                self.down(who, Down::Ack { seq, fence });
            }
            Up::Window(report, held) => self.window(who, report, held),
            Up::Probe(probe, result) => {
                let draw = self.draw();
                let Plane { coordinator, key, members, .. } = &mut self.plane;
                let effects = coordinator.probe_outcome(key, &members[who], probe, result, self.now, draw);
                self.carry_out(effects);
            }
        }
    }

    fn window(&mut self, who: usize, report: Report, held: Holding) {
        let draw = self.draw();
        let Plane { coordinator, settings, key, members, heartbeats, .. } = &mut self.plane;
        if coordinator.breaker(key).is_none() {
            coordinator.configure(key, settings.clone(), self.now);
        }
        let sighting = Sighting { seq: heartbeats[who], report, policy_revision: REVISION, held };
        let effects = coordinator.report(key, &members[who], sighting, self.now, draw);
        self.carry_out(effects);
    }

    pub(super) fn plane_is_due(&mut self) {
        self.plane.due = None;
        if self.plane.alive {
            let draw = self.draw();
            let effects = self.plane.coordinator.tick(self.now, draw);
            self.carry_out(effects);
        }
    }

    fn carry_out(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Verdict { to, decision, .. } => {
                    for who in self.plane.recipients(&to) {
                        self.tell_verdict(who, decision.clone());
                    }
                }
                Effect::Permit { member, id, fence, ttl, .. } => {
                    let who = self.plane.number(&member);
                    let probe = ProbeId { term: fence.term, id };
                    let anchor = self.plane.heartbeats[who];
                    self.down(who, Down::Permit { probe, fence, ttl, anchor });
                }
                Effect::Canvass { to, .. } => {
                    for who in to.iter().map(|member| self.plane.number(member)).collect::<Vec<_>>() {
                        self.down(who, Down::Canvass);
                    }
                }
                Effect::Transition { from, to, cause, detail, .. } => match (from, to) {
                    (FleetState::Released, FleetState::Open) => {
                        self.seen.opened.push((self.now, format!("{cause}: {detail}")));
                    }
                    (_, FleetState::Released) => self.seen.released.push(self.now),
                    _ => {}
                },
                Effect::Held { .. } => {}
                // Nothing here gives the server a reason to doubt itself.
                Effect::Mode { to, .. } => assert_eq!(to, Mode::Deciding, "the server does not trust itself"),
            }
        }
        let next = self.plane.coordinator.next_deadline();
        if let Some(at) = next
            && self.plane.due.is_none_or(|due| at < due)
        {
            self.plane.due = next;
            self.agenda.put(at.max(self.now), Event::PlaneIsDue);
        }
    }

    fn tell_verdict(&mut self, who: usize, decision: Decision) {
        let half_open_in = decision.half_open_at.map(|at| self.now.until(at));
        let anchor = self.plane.heartbeats[who];
        self.down(who, Down::Verdict { decision, half_open_in, anchor });
    }

    fn down(&mut self, who: usize, message: Down) {
        let at = self.arrival(self.replicas[who].last_down);
        self.replicas[who].last_down = at;
        self.agenda.put(at, Event::Down(who, message));
    }
}
