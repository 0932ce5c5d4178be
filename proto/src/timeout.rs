//! Timeout <-> wire.

use fusebox_policy::{
    Invalid,
    invalid::Faults,
    timeout::{TimeoutScope, TimeoutSpec},
};

use crate::{duration, v1};

impl TryFrom<v1::Timeout> for TimeoutSpec {
    type Error = Invalid;

    fn try_from(wire: v1::Timeout) -> Result<Self, Invalid> {
        let v1::Timeout { duration, scope, propagate_header } = wire;
        let mut faults = Faults::new();
        let scope = match v1::TimeoutScope::try_from(scope) {
            Ok(v1::TimeoutScope::Unspecified | v1::TimeoutScope::Head) => Some(TimeoutScope::Head),
            Ok(v1::TimeoutScope::Body) => Some(TimeoutScope::Body),
            Err(_) => {
                faults.push("scope", format!("{scope} is not a scope"));
                None
            }
        };
        if duration.is_none() {
            faults.push("duration", "is required");
        }
        let duration = duration::optional(&mut faults, "duration", duration);
        let header = (!propagate_header.is_empty()).then_some(propagate_header);
        let spec =
            duration.zip(scope).and_then(|(duration, scope)| faults.take("", Self::try_new(duration, scope, header)));
        faults.into_result(spec)
    }
}

impl From<&TimeoutSpec> for v1::Timeout {
    fn from(spec: &TimeoutSpec) -> Self {
        let scope = match spec.scope() {
            TimeoutScope::Head => v1::TimeoutScope::Head,
            TimeoutScope::Body => v1::TimeoutScope::Body,
        };
        Self {
            duration: Some(duration::to_wire(spec.duration())),
            scope: scope.into(),
            propagate_header: spec.propagate_header().unwrap_or_default().to_owned(),
        }
    }
}
