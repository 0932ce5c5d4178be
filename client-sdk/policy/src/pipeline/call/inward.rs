//! A call on its way in: what each strategy does before the operation runs.

use super::{Call, Stage, StageState};
use crate::{
    Timestamp,
    pipeline::{Cells, Entry, Event, Hold, PipelineSpec, Step, StrategySpec},
    retry::RetryRun,
};

impl Call {
    /// Enters all stages that it is not yet inside of.
    pub(super) fn descend<C: Cells>(&mut self, spec: &PipelineSpec, cells: &C, now: Timestamp) -> Step {
        self.replaced = false;
        let first = self.base + self.stages.len();
        for (index, strategy) in spec.strategies().iter().enumerate().skip(first) {
            let mut deadline = self.stages.last().map_or(Timestamp::MAX, |stage| stage.deadline);
            let mut step = None;
            let state = match strategy.spec() {
                StrategySpec::Timeout(timeout) => {
                    deadline = deadline.min(now.plus(timeout.duration()));
                    StageState::Plain
                }
                StrategySpec::Retry(retry) => {
                    if retry.budget().is_some() {
                        cells.count_call(index, now);
                    }
                    StageState::Retry(RetryRun::start(now))
                }
                StrategySpec::Fallback(_) => StageState::Plain,
                StrategySpec::Hedge(hedge) => {
                    if hedge.budget().is_some() {
                        cells.count_call(index, now);
                    }
                    step = Some(Step::Hedge { stage: index });
                    StageState::Elsewhere
                }
                StrategySpec::Cache(_) => {
                    step = Some(Step::Lookup { stage: index });
                    StageState::Elsewhere
                }
                StrategySpec::CircuitBreaker(_)
                | StrategySpec::Bulkhead(_)
                | StrategySpec::RateLimiter(_)
                | StrategySpec::ConcurrencyLimit(_)
                | StrategySpec::Throttle(_)
                | StrategySpec::Chaos(_) => match cells.enter(index, self.rules, now) {
                    Entry::Pass(hold) => StageState::Held(hold),
                    Entry::Wait { until, hold } => {
                        step = Some(Step::Wait { until });
                        StageState::Pending(hold)
                    }
                    Entry::Queue { ticket, until } => {
                        step = Some(Step::Queue { stage: index, ticket, until });
                        StageState::Pending(Hold::Place(ticket))
                    }
                    Entry::Trouble(trouble) => {
                        let (latency, fault) = (trouble.latency, trouble.fault);
                        cells.event(Event::Troubled { stage: index, latency, fault });
                        match fault {
                            Some(fault) if latency.is_zero() => {
                                step = Some(Step::Inject { stage: index, fault });
                                StageState::Elsewhere
                            }
                            Some(_) | None => {
                                step = Some(Step::Wait { until: now.plus(latency) });
                                StageState::Delayed(fault)
                            }
                        }
                    }
                    Entry::Rejected(reason) => return self.refuse(index, reason, spec, cells, now),
                },
            };
            self.stages.push(Stage { entered: now, deadline, state });
            if let Some(step) = step {
                return step;
            }
        }
        if self.deadline().is_some_and(|deadline| now >= deadline) {
            return self.deadline_passed(spec, cells, now);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.exhausted = None;
        self.running = Some(now);
        Step::Attempt
    }
}
