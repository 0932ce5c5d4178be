//! One replica: the live state of its strategies, behind the core's own interface.

use std::{
    cell::{Cell, RefCell},
    sync::Arc,
    time::Duration,
};

use fusebox_policy::{
    Draw, Revision, Timestamp,
    breaker::{Ending, LocalState},
    bulkhead::Ticket,
    fleet::gate::{Gate, GateEffect},
    hedge::HedgeSpec,
    outcome::RejectionReason,
    pipeline::{CallEnded, Cells, Entry, Event, Hold, LiveStrategy, PipelineSpec},
    retry::{
        CallRules,
        budget::{Budget, BudgetSpec},
    },
};

/// What one replica shares between its calls.
pub(super) struct Replica {
    spec: Arc<PipelineSpec>,
    gates: RefCell<Vec<Option<Gate>>>,
    lives: RefCell<Vec<Option<LiveStrategy>>>,
    budget: RefCell<Budget>,
    random: RefCell<fastrand::Rng>,
    /// Tickets that have a place now: whoever waits with one is to be told.
    pub(super) admitted: RefCell<Vec<(usize, Ticket)>>,
    /// Of each stage: since when its breaker is not closed, and for how long it was.
    open: RefCell<Vec<(Option<Timestamp>, Duration)>>,
    opened: Cell<u64>,
    pub(super) rejections: RefCell<Vec<RejectionReason>>,
    pub(super) fallbacks: Cell<u64>,
    pub(super) ended: RefCell<Vec<CallEnded>>,
}

impl Replica {
    pub(super) fn new(spec: Arc<PipelineSpec>, seed: u64) -> Self {
        let breakers = spec.strategies().iter().map(|strategy| strategy.spec().as_circuit_breaker());
        let gates: Vec<_> =
            breakers.map(|breaker| breaker.map(|spec| Gate::new(Arc::new(spec.clone()), Revision(1)))).collect();
        let lives = spec.strategies().iter().map(|own| LiveStrategy::new(own.spec(), Timestamp::MAX)).collect();
        Self {
            open: RefCell::new(vec![(None, Duration::ZERO); gates.len()]),
            gates: RefCell::new(gates),
            lives: RefCell::new(lives),
            budget: RefCell::new(Budget::new()),
            random: RefCell::new(fastrand::Rng::with_seed(seed)),
            admitted: RefCell::default(),
            opened: Cell::new(0),
            rejections: RefCell::default(),
            fallbacks: Cell::new(0),
            ended: RefCell::default(),
            spec,
        }
    }

    /// How long a hedge waits before it tries beside the running try.
    pub(super) fn hedge_delay(&self, stage: usize, spec: &HedgeSpec) -> Option<Duration> {
        self.lives.borrow()[stage].as_ref().and_then(|live| live.hedge_delay(spec))
    }

    pub(super) fn hedge_took(&self, stage: usize, took: Duration) {
        if let Some(LiveStrategy::Hedge(latencies)) = &mut self.lives.borrow_mut()[stage] {
            latencies.record(took.max(Duration::from_nanos(1)));
        }
    }

    /// How often breakers have opened, and the longest time that one of them was not closed.
    pub(super) fn breakers(&self, now: Timestamp) -> (u64, Duration) {
        let total = |(since, before): &(Option<Timestamp>, Duration)| {
            before.saturating_add(since.map_or(Duration::ZERO, |since| now.since(since)))
        };
        (self.opened.get(), self.open.borrow().iter().map(total).max().unwrap_or_default())
    }

    fn note(&self, stage: usize, effects: Vec<GateEffect>, now: Timestamp) {
        for effect in effects {
            let GateEffect::Transition(transition) = effect else { continue };
            let mut all = self.open.borrow_mut();
            let (since, total) = &mut all[stage];
            if transition.to == LocalState::Open {
                self.opened.set(self.opened.get() + 1);
            }
            match (transition.to, *since) {
                (LocalState::Closed, Some(begun)) => {
                    *total = total.saturating_add(now.since(begun));
                    *since = None;
                }
                (LocalState::Open | LocalState::HalfOpen, None) => *since = Some(now),
                (LocalState::Closed, None) | (LocalState::Open | LocalState::HalfOpen, Some(_)) => {}
            }
        }
    }

    fn admit(&self, stage: usize, next: Option<Ticket>) {
        if let Some(ticket) = next {
            self.admitted.borrow_mut().push((stage, ticket));
        }
    }
}

impl Cells for Replica {
    fn enter(&self, stage: usize, rules: CallRules, now: Timestamp) -> Entry {
        let draw = self.draw();
        if let Some(gate) = &mut self.gates.borrow_mut()[stage] {
            let (answer, effects) = gate.try_acquire(now, draw);
            self.note(stage, effects, now);
            return match answer {
                Ok(pass) => Entry::Pass(Hold::Breaker(pass)),
                Err(reason) => Entry::Rejected(reason),
            };
        }
        let spec = self.spec.strategies()[stage].spec();
        match &mut self.lives.borrow_mut()[stage] {
            Some(live) => live.enter(spec, rules, now, draw),
            None => Entry::Pass(Hold::Nothing),
        }
    }

    fn leave(&self, stage: usize, hold: Hold, ending: &Ending, now: Timestamp) {
        let draw = self.draw();
        let spec = self.spec.strategies()[stage].spec();
        match (hold, &mut self.gates.borrow_mut()[stage]) {
            (Hold::Breaker(pass), Some(gate)) => self.note(stage, gate.record(pass, ending, now, draw), now),
            (hold, _) => {
                let next = self.lives.borrow_mut()[stage].as_mut().and_then(|live| live.leave(spec, hold, ending, now));
                self.admit(stage, next);
            }
        }
    }

    fn abandon(&self, stage: usize, hold: Hold, now: Timestamp) {
        let spec = self.spec.strategies()[stage].spec();
        match (hold, &mut self.gates.borrow_mut()[stage]) {
            (Hold::Breaker(pass), Some(gate)) => self.note(stage, gate.abandon(pass), now),
            (hold, _) => {
                let next = self.lives.borrow_mut()[stage].as_mut().and_then(|live| live.abandon(spec, hold, now));
                self.admit(stage, next);
            }
        }
    }

    fn count_call(&self, _stage: usize, now: Timestamp) {
        self.budget.borrow_mut().call(now);
    }

    fn try_retry(&self, _stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool {
        self.budget.borrow_mut().try_retry(budget, now)
    }

    fn is_recovering(&self, stage: usize, now: Timestamp) -> bool {
        self.gates.borrow()[stage].as_ref().is_some_and(|gate| gate.is_recovering(now))
    }

    fn draw(&self) -> Draw {
        Draw::new(self.random.borrow_mut().f64())
    }

    fn event(&self, event: Event) {
        match event {
            Event::Rejected { reason, .. } => self.rejections.borrow_mut().push(reason),
            Event::FallbackExecuted { .. } => self.fallbacks.set(self.fallbacks.get() + 1),
            Event::TimedOut { .. }
            | Event::RetryScheduled { .. }
            | Event::RetryStopped { .. }
            | Event::HedgeStarted { .. }
            | Event::HedgeEnded { .. }
            | Event::FallbackSkipped { .. }
            | Event::CacheAsked { .. }
            | Event::Troubled { .. } => {}
        }
    }

    fn call_ended(&self, call: CallEnded) {
        self.ended.borrow_mut().push(call);
    }
}
