//! The clock of a client: the only place that reads tokio's.
//!
//! Everything past this file works with [`Timestamp`]s, so that paused and simulated time reach the core unchanged. Wall
//! time is read in three places only: for HTTP dates, for the end of chaos, and for what the cache file says about overrides.

use std::time::{Duration, SystemTime};

use fusebox_policy::{Timestamp, chaos::UnixTime};
use tokio::time::Instant;

/// Far enough away to mean never, near enough that no timer overflows.
const NEVER: Duration = Duration::from_secs(30 * 365 * 24 * 3600);

const NANOS_OF_SECOND: u64 = 1_000_000_000;

/// Timestamps count from the start of the client.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Clock {
    epoch: Instant,
}

impl Clock {
    /// A clock whose origin is the present.
    pub(crate) fn start() -> Self {
        Self { epoch: Instant::now() }
    }

    /// The present.
    #[inline]
    pub(crate) fn now(self) -> Timestamp {
        let since = self.epoch.elapsed();
        // A process does not live for the 584 years at which this would wrap, and it is done twice in each call.
        Timestamp::from_nanos(since.as_secs() * NANOS_OF_SECOND + u64::from(since.subsec_nanos()))
    }

    /// The moment of tokio's time line that a timestamp means.
    pub(crate) fn instant(self, at: Timestamp) -> Instant {
        self.epoch + at.since_origin().min(NEVER)
    }

    /// Sleeps until a point in time.
    pub(crate) fn sleep_until(self, at: Timestamp) -> tokio::time::Sleep {
        tokio::time::sleep_until(self.instant(at))
    }

    /// The moment of this clock that a date means; the origin for dates that are past.
    pub(crate) fn at_date(self, date: UnixTime) -> Timestamp {
        let date = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(date.0).unwrap_or_default());
        date.duration_since(SystemTime::now()).map_or(Timestamp::ZERO, |rest| self.now().plus(rest))
    }
}
