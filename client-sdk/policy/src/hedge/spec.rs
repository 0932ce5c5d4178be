//! Validated settings of a hedge.

use std::time::Duration;

use crate::{
    Invalid,
    condition::{Classifier, Conditions, fallback_default},
    invalid::Faults,
    retry::budget::BudgetSpec,
};

/// When a further try begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HedgeDelay {
    /// This long after the one before it. Zero: all at once.
    Fixed(Duration),
    /// When the one before it has taken longer than this share of the latest calls.
    Quantile(Quantile),
}

/// A share of observed latencies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quantile {
    /// In millionths.
    ppm: u32,
    warm_up: u32,
}

impl Quantile {
    /// Calls that are seen before anything is hedged, by default.
    pub const DEFAULT_WARM_UP: u32 = 100;

    /// A quantile from 0.5 to 0.999, and the calls to see before anything is hedged.
    ///
    /// # Errors
    /// If they are out of range.
    pub fn try_new(quantile: f64, warm_up: u32) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        faults.check(
            (0.5..=0.999).contains(&quantile),
            "quantile",
            format!("must be from 0.5 to 0.999, is {quantile}: a lower one doubles the load of most calls"),
        );
        faults.check((1..=100_000).contains(&warm_up), "warmUp", format!("must be from 1 to 100000, is {warm_up}"));
        faults.finish()?;
        Ok(Self { ppm: (quantile * 1e6).round() as u32, warm_up })
    }

    /// The quantile, from 0 to 1.
    #[must_use]
    pub fn share(self) -> f64 {
        f64::from(self.ppm) / 1e6
    }

    /// In millionths.
    #[must_use]
    pub const fn ppm(self) -> u32 {
        self.ppm
    }

    /// Calls that are seen before anything is hedged.
    #[must_use]
    pub const fn warm_up(self) -> u32 {
        self.warm_up
    }
}

/// Settings of a hedge, as they come in.
#[derive(Clone, Debug)]
pub struct HedgeInput {
    /// When a further try begins.
    pub delay: HedgeDelay,
    /// Tries beside the first one.
    pub max_hedges: u32,
    /// `None`: no budget.
    pub budget: Option<BudgetSpec>,
    /// Which outcomes don't win. `None`: any failure or rejection.
    pub failure_when: Option<Conditions>,
    /// Read before `failure_when`.
    pub ignore_when: Conditions,
}

/// Settings of a hedge. Only calls that may be made twice are hedged; others run once.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct HedgeSpec {
    delay: HedgeDelay,
    max_hedges: u32,
    budget: Option<BudgetSpec>,
    classifier: Classifier,
}

impl HedgeSpec {
    /// More tries than this are an attack.
    pub const MOST_HEDGES: u32 = 10;

    /// Checks the settings.
    ///
    /// # Errors
    /// No or more than [`HedgeSpec::MOST_HEDGES`] hedges, bad conditions.
    pub fn try_new(input: HedgeInput) -> Result<Self, Invalid> {
        let HedgeInput { delay, max_hedges, budget, failure_when, ignore_when } = input;
        let mut faults = Faults::new();
        faults.check(
            (1..=Self::MOST_HEDGES).contains(&max_hedges),
            "maxHedges",
            format!("must be from 1 to {}, is {max_hedges}", Self::MOST_HEDGES),
        );
        let classifier = faults.take("", Classifier::try_new(failure_when, ignore_when, fallback_default));
        faults.into_result(classifier.map(|classifier| Self { delay, max_hedges, budget, classifier }))
    }

    /// When a further try begins.
    #[must_use]
    pub const fn delay(&self) -> HedgeDelay {
        self.delay
    }

    /// Tries beside the first one. Default: 1.
    #[must_use]
    pub const fn max_hedges(&self) -> u32 {
        self.max_hedges
    }

    /// Bound on hedges and retries of the target together. Default: that of a retry.
    #[must_use]
    pub const fn budget(&self) -> Option<&BudgetSpec> {
        self.budget.as_ref()
    }

    /// Which outcomes don't win.
    #[must_use]
    pub const fn classifier(&self) -> &Classifier {
        &self.classifier
    }
}
