//! Circuit breakers for calls that can't be wrapped: ask before, tell after.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::time::Duration;

use fusebox::{Client, LocalState, Outcome, RejectionReason, TestClient};

fn client(pipeline: &str) -> TestClient {
    Client::for_test(&format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
         pipeline:\n{pipeline}"
    ))
    .unwrap()
}

fn states(client: &TestClient) -> Vec<LocalState> {
    client.status().breakers.iter().map(|breaker| breaker.local).collect()
}

const THREE_IN_A_ROW: &str =
    "    - circuitBreaker: { trip: { consecutiveFailures: 3 }, delay: 1s, delayJitter: 0, halfOpen: { probes: 1 } }\n";

#[tokio::test(start_paused = true)]
async fn what_permits_tell_opens_and_closes_the_breaker() {
    let client = client(THREE_IN_A_ROW);
    let target = client.target("service-b");
    for _ in 0..3 {
        target.try_acquire().unwrap().failure();
    }
    let rejection = target.try_acquire().unwrap_err();
    assert_eq!(rejection.reason, RejectionReason::Open { retry_after: Duration::from_secs(1) });
    assert_eq!(rejection.retry_after(), Some(Duration::from_secs(1)));
    assert_eq!(rejection.strategy.as_str(), "circuit-breaker");

    client.advance(Duration::from_secs(1)).await;
    let probe = target.try_acquire().unwrap();
    assert_eq!(target.try_acquire().unwrap_err().reason, RejectionReason::HalfOpenLimit);
    probe.success();
    assert_eq!(states(&client), [LocalState::Closed]);
}

#[tokio::test(start_paused = true)]
async fn a_permit_that_is_dropped_or_ignored_counts_for_nothing_and_goes_back() {
    let client = client(THREE_IN_A_ROW);
    let target = client.target("service-b");
    for _ in 0..10 {
        drop(target.try_acquire().unwrap());
        target.try_acquire().unwrap().ignore();
    }
    assert_eq!(states(&client), [LocalState::Closed]);
    for _ in 0..3 {
        target.try_acquire().unwrap().failure();
    }
    client.advance(Duration::from_secs(1)).await;
    for _ in 0..10 {
        drop(target.try_acquire().unwrap());
    }
    assert_eq!(states(&client), [LocalState::HalfOpen]);
    target.try_acquire().unwrap().success();
    assert_eq!(states(&client), [LocalState::Closed]);
}

#[tokio::test(start_paused = true)]
async fn an_outcome_is_classified_by_the_breaker_itself() {
    let client = client(
        "    - circuitBreaker: { failureWhen: { statuses: [\"503\"] }, trip: { consecutiveFailures: 2 }, delay: 1s }\n",
    );
    let target = client.target("service-b");
    for _ in 0..5 {
        target.try_acquire().unwrap().record(Outcome::status(500));
    }
    assert_eq!(states(&client), [LocalState::Closed]);
    for _ in 0..2 {
        target.try_acquire().unwrap().record(Outcome::status(503));
    }
    assert_eq!(states(&client), [LocalState::Open]);
}

#[tokio::test(start_paused = true)]
async fn the_time_until_the_end_is_told_decides_what_is_slow() {
    let client = client(
        "    - circuitBreaker: { trip: { slowCallRate: { percent: 100, minCalls: 2 }, slowCallDuration: 100ms } }\n",
    );
    let target = client.target("service-b");
    for _ in 0..2 {
        let permit = target.try_acquire().unwrap();
        client.advance(Duration::from_millis(101)).await;
        assert_eq!(permit.elapsed(), Duration::from_millis(101));
        permit.success();
    }
    assert_eq!(states(&client), [LocalState::Open]);
}

#[tokio::test(start_paused = true)]
async fn a_permit_of_an_older_state_changes_nothing() {
    let client = client(THREE_IN_A_ROW);
    let target = client.target("service-b");
    let late = target.try_acquire().unwrap();
    for _ in 0..3 {
        target.try_acquire().unwrap().failure();
    }
    client.advance(Duration::from_secs(1)).await;
    late.success();
    assert_eq!(states(&client), [LocalState::HalfOpen]);
}

#[tokio::test(start_paused = true)]
async fn the_leave_of_an_outer_breaker_goes_back_when_an_inner_one_refuses() {
    let outer = THREE_IN_A_ROW.replace("- circuitBreaker", "- name: outer\n      circuitBreaker");
    let inner = THREE_IN_A_ROW
        .replace("- circuitBreaker", "- name: inner\n      circuitBreaker")
        .replace("delay: 1s", "delay: 10s");
    let client = client(&format!("{outer}{inner}"));
    let target = client.target("service-b");
    for _ in 0..3 {
        target.try_acquire().unwrap().failure();
    }
    client.advance(Duration::from_secs(1)).await;
    assert_eq!(states(&client), [LocalState::HalfOpen, LocalState::Open]);
    // The outer one has a single probe: it would refuse the second call if the first had kept it.
    for _ in 0..3 {
        assert_eq!(target.try_acquire().unwrap_err().strategy.as_str(), "inner");
    }
    client.advance(Duration::from_secs(9)).await;
    target.try_acquire().unwrap().success();
    assert_eq!(states(&client), [LocalState::Closed, LocalState::Closed]);
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_the_answer_is_yes() {
    let client = client(THREE_IN_A_ROW);
    for _ in 0..10 {
        client.target("unknown").try_acquire().unwrap().failure();
    }
    assert!(client.target("unknown").try_acquire().is_ok());
}
