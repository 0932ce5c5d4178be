//! Validated settings of an adaptive concurrency limit.

use crate::{
    Invalid,
    condition::{Classifier, Conditions, overload_default},
    invalid::Faults,
};

/// Settings of an adaptive concurrency limit, as they come in.
#[derive(Clone, Debug)]
pub struct ConcurrencyLimitInput {
    /// Where it begins.
    pub initial: u32,
    /// It never falls below.
    pub min: u32,
    /// It never rises above.
    pub max: u32,
    /// Which outcomes mean too much load. `None` is the default: timeouts, 429, 503, RESOURCE_EXHAUSTED,
    /// DEADLINE_EXCEEDED.
    pub failure_when: Option<Conditions>,
    /// Read before `failure_when`; says nothing about load.
    pub ignore_when: Conditions,
}

impl Default for ConcurrencyLimitInput {
    fn default() -> Self {
        Self { initial: 20, min: 4, max: 200, failure_when: None, ignore_when: Conditions::default() }
    }
}

/// Settings of an adaptive concurrency limit.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ConcurrencyLimitSpec {
    initial: u32,
    min: u32,
    max: u32,
    classifier: Classifier,
}

impl ConcurrencyLimitSpec {
    /// More than this is no limit.
    pub const MOST: u32 = 100_000;

    /// Checks the settings.
    ///
    /// # Errors
    /// Bounds of zero, in the wrong order, or above [`ConcurrencyLimitSpec::MOST`]; bad conditions.
    pub fn try_new(input: ConcurrencyLimitInput) -> Result<Self, Invalid> {
        let ConcurrencyLimitInput { initial, min, max, failure_when, ignore_when } = input;
        let mut faults = Faults::new();
        faults.check(min >= 1, "min", "must be at least 1: with 0 nothing would ever pass to learn from");
        faults.check(max <= Self::MOST, "max", format!("must be at most {}, is {max}", Self::MOST));
        faults.check(min <= max, "max", format!("must be at least the min of {min}, is {max}"));
        faults.check(
            (min..=max).contains(&initial) || min > max,
            "initial",
            format!("must be from {min} to {max}, is {initial}"),
        );
        let classifier = faults.take("", Classifier::try_new(failure_when, ignore_when, overload_default));
        faults.into_result(classifier.map(|classifier| Self { initial, min, max, classifier }))
    }

    /// Where it begins. Default: 20.
    #[must_use]
    pub const fn initial(&self) -> u32 {
        self.initial
    }

    /// It never falls below. Default: 4.
    #[must_use]
    pub const fn min(&self) -> u32 {
        self.min
    }

    /// It never rises above. Default: 200.
    #[must_use]
    pub const fn max(&self) -> u32 {
        self.max
    }

    /// Which outcomes mean too much load.
    #[must_use]
    pub const fn classifier(&self) -> &Classifier {
        &self.classifier
    }
}
