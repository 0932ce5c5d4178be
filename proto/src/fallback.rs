//! Fallback <-> wire.

use fusebox_policy::{
    Invalid, TargetName,
    fallback::{FallbackSpec, FallbackWith, StaleSpec, StaticResponse},
    invalid::Faults,
};

use crate::{
    condition::{ignored, pair},
    duration, v1,
};

impl TryFrom<v1::Fallback> for FallbackSpec {
    type Error = Invalid;

    fn try_from(wire: v1::Fallback) -> Result<Self, Invalid> {
        let v1::Fallback { failure_when, ignore_when, with } = wire;
        let mut faults = Faults::new();
        let (failure_when, ignore_when) = pair(&mut faults, failure_when, ignore_when);
        let with = match with {
            None => {
                faults.push("", "must be one of response, error, function, target, stale");
                None
            }
            Some(v1::fallback::With::Response(wire)) => read_response(wire, &mut faults).map(FallbackWith::Response),
            Some(v1::fallback::With::Error(text)) => Some(FallbackWith::Error(text)),
            Some(v1::fallback::With::Function(name)) => Some(FallbackWith::Function(name)),
            Some(v1::fallback::With::Target(name)) => {
                faults.take("target", TargetName::try_new(&name)).map(FallbackWith::Target)
            }
            Some(v1::fallback::With::Stale(wire)) => read_stale(wire, &mut faults).map(FallbackWith::Stale),
        };
        let spec = with.and_then(|with| faults.take("", Self::try_new(failure_when, ignore_when, with)));
        faults.into_result(spec)
    }
}

fn read_response(wire: v1::StaticResponse, faults: &mut Faults) -> Option<StaticResponse> {
    let v1::StaticResponse { status, headers, body } = wire;
    let default = StaticResponse::default();
    let status = match status.map(u16::try_from) {
        None => default.status,
        Some(Ok(status)) => status,
        Some(Err(_)) => {
            faults.push("response.status", "must be from 100 to 599");
            return None;
        }
    };
    let headers = headers.into_iter().map(|(name, value)| (name.to_ascii_lowercase(), value)).collect();
    Some(StaticResponse { status, headers, body })
}

fn read_stale(wire: v1::Stale, faults: &mut Faults) -> Option<StaleSpec> {
    let v1::Stale { max_age, max_entries, max_body_bytes } = wire;
    if max_age.is_none() {
        faults.push("stale.maxAge", "is required");
    }
    Some(StaleSpec {
        max_age: duration::optional(faults, "stale.maxAge", max_age)?,
        max_entries: max_entries.unwrap_or(StaleSpec::DEFAULT_MAX_ENTRIES),
        max_body_bytes: max_body_bytes.unwrap_or(StaleSpec::DEFAULT_MAX_BODY_BYTES),
    })
}

impl From<&FallbackSpec> for v1::Fallback {
    fn from(spec: &FallbackSpec) -> Self {
        let with = match spec.with() {
            FallbackWith::Response(response) => {
                let StaticResponse { status, headers, body } = response;
                v1::fallback::With::Response(v1::StaticResponse {
                    status: Some(u32::from(*status)),
                    headers: headers.clone(),
                    body: body.clone(),
                })
            }
            FallbackWith::Error(text) => v1::fallback::With::Error(text.clone()),
            FallbackWith::Function(name) => v1::fallback::With::Function(name.clone()),
            FallbackWith::Target(target) => v1::fallback::With::Target(target.as_str().to_owned()),
            FallbackWith::Stale(StaleSpec { max_age, max_entries, max_body_bytes }) => {
                v1::fallback::With::Stale(v1::Stale {
                    max_age: Some(duration::to_wire(*max_age)),
                    max_entries: Some(*max_entries),
                    max_body_bytes: Some(*max_body_bytes),
                })
            }
        };
        Self {
            failure_when: Some(spec.classifier().failure_when().into()),
            ignore_when: ignored(spec.classifier().ignore_when()),
            with: Some(with),
        }
    }
}
