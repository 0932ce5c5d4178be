//! Any operation under a policy, through `Target::call`, on paused time.
#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::{
    convert::Infallible,
    io,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use fusebox::{
    CallError, Client, ErrorKind, FallbackFault, Happened, LocalState, Outcome, PolicySource, RejectionReason,
};
use futures_util::FutureExt as _;
use tokio::time::Instant;

fn manifest(pipeline: &str) -> String {
    format!(
        "apiVersion: fusebox/v1\nkind: Policy\nmetadata: {{ name: service-b }}\nspec:\n  match: {{ target: service-b }}\n  \
         pipeline:\n{pipeline}"
    )
}

fn client(pipeline: &str) -> Client {
    Client::builder("service-a").instance("a-1").builtin_manifest(&manifest(pipeline)).start().unwrap()
}

/// An operation that fails so many times, then succeeds; and how often it ran.
fn failing(times: u32) -> (Arc<AtomicU32>, impl FnMut() -> std::future::Ready<Result<u32, io::Error>>) {
    let runs = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&runs);
    let operation = move || {
        let run = counted.fetch_add(1, Ordering::Relaxed) + 1;
        std::future::ready(if run <= times { Err(io::Error::other("down")) } else { Ok(run) })
    };
    (runs, operation)
}

async fn never() -> Result<(), Infallible> {
    std::future::pending().await
}

#[tokio::test(start_paused = true)]
async fn a_timeout_cuts_an_operation_at_its_limit() {
    let target = client("    - timeout: { duration: 10s }\n").target("service-b");
    let begun = Instant::now();
    let error = target.call(never).await.unwrap_err();
    assert_eq!(begun.elapsed(), Duration::from_secs(10));
    assert!(matches!(&error, CallError::Timeout { limit, .. } if *limit == Duration::from_secs(10)), "{error:?}");
    assert_eq!(error.to_string(), "timed out after 10000 ms (service-b/timeout)");
}

#[tokio::test(start_paused = true)]
async fn a_retry_waits_longer_each_time_and_gives_the_first_success() {
    let backoff = "backoff: { exponential: { initial: 1s, max: 10s }, jitter: none }";
    let target = client(&format!("    - retry: {{ maxAttempts: 4, {backoff} }}\n")).target("service-b");
    let (runs, operation) = failing(3);
    let begun = Instant::now();
    assert_eq!(target.call(operation).await.unwrap(), 4);
    assert_eq!(begun.elapsed(), Duration::from_secs(1 + 2 + 4));
    assert_eq!(runs.load(Ordering::Relaxed), 4);
}

#[tokio::test(start_paused = true)]
async fn after_the_last_attempt_the_caller_gets_the_last_error_itself() {
    let retry = "    - retry: { maxAttempts: 2, backoff: { fixed: { delay: 1s } }, failureWhen: { errors: [any] } }\n";
    let error = client(retry).target("service-b").call(failing(9).1).await.unwrap_err();
    assert!(matches!(&error, CallError::Inner(inner) if inner.to_string() == "down"), "{error:?}");
}

#[tokio::test(start_paused = true)]
async fn a_policy_can_ask_for_an_error_that_counts_the_attempts() {
    let retry = "    - retry: { maxAttempts: 2, backoff: { fixed: { delay: 1s } }, failureWhen: { errors: [any] }, \
                 onExhausted: error }\n";
    let error = client(retry).target("service-b").call(failing(9).1).await.unwrap_err();
    let CallError::RetriesExhausted { attempts: 2, last: Some(last), .. } = error else { panic!("{error:?}") };
    assert!(matches!(*last, CallError::Inner(_)));
}

