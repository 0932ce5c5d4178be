//! The live rate limiter: the generic cell rate algorithm, which is a token bucket that needs no timer.

use std::{collections::BTreeMap, time::Duration};

use super::RateLimiterSpec;
use crate::Timestamp;

/// Answer of a rate limiter.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// The turn begins then; now, if it is not later. The slot goes back by [`RateLimiter::give_back`] if it is not used.
    Turn(Timestamp),
    /// The wait would be longer than is allowed.
    Exceeded {
        /// When a turn would be free.
        retry_after: Duration,
    },
}

/// Turns given back that are kept for the next callers.
const MAX_FREED: usize = 1024;

/// A live rate limiter. It hands out turns in order; a turn given back before it began goes to the next caller, at its own time.
///
/// `share` is the part of the limit that this process has, in millionths: all of it unless the fleet shares it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimiter {
    /// When the bucket would be full but for one token if nobody came: the theoretical arrival time of GCRA.
    next: u64,
    /// Turns given back, and how many of each.
    freed: BTreeMap<u64, u32>,
    share_ppm: u32,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self { next: 0, freed: BTreeMap::new(), share_ppm: 1_000_000 }
    }
}

impl RateLimiter {
    /// Full of tokens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets this process' part of the limit, in millionths. Turns already given stay.
    pub const fn set_share(&mut self, ppm: u32) {
        self.share_ppm = ppm;
    }

    /// This process' part of the limit, in millionths.
    #[must_use]
    pub const fn share(&self) -> u32 {
        self.share_ppm
    }

    /// Nanoseconds between two tokens; `None` with no share at all.
    fn interval(&self, spec: &RateLimiterSpec) -> Option<u64> {
        let parts = u128::from(spec.limit()) * u128::from(self.share_ppm);
        let nanos = (spec.period().as_nanos() * 1_000_000).checked_div(parts)?;
        Some(u64::try_from(nanos).unwrap_or(u64::MAX).max(1))
    }

    /// Asks for a turn.
    pub fn reserve(&mut self, spec: &RateLimiterSpec, now: Timestamp) -> Reserved {
        let Some(interval) = self.interval(spec) else {
            return Reserved::Exceeded { retry_after: spec.period() };
        };
        let at_once = now.as_nanos();
        // Turns that nobody took in time are gone: to use them later would make a burst that was not asked for.
        self.freed = self.freed.split_off(&at_once);
        let latest = now.plus(spec.max_wait()).as_nanos();
        if let Some(mut freed) = self.freed.first_entry()
            && *freed.key() <= latest
        {
            let turn = *freed.key();
            *freed.get_mut() -= 1;
            if *freed.get() == 0 {
                freed.remove();
            }
            return Reserved::Turn(Timestamp::from_nanos(turn));
        }
        let tolerance = interval.saturating_mul(u64::from(spec.burst()) - 1);
        let turn = self.next.saturating_sub(tolerance).max(at_once);
        if turn > latest {
            return Reserved::Exceeded { retry_after: Duration::from_nanos(turn - at_once) };
        }
        self.next = self.next.max(turn).saturating_add(interval);
        Reserved::Turn(Timestamp::from_nanos(turn))
    }

    /// Gives back a turn that has not begun.
    pub fn give_back(&mut self, spec: &RateLimiterSpec, turn: Timestamp, now: Timestamp) {
        if turn <= now {
            return;
        }
        let Some(interval) = self.interval(spec) else { return };
        let tolerance = interval.saturating_mul(u64::from(spec.burst()) - 1);
        // The last one handed out is simply taken back; one in the middle waits for the next caller.
        if self.next == turn.as_nanos().saturating_add(tolerance).saturating_add(interval) {
            self.next -= interval;
        } else if self.freed.len() < MAX_FREED {
            *self.freed.entry(turn.as_nanos()).or_default() += 1;
        }
    }

    /// Calls that may begin at once.
    #[must_use]
    pub fn available(&self, spec: &RateLimiterSpec, now: Timestamp) -> u32 {
        let Some(interval) = self.interval(spec) else { return 0 };
        let used = self.next.saturating_sub(now.as_nanos()).div_ceil(interval);
        spec.burst().saturating_sub(u32::try_from(used).unwrap_or(u32::MAX))
    }

    /// How long a caller that came now would wait.
    #[must_use]
    pub fn wait(&self, spec: &RateLimiterSpec, now: Timestamp) -> Option<Duration> {
        let interval = self.interval(spec)?;
        let tolerance = interval.saturating_mul(u64::from(spec.burst()) - 1);
        Some(Duration::from_nanos(self.next.saturating_sub(tolerance).saturating_sub(now.as_nanos())))
    }
}
