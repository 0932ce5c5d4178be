//! What an attempt, or the inside of a strategy, ended in.

use std::{fmt, time::Duration};

use crate::names::{PolicyName, StrategyName};

/// What an attempt ended in. A call that its caller dropped has no outcome: whoever holds a permit gives it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// A response, or the success of a plain closure.
    Response(Response),
    /// An error.
    Error(ErrorKind),
    /// The timeout strategy at this index of the pipeline cut its inside.
    Timeout(usize),
    /// The strategy at this index of the pipeline refused.
    Rejected(usize, RejectionReason),
}

/// A response, as far as rules look at it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Response {
    /// HTTP status. `None` for plain closures.
    pub status: Option<u16>,
    /// gRPC status code. `None` where there is no gRPC.
    pub grpc: Option<GrpcCode>,
}

impl Outcome {
    /// A success of a plain closure.
    pub const OK: Self = Self::Response(Response { status: None, grpc: None });

    /// An HTTP response.
    #[must_use]
    pub const fn status(status: u16) -> Self {
        Self::Response(Response { status: Some(status), grpc: None })
    }

    /// A gRPC status.
    #[must_use]
    pub const fn grpc(code: GrpcCode) -> Self {
        Self::Response(Response { status: None, grpc: Some(code) })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Response(Response { grpc: Some(code), .. }) => write!(f, "gRPC status {code}"),
            Self::Response(Response { status: Some(status), .. }) => write!(f, "status {status}"),
            Self::Response(Response { status: None, grpc: None }) => f.write_str("success"),
            Self::Error(kind) => write!(f, "{kind} error"),
            Self::Timeout(_) => f.write_str("timeout"),
            Self::Rejected(_, reason) => write!(f, "rejected: {reason}"),
        }
    }
}

/// Kinds of error an attempt can end in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ErrorKind {
    /// No connection could be made; the request never left. Where a name does not resolve it is this too: HTTP clients tell that in words
    /// only.
    Connect,
    /// The connection broke before a response head arrived.
    Reset,
    /// The transport's own timeout.
    Timeout,
    /// The response's body broke.
    Body,
    /// Certificate or TLS handshake.
    Tls,
    /// Bad URL, too many redirects, a request that could not be built: no try will ever help.
    Request,
    /// Any other error, and every error of a plain closure.
    Other,
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Connect => "connect",
            Self::Reset => "reset",
            Self::Timeout => "timeout",
            Self::Body => "body",
            Self::Tls => "tls",
            Self::Request => "request",
            Self::Other => "other",
        })
    }
}

/// gRPC status codes, as in the gRPC specification.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[expect(missing_docs, reason = "the names are the specification's")]
#[repr(u8)]
pub enum GrpcCode {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

const GRPC_NAMES: [(GrpcCode, &str); 17] = [
    (GrpcCode::Ok, "OK"),
    (GrpcCode::Cancelled, "CANCELLED"),
    (GrpcCode::Unknown, "UNKNOWN"),
    (GrpcCode::InvalidArgument, "INVALID_ARGUMENT"),
    (GrpcCode::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (GrpcCode::NotFound, "NOT_FOUND"),
    (GrpcCode::AlreadyExists, "ALREADY_EXISTS"),
    (GrpcCode::PermissionDenied, "PERMISSION_DENIED"),
    (GrpcCode::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (GrpcCode::FailedPrecondition, "FAILED_PRECONDITION"),
    (GrpcCode::Aborted, "ABORTED"),
    (GrpcCode::OutOfRange, "OUT_OF_RANGE"),
    (GrpcCode::Unimplemented, "UNIMPLEMENTED"),
    (GrpcCode::Internal, "INTERNAL"),
    (GrpcCode::Unavailable, "UNAVAILABLE"),
    (GrpcCode::DataLoss, "DATA_LOSS"),
    (GrpcCode::Unauthenticated, "UNAUTHENTICATED"),
];

impl GrpcCode {
    /// The code of this number; unknown numbers are `UNKNOWN`, as the gRPC specification demands of clients.
    #[must_use]
    pub fn from_number(number: i32) -> Self {
        usize::try_from(number).ok().and_then(|index| GRPC_NAMES.get(index)).map_or(Self::Unknown, |(code, _)| *code)
    }

    /// The code of this name: `UNAVAILABLE`.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        GRPC_NAMES.iter().find(|(_, known)| *known == name).map(|(code, _)| *code)
    }

    /// Its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        GRPC_NAMES[self as usize].1
    }
}

impl fmt::Display for GrpcCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Why a strategy refused a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RejectionReason {
    /// The process' own breaker is open.
    Open {
        /// Until it lets probes pass.
        retry_after: Duration,
    },
    /// The process' own breaker is half-open and all its probes are in flight.
    HalfOpenLimit,
    /// The process' own breaker has closed lately and admits only a share of calls.
    Ramp,
    /// The fleet's verdict is open.
    FleetOpen {
        /// Until the fleet probes, where known.
        retry_after: Option<Duration>,
    },
    /// The fleet is half-open and this process holds no probe permit.
    FleetHalfOpen,
    /// The fleet admits only a share of calls.
    FleetRamp,
    /// An operator, or code, has forced the breaker open.
    ForcedOpen {
        /// Until the override ends, where it has an end.
        retry_after: Option<Duration>,
    },
    /// The bulkhead is full, and so are its places to wait in.
    Full,
    /// The bulkhead had no place for the longest time that one may wait.
    WaitedTooLong,
    /// The rate limit is used up.
    RateExceeded {
        /// Until a turn is free.
        retry_after: Duration,
    },
    /// As many calls run as the target is known to take.
    ConcurrencyLimit,
    /// The target refuses many calls, so that some are not even sent.
    Throttled,
}

impl RejectionReason {
    /// Which kind of strategy refused.
    #[must_use]
    pub const fn refuser(self) -> Refuser {
        match self {
            Self::Open { .. }
            | Self::HalfOpenLimit
            | Self::Ramp
            | Self::FleetOpen { .. }
            | Self::FleetHalfOpen
            | Self::FleetRamp
            | Self::ForcedOpen { .. } => Refuser::CircuitBreaker,
            Self::Full | Self::WaitedTooLong => Refuser::Bulkhead,
            Self::RateExceeded { .. } => Refuser::RateLimiter,
            Self::ConcurrencyLimit => Refuser::ConcurrencyLimit,
            Self::Throttled => Refuser::Throttle,
        }
    }

