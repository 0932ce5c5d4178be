//! The machine of one call.
//!
//! A driver starts it, does what each [`Step`] says, and tells what became of it. The machine keeps the state of each
//! strategy inline and allocates nothing.

use super::spec::{MAX_STRATEGIES, PipelineSpec, StrategySpec};
use crate::{
    Draw, Timestamp,
    breaker::Ending,
    condition::Class,
    fleet::gate::Pass,
    outcome::{Facts, NoFacts, Outcome, RejectionReason},
    retry::{Answer, Attempt, CallRules, OnExhausted, RetryRun, Stop, budget::BudgetSpec},
};

/// The live state that strategies share between calls, and everything a call needs from outside. `stage` is the index of the
/// strategy in the pipeline.
pub trait Cells {
    /// Asks the breaker of a stage for leave.
    ///
    /// # Errors
    /// Why it refuses.
    fn acquire(&self, stage: usize, now: Timestamp) -> Result<Pass, RejectionReason>;
    /// Tells the breaker of a stage how the call ended.
    fn record(&self, stage: usize, pass: Pass, ending: &Ending, now: Timestamp);
    /// Gives a pass back: the call was dropped.
    fn abandon(&self, stage: usize, pass: Pass, now: Timestamp);
    /// Counts a call for the budget of a retry.
    fn count_call(&self, stage: usize, now: Timestamp);
    /// Takes a retry from the budget of a retry, if there is one left.
    fn try_retry(&self, stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool;
    /// A random number.
    fn draw(&self) -> Draw;
    /// Something happened that operators read about. Called while no lock is held.
    fn event(&self, event: Event);
}

/// What happened inside a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// A timeout cut its inside.
    TimedOut {
        /// The timeout.
        stage: usize,
    },
    /// A retry will try again.
    RetryScheduled {
        /// The retry.
        stage: usize,
        /// Number of the retry that follows, from 1.
        retry: u32,
        /// The wait before it.
        delay: std::time::Duration,
        /// What it follows.
        after: Outcome,
    },
    /// A retry gives up on a failed outcome.
    RetryStopped {
        /// The retry.
        stage: usize,
        /// Why.
        stop: Stop,
        /// Attempts made.
        attempts: u32,
    },
    /// A fallback answers.
    FallbackExecuted {
        /// The fallback.
        stage: usize,
        /// What it replaces.
        after: Outcome,
    },
    /// A breaker refused.
    Rejected {
        /// The breaker.
        stage: usize,
        /// Why.
        reason: RejectionReason,
    },
}

/// What the driver does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Step {
    /// Run the operation afresh, until it ends or [`Call::deadline`] passes; then [`Call::attempt_ended`] or
    /// [`Call::deadline_passed`].
    Attempt,
    /// Wait until then or until [`Call::deadline`] passes; then [`Call::wake`] or [`Call::deadline_passed`].
    Wait {
        /// The end of the wait.
        until: Timestamp,
    },
    /// Carry out this fallback in place of what came, until it ends or [`Call::deadline`] passes; then
    /// [`Call::fallback_ended`] or [`Call::deadline_passed`].
    Fallback {
        /// The fallback.
        stage: usize,
        /// What it replaces.
        after: Outcome,
    },
    /// Hand this out.
    Finish(Finish),
}

/// What the caller gets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Finish {
    /// What the last attempt or fallback gave: its response or its error.
    Value,
    /// A refusal.
    Rejected {
        /// The strategy.
        stage: usize,
        /// Why.
        reason: RejectionReason,
    },
    /// A timeout.
    Timeout {
        /// The strategy.
        stage: usize,
    },
    /// The error that a retry with `onExhausted: error` gives.
    Exhausted {
        /// The retry.
        stage: usize,
        /// Attempts made.
        attempts: u32,
    },
}

#[derive(Debug, Default)]
struct Stage {
    entered: Timestamp,
    state: StageState,
}

#[derive(Debug, Default)]
enum StageState {
    /// Not entered, or left.
    #[default]
    Idle,
    Timeout {
        deadline: Timestamp,
    },
    Retry(RetryRun),
    Waiting(RetryRun),
    Breaker(Pass),
    Fallback,
}