#[tokio::test(start_paused = true)]
async fn an_operation_that_is_not_idempotent_is_tried_once() {
    let retry = "    - retry: { maxAttempts: 3, failureWhen: { errors: [any] } }\n";
    let (runs, operation) = failing(9);
    client(retry).target("service-b").idempotent(false).call(operation).await.unwrap_err();
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

const BREAKER: &str = "    - circuitBreaker: { trip: { consecutiveFailures: 2 }, delay: 5s, delayJitter: 0, \
                       halfOpen: { probes: 1 } }\n";

#[tokio::test(start_paused = true)]
async fn an_open_breaker_refuses_says_for_how_long_and_closes_after_a_good_probe() {
    let client = client(BREAKER);
    let target = client.target("service-b");
    let (runs, mut operation) = failing(2);
    for _ in 0..2 {
        target.call(&mut operation).await.unwrap_err();
    }
    tokio::time::advance(Duration::from_secs(2)).await;
    let error = target.call(&mut operation).await.unwrap_err();
    assert!(error.is_rejection());
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    let CallError::Rejected(rejection) = error else { panic!("{error:?}") };
    assert!(matches!(rejection.reason, RejectionReason::Open { .. }));
    assert!(rejection.after.is_some(), "the rejection names the failure that it follows");
    assert_eq!(runs.load(Ordering::Relaxed), 2, "a refused call does not run");

    tokio::time::advance(Duration::from_secs(3)).await;
    assert_eq!(client.status().breakers[0].local, LocalState::HalfOpen, "shown without waiting for traffic");
    target.call(&mut operation).await.unwrap();
    assert_eq!(client.status().breakers[0].local, LocalState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_dropped_probe_gives_its_permit_to_the_next_call() {
    let client = client(BREAKER);
    let target = client.target("service-b");
    let (_, mut operation) = failing(2);
    for _ in 0..2 {
        target.call(&mut operation).await.unwrap_err();
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    {
        let mut probe = Box::pin(target.call(never));
        assert!((&mut probe).now_or_never().is_none(), "the probe is under way");
        let refused = target.call(&mut operation).await.unwrap_err();
        assert!(matches!(refused, CallError::Rejected(_)), "{refused:?}");
    }
    target.call(&mut operation).await.unwrap();
    assert_eq!(client.status().breakers[0].local, LocalState::Closed);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_operation_gives_its_permit_back() {
    let client = client(BREAKER);
    let target = client.target("service-b");
    let (_, mut operation) = failing(2);
    for _ in 0..2 {
        target.call(&mut operation).await.unwrap_err();
    }
    tokio::time::advance(Duration::from_secs(5)).await;
    let probing = target.clone();
    let panicked =
        tokio::spawn(async move { probing.call(|| async { if probe() { Err("unreachable") } else { Ok(()) } }).await });
    assert!(panicked.await.unwrap_err().is_panic());
    target.call(&mut operation).await.unwrap();
}

fn probe() -> bool {
    panic!("the operation's own fault")
}

#[tokio::test(start_paused = true)]
async fn a_fallback_strategy_uses_the_typed_value_of_the_call() {
    let client = client("    - fallback: { response: { body: sorry } }\n");
    let target = client.target("service-b");
    assert_eq!(target.or_value(7).call(failing(1).1).await.unwrap(), 7);
    let asked = target.fallback_with(|failure| async move {
        assert_eq!(failure.strategy.as_str(), "fallback");
        Ok(8)
    });
    assert_eq!(asked.call(failing(1).1).await.unwrap(), 8);
}

#[tokio::test(start_paused = true)]
async fn a_call_without_a_typed_value_keeps_its_own_error_where_the_policy_has_a_fallback() {
    let client = client("    - fallback: { response: { body: sorry } }\n    - timeout: 1s\n");
    let target = client.target("service-b");
    let error = target.call(failing(1).1).await.unwrap_err();
    assert_eq!(error.into_inner().unwrap().to_string(), "down");
    let error = target.call(never).await.unwrap_err();
    assert!(error.is_timeout(), "{error:?}");
}

#[derive(Debug, PartialEq)]
enum Lookup {
    NoSuchUser,
    Unreachable,
}

fn judge(result: Result<&u32, &Lookup>) -> Outcome {
    match result {
        Ok(_) | Err(Lookup::NoSuchUser) => Outcome::OK,
        Err(Lookup::Unreachable) => Outcome::Error(ErrorKind::Connect),
    }
}

#[tokio::test(start_paused = true)]
async fn what_the_caller_calls_a_success_is_neither_retried_nor_counted() {
    let client = client("    - retry: { backoff: 1ms }\n    - circuitBreaker: { trip: { consecutiveFailures: 3 } }\n");
    let users = client.target("service-b").judged_by(judge);
    let runs = AtomicU32::new(0);
    for _ in 0..10 {
        let result = users
            .call(|| {
                runs.fetch_add(1, Ordering::Relaxed);
                std::future::ready(Err(Lookup::NoSuchUser))
            })
            .await;
        assert_eq!(result.unwrap_err().into_inner(), Some(Lookup::NoSuchUser));
    }
    assert_eq!(runs.load(Ordering::Relaxed), 10);
    assert_eq!(client.status().breakers[0].local, LocalState::Closed);

    let result = users
        .call(|| {
            runs.fetch_add(1, Ordering::Relaxed);
            std::future::ready(Err(Lookup::Unreachable))
        })
        .await;
    assert_eq!(result.unwrap_err().into_inner(), Some(Lookup::Unreachable));
    assert_eq!(runs.load(Ordering::Relaxed), 13);
    assert_eq!(client.status().breakers[0].local, LocalState::Open);
}

#[tokio::test(start_paused = true)]
async fn a_value_can_be_a_failure_too() {
    let client = client("    - fallback: { response: { body: sorry } }\n    - retry: { backoff: 1ms }\n");
    let jobs = client.target("service-b").judged_by(|result: Result<&&str, &io::Error>| match result {
        Ok(&"done") => Outcome::OK,
        Ok(_) | Err(_) => Outcome::status(503),
    });
    let mut answers = ["pending", "pending", "done"].into_iter();
    let done = jobs.call(|| std::future::ready(Ok(answers.next().unwrap()))).await;
    assert_eq!(done.unwrap(), "done");
    let given = jobs.or_value("gave up").call(|| std::future::ready(Ok("pending"))).await;
    assert_eq!(given.unwrap(), "gave up");
}

#[tokio::test(start_paused = true)]
async fn a_fallback_that_asks_for_an_error_gives_it_even_where_a_value_is_registered() {
    let client = client("    - fallback: { error: come back later }\n");
    let error = client.target("service-b").or_value(7).call(failing(1).1).await.unwrap_err();
    let CallError::Fallback(fault) = error else { panic!("{error:?}") };
    assert!(matches!(fault.reason, FallbackFault::Asked(text) if text == "come back later"));
}

#[tokio::test(start_paused = true)]
async fn all_four_together_answer_with_the_fallback_and_open_the_breaker() {
    let client = client(&format!(
        "    - fallback: {{ response: {{ body: sorry }} }}\n    - retry: {{ maxAttempts: 3, backoff: {{ exponential: {{ initial: \
         1s, max: 10s }}, jitter: none }} }}\n{BREAKER}    - timeout: {{ duration: 10s }}\n"
    ));
    let target = client.target("service-b").or_value("fallback");
    let begun = Instant::now();
    let hang = || async { std::future::pending::<Result<&str, io::Error>>().await };
    // Two timeouts of ten seconds and the wait between them; then the breaker is open, which is not retried.
    assert_eq!(target.call(hang).await.unwrap(), "fallback");
    assert_eq!(begun.elapsed(), Duration::from_secs(10 + 1 + 10 + 2));
    assert_eq!(client.status().breakers[0].local, LocalState::Open);
    let begun = Instant::now();
    assert_eq!(target.call(hang).await.unwrap(), "fallback");
    assert_eq!(begun.elapsed(), Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn without_a_policy_a_call_runs_once_and_untouched() {
    let client = Client::builder("service-a").start().unwrap();
    assert_eq!(client.status().source, PolicySource::None);
    let (runs, operation) = failing(1);
    assert!(matches!(client.target("elsewhere").call(operation).await, Err(CallError::Inner(_))));
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn the_policy_of_a_route_is_for_calls_that_name_it() {
    let text = "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: quick }\nspec:\n  match: { target: service-b, routes: \
                ['pay.Pay/Charge'] }\n  pipeline:\n    - timeout: { duration: 1s }\n";
    let client = Client::builder("service-a").builtin_manifest(text).start().unwrap();
    let target = client.target("service-b").route("pay.Pay/Charge");
    assert!(target.call(never).await.unwrap_err().is_timeout());
    client.target("service-b").route("pay.Pay/Refund").call(failing(0).1).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_attempt_that_a_timeout_cuts_is_gone_before_the_next_one_begins() {
    struct Running(Arc<AtomicU32>);
    impl Drop for Running {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::Relaxed);
        }
    }
    let retry =
        "    - retry: { maxAttempts: 3, backoff: { fixed: { delay: 0s } } }\n    - timeout: { duration: 50ms }\n";
    let target = client(retry).target("service-b");
    let (running, runs) = (Arc::new(AtomicU32::new(0)), AtomicU32::new(0));
    let begun = Instant::now();
    let call = target.call(|| {
        let others = running.fetch_add(1, Ordering::Relaxed);
        let own = Running(Arc::clone(&running));
        let run = runs.fetch_add(1, Ordering::Relaxed) + 1;
        async move {
            let _own = own;
            assert_eq!(others, 0, "two attempts at the same time");
            if run < 3 {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
            Ok::<_, Infallible>(run)
        }
    });
    assert_eq!(call.await.unwrap(), 3);
    assert_eq!((begun.elapsed(), running.load(Ordering::Relaxed)), (Duration::from_millis(100), 0));
}

#[tokio::test(start_paused = true)]
async fn a_call_that_is_dropped_between_two_attempts_makes_no_further_one() {
    let retry = "    - retry: { maxAttempts: 3, backoff: { fixed: { delay: 1s } } }\n";
    let target = client(retry).target("service-b");
    let (runs, operation) = failing(9);
    let dropped = tokio::time::timeout(Duration::from_millis(50), target.call(operation)).await;
    assert!(dropped.is_err(), "it waits for its second attempt");
    tokio::time::advance(Duration::from_secs(60)).await;
    assert_eq!(runs.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn a_call_that_waits_for_a_place_runs_as_soon_as_one_is_given_back() {
    let target = client("    - bulkhead: { maxConcurrent: 2, maxWaiting: 1, maxWait: 1s }\n").target("service-b");
    let busy = || async {
        tokio::time::sleep(Duration::from_millis(200)).await;
        Ok::<_, Infallible>(())
    };
    let begun = Instant::now();
    let (first, second, third, refused) = tokio::join!(
        target.call(busy),
        target.call(busy),
        target.call(|| async { Ok::<_, Infallible>(begun.elapsed()) }),
        target.call(|| async { Ok::<_, Infallible>(()) }),
    );
    first.unwrap();
    second.unwrap();
    assert_eq!(third.unwrap(), Duration::from_millis(200));
    let CallError::Rejected(rejection) = refused.unwrap_err() else { panic!("there is no place to wait") };
    assert_eq!(rejection.reason, RejectionReason::Full);
}

#[tokio::test(start_paused = true)]
async fn a_panic_of_the_operation_gives_its_place_in_a_bulkhead_back() {
    let target = client("    - bulkhead: { maxConcurrent: 1 }\n").target("service-b");
    for waits in [false, true] {
        let panicking = target.clone();
        let panicked = tokio::spawn(async move {
            let operation = || async {
                if waits {
                    tokio::task::yield_now().await;
                }
                if probe() { Err("unreachable") } else { Ok(()) }
            };
            panicking.call(operation).await
        });
        assert!(panicked.await.unwrap_err().is_panic());
        target.call(failing(0).1).await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn an_unchanged_policy_keeps_the_breaker_with_its_remaining_time() {
    let client = Client::for_test(&manifest(BREAKER)).unwrap();
    let target = client.target("service-b");
    let (_, mut operation) = failing(2);
    for _ in 0..2 {
        target.call(&mut operation).await.unwrap_err();
    }
    client.advance(Duration::from_secs(2)).await;
    // Written in another way, with defaults spelled out, it is the same.
    client.apply(&manifest(&BREAKER.replace("halfOpen", "window: { time: 10000ms }, halfOpen"))).unwrap();
    let error = target.call(&mut operation).await.unwrap_err();
    assert_eq!(error.retry_after(), Some(Duration::from_secs(3)));
    client.advance(Duration::from_secs(3)).await;
    target.call(&mut operation).await.unwrap();
    let transitions = client.events().iter().filter(|event| matches!(event.what, Happened::Transition(_))).count();
    assert_eq!(transitions, 3, "opened, half-opened and closed once each");
}

#[tokio::test(start_paused = true)]
async fn a_renamed_strategy_keeps_its_state_and_the_calls_that_run() {
    let named =
        |name: &str| manifest(&BREAKER.replace("- circuitBreaker", &format!("- name: {name}\n      circuitBreaker")));
    let client = Client::for_test(&named("old")).unwrap();
    let target = client.target("service-b");
    let (_, mut operation) = failing(2);
    target.call(&mut operation).await.unwrap_err();
    let hang = || async {
        tokio::time::sleep(Duration::from_secs(1)).await;
        Err::<(), _>("down")
    };
    let mut running = Box::pin(target.call(hang));
    assert!((&mut running).now_or_never().is_none(), "it is under way");
    client.apply(&named("new")).unwrap();
    running.await.unwrap_err();
    let status = client.status();
    assert_eq!(status.breakers.len(), 1);
    assert_eq!((status.breakers[0].strategy.as_str(), status.breakers[0].local), ("new", LocalState::Open));
    let CallError::Rejected(rejection) = target.call(&mut operation).await.unwrap_err() else { panic!("not refused") };
    assert_eq!(rejection.strategy.as_str(), "new");
}

#[tokio::test(start_paused = true)]
async fn a_changed_policy_takes_effect_on_the_next_call_through_the_same_handle() {
    let retry = |attempts| {
        manifest(&format!("    - retry: {{ maxAttempts: {attempts}, backoff: {{ fixed: {{ delay: 1ms }} }} }}\n"))
    };
    let client = Client::for_test(&retry(2)).unwrap();
    let target = client.target("service-b");
    let mut counts = Vec::new();
    for attempts in [2, 5] {
        client.apply(&retry(attempts)).unwrap();
        let (runs, operation) = failing(9);
        target.call(operation).await.unwrap_err();
        counts.push(runs.load(Ordering::Relaxed));
    }
    assert_eq!(counts, [2, 5]);
    // What can't be read changes nothing, and the next change is listened to.
    client.apply("nonsense: true").unwrap_err();
    client.apply(&retry(3)).unwrap();
    let (runs, operation) = failing(9);
    target.call(operation).await.unwrap_err();
    assert_eq!(runs.load(Ordering::Relaxed), 3);
}

#[test]
fn starting_outside_of_a_runtime_or_with_bad_arguments_is_an_error() {
    let outside = Client::builder("service-a").start().unwrap_err();
    assert_eq!(outside.to_string(), "start must be called inside a tokio runtime");
    for (builder, text) in [
        (Client::builder(""), "service is not a valid name"),
        (Client::builder("a").namespace("No"), "namespace is not a valid name"),
        (Client::builder("a").zone("a b"), "zone is not a valid name"),
        (Client::builder("a").control_plane("nowhere"), "control plane address"),
        (Client::builder("a").builtin_manifest("nonsense: true"), "built-in policy is not valid"),
    ] {
        let error = builder.start().unwrap_err().to_string();
        assert!(error.contains(text), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn calls_of_one_key_share_an_answer_and_a_fallback_is_not_remembered() {
    let target =
        client("    - fallback: { function: guess }\n    - cache: { ttl: 10s }\n").target("service-b").or_value(0);
    let (runs, mut operation) = failing(1);
    let mut ask = async || target.call_cached("a", &mut operation).await.unwrap();
    assert_eq!([ask().await, ask().await, ask().await], [0, 2, 2]);
    assert_eq!(runs.load(Ordering::Relaxed), 2);
    tokio::time::advance(Duration::from_secs(10)).await;
    assert_eq!(ask().await, 3);
}

#[tokio::test(start_paused = true)]
async fn a_target_that_is_just_coming_back_is_not_tried_harder() {
    let breaker = "circuitBreaker: { trip: { consecutiveFailures: 1 }, delay: 5s, delayJitter: 0, halfOpen: { probes: 3, successes: 2 } }";
    let client = client(&format!(
        "    - retry: {{ maxAttempts: 3, backoff: {{ fixed: {{ delay: 1ms }} }} }}\n    - {breaker}\n"
    ));
    let target = client.target("service-b");
    let (runs, mut operation) = failing(9);
    target.call(&mut operation).await.unwrap_err();
    assert_eq!(runs.load(Ordering::Relaxed), 1, "the breaker has opened");
    tokio::time::advance(Duration::from_secs(5)).await;
    let error = target.call(&mut operation).await.unwrap_err();
    assert!(matches!(error, CallError::Inner(_)), "{error:?}");
    assert_eq!(runs.load(Ordering::Relaxed), 2, "one probe, and no retry of it");
    assert_eq!(client.status().breakers[0].local, LocalState::HalfOpen);
}