    /// When another try may pass, where that is known.
    #[must_use]
    pub const fn retry_after(self) -> Option<Duration> {
        match self {
            Self::Open { retry_after } | Self::RateExceeded { retry_after } => Some(retry_after),
            Self::FleetOpen { retry_after } | Self::ForcedOpen { retry_after } => retry_after,
            Self::HalfOpenLimit
            | Self::Ramp
            | Self::FleetHalfOpen
            | Self::FleetRamp
            | Self::Full
            | Self::WaitedTooLong
            | Self::ConcurrencyLimit
            | Self::Throttled => None,
        }
    }
}

impl fmt::Display for RejectionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open { .. } => "open",
            Self::HalfOpenLimit => "half-open limit",
            Self::Ramp => "ramping up",
            Self::FleetOpen { .. } => "fleet open",
            Self::FleetHalfOpen => "fleet half-open",
            Self::FleetRamp => "fleet ramping up",
            Self::ForcedOpen { .. } => "forced open",
            Self::Full => "full",
            Self::WaitedTooLong => "waited too long",
            Self::RateExceeded { .. } => "rate exceeded",
            Self::ConcurrencyLimit => "concurrency limit",
            Self::Throttled => "throttled",
        })
    }
}

/// The kinds of strategy that refuse calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Refuser {
    /// The breaker: its own state, the fleet's, or an operator's word.
    CircuitBreaker,
    /// Too many calls run, or wait.
    Bulkhead,
    /// Too many calls begin.
    RateLimiter,
    /// More than the target is seen to take.
    ConcurrencyLimit,
    /// The target refuses much itself.
    Throttle,
}

/// A refusal, as the caller gets it: who, why, for how long, and after which failure.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejection {
    /// The policy.
    pub policy: PolicyName,
    /// The element of its pipeline.
    pub strategy: StrategyName,
    /// Why.
    pub reason: RejectionReason,
    /// The last failure that the strategy has seen, which is why it refuses.
    pub after: Option<Outcome>,
}

impl Rejection {
    /// When another try may pass, where that is known.
    #[must_use]
    pub const fn retry_after(&self) -> Option<Duration> {
        self.reason.retry_after()
    }
}

impl fmt::Display for Rejection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rejected by {}/{}: {}", self.policy, self.strategy, self.reason)?;
        if let Some(wait) = self.retry_after() {
            write!(f, ", retry after {} ms", wait.as_millis())?;
        }
        Ok(())
    }
}

/// What rules may ask about an outcome beyond the outcome itself.
///
/// Answered lazily by whoever holds the real response, since most outcomes are never asked.
pub trait Facts {
    /// The value of a response header, `name` in lower case.
    fn header(&self, name: &str) -> Option<&str>;
    /// The wait that the answer asks for: `Retry-After`, `grpc-retry-pushback-ms`.
    fn retry_hint(&self) -> RetryHint;
}

/// A wait that an answer asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RetryHint {
    /// Nothing was said.
    #[default]
    None,
    /// Not before this.
    After(Duration),
    /// Not at all (gRPC: a negative or unreadable pushback).
    Never,
}

/// Facts of an outcome that has none: plain closures, errors, rejections.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoFacts;

impl Facts for NoFacts {
    fn header(&self, _name: &str) -> Option<&str> {
        None
    }

    fn retry_hint(&self) -> RetryHint {
        RetryHint::None
    }
}
