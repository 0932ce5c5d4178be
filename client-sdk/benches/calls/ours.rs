//! Fusebox.

use std::{
    convert::Infallible,
    future::{Ready, ready},
    hint::black_box,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use criterion::Criterion;
use fusebox::{Client, Target};

use crate::{measure, measure_two, table::Table};

/// Polls a future that is ready at once, where it is made, as `.await` does: whether it gives a value.
macro_rules! now {
    ($future:expr) => {
        // The outcome is looked at where it is, as by a caller who matches on it.
        matches!(
            std::pin::pin!($future).poll(&mut std::task::Context::from_waker(std::task::Waker::noop())),
            std::task::Poll::Ready(Ok(_))
        )
    };
}
pub(crate) use now;

fn client(pipeline: &str) -> Client {
    start(pipeline, false)
}

/// Metrics are told to whatever recorder is installed while it starts.
fn start(pipeline: &str, metrics: bool) -> Client {
    Client::builder("bench")
        .builtin_manifest(&manifest(pipeline))
        .metrics(metrics)
        .start()
        .expect("the manifest is valid")
}

fn manifest(pipeline: &str) -> String {
    format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: b }}\nspec:\n  match: {{ target: b }}\n  pipeline:\n{pipeline}"
    )
}

fn operation() -> Ready<Result<u64, Infallible>> {
    ready(Ok(1))
}

fn call(target: &Target) {
    assert!(black_box(now!(target.call(operation))));
}

/// A time window and the timing of slow calls: both ends of a call are timed.
const BREAKER: &str = "    - circuitBreaker: { window: { time: 10s }, trip: { failureRate: { percent: 50 }, \
                       slowCallRate: { percent: 50 }, slowCallDuration: 1s } }\n";
const STACK: &str = "    - fallback: { error: nothing }\n    - retry: {}\n    - circuitBreaker: { window: { time: 10s }, trip: { failureRate: { percent: 50 }, \
                     slowCallRate: { percent: 50 }, slowCallDuration: 1s } }\n    - timeout: 1s\n";

pub(crate) fn bench(criterion: &mut Criterion, table: &mut Table) {
    let none = client("    - timeout: 1s\n").target("unknown");
    measure(criterion, table, "fusebox: no policy", || call(&none));
    let breaker = client(BREAKER).target("b");
    measure(criterion, table, "fusebox: breaker", || call(&breaker));
    measure_two(criterion, "fusebox: breaker, two threads", || call(&breaker));
    let count = client("    - circuitBreaker: { window: { count: 100 }, trip: { failureRate: { percent: 50 } } }\n")
        .target("b");
    measure(criterion, table, "fusebox: breaker, count window", || call(&count));
    let consecutive = client("    - circuitBreaker: { trip: { consecutiveFailures: 5 } }\n").target("b");
    measure(criterion, table, "fusebox: breaker, consecutive", || call(&consecutive));

    let stack = client(STACK).target("b");
    measure(criterion, table, "fusebox: stack", || call(&stack));
    measure_two(criterion, "fusebox: stack, two threads", || call(&stack));

    let open =
        client("    - circuitBreaker: { trip: { consecutiveFailures: 1 }, delay: 1h, delayMax: 1h }\n").target("b");
    let _ = now!(open.call(|| ready(Err::<u64, &str>("down"))));
    measure(criterion, table, "fusebox: open breaker", || {
        assert!(!black_box(now!(open.call(operation))));
    });

    let limiter = client("    - rateLimiter: { limit: 1000000000, burst: 1000000 }\n").target("b");
    measure(criterion, table, "fusebox: rate limiter", || call(&limiter));
    let bulkhead = client("    - bulkhead: { maxConcurrent: 10 }\n").target("b");
    measure(criterion, table, "fusebox: bulkhead", || call(&bulkhead));

    observed(criterion, table);
    swapping(criterion);
}

/// What it costs that somebody looks.
fn observed(criterion: &mut Criterion, table: &mut Table) {
    let unheard = start(STACK, true).target("b");
    measure(criterion, table, "fusebox: stack, metrics without a recorder", || call(&unheard));
    let recorder = metrics_exporter_prometheus::PrometheusBuilder::new()
        .set_buckets(&[0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0])
        .expect("there are buckets")
        .build_recorder();
    let metered = metrics::with_local_recorder(&recorder, || start(STACK, true)).target("b");
    measure(criterion, table, "fusebox: stack, metrics to prometheus", || call(&metered));
    // The exporter keeps every sample until it is asked.
    recorder.handle().run_upkeep();

    let spanned = client(STACK).target("b");
    let subscriber =
        tracing_subscriber::fmt().with_max_level(tracing::Level::DEBUG).with_writer(std::io::sink).finish();
    tracing::subscriber::with_default(subscriber, || {
        measure(criterion, table, "fusebox: stack, spans to a subscriber", || call(&spanned));
    });
}

/// The stack while its policy is replaced a thousand times in a second.
fn swapping(criterion: &mut Criterion) {
    let client = Client::builder("bench").metrics(false).for_test(&manifest(STACK)).expect("the manifest is valid");
    let stack = client.target("b");
    let stop = AtomicBool::new(false);
    let versions = [manifest(STACK), manifest(&STACK.replace("timeout: 1s", "timeout: 2s"))];
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for version in versions.iter().cycle() {
                if stop.load(Ordering::Relaxed) {
                    break;
                }
                client.apply(version).expect("the manifest is valid");
                std::thread::sleep(Duration::from_millis(1));
            }
        });
        criterion.bench_function("fusebox: stack, policy swapped at 1 kHz", |bencher| bencher.iter(|| call(&stack)));
        stop.store(true, Ordering::Relaxed);
    });
}