/// One call on its way through a pipeline.
///
/// Every pass it holds goes back: by the outcome, or by [`Call::cancel`], which the driver owes when it is dropped.
#[derive(Debug)]
pub struct Call {
    rules: CallRules,
    stages: [Stage; MAX_STRATEGIES],
    attempts: u32,
    exhausted: Option<(usize, u32)>,
}

impl Call {
    /// A call that has not begun.
    #[must_use]
    pub fn new(rules: CallRules) -> Self {
        Self { rules, stages: Default::default(), attempts: 0, exhausted: None }
    }

    /// Attempts made so far, over all retries.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// The nearest deadline of all timeouts that the call is inside of.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline_outside(MAX_STRATEGIES)
    }

    fn deadline_outside(&self, stage: usize) -> Option<Timestamp> {
        self.stages[..stage]
            .iter()
            .filter_map(|stage| match stage.state {
                StageState::Timeout { deadline } => Some(deadline),
                StageState::Idle
                | StageState::Retry(_)
                | StageState::Waiting(_)
                | StageState::Breaker(_)
                | StageState::Fallback => None,
            })
            .min()
    }

    /// Begins.
    pub fn start<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        self.descend(0, spec, cells, now)
    }

    /// The attempt has ended by itself.
    pub fn attempt_ended<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        self.ascend(spec.strategies().len(), spec, cells, outcome, facts, now)
    }

    /// The wait is over.
    pub fn wake<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        let waiting = self.stages.iter().position(|stage| matches!(stage.state, StageState::Waiting(_)));
        match waiting {
            Some(index) => {
                if let StageState::Waiting(run) = self.stages[index].state {
                    self.stages[index] = Stage { entered: now, state: StageState::Retry(run) };
                }
                self.descend(index + 1, spec, cells, now)
            }
            // A driver that wakes a call which does not wait has lost its way; an attempt is what it can do least harm with.
            None => self.descend(spec.strategies().len(), spec, cells, now),
        }
    }

    /// The fallback of a stage has ended. Its result is checked like any other by the strategies around it.
    pub fn fallback_ended<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        stage: usize,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        if let Some(own) = self.stages.get_mut(stage) {
            own.state = StageState::Idle;
        }
        self.exhausted = None;
        self.ascend(stage, spec, cells, outcome, facts, now)
    }

    /// [`Call::deadline`] has passed: what runs or waits inside of it has been dropped.
    pub fn deadline_passed<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        // The earliest deadline fires; of two at the same time the outer one.
        let fired = self
            .stages
            .iter()
            .enumerate()
            .filter_map(|(index, stage)| match stage.state {
                StageState::Timeout { deadline } => Some((deadline, index)),
                StageState::Idle
                | StageState::Retry(_)
                | StageState::Waiting(_)
                | StageState::Breaker(_)
                | StageState::Fallback => None,
            })
            .min();
        let Some((_, index)) = fired else {
            return self.descend(spec.strategies().len(), spec, cells, now);
        };
        self.release(index, cells, now);
        self.exhausted = None;
        cells.event(Event::TimedOut { stage: index });
        self.ascend(index, spec, cells, Outcome::Timeout(index), &NoFacts, now)
    }

    /// The caller has gone: every pass goes back, nothing counts.
    pub fn cancel<C: Cells>(&mut self, cells: &C, now: Timestamp) {
        self.release(0, cells, now);
    }

    /// Gives back what the stages from this one inwards hold.
    fn release<C: Cells>(&mut self, from: usize, cells: &C, now: Timestamp) {
        for (index, stage) in self.stages.iter_mut().enumerate().skip(from) {
            if let StageState::Breaker(pass) = std::mem::take(&mut stage.state) {
                cells.abandon(index, pass, now);
            }
        }
    }

    fn descend<C: Cells>(&mut self, from: usize, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        for (index, strategy) in spec.strategies().iter().enumerate().skip(from) {
            let state = match strategy.spec() {
                StrategySpec::Timeout(timeout) => StageState::Timeout { deadline: now.plus(timeout.duration()) },
                StrategySpec::Retry(_) => {
                    cells.count_call(index, now);
                    StageState::Retry(RetryRun::start(now))
                }
                StrategySpec::CircuitBreaker(_) => match cells.acquire(index, now) {
                    Ok(pass) => StageState::Breaker(pass),
                    Err(reason) => {
                        cells.event(Event::Rejected { stage: index, reason });
                        return self.ascend(index, spec, cells, Outcome::Rejected(index, reason), &NoFacts, now);
                    }
                },
                StrategySpec::Fallback(_) => StageState::Idle,
            };
            self.stages[index] = Stage { entered: now, state };
        }
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            return self.deadline_passed(spec, cells, now);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.exhausted = None;
        Step::Attempt
    }

    fn ascend<C: Cells>(
        &mut self,
        from: usize,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        for (index, strategy) in spec.strategies().iter().enumerate().take(from).rev() {
            let Stage { entered, state } = std::mem::take(&mut self.stages[index]);
            let elapsed = now.since(entered);
            match (strategy.spec(), state) {
                (StrategySpec::CircuitBreaker(breaker), StageState::Breaker(pass)) => {
                    let class = breaker.classifier().classify(outcome, elapsed, facts);
                    // Only failures are asked for a wait: reading headers costs.
                    let hint = if class == Class::Failure { facts.retry_hint() } else { Default::default() };
                    cells.record(index, pass, &Ending { class, outcome, elapsed, hint }, now);
                }
                (StrategySpec::Retry(retry), StageState::Retry(mut run)) => {
                    let deadline = self.deadline_outside(index);
                    let attempt = Attempt { outcome, elapsed, facts, deadline };
                    let budget = || retry.budget().is_none_or(|budget| cells.try_retry(index, budget, now));
                    match run.answer(retry, self.rules, &attempt, now, cells.draw(), budget) {
                        Answer::Again { delay } => {
                            let number = run.attempts() - 1;
                            cells.event(Event::RetryScheduled { stage: index, retry: number, delay, after: outcome });
                            self.stages[index] = Stage { entered: now, state: StageState::Waiting(run) };
                            if delay.is_zero() {
                                return self.wake(spec, cells, now);
                            }
                            return Step::Wait { until: now.plus(delay) };
                        }
                        Answer::Return(Stop::Success) => {}
                        Answer::Return(stop) => {
                            let attempts = run.attempts();
                            cells.event(Event::RetryStopped { stage: index, stop, attempts });
                            let used_up = matches!(stop, Stop::MaxAttempts | Stop::MaxDuration);
                            if used_up && retry.on_exhausted() == OnExhausted::Error {
                                self.exhausted = Some((index, attempts));
                            }
                        }
                    }
                }
                (StrategySpec::Fallback(fallback), StageState::Idle) => {
                    if fallback.classifier().classify(outcome, elapsed, facts) == Class::Failure {
                        cells.event(Event::FallbackExecuted { stage: index, after: outcome });
                        self.stages[index] = Stage { entered: now, state: StageState::Fallback };
                        return Step::Fallback { stage: index, after: outcome };
                    }
                }
                // A timeout whose inside ended in time has nothing to say; a stage that was never entered neither.
                (
                    StrategySpec::Timeout(_)
                    | StrategySpec::Retry(_)
                    | StrategySpec::CircuitBreaker(_)
                    | StrategySpec::Fallback(_),
                    StageState::Idle
                    | StageState::Timeout { .. }
                    | StageState::Retry(_)
                    | StageState::Waiting(_)
                    | StageState::Breaker(_)
                    | StageState::Fallback,
                ) => {}
            }
        }
        Step::Finish(match (self.exhausted, outcome) {
            (Some((stage, attempts)), _) => Finish::Exhausted { stage, attempts },
            (None, Outcome::Response(_) | Outcome::Error(_)) => Finish::Value,
            (None, Outcome::Timeout(stage)) => Finish::Timeout { stage },
            (None, Outcome::Rejected(stage, reason)) => Finish::Rejected { stage, reason },
        })
    }
}
