//! What the last calls showed. Both kinds really slide, and reading expires what is old.

use std::{collections::VecDeque, time::Duration};

use super::spec::WindowSpec;
use crate::{
    Timestamp,
    outcome::{ErrorKind, GrpcCode, Outcome, Response, RetryHint},
};

/// Whose doing a failure was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum FailureCause {
    /// No connection could be made, or it broke.
    ConnectError,
    /// It took too long.
    Timeout,
    /// The target answered with a failure.
    TargetError,
    /// The target asked for less: 429, RESOURCE_EXHAUSTED, an answer with `Retry-After`.
    TargetOverload,
    /// This process' own trouble. Never evidence against the target.
    LocalError,
}

impl FailureCause {
    /// The cause of an outcome that counts as a failure.
    #[must_use]
    pub const fn of(outcome: Outcome, hint: RetryHint) -> Self {
        match outcome {
            Outcome::Response(Response { status: Some(429), .. })
            | Outcome::Response(Response { grpc: Some(GrpcCode::ResourceExhausted), .. }) => Self::TargetOverload,
            Outcome::Response(_) => match hint {
                RetryHint::After(_) => Self::TargetOverload,
                RetryHint::None | RetryHint::Never => Self::TargetError,
            },
            Outcome::Error(ErrorKind::Connect | ErrorKind::Reset | ErrorKind::Body) => Self::ConnectError,
            Outcome::Error(ErrorKind::Timeout) | Outcome::Timeout(_) => Self::Timeout,
            Outcome::Error(ErrorKind::Other) => Self::TargetError,
            Outcome::Error(ErrorKind::Tls | ErrorKind::Request) | Outcome::Rejected(..) => Self::LocalError,
        }
    }
}

/// Failures by cause.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Causes {
    /// See [`FailureCause::ConnectError`].
    pub connect_error: u64,
    /// See [`FailureCause::Timeout`].
    pub timeout: u64,
    /// See [`FailureCause::TargetError`].
    pub target_error: u64,
    /// See [`FailureCause::TargetOverload`].
    pub target_overload: u64,
    /// See [`FailureCause::LocalError`].
    pub local_error: u64,
}

impl Causes {
    const fn slot(&mut self, cause: FailureCause) -> &mut u64 {
        match cause {
            FailureCause::ConnectError => &mut self.connect_error,
            FailureCause::Timeout => &mut self.timeout,
            FailureCause::TargetError => &mut self.target_error,
            FailureCause::TargetOverload => &mut self.target_overload,
            FailureCause::LocalError => &mut self.local_error,
        }
    }

    /// Adds another's counts.
    pub const fn add(&mut self, other: &Self) {
        self.connect_error += other.connect_error;
        self.timeout += other.timeout;
        self.target_error += other.target_error;
        self.target_overload += other.target_overload;
        self.local_error += other.local_error;
    }
}

/// One call in a window.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sample {
    /// The cause, if it failed.
    pub failure: Option<FailureCause>,
    /// It took strictly longer than the limit for slow calls.
    pub slow: bool,
}

/// What a window holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Counts {
    /// Calls.
    pub calls: u64,
    /// Of these, failures.
    pub failures: u64,
    /// Of these, slow ones.
    pub slow: u64,
    /// The failures by cause.
    pub causes: Causes,
}

impl Counts {
    fn add(&mut self, sample: Sample) {
        self.calls += 1;
        self.slow += u64::from(sample.slow);
        if let Some(cause) = sample.failure {
            self.failures += 1;
            *self.causes.slot(cause) += 1;
        }
    }

    fn take(&mut self, sample: Sample) {
        self.calls -= 1;
        self.slow -= u64::from(sample.slow);
        if let Some(cause) = sample.failure {
            self.failures -= 1;
            *self.causes.slot(cause) -= 1;
        }
    }

    const fn merge(&mut self, other: &Self) {
        self.calls += other.calls;
        self.failures += other.failures;
        self.slow += other.slow;
        self.causes.add(&other.causes);
    }
}

/// Buckets of a time window: a call leaves between 90 and 100 percent of the span after it came.
const BUCKETS: u64 = 10;

