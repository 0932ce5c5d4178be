//! Conditions <-> wire.

use fusebox_policy::{
    Invalid,
    condition::{Conditions, ErrorRule, HeaderRule, StatusRange},
    invalid::Faults,
    outcome::{ErrorKind, GrpcCode},
};

use crate::{duration, v1};

impl TryFrom<v1::Conditions> for Conditions {
    type Error = Invalid;

    fn try_from(wire: v1::Conditions) -> Result<Self, Invalid> {
        let v1::Conditions { statuses, grpc_codes, errors, headers, slower_than } = wire;
        let mut faults = Faults::new();
        let mut read = Self::default();
        for (index, text) in statuses.iter().enumerate() {
            read.statuses.extend(faults.take(&format!("statuses[{index}]"), StatusRange::parse(text)));
        }
        for (index, name) in grpc_codes.iter().enumerate() {
            match GrpcCode::from_name(name) {
                Some(code) => read.grpc_codes.push(code),
                None => faults.push(
                    format!("grpcCodes[{index}]"),
                    format!("{name:?} is not a gRPC code: write \"UNAVAILABLE\", \"INTERNAL\", ..."),
                ),
            }
        }
        for (index, number) in errors.into_iter().enumerate() {
            let rule = v1::ErrorKind::try_from(number).ok().and_then(error_rule);
            match rule {
                Some(rule) => read.errors.push(rule),
                None => faults.push(format!("errors[{index}]"), format!("{number} is not a kind of error")),
            }
        }
        for (index, header) in headers.into_iter().enumerate() {
            let v1::HeaderMatch { name, value } = header;
            let value = (!value.is_empty()).then_some(value.as_str());
            read.headers.extend(faults.take(&format!("headers[{index}]"), HeaderRule::try_new(&name, value)));
        }
        read.slower_than = duration::optional(&mut faults, "slowerThan", slower_than);
        faults.into_result(Some(read))
    }
}

impl From<&Conditions> for v1::Conditions {
    fn from(conditions: &Conditions) -> Self {
        let Conditions { statuses, grpc_codes, errors, headers, slower_than } = conditions;
        Self {
            statuses: statuses.iter().map(ToString::to_string).collect(),
            grpc_codes: grpc_codes.iter().map(|code| code.name().to_owned()).collect(),
            errors: errors.iter().map(|rule| error_kind(*rule).into()).collect(),
            headers: headers
                .iter()
                .map(|rule| v1::HeaderMatch {
                    name: rule.name().to_owned(),
                    value: rule.value().unwrap_or_default().to_owned(),
                })
                .collect(),
            slower_than: slower_than.map(duration::to_wire),
        }
    }
}

/// Reads `failure_when` and `ignore_when` of a strategy.
pub(crate) fn pair(
    faults: &mut Faults,
    failure_when: Option<v1::Conditions>,
    ignore_when: Option<v1::Conditions>,
) -> (Option<Conditions>, Conditions) {
    let failure_when = failure_when.and_then(|wire| faults.take("failureWhen", wire.try_into()));
    let ignore_when = ignore_when.and_then(|wire| faults.take("ignoreWhen", wire.try_into())).unwrap_or_default();
    (failure_when, ignore_when)
}

/// Writes `ignore_when`: nothing, where nothing is ignored.
pub(crate) fn ignored(conditions: &Conditions) -> Option<v1::Conditions> {
    (!conditions.is_empty()).then(|| conditions.into())
}

const fn error_rule(wire: v1::ErrorKind) -> Option<ErrorRule> {
    Some(match wire {
        v1::ErrorKind::Unspecified => return None,
        v1::ErrorKind::Any => ErrorRule::Any,
        v1::ErrorKind::Rejected => ErrorRule::Rejected,
        v1::ErrorKind::Connect => ErrorRule::Kind(ErrorKind::Connect),
        v1::ErrorKind::Reset => ErrorRule::Kind(ErrorKind::Reset),
        v1::ErrorKind::Timeout => ErrorRule::Kind(ErrorKind::Timeout),
        v1::ErrorKind::Body => ErrorRule::Kind(ErrorKind::Body),
        v1::ErrorKind::Tls => ErrorRule::Kind(ErrorKind::Tls),
        v1::ErrorKind::Request => ErrorRule::Kind(ErrorKind::Request),
        v1::ErrorKind::Other => ErrorRule::Kind(ErrorKind::Other),
    })
}

const fn error_kind(rule: ErrorRule) -> v1::ErrorKind {
    match rule {
        ErrorRule::Any => v1::ErrorKind::Any,
        ErrorRule::Rejected => v1::ErrorKind::Rejected,
        ErrorRule::Kind(ErrorKind::Connect) => v1::ErrorKind::Connect,
        ErrorRule::Kind(ErrorKind::Reset) => v1::ErrorKind::Reset,
        ErrorRule::Kind(ErrorKind::Timeout) => v1::ErrorKind::Timeout,
        ErrorRule::Kind(ErrorKind::Body) => v1::ErrorKind::Body,
        ErrorRule::Kind(ErrorKind::Tls) => v1::ErrorKind::Tls,
        ErrorRule::Kind(ErrorKind::Request) => v1::ErrorKind::Request,
        ErrorRule::Kind(ErrorKind::Other) => v1::ErrorKind::Other,
    }
}
