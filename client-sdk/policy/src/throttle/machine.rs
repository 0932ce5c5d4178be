//! The live throttle.

use std::collections::VecDeque;

use super::{Priority, ThrottleSpec};
use crate::{Draw, Timestamp, condition::Class};

/// Parts of the window that are forgotten together.
const BUCKETS: u64 = 10;

/// A live throttle: requests sent and accepted, and who asked.
///
/// With `requests` sent, of which the target took `accepts`, the share `(requests - K * accepts) / (requests + 1)` of calls
/// is refused. Calls that are refused here are not counted as requests. The refusals fall on the lowest priorities first:
/// a priority is touched only when all calls below it are not enough.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Throttle {
    /// (number of the bucket, its counts), oldest first.
    buckets: VecDeque<(u64, Tally)>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Tally {
    requests: u64,
    accepts: u64,
    /// Calls by priority, refused ones included.
    asked: [u64; 4],
}

impl Throttle {
    /// Nothing sent.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The share of calls that is refused now, from 0 to 1.
    #[must_use]
    pub fn rejection_rate(&self, spec: &ThrottleSpec, now: Timestamp) -> f64 {
        let Tally { requests, accepts, .. } = self.sum(spec, now);
        if requests < u64::from(spec.min_calls()) {
            return 0.0;
        }
        let rate = (requests as f64 - spec.multiplier() * accepts as f64) / (requests as f64 + 1.0);
        rate.clamp(0.0, f64::from(spec.max_rejection_percent()) / 100.0)
    }

    /// Asks to send a call.
    pub fn enter(&mut self, spec: &ThrottleSpec, priority: Priority, now: Timestamp, draw: Draw) -> bool {
        let rate = self.rejection_rate(spec, now);
        let asked = self.sum(spec, now).asked;
        self.bucket(spec, now).asked[priority as usize] += 1;
        if rate <= 0.0 {
            return true;
        }
        // This call counts too: the first of its priority must not be taken for one that nobody asks with.
        let total = asked.iter().sum::<u64>() as f64 + 1.0;
        let below = asked.iter().take(priority as usize).sum::<u64>() as f64 / total;
        let own = (asked[priority as usize] as f64 + 1.0) / total;
        let share = ((rate - below) / own).clamp(0.0, f64::from(spec.max_rejection_percent()) / 100.0);
        draw.get() >= share
    }

    /// A call that was sent has ended.
    pub fn leave(&mut self, spec: &ThrottleSpec, class: Class, now: Timestamp) {
        let bucket = self.bucket(spec, now);
        match class {
            Class::Ignored => {}
            Class::Success => {
                bucket.requests += 1;
                bucket.accepts += 1;
            }
            Class::Failure => bucket.requests += 1,
        }
    }

    fn number(spec: &ThrottleSpec, now: Timestamp) -> u64 {
        now.as_nanos() / (spec.window().as_nanos() as u64 / BUCKETS).max(1)
    }

    fn sum(&self, spec: &ThrottleSpec, now: Timestamp) -> Tally {
        let number = Self::number(spec, now);
        let mut sum = Tally::default();
        for (_, tally) in self.buckets.iter().filter(|(own, _)| own + BUCKETS > number) {
            sum.requests += tally.requests;
            sum.accepts += tally.accepts;
            for (sum, own) in sum.asked.iter_mut().zip(tally.asked) {
                *sum += own;
            }
        }
        sum
    }

    fn bucket(&mut self, spec: &ThrottleSpec, now: Timestamp) -> &mut Tally {
        let number = Self::number(spec, now);
        while self.buckets.front().is_some_and(|(own, _)| own + BUCKETS <= number) {
            self.buckets.pop_front();
        }
        if self.buckets.back().is_none_or(|(newest, _)| *newest < number) {
            self.buckets.push_back((number, Tally::default()));
        }
        &mut self.buckets.back_mut().expect("a bucket was pushed if there was none").1
    }
}
