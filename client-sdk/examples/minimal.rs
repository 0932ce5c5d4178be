//! Any operation under a policy that is given in code. Needs no control plane; give an address to follow one:
//!
//! ```sh
//! cargo run -p fusebox --example minimal -- http://127.0.0.1:7443
//! ```

use std::{
    io::{self, Write as _},
    time::Duration,
};

const POLICY: &str = "
apiVersion: fusebox/v1
kind: Policy
metadata: { name: service-b }
spec:
  match: { target: service-b }
  pipeline:
    - fallback: { response: { body: from the fallback } }
    - retry: { maxAttempts: 3, backoff: { fixed: { delay: 100ms } } }
    - circuitBreaker: { trip: { consecutiveFailures: 4 }, delay: 1s }
    - timeout: { duration: 1s }
";

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    tracing_subscriber::fmt().init();
    let mut builder = fusebox::Client::builder("service-a").builtin_manifest(POLICY);
    if let Some(address) = std::env::args().nth(1) {
        builder = builder.control_plane(address);
    }
    let client = builder.start()?;
    let target = client.target("service-b").or_value("from the fallback");
    for call in 1..=6 {
        // Down for the first three calls.
        let operation = || async move { if call <= 3 { Err(io::Error::other("down")) } else { Ok("from service B") } };
        writeln!(io::stdout(), "call {call}: {}", target.call(operation).await?)?;
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
    for breaker in client.status().breakers {
        writeln!(io::stdout(), "{}/{}: {}, fleet {}", breaker.policy, breaker.strategy, breaker.local, breaker.fleet)?;
    }
    Ok(())
}
