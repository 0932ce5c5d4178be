//! A call on its way out: what each strategy makes of the outcome of what is inside.

use super::{Call, Stage, StageState};
use crate::{
    Timestamp,
    breaker::Ending,
    condition::{Class, Classifier},
    outcome::{Facts, Outcome},
    pipeline::{Cells, Event, Finish, PipelineSpec, Step, StrategySpec},
    retry::{Answer, Attempt, OnExhausted, Stop},
};

impl Call {
    /// Leaves one stage after the other with an outcome.
    pub(super) fn ascend<C: Cells>(
        &mut self,
        spec: &PipelineSpec,
        cells: &C,
        outcome: Outcome,
        facts: &dyn Facts,
        now: Timestamp,
    ) -> Step {
        while let Some(Stage { entered, deadline, state }) = self.stages.pop() {
            let height = self.stages.len();
            let index = self.base + height;
            let elapsed = now.since(entered);
            let mut stay = |state| self.stages.push(Stage { entered: now, deadline, state });
            match (state, spec.strategies()[index].spec()) {
                (StageState::Held(hold), strategy) => {
                    let class = load_class(strategy, outcome, elapsed, facts);
                    // Only failures are asked for a wait: reading headers costs.
                    let hint = if class == Class::Failure { facts.retry_hint() } else { Default::default() };
                    cells.leave(index, hold, &Ending { class, outcome, elapsed, hint }, now);
                }
                (StageState::Retry(mut run), StrategySpec::Retry(retry)) => {
                    let around = self.nearest(height);
                    let around = (around < Timestamp::MAX).then_some(around);
                    let attempt = Attempt { outcome, elapsed, facts, deadline: around };
                    let objection = |sends: bool| {
                        // A target that is just coming back is not tried harder: retries would be the next outage.
                        let mut inside = spec.breaker_stages_from(index + 1);
                        if inside.any(|breaker| cells.is_recovering(breaker, now)) {
                            return Some(Stop::Recovering);
                        }
                        let budget = retry.budget().filter(|_| sends)?;
                        (!cells.try_retry(index, budget, now)).then_some(Stop::Budget)
                    };
                    match run.answer(retry, self.rules, &attempt, now, || cells.draw(), objection) {
                        Answer::Again { delay } => {
                            let number = run.attempts() - 1;
                            cells.event(Event::RetryScheduled { stage: index, retry: number, delay, after: outcome });
                            self.stages.push(Stage { entered: now, deadline, state: StageState::Waiting(run) });
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
                (StageState::Missed, StrategySpec::Cache(cache)) => {
                    let answered = matches!(outcome, Outcome::Response(_)) && self.exhausted.is_none();
                    if answered && cache.classifier().classify(outcome, elapsed, facts) == Class::Success {
                        stay(StageState::Elsewhere);
                        return Step::Keep { stage: index };
                    }
                }
                (StageState::Plain, StrategySpec::Fallback(fallback))
                    if fallback.classifier().classify(outcome, elapsed, facts) == Class::Failure
                        && !self.rules.answers.include(fallback.with()) =>
                {
                    cells.event(Event::FallbackSkipped { stage: index, after: outcome });
                }
                (StageState::Plain, StrategySpec::Fallback(fallback))
                    if fallback.classifier().classify(outcome, elapsed, facts) == Class::Failure =>
                {
                    stay(StageState::Fallback);
                    cells.event(Event::FallbackExecuted { stage: index, after: outcome });
                    return Step::Fallback { stage: index, after: outcome };
                }
                // A timeout whose inside ended in time has nothing to say.
                (_, _) => {}
            }
        }
        self.outcome = outcome;
        self.end(cells, Some(outcome), now);
        Step::Finish(match (self.exhausted, outcome) {
            (Some((stage, attempts)), _) => Finish::Exhausted { stage, attempts },
            (None, Outcome::Response(_) | Outcome::Error(_)) => Finish::Value,
            (None, Outcome::Timeout(stage)) => Finish::Timeout { stage },
            (None, Outcome::Rejected(stage, reason)) => Finish::Rejected { stage, reason },
        })
    }
}

/// What an outcome says to a strategy that counts.
fn load_class(strategy: &StrategySpec, outcome: Outcome, elapsed: std::time::Duration, facts: &dyn Facts) -> Class {
    let classifier: &Classifier = match strategy {
        StrategySpec::CircuitBreaker(spec) => spec.classifier(),
        StrategySpec::ConcurrencyLimit(spec) => spec.classifier(),
        StrategySpec::Throttle(spec) => spec.classifier(),
        StrategySpec::Timeout(_)
        | StrategySpec::Retry(_)
        | StrategySpec::Fallback(_)
        | StrategySpec::Bulkhead(_)
        | StrategySpec::RateLimiter(_)
        | StrategySpec::Hedge(_)
        | StrategySpec::Cache(_)
        | StrategySpec::Chaos(_) => return Class::Ignored,
    };
    match (classifier.classify(outcome, elapsed, facts), outcome) {
        // What a strategy further inside refused never reached the target: it says nothing good of it.
        (Class::Success, Outcome::Rejected(..)) => Class::Ignored,
        (class, _) => class,
    }
}
