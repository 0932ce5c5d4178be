//! Others that do the same.

use std::{convert::Infallible, hint::black_box, num::NonZeroU32, time::Duration};

use criterion::Criterion;
use failsafe::{CircuitBreaker as _, Config, backoff, failure_policy};
use recloser::Recloser;
use tower::{Service, ServiceBuilder, service_fn};
use tower_resilience_circuitbreaker::{CircuitBreakerLayer, SlidingWindowType};
use tower_resilience_fallback::FallbackLayer;
use tower_resilience_retry::RetryLayer;
use tower_resilience_timelimiter::TimeLimiterLayer;

use crate::{measure, ours::now, table::Table};

const HOUR: Duration = Duration::from_secs(3600);

#[derive(Clone, Debug)]
struct Down;

impl std::fmt::Display for Down {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("down")
    }
}

impl std::error::Error for Down {}

pub(crate) fn bench(criterion: &mut Criterion, table: &mut Table) {
    failsafe(criterion, table);
    recloser(criterion, table);
    governor(criterion, table);
    tower_resilience(criterion, table);
}

fn failsafe(criterion: &mut Criterion, table: &mut Table) {
    let consecutive =
        Config::new().failure_policy(failure_policy::consecutive_failures(5, backoff::constant(HOUR))).build();
    measure(criterion, table, "failsafe: consecutive", || {
        black_box(consecutive.call(|| Ok::<u64, Down>(1)).is_ok());
    });
    let rate = Config::new()
        .failure_policy(failure_policy::success_rate_over_time_window(
            0.5,
            20,
            Duration::from_secs(10),
            backoff::constant(HOUR),
        ))
        .build();
    measure(criterion, table, "failsafe: rate over a time window", || {
        black_box(rate.call(|| Ok::<u64, Down>(1)).is_ok());
    });
    // Its way for what ours are: operations that may wait.
    measure(criterion, table, "failsafe: consecutive, of a future", || {
        let called = failsafe::futures::CircuitBreaker::call(&consecutive, std::future::ready(Ok::<u64, Down>(1)));
        black_box(now!(called));
    });
    for _ in 0..5 {
        let _ = consecutive.call(|| Err::<u64, Down>(Down));
    }
    measure(criterion, table, "failsafe: open", || {
        black_box(consecutive.call(|| Ok::<u64, Down>(1)).is_ok());
    });
}

fn recloser(criterion: &mut Criterion, table: &mut Table) {
    let breaker = Recloser::custom().error_rate(0.5).closed_len(100).open_wait(HOUR).build();
    measure(criterion, table, "recloser: breaker", || {
        black_box(breaker.call(|| Ok::<u64, Down>(1)).is_ok());
    });
    for _ in 0..200 {
        let _ = breaker.call(|| Err::<u64, Down>(Down));
    }
    measure(criterion, table, "recloser: open", || {
        black_box(breaker.call(|| Ok::<u64, Down>(1)).is_ok());
    });
}

fn governor(criterion: &mut Criterion, table: &mut Table) {
    let million = NonZeroU32::new(1_000_000).expect("a million is not zero");
    let quota = governor::Quota::per_second(NonZeroU32::MAX).allow_burst(million);
    let limiter = governor::RateLimiter::direct(quota);
    measure(criterion, table, "governor: rate limiter", || {
        black_box(limiter.check().is_ok());
    });
}

/// By its count window, which costs it least, and by the time window that ours is measured with: it keeps and scans every call of the
/// window, so that a call costs more the more of them there are.
fn tower_resilience(criterion: &mut Criterion, table: &mut Table) {
    let count = || breaker(SlidingWindowType::CountBased);
    let time = || breaker(SlidingWindowType::TimeBased);
    tower_breaker(criterion, table, "tower-resilience: breaker, count window", count());
    tower_stack(criterion, table, "tower-resilience: stack, count window", count());
    tower_breaker(criterion, table, "tower-resilience: breaker, time window", time());
    tower_stack(criterion, table, "tower-resilience: stack, time window", time());
}

fn breaker(window: SlidingWindowType) -> CircuitBreakerLayer {
    CircuitBreakerLayer::builder()
        .failure_rate_threshold(0.5)
        .sliding_window_type(window)
        .sliding_window_size(100)
        .sliding_window_duration(Duration::from_secs(10))
        .minimum_number_of_calls(20)
        .slow_call_duration_threshold(Duration::from_secs(1))
        .slow_call_rate_threshold(0.5)
        .build()
        .expect("the settings are valid")
}

fn tower_breaker(criterion: &mut Criterion, table: &mut Table, name: &'static str, breaker: CircuitBreakerLayer) {
    let mut service =
        ServiceBuilder::new().layer(breaker).service(service_fn(|_: u64| async { Ok::<u64, Infallible>(1) }));
    measure(criterion, table, name, || {
        black_box(now!(service.call(1)));
    });
}

fn tower_stack(criterion: &mut Criterion, table: &mut Table, name: &'static str, breaker: CircuitBreakerLayer) {
    let mut stack = ServiceBuilder::new()
        .layer(FallbackLayer::value(0_u64))
        .layer(RetryLayer::builder().max_attempts(3).build())
        .layer(breaker)
        .layer(TimeLimiterLayer::builder().timeout_duration(Duration::from_secs(1)).build())
        .service(service_fn(|_: u64| async { Ok::<u64, Down>(1) }));
    measure(criterion, table, name, || {
        black_box(now!(stack.call(1)));
    });
}
