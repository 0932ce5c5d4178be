//! Retry <-> wire.

use fusebox_policy::{
    Invalid,
    invalid::Faults,
    retry::{
        MaxAttempts, OnExhausted, RetryInput, RetrySpec,
        backoff::{Backoff, Jitter, Shape},
        budget::BudgetSpec,
    },
};

use crate::{
    condition::{ignored, pair},
    duration, v1,
};

impl TryFrom<v1::Retry> for RetrySpec {
    type Error = Invalid;

    fn try_from(wire: v1::Retry) -> Result<Self, Invalid> {
        let v1::Retry {
            max_attempts,
            unlimited,
            max_duration,
            backoff,
            failure_when,
            ignore_when,
            non_idempotent,
            respect_retry_after,
            retry_after_max,
            wait_for_breaker,
            budget,
            no_budget,
            on_exhausted,
        } = wire;
        let mut faults = Faults::new();
        let default = RetryInput::default();
        let (failure_when, ignore_when) = pair(&mut faults, failure_when, ignore_when);
        faults.check(!(no_budget && budget.is_some()), "budget", "contradicts noBudget");
        let budget = budget.map(|wire| faults.take("budget", wire.try_into()).unwrap_or_default());
        let on_exhausted = match v1::OnExhausted::try_from(on_exhausted) {
            Ok(v1::OnExhausted::Unspecified | v1::OnExhausted::LastOutcome) => OnExhausted::LastOutcome,
            Ok(v1::OnExhausted::Error) => OnExhausted::Error,
            Err(_) => {
                faults.push("onExhausted", format!("{on_exhausted} is not a choice"));
                OnExhausted::default()
            }
        };
        let input = RetryInput {
            max_attempts,
            unlimited,
            max_duration: duration::optional(&mut faults, "maxDuration", max_duration),
            backoff: match backoff {
                Some(wire) => faults.take("backoff", wire.try_into()).unwrap_or_default(),
                None => default.backoff,
            },
            failure_when,
            ignore_when,
            non_idempotent,
            respect_retry_after: respect_retry_after.unwrap_or(default.respect_retry_after),
            retry_after_max: duration::optional(&mut faults, "retryAfterMax", retry_after_max)
                .unwrap_or(default.retry_after_max),
            wait_for_breaker,
            budget: if no_budget { None } else { budget.or(default.budget) },
            on_exhausted,
        };
        let spec = faults.take("", Self::try_new(input));
        faults.into_result(spec)
    }
}

impl From<&RetrySpec> for v1::Retry {
    fn from(spec: &RetrySpec) -> Self {
        let (max_attempts, unlimited) = match spec.max_attempts() {
            MaxAttempts::Limited(limit) => (Some(limit.get()), false),
            MaxAttempts::Unlimited => (None, true),
        };
        let on_exhausted = match spec.on_exhausted() {
            OnExhausted::LastOutcome => v1::OnExhausted::LastOutcome,
            OnExhausted::Error => v1::OnExhausted::Error,
        };
        Self {
            max_attempts,
            unlimited,
            max_duration: spec.max_duration().map(duration::to_wire),
            backoff: Some(spec.backoff().into()),
            failure_when: Some(spec.classifier().failure_when().into()),
            ignore_when: ignored(spec.classifier().ignore_when()),
            non_idempotent: spec.non_idempotent(),
            respect_retry_after: Some(spec.respect_retry_after()),
            retry_after_max: Some(duration::to_wire(spec.retry_after_max())),
            wait_for_breaker: spec.wait_for_breaker(),
            budget: spec.budget().map(|budget| v1::RetryBudget {
                ratio: Some(budget.ratio()),
                min_per_second: Some(budget.min_per_second()),
            }),
            no_budget: spec.budget().is_none(),
            on_exhausted: on_exhausted.into(),
        }
    }
}

impl TryFrom<v1::RetryBudget> for BudgetSpec {
    type Error = Invalid;

    fn try_from(wire: v1::RetryBudget) -> Result<Self, Invalid> {
        let v1::RetryBudget { ratio, min_per_second } = wire;
        let default = Self::default();
        Self::try_new(ratio.unwrap_or(default.ratio()), min_per_second.unwrap_or(default.min_per_second()))
    }
}

impl TryFrom<v1::Backoff> for Backoff {
    type Error = Invalid;

