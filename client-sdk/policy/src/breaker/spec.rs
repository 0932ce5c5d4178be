//! Validated settings of a circuit breaker.

use std::time::Duration;

use crate::{
    Invalid,
    condition::{Classifier, Conditions, breaker_default},
    invalid::Faults,
};

/// Over which calls rates are taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WindowSpec {
    /// The last this many calls.
    Count(u32),
    /// The calls of this long, in ten buckets.
    Time(Duration),
}

impl Default for WindowSpec {
    fn default() -> Self {
        Self::Time(Duration::from_secs(10))
    }
}

/// A share of the calls in the window. Compared as whole numbers: `failures * 100 >= percent * calls`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RateRule {
    /// 1 to 100; reached means tripped.
    pub percent: u8,
    /// Fewer calls than this never trip.
    pub min_calls: u32,
}

impl RateRule {
    /// Calls that a rate needs, when nothing is said.
    pub const DEFAULT_MIN_CALLS: u32 = 20;

    /// Whether `part` of `calls` reaches the rate.
    #[must_use]
    pub fn reached(self, part: u64, calls: u64) -> bool {
        calls >= u64::from(self.min_calls) && self.share_reached(part, calls)
    }

    /// Whether `part` of `calls` reaches the share, however few calls they are. Zero calls reach nothing.
    #[must_use]
    pub fn share_reached(self, part: u64, calls: u64) -> bool {
        calls > 0 && u128::from(part) * 100 >= u128::from(self.percent) * u128::from(calls)
    }
}

/// When a breaker opens: any rule that is set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TripRules {
    /// Share of failures.
    pub failure_rate: Option<RateRule>,
    /// Failures in the window.
    pub failures: Option<u32>,
    /// Failures in a row.
    pub consecutive_failures: Option<u32>,
    /// Share of slow calls, and what is slow: strictly longer.
    pub slow_call_rate: Option<(RateRule, Duration)>,
}

impl Default for TripRules {
    /// 50 percent of at least 20 calls; and 5 in a row, so that a small service trips too.
    fn default() -> Self {
        Self {
            failure_rate: Some(RateRule { percent: 50, min_calls: RateRule::DEFAULT_MIN_CALLS }),
            failures: None,
            consecutive_failures: Some(5),
            slow_call_rate: None,
        }
    }
}

/// How a breaker tests whether the target is back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct HalfOpenSpec {
    /// Probes in total per half-open period.
    pub probes: u32,
    /// Probes in flight at the same time.
    pub concurrent_probes: u32,
    /// Successes that close it. It opens again as soon as that can't be reached.
    pub successes: u32,
    /// A half-open period that lasts longer opens again.
    pub max_duration: Option<Duration>,
}

impl Default for HalfOpenSpec {
    /// Three probes, one at a time, all of which must succeed.
    fn default() -> Self {
        Self { probes: 3, concurrent_probes: 1, successes: 3, max_duration: None }
    }
}

/// Whether a breaker acts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum BreakerMode {
    /// Counts, reports and rejects.
    #[default]
    Enforced,
    /// Counts and reports, never rejects.
    Shadow,
    /// Everything passes, nothing is counted.
    Disabled,
}

/// Settings of a breaker, as they come in. Build it with struct update from `BreakerInput::default()`.
#[derive(Clone, Debug)]
pub struct BreakerInput {
    /// `None` is the default.
    pub failure_when: Option<Conditions>,
    /// Counts neither way.
    pub ignore_when: Conditions,
    /// Over which calls.
    pub window: WindowSpec,
    /// When it opens.
    pub trip: TripRules,
    /// How long it stays open.
    pub delay: Duration,
    /// Growth of the delay for each further opening without a close in between.
    pub delay_factor: f64,
    /// Cap of the grown delay, jitter included. `None`: 60 s, or `delay` if that is longer.
    pub delay_max: Option<Duration>,
    /// Share of the delay that is added at random.
    pub delay_jitter: f64,
    /// A `Retry-After` on the outcome that trips sets the delay; one of zero does not.
    pub respect_retry_after: bool,
    /// Cap of that.
    pub retry_after_max: Duration,
    /// How it tests.
    pub half_open: HalfOpenSpec,
    /// How long after closing it admits only a share.
    pub ramp: Option<Duration>,
    /// Whether it acts.
    pub mode: BreakerMode,
}

