//! The live limit, after TCP Vegas as in Netflix' concurrency-limits: latency that rises above its own baseline means a queue.

use std::time::Duration;

use super::ConcurrencyLimitSpec;
use crate::{Timestamp, condition::Class};

/// Calls whose mean makes one sample.
const SAMPLE_CALLS: u32 = 10;
/// A sample is closed after this long even with fewer calls.
const SAMPLE_SPAN: Duration = Duration::from_secs(1);
/// Part of its excess by which the baseline follows a slower sample: a target that has become slower for good is the new
/// normal after some minutes, and one that is overloaded is not.
const BASELINE_DRIFT: f64 = 0.01;
/// What is left of the limit after a sample with overload in it.
const BACKOFF: f64 = 0.9;

/// A live adaptive limit.
#[derive(Clone, Debug, PartialEq)]
pub struct AdaptiveLimit {
    limit: f64,
    in_flight: u32,
    /// Nanoseconds; zero before the first sample.
    baseline: f64,
    sample: Sample,
}

#[derive(Clone, Copy, Debug, Default, PartialEq)]
struct Sample {
    since: Option<Timestamp>,
    calls: u32,
    nanos: u128,
    most_in_flight: u32,
    overload: bool,
}

impl AdaptiveLimit {
    /// Knows nothing yet.
    #[must_use]
    pub fn new(spec: &ConcurrencyLimitSpec) -> Self {
        Self { limit: f64::from(spec.initial()), in_flight: 0, baseline: 0.0, sample: Sample::default() }
    }

    /// Calls that may run at the same time now.
    #[must_use]
    pub fn limit(&self) -> u32 {
        self.limit as u32
    }

    /// Calls that run.
    #[must_use]
    pub const fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// The latency taken as that of a target without a queue.
    #[must_use]
    pub fn baseline(&self) -> Option<Duration> {
        (self.baseline > 0.0).then(|| Duration::from_nanos(self.baseline as u64))
    }

    /// Takes changed settings: the limit stays, as far as the new bounds allow; those that run go on.
    pub fn adapt(&mut self, spec: &ConcurrencyLimitSpec) {
        self.limit = self.limit.clamp(f64::from(spec.min()), f64::from(spec.max()));
    }

    /// Asks to run.
    pub fn enter(&mut self) -> bool {
        let free = self.in_flight < self.limit();
        if free {
            self.in_flight += 1;
            self.sample.most_in_flight = self.sample.most_in_flight.max(self.in_flight);
        }
        free
    }

    /// A call was dropped, or its outcome says nothing about load.
    pub const fn abandon(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// A call has ended. A failure means overload; its time is not a measurement.
    pub fn leave(&mut self, spec: &ConcurrencyLimitSpec, class: Class, took: Duration, now: Timestamp) {
        self.abandon();
        let since = *self.sample.since.get_or_insert(now);
        match class {
            Class::Ignored => {}
            Class::Failure => self.sample.overload = true,
            Class::Success => {
                self.sample.calls += 1;
                self.sample.nanos += took.as_nanos();
            }
        }
        let full = self.sample.calls >= SAMPLE_CALLS || now.since(since) >= SAMPLE_SPAN;
        if full && (self.sample.calls > 0 || self.sample.overload) {
            self.close_sample(spec);
        }
    }

    fn close_sample(&mut self, spec: &ConcurrencyLimitSpec) {
        let Sample { calls, nanos, most_in_flight, overload, .. } = std::mem::take(&mut self.sample);
        self.sample.most_in_flight = self.in_flight;
        if overload {
            self.limit *= BACKOFF;
        } else {
            let mean = nanos as f64 / f64::from(calls);
            // A call that takes no measurable time is one without a queue.
            self.adjust(mean.max(1.0), most_in_flight);
        }
        self.limit = self.limit.clamp(f64::from(spec.min()), f64::from(spec.max()));
    }

    /// Judges a mean latency, in nanoseconds.
    fn adjust(&mut self, recent: f64, most_in_flight: u32) {
        if self.baseline == 0.0 || recent < self.baseline {
            self.baseline = recent;
        } else {
            self.baseline += (recent - self.baseline) * BASELINE_DRIFT;
        }
        // Little's law: what is above the baseline is the part of the limit that waits in a queue at the target.
        let queued = self.limit * (1.0 - self.baseline / recent);
        let scale = self.limit.max(10.0).log10();
        let step = scale.floor();
        if queued > 6.0 * scale {
            self.limit -= step;
        } else if queued < 3.0 * scale && f64::from(most_in_flight) * 2.0 >= self.limit {
            // Only a limit that is used is known to be too low.
            self.limit += step;
        }
    }
}
