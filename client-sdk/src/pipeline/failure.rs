//! A failure in 62 bits, so that an open breaker can say after which failure it refuses without anybody's lock.

use fusebox_policy::{
    Outcome,
    outcome::{ErrorKind, GrpcCode, Response},
};

const KIND: u32 = 0;
const STATUS: u32 = 2;
const GRPC: u32 = 19;
const KINDS: [ErrorKind; 7] = [
    ErrorKind::Connect,
    ErrorKind::Reset,
    ErrorKind::Timeout,
    ErrorKind::Body,
    ErrorKind::Tls,
    ErrorKind::Request,
    ErrorKind::Other,
];

/// The failure as a number; `None` for those few that have no room.
pub(super) fn pack(failure: Option<Outcome>) -> Option<u64> {
    match failure {
        None => Some(0),
        Some(Outcome::Response(Response { status, grpc })) => {
            let status = status.map_or(0, |status| u64::from(status) + 1);
            let grpc = grpc.map_or(0, |code| code as u64 + 1);
            Some(1 << KIND | status << STATUS | grpc << GRPC)
        }
        Some(Outcome::Error(kind)) => {
            let index = KINDS.iter().position(|known| *known == kind)?;
            Some(2 << KIND | (index as u64) << STATUS)
        }
        Some(Outcome::Timeout(stage)) => Some(3 << KIND | (stage as u64) << STATUS),
        Some(Outcome::Rejected(..)) => None,
    }
}

/// The failure that a number means.
#[inline]
pub(super) fn unpack(number: u64) -> Option<Outcome> {
    let rest = number >> STATUS;
    match number & 3 {
        1 => {
            let status = (rest & 0x1_ffff).checked_sub(1).and_then(|status| u16::try_from(status).ok());
            let grpc = (number >> GRPC).checked_sub(1).and_then(|code| i32::try_from(code).ok());
            Some(Outcome::Response(Response { status, grpc: grpc.map(GrpcCode::from_number) }))
        }
        2 => KINDS.get(usize::try_from(rest).ok()?).copied().map(Outcome::Error),
        3 => usize::try_from(rest).ok().map(Outcome::Timeout),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_is_unpacked() {
        let mut failures = vec![None, Some(Outcome::OK), Some(Outcome::Timeout(0)), Some(Outcome::Timeout(31))];
        failures.extend(KINDS.map(|kind| Some(Outcome::Error(kind))));
        failures.extend([0, 200, 503, u16::MAX].map(|status| Some(Outcome::status(status))));
        for code in 0..=16 {
            let grpc = Some(GrpcCode::from_number(code));
            failures.push(Some(Outcome::Response(Response { status: None, grpc })));
            failures.push(Some(Outcome::Response(Response { status: Some(200), grpc })));
        }
        for failure in failures {
            let number = pack(failure).unwrap();
            assert!(number < 1 << 62);
            assert_eq!(unpack(number), failure);
        }
        assert_eq!(pack(Some(Outcome::Rejected(0, fusebox_policy::outcome::RejectionReason::Full))), None);
    }
}
