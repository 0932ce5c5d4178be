//! The fast lane: calls for which there is nothing to decide.
//!
//! Where every strategy of a pipeline lets a call pass without a word, and a plain success changes nothing but counts, the machine of
//! the call ([`fusebox_policy::pipeline::Call`]) would only confirm it. Such calls are counted here and end here. Whatever is not of
//! this kind (a breaker that is not at rest, an error, a slow call, an operation that waits) goes to the machine, which is told what
//! has been entered already and decides everything.

use fusebox_policy::{
    Draw, Timestamp,
    breaker::Ending,
    condition::{Class, Classifier},
    outcome::{NoFacts, Outcome},
    pipeline::{Cells, Entry, Event, Hold, PipelineSpec, StrategySpec},
    retry::{CallRules, budget::BudgetSpec},
};

use super::{
    cell::{Cell, Rest},
    live::{Live, Stage},
};

/// What of a pipeline has to be done for a plain success. Made once for each policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lane {
    /// The one breaker, if there is one.
    breaker: Option<usize>,
    /// Whether calls are counted for a budget, and how often.
    counted: u8,
    /// Whether anything wants to know when the call ended.
    timed: bool,
}

impl Lane {
    /// The lane of a pipeline; `None` where even a plain success needs decisions.
    pub(crate) fn of(pipeline: &PipelineSpec) -> Option<Self> {
        let mut lane = Self::default();
        for (index, strategy) in pipeline.strategies().iter().enumerate() {
            match strategy.spec() {
                StrategySpec::Timeout(_) => {}
                StrategySpec::Retry(retry) if takes_success(retry.classifier()) => {
                    lane.counted += u8::from(retry.budget().is_some());
                }
                StrategySpec::Fallback(fallback) if takes_success(fallback.classifier()) => {}
                StrategySpec::CircuitBreaker(breaker)
                    if takes_success(breaker.classifier()) && lane.breaker.is_none() =>
                {
                    lane.breaker = Some(index);
                    lane.timed = true;
                }
                StrategySpec::Retry(_)
                | StrategySpec::Fallback(_)
                | StrategySpec::CircuitBreaker(_)
                | StrategySpec::Bulkhead(_)
                | StrategySpec::RateLimiter(_)
                | StrategySpec::Hedge(_)
                | StrategySpec::ConcurrencyLimit(_)
                | StrategySpec::Throttle(_)
                | StrategySpec::Cache(_)
                | StrategySpec::Chaos(_) => return None,
            }
        }
        Some(lane)
    }
}

/// Whether a plain success is one to the classifier, however long it took.
fn takes_success(classifier: &Classifier) -> bool {
    classifier.ignore_when().slower_than.is_none()
        && classifier.failure_when().slower_than.is_none()
        && classifier.classify(Outcome::OK, std::time::Duration::ZERO, &NoFacts) == Class::Success
}

/// A call in the lane.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    live: &'a Live,
    lane: Lane,
    at: Timestamp,
    rest: Option<(&'a Cell, Rest<'a>)>,
}

impl<'a> Entered<'a> {
    /// Takes the lane, if there is one and its breaker is at rest.
    #[inline]
    pub(super) fn enter(live: &'a Live, now: Timestamp) -> Option<Self> {
        let lane = live.lane?;
        let rest = match lane.breaker {
            None => None,
            Some(stage) => {
                let Stage::Breaker(cell) = &live.stages[stage] else { return None };
                Some((&**cell, cell.rest(now)?))
            }
        };
        for _ in 0..lane.counted {
            live.budget.call(now);
        }
        Some(Self { live, lane, at: now, rest })
    }

    /// The call is a plain success.
    #[inline]
    pub(super) fn succeeded(self, now: impl FnOnce() -> Timestamp) {
        let Some((cell, rest)) = self.rest else { return };
        let now = if self.lane.timed && rest.is_timed() { now() } else { self.at };
        let elapsed = now.since(self.at);
        if !rest.count_success(cell, elapsed, now) {
            let hint = fusebox_policy::outcome::RetryHint::None;
            let ending = Ending { class: Class::Success, outcome: Outcome::OK, elapsed, hint };
            cell.record(rest.pass(), &ending, now);
        }
    }
}

/// The live state for the machine of a call that has left the lane: what it has entered already it is given again.
impl Cells for Entered<'_> {
    fn enter(&self, stage: usize, rules: CallRules, now: Timestamp) -> Entry {
        match &self.rest {
            Some((_, rest)) if self.lane.breaker == Some(stage) => Entry::Pass(Hold::Breaker(rest.pass())),
            Some(_) | None => self.live.enter(stage, rules, now),
        }
    }

    fn leave(&self, stage: usize, hold: Hold, ending: &Ending, now: Timestamp) {
        self.live.leave(stage, hold, ending, now);
    }

    fn abandon(&self, stage: usize, hold: Hold, now: Timestamp) {
        self.live.abandon(stage, hold, now);
    }

    fn count_call(&self, _stage: usize, _now: Timestamp) {
        // It has been counted at the beginning of the lane.
    }

    fn try_retry(&self, stage: usize, budget: &BudgetSpec, now: Timestamp) -> bool {
        self.live.try_retry(stage, budget, now)
    }

    fn draw(&self) -> Draw {
        self.live.draw()
    }

    fn event(&self, event: Event) {
        self.live.event(event);
    }
}

impl Entered<'_> {
    /// When the call began.
    pub(super) const fn at(&self) -> Timestamp {
        self.at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lane(pipeline: &str) -> Option<Lane> {
        let text = format!(
            "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: p }}\nspec:\n  match: {{ target: b }}\n  pipeline:\n{pipeline}"
        );
        let policy = fusebox_proto::manifest::parse("test", &text).unwrap().remove(0).policy;
        Lane::of(&policy.definition.pipeline)
    }

    #[test]
    fn a_pipeline_that_may_mind_a_success_has_no_lane() {
        assert!(
            lane("    - fallback: { error: x }\n    - retry: {}\n    - circuitBreaker: {}\n    - timeout: 1s\n")
                .is_some()
        );
        assert!(lane("    - bulkhead: { maxConcurrent: 1 }\n").is_none());
        assert!(lane("    - circuitBreaker: { failureWhen: { slowerThan: 1s } }\n").is_none());
        assert!(lane("    - circuitBreaker: {}\n    - circuitBreaker: {}\n").is_none());
    }
}
