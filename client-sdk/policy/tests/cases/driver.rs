//! Makes specs, and drives one call at a time through a pipeline on a virtual clock.

use std::{
    cell::{Cell, RefCell},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use fusebox_policy::{
    Draw, Outcome, Revision, Timestamp,
    breaker::{BreakerInput, BreakerSpec, Ending, LocalState, Transition, TripRules},
    condition::Conditions,
    fallback::{Answers, FallbackSpec, FallbackWith, StaticResponse},
    fleet::gate::{Gate, GateEffect},
    outcome::{ErrorKind, Facts, NoFacts, RetryHint},
    pipeline::{Call, CallEnded, Cells, Entry, Event, Finish, Hold, LiveStrategy, PipelineSpec, Step, StrategySpec},
    retry::{
        CallRules, RetryInput, RetrySpec,
        backoff::{Backoff, Jitter, Shape},
        budget::{Budget, BudgetSpec},
    },
    throttle::Priority,
    timeout::{TimeoutScope, TimeoutSpec},
};

pub(crate) const FAILED: Outcome = Outcome::Error(ErrorKind::Other);
pub(crate) const OK: Outcome = Outcome::OK;

pub(crate) fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

pub(crate) fn at(millis: u64) -> Timestamp {
    Timestamp::after_origin(ms(millis))
}

pub(crate) fn timeout(millis: u64) -> StrategySpec {
    StrategySpec::Timeout(TimeoutSpec::try_new(ms(millis), TimeoutScope::Head, None).unwrap())
}

pub(crate) fn fixed(millis: u64) -> Backoff {
    Backoff::try_new(Shape::Fixed { delay: ms(millis) }, Some(Jitter::None)).unwrap()
}

/// A retry with this many attempts and a fixed wait, without a budget.
pub(crate) fn retry_input(attempts: u32, delay: u64) -> RetryInput {
    assert!(NonZeroU32::new(attempts).is_some());
    RetryInput { max_attempts: Some(attempts), backoff: fixed(delay), budget: None, ..RetryInput::default() }
}

pub(crate) fn retry(attempts: u32, delay: u64) -> StrategySpec {
    StrategySpec::Retry(RetrySpec::try_new(retry_input(attempts, delay)).unwrap())
}

/// A breaker that opens after this many failures in a row, for 5 s, without jitter.
pub(crate) fn breaker_input(consecutive: u32) -> BreakerInput {
    BreakerInput {
        trip: TripRules {
            failure_rate: None,
            failures: None,
            consecutive_failures: Some(consecutive),
            slow_call_rate: None,
        },
        delay_jitter: 0.0,
        ..BreakerInput::default()
    }
}

pub(crate) fn breaker_spec(input: BreakerInput) -> Arc<BreakerSpec> {
    Arc::new(BreakerSpec::try_new(input).unwrap())
}

pub(crate) fn breaker(consecutive: u32) -> StrategySpec {
    StrategySpec::CircuitBreaker(BreakerSpec::try_new(breaker_input(consecutive)).unwrap())
}

pub(crate) fn fallback_on(conditions: Option<Conditions>) -> StrategySpec {
    let with = FallbackWith::Response(StaticResponse::default());
    StrategySpec::Fallback(FallbackSpec::try_new(conditions, Conditions::default(), with).unwrap())
}

pub(crate) fn fallback() -> StrategySpec {
    fallback_on(None)
}

/// A response with headers that matter.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Said {
    pub(crate) hint: RetryHint,
}

impl Facts for Said {
    fn header(&self, _name: &str) -> Option<&str> {
        None
    }

    fn retry_hint(&self) -> RetryHint {
        self.hint
    }
}

/// What the operation does in one attempt.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Does {
    pub(crate) outcome: Outcome,
    pub(crate) takes: Duration,
    pub(crate) said: Said,
}

pub(crate) fn does(outcome: Outcome) -> Does {
    Does { outcome, takes: Duration::ZERO, said: Said::default() }
}

pub(crate) fn slow(outcome: Outcome, millis: u64) -> Does {
    Does { takes: ms(millis), ..does(outcome) }
}

pub(crate) fn says(outcome: Outcome, hint: RetryHint) -> Does {
    Does { said: Said { hint }, ..does(outcome) }
}

