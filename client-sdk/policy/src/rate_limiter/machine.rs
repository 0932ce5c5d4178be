//! The live rate limiter: the generic cell rate algorithm, which is a token bucket that needs no timer.

use std::{collections::BTreeMap, time::Duration};

use super::RateLimiterSpec;
use crate::{Timestamp, fleet::shares::WHOLE};

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
/// `share` is the part of the limit that this process has, in millionths: all of it unless the fleet shares it. The bucket has the same
/// part of the burst, and at least one token, so that the replicas of a fleet together burst as one process would, but for one call each.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RateLimiter {
    /// When the bucket would be full but for one token if nobody came: the theoretical arrival time of GCRA.
    next: u64,
    /// The latest turn handed out.
    latest: u64,
    /// Turns given back, and how many of each.
    freed: BTreeMap<u64, u32>,
    share_ppm: u32,
    /// Turns asked for since [`RateLimiter::take_wanted`].
    wanted: u64,
}

impl Default for RateLimiter {
    fn default() -> Self {
        Self { next: 0, latest: 0, freed: BTreeMap::new(), share_ppm: WHOLE, wanted: 0 }
    }
}

impl RateLimiter {
    /// Full of tokens.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets this process' part of the limit, in millionths. Turns already given stay, and so do the tokens in the bucket, as far as they
    /// fit: a changed part makes no calls possible at once that were not before.
    pub fn set_share(&mut self, spec: &RateLimiterSpec, ppm: u32, now: Timestamp) {
        if ppm == self.share_ppm {
            return;
        }
        let before = self.interval(spec);
        let full_before = before.map_or(0, |interval| self.tolerance(spec, interval));
        self.share_ppm = ppm;
        let (Some(before), Some(interval)) = (before, self.interval(spec)) else { return };
        let full = self.tolerance(spec, interval);
        // As many tokens as before, each worth as much time as it takes from here on.
        let rescaled = |span: u64| {
            let span = u128::from(span) * u128::from(interval);
            u64::try_from(span.div_ceil(u128::from(before))).unwrap_or(u64::MAX)
        };
        let now = now.as_nanos();
        let used = self.next.saturating_sub(now);
        self.next = if used > full_before {
            let mut turn = now.saturating_add(rescaled(used - full_before));
            if self.latest > now {
                // Nobody overtakes those who wait.
                turn = turn.max(self.latest.saturating_add(interval));
            }
            turn.saturating_add(full)
        } else {
            now.saturating_add(full - rescaled(full_before - used).min(full))
        };
    }

    /// How many turns were asked for since the last time, handed out or refused.
    pub const fn take_wanted(&mut self) -> u64 {
        std::mem::replace(&mut self.wanted, 0)
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

    /// How far ahead of an even flow a call may be: as long as all tokens of a full bucket but one take to come.
    fn tolerance(&self, spec: &RateLimiterSpec, interval: u64) -> u64 {
        let tokens = u64::from(spec.burst()) * u64::from(self.share_ppm) / u64::from(WHOLE);
        interval.saturating_mul(tokens.saturating_sub(1))
    }

    /// Asks for a turn.
    pub fn reserve(&mut self, spec: &RateLimiterSpec, now: Timestamp) -> Reserved {
        self.wanted = self.wanted.saturating_add(1);
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
        let tolerance = self.tolerance(spec, interval);
        let turn = self.next.saturating_sub(tolerance).max(at_once);
        if turn > latest {
            return Reserved::Exceeded { retry_after: Duration::from_nanos(turn - at_once) };
        }
        self.next = self.next.max(turn).saturating_add(interval);
        self.latest = turn;
        Reserved::Turn(Timestamp::from_nanos(turn))
    }

    /// Gives back a turn that has not begun.
    pub fn give_back(&mut self, spec: &RateLimiterSpec, turn: Timestamp, now: Timestamp) {
        if turn <= now {
            return;
        }
        let Some(interval) = self.interval(spec) else { return };
        let tolerance = self.tolerance(spec, interval);
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
        let used = self.next.saturating_sub(now.as_nanos());
        let left = self.tolerance(spec, interval).checked_sub(used);
        left.map_or(0, |left| u32::try_from(left / interval + 1).unwrap_or(u32::MAX))
    }

    /// How long a caller that came now would wait.
    #[must_use]
    pub fn wait(&self, spec: &RateLimiterSpec, now: Timestamp) -> Option<Duration> {
        let interval = self.interval(spec)?;
        let tolerance = self.tolerance(spec, interval);
        Some(Duration::from_nanos(self.next.saturating_sub(tolerance).saturating_sub(now.as_nanos())))
    }
}
