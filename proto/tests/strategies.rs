//! Every strategy on its way through manifest and wire: nothing is lost, and what is wrong is said at its place.

use fusebox_policy::Policy;
use fusebox_proto::{manifest, v1};
use prost::Message;

const HEAD: &str =
    "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  match: { target: b }\n  pipeline:\n";

/// One pipeline with every kind, everything set.
const EVERYTHING: &str = r#"    - fallback: { response: { status: 200, headers: { x-a: b }, body: "{}" }, ignoreWhen: { statuses: ["404"] } }
    - cache: { ttl: 30s, maxEntries: 50, maxBodyBytes: 1000, coalesce: false, failureWhen: { errors: [any] } }
    - timeout: { duration: 30s, scope: body, propagateHeader: x-deadline-ms }
    - throttle: { multiplier: 1.5, window: 30s, minCalls: 5, maxRejectionPercent: 80, ignoreWhen: { statuses: [4xx] } }
    - rateLimiter: { limit: 100, period: 1m, burst: 10, maxWait: 250ms, scope: instance }
    - bulkhead: { maxConcurrent: 10, maxWaiting: 5, maxWait: 100ms }
    - concurrencyLimit: { initial: 10, min: 2, max: 50, failureWhen: { statuses: ["503"] } }
    - retry: { maxAttempts: 4, backoff: { linear: { initial: 10ms, step: 20ms, max: 1s }, jitter: equal }, budget: none }
    - hedge: { quantile: { quantile: 0.95, warmUp: 20 }, maxHedges: 2, budget: { ratio: 0.1 }, failureWhen: { errors: [any] } }
    - circuitBreaker: { window: { count: 50 }, trip: { failureRate: { percent: 30 }, failures: 20 }, ramp: 10s }
    - chaos: { percent: 2.5, latency: 50ms, status: 503, until: 2030-01-01T00:00:00Z }
    - timeout: 1s
"#;

/// The same kinds with nothing set that need not be.
const DEFAULTS: &str = "    - cache: { ttl: 1s }
    - throttle: {}
    - rateLimiter: { limit: 5 }
    - bulkhead: { maxConcurrent: 3 }
    - concurrencyLimit:
    - hedge: { delay: 50ms }
    - chaos: { percent: 1, error: connect, until: 2030-01-01T00:00:00Z }
";

/// A limit that the replicas share.
const SHARED: &str = "    - rateLimiter: { limit: 300, burst: 30, scope: fleet }\n";

fn parse(pipeline: &str) -> Policy {
    let text = format!("{HEAD}{pipeline}");
    match manifest::parse("test.yaml", &text) {
        Ok(mut documents) => documents.remove(0).policy,
        Err(error) => panic!("{error}"),
    }
}

fn faults(pipeline: &str) -> Vec<String> {
    match manifest::parse("test.yaml", &format!("{HEAD}{pipeline}\n")) {
        Ok(_) => Vec::new(),
        Err(error) => error
            .faults
            .iter()
            .map(|fault| format!("{}:{} {}: {}", fault.line, fault.column, fault.path, fault.reason))
            .collect(),
    }
}

#[test]
fn manifests_read_back_unchanged() {
    for pipeline in [EVERYTHING, DEFAULTS, SHARED, "    - hedge: { quantile: 0.99 }\n"] {
        let policy = parse(pipeline);
        let text = manifest::to_yaml(&policy);
        let again = manifest::parse("again.yaml", &text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        assert_eq!(again[0].policy, policy, "{text}");
    }
}

#[test]
fn the_wire_loses_nothing() {
    for pipeline in [EVERYTHING, DEFAULTS, SHARED] {
        let policy = parse(pipeline);
        let bytes = v1::Policy::from(&policy).encode_to_vec();
        let again = Policy::try_from(v1::Policy::decode(bytes.as_slice()).unwrap()).unwrap();
        assert_eq!(again, policy);
    }
}

/// Bytes that an earlier build wrote. They must be read for ever: replicas and control planes of different versions meet.
/// `UPDATE_GOLDEN=1 cargo test -p fusebox-proto` writes the file anew, for additions only.
#[test]
fn bytes_of_an_earlier_version_mean_the_same() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden/policy-v1.bin");
    let policy = parse(EVERYTHING);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(file, v1::Policy::from(&policy).encode_to_vec()).unwrap();
    }
    let bytes = std::fs::read(file).unwrap();
    assert_eq!(Policy::try_from(v1::Policy::decode(bytes.as_slice()).unwrap()).unwrap(), policy);
}