impl Default for BreakerInput {
    fn default() -> Self {
        Self {
            failure_when: None,
            ignore_when: Conditions::default(),
            window: WindowSpec::default(),
            trip: TripRules::default(),
            delay: Duration::from_secs(5),
            delay_factor: 2.0,
            delay_max: None,
            delay_jitter: 0.1,
            respect_retry_after: true,
            retry_after_max: Duration::from_secs(60),
            half_open: HalfOpenSpec::default(),
            ramp: None,
            mode: BreakerMode::default(),
        }
    }
}

/// Validated settings of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct BreakerSpec {
    classifier: Classifier,
    window: WindowSpec,
    trip: TripRules,
    delay: Duration,
    /// In millionths, so that the type has an exact equality.
    delay_factor_ppm: u64,
    delay_max: Duration,
    delay_jitter_ppm: u32,
    respect_retry_after: bool,
    retry_after_max: Duration,
    half_open: HalfOpenSpec,
    ramp: Option<Duration>,
    mode: BreakerMode,
}

/// Largest count window: each call is one entry in memory.
const MAX_COUNT_WINDOW: u32 = 10_000;
const TIME_WINDOW: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);
/// The cap of a grown delay when nothing is said.
const DEFAULT_DELAY_MAX: Duration = Duration::from_secs(60);

impl BreakerSpec {
    /// Checks the settings.
    ///
    /// # Errors
    /// Everything that can't work, by field.
    pub fn try_new(input: BreakerInput) -> Result<Self, Invalid> {
        let BreakerInput {
            failure_when,
            ignore_when,
            window,
            trip,
            delay,
            delay_factor,
            delay_max,
            delay_jitter,
            respect_retry_after,
            retry_after_max,
            half_open,
            ramp,
            mode,
        } = input;
        let mut faults = Faults::new();
        let classifier = faults.take("", Classifier::try_new(failure_when, ignore_when, breaker_default));
        check_window(window, &mut faults);
        check_trip(trip, window, &mut faults);
        faults.check(!delay.is_zero(), "delay", "must be greater than zero");
        faults.check(
            delay_factor.is_finite() && (1.0..=1000.0).contains(&delay_factor),
            "delayFactor",
            format!("must be from 1 to 1000, is {delay_factor}"),
        );
        let delay_max = match delay_max {
            Some(max) => {
                faults.check(max >= delay, "delayMax", "must not be less than delay");
                max
            }
            None => DEFAULT_DELAY_MAX.max(delay),
        };
        faults.check(
            delay_jitter.is_finite() && (0.0..=1.0).contains(&delay_jitter),
            "delayJitter",
            format!("must be from 0 to 1, is {delay_jitter}"),
        );
        faults.check(!respect_retry_after || !retry_after_max.is_zero(), "retryAfterMax", "must be greater than zero");
        check_half_open(half_open, &mut faults);
        faults.check(ramp != Some(Duration::ZERO), "ramp", "must be greater than zero; leave it out for none");
        faults.into_result(classifier.map(|classifier| Self {
            classifier,
            window,
            trip,
            delay,
            delay_factor_ppm: (delay_factor * 1e6).round() as u64,
            delay_max,
            delay_jitter_ppm: (delay_jitter * 1e6).round() as u32,
            respect_retry_after,
            retry_after_max,
            half_open,
            ramp,
            mode,
        }))
    }

    /// What counts.
    #[must_use]
    pub const fn classifier(&self) -> &Classifier {
        &self.classifier
    }

    /// Over which calls.
    #[must_use]
    pub const fn window(&self) -> WindowSpec {
        self.window
    }

    /// When it opens.
    #[must_use]
    pub const fn trip(&self) -> TripRules {
        self.trip
    }

    /// How long it stays open at first.
    #[must_use]
    pub const fn delay(&self) -> Duration {
        self.delay
    }

    /// Growth of the delay.
    #[must_use]
    pub fn delay_factor(&self) -> f64 {
        self.delay_factor_ppm as f64 / 1e6
    }

    /// Cap of the grown delay.
    #[must_use]
    pub const fn delay_max(&self) -> Duration {
        self.delay_max
    }

    /// Share of the delay that is added at random.
    #[must_use]
    pub fn delay_jitter(&self) -> f64 {
        f64::from(self.delay_jitter_ppm) / 1e6
    }

    /// The open time after `reopened` openings without a close in between: grown, with jitter that only adds, capped.
    #[must_use]
    pub fn open_for(&self, reopened: u32, draw: crate::Draw) -> Duration {
        let power = self.delay_factor().powi(i32::try_from(reopened.min(4096)).unwrap_or(4096));
        let grown = crate::time::scale(self.delay, power).min(self.delay_max);
        let jittered = grown.saturating_add(crate::time::scale(grown, self.delay_jitter() * draw.get()));
        jittered.min(self.delay_max)
    }