/// The calls that rates are taken over.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Window {
    /// The last this many calls.
    Count {
        /// How many.
        size: usize,
        /// Oldest first.
        samples: VecDeque<Sample>,
        /// Their sum.
        counts: Counts,
    },
    /// The calls of a span.
    Time {
        /// Length of a bucket in nanoseconds.
        bucket: u64,
        /// (number of the bucket since the origin, its calls), oldest first.
        buckets: VecDeque<(u64, Counts)>,
    },
}

impl Window {
    /// An empty window.
    #[must_use]
    pub fn new(spec: WindowSpec) -> Self {
        match spec {
            WindowSpec::Count(size) => {
                Self::Count { size: size as usize, samples: VecDeque::new(), counts: Counts::default() }
            }
            WindowSpec::Time(span) => {
                let nanos = u64::try_from(span.as_nanos()).unwrap_or(u64::MAX);
                Self::Time { bucket: (nanos / BUCKETS).max(1), buckets: VecDeque::new() }
            }
        }
    }

    /// Forgets everything.
    pub fn clear(&mut self) {
        match self {
            Self::Count { samples, counts, .. } => {
                samples.clear();
                *counts = Counts::default();
            }
            Self::Time { buckets, .. } => buckets.clear(),
        }
    }

    /// Adds a call.
    pub fn record(&mut self, sample: Sample, now: Timestamp) {
        match self {
            Self::Count { size, samples, counts } => {
                if samples.len() >= *size
                    && let Some(oldest) = samples.pop_front()
                {
                    counts.take(oldest);
                }
                samples.push_back(sample);
                counts.add(sample);
            }
            Self::Time { bucket, buckets } => {
                let number = now.as_nanos() / *bucket;
                expire(buckets, number);
                match buckets.back_mut() {
                    // Time that stands still or runs backwards still counts, in the newest bucket.
                    Some((newest, counts)) if *newest >= number => counts.add(sample),
                    Some(_) | None => {
                        let mut counts = Counts::default();
                        counts.add(sample);
                        buckets.push_back((number, counts));
                    }
                }
            }
        }
    }

    /// Adds so many quick successes of a moment that may be a while ago: each goes to the bucket of its own time.
    pub fn add_successes(&mut self, calls: u64, at: Timestamp) {
        let sample = Sample { failure: None, slow: false };
        match self {
            // Of more successes than the window has room for only the last ones leave a trace.
            Self::Count { size, .. } => {
                for _ in 0..calls.min(*size as u64) {
                    self.record(sample, at);
                }
            }
            Self::Time { bucket, buckets } => {
                let number = at.as_nanos() / *bucket;
                let newer = buckets.iter().rev().take_while(|(own, _)| *own > number).count();
                let place = buckets.len() - newer;
                let own = match place.checked_sub(1).and_then(|before| buckets.get_mut(before)) {
                    Some((same, counts)) if *same == number => counts,
                    Some(_) | None => {
                        buckets.insert(place, (number, Counts::default()));
                        &mut buckets[place].1
                    }
                };
                own.calls += calls;
            }
        }
    }

    /// The end of the bucket that a moment falls into: until then calls need not be told apart by their time.
    #[must_use]
    pub fn bucket_end(&self, now: Timestamp) -> Timestamp {
        match self {
            Self::Count { .. } => Timestamp::MAX,
            Self::Time { bucket, .. } => {
                Timestamp::from_nanos((now.as_nanos() / bucket).saturating_add(1).saturating_mul(*bucket))
            }
        }
    }

    /// What the window holds now.
    #[must_use]
    pub fn counts(&self, now: Timestamp) -> Counts {
        match self {
            Self::Count { counts, .. } => *counts,
            Self::Time { bucket, buckets } => {
                let number = now.as_nanos() / *bucket;
                let mut sum = Counts::default();
                for (_, counts) in buckets.iter().filter(|(own, _)| own + BUCKETS > number) {
                    sum.merge(counts);
                }
                sum
            }
        }
    }

    /// How long it looks back; `None` for a count window.
    #[must_use]
    pub const fn span(&self) -> Option<Duration> {
        match self {
            Self::Count { .. } => None,
            Self::Time { bucket, .. } => Some(Duration::from_nanos(*bucket * BUCKETS)),
        }
    }
}

fn expire(buckets: &mut VecDeque<(u64, Counts)>, number: u64) {
    while buckets.front().is_some_and(|(own, _)| own + BUCKETS <= number) {
        buckets.pop_front();
    }
}
