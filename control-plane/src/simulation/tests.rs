//! What is told of a policy before it is in force: calls through the core itself, on a clock that nobody waits for.

use std::time::Duration;

use fusebox_policy::{Outcome, Policy};
use fusebox_proto::manifest;

use super::{BadLatency, Latency, Scenario, simulate};

fn policy(pipeline: &str) -> Policy {
    let text = format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: b }}\nspec:\n  match: {{ target: b }}\n  pipeline: {pipeline}\n"
    );
    manifest::parse("test", &text).unwrap().remove(0).policy
}

fn scenario(failure_rate: f64, latency: &str) -> Scenario {
    Scenario {
        failure_rate,
        failure: Outcome::status(503),
        outage: None,
        latency: latency.parse().unwrap(),
        rate: 50.0,
        replicas: 3,
        duration: Duration::from_secs(120),
        idempotent: true,
        seed: 7,
    }
}

#[test]
fn retries_multiply_the_load_and_lift_the_success_as_arithmetic_says() {
    let policy = policy("[{ retry: { maxAttempts: 3, backoff: 10ms, budget: none } }]");
    let result = simulate(&policy, &scenario(0.3, "20ms"));
    assert!(result.calls > 5000, "{}", result.calls);
    // 1 + 0.3 + 0.09 attempts, and 1 - 0.027 of calls succeed.
    assert!((result.amplification() - 1.39).abs() < 0.03, "{}", result.amplification());
    assert!((result.success_rate() - 0.973).abs() < 0.01, "{}", result.success_rate());
    assert!((result.bare_success - 0.7).abs() < 0.02, "{}", result.bare_success);
    assert_eq!(result.attempts_per_call.keys().copied().collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(result.attempts_per_call.values().sum::<u64>(), result.calls);
}

#[test]
fn the_same_seed_is_the_same_result_and_another_is_not() {
    let policy = policy("[{ retry: {} }, { circuitBreaker: {} }, { timeout: 100ms }]");
    let first = simulate(&policy, &scenario(0.4, "p50=20ms,p99=200ms"));
    assert_eq!(simulate(&policy, &scenario(0.4, "p50=20ms,p99=200ms")), first);
    let other = Scenario { seed: 8, ..scenario(0.4, "p50=20ms,p99=200ms") };
    assert_ne!(simulate(&policy, &other), first);
}

#[test]
fn a_breaker_opens_in_an_outage_and_spares_the_target() {
    let outage = Some((Duration::from_secs(30), Duration::from_secs(90)));
    let scenario = Scenario { outage, ..scenario(0.0, "20ms") };
    let guarded = simulate(&policy("[{ circuitBreaker: {} }]"), &scenario);
    let bare = simulate(&policy("[{ timeout: 1s }]"), &scenario);
    assert!(guarded.openings >= 3, "each replica opens: {guarded:?}");
    assert!(guarded.open_share > 0.3 && guarded.open_share < 0.9, "{}", guarded.open_share);
    assert!(guarded.rejections["open"] > 1000, "{:?}", guarded.rejections);
    assert!(guarded.attempts < bare.attempts * 2 / 3, "{} of {}", guarded.attempts, bare.attempts);
    assert_eq!((bare.openings, bare.attempts), (0, bare.calls));
}

#[test]
fn timeouts_cut_and_fallbacks_answer() {
    let result = simulate(
        &policy("[{ fallback: { response: { status: 200 } } }, { timeout: 50ms }]"),
        &scenario(0.0, "p50=20ms,p99=2s"),
    );
    assert!(result.latency.max <= Duration::from_millis(50), "{:?}", result.latency);
    assert!(result.bare_latency.max > Duration::from_secs(1), "{:?}", result.bare_latency);
    assert!(result.fallbacks > 0 && result.failed == 0, "{result:?}");
    assert_eq!(result.succeeded + result.fallbacks, result.calls);
}

#[test]
fn hedges_race_and_only_what_may_be_repeated() {
    let policy = policy("[{ hedge: { delay: 50ms } }]");
    let tail = scenario(0.0, "p50=20ms,p90=30ms,p99=2s");
    let hedged = simulate(&policy, &tail);
    assert!(hedged.latency.p99 < hedged.bare_latency.p99 / 2, "{:?} {:?}", hedged.latency, hedged.bare_latency);
    assert!(hedged.attempts > hedged.calls);
    let once = simulate(&policy, &Scenario { idempotent: false, ..tail });
    assert_eq!(once.attempts, once.calls);
}

#[test]
fn a_full_bulkhead_queues_and_refuses_and_nobody_is_lost() {
    let bulkhead = "[{ bulkhead: { maxConcurrent: 2, maxWaiting: 5, maxWait: 200ms } }]";
    let crowd = Scenario { rate: 300.0, replicas: 1, ..scenario(0.0, "50ms") };
    let result = simulate(&policy(bulkhead), &crowd);
    assert!(result.rejections["full"] > 0, "{:?}", result.rejections);
    assert_eq!(result.succeeded + result.failed + result.fallbacks, result.calls);
    assert!(result.latency.p90 > Duration::from_millis(60), "those that wait take longer: {:?}", result.latency);
}

#[test]
fn latencies_are_read_from_percentiles() {
    let latency: Latency = "p50=20ms,p99=2s,p999=4s".parse().unwrap();
    let ms = |share: f64| latency.at(share).as_millis();
    assert_eq!((ms(0.0), ms(0.5), ms(0.99), ms(0.999), ms(1.0)), (10, 20, 2000, 4000, 4000));
    assert!((21..2000).contains(&ms(0.8)));
    assert_eq!("20ms".parse::<Latency>().unwrap().at(0.3), Duration::from_millis(20));
    for bad in ["", "p50", "p50=", "x50=1s", "p101=1s", "p50=20ms p99=2s"] {
        assert!(matches!(bad.parse::<Latency>(), Err(BadLatency::Part(_))), "{bad}");
    }
    for bad in ["p99=1s,p50=2s", "p50=2s,p99=1s", "p50=1s,p50=2s"] {
        assert!(matches!(bad.parse::<Latency>(), Err(BadLatency::Order(_))), "{bad}");
    }
}
