//! How long calls took lately, in a fixed room.

use std::time::Duration;

/// Slots: 16 to each doubling of the time, so that a slot is at most 1/16 wide.
const SLOTS: usize = 16 * 48;
/// Calls after which the older half is forgotten.
const GENERATION: u64 = 1000;

/// Latencies of the last one to two thousand calls, as a histogram with slots that grow with the time (HdrHistogram's idea).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Latencies {
    young: Vec<u32>,
    old: Vec<u32>,
    young_calls: u64,
    calls: u64,
}

impl Default for Latencies {
    fn default() -> Self {
        Self { young: vec![0; SLOTS], old: vec![0; SLOTS], young_calls: 0, calls: 0 }
    }
}

impl Latencies {
    /// Takes the time of one call.
    pub fn record(&mut self, took: Duration) {
        if self.young_calls >= GENERATION {
            std::mem::swap(&mut self.young, &mut self.old);
            self.young.fill(0);
            self.young_calls = 0;
        }
        self.young[slot(took)] += 1;
        self.young_calls += 1;
        self.calls = self.calls.saturating_add(1);
    }

    /// Calls seen, all together.
    #[must_use]
    pub const fn calls(&self) -> u64 {
        self.calls
    }

    /// The time that this share of calls, in millionths, did not exceed; at most 1/16 too long. `None` before the first call.
    #[must_use]
    pub fn quantile(&self, ppm: u32) -> Option<Duration> {
        let counts = || self.young.iter().zip(&self.old).map(|(young, old)| u64::from(*young) + u64::from(*old));
        let total: u64 = counts().sum();
        if total == 0 {
            return None;
        }
        let rank = (u128::from(total) * u128::from(ppm)).div_ceil(1_000_000).max(1);
        let mut seen = 0_u128;
        let index = counts().position(|count| {
            seen += u128::from(count);
            seen >= rank
        })?;
        Some(upper_end(index))
    }
}

/// Times below 16 microseconds have a slot per microsecond.
fn slot(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    if micros < 16 {
        return micros as usize;
    }
    let doubling = 63 - micros.leading_zeros() as usize;
    let inside = (micros >> (doubling - 4)) as usize & 15;
    ((doubling - 3) * 16 + inside).min(SLOTS - 1)
}

fn upper_end(slot: usize) -> Duration {
    if slot < 16 {
        return Duration::from_micros(slot as u64 + 1);
    }
    let (doubling, inside) = (slot / 16 + 3, slot as u64 % 16);
    Duration::from_micros((16 + inside + 1) << (doubling - 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slot_is_at_most_a_sixteenth_too_long() {
        for micros in (1..5_000_000_u64).step_by(977) {
            let took = Duration::from_micros(micros);
            let end = upper_end(slot(took));
            assert!(end > took, "{took:?} {end:?}");
            assert!(end <= took + took / 16 + Duration::from_micros(1), "{took:?} {end:?}");
        }
    }

    #[test]
    fn old_calls_are_forgotten() {
        let mut latencies = Latencies::default();
        for _ in 0..3000 {
            latencies.record(Duration::from_millis(500));
        }
        for _ in 0..2001 {
            latencies.record(Duration::from_millis(1));
        }
        assert!(latencies.quantile(990_000).unwrap() < Duration::from_millis(2));
    }
}
