//! The fast lane: calls for which there is nothing to decide.
//!
//! Where every strategy of a pipeline lets a call pass without a word, and a plain success changes nothing but counts, the machine of
//! the call ([`fusebox_policy::pipeline::Call`]) would only confirm it. Such calls are counted here and end here. Whatever is not of
//! this kind (a breaker that is not at rest, an error, a slow call, an operation that waits) goes to the machine, which is told what
//! has been entered already and decides everything.

use std::sync::Arc;

use fusebox_policy::{
    Draw, PolicyName, StrategyName, Timestamp,
    breaker::Ending,
    condition::{Class, Classifier},
    fleet::gate::{Gate, Pass},
    outcome::{NoFacts, Outcome, RejectionReason, RetryHint},
    pipeline::{AttemptEnded, CallEnded, Cells, Entry, Event, Hold, PipelineSpec, StrategySpec},
    retry::{CallRules, budget::BudgetSpec},
};

use super::{
    cell::Cell,
    live::{Live, Stage},
    tally::{Apart, Refusal, Shard},
};
use crate::clock::Clock;

/// What of a pipeline has to be done for a plain success.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Lane {
    /// The one breaker, if there is one.
    breaker: Option<usize>,
    /// Whether the breaker's refusal is the answer: nothing around it would look at it.
    bare: bool,
    /// How many retries count calls for their budget.
    counted: u8,
    /// Whether it matters when a call began, also if it ends at once.
    clocked: bool,
}

