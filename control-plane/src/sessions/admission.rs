//! How many replicas may begin a stream at a time.
//!
//! After an outage a whole fleet comes back at once, and each beginning costs more than a heartbeat: a snapshot, a join, a place in every
//! view. So beginnings are metered by a token bucket; established streams never are. Who would have to wait longer than a second is told
//! to come back, and when: that costs it and the server less than a place in a queue.

use std::{
    num::NonZeroU32,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter};
use tokio::sync::Mutex;

/// Beginnings in a second, and at once, when nothing is said: far more than a server needs in peace, and what one core does beside its
/// other work.
pub const DEFAULT_RATE: NonZeroU32 = NonZeroU32::new(500).expect("it is not zero");
/// How long a beginning may wait for its turn.
const PATIENCE: Duration = Duration::from_secs(1);
/// Who was refused comes back after this, and up to as long again: others were refused too.
const COME_BACK: Duration = Duration::from_secs(2);

/// Meters beginnings.
#[derive(Debug)]
pub struct Admission {
    rate: NonZeroU32,
    bucket: DefaultDirectRateLimiter,
    /// Only the first of those who wait asks the bucket; the others wait in the order in which they came.
    turn: Mutex<()>,
    live: AtomicU32,
}

/// A stream that has been let in. It counts as live until it is dropped.
#[derive(Debug)]
pub struct Admitted<'a>(&'a Admission);

/// Too many begin at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("too many replicas connect at once")]
pub struct Busy {
    /// When to come back.
    pub after: Duration,
}

impl Admission {
    /// So many beginnings in a second, and as many at once.
    #[must_use]
    pub fn new(rate: NonZeroU32) -> Self {
        let bucket = RateLimiter::direct(Quota::per_second(rate));
        Self { rate, bucket, turn: Mutex::new(()), live: AtomicU32::new(0) }
    }

    /// Waits for a turn, at most a second.
    ///
    /// # Errors
    /// There are too many.
    pub async fn admit(&self) -> Result<Admitted<'_>, Busy> {
        if self.bucket.check().is_err() {
            let turn = async {
                let _first = self.turn.lock().await;
                self.bucket.until_ready().await;
            };
            if tokio::time::timeout(PATIENCE, turn).await.is_err() {
                return Err(Busy { after: COME_BACK.mul_f64(1.0 + fastrand::f64()) });
            }
        }
        self.live.fetch_add(1, Ordering::Relaxed);
        Ok(Admitted(self))
    }

    /// Over how long all live streams can come back without waiting: at least a second.
    #[must_use]
    pub fn spread(&self) -> Duration {
        let live = self.live.load(Ordering::Relaxed);
        Duration::from_secs_f64(f64::from(live) / f64::from(self.rate.get())).max(Duration::from_secs(1))
    }
}

impl Drop for Admitted<'_> {
    fn drop(&mut self) {
        self.0.live.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_burst_is_let_in_the_next_wait_and_the_rest_come_back_later() {
        let admission = Admission::new(NonZeroU32::new(2).unwrap());
        let all = futures_util::future::join_all((0..50).map(|_| admission.admit())).await;
        let (let_in, refused): (Vec<_>, Vec<_>) = all.into_iter().partition(Result::is_ok);
        // Two at once, and two more in the second that the others wait.
        assert!((2..=5).contains(&let_in.len()), "{}", let_in.len());
        for busy in refused {
            let after = busy.unwrap_err().after;
            assert!((COME_BACK..=COME_BACK * 2).contains(&after), "{after:?}");
        }
    }

    #[tokio::test]
    async fn come_backs_are_spread_by_the_number_of_live_streams() {
        let admission = Admission::new(NonZeroU32::new(10).unwrap());
        let live = futures_util::future::join_all((0..10).map(|_| admission.admit())).await;
        assert_eq!(admission.spread(), Duration::from_secs(1));
        let more = futures_util::future::join_all((0..5).map(|_| admission.admit())).await;
        assert_eq!(admission.spread(), Duration::from_secs_f64(1.5));
        drop((live, more));
        assert_eq!(admission.spread(), Duration::from_secs(1));
    }
}
