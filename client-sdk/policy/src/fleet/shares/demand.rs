//! How many calls a replica wants to make, from counts that come in irregular parts.

use std::time::Duration;

use crate::rate_limiter::RateLimiterSpec;

use super::WHOLE;

/// Counts over less than this say little: a heartbeat sent out of turn would look like a burst or a pause.
const SHORTEST: Duration = Duration::from_millis(900);
/// Counts of few calls are gathered for so long: one call in a second is not "one call per second".
const LONGEST: Duration = Duration::from_secs(10);
/// So many calls, seen or missed, make a count that means something.
const ENOUGH: u128 = 10;
/// So many are enough to see that there is more demand than before: who has just begun to call must not be refused until it is certain.
const ENOUGH_TO_RISE: u128 = 3;

/// The rate at which a replica wants to make calls. It rises at once, so that a burst finds room, and falls by halves, so that a
/// short pause costs nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Demand {
    /// Calls per thousand seconds; `None` before the first count that says anything.
    rate: Option<u64>,
    calls: u64,
    over: Duration,
}

impl Demand {
    /// Takes in the calls of a time that has just passed.
    pub(super) fn count(&mut self, calls: u64, over: Duration) {
        self.calls = self.calls.saturating_add(calls);
        self.over = self.over.saturating_add(over);
        if self.over < SHORTEST {
            return;
        }
        let nanos = self.over.as_nanos();
        let (seen, expected) = (u128::from(self.calls), u128::from(self.rate.unwrap_or(0)) * nanos / 1_000_000_000_000);
        let rises = seen > expected && seen >= ENOUGH_TO_RISE;
        if self.rate.is_some() && !rises && seen.max(expected) < ENOUGH && self.over < LONGEST {
            return;
        }
        let sample = u64::try_from(seen * 1_000_000_000_000 / nanos).unwrap_or(u64::MAX);
        self.rate = Some(match self.rate {
            Some(rate) if sample < rate => rate - (rate - sample).div_ceil(2),
            Some(_) | None => sample,
        });
        self.calls = 0;
        self.over = Duration::ZERO;
    }

    /// The part of the limit that it wants, in millionths, at most all of it. `None`: not known yet.
    pub(super) fn ppm(&self, spec: &RateLimiterSpec) -> Option<u32> {
        // (calls / 1000 s) / (limit / period), in millionths.
        let parts = u128::from(self.rate?) * spec.period().as_nanos() / (u128::from(spec.limit()) * 1_000_000);
        Some(u32::try_from(parts).map_or(WHOLE, |parts| parts.min(WHOLE)))
    }

    /// Calls per second.
    pub(super) fn per_second(&self) -> Option<f64> {
        self.rate.map(|rate| rate as f64 / 1000.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn demand_rises_at_once_and_falls_by_halves() {
        let mut demand = Demand::default();
        demand.count(100, SECOND);
        assert_eq!(demand.per_second(), Some(100.0));
        demand.count(300, SECOND);
        assert_eq!(demand.per_second(), Some(300.0));
        demand.count(100, SECOND);
        assert_eq!(demand.per_second(), Some(200.0));
        for _ in 0..20 {
            demand.count(0, SECOND);
        }
        // What is left is too little to tell from nothing by a count of one second.
        assert!(demand.per_second().unwrap() < 10.0);
    }

    #[test]
    fn short_counts_are_put_together() {
        let mut demand = Demand::default();
        demand.count(0, Duration::ZERO);
        demand.count(40, SECOND / 2);
        assert_eq!(demand.per_second(), None);
        demand.count(60, SECOND / 2);
        assert_eq!(demand.per_second(), Some(100.0));
    }

    #[test]
    fn whoever_begins_to_call_is_seen_within_a_second() {
        let mut demand = Demand::default();
        demand.count(0, SECOND);
        demand.count(5, SECOND);
        assert_eq!(demand.per_second(), Some(5.0));
    }

    #[test]
    fn rare_calls_are_counted_over_a_longer_time() {
        let mut demand = Demand::default();
        for _ in 0..3 {
            demand.count(1, SECOND);
            for _ in 0..9 {
                demand.count(0, SECOND);
            }
        }
        let rate = demand.per_second().unwrap();
        assert!((0.09..0.6).contains(&rate), "{rate}");
    }
}
