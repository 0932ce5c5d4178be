//! A replica's side: what the SDK does around its gate, and its calls.

use std::{sync::Arc, time::Duration};

use fastrand::Rng;
use fusebox_policy::{
    Timestamp,
    breaker::{BreakerSpec, Ending, LocalState},
    condition::Class,
    fleet::{
        coordinator::{Decision, Holding, Limits},
        evidence::Report,
        gate::{Gate, GateEffect, ProbeId},
        held::{Fence, HeldPermit, Taken, Verdict, lease_end},
        shared::{FleetState, ProbeResult},
    },
    outcome::{NoFacts, RetryHint},
};

use super::{
    Fleet, REVISION,
    agenda::{Down, Ended, Event, Up},
};

const HEARTBEAT: Duration = Duration::from_secs(1);
/// At most one transition in this time.
const APART: Duration = Duration::from_millis(100);
/// After so long everybody has heard of a verdict: longer than the longest latency.
const HEARD: Duration = Duration::from_millis(500);

pub(super) struct Replica {
    pub(super) gate: Gate,
    /// Its calls, and how they end: of its own, so that they come in the same way whatever else happens.
    rng: Rng,
    rate: f64,
    /// When which heartbeat was sent. Number 0 is Hello.
    sent: Vec<Timestamp>,
    waiting: Option<(Report, Holding)>,
    told: Option<Timestamp>,
    last_up: Timestamp,
    pub(super) last_down: Timestamp,
    due: Option<Timestamp>,
    /// Nothing has kept its calls back yet.
    pub(super) bare: bool,
}

impl Replica {
    pub(super) fn new(breaker: Arc<BreakerSpec>, rate: f64, rng: Rng) -> Self {
        Self {
            gate: Gate::new(breaker, REVISION),
            rng,
            rate,
            sent: Vec::new(),
            waiting: None,
            told: None,
            last_up: Timestamp::ZERO,
            last_down: Timestamp::ZERO,
            due: None,
            bare: true,
        }
    }

    fn holding(&self, now: Timestamp) -> Holding {
        let verdict = self.gate.held().verdict();
        Holding {
            fence: self.gate.held().highest(),
            state: verdict.map(|held| held.state),
            half_open_in: verdict.and_then(|held| held.half_open_at).map(|at| now.until(at)),
        }
    }
}

impl Fleet {
    pub(super) fn join(&mut self, who: usize) {
        self.plane_joins(who);
        self.replicas[who].sent.push(self.now);
        self.replicas[who].gate.announce();
        let soon = self.arrival(self.now);
        self.agenda.put(soon, Event::Beats(who));
        self.next_call(who);
    }

    fn next_call(&mut self, who: usize) {
        let Replica { rng, rate, .. } = &mut self.replicas[who];
        let wait = -(1.0 - rng.f64()).ln() / *rate;
        self.agenda.put(self.now.plus(Duration::from_secs_f64(wait)), Event::Calls(who));
    }

    pub(super) fn call(&mut self, who: usize) {
        self.next_call(who);
        self.attempt(who, self.attempts);
    }

    pub(super) fn attempt(&mut self, who: usize, left: u32) {
        let (now, draw) = (self.now, self.draw());
        let replica = &mut self.replicas[who];
        let (answer, effects) = replica.gate.try_acquire(now, draw);
        let held = replica.gate.held().verdict().map_or(FleetState::Released, |verdict| verdict.state);
        let vetoes = replica.gate.vetoes();
        replica.bare &= answer.is_ok();
        self.told(who, effects);
        let Ok(pass) = answer else { return };
        let probes = held == FleetState::HalfOpen && !vetoes;
        if probes {
            self.probes_begin(who);
        } else if !vetoes && self.plane.alive && self.is_long_open() {
            self.seen.astray += 1;
        }
        let (outcome, elapsed) = {
            let Self { target, replicas, .. } = self;
            target.answer(who, now, &mut replicas[who].rng)
        };
        self.agenda.put(now.plus(elapsed), Event::Ended(Ended { who, pass, outcome, elapsed, left: left - 1, probes }));
    }

    pub(super) fn ended(&mut self, ended: Ended) {
        let Ended { who, pass, outcome, elapsed, left, probes } = ended;
        let (now, draw) = (self.now, self.draw());
        let wrong = self.target.is_wrong(who, now);
        let replica = &mut self.replicas[who];
        let class = replica.gate.breaker().spec().classifier().classify(outcome, elapsed, &NoFacts);
        let ending = Ending { class, outcome, elapsed, hint: RetryHint::None };
        let effects = replica.gate.record(pass, &ending, now, draw);
        let failed = class == Class::Failure;
        self.seen.wasted += u32::from(failed && wrong && replica.bare);
        let again = failed && left > 0 && !replica.gate.is_recovering(now);
        replica.bare &= replica.gate.local_state() == LocalState::Closed;
        self.told(who, effects);
        if probes {
            self.probes_under_way -= 1;
        }
        if again {
            let wait = Duration::from_millis(100).mul_f64(self.replicas[who].rng.f64());
            self.agenda.put(now.plus(wait), Event::Attempts { who, left });
        }
    }

