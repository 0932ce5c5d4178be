//! The machine of one call.
//!
//! A driver starts it, does what each [`Step`] says, and tells what became of it. The machine keeps the state of each
//! strategy inline, as a stack of the stages that the call is inside of, and allocates nothing.

mod inward;
mod outward;

use arrayvec::ArrayVec;

use super::{
    cells::{AttemptEnded, AttemptKind, CallEnded, Cells, Event, Hold},
    spec::{MAX_STRATEGIES, PipelineSpec},
    step::Step,
};
use crate::{
    Timestamp,
    chaos::Fault,
    outcome::{Facts, NoFacts, Outcome, RejectionReason},
    retry::{CallRules, RetryRun},
};

/// A stage that the call is inside of.
#[derive(Debug)]
struct Stage {
    entered: Timestamp,
    /// The nearest deadline of the timeouts of this call down to here; [`Timestamp::MAX`] for none.
    deadline: Timestamp,
    state: StageState,
}

#[derive(Debug)]
enum StageState {
    /// Nothing to remember: a timeout, whose limit is in the deadline, or a fallback that was not needed yet.
    Plain,
    Retry(RetryRun),
    /// A retry between two attempts.
    Waiting(RetryRun),
    Held(Hold),
    /// A turn or a place is held that has not begun.
    Pending(Hold),
    /// Chaos delays.
    Delayed(Option<Fault>),
    /// The driver runs the race, asks the cache, or makes an answer.
    Elsewhere,
    /// The cache had nothing: a good answer is kept.
    Missed,
    Fallback,
}

/// One call on its way through a pipeline, or one branch of it inside a hedge.
///
/// Everything that it holds goes back: by the outcome, or by [`Call::cancel`], which the driver owes when it is dropped.
#[derive(Debug)]
pub struct Call {
    rules: CallRules,
    /// The stage that it begins at.
    base: usize,
    /// The nearest deadline outside of a branch.
    outer: Timestamp,
    stages: ArrayVec<Stage, MAX_STRATEGIES>,
    attempts: u32,
    exhausted: Option<(usize, u32)>,
    outcome: Outcome,
    begun: Timestamp,
    /// Since when an attempt runs.
    running: Option<Timestamp>,
    /// Whether the outcome that goes outward is a fallback's.
    replaced: bool,
    /// Whether it is a try beside the primary.
    hedge: bool,
}

impl Call {
    /// A call that has not begun.
    #[must_use]
    pub const fn new(rules: CallRules) -> Self {
        Self::from_stage(rules, 0, Timestamp::MAX)
    }

    /// One of the parallel tries of what is inside a hedge, 0 for the primary. The deadlines outside cut it from outside.
    #[must_use]
    pub fn branch(&self, number: u32) -> Self {
        let outer = self.nearest(self.stages.len());
        Self { hedge: self.hedge || number > 0, ..Self::from_stage(self.rules, self.base + self.stages.len(), outer) }
    }

    const fn from_stage(rules: CallRules, base: usize, outer: Timestamp) -> Self {
        let stages = ArrayVec::new_const();
        Self {
            rules,
            base,
            outer,
            stages,
            attempts: 0,
            exhausted: None,
            outcome: Outcome::OK,
            begun: Timestamp::ZERO,
            running: None,
            replaced: false,
            hedge: false,
        }
    }

