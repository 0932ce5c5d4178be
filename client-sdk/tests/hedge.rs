//! Hedged calls, through `Target::call`, on paused time.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fusebox::{CallError, Client, Happened, TestClient, policy::pipeline::Event};
use tokio::time::{Instant, sleep};

fn client(pipeline: &str) -> TestClient {
    Client::for_test(&format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: b }}\nspec:\n  match: {{ target: b }}\n  pipeline:\n{pipeline}"
    ))
    .unwrap()
}

fn count(client: &TestClient, wanted: impl Fn(&Event) -> bool) -> usize {
    client.events().iter().filter(|event| matches!(&event.what, Happened::Call(event) if wanted(event))).count()
}

fn hedges(client: &TestClient) -> usize {
    count(client, |event| matches!(event, Event::HedgeStarted { .. }))
}

const fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// How many tries have begun, and how many have been dropped before their end.
#[derive(Clone, Default)]
struct Tries {
    begun: Arc<AtomicU32>,
    dropped: Arc<AtomicU32>,
}

struct Try {
    number: u32,
    ended: bool,
    dropped: Arc<AtomicU32>,
}

impl Tries {
    fn begin(&self) -> Try {
        let number = self.begun.fetch_add(1, Ordering::Relaxed) + 1;
        Try { number, ended: false, dropped: Arc::clone(&self.dropped) }
    }

    fn counts(&self) -> (u32, u32) {
        (self.begun.load(Ordering::Relaxed), self.dropped.load(Ordering::Relaxed))
    }
}

impl Try {
    fn end(mut self) -> u32 {
        self.ended = true;
        self.number
    }
}

impl Drop for Try {
    fn drop(&mut self) {
        if !self.ended {
            self.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn without_a_delay_all_tries_begin_at_once() {
    let client = client("    - hedge: { delay: 0s, maxHedges: 3, budget: none }\n");
    let tries = Tries::default();
    let begun = Instant::now();
    let target = client.target("b");
    let call = target.call(|| {
        let own = tries.begin();
        async move {
            assert_eq!(begun.elapsed(), Duration::ZERO);
            sleep(ms(50)).await;
            Ok::<_, &str>(own.end())
        }
    });
    call.await.unwrap();
    assert_eq!(tries.counts().0, 4);
}

#[tokio::test(start_paused = true)]
async fn the_first_good_try_is_the_answer_and_the_others_are_dropped() {
    let client = client("    - hedge: { delay: 10ms, maxHedges: 2 }\n");
    let tries = Tries::default();
    let begun = Instant::now();
    let target = client.target("b");
    let call = target.call(|| {
        let own = tries.begin();
        async move {
            sleep(if own.number < 3 { ms(60_000) } else { ms(5) }).await;
            Ok::<_, &str>(own.end())
        }
    });
    assert_eq!(call.await.unwrap(), 3);
    assert_eq!((tries.counts(), begun.elapsed()), ((3, 2), ms(25)));
    let won = |event: &Event| matches!(event, Event::HedgeEnded { winner: 2, hedges: 2, failed: false, .. });
    assert_eq!(count(&client, won), 1);
}

#[tokio::test(start_paused = true)]
async fn where_no_try_is_good_the_first_ones_error_is_the_callers() {
    let client = client("    - hedge: { delay: 10ms }\n");
    let tries = Tries::default();
    let target = client.target("b");
    let call = target.call(|| {
        let own = tries.begin();
        async move {
            sleep(ms(20)).await;
            Err::<(), _>(own.end())
        }
    });
    assert!(matches!(call.await, Err(CallError::Inner(1))));
    assert_eq!(tries.counts(), (2, 0));
}

#[tokio::test(start_paused = true)]
async fn a_quantile_hedges_nothing_before_it_has_seen_enough_and_then_only_what_is_slow() {
    let client = client("    - hedge: { quantile: { quantile: 0.95, warmUp: 20 } }\n");
    let target = client.target("b");
    let call = |takes: Duration| {
        target.call(move || async move {
            sleep(takes).await;
            Ok::<_, &str>(())
        })
    };
    // Slow ones among the first are left alone.
    for takes in [1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 200] {
        call(ms(takes)).await.unwrap();
    }
    for _ in 0..25 {
        call(ms(1)).await.unwrap();
    }
    assert_eq!(hedges(&client), 0);
    call(ms(200)).await.unwrap();
    assert_eq!(hedges(&client), 1);
}

#[tokio::test(start_paused = true)]
async fn a_used_up_budget_only_means_no_hedge() {
    let client = client("    - hedge: { delay: 10ms, budget: { ratio: 0, minPerSecond: 0 } }\n");
    let tries = Tries::default();
    let target = client.target("b");
    let call = target.call(|| {
        let own = tries.begin();
        async move {
            sleep(ms(50)).await;
            Ok::<_, &str>(own.end())
        }
    });
    assert_eq!(call.await.unwrap(), 1);
    assert_eq!((tries.counts(), hedges(&client)), ((1, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_may_not_be_made_twice_is_never_hedged() {
    let client = client("    - hedge: { delay: 10ms }\n");
    let tries = Tries::default();
    let target = client.target("b").idempotent(false);
    let call = target.call(|| {
        let own = tries.begin();
        async move {
            sleep(ms(50)).await;
            Ok::<_, &str>(own.end())
        }
    });
    call.await.unwrap();
    assert_eq!((tries.counts(), hedges(&client)), ((1, 0), 0));
}

#[tokio::test(start_paused = true)]
async fn each_attempt_of_a_retry_is_hedged_anew() {
    let client = client(
        "    - retry: { maxAttempts: 3, backoff: { fixed: { delay: 1ms } }, budget: none }\n    - hedge: { delay: 10ms, budget: none }\n",
    );
    let tries = Tries::default();
    let target = client.target("b");
    let call = target.call(|| {
        let own = tries.begin();
        async move {
            sleep(ms(20)).await;
            Err::<(), _>(own.end())
        }
    });
    call.await.unwrap_err();
    let retries = count(&client, |event| matches!(event, Event::RetryScheduled { .. }));
    assert_eq!((tries.counts(), retries, hedges(&client)), ((6, 0), 2, 3));
}