    fn probes_begin(&mut self, who: usize) {
        let fence = self.replicas[who].gate.held().highest();
        if self.period.0 != fence {
            self.period = (fence, 0);
        }
        self.period.1 += 1;
        self.probes_under_way += 1;
        self.seen.most_of_a_period = self.seen.most_of_a_period.max(self.period.1);
        self.seen.most_at_once = self.seen.most_at_once.max(self.probes_under_way);
    }

    pub(super) fn gate_is_due(&mut self, who: usize) {
        let (now, draw) = (self.now, self.draw());
        self.replicas[who].due = None;
        let effects = self.replicas[who].gate.tick(now, draw);
        self.told(who, effects);
    }

    pub(super) fn beat(&mut self, who: usize) {
        let now = self.now;
        let replica = &mut self.replicas[who];
        let seq = replica.sent.len() as u64;
        replica.sent.push(now);
        let window = replica.gate.wants_report().then(|| (replica.gate.report(now), replica.holding(now)));
        self.up(who, Up::Heartbeat { seq, window });
        self.agenda.put(now.plus(HEARTBEAT), Event::Beats(who));
    }

    pub(super) fn replica_hears(&mut self, who: usize, message: Down) {
        let now = self.now;
        let lease = Limits::default().lease;
        let replica = &mut self.replicas[who];
        let end = |anchor: u64, span: Duration| {
            lease_end(replica.sent[usize::try_from(anchor).expect("few heartbeats")], span)
        };
        match message {
            Down::Verdict { decision, half_open_in, anchor } => {
                let Decision { fence, state, admit_permille, policy_revision, reason, .. } = decision;
                let half_open_at = half_open_in.map(|span| now.plus(span));
                let expires = end(anchor, lease);
                let verdict = Verdict { fence, state, admit_permille, expires, policy_revision, half_open_at, reason };
                let (_, effects) = replica.gate.apply_verdict(verdict, now);
                // Whom the fleet protects wastes nothing any more, even where it does not call.
                replica.bare &= replica.gate.held().verdict_state() == FleetState::Released || replica.gate.vetoes();
                self.told(who, effects);
            }
            Down::Permit { probe, fence, ttl, anchor } => {
                let permit = HeldPermit { id: probe.id, fence, expires: end(anchor, ttl) };
                let refused = replica.gate.add_permit(permit, now) == Taken::Refused;
                let back = refused.then_some(GateEffect::Probe(probe, ProbeResult::Inconclusive));
                self.told(who, back.into_iter().collect());
            }
            Down::Canvass => {
                let (report, held) = (replica.gate.report(now), replica.holding(now));
                self.up(who, Up::Window(report, held));
            }
            Down::Ack { seq, fence: Fence { term, rev } } => {
                let until = end(seq, lease);
                replica.gate.renew(term, rev, until, now);
                self.told(who, Vec::new());
            }
        }
    }

    /// Takes what a gate has to tell, and looks when it is due again.
    fn told(&mut self, who: usize, effects: Vec<GateEffect>) {
        let mut probes: Vec<(ProbeId, ProbeResult)> = Vec::new();
        let replica = &mut self.replicas[who];
        for effect in effects {
            match effect {
                GateEffect::Transition(transition) => {
                    let own_trip = replica.gate.breaker().own_trip();
                    let report = Report::new(transition.to, own_trip, transition.counts, 0);
                    let held = Holding { fence: replica.gate.held().highest(), ..Holding::default() };
                    replica.waiting = Some((report, held));
                }
                GateEffect::Probe(probe, result) => probes.push((probe, result)),
            }
        }
        let next = replica.gate.next_deadline();
        if let Some(at) = next
            && replica.due.is_none_or(|due| at < due)
        {
            replica.due = next;
            self.agenda.put(at.max(self.now), Event::GateIsDue(who));
        }
        self.tell(who);
        for (probe, result) in probes {
            self.up(who, Up::Probe(probe, result));
        }
    }

    /// Sends the newest transition, or waits until it may.
    pub(super) fn tell(&mut self, who: usize) {
        let replica = &mut self.replicas[who];
        let from = replica.told.map_or(self.now, |told| told.plus(APART));
        if from > self.now {
            if replica.waiting.is_some() {
                self.agenda.put(from, Event::Tells(who));
            }
            return;
        }
        if let Some((report, held)) = replica.waiting.take() {
            replica.told = Some(self.now);
            self.up(who, Up::Window(report, held));
        }
    }

    fn up(&mut self, who: usize, message: Up) {
        let at = self.arrival(self.replicas[who].last_up);
        self.replicas[who].last_up = at;
        self.agenda.put(at, Event::Up(who, message));
    }

    /// Whether the fleet has kept calls back for so long that all have heard.
    fn is_long_open(&self) -> bool {
        let opened = self.seen.opened.last().is_some_and(|(at, _)| self.now.since(*at) > HEARD);
        opened && matches!(self.plane.state(), FleetState::Open | FleetState::HalfOpen)
    }
}
