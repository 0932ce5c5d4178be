//! The live state around calls, which counts what they hold.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::Arc,
};

use fusebox_policy::{
    Draw, Revision, Timestamp,
    breaker::Ending,
    bulkhead::Ticket,
    fleet::gate::Gate,
    pipeline::{Call, CallEnded, Cells, Entry, Event, Hold, LiveStrategy, PipelineSpec, StrategySpec},
    retry::{
        CallRules,
        budget::{Budget, BudgetSpec},
    },
};

use super::script::Script;

/// One process: its pipeline, its clock and what its calls share.
#[derive(Debug)]
pub(crate) struct World<'a> {
    pub(crate) spec: &'a PipelineSpec,
    pub(crate) script: &'a Script<'a>,
    now: Cell<Timestamp>,
    cells: RefCell<Vec<Shared>>,
    /// Calls that have told of their end.
    pub(crate) ended: Cell<usize>,
}

#[derive(Debug)]
struct Shared {
    gate: Option<Gate>,
    live: Option<LiveStrategy>,
    budget: Budget,
    /// What calls hold at this moment.
    held: usize,
    places: BTreeSet<Ticket>,
    /// Tickets that have turned into places while their calls waited.
    granted: BTreeSet<Ticket>,
}

impl<'a> World<'a> {
    pub(crate) fn new(spec: &'a PipelineSpec, script: &'a Script<'a>) -> Self {
        let shared = |spec: &StrategySpec| Shared {
            gate: spec.as_circuit_breaker().map(|spec| Gate::new(Arc::new(spec.clone()), Revision(1))),
            live: LiveStrategy::new(spec, Timestamp::MAX),
            budget: Budget::new(),
            held: 0,
            places: BTreeSet::new(),
            granted: BTreeSet::new(),
        };
        let cells = spec.strategies().iter().map(|strategy| shared(strategy.spec())).collect();
        Self { spec, script, now: Cell::new(Timestamp::ZERO), cells: RefCell::new(cells), ended: Cell::new(0) }
    }

    pub(crate) const fn now(&self) -> Timestamp {
        self.now.get()
    }

    /// Lets time pass until then; it never goes back.
    pub(crate) fn pass_until(&self, then: Timestamp) {
        self.now.set(self.now.get().max(then));
    }

    pub(crate) fn strategy(&self, stage: usize) -> &StrategySpec {
        self.spec.strategies()[stage].spec()
    }

    pub(crate) fn is_granted(&self, stage: usize, ticket: Ticket) -> bool {
        self.cells.borrow()[stage].granted.contains(&ticket)
    }

    pub(crate) fn hedge_delay(&self, stage: usize) -> Option<std::time::Duration> {
        let hedge = self.strategy(stage).as_hedge()?;
        self.cells.borrow()[stage].live.as_ref()?.hedge_delay(hedge)
    }

    pub(crate) fn hedge_took(&self, stage: usize, took: std::time::Duration) {
        if let Some(LiveStrategy::Hedge(latencies)) = &mut self.cells.borrow_mut()[stage].live {
            latencies.record(took);
        }
    }

    /// Nothing is out any more.
    ///
    /// # Panics
    /// If something is.
    pub(crate) fn is_whole(&self) {
        for (stage, shared) in self.cells.borrow().iter().enumerate() {
            assert_eq!(shared.held, 0, "stage {stage} misses what it gave");
            assert!(shared.places.is_empty() && shared.granted.is_empty(), "stage {stage} misses a place");
            if let Some(LiveStrategy::Bulkhead(bulkhead)) = &shared.live {
                assert_eq!(
                    (bulkhead.running(), bulkhead.waiting()),
                    (0, 0),
                    "stage {stage} counts calls that are over"
                );
            }
        }
    }

    /// Drops a call, as its caller may at any time.
    pub(crate) fn cancel(&self, call: &mut Call) {
        if !call.is_over() {
            call.cancel(self, self.now());
        }
        assert!(call.is_over(), "a dropped call is inside of nothing");
    }
}

impl Shared {
    fn take_back(&mut self, stage: usize, hold: &Hold) {
        self.held = self.held.checked_sub(1).unwrap_or_else(|| panic!("stage {stage} gets back what it never gave"));
        if let Hold::Place(ticket) = hold {
            assert!(self.places.remove(ticket), "stage {stage} gets {ticket:?} back twice");
            self.granted.remove(ticket);
        }
    }
}

impl Cells for World<'_> {
    fn enter(&self, stage: usize, rules: CallRules, now: Timestamp) -> Entry {
        let shared = &mut self.cells.borrow_mut()[stage];
        let entry = if let Some(gate) = &mut shared.gate {
            match gate.try_acquire(now, self.script.draw()).0 {
                Ok(pass) => Entry::Pass(Hold::Breaker(pass)),
                Err(reason) => Entry::Rejected(reason),
            }
        } else {
            let live = shared.live.as_mut().expect("only stages with shared state are entered");
            live.enter(self.strategy(stage), rules, now, self.script.draw())
        };
        match &entry {
            Entry::Pass(hold) | Entry::Wait { hold, .. } => {
                shared.held += 1;
                if let Hold::Place(ticket) = hold {
                    assert!(shared.places.insert(*ticket), "stage {stage} gives {ticket:?} twice");
                }
            }
            Entry::Queue { ticket, .. } => {
                shared.held += 1;
                assert!(shared.places.insert(*ticket), "stage {stage} gives {ticket:?} twice");
            }
            Entry::Trouble(_) | Entry::Rejected(_) => {}
        }
        entry
    }

    fn leave(&self, stage: usize, hold: Hold, ending: &Ending, now: Timestamp) {
        let shared = &mut self.cells.borrow_mut()[stage];
        shared.take_back(stage, &hold);
        match (hold, &mut shared.gate, &mut shared.live) {
            (Hold::Breaker(pass), Some(gate), _) => drop(gate.record(pass, ending, now, self.script.draw())),
            (hold, None, Some(live)) => shared.granted.extend(live.leave(self.strategy(stage), hold, ending, now)),
            (hold, _, _) => panic!("stage {stage} gets {hold:?} of another kind"),
        }
    }

    fn abandon(&self, stage: usize, hold: Hold, now: Timestamp) {
        let shared = &mut self.cells.borrow_mut()[stage];
        shared.take_back(stage, &hold);
        match (hold, &mut shared.gate, &mut shared.live) {
            (Hold::Breaker(pass), Some(gate), _) => drop(gate.abandon(pass)),
            (hold, None, Some(live)) => shared.granted.extend(live.abandon(self.strategy(stage), hold, now)),
            (hold, _, _) => panic!("stage {stage} gets {hold:?} of another kind"),
        }
    }

    fn count_call(&self, stage: usize, now: Timestamp) {
        self.cells.borrow_mut()[stage].budget.call(now);
    }

    fn try_retry(&self, stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool {
        self.cells.borrow_mut()[stage].budget.try_retry(budget, now)
    }

    fn is_recovering(&self, stage: usize, now: Timestamp) -> bool {
        self.cells.borrow()[stage].gate.as_ref().is_some_and(|gate| gate.is_recovering(now))
    }

    fn draw(&self) -> Draw {
        self.script.draw()
    }

    fn event(&self, event: Event) {
        assert!(event.stage() < self.spec.strategies().len(), "{event:?}");
    }

    fn call_ended(&self, _call: CallEnded) {
        self.ended.set(self.ended.get() + 1);
    }
}
