//! Any operation under a policy, given as a closure: the caller's own error type, timeout, retry, circuit breaker, fallbacks in code,
//! answers from memory. In one terminal, then in another:
//!
//! ```sh
//! cargo run --bin fusebox -- serve --dev
//! cargo run --bin fusebox -- apply -f client-sdk/examples/policies/closure.yaml
//! cargo run -p fusebox --example closure
//! ```
//!
//! It prints, each with its proof: which policies run and from where (`stream` is the control plane), a call that was tried twice, one
//! that was cut, one that failed with our own error, one that the open breaker refused, one after it closed, two fallbacks, and two
//! calls that share one answer. Without a control plane it says `builtin` and does the same.
//!
//! If your control plane is elsewhere than at `http://127.0.0.1:7443`, say so to `apply` by `FUSEBOX_ADDRESS` and to the example by
//! `FUSEBOX_CONTROL_PLANE`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{
    env,
    sync::atomic::{AtomicU32, Ordering},
    time::Duration,
};

use fusebox::{CallError, Client, Failure};

/// What runs until the control plane says something else: the manifest that operators apply, built in.
const POLICIES: &str = include_str!("policies/closure.yaml");

/// Only what is the target's fault is an error. An article that does not exist is a good answer, and so a value: `Ok(None)`.
#[derive(Debug, thiserror::Error)]
enum PriceError {
    #[error("the price service is down")]
    Down,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    // To see the same in the words of the SDK: RUST_LOG=fusebox=debug.
    let filter = tracing_subscriber::EnvFilter::from_default_env();
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    let address = env::var("FUSEBOX_CONTROL_PLANE").unwrap_or_else(|_| "http://127.0.0.1:7443".to_owned());
    let client = Client::builder("service-a").builtin_manifest(POLICIES).control_plane(address).start()?;
    // A service need not wait: until the stream is there its calls run under the built-in policies.
    client.wait_ready(Duration::from_secs(5)).await;
    for policy in client.status().policies {
        println!("policy {}: {}, revision {}", policy.name, policy.source, policy.revision);
    }

    let prices = client.target("prices");
    let attempts = AtomicU32::new(0);
    let answer = prices
        .call(async || match attempts.fetch_add(1, Ordering::Relaxed) {
            0 => Err(PriceError::Down),
            _ => Ok(Some(42)),
        })
        .await?;
    println!("retry: {answer:?} after {} attempts", attempts.into_inner());

    let hanging = prices.call(std::future::pending::<Result<u32, PriceError>>).await;
    if let Err(error) = hanging {
        println!("timeout: {error}, so is_timeout() is {}", error.is_timeout());
    }

    let down = async || Err::<u32, _>(PriceError::Down);
    match prices.call(down).await {
        Err(CallError::Inner(own @ PriceError::Down)) => println!("our own error: {own}"),
        other => println!("not expected: {other:?}"),
    }

    // Three attempts were cut and three failed: the sixth failure in a row has opened the breaker, and nothing is sent now.
    if let Err(error) = prices.call(down).await {
        println!("breaker: {error}");
        tokio::time::sleep(error.retry_after().unwrap_or_default()).await;
    }
    let answer = prices.call(async || Ok::<_, PriceError>(43)).await?;
    for breaker in client.status().breakers {
        println!("breaker: {answer} again, {}/{} is {}", breaker.policy, breaker.strategy, breaker.local);
    }

    // The policy says that there is a fallback; only code can give a value of its type.
    let stock = client.target("stock");
    println!("or_value: {}", stock.or_value(0).call(down).await?);
    let guessing = stock.fallback_with(async |failure: Failure| {
        println!("fallback_with: {} is asked, after {}", failure.function.unwrap_or_default(), failure.outcome);
        Ok(7)
    });
    println!("fallback_with: {}", guessing.call(down).await?);

    let runs = AtomicU32::new(0);
    for _ in 0..2 {
        let count = async || Ok::<_, PriceError>(runs.fetch_add(1, Ordering::Relaxed) + 100);
        println!("call_cached: {} pieces", stock.or_value(0).call_cached("article 1", count).await?);
    }
    println!("call_cached: asked {} time", runs.into_inner());
    Ok(())
}
