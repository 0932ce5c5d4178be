//! Cache <-> wire.

use fusebox_policy::{
    Invalid,
    cache::{CacheInput, CacheSpec},
    invalid::Faults,
};

use crate::{
    condition::{ignored, pair},
    duration, v1,
};

impl TryFrom<v1::Cache> for CacheSpec {
    type Error = Invalid;

    fn try_from(wire: v1::Cache) -> Result<Self, Invalid> {
        let v1::Cache { ttl, max_entries, max_body_bytes, coalesce, failure_when, ignore_when } = wire;
        let mut faults = Faults::new();
        let default = CacheInput::default();
        let (failure_when, ignore_when) = pair(&mut faults, failure_when, ignore_when);
        let input = CacheInput {
            ttl: duration::optional(&mut faults, "ttl", ttl).unwrap_or(default.ttl),
            max_entries: max_entries.unwrap_or(default.max_entries),
            max_body_bytes: max_body_bytes.unwrap_or(default.max_body_bytes),
            coalesce: coalesce.unwrap_or(default.coalesce),
            failure_when,
            ignore_when,
        };
        let spec = faults.take("", Self::try_new(input));
        faults.into_result(spec)
    }
}

impl From<&CacheSpec> for v1::Cache {
    fn from(spec: &CacheSpec) -> Self {
        Self {
            ttl: Some(duration::to_wire(spec.ttl())),
            max_entries: Some(spec.max_entries()),
            max_body_bytes: Some(spec.max_body_bytes()),
            coalesce: Some(spec.coalesce()),
            failure_when: Some(spec.classifier().failure_when().into()),
            ignore_when: ignored(spec.classifier().ignore_when()),
        }
    }
}