    /// Whether it is inside of no stage: it holds nothing.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.stages.is_empty()
    }

    /// What may be done with it.
    #[must_use]
    pub const fn rules(&self) -> CallRules {
        self.rules
    }

    /// Attempts made so far, over all retries and hedges.
    #[must_use]
    pub const fn attempts(&self) -> u32 {
        self.attempts
    }

    /// What the outermost stage made of it; meaningful after [`Step::Finish`].
    #[must_use]
    pub const fn outcome(&self) -> Outcome {
        self.outcome
    }

    /// Whether it is inside of a stage at this moment.
    #[must_use]
    pub fn is_inside(&self, stage: usize) -> bool {
        stage < self.base + self.stages.len()
    }

    /// The nearest deadline of all timeouts of this call, or branch, that it is inside of.
    #[must_use]
    pub fn deadline(&self) -> Option<Timestamp> {
        self.stages.last().map(|stage| stage.deadline).filter(|deadline| *deadline < Timestamp::MAX)
    }

    /// The nearest deadline, those outside of a branch included: what may be told downstream.
    #[must_use]
    pub fn deadline_with_outer(&self) -> Option<Timestamp> {
        Some(self.nearest(self.stages.len())).filter(|deadline| *deadline < Timestamp::MAX)
    }

    /// The nearest deadline around the stage at this height of the stack.
    fn nearest(&self, height: usize) -> Timestamp {
        let own = height.checked_sub(1).map_or(Timestamp::MAX, |below| self.stages[below].deadline);
        own.min(self.outer)
    }

    /// Begins.
    pub fn start<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        self.begun = now;
        self.descend(spec, cells, now)
    }

    /// The kind of the attempt that runs, or ran last.
    #[must_use]
    pub const fn attempt_kind(&self) -> AttemptKind {
        match (self.attempts, self.hedge) {
            (0 | 1, false) => AttemptKind::First,
            (0 | 1, true) => AttemptKind::Hedge,
            (_, _) => AttemptKind::Retry,
        }
    }

    /// Whether it is one of the tries of a hedge, and so a part of another call.
    #[must_use]
    pub const fn is_branch(&self) -> bool {
        self.base > 0
    }

    fn end_attempt<C: Cells>(&mut self, cells: &C, outcome: Option<Outcome>, now: Timestamp) {
        if let Some(since) = self.running.take() {
            cells.attempt_ended(AttemptEnded { kind: self.attempt_kind(), outcome, took: now.since(since) });
        }
    }

    fn end<C: Cells>(&self, cells: &C, outcome: Option<Outcome>, now: Timestamp) {
        if !self.is_branch() {
            let Self { attempts, replaced, begun, .. } = *self;
            cells.call_ended(CallEnded { outcome, attempts, replaced, took: now.since(begun) });
        }
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
        self.end_attempt(cells, Some(outcome), now);
        self.ascend(spec, cells, outcome, facts, now)
    }

    /// The wait is over.
    pub fn wake<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        let stage = self.base + self.stages.len().saturating_sub(1);
        if let Some(top) = self.stages.last_mut() {
            top.state = match std::mem::replace(&mut top.state, StageState::Plain) {
                StageState::Waiting(run) => {
                    top.entered = now;
                    StageState::Retry(run)
                }
                StageState::Pending(hold) => {
                    top.entered = now;
                    StageState::Held(hold)
                }
                StageState::Delayed(Some(fault)) => {
                    top.state = StageState::Elsewhere;
                    return Step::Inject { stage, fault };
                }
                StageState::Delayed(None) => StageState::Plain,
                other @ (StageState::Plain
                | StageState::Retry(_)
                | StageState::Held(_)
                | StageState::Elsewhere
                | StageState::Missed
                | StageState::Fallback) => other,
            };
        }
        self.descend(spec, cells, now)
    }

    /// The wait for a place is over: there is one, or patience has ended.
    pub fn queue_ended<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, admitted: bool, now: Timestamp) -> Step {
        if admitted {
            return self.wake(spec, cells, now);
        }
        let stage = self.base + self.stages.len().saturating_sub(1);
        self.release(self.stages.len().saturating_sub(1), cells, now);
        self.refuse(stage, RejectionReason::WaitedTooLong, spec, cells, now)
    }

    /// The race is decided: the outcome that counts, and the attempts of all branches.
    pub fn hedge_ended<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        attempts: u32,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        self.attempts = self.attempts.saturating_add(attempts);
        self.stages.pop();
        self.ascend(spec, cells, outcome, facts, now)
    }

    /// The cache had the answer.
    pub fn cache_hit<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        if let Some(stage) = self.pop_stage() {
            cells.event(Event::CacheAsked { stage, hit: true });
        }
        self.ascend(spec, cells, outcome, facts, now)
    }

    /// The cache had nothing. `keep`: a good answer may be kept.
    pub fn cache_missed<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, keep: bool, now: Timestamp) -> Step {
        if let Some(top) = self.stages.last_mut() {
            top.state = if keep { StageState::Missed } else { StageState::Plain };
            cells.event(Event::CacheAsked { stage: self.base + self.stages.len() - 1, hit: false });
        }
        self.descend(spec, cells, now)
    }

    /// The answer has been kept.
    pub fn kept<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        self.answered(spec, cells, outcome, facts, now)
    }

    /// The answer that chaos asked for has been made.
    pub fn injected<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        self.answered(spec, cells, outcome, facts, now)
    }

    /// The innermost stage has answered by itself.
    fn answered<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        self.stages.pop();
        self.ascend(spec, cells, outcome, facts, now)
    }

    /// The fallback has ended. Its result is checked like any other by the strategies around it.
    pub fn fallback_ended<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        self.stages.pop();
        self.exhausted = None;
        self.replaced = matches!(outcome, Outcome::Response(_));
        self.ascend(spec, cells, outcome, facts, now)
    }

    /// [`Call::deadline`] has passed: what runs or waits inside of it has been dropped.
    pub fn deadline_passed<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        let Some(deadline) = self.deadline() else {
            return self.descend(spec, cells, now);
        };
        // The nearest deadline fires; of two at the same time the outer one.
        let height = self.stages.iter().position(|stage| stage.deadline == deadline).unwrap_or_default();
        self.release(height, cells, now);
        self.exhausted = None;
        let stage = self.base + height;
        self.replaced = false;
        self.end_attempt(cells, Some(Outcome::Timeout(stage)), now);
        cells.event(Event::TimedOut { stage });
        self.ascend(spec, cells, Outcome::Timeout(stage), &NoFacts, now)
    }

    /// The caller has gone: everything goes back, nothing counts.
    pub fn cancel<C: Cells>(&mut self, cells: &C, now: Timestamp) {
        self.release(0, cells, now);
        self.end_attempt(cells, None, now);
        self.end(cells, None, now);
    }

    /// Leaves the stages from this height of the stack on, and gives back what they hold.
    fn release<C: Cells>(&mut self, height: usize, cells: &C, now: Timestamp) {
        while self.stages.len() > height {
            let stage = self.base + self.stages.len() - 1;
            if let Some(Stage { state: StageState::Held(hold) | StageState::Pending(hold), .. }) = self.stages.pop() {
                cells.abandon(stage, hold, now);
            }
        }
    }

    fn pop_stage(&mut self) -> Option<usize> {
        self.stages.pop().map(|_| self.base + self.stages.len())
    }

    fn refuse<C: Cells>(
        &mut self,
        stage: usize,
        reason: RejectionReason,
        spec: &PipelineSpec,
        cells: &C,
        now: Timestamp,
    ) -> Step {
        cells.event(Event::Rejected { stage, reason });
        self.ascend(spec, cells, Outcome::Rejected(stage, reason), &NoFacts, now)
    }
}