/// A process with one pipeline, its live cells and its clock.
pub(crate) struct Process {
    pub(crate) spec: PipelineSpec,
    gates: RefCell<Vec<Option<Gate>>>,
    /// Of the strategies that are no breakers.
    lives: RefCell<Vec<Option<LiveStrategy>>>,
    /// What the cache holds.
    cached: Option<Outcome>,
    budget: RefCell<Budget>,
    pub(crate) events: RefCell<Vec<Event>>,
    /// Of all breakers.
    pub(crate) transitions: RefCell<Vec<Transition>>,
    /// How each call ended.
    pub(crate) ended: RefCell<Vec<CallEnded>>,
    pub(crate) draw: Cell<Draw>,
    pub(crate) now: Timestamp,
    pub(crate) rules: CallRules,
    pub(crate) fallback: Does,
    pub(crate) executed: u32,
    pub(crate) waits: Vec<Duration>,
}

impl Process {
    pub(crate) fn new(strategies: Vec<StrategySpec>) -> Self {
        let spec = PipelineSpec::try_new(strategies.into_iter().map(|spec| (None, spec)).collect()).unwrap();
        let gates = spec
            .strategies()
            .iter()
            .map(|strategy| strategy.spec().as_circuit_breaker())
            .map(|breaker| breaker.map(|spec| Gate::new(Arc::new(spec.clone()), Revision(1))))
            .collect();
        let lives = spec.strategies().iter().map(|own| LiveStrategy::new(own.spec(), Timestamp::MAX)).collect();
        Self {
            spec,
            gates: RefCell::new(gates),
            lives: RefCell::new(lives),
            cached: None,
            budget: RefCell::default(),
            events: RefCell::default(),
            transitions: RefCell::default(),
            ended: RefCell::default(),
            draw: Cell::new(Draw::ZERO),
            now: at(0),
            rules: CallRules {
                idempotent: true,
                replayable: true,
                priority: Priority::Normal,
                answers: Answers::Anything,
            },
            fallback: does(Outcome::status(200)),
            executed: 0,
            waits: Vec::new(),
        }
    }

    pub(crate) fn local_state(&self) -> LocalState {
        self.gates.borrow().iter().flatten().next().unwrap().local_state()
    }

    /// Lets a test act on the breaker.
    pub(crate) fn with_gate<T>(&self, act: impl FnOnce(&mut Gate) -> T) -> T {
        act(self.gates.borrow_mut().iter_mut().flatten().next().unwrap())
    }

    pub(crate) fn count_failures(&self) -> (u64, u64) {
        let counts = self.gates.borrow().iter().flatten().next().unwrap().breaker().counts(self.now);
        (counts.calls, counts.failures)
    }

    pub(crate) fn count_events(&self, which: impl Fn(&Event) -> bool) -> usize {
        self.events.borrow().iter().filter(|event| which(event)).count()
    }

    /// Makes one call; `operation` is asked at each attempt, numbered from 1.
    pub(crate) fn call(&mut self, mut operation: impl FnMut(u32) -> Does) -> Finish {
        let mut call = Call::new(self.rules);
        let mut step = call.start(&self.spec, self, self.now);
        loop {
            step = match step {
                Step::Attempt => {
                    self.executed += 1;
                    let done = operation(self.executed);
                    if self.passes(done.takes, call.deadline()) {
                        call.attempt_ended(&self.spec, self, done.outcome, &done.said, self.now)
                    } else {
                        call.deadline_passed(&self.spec, self, self.now)
                    }
                }
                Step::Wait { until } => {
                    let wait = self.now.until(until);
                    self.waits.push(wait);
                    if self.passes(wait, call.deadline()) {
                        call.wake(&self.spec, self, self.now)
                    } else {
                        call.deadline_passed(&self.spec, self, self.now)
                    }
                }
                // Nobody else runs while this one waits: nobody makes room.
                Step::Queue { until, .. } => {
                    let end = until.expect("a test with a queue says how long it waits");
                    if self.passes(self.now.until(end), call.deadline()) {
                        call.queue_ended(&self.spec, self, false, self.now)
                    } else {
                        call.deadline_passed(&self.spec, self, self.now)
                    }
                }
                Step::Fallback { .. } => {
                    let done = self.fallback;
                    if self.passes(done.takes, call.deadline()) {
                        call.fallback_ended(&self.spec, self, done.outcome, &done.said, self.now)
                    } else {
                        call.deadline_passed(&self.spec, self, self.now)
                    }
                }
                Step::Lookup { .. } => match self.cached {
                    Some(outcome) => call.cache_hit(&self.spec, self, outcome, &NoFacts, self.now),
                    None => call.cache_missed(&self.spec, self, true, self.now),
                },
                Step::Keep { .. } => {
                    self.cached = Some(OK);
                    call.kept(&self.spec, self, OK, &NoFacts, self.now)
                }
                Step::Inject { fault, .. } => call.injected(&self.spec, self, fault.outcome(), &NoFacts, self.now),
                Step::Hedge { .. } => unreachable!("races need a runtime: they are tested with the SDK"),
                Step::Finish(finish) => return finish,
            };
        }
    }