#[test]
fn what_makes_no_sense_is_refused_at_its_place() {
    let table = [
        (
            "    - bulkhead: { maxConcurrent: 0 }",
            "7:34 spec.pipeline[0].bulkhead.maxConcurrent: must be from 1 to 1000000, is 0",
        ),
        ("    - bulkhead: {}", "7:17 spec.pipeline[0].bulkhead.maxConcurrent: is required"),
        (
            "    - bulkhead: { maxConcurrent: 2, maxWait: 1s }",
            "7:46 spec.pipeline[0].bulkhead.maxWait: needs maxWaiting: without a place to wait nobody waits",
        ),
        (
            "    - rateLimiter: { limit: 5, burst: 9 }",
            "7:39 spec.pipeline[0].rateLimiter.burst: must be from 1 to the limit of 5, is 9",
        ),
        ("    - hedge: {}", "7:14 spec.pipeline[0].hedge: must have exactly one of delay, quantile, has 0"),
        (
            "    - hedge: { delay: 1s, quantile: 0.9 }",
            "7:14 spec.pipeline[0].hedge: must have exactly one of delay, quantile, has 2",
        ),
        (
            "    - hedge: { delay: 1s, maxHedges: 11 }",
            "7:38 spec.pipeline[0].hedge.maxHedges: must be from 1 to 10, is 11",
        ),
        (
            "    - hedge: { delay: 1s }\n    - hedge: { delay: 1s }",
            "8:7 spec.pipeline[1].hedge: stands inside another hedge ([0]): their tries would multiply",
        ),
        (
            "    - timeout: 1s\n    - hedge: { delay: 1s }",
            "8:23 spec.pipeline[1].hedge.delay: must be less than the 1s of the timeout around it ([0]), or it never hedges",
        ),
        (
            "    - timeout: 1s\n    - rateLimiter: { limit: 1, maxWait: 2s }",
            "8:41 spec.pipeline[1].rateLimiter.maxWait: must not be more than the 1s of the timeout around it ([0])",
        ),
        (
            "    - concurrencyLimit: { min: 10, max: 5 }",
            "7:41 spec.pipeline[0].concurrencyLimit.max: must be at least the min of 10, is 5",
        ),
        (
            "    - throttle: { multiplier: 0.5 }",
            "7:31 spec.pipeline[0].throttle.multiplier: must be from 1 to 100, is 0.5",
        ),
        ("    - cache: { ttl: 0s }", "7:21 spec.pipeline[0].cache.ttl: is required, and greater than zero"),
        (
            "    - chaos: { percent: 5, latency: 1s, until: tomorrow }",
            "7:48 spec.pipeline[0].chaos.until: must be a date like 2027-01-01T00:00:00Z, is \"tomorrow\"",
        ),
        ("    - chaos: { percent: 5, latency: 1s }", "7:14 spec.pipeline[0].chaos.until: is required"),
        (
            "    - chaos: { percent: 5, until: 2030-01-01T00:00:00Z }",
            "7:7 spec.pipeline[0].chaos: must have latency, or one of status, grpcCode, error, or both",
        ),
        (
            "    - chaos: { percent: 5, status: 503, error: reset, until: 2030-01-01T00:00:00Z }",
            "7:14 spec.pipeline[0].chaos: must have at most one of status, grpcCode, error, has 2",
        ),
        (
            "    - chaos: { percent: 5, grpcCode: BROKEN, until: 2030-01-01T00:00:00Z }",
            "7:38 spec.pipeline[0].chaos.grpcCode: \"BROKEN\" is not a gRPC code: write \"UNAVAILABLE\"",
        ),
    ];
    for (pipeline, expected) in table {
        assert_eq!(faults(pipeline), [expected], "{pipeline}");
    }
}

#[test]
fn a_hedge_with_a_negative_delay_is_refused() {
    let faults = faults("    - hedge: { delay: -1s }");
    assert_eq!(faults.len(), 1);
    assert!(faults[0].starts_with("7:23 spec.pipeline[0].hedge.delay: "), "{faults:?}");
    let delay = Some(v1::hedge::Delay::Fixed(prost_types::Duration { seconds: -1, nanos: 0 }));
    let invalid = fusebox_policy::hedge::HedgeSpec::try_from(v1::Hedge { delay, ..v1::Hedge::default() }).unwrap_err();
    assert_eq!(invalid.violations()[0].field, "delay");
}

#[test]
fn a_hedge_on_routes_that_may_not_be_sent_twice_is_refused() {
    let on = |routes: &str, strategy: &str| {
        let head = HEAD.replace("{ target: b }", &format!("{{ target: b, routes: [{routes}] }}"));
        manifest::parse("test.yaml", &format!("{head}    - {strategy}\n"))
    };
    let hedge = "hedge: { delay: 50ms }";
    for routes in ["'POST /pay'", "'POST /pay', 'PATCH /x'", "'LOCK /x'"] {
        let error = on(routes, hedge).unwrap_err();
        assert_eq!((error.faults.len(), error.faults[0].path.as_str()), (1, "spec.pipeline[0].hedge"), "{routes}");
        // A retry may still repeat what never left, and what carries an Idempotency-Key.
        assert!(on(routes, "retry: { maxAttempts: 3 }").is_ok());
    }
    for routes in ["", "'PUT /x'", "'POST /pay', 'GET /x'", "'* /pay'", "'pay.Pay/Charge'"] {
        assert!(on(routes, hedge).is_ok(), "{routes}");
    }
}
