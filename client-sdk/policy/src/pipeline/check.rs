//! Combinations of strategies that can never do what they say.

use std::time::Duration;

use super::spec::{Strategy, StrategySpec};
use crate::{
    condition::{Class, Classifier},
    fallback::{FallbackSpec, FallbackWith},
    hedge::HedgeDelay,
    invalid::Faults,
    outcome::{ErrorKind, NoFacts, Outcome},
    retry::{MaxAttempts, RetrySpec},
    timeout::TimeoutSpec,
};

/// Notes what contradicts what. Each fault stands at the inner strategy and names the outer one.
pub(super) fn contradictions(strategies: &[Strategy], faults: &mut Faults) {
    for (outer_index, outer) in strategies.iter().enumerate() {
        for (inner_index, inner) in strategies.iter().enumerate().skip(outer_index + 1) {
            let between = &strategies[outer_index + 1..inner_index];
            let mut pair = Pair { outer_index, inner_index, between, faults };
            if let Some(timeout) = outer.spec().as_timeout() {
                pair.inside_timeout(timeout, inner.spec());
            } else if let Some((retry, timeout)) = outer.spec().as_retry().zip(inner.spec().as_timeout()) {
                pair.timeout_inside_retry(retry, timeout);
            } else if let Some((_, inner)) = outer.spec().as_fallback().zip(inner.spec().as_fallback()) {
                pair.fallback_inside_fallback(inner);
            } else if outer.spec().as_hedge().is_some() && inner.spec().as_hedge().is_some() {
                pair.fault(
                    "hedge",
                    format!("stands inside another hedge ([{outer_index}]): their tries would multiply"),
                );
            }
        }
    }
}

/// Two strategies, one around the other.
struct Pair<'a> {
    outer_index: usize,
    inner_index: usize,
    between: &'a [Strategy],
    faults: &'a mut Faults,
}

impl Pair<'_> {
    fn fault(&mut self, field: &str, reason: String) {
        self.faults.push(format!("[{}].{field}", self.inner_index), reason);
    }

    fn check(&mut self, holds: bool, field: &str, reason: impl FnOnce(usize) -> String) {
        if !holds {
            self.fault(field, reason(self.outer_index));
        }
    }

    fn inside_timeout(&mut self, outer: &TimeoutSpec, inner: &StrategySpec) {
        let limit = outer.duration();
        match inner {
            StrategySpec::Timeout(inner) => {
                let retried = self.between.iter().any(|between| between.spec().as_retry().is_some());
                let why = if retried { ": there is no time for a second attempt" } else { ", or it never fires" };
                self.check(inner.duration() < limit, "timeout.duration", |outer| {
                    format!("must be less than the {} of the timeout around it ([{outer}]){why}", text(limit))
                });
            }
            StrategySpec::Retry(inner) => {
                let single = inner.max_attempts() == MaxAttempts::Limited(std::num::NonZeroU32::MIN);
                self.check(single || inner.backoff().least_first_delay() < limit, "retry.backoff", |outer| {
                    format!(
                        "its first delay is not less than the {} of the timeout around it ([{outer}]): no retry can happen",
                        text(limit)
                    )
                });
                self.check(inner.max_duration().is_none_or(|own| own <= limit), "retry.maxDuration", |outer| {
                    format!("must not be more than the {} of the timeout around it ([{outer}])", text(limit))
                });
            }
            StrategySpec::Hedge(inner) => {
                if let HedgeDelay::Fixed(delay) = inner.delay() {
                    self.check(delay < limit, "hedge.delay", |outer| {
                        format!(
                            "must be less than the {} of the timeout around it ([{outer}]), or it never hedges",
                            text(limit)
                        )
                    });
                }
            }
            StrategySpec::Bulkhead(inner) => {
                self.check(inner.max_wait().is_none_or(|wait| wait <= limit), "bulkhead.maxWait", |outer| {
                    format!("must not be more than the {} of the timeout around it ([{outer}])", text(limit))
                });
            }
            StrategySpec::RateLimiter(inner) => {
                self.check(inner.max_wait() <= limit, "rateLimiter.maxWait", |outer| {
                    format!("must not be more than the {} of the timeout around it ([{outer}])", text(limit))
                });
            }
            StrategySpec::CircuitBreaker(_)
            | StrategySpec::Fallback(_)
            | StrategySpec::ConcurrencyLimit(_)
            | StrategySpec::Throttle(_)
            | StrategySpec::Cache(_)
            | StrategySpec::Chaos(_) => {}
        }
    }

    fn timeout_inside_retry(&mut self, outer: &RetrySpec, inner: &TimeoutSpec) {
        if let Some(limit) = outer.max_duration() {
            self.check(inner.duration() <= limit, "timeout.duration", |outer| {
                format!("must not be more than the {} that the retry around it ([{outer}]) takes in all", text(limit))
            });
        }
    }

    /// Only where nothing stands between them: an inner fallback that answers everything with a fixed good response leaves
    /// nothing to the outer one.
    fn fallback_inside_fallback(&mut self, inner: &FallbackSpec) {
        if let FallbackWith::Response(response) = inner.with()
            && self.between.is_empty()
            && response.status < 400
            && never_fails(inner.classifier())
        {
            self.faults.push(
                format!("[{}].fallback", self.outer_index),
                format!(
                    "never runs: the fallback inside it ([{}]) answers every failure with status {}",
                    self.inner_index, response.status
                ),
            );
        }
    }
}

/// Whether no outcome gets past the classifier as a failure: it has the default's breadth.
fn never_fails(classifier: &Classifier) -> bool {
    let outcomes = [
        Outcome::Error(ErrorKind::Other),
        Outcome::Error(ErrorKind::Connect),
        Outcome::Timeout(0),
        Outcome::status(500),
        Outcome::status(503),
    ];
    outcomes.into_iter().all(|outcome| classifier.classify(outcome, Duration::ZERO, &NoFacts) == Class::Failure)
}

fn text(duration: Duration) -> String {
    if duration.subsec_nanos() == 0 {
        format!("{}s", duration.as_secs())
    } else {
        format!("{}ms", duration.as_micros() as f64 / 1000.0)
    }
}

/// How many attempts one call can make at most: the product of all retries and hedges. `None`: without limit.
#[must_use]
pub fn worst_case_attempts(pipeline: &super::PipelineSpec) -> Option<u64> {
    pipeline.strategies().iter().try_fold(1_u64, |product, strategy| {
        let times = match strategy.spec() {
            StrategySpec::Retry(spec) => match spec.max_attempts() {
                MaxAttempts::Limited(limit) => u64::from(limit.get()),
                MaxAttempts::Unlimited => return None,
            },
            StrategySpec::Hedge(spec) => u64::from(spec.max_hedges()) + 1,
            StrategySpec::Timeout(_)
            | StrategySpec::CircuitBreaker(_)
            | StrategySpec::Fallback(_)
            | StrategySpec::Bulkhead(_)
            | StrategySpec::RateLimiter(_)
            | StrategySpec::ConcurrencyLimit(_)
            | StrategySpec::Throttle(_)
            | StrategySpec::Cache(_)
            | StrategySpec::Chaos(_) => 1,
        };
        Some(product.saturating_mul(times))
    })
}
