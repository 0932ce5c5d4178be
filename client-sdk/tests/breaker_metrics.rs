//! What breakers tell about the outcomes that they do not count.

use std::time::Duration;

use fusebox::Client;
use futures_util::FutureExt as _;
use metrics_exporter_prometheus::PrometheusBuilder;

const POLICY: &str = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: b }\nspec:\n  match: { target: b }\n  pipeline:\n    \
                      - circuitBreaker: { trip: { consecutiveFailures: 1 }, delay: 1h, delayMax: 1h, ignoreWhen: { slowerThan: 5s } }\n";

#[tokio::test(start_paused = true)]
async fn ignored_and_late_outcomes_are_exported() {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle = recorder.handle();
    let _guard = metrics::set_default_local_recorder(&recorder);
    let client = Client::for_test(POLICY).unwrap();
    let target = client.target("b");
    let slow = || async {
        tokio::time::sleep(Duration::from_secs(6)).await;
        Ok::<_, &str>(())
    };
    target.call(slow).await.unwrap();
    let mut late = Box::pin(target.call(|| async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Ok::<_, &str>(())
    }));
    assert!((&mut late).now_or_never().is_none(), "it is under way");
    target.call(|| async { Err::<(), _>("down") }).await.unwrap_err();
    late.await.unwrap();
    let labels = r#"{service="test",policy="b",target="b",strategy="circuit-breaker"}"#;
    let lines = ["fusebox_breaker_ignored_total", "fusebox_breaker_late_total"].map(|name| format!("{name}{labels} 1"));
    for _ in 0..60 {
        if lines.iter().all(|line| handle.render().lines().any(|own| own == line)) {
            return;
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    panic!("{}", handle.render());
}
