//! Concurrency limit <-> wire.

use fusebox_policy::{
    Invalid,
    concurrency_limit::{ConcurrencyLimitInput, ConcurrencyLimitSpec},
    invalid::Faults,
};

use crate::{
    condition::{ignored, pair},
    v1,
};

impl TryFrom<v1::ConcurrencyLimit> for ConcurrencyLimitSpec {
    type Error = Invalid;

    fn try_from(wire: v1::ConcurrencyLimit) -> Result<Self, Invalid> {
        let v1::ConcurrencyLimit { initial, min, max, failure_when, ignore_when } = wire;
        let mut faults = Faults::new();
        let default = ConcurrencyLimitInput::default();
        let (failure_when, ignore_when) = pair(&mut faults, failure_when, ignore_when);
        let input = ConcurrencyLimitInput {
            initial: initial.unwrap_or(default.initial),
            min: min.unwrap_or(default.min),
            max: max.unwrap_or(default.max),
            failure_when,
            ignore_when,
        };
        let spec = faults.take("", Self::try_new(input));
        faults.into_result(spec)
    }
}

impl From<&ConcurrencyLimitSpec> for v1::ConcurrencyLimit {
    fn from(spec: &ConcurrencyLimitSpec) -> Self {
        Self {
            initial: Some(spec.initial()),
            min: Some(spec.min()),
            max: Some(spec.max()),
            failure_when: Some(spec.classifier().failure_when().into()),
            ignore_when: ignored(spec.classifier().ignore_when()),
        }
    }
}
