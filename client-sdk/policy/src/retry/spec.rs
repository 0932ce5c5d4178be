//! Validated settings of a retry.

use std::{num::NonZeroU32, time::Duration};

use super::{backoff::Backoff, budget::BudgetSpec};
use crate::{
    Invalid,
    condition::{Classifier, Conditions, retry_default},
    invalid::Faults,
};

/// How often to try.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MaxAttempts {
    /// This many, the first included.
    Limited(NonZeroU32),
    /// Without limit; only together with a maximal duration.
    Unlimited,
}

/// What the caller gets when the attempts are used up.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum OnExhausted {
    /// The last outcome itself.
    #[default]
    LastOutcome,
    /// An error that says so.
    Error,
}

/// Settings of a retry, as they come in. Build it with struct update from `RetryInput::default()`.
#[derive(Clone, Debug)]
pub struct RetryInput {
    /// `None` is the default of 3.
    pub max_attempts: Option<u32>,
    /// No limit on attempts.
    pub unlimited: bool,
    /// Limit over all attempts and delays.
    pub max_duration: Option<Duration>,
    /// The waits.
    pub backoff: Backoff,
    /// `None` is the default.
    pub failure_when: Option<Conditions>,
    /// Never retried.
    pub ignore_when: Conditions,
    /// Retry what is not idempotent too.
    pub non_idempotent: bool,
    /// Honour `Retry-After` and pushback.
    pub respect_retry_after: bool,
    /// An asked wait above this ends the call.
    pub retry_after_max: Duration,
    /// Wait for an inner breaker whose `retry_after` is known.
    pub wait_for_breaker: bool,
    /// `None`: no budget.
    pub budget: Option<BudgetSpec>,
    /// What the caller gets at the end.
    pub on_exhausted: OnExhausted,
}

impl Default for RetryInput {
    fn default() -> Self {
        Self {
            max_attempts: None,
            unlimited: false,
            max_duration: None,
            backoff: Backoff::default(),
            failure_when: None,
            ignore_when: Conditions::default(),
            non_idempotent: false,
            respect_retry_after: true,
            retry_after_max: Duration::from_secs(60),
            wait_for_breaker: false,
            budget: Some(BudgetSpec::default()),
            on_exhausted: OnExhausted::default(),
        }
    }
}

/// Validated settings of a retry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RetrySpec {
    max_attempts: MaxAttempts,
    max_duration: Option<Duration>,
    backoff: Backoff,
    classifier: Classifier,
    non_idempotent: bool,
    respect_retry_after: bool,
    retry_after_max: Duration,
    wait_for_breaker: bool,
    budget: Option<BudgetSpec>,
    on_exhausted: OnExhausted,
}

impl RetrySpec {
    /// Attempts when nothing is said.
    pub const DEFAULT_MAX_ATTEMPTS: u32 = 3;
    /// More attempts than this are a mistake; say `unlimited` with a `maxDuration`.
    pub const MOST_ATTEMPTS: u32 = 1000;

    /// Checks the settings.
    ///
    /// # Errors
    /// Zero attempts, unlimited attempts without a limit in time, bad conditions.
    pub fn try_new(input: RetryInput) -> Result<Self, Invalid> {
        let RetryInput {
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
            on_exhausted,
        } = input;
        let mut faults = Faults::new();
        let attempts = max_attempts.unwrap_or(Self::DEFAULT_MAX_ATTEMPTS);
        let limited = NonZeroU32::new(attempts);
        faults.check(
            (1..=Self::MOST_ATTEMPTS).contains(&attempts),
            "maxAttempts",
            format!("must be from 1 to {}, is {attempts}", Self::MOST_ATTEMPTS),
        );
        faults.check(!(unlimited && max_attempts.is_some()), "maxAttempts", "contradicts unlimited");
        faults.check(!unlimited || max_duration.is_some(), "maxDuration", "is required with unlimited attempts");
        faults.check(max_duration != Some(Duration::ZERO), "maxDuration", "must be greater than zero");
        faults.check(!respect_retry_after || !retry_after_max.is_zero(), "retryAfterMax", "must be greater than zero");
        let classifier = faults.take("", Classifier::try_new(failure_when, ignore_when, retry_default));
        let max_attempts = if unlimited { Some(MaxAttempts::Unlimited) } else { limited.map(MaxAttempts::Limited) };
        let spec = classifier.zip(max_attempts).map(|(classifier, max_attempts)| Self {
            max_attempts,
            max_duration,
            backoff,
            classifier,
            non_idempotent,
            respect_retry_after,
            retry_after_max,
            wait_for_breaker,
            budget,
            on_exhausted,
        });
        faults.into_result(spec)
    }

    /// How often to try.
    #[must_use]
    pub const fn max_attempts(&self) -> MaxAttempts {
        self.max_attempts
    }

    /// Limit over all attempts and delays.
    #[must_use]
    pub const fn max_duration(&self) -> Option<Duration> {
        self.max_duration
    }

    /// The waits.
    #[must_use]
    pub const fn backoff(&self) -> &Backoff {
        &self.backoff
    }

    /// What is retried.
    #[must_use]
    pub const fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// Whether what is not idempotent is retried too.
    #[must_use]
    pub const fn non_idempotent(&self) -> bool {
        self.non_idempotent
    }

    /// Whether asked waits are honoured.
    #[must_use]
    pub const fn respect_retry_after(&self) -> bool {
        self.respect_retry_after
    }

    /// Above this an asked wait ends the call.
    #[must_use]
    pub const fn retry_after_max(&self) -> Duration {
        self.retry_after_max
    }

    /// Whether rejections with a known wait are waited for.
    #[must_use]
    pub const fn wait_for_breaker(&self) -> bool {
        self.wait_for_breaker
    }

    /// The budget, if there is one.
    #[must_use]
    pub const fn budget(&self) -> Option<&BudgetSpec> {
        self.budget.as_ref()
    }

    /// What the caller gets at the end.
    #[must_use]
    pub const fn on_exhausted(&self) -> OnExhausted {
        self.on_exhausted
    }
}
