//! The metrics of the SDK in Prometheus' form. In one terminal, then in another:
//!
//! ```sh
//! cargo run --bin fusebox -- serve --dev
//! cargo run --bin fusebox -- apply -f client-sdk/examples/policies/metrics.yaml
//! cargo run -p fusebox --example metrics
//! ```
//!
//! It prints which policies run and from where (`stream` is the control plane; without one it says `builtin`), makes some good and some
//! bad calls, then prints what `GET /metrics` of a service would answer: counters of calls, attempts and transitions, the state of
//! the breaker, how long calls took.
//!
//! If your control plane is elsewhere than at `http://127.0.0.1:7443`, say so to `apply` by `FUSEBOX_ADDRESS` and to the example by
//! `FUSEBOX_CONTROL_PLANE`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{env, io, time::Duration};

use fusebox::Client;
use metrics_exporter_prometheus::PrometheusBuilder;

/// What runs until the control plane says something else: the manifest that operators apply, built in.
const POLICIES: &str = include_str!("policies/metrics.yaml");

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // Before the client: it registers its metrics when it starts. With these buckets, durations become histograms.
    let prometheus = PrometheusBuilder::new().set_buckets(&[0.001, 0.01, 0.1, 1.0, 10.0])?.install_recorder()?;

    let address = env::var("FUSEBOX_CONTROL_PLANE").unwrap_or_else(|_| "http://127.0.0.1:7443".to_owned());
    let client = Client::builder("service-a").builtin_manifest(POLICIES).control_plane(address).start()?;
    // A service need not wait: until the stream is there its calls run under the built-in policies.
    client.wait_ready(Duration::from_secs(5)).await;
    for policy in client.status().policies {
        println!("policy {}: {}, revision {}", policy.name, policy.source, policy.revision);
    }

    let warehouse = client.target("warehouse");
    for pieces in 0..3 {
        warehouse.call(async || Ok::<_, io::Error>(pieces)).await?;
    }
    for _ in 0..3 {
        if let Err(error) = warehouse.call(async || Err::<u32, _>(io::Error::other("no connection"))).await {
            println!("{error}");
        }
    }

    // Counters are true at once. Gauges, as the state of a breaker, are told once a second.
    let open = r#"scope="local",state="open"} 1"#;
    let mut text = prometheus.render();
    for _ in 0..50 {
        if text.contains(open) {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        text = prometheus.render();
    }
    // What is zero, and the buckets of histograms, would fill a page.
    let shown =
        |line: &&str| !(line.is_empty() || line.starts_with('#') || line.ends_with(" 0") || line.contains("_bucket"));
    for line in text.lines().filter(shown) {
        println!("{line}");
    }
    Ok(())
}
