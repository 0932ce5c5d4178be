//! Circuit breaker <-> wire.

use fusebox_policy::{
    Invalid,
    breaker::{BreakerInput, BreakerMode, BreakerSpec, HalfOpenSpec, RateRule, TripRules, WindowSpec},
    invalid::Faults,
};

use crate::{
    condition::{ignored, pair},
    duration, v1,
};

impl TryFrom<v1::CircuitBreaker> for BreakerSpec {
    type Error = Invalid;

    fn try_from(wire: v1::CircuitBreaker) -> Result<Self, Invalid> {
        let v1::CircuitBreaker {
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
        } = wire;
        let mut faults = Faults::new();
        let default = BreakerInput::default();
        let (failure_when, ignore_when) = pair(&mut faults, failure_when, ignore_when);
        let mode = match v1::BreakerMode::try_from(mode) {
            Ok(v1::BreakerMode::Unspecified | v1::BreakerMode::Enforced) => BreakerMode::Enforced,
            Ok(v1::BreakerMode::Shadow) => BreakerMode::Shadow,
            Ok(v1::BreakerMode::Disabled) => BreakerMode::Disabled,
            Err(_) => {
                faults.push("mode", format!("{mode} is not a mode"));
                BreakerMode::default()
            }
        };
        let input = BreakerInput {
            failure_when,
            ignore_when,
            window: read_window(window, &mut faults).unwrap_or_default(),
            trip: trip.map_or(default.trip, |wire| read_trip(wire, &mut faults)),
            delay: duration::optional(&mut faults, "delay", delay).unwrap_or(default.delay),
            delay_factor: delay_factor.unwrap_or(default.delay_factor),
            delay_max: duration::optional(&mut faults, "delayMax", delay_max),
            delay_jitter: delay_jitter.unwrap_or(default.delay_jitter),
            respect_retry_after: respect_retry_after.unwrap_or(default.respect_retry_after),
            retry_after_max: duration::optional(&mut faults, "retryAfterMax", retry_after_max)
                .unwrap_or(default.retry_after_max),
            half_open: half_open.map_or(default.half_open, |wire| read_half_open(wire, &mut faults)),
            ramp: duration::optional(&mut faults, "ramp", ramp),
            mode,
        };
        let spec = faults.take("", Self::try_new(input));
        faults.into_result(spec)
    }
}

fn read_window(wire: Option<v1::Window>, faults: &mut Faults) -> Option<WindowSpec> {
    let v1::Window { kind } = wire?;
    match kind {
        Some(v1::window::Kind::Count(count)) => Some(WindowSpec::Count(count)),
        Some(v1::window::Kind::Time(time)) => {
            duration::optional(faults, "window.time", Some(time)).map(WindowSpec::Time)
        }
        None => {
            faults.push("window", "must be one of count, time");
            None
        }
    }
}

fn read_rate(wire: v1::RateRule, field: &str, faults: &mut Faults) -> Option<RateRule> {
    let v1::RateRule { percent, min_calls } = wire;
    match u8::try_from(percent) {
        Ok(percent) => Some(RateRule { percent, min_calls: min_calls.unwrap_or(RateRule::DEFAULT_MIN_CALLS) }),
        Err(_) => {
            faults.push(format!("{field}.percent"), format!("must be from 1 to 100, is {percent}"));
            None
        }
    }
}

fn read_trip(wire: v1::TripRules, faults: &mut Faults) -> TripRules {
    let v1::TripRules { failure_rate, failures, consecutive_failures, slow_call_rate, slow_call_duration } = wire;
    let failure_rate = failure_rate.and_then(|rule| read_rate(rule, "trip.failureRate", faults));
    let slow_rate = slow_call_rate.and_then(|rule| read_rate(rule, "trip.slowCallRate", faults));
    let slow_duration = duration::optional(faults, "trip.slowCallDuration", slow_call_duration);
    let slow_call_rate = match (slow_rate, slow_duration) {
        (Some(rate), Some(duration)) => Some((rate, duration)),
        (Some(_), None) => {
            faults.push("trip.slowCallDuration", "is required with slowCallRate");
            None
        }
        (None, Some(_)) => {
            faults.push("trip.slowCallRate", "is required with slowCallDuration");
            None
        }
        (None, None) => None,
    };
    TripRules { failure_rate, failures, consecutive_failures, slow_call_rate }
}

fn read_half_open(wire: v1::HalfOpen, faults: &mut Faults) -> HalfOpenSpec {
    let v1::HalfOpen { probes, concurrent_probes, successes, max_duration } = wire;
    let default = HalfOpenSpec::default();
    let probes = probes.unwrap_or(default.probes);
    HalfOpenSpec {
        probes,
        concurrent_probes: concurrent_probes.unwrap_or(default.concurrent_probes),
        successes: successes.unwrap_or(probes),
        max_duration: duration::optional(faults, "halfOpen.maxDuration", max_duration),
    }
}

impl From<&BreakerSpec> for v1::CircuitBreaker {
    fn from(spec: &BreakerSpec) -> Self {
        let TripRules { failure_rate, failures, consecutive_failures, slow_call_rate } = spec.trip();
        let HalfOpenSpec { probes, concurrent_probes, successes, max_duration } = spec.half_open();
        let rate = |rule: RateRule| v1::RateRule { percent: u32::from(rule.percent), min_calls: Some(rule.min_calls) };
        let mode = match spec.mode() {
            BreakerMode::Enforced => v1::BreakerMode::Enforced,
            BreakerMode::Shadow => v1::BreakerMode::Shadow,
            BreakerMode::Disabled => v1::BreakerMode::Disabled,
        };
        let window = match spec.window() {
            WindowSpec::Count(count) => v1::window::Kind::Count(count),
            WindowSpec::Time(time) => v1::window::Kind::Time(duration::to_wire(time)),
        };
        Self {
            failure_when: Some(spec.classifier().failure_when().into()),
            ignore_when: ignored(spec.classifier().ignore_when()),
            window: Some(v1::Window { kind: Some(window) }),
            trip: Some(v1::TripRules {
                failure_rate: failure_rate.map(rate),
                failures,
                consecutive_failures,
                slow_call_rate: slow_call_rate.map(|(rule, _)| rate(rule)),
                slow_call_duration: slow_call_rate.map(|(_, limit)| duration::to_wire(limit)),
            }),
            delay: Some(duration::to_wire(spec.delay())),
            delay_factor: Some(spec.delay_factor()),
            delay_max: Some(duration::to_wire(spec.delay_max())),
            delay_jitter: Some(spec.delay_jitter()),
            respect_retry_after: Some(spec.respect_retry_after()),
            retry_after_max: Some(duration::to_wire(spec.retry_after_max())),
            half_open: Some(v1::HalfOpen {
                probes: Some(probes),
                concurrent_probes: Some(concurrent_probes),
                successes: Some(successes),
                max_duration: max_duration.map(duration::to_wire),
            }),
            ramp: spec.ramp().map(duration::to_wire),
            mode: mode.into(),
        }
    }
}
