//! Policies in a service's own tests: no server, time in the test's hands, everything that happens on record. Needs no control plane:
//!
//! ```sh
//! cargo run -p fusebox --example testing      # prints what is on record
//! cargo test -p fusebox --example testing     # the same as tests, as a service would write them
//! ```
//!
//! Seconds of waiting pass at once. In a service the feature belongs to the tests alone: `[dev-dependencies] fusebox = { version = "0.1",
//! features = ["test"] }`.
#![expect(clippy::print_stdout, reason = "an example tells its reader what happens")]

use std::{future::pending, io, time::Duration};

use fusebox::{Client, Happened, Target};
use tokio::time::Instant;

/// The manifest under test is the one that operators apply.
const POLICIES: &str = include_str!("policies/closure.yaml");

/// What is tested: how our service asks for a price, and what it says when there is none.
async fn price(prices: &Target, ask: impl AsyncFn() -> io::Result<u32>) -> Result<u32, String> {
    prices.call(async || ask().await).await.map_err(|error| match error.retry_after() {
        Some(wait) => format!("no prices for {wait:?}"),
        None => format!("no price: {error}"),
    })
}

async fn down() -> io::Result<u32> {
    Err(io::Error::other("down"))
}

#[tokio::main(flavor = "current_thread", start_paused = true)]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::for_test(POLICIES)?;
    let prices = client.target("prices");
    let begun = Instant::now();
    println!("{:?} after {:?}", price(&prices, pending).await, begun.elapsed());
    println!("{:?}", price(&prices, down).await);
    println!("{:?}", price(&prices, down).await);
    client.advance(Duration::from_millis(1100)).await;
    println!("{:?}", price(&prices, async || Ok(42)).await);
    for event in client.events() {
        match event.what {
            Happened::Call(what) => println!("{:?}: {}/{}: {what:?}", event.at, event.policy, event.strategy),
            Happened::Transition(change) => {
                println!("{:?}: {}/{}: {} to {}", event.at, event.policy, event.strategy, change.from, change.to);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use fusebox::{LocalState, policy::pipeline::Event};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_price_that_does_not_come_is_given_up_after_three_attempts_of_200_ms() {
        let client = Client::for_test(POLICIES).unwrap();
        let begun = Instant::now();
        let answer = price(&client.target("prices"), pending).await;
        assert_eq!(answer.unwrap_err(), "no price: timed out after 200 ms (prices/timeout)");
        assert_eq!(begun.elapsed(), Duration::from_millis(200 + 50 + 200 + 50 + 200));
        let is_retry = |what| matches!(what, Happened::Call(Event::RetryScheduled { .. }));
        assert_eq!(client.events().iter().filter(|event| is_retry(event.what)).count(), 2);
    }

    #[tokio::test(start_paused = true)]
    async fn a_dead_price_service_is_left_alone_for_a_second_and_then_asked_again() {
        let client = Client::for_test(POLICIES).unwrap();
        let prices = client.target("prices");
        for _ in 0..2 {
            assert_eq!(price(&prices, down).await.unwrap_err(), "no price: down");
        }
        let refused = price(&prices, async || panic!("it must not be asked")).await.unwrap_err();
        assert!(refused.starts_with("no prices for 1"), "{refused}");
        client.advance(Duration::from_millis(1100)).await;
        assert_eq!(price(&prices, async || Ok(42)).await, Ok(42));
        let states: Vec<_> = client
            .events()
            .into_iter()
            .filter_map(|event| match event.what {
                Happened::Transition(transition) => Some(transition.to),
                Happened::Call(_) => None,
            })
            .collect();
        assert_eq!(states, [LocalState::Open, LocalState::HalfOpen, LocalState::Closed]);
    }
}