impl Lane {
    /// The lane of a pipeline; `None` where even a plain success needs decisions.
    fn of(pipeline: &PipelineSpec) -> Option<Self> {
        let mut lane = Self { bare: true, ..Self::default() };
        for (index, strategy) in pipeline.strategies().iter().enumerate() {
            match strategy.spec() {
                StrategySpec::Timeout(_) => lane.clocked = true,
                StrategySpec::Retry(retry) if takes_success(retry.classifier()) => {
                    lane.bare &= lane.breaker.is_some();
                    lane.counted += u8::from(retry.budget().is_some());
                    lane.clocked = true;
                }
                StrategySpec::Fallback(fallback) if takes_success(fallback.classifier()) => {
                    lane.bare &= lane.breaker.is_some();
                }
                StrategySpec::CircuitBreaker(breaker)
                    if takes_success(breaker.classifier()) && lane.breaker.is_none() =>
                {
                    lane.breaker = Some(index);
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

/// A thread's way through the lane of a policy, with all that it touches at hand.
#[derive(Debug)]
pub(super) struct Way {
    lane: Lane,
    breaker: Option<(Arc<Cell>, Arc<Apart<Shard>>)>,
    /// Of a lane whose breaker's refusal is the answer.
    refuser: Option<Refuser>,
}

/// Who refuses. Looking the names up in the policy would take longer than refusing.
#[derive(Debug)]
pub(super) struct Refuser {
    stage: usize,
    pub(super) policy: PolicyName,
    pub(super) strategy: StrategyName,
}

impl Way {
    /// This thread's way through a policy, if it has a lane.
    pub(super) fn of(live: &Live) -> Option<Self> {
        let lane = Lane::of(live.pipeline()).filter(|_| !live.is_metered())?;
        let breaker = match lane.breaker {
            None => None,
            Some(stage) => {
                let Stage::Breaker(cell) = &live.stages[stage] else { return None };
                Some((Arc::clone(cell), Arc::clone(cell.shard())))
            }
        };
        let refuser = lane.breaker.filter(|_| lane.bare).map(|stage| Refuser {
            stage,
            policy: live.policy.name.clone(),
            strategy: live.strategy(stage).clone(),
        });
        Some(Self { lane, breaker, refuser })
    }

    /// Takes the lane, if its breaker is at rest.
    #[inline(always)]
    pub(super) fn enter<'a>(&'a self, live: &'a Live, clock: Clock) -> Option<Entered<'a>> {
        let mut at = None;
        let mut rest = None;
        if let Some((cell, shard)) = &self.breaker {
            let epoch = cell.word().rest(|| *at.get_or_insert_with(|| clock.now()))?;
            let generation = shard.0.generation_of(epoch)?;
            if shard.0.is_timed() && at.is_none() {
                at = Some(clock.now());
            }
            rest = Some(Rest { epoch, generation, cell, shard: &shard.0 });
        }
        if self.lane.clocked {
            let now = *at.get_or_insert_with(|| clock.now());
            for _ in 0..self.lane.counted {
                live.budget.call(now);
            }
        }
        Some(Entered { live, breaker: self.lane.breaker, at, rest })
    }

    /// Its breaker's refusal, if it refuses and nothing around it would look at that; and whose refusal it is.
    #[inline(always)]
    pub(super) fn refuse(&self, live: &Live, clock: Clock) -> Option<(&Refuser, Refusal)> {
        let (cell, shard) = self.breaker.as_ref()?;
        let refuser = self.refuser.as_ref()?;
        let refusal = cell.word().refusal(|| clock.now())?;
        shard.0.count_rejection();
        // Who listens to single calls has kept this one out of the lane.
        if live.is_recorded() {
            let reason = RejectionReason::Open { retry_after: refusal.retry_after() };
            live.event(Event::Rejected { stage: refuser.stage, reason });
        }
        Some((refuser, refusal))
    }
}

/// Leave to make one call through a breaker at rest. It holds nothing.
#[derive(Clone, Copy, Debug)]
struct Rest<'a> {
    epoch: u64,
    generation: u64,
    cell: &'a Cell,
    shard: &'a Shard,
}

impl Rest<'_> {
    /// The same leave, for those who take a longer way.
    const fn pass(self) -> Pass {
        Gate::pass_at_rest(self.generation)
    }
}

/// A call in the lane.
#[derive(Debug)]
pub(super) struct Entered<'a> {
    live: &'a Live,
    breaker: Option<usize>,
    /// When it began, where that matters.
    at: Option<Timestamp>,
    rest: Option<Rest<'a>>,
}

impl Entered<'_> {
    /// The call is a plain success.
    #[inline]
    pub(super) fn succeeded(self, clock: Clock) {
        let Some(Rest { epoch, generation, cell, shard }) = self.rest else { return };
        let (at, now) = match self.at {
            Some(at) if shard.is_timed() => (at, clock.now()),
            Some(at) => (at, at),
            None => (Timestamp::ZERO, Timestamp::ZERO),
        };
        let took = now.as_nanos().saturating_sub(at.as_nanos());
        if !(cell.word().is_rest(epoch) && shard.count_success(epoch, generation, took, now)) {
            record(cell, generation, at, now, clock);
        }
    }

    /// When the call began, or about then.
    pub(super) fn at(&self, clock: Clock) -> Timestamp {
        self.at.unwrap_or_else(|| clock.now())
    }
}

#[cold]
fn record(cell: &Cell, generation: u64, at: Timestamp, now: Timestamp, clock: Clock) {
    let elapsed = now.since(at);
    let now = if now == Timestamp::ZERO { clock.now() } else { now };
    let ending = Ending { class: Class::Success, outcome: Outcome::OK, elapsed, hint: RetryHint::None };
    cell.record(Gate::pass_at_rest(generation), &ending, now);
}

/// The live state for the machine of a call that has left the lane: what it has entered already it is given again.
impl Cells for Entered<'_> {
    fn enter(&self, stage: usize, rules: CallRules, now: Timestamp) -> Entry {
        match &self.rest {
            Some(rest) if self.breaker == Some(stage) => Entry::Pass(Hold::Breaker(rest.pass())),
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

    fn is_recovering(&self, stage: usize, now: Timestamp) -> bool {
        self.live.is_recovering(stage, now)
    }

    fn draw(&self) -> Draw {
        self.live.draw()
    }

    fn event(&self, event: Event) {
        self.live.event(event);
    }

    fn attempt_ended(&self, attempt: AttemptEnded) {
        self.live.attempt_ended(attempt);
    }

    fn call_ended(&self, call: CallEnded) {
        self.live.call_ended(call);
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
