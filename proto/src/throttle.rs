//! Throttle <-> wire.

use fusebox_policy::{
    Invalid,
    invalid::Faults,
    throttle::{ThrottleInput, ThrottleSpec},
};

use crate::{
    condition::{ignored, pair},
    duration, v1,
};

impl TryFrom<v1::Throttle> for ThrottleSpec {
    type Error = Invalid;

    fn try_from(wire: v1::Throttle) -> Result<Self, Invalid> {
        let v1::Throttle { multiplier, window, min_calls, max_rejection_percent, failure_when, ignore_when } = wire;
        let mut faults = Faults::new();
        let default = ThrottleInput::default();
        let (failure_when, ignore_when) = pair(&mut faults, failure_when, ignore_when);
        let input = ThrottleInput {
            multiplier: multiplier.unwrap_or(default.multiplier),
            window: duration::optional(&mut faults, "window", window).unwrap_or(default.window),
            min_calls: min_calls.unwrap_or(default.min_calls),
            max_rejection_percent: max_rejection_percent.unwrap_or(default.max_rejection_percent),
            failure_when,
            ignore_when,
        };
        let spec = faults.take("", Self::try_new(input));
        faults.into_result(spec)
    }
}

impl From<&ThrottleSpec> for v1::Throttle {
    fn from(spec: &ThrottleSpec) -> Self {
        Self {
            multiplier: Some(spec.multiplier()),
            window: Some(duration::to_wire(spec.window())),
            min_calls: Some(spec.min_calls()),
            max_rejection_percent: Some(spec.max_rejection_percent()),
            failure_when: Some(spec.classifier().failure_when().into()),
            ignore_when: ignored(spec.classifier().ignore_when()),
        }
    }
}
