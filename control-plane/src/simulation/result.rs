//! What came of a simulation.

use std::{collections::BTreeMap, time::Duration};

use fusebox_policy::{
    Outcome,
    outcome::{GrpcCode, Response},
    pipeline::CallEnded,
};

/// Times below which so many of a hundred calls stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Percentiles {
    /// Half of them.
    pub p50: Duration,
    /// 90 of them.
    pub p90: Duration,
    /// 99 of them.
    pub p99: Duration,
    /// The slowest.
    pub max: Duration,
}

/// What came of the calls of one policy.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Simulated {
    /// Calls that were made.
    pub calls: u64,
    /// Attempts that reached the target.
    pub attempts: u64,
    /// Calls by their number of attempts.
    pub attempts_per_call: BTreeMap<u32, u64>,
    /// Calls that ended in a good answer of the target.
    pub succeeded: u64,
    /// Calls that a fallback answered.
    pub fallbacks: u64,
    /// Calls that ended badly for their caller.
    pub failed: u64,
    /// Refusals by strategies, by reason; a call can have several, and end well.
    pub rejections: BTreeMap<String, u64>,
    /// Times that breakers opened, over all replicas.
    pub openings: u64,
    /// How long a breaker was not closed, as a share of the time: the mean of all replicas.
    pub open_share: f64,
    /// How long calls took.
    pub latency: Percentiles,
    /// The same for attempts without any policy.
    pub bare_latency: Percentiles,
    /// Share of attempts that succeed without any policy.
    pub bare_success: f64,
}

impl Simulated {
    /// Attempts for each call: what the target has to bear, as a multiple of what is asked.
    #[must_use]
    pub fn amplification(&self) -> f64 {
        ratio(self.attempts, self.calls)
    }

    /// Share of calls that ended in a good answer of the target.
    #[must_use]
    pub fn success_rate(&self) -> f64 {
        ratio(self.succeeded, self.calls)
    }

    pub(super) fn count(&mut self, call: &CallEnded) {
        self.calls += 1;
        *self.attempts_per_call.entry(call.attempts).or_default() += 1;
        match call.outcome {
            Some(_) if call.replaced => self.fallbacks += 1,
            Some(outcome) if is_good(outcome) => self.succeeded += 1,
            Some(_) | None => self.failed += 1,
        }
    }
}

pub(super) fn is_good(outcome: Outcome) -> bool {
    match outcome {
        Outcome::Response(Response { status, grpc }) => {
            status.is_none_or(|status| status < 400) && grpc.is_none_or(|code| code == GrpcCode::Ok)
        }
        Outcome::Error(_) | Outcome::Timeout(_) | Outcome::Rejected(..) => false,
    }
}

#[expect(clippy::cast_precision_loss, reason = "counts are far below 2^53")]
pub(super) fn ratio(part: u64, whole: u64) -> f64 {
    if whole == 0 { 0.0 } else { part as f64 / whole as f64 }
}

impl Percentiles {
    pub(super) fn of(mut times: Vec<Duration>) -> Self {
        times.sort_unstable();
        let at = |percent: usize| {
            let place = (times.len() * percent).div_ceil(100).saturating_sub(1);
            times.get(place).copied().unwrap_or_default()
        };
        Self { p50: at(50), p90: at(90), p99: at(99), max: at(100) }
    }
}
