//! Validated settings of chaos.

use std::time::Duration;

use crate::{
    Invalid,
    invalid::Faults,
    outcome::{ErrorKind, GrpcCode, Outcome},
};

/// A point of the calendar: seconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnixTime(pub i64);

impl UnixTime {
    /// The last second of the year 9999: RFC 3339 has no later date, and so neither has a manifest.
    pub const LAST: Self = Self(253_402_300_799);
}

/// What a troubled call ends in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// A response with this HTTP status.
    Status(u16),
    /// A response with this gRPC code.
    Grpc(GrpcCode),
    /// An error of this kind.
    Error(ErrorKind),
}

impl Fault {
    /// The outcome that rules see.
    #[must_use]
    pub const fn outcome(self) -> Outcome {
        match self {
            Self::Status(status) => Outcome::status(status),
            Self::Grpc(code) => Outcome::grpc(code),
            Self::Error(kind) => Outcome::Error(kind),
        }
    }
}

/// Settings of chaos. It acts only in processes that have opted in, and only until a date.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ChaosSpec {
    /// In millionths of all calls.
    rate_ppm: u32,
    latency: Duration,
    fault: Option<Fault>,
    until: UnixTime,
}

impl ChaosSpec {
    /// Longest delay.
    pub const MAX_LATENCY: Duration = Duration::from_secs(3600);

    /// Troubles `percent` of calls until a date: delays them, lets them end in a fault, or both.
    ///
    /// # Errors
    /// A percentage that is not above 0 and at most 100, no trouble at all, a bad status, a delay of more than an hour,
    /// no end, an end after [`UnixTime::LAST`].
    pub fn try_new(percent: f64, latency: Duration, fault: Option<Fault>, until: UnixTime) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        faults.check(
            percent.is_finite() && percent > 0.0 && percent <= 100.0,
            "percent",
            format!("must be above 0 and at most 100, is {percent}"),
        );
        faults.check(latency <= Self::MAX_LATENCY, "latency", "must be at most 1h");
        faults.check(
            !latency.is_zero() || fault.is_some(),
            "",
            "must have latency, or one of status, grpcCode, error, or both",
        );
        if let Some(Fault::Status(status)) = fault {
            faults.check((100..=599).contains(&status), "status", format!("must be from 100 to 599, is {status}"));
        }
        faults.check(until.0 > 0, "until", "is required: chaos must have an end");
        faults.check(until <= UnixTime::LAST, "until", "must be before the year 10000: no date says it");
        faults.into_result(Some(Self { rate_ppm: (percent * 1e4).round().max(1.0) as u32, latency, fault, until }))
    }

    /// Troubled calls, in percent.
    #[must_use]
    pub fn percent(&self) -> f64 {
        f64::from(self.rate_ppm) / 1e4
    }

    /// Troubled calls, in millionths.
    #[must_use]
    pub const fn rate_ppm(&self) -> u32 {
        self.rate_ppm
    }

    /// By how much a troubled call is delayed.
    #[must_use]
    pub const fn latency(&self) -> Duration {
        self.latency
    }

    /// What a troubled call ends in; `None`: in whatever it would have ended in.
    #[must_use]
    pub const fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// When it ends.
    #[must_use]
    pub const fn until(&self) -> UnixTime {
        self.until
    }
}
