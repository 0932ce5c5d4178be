//! Rate limiter <-> wire.

use fusebox_policy::{
    Invalid,
    invalid::Faults,
    rate_limiter::{RateLimiterInput, RateLimiterSpec, RateScope},
};

use crate::{duration, v1};

impl TryFrom<v1::RateLimiter> for RateLimiterSpec {
    type Error = Invalid;

    fn try_from(wire: v1::RateLimiter) -> Result<Self, Invalid> {
        let v1::RateLimiter { limit, period, burst, max_wait, scope } = wire;
        let mut faults = Faults::new();
        let default = RateLimiterInput::default();
        let scope = match v1::RateScope::try_from(scope) {
            Ok(v1::RateScope::Unspecified | v1::RateScope::Instance) => RateScope::Instance,
            Ok(v1::RateScope::Fleet) => RateScope::Fleet,
            Err(_) => {
                faults.push("scope", format!("{scope} is not a scope"));
                RateScope::Instance
            }
        };
        let input = RateLimiterInput {
            limit,
            period: duration::optional(&mut faults, "period", period).unwrap_or(default.period),
            burst: burst.unwrap_or(default.burst),
            max_wait: duration::optional(&mut faults, "maxWait", max_wait).unwrap_or(default.max_wait),
            scope,
        };
        let spec = faults.take("", Self::try_new(input));
        faults.into_result(spec)
    }
}

impl From<&RateLimiterSpec> for v1::RateLimiter {
    fn from(spec: &RateLimiterSpec) -> Self {
        let scope = match spec.scope() {
            RateScope::Instance => v1::RateScope::Instance,
            RateScope::Fleet => v1::RateScope::Fleet,
        };
        Self {
            limit: spec.limit(),
            period: Some(duration::to_wire(spec.period())),
            burst: Some(spec.burst()),
            max_wait: Some(duration::to_wire(spec.max_wait())),
            scope: scope.into(),
        }
    }
}
