//! Chaos <-> wire.

use fusebox_policy::{
    Invalid,
    chaos::{ChaosSpec, Fault, UnixTime},
    invalid::Faults,
    outcome::{ErrorKind, GrpcCode},
};

use crate::{duration, v1};

impl TryFrom<v1::Chaos> for ChaosSpec {
    type Error = Invalid;

    fn try_from(wire: v1::Chaos) -> Result<Self, Invalid> {
        let v1::Chaos { percent, latency, fault, until } = wire;
        let mut faults = Faults::new();
        let latency = duration::optional(&mut faults, "latency", latency).unwrap_or_default();
        let given = fault.is_some();
        let fault = fault.and_then(|fault| read_fault(fault, &mut faults));
        let until = UnixTime(until.map_or(0, |until| until.seconds));
        // A fault that could not be read is no fault that is missing.
        let spec = if given == fault.is_some() {
            faults.take("", Self::try_new(percent, latency, fault, until))
        } else {
            None
        };
        faults.into_result(spec)
    }
}

fn read_fault(wire: v1::chaos::Fault, faults: &mut Faults) -> Option<Fault> {
    match wire {
        v1::chaos::Fault::Status(status) => match u16::try_from(status) {
            Ok(status) => Some(Fault::Status(status)),
            Err(_) => {
                faults.push("status", format!("must be from 100 to 599, is {status}"));
                None
            }
        },
        v1::chaos::Fault::GrpcCode(name) => {
            let code = GrpcCode::from_name(&name).map(Fault::Grpc);
            faults.check(code.is_some(), "grpcCode", format!("{name:?} is not a gRPC code: write \"UNAVAILABLE\""));
            code
        }
        v1::chaos::Fault::Error(number) => {
            let kind = v1::ErrorKind::try_from(number).ok().and_then(error_kind).map(Fault::Error);
            faults.check(kind.is_some(), "error", "must be one of connect, reset, timeout, body, tls, request, other");
            kind
        }
    }
}

const fn error_kind(wire: v1::ErrorKind) -> Option<ErrorKind> {
    match wire {
        v1::ErrorKind::Connect => Some(ErrorKind::Connect),
        v1::ErrorKind::Reset => Some(ErrorKind::Reset),
        v1::ErrorKind::Timeout => Some(ErrorKind::Timeout),
        v1::ErrorKind::Body => Some(ErrorKind::Body),
        v1::ErrorKind::Tls => Some(ErrorKind::Tls),
        v1::ErrorKind::Request => Some(ErrorKind::Request),
        v1::ErrorKind::Other => Some(ErrorKind::Other),
        v1::ErrorKind::Unspecified | v1::ErrorKind::Any | v1::ErrorKind::Rejected => None,
    }
}

impl From<&ChaosSpec> for v1::Chaos {
    fn from(spec: &ChaosSpec) -> Self {
        let fault = spec.fault().map(|fault| match fault {
            Fault::Status(status) => v1::chaos::Fault::Status(status.into()),
            Fault::Grpc(code) => v1::chaos::Fault::GrpcCode(code.name().to_owned()),
            Fault::Error(kind) => v1::chaos::Fault::Error(
                match kind {
                    ErrorKind::Connect => v1::ErrorKind::Connect,
                    ErrorKind::Reset => v1::ErrorKind::Reset,
                    ErrorKind::Timeout => v1::ErrorKind::Timeout,
                    ErrorKind::Body => v1::ErrorKind::Body,
                    ErrorKind::Tls => v1::ErrorKind::Tls,
                    ErrorKind::Request => v1::ErrorKind::Request,
                    ErrorKind::Other => v1::ErrorKind::Other,
                }
                .into(),
            ),
        });
        Self {
            percent: spec.percent(),
            latency: (!spec.latency().is_zero()).then(|| duration::to_wire(spec.latency())),
            fault,
            until: Some(prost_types::Timestamp { seconds: spec.until().0, nanos: 0 }),
        }
    }
}