    /// Whether a `Retry-After` sets the delay.
    #[must_use]
    pub const fn respect_retry_after(&self) -> bool {
        self.respect_retry_after
    }

    /// Cap of that.
    #[must_use]
    pub const fn retry_after_max(&self) -> Duration {
        self.retry_after_max
    }

    /// How it tests.
    #[must_use]
    pub const fn half_open(&self) -> HalfOpenSpec {
        self.half_open
    }

    /// How long after closing it admits only a share.
    #[must_use]
    pub const fn ramp(&self) -> Option<Duration> {
        self.ramp
    }

    /// Whether it acts.
    #[must_use]
    pub const fn mode(&self) -> BreakerMode {
        self.mode
    }

    /// The smallest number of calls on which these rules can trip: who has seen as many has a vote in the fleet.
    #[must_use]
    pub fn least_evidence(&self) -> u32 {
        let TripRules { failure_rate, failures, consecutive_failures, slow_call_rate } = self.trip;
        [
            failure_rate.map(|rule| rule.min_calls),
            failures,
            consecutive_failures,
            slow_call_rate.map(|(rule, _)| rule.min_calls),
        ]
        .into_iter()
        .flatten()
        .min()
        .unwrap_or(1)
        .max(1)
    }
}

fn check_window(window: WindowSpec, faults: &mut Faults) {
    match window {
        WindowSpec::Count(count) => faults.check(
            (1..=MAX_COUNT_WINDOW).contains(&count),
            "window.count",
            format!("must be from 1 to {MAX_COUNT_WINDOW}, is {count}"),
        ),
        WindowSpec::Time(time) => {
            faults.check(TIME_WINDOW.contains(&time), "window.time", "must be from 100ms to 1h");
        }
    }
}

fn check_rate(rule: RateRule, window: WindowSpec, field: &str, faults: &mut Faults) {
    faults.check(
        (1..=100).contains(&rule.percent),
        &format!("{field}.percent"),
        format!("must be from 1 to 100, is {}", rule.percent),
    );
    let field = format!("{field}.minCalls");
    faults.check(rule.min_calls >= 1, &field, "must be at least 1");
    if let WindowSpec::Count(count) = window {
        faults.check(
            rule.min_calls <= count,
            &field,
            format!("can never be reached: {} calls in a window of {count}", rule.min_calls),
        );
    }
}

fn check_trip(trip: TripRules, window: WindowSpec, faults: &mut Faults) {
    let TripRules { failure_rate, failures, consecutive_failures, slow_call_rate } = trip;
    if failure_rate.is_none() && failures.is_none() && consecutive_failures.is_none() && slow_call_rate.is_none() {
        faults.push("trip", "must have at least one rule; leave it out for the default");
    }
    if let Some(rule) = failure_rate {
        check_rate(rule, window, "trip.failureRate", faults);
    }
    if let Some(failures) = failures {
        faults.check(failures >= 1, "trip.failures", "must be at least 1");
        if let WindowSpec::Count(count) = window {
            faults.check(
                failures <= count,
                "trip.failures",
                format!("can never be reached: {failures} failures in a window of {count}"),
            );
        }
    }
    faults.check(consecutive_failures != Some(0), "trip.consecutiveFailures", "must be at least 1");
    if let Some((rule, duration)) = slow_call_rate {
        check_rate(rule, window, "trip.slowCallRate", faults);
        faults.check(!duration.is_zero(), "trip.slowCallDuration", "must be greater than zero");
    }
}

fn check_half_open(half_open: HalfOpenSpec, faults: &mut Faults) {
    let HalfOpenSpec { probes, concurrent_probes, successes, max_duration } = half_open;
    faults.check((1..=10_000).contains(&probes), "halfOpen.probes", format!("must be from 1 to 10000, is {probes}"));
    faults.check(
        (1..=probes.max(1)).contains(&concurrent_probes),
        "halfOpen.concurrentProbes",
        format!("must be from 1 to probes ({probes}), is {concurrent_probes}"),
    );
    faults.check(
        (1..=probes.max(1)).contains(&successes),
        "halfOpen.successes",
        format!("must be from 1 to probes ({probes}), is {successes}"),
    );
    faults.check(max_duration != Some(Duration::ZERO), "halfOpen.maxDuration", "must be greater than zero");
}
