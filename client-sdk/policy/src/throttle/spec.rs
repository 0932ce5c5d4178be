//! Validated settings of a client-side throttle.

use std::time::Duration;

use crate::{
    Invalid,
    condition::{Classifier, Conditions, overload_default},
    invalid::Faults,
};

/// How much a call matters. The lower ones are refused first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Priority {
    /// May be lost without anybody noticing soon: prefetching, batches.
    Low,
    /// Ordinary calls.
    #[default]
    Normal,
    /// What people wait for.
    High,
    /// What must pass as long as anything does.
    Critical,
}

impl Priority {
    /// All of them, the lowest first.
    pub const ALL: [Self; 4] = [Self::Low, Self::Normal, Self::High, Self::Critical];
}

/// Settings of a throttle, as they come in.
#[derive(Clone, Debug)]
pub struct ThrottleInput {
    /// Calls that are sent for each one that the target accepts, before any is refused here: K of the rule.
    pub multiplier: f64,
    /// Over which calls.
    pub window: Duration,
    /// Fewer calls than this in the window: nothing is refused.
    pub min_calls: u32,
    /// Most calls refused, in percent.
    pub max_rejection_percent: u32,
    /// Which outcomes are refusals by the target. `None` is the default: timeouts, 429, 503, RESOURCE_EXHAUSTED,
    /// DEADLINE_EXCEEDED.
    pub failure_when: Option<Conditions>,
    /// Read before `failure_when`; counts neither way.
    pub ignore_when: Conditions,
}

impl Default for ThrottleInput {
    fn default() -> Self {
        Self {
            multiplier: 2.0,
            window: Duration::from_secs(120),
            min_calls: 10,
            max_rejection_percent: 90,
            failure_when: None,
            ignore_when: Conditions::default(),
        }
    }
}

/// Settings of a throttle. The rule is that of "Site Reliability Engineering", chapter 21.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ThrottleSpec {
    /// In millionths.
    multiplier_ppm: u32,
    window: Duration,
    min_calls: u32,
    max_rejection_percent: u32,
    classifier: Classifier,
}

impl ThrottleSpec {
    /// Checks the settings.
    ///
    /// # Errors
    /// A multiplier outside of 1 to 100, a window outside of 1s to 1h, a percentage outside of 1 to 100, bad conditions.
    pub fn try_new(input: ThrottleInput) -> Result<Self, Invalid> {
        let ThrottleInput { multiplier, window, min_calls, max_rejection_percent, failure_when, ignore_when } = input;
        let mut faults = Faults::new();
        faults.check(
            multiplier.is_finite() && (1.0..=100.0).contains(&multiplier),
            "multiplier",
            format!("must be from 1 to 100, is {multiplier}"),
        );
        faults.check(
            (Duration::from_secs(1)..=Duration::from_secs(3600)).contains(&window),
            "window",
            "must be from 1s to 1h",
        );
        faults.check(
            (1..=100).contains(&max_rejection_percent),
            "maxRejectionPercent",
            format!("must be from 1 to 100, is {max_rejection_percent}"),
        );
        let classifier = faults.take("", Classifier::try_new(failure_when, ignore_when, overload_default));
        faults.into_result(classifier.map(|classifier| Self {
            multiplier_ppm: (multiplier * 1e6).round() as u32,
            window,
            min_calls,
            max_rejection_percent,
            classifier,
        }))
    }

    /// Calls that are sent for each one that the target accepts, before any is refused here. Default: 2.
    #[must_use]
    pub fn multiplier(&self) -> f64 {
        f64::from(self.multiplier_ppm) / 1e6
    }

    /// Over which calls. Default: 2 minutes.
    #[must_use]
    pub const fn window(&self) -> Duration {
        self.window
    }

    /// Fewer calls than this in the window: nothing is refused. Default: 10.
    #[must_use]
    pub const fn min_calls(&self) -> u32 {
        self.min_calls
    }

    /// Most calls refused, in percent. Default: 90.
    #[must_use]
    pub const fn max_rejection_percent(&self) -> u32 {
        self.max_rejection_percent
    }

    /// Which outcomes are refusals by the target.
    #[must_use]
    pub const fn classifier(&self) -> &Classifier {
        &self.classifier
    }
}
