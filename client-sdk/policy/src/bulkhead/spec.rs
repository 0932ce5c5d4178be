//! Validated settings of a bulkhead.

use std::time::Duration;

use crate::{Invalid, invalid::Faults};

/// Settings of a bulkhead.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BulkheadSpec {
    max_concurrent: u32,
    max_waiting: u32,
    max_wait: Option<Duration>,
}

impl BulkheadSpec {
    /// More than this is no bound.
    pub const MOST: u32 = 1_000_000;

    /// At most `max_concurrent` calls run, at most `max_waiting` wait, each at most `max_wait` (`None`: as long as its
    /// caller does).
    ///
    /// # Errors
    /// Zero or more than [`BulkheadSpec::MOST`] calls; a wait of zero, or one without places to wait in.
    pub fn try_new(max_concurrent: u32, max_waiting: u32, max_wait: Option<Duration>) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        faults.check(
            (1..=Self::MOST).contains(&max_concurrent),
            "maxConcurrent",
            format!("must be from 1 to {}, is {max_concurrent}", Self::MOST),
        );
        faults.check(max_waiting <= Self::MOST, "maxWaiting", format!("must be at most {}", Self::MOST));
        faults.check(
            max_wait != Some(Duration::ZERO),
            "maxWait",
            "must be greater than zero; leave maxWaiting out to refuse at once",
        );
        faults.check(
            max_wait.is_none() || max_waiting > 0,
            "maxWait",
            "needs maxWaiting: without a place to wait nobody waits",
        );
        faults.into_result(Some(Self { max_concurrent, max_waiting, max_wait }))
    }

    /// Calls that may run at the same time.
    #[must_use]
    pub const fn max_concurrent(&self) -> u32 {
        self.max_concurrent
    }

    /// Calls that may wait for a place. Default: 0.
    #[must_use]
    pub const fn max_waiting(&self) -> u32 {
        self.max_waiting
    }

    /// How long one may wait. Default: as long as its caller does.
    #[must_use]
    pub const fn max_wait(&self) -> Option<Duration> {
        self.max_wait
    }
}