    fn try_from(wire: v1::Backoff) -> Result<Self, Invalid> {
        let v1::Backoff { shape, jitter, jitter_ratio } = wire;
        let mut faults = Faults::new();
        let required = |faults: &mut Faults, field: &str, wire: Option<prost_types::Duration>| {
            if wire.is_none() {
                faults.push(field, "is required");
            }
            duration::optional(faults, field, wire)
        };
        let shape = match shape {
            None => {
                faults.push("", "must be one of fixed, linear, exponential, random, decorrelated");
                None
            }
            Some(v1::backoff::Shape::Fixed(v1::FixedBackoff { delay })) => {
                required(&mut faults, "fixed.delay", delay).map(|delay| Shape::Fixed { delay })
            }
            Some(v1::backoff::Shape::Linear(v1::LinearBackoff { initial, step, max })) => {
                let initial = required(&mut faults, "linear.initial", initial);
                let step = duration::optional(&mut faults, "linear.step", step);
                let max = duration::optional(&mut faults, "linear.max", max);
                initial.map(|initial| Shape::Linear { initial, step: step.unwrap_or(initial), max })
            }
            Some(v1::backoff::Shape::Exponential(v1::ExponentialBackoff { initial, factor, max })) => {
                let initial = required(&mut faults, "exponential.initial", initial);
                let max = duration::optional(&mut faults, "exponential.max", max);
                initial.map(|initial| Shape::Exponential { initial, factor: factor.unwrap_or(2.0), max })
            }
            Some(v1::backoff::Shape::Random(v1::RandomBackoff { min, max })) => {
                let min = required(&mut faults, "random.min", min);
                let max = required(&mut faults, "random.max", max);
                min.zip(max).map(|(min, max)| Shape::Random { min, max })
            }
            Some(v1::backoff::Shape::Decorrelated(v1::DecorrelatedBackoff { initial, max })) => {
                let initial = required(&mut faults, "decorrelated.initial", initial);
                let max = required(&mut faults, "decorrelated.max", max);
                initial.zip(max).map(|(initial, max)| Shape::Decorrelated { initial, max })
            }
        };
        let jitter = match v1::Jitter::try_from(jitter) {
            Ok(v1::Jitter::Unspecified) => None,
            Ok(v1::Jitter::None) => Some(Jitter::None),
            Ok(v1::Jitter::Full) => Some(Jitter::Full),
            Ok(v1::Jitter::Equal) => Some(Jitter::Equal),
            Ok(v1::Jitter::Ratio) => Some(Jitter::Ratio(jitter_ratio)),
            Err(_) => {
                faults.push("jitter", format!("{jitter} is not a kind of jitter"));
                None
            }
        };
        let backoff = shape.and_then(|shape| faults.take("", Self::try_new(shape, jitter)));
        faults.into_result(backoff)
    }
}

impl From<&Backoff> for v1::Backoff {
    fn from(backoff: &Backoff) -> Self {
        let shape = match backoff.shape() {
            Shape::Fixed { delay } => {
                v1::backoff::Shape::Fixed(v1::FixedBackoff { delay: Some(duration::to_wire(delay)) })
            }
            Shape::Linear { initial, step, max } => v1::backoff::Shape::Linear(v1::LinearBackoff {
                initial: Some(duration::to_wire(initial)),
                step: Some(duration::to_wire(step)),
                max: max.map(duration::to_wire),
            }),
            Shape::Exponential { initial, factor, max } => v1::backoff::Shape::Exponential(v1::ExponentialBackoff {
                initial: Some(duration::to_wire(initial)),
                factor: Some(factor),
                max: max.map(duration::to_wire),
            }),
            Shape::Random { min, max } => v1::backoff::Shape::Random(v1::RandomBackoff {
                min: Some(duration::to_wire(min)),
                max: Some(duration::to_wire(max)),
            }),
            Shape::Decorrelated { initial, max } => v1::backoff::Shape::Decorrelated(v1::DecorrelatedBackoff {
                initial: Some(duration::to_wire(initial)),
                max: Some(duration::to_wire(max)),
            }),
        };
        let (jitter, jitter_ratio) = match backoff.jitter() {
            Jitter::None => (v1::Jitter::None, 0.0),
            Jitter::Full => (v1::Jitter::Full, 0.0),
            Jitter::Equal => (v1::Jitter::Equal, 0.0),
            Jitter::Ratio(ratio) => (v1::Jitter::Ratio, ratio),
        };
        Self { shape: Some(shape), jitter: jitter.into(), jitter_ratio }
    }
}
