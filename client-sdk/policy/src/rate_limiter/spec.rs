//! Validated settings of a rate limiter.

use std::time::Duration;

use crate::{Invalid, invalid::Faults};

/// Over what the limit is counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RateScope {
    /// Each replica has the whole limit.
    #[default]
    Instance,
    /// The replicas of the caller share the limit: the control plane gives each a part of it by its demand, on a lease, and the parts
    /// never sum to more than the limit.
    ///
    /// What a replica acts on without a lease in force is in [`HeldShare`](crate::fleet::held_share::HeldShare): the whole limit until it
    /// has ever been told a share, and the limit divided by the number of replicas once its lease has ended.
    Fleet,
}

/// Settings of a rate limiter, as they come in.
#[derive(Clone, Debug)]
pub struct RateLimiterInput {
    /// Calls per `period`.
    pub limit: u32,
    /// The time that `limit` is for.
    pub period: Duration,
    /// Calls that may begin at once after a rest. 1 is smooth: one call per `period / limit`.
    pub burst: u32,
    /// How long a call may wait for its turn. Zero: not at all.
    pub max_wait: Duration,
    /// Over what the limit is counted.
    pub scope: RateScope,
}

impl Default for RateLimiterInput {
    /// No limit yet; per second, smooth, no wait, each replica by itself.
    fn default() -> Self {
        Self {
            limit: 0,
            period: Duration::from_secs(1),
            burst: 1,
            max_wait: Duration::ZERO,
            scope: RateScope::Instance,
        }
    }
}

/// Settings of a rate limiter: a token bucket of `burst` tokens that gains one each `period / limit`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RateLimiterSpec {
    limit: u32,
    period: Duration,
    burst: u32,
    max_wait: Duration,
    scope: RateScope,
}

impl RateLimiterSpec {
    /// Checks the settings.
    ///
    /// # Errors
    /// A limit, burst or period of zero; more than one call per nanosecond; a burst above the limit.
    pub fn try_new(input: RateLimiterInput) -> Result<Self, Invalid> {
        const LONGEST: Duration = Duration::from_secs(24 * 3600);
        let RateLimiterInput { limit, period, burst, max_wait, scope } = input;
        let mut faults = Faults::new();
        faults.check(limit > 0, "limit", "is required, and at least 1");
        faults.check(!period.is_zero() && period <= LONGEST, "period", "must be greater than zero and at most 24h");
        faults.check(
            u128::from(limit) <= period.as_nanos().max(1),
            "limit",
            "must not be more than one call per nanosecond",
        );
        faults.check(
            (1..=limit.max(1)).contains(&burst),
            "burst",
            format!("must be from 1 to the limit of {limit}, is {burst}"),
        );
        faults.check(max_wait <= LONGEST, "maxWait", "must be at most 24h");
        faults.into_result(Some(Self { limit, period, burst, max_wait, scope }))
    }

    /// Calls per period.
    #[must_use]
    pub const fn limit(&self) -> u32 {
        self.limit
    }

    /// The time that the limit is for.
    #[must_use]
    pub const fn period(&self) -> Duration {
        self.period
    }

    /// Calls that may begin at once after a rest. Default: 1, which is smooth. Of a shared limit each replica has its part, and at least 1.
    #[must_use]
    pub const fn burst(&self) -> u32 {
        self.burst
    }

    /// How long a call may wait for its turn. Default: not at all.
    #[must_use]
    pub const fn max_wait(&self) -> Duration {
        self.max_wait
    }

    /// Over what the limit is counted. Default: each replica by itself.
    #[must_use]
    pub const fn scope(&self) -> RateScope {
        self.scope
    }
}
