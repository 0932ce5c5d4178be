//! A policy in force, with the state that its strategies share between calls.

use std::sync::Arc;

use fusebox_policy::{
    Draw, Policy, Timestamp,
    breaker::Ending,
    fleet::gate::Pass,
    names::StrategyName,
    outcome::{Rejection, RejectionReason},
    pipeline::{Cells, Event, PipelineSpec, StrategySpec},
    retry::budget::{Budget, BudgetSpec},
};
use parking_lot::Mutex;

use super::cell::{Cell, draw};
use crate::status::PolicySource;

/// A policy in force. Replaced as a whole when the policy changes; the cells go on in the next one.
#[derive(Debug)]
pub(crate) struct Live {
    pub(crate) policy: Arc<Policy>,
    pub(crate) source: PolicySource,
    /// One for each strategy of the pipeline.
    pub(crate) stages: Vec<Stage>,
    /// Of the target, shared by all its policies.
    pub(crate) budget: Arc<Mutex<Budget>>,
}

/// The live state of one strategy.
#[derive(Clone, Debug)]
pub(crate) enum Stage {
    /// A breaker.
    Breaker(Arc<Cell>),
    /// All that it has is in the call.
    Stateless,
}

impl Live {
    pub(crate) fn pipeline(&self) -> &PipelineSpec {
        &self.policy.definition.pipeline
    }

    pub(crate) fn cells(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.stages.iter().filter_map(|stage| match stage {
            Stage::Breaker(cell) => Some(cell),
            Stage::Stateless => None,
        })
    }

    /// The name of the strategy at an index of the pipeline.
    pub(crate) fn strategy(&self, stage: usize) -> &StrategyName {
        self.pipeline().strategies()[stage].name()
    }

    pub(crate) fn rejection(&self, stage: usize, reason: RejectionReason) -> Rejection {
        Rejection {
            policy: self.policy.name.clone(),
            strategy: self.strategy(stage).clone(),
            reason,
            after: self.cell(stage).and_then(|cell| cell.look(|gate| gate.last_failure())),
        }
    }

    fn cell(&self, stage: usize) -> Option<&Cell> {
        match self.stages.get(stage)? {
            Stage::Breaker(cell) => Some(cell),
            Stage::Stateless => None,
        }
    }
}

impl Cells for Live {
    fn acquire(&self, stage: usize, now: Timestamp) -> Result<Pass, RejectionReason> {
        self.cell(stage)
            .expect("a breaker's stage has a cell: both are made from one pipeline")
            .with(|gate| gate.try_acquire(now, draw()))
    }

    fn record(&self, stage: usize, pass: Pass, ending: &Ending, now: Timestamp) {
        if let Some(cell) = self.cell(stage) {
            cell.with(|gate| ((), gate.record(pass, ending, now, draw())));
        }
    }

    fn abandon(&self, stage: usize, pass: Pass, _now: Timestamp) {
        if let Some(cell) = self.cell(stage) {
            cell.with(|gate| ((), gate.abandon(pass)));
        }
    }

    fn count_call(&self, _stage: usize, now: Timestamp) {
        self.budget.lock().call(now);
    }

    fn try_retry(&self, _stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool {
        self.budget.lock().try_retry(budget, now)
    }

    fn draw(&self) -> Draw {
        draw()
    }

    fn event(&self, event: Event) {
        let (Event::TimedOut { stage }
        | Event::RetryScheduled { stage, .. }
        | Event::RetryStopped { stage, .. }
        | Event::FallbackExecuted { stage, .. }
        | Event::Rejected { stage, .. }) = event;
        let strategy = self.strategy(stage);
        let policy = &self.policy.name;
        let service = self.policy.definition.selector.target();
        match event {
            Event::TimedOut { stage } => {
                let limit = match self.pipeline().strategies()[stage].spec() {
                    StrategySpec::Timeout(timeout) => timeout.duration(),
                    StrategySpec::Retry(_) | StrategySpec::CircuitBreaker(_) | StrategySpec::Fallback(_) => {
                        std::time::Duration::ZERO
                    }
                };
                tracing::info!(target: "fusebox", target = %service, %policy, %strategy, limit_ms = millis(limit), "timed out");
            }
            Event::RetryScheduled { retry, delay, after, .. } => tracing::info!(
                target: "fusebox", target = %service, %policy, %strategy, attempt = retry, delay_ms = millis(delay), cause = %after,
                "retry {retry} after {delay:?}"
            ),
            Event::RetryStopped { stop, attempts, .. } => tracing::debug!(
                target: "fusebox", target = %service, %policy, %strategy, attempts, stop = ?stop, "retry stopped"
            ),
            Event::FallbackExecuted { after, .. } => {
                tracing::info!(target: "fusebox", target = %service, %policy, %strategy, cause = %after, "fallback executed");
            }
            Event::Rejected { reason, .. } => {
                tracing::debug!(target: "fusebox", target = %service, %policy, %strategy, reason = %reason, "rejected");
            }
        }
    }
}

fn millis(span: std::time::Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