    fn note(&self, effects: Vec<GateEffect>) {
        let transition = |effect| if let GateEffect::Transition(transition) = effect { Some(transition) } else { None };
        self.transitions.borrow_mut().extend(effects.into_iter().filter_map(transition));
    }

    /// Starts a call and drops it during its first attempt.
    pub(crate) fn drop_during_attempt(&self) {
        let mut call = Call::new(self.rules);
        assert_eq!(call.start(&self.spec, self, self.now), Step::Attempt);
        call.cancel(self, self.now);
    }

    /// Starts a call and leaves it in its first attempt for ever.
    pub(crate) fn hold_one(&self) {
        let mut call = Call::new(self.rules);
        assert_eq!(call.start(&self.spec, self, self.now), Step::Attempt);
    }

    /// Starts a call that has to wait, and drops it there.
    pub(crate) fn drop_while_waiting(&self) {
        let mut call = Call::new(self.rules);
        let step = call.start(&self.spec, self, self.now);
        assert!(matches!(step, Step::Wait { .. }), "{step:?}");
        call.cancel(self, self.now);
    }

    /// Lets time pass, up to a deadline; says whether it passed in full.
    fn passes(&mut self, span: Duration, deadline: Option<Timestamp>) -> bool {
        let end = self.now.plus(span);
        match deadline {
            Some(deadline) if deadline <= end && !span.is_zero() => {
                self.now = deadline;
                false
            }
            Some(_) | None => {
                self.now = end;
                true
            }
        }
    }
}

impl Cells for Process {
    fn enter(&self, stage: usize, rules: CallRules, now: Timestamp) -> Entry {
        if let Some(gate) = &mut self.gates.borrow_mut()[stage] {
            let (answer, effects) = gate.try_acquire(now, self.draw.get());
            self.note(effects);
            return match answer {
                Ok(pass) => Entry::Pass(Hold::Breaker(pass)),
                Err(reason) => Entry::Rejected(reason),
            };
        }
        let spec = self.spec.strategies()[stage].spec();
        self.lives.borrow_mut()[stage].as_mut().unwrap().enter(spec, rules, now, self.draw.get())
    }

    fn leave(&self, stage: usize, hold: Hold, ending: &Ending, now: Timestamp) {
        let spec = self.spec.strategies()[stage].spec();
        match (hold, &mut self.gates.borrow_mut()[stage]) {
            (Hold::Breaker(pass), Some(gate)) => self.note(gate.record(pass, ending, now, self.draw.get())),
            (hold, _) => {
                self.lives.borrow_mut()[stage].as_mut().unwrap().leave(spec, hold, ending, now);
            }
        }
    }

    fn abandon(&self, stage: usize, hold: Hold, now: Timestamp) {
        let spec = self.spec.strategies()[stage].spec();
        match (hold, &mut self.gates.borrow_mut()[stage]) {
            (Hold::Breaker(pass), Some(gate)) => drop(gate.abandon(pass)),
            (hold, _) => {
                self.lives.borrow_mut()[stage].as_mut().unwrap().abandon(spec, hold, now);
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
        self.draw.get()
    }

    fn event(&self, event: Event) {
        self.events.borrow_mut().push(event);
    }

    fn call_ended(&self, call: CallEnded) {
        self.ended.borrow_mut().push(call);
    }
}
