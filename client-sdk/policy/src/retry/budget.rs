//! How much a target may be retried at all, over all calls of the process.

use std::{collections::VecDeque, time::Duration};

use crate::{Invalid, Timestamp, invalid::Faults};

/// Retries may be at most `ratio` of the calls of the last ten seconds, and always at least `min_per_second`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BudgetSpec {
    /// In millionths, so that comparison is exact.
    ratio_ppm: u32,
    min_per_second: u32,
}

impl Default for BudgetSpec {
    /// 20 percent, at least 3 per second.
    fn default() -> Self {
        Self { ratio_ppm: 200_000, min_per_second: 3 }
    }
}

impl BudgetSpec {
    /// A share of calls from 0 to 1, and a floor in retries per second.
    ///
    /// # Errors
    /// If the ratio is not from 0 to 1.
    pub fn try_new(ratio: f64, min_per_second: u32) -> Result<Self, Invalid> {
        let mut faults = Faults::new();
        faults.check(
            ratio.is_finite() && (0.0..=1.0).contains(&ratio),
            "ratio",
            format!("must be from 0 to 1, is {ratio}"),
        );
        faults.check(min_per_second <= 1_000_000, "minPerSecond", "must be at most 1000000");
        faults.finish()?;
        Ok(Self { ratio_ppm: (ratio * 1e6).round() as u32, min_per_second })
    }

    /// The share of calls, from 0 to 1.
    #[must_use]
    pub fn ratio(&self) -> f64 {
        f64::from(self.ratio_ppm) / 1e6
    }

    /// The floor.
    #[must_use]
    pub const fn min_per_second(&self) -> u32 {
        self.min_per_second
    }
}

/// Seconds over which calls and retries are summed.
const SECONDS: u64 = 10;

/// The live budget of one target: calls and retries of the last ten seconds, a bucket a second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Budget {
    /// (second, calls, retries), oldest first.
    buckets: VecDeque<(u64, u64, u64)>,
}

impl Budget {
    /// Nothing spent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts a call.
    pub fn call(&mut self, now: Timestamp) {
        self.bucket(now).1 += 1;
    }

    /// Counts calls of a second that may be past.
    pub fn calls(&mut self, calls: u64, at: Timestamp) {
        let second = second(at);
        if let Some(bucket) = self.buckets.iter_mut().find(|bucket| bucket.0 == second) {
            bucket.1 += calls;
        } else {
            let place = self.buckets.iter().take_while(|bucket| bucket.0 < second).count();
            self.buckets.insert(place, (second, calls, 0));
        }
    }

    /// The end of the second that a moment falls into: until then calls need not be told apart by their time.
    #[must_use]
    pub fn bucket_end(now: Timestamp) -> Timestamp {
        Timestamp::after_origin(Duration::from_secs(second(now).saturating_add(1)))
    }

    /// Takes a retry from the budget, if there is one left. The settings come with each question: a changed policy is
    /// honoured by the next decision.
    pub fn try_retry(&mut self, spec: &BudgetSpec, now: Timestamp) -> bool {
        self.bucket(now);
        let calls: u64 = self.buckets.iter().map(|bucket| bucket.1).sum();
        let retries: u64 = self.buckets.iter().map(|bucket| bucket.2).sum();
        let floor = u64::from(spec.min_per_second) * SECONDS;
        let by_ratio = u128::from(calls) * u128::from(spec.ratio_ppm);
        let allowed = retries < floor || u128::from(retries + 1) * 1_000_000 <= by_ratio;
        if allowed {
            self.bucket(now).2 += 1;
        }
        allowed
    }

    /// Retries for each call of the last ten seconds.
    #[must_use]
    pub fn used(&self, now: Timestamp) -> f64 {
        let recent = self.buckets.iter().filter(|bucket| bucket.0 + SECONDS > second(now));
        let (calls, retries) = recent.fold((0, 0), |(calls, retries), bucket| (calls + bucket.1, retries + bucket.2));
        if calls == 0 { 0.0 } else { retries as f64 / calls as f64 }
    }

    fn bucket(&mut self, now: Timestamp) -> &mut (u64, u64, u64) {
        let second = second(now);
        while self.buckets.front().is_some_and(|oldest| oldest.0 + SECONDS <= second) {
            self.buckets.pop_front();
        }
        if self.buckets.back().is_none_or(|newest| newest.0 < second) {
            self.buckets.push_back((second, 0, 0));
        }
        self.buckets.back_mut().expect("a bucket was pushed if there was none")
    }
}

const fn second(at: Timestamp) -> u64 {
    at.as_nanos() / 1_000_000_000
}
