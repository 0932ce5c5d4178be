//! Combinations of strategies that can never do what they say.

use std::time::Duration;

use super::spec::{Strategy, StrategySpec};
use crate::{
    condition::{Class, Classifier},
    invalid::Faults,
    outcome::{ErrorKind, NoFacts, Outcome},
    retry::MaxAttempts,
};

/// Notes what contradicts what. Each fault stands at the inner strategy and names the outer one.
pub(super) fn contradictions(strategies: &[Strategy], faults: &mut Faults) {
    for (outer_index, outer) in strategies.iter().enumerate() {
        for (inner_index, inner) in strategies.iter().enumerate().skip(outer_index + 1) {
            match (outer.spec(), inner.spec()) {
                (StrategySpec::Timeout(outer_spec), StrategySpec::Timeout(inner_spec)) => {
                    let retried = strategies[outer_index + 1..inner_index]
                        .iter()
                        .any(|between| matches!(between.spec(), StrategySpec::Retry(_)));
                    faults.check(
                        inner_spec.duration() < outer_spec.duration(),
                        &format!("[{inner_index}].timeout.duration"),
                        format!(
                            "must be less than the {} of the timeout around it ([{outer_index}]){}",
                            text(outer_spec.duration()),
                            if retried { ": there is no time for a second attempt" } else { ", or it never fires" },
                        ),
                    );
                }
                (StrategySpec::Timeout(outer_spec), StrategySpec::Retry(inner_spec)) => {
                    let single = inner_spec.max_attempts() == MaxAttempts::Limited(std::num::NonZeroU32::MIN);
                    faults.check(
                        single || inner_spec.backoff().least_first_delay() < outer_spec.duration(),
                        &format!("[{inner_index}].retry.backoff"),
                        format!(
                            "its first delay is not less than the {} of the timeout around it ([{outer_index}]): no retry can happen",
                            text(outer_spec.duration()),
                        ),
                    );
                    if let Some(limit) = inner_spec.max_duration() {
                        faults.check(
                            limit <= outer_spec.duration(),
                            &format!("[{inner_index}].retry.maxDuration"),
                            format!(
                                "must not be more than the {} of the timeout around it ([{outer_index}])",
                                text(outer_spec.duration()),
                            ),
                        );
                    }
                }
                (StrategySpec::Retry(outer_spec), StrategySpec::Timeout(inner_spec)) => {
                    if let Some(limit) = outer_spec.max_duration() {
                        faults.check(
                            inner_spec.duration() <= limit,
                            &format!("[{inner_index}].timeout.duration"),
                            format!(
                                "must not be more than the {} that the retry around it ([{outer_index}]) takes in all",
                                text(limit),
                            ),
                        );
                    }
                }
                (StrategySpec::Fallback(_), StrategySpec::Fallback(inner_spec))
                    if inner_index == outer_index + 1 && never_fails(inner_spec.classifier()) =>
                {
                    // Only where nothing stands between them: an inner fallback that answers everything with a fixed
                    // good response leaves nothing to the outer one.
                    if let crate::fallback::FallbackWith::Response(response) = inner_spec.with()
                        && response.status < 400
                    {
                        faults.push(
                            format!("[{outer_index}].fallback"),
                            format!("never runs: the fallback inside it ([{inner_index}]) answers every failure with status {}", response.status),
                        );
                    }
                }
                (
                    StrategySpec::Timeout(_)
                    | StrategySpec::Retry(_)
                    | StrategySpec::CircuitBreaker(_)
                    | StrategySpec::Fallback(_),
                    StrategySpec::Timeout(_)
                    | StrategySpec::Retry(_)
                    | StrategySpec::CircuitBreaker(_)
                    | StrategySpec::Fallback(_),
                ) => {}
            }
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

/// How many attempts one call can make at most: the product of all retries. `None`: without limit.
#[must_use]
pub fn worst_case_attempts(pipeline: &super::PipelineSpec) -> Option<u64> {
    pipeline.strategies().iter().try_fold(1_u64, |product, strategy| match strategy.spec() {
        StrategySpec::Retry(spec) => match spec.max_attempts() {
            MaxAttempts::Limited(limit) => Some(product.saturating_mul(u64::from(limit.get()))),
            MaxAttempts::Unlimited => None,
        },
        StrategySpec::Timeout(_) | StrategySpec::CircuitBreaker(_) | StrategySpec::Fallback(_) => Some(product),
    })
}
