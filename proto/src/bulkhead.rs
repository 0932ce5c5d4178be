//! Bulkhead <-> wire.

use fusebox_policy::{Invalid, bulkhead::BulkheadSpec, invalid::Faults};

use crate::{duration, v1};

impl TryFrom<v1::Bulkhead> for BulkheadSpec {
    type Error = Invalid;

    fn try_from(wire: v1::Bulkhead) -> Result<Self, Invalid> {
        let v1::Bulkhead { max_concurrent, max_waiting, max_wait } = wire;
        let mut faults = Faults::new();
        let max_wait = duration::optional(&mut faults, "maxWait", max_wait);
        let spec = faults.take("", Self::try_new(max_concurrent, max_waiting, max_wait));
        faults.into_result(spec)
    }
}

impl From<&BulkheadSpec> for v1::Bulkhead {
    fn from(spec: &BulkheadSpec) -> Self {
        Self {
            max_concurrent: spec.max_concurrent(),
            max_waiting: spec.max_waiting(),
            max_wait: spec.max_wait().map(duration::to_wire),
        }
    }
}
