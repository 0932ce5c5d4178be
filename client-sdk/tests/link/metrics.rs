//! What a client tells the `metrics` facade, read as a Prometheus server reads it.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use fusebox::{CallError, Client, LocalState};
use fusebox_proto::v1;
use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};

use super::{
    fake::{Fake, policy, shown},
    fleet::verdict,
    policies::{BREAKER, fail},
};

/// Type and labels of each metric, by name.
type Shape = BTreeMap<String, (String, BTreeSet<String>)>;

/// What the tables of the page say.
fn written() -> Shape {
    let page = include_str!("../../docs/metrics.md");
    let words = |cell: &str| cell.split(',').map(|word| word.trim().trim_matches('`').to_owned()).collect();
    let mut shape = Shape::new();
    for line in page.lines().filter(|line| line.starts_with("| `fusebox_")) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let named = shape.insert(cells[1].trim_matches('`').to_owned(), (cells[2].to_owned(), words(cells[4])));
        assert!(named.is_none(), "{line} stands there twice");
    }
    shape
}

/// What was told.
fn told(text: &str) -> Shape {
    let mut shape = Shape::new();
    for line in text.lines() {
        if let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) {
            shape.insert(name.to_owned(), (kind.to_owned(), BTreeSet::new()));
        }
    }
    for (name, labels) in text.lines().filter_map(|line| line.split_once('}')?.0.split_once('{')) {
        let of_a_histogram = ["_bucket", "_sum", "_count"].into_iter().find_map(|part| name.strip_suffix(part));
        let name = of_a_histogram.filter(|name| shape.contains_key(*name)).unwrap_or(name);
        let labels = labels.split(',').map(|label| label.split('=').next().unwrap_or_default());
        shape.get_mut(name).unwrap().1.extend(labels.filter(|label| *label != "le").map(str::to_owned));
    }
    shape
}

/// Records what is told on this thread, where the whole test runs.
fn recorder() -> (metrics_exporter_prometheus::PrometheusRecorder, PrometheusHandle) {
    let recorder = PrometheusBuilder::new().set_buckets(&[1.0]).unwrap().build_recorder();
    let handle = recorder.handle();
    (recorder, handle)
}

fn policy_for(target: &str, pipeline: &str) -> v1::Policy {
    let mut policy = policy(1, pipeline);
    policy.name = format!("namespaces/default/policies/{target}");
    let spec = policy.spec.as_mut().unwrap();
    spec.r#match.as_mut().unwrap().target = target.to_owned();
    policy
}

async fn slowly() -> Result<(), &'static str> {
    tokio::time::sleep(Duration::from_millis(50)).await;
    Ok(())
}

#[tokio::test(start_paused = true)]
async fn the_page_names_every_metric_that_is_told_and_no_other() {
    let (recorder, handle) = recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    let mut fake = Fake::start();
    let client = fake.client().allow_chaos(true).start().unwrap();
    let mut session = fake.welcomed(1).await;
    let ack = session
        .snapshot(
            1,
            vec![
                policy_for(
                    "service-b",
                    "    - retry: { maxAttempts: 2, backoff: { fixed: { delay: 1ms } } }\n    - circuitBreaker: { mode: shadow, trip: { \
                     consecutiveFailures: 2 } }\n",
                ),
                policy_for("narrow", "    - bulkhead: { maxConcurrent: 1, maxWaiting: 1 }\n"),
                policy_for("slow", "    - rateLimiter: { limit: 1, maxWait: 5s }\n"),
                policy_for("shy", "    - concurrencyLimit: {}\n"),
                policy_for("raced", "    - hedge: { delay: 10ms }\n"),
                policy_for("known", "    - cache: { ttl: 10s }\n"),
                policy_for("troubled", "    - chaos: { percent: 100, latency: 1ms, until: 2100-01-01T00:00:00Z }\n"),
            ],
        )
        .await;
    assert!(ack.rejected.is_empty(), "{:?}", ack.rejected);

    fail(&client, 2).await;
    session.heartbeat().await;
    session.say(verdict(1, 1, v1::FleetState::Open, 1)).await;
    session.acknowledged().await;
    let (narrow, slow) = (client.target("narrow"), client.target("slow"));
    let (first, second) = tokio::join!(narrow.call(slowly), narrow.call(slowly));
    let (third, fourth) = tokio::join!(slow.call(slowly), slow.call(slowly));
    for result in [first, second, third, fourth, client.target("raced").call(slowly).await] {
        result.unwrap();
    }
    client.target("known").call_cached("key", slowly).await.unwrap();
    client.target("troubled").call(slowly).await.unwrap();
    // Two rounds of the task that tells what is so.
    tokio::time::sleep(Duration::from_secs(2)).await;

    assert_eq!(told(&handle.render()), written());
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_comes_late_is_counted_apart() {
    let (recorder, handle) = recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;

    let target = client.target("service-b");
    let mut late = Box::pin(target.call(slowly));
    assert!(futures_util::poll!(&mut late).is_pending());
    fail(&client, 2).await;
    shown(&client, "the trip", |status| status.breakers[0].local == LocalState::Open).await;
    let answer: Result<(), CallError<&str>> = late.await;
    answer.unwrap();
    assert_eq!(client.status().breakers[0].local, LocalState::Open);
    told_of_late(&client, &handle, 1).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    told_of_late(&client, &handle, 1).await;
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_goes_on_counting() {
    let (recorder, handle) = recorder();
    let _here = metrics::set_default_local_recorder(&recorder);
    let mut fake = Fake::start();
    let client = fake.client().start().unwrap();
    let mut session = fake.welcomed(1).await;
    session.snapshot(1, vec![policy(1, BREAKER)]).await;
    fail(&client, 1).await;
    session.snapshot(2, vec![policy(2, "    - timeout: { duration: 1s }\n")]).await;
    fail(&client, 1).await;

    let text = handle.render();
    let failed = |line: &&str| line.starts_with("fusebox_calls_total{") && line.contains("outcome=\"failure\"");
    let failed: Vec<&str> = text.lines().filter(failed).collect();
    assert!(matches!(failed[..], [line] if line.ends_with("} 2")), "{failed:?}");
}

/// Waits until so many late outcomes are told.
async fn told_of_late(client: &Client, handle: &PrometheusHandle, count: u32) {
    let end = format!("}} {count}");
    let mut text = String::new();
    for _ in 0..10 {
        text = handle.render();
        if text.lines().any(|line| line.starts_with("fusebox_breaker_late_total{") && line.ends_with(&end)) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{count} late outcomes: {text} {:?}", client.status());
}
