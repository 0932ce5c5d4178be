//! A point on a monotonic time line that the caller owns.

use std::time::Duration;

/// Nanoseconds since an origin of the caller's choice. Never compared between machines.
///
/// Unlike `std::time::Instant` it can be made from any number, so that tests, models and simulations own the time.
/// Arithmetic saturates: a delay of a thousand years is a point far away, not an overflow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    /// The origin.
    pub const ZERO: Self = Self(0);
    /// The end of time.
    pub const MAX: Self = Self(u64::MAX);

    /// The point this long after the origin.
    #[must_use]
    pub const fn after_origin(since: Duration) -> Self {
        Self(saturating_nanos(since))
    }

    /// The point this many nanoseconds after the origin.
    #[must_use]
    pub const fn from_nanos(nanos: u64) -> Self {
        Self(nanos)
    }

    /// Nanoseconds since the origin.
    #[must_use]
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// Time since the origin.
    #[must_use]
    pub const fn since_origin(self) -> Duration {
        Duration::from_nanos(self.0)
    }

    /// This point and a while, at most [`Timestamp::MAX`].
    #[must_use]
    pub const fn plus(self, span: Duration) -> Self {
        Self(self.0.saturating_add(saturating_nanos(span)))
    }

    /// How long `earlier` was before this point; zero if it was not.
    #[must_use]
    pub const fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    /// How long it is from this point until `later`; zero if it is past.
    #[must_use]
    pub const fn until(self, later: Self) -> Duration {
        later.since(self)
    }
}

const fn saturating_nanos(span: Duration) -> u64 {
    let nanos = span.as_nanos();
    if nanos > u64::MAX as u128 { u64::MAX } else { nanos as u64 }
}

/// `span * factor`, saturating; not a number and negatives are zero.
pub(crate) fn scale(span: Duration, factor: f64) -> Duration {
    let nanos = span.as_nanos() as f64 * factor;
    if nanos.is_nan() || nanos <= 0.0 {
        Duration::ZERO
    } else if nanos >= u64::MAX as f64 {
        Duration::from_nanos(u64::MAX)
    } else {
        Duration::from_nanos(nanos as u64)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates() {
        assert_eq!(Timestamp::ZERO.plus(Duration::MAX), Timestamp::MAX);
        assert_eq!(Timestamp::from_nanos(5).since(Timestamp::from_nanos(9)), Duration::ZERO);
        assert_eq!(scale(Duration::MAX, 3.0), Duration::from_nanos(u64::MAX));
    }
}
