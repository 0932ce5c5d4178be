//! Any bytes as the head of an HTTP response.
//!
//! A first line with the status, then a header a line: what is no status is 503, what is no header is left out.

use std::time::Duration;

use fusebox::{Http, Protocol};
use fusebox_policy::{
    Outcome, Timestamp,
    outcome::{Facts, RetryHint},
    pipeline::{Call, Finish, PipelineSpec, Step, StrategySpec},
    retry::{CallRules, RetryInput, RetrySpec},
};
use http::{HeaderName, HeaderValue, Request, Response, StatusCode};

use crate::call::{Script, World};

/// Whatever a server says about when to come back is read as a wait, as a refusal or as nothing, by the rules of each header, and no
/// retry waits longer than its policy allows.
///
/// # Panics
/// Where that does not hold.
pub fn run(bytes: &[u8]) {
    let response = response(bytes);
    let http: &dyn Protocol<Request<()>, Response<()>, ()> = &Http;
    http.judge(Ok(&response), &mut |outcome, facts| {
        assert!(matches!(outcome, Outcome::Response(said) if said.status == Some(response.status().as_u16())));
        follows_the_rules(&response, facts.retry_hint());
        waits_no_longer_than_allowed(outcome, facts);
    });
}

fn response(bytes: &[u8]) -> Response<()> {
    let mut lines = bytes.split(|byte| *byte == b'\n');
    let status = lines.next().and_then(|line| StatusCode::from_bytes(line).ok());
    let mut response = Response::new(());
    *response.status_mut() = status.unwrap_or(StatusCode::SERVICE_UNAVAILABLE);
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        let value = HeaderValue::from_bytes(line[colon + 1..].trim_ascii());
        if let (Ok(name), Ok(value)) = (name, value) {
            response.headers_mut().append(name, value);
        }
    }
    response
}

/// What a number in the first header of its name must be read as.
fn follows_the_rules(response: &Response<()>, hint: RetryHint) {
    let first = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok());
    let number =
        |text: &str| text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse::<u64>().ok()).flatten();
    if let Some(pushback) = first("grpc-retry-pushback-ms") {
        let wanted = number(pushback).map_or(RetryHint::Never, |ms| RetryHint::After(Duration::from_millis(ms)));
        assert_eq!(hint, wanted, "{response:?}");
    } else if let Some(seconds) = first("retry-after").and_then(number) {
        assert_eq!(hint, RetryHint::After(Duration::from_secs(seconds)), "{response:?}");
    } else {
        assert_ne!(hint, RetryHint::Never, "only gRPC forbids the retry: {response:?}");
    }
}

fn waits_no_longer_than_allowed(outcome: Outcome, facts: &dyn Facts) {
    let input = RetryInput { retry_after_max: Duration::from_secs(60), ..RetryInput::default() };
    let most = input.retry_after_max;
    let retry = RetrySpec::try_new(input).expect("it differs from the default only in its bound");
    let pipeline =
        PipelineSpec::try_new(vec![(None, StrategySpec::Retry(retry))]).expect("one strategy contradicts none");
    let script = Script::new(&[]);
    let world = World::new(&pipeline, &script);
    let now = Timestamp::after_origin(Duration::from_secs(1));
    let mut call = Call::new(CallRules { idempotent: true, replayable: true, ..CallRules::default() });
    assert_eq!(call.start(&pipeline, &world, now), Step::Attempt);
    match call.attempt_ended(&pipeline, &world, outcome, facts, now) {
        Step::Wait { until } => assert!(until <= now.plus(most), "waits for {:?}", now.until(until)),
        Step::Attempt | Step::Finish(Finish::Value) => {}
        step @ (Step::Queue { .. }
        | Step::Hedge { .. }
        | Step::Lookup { .. }
        | Step::Keep { .. }
        | Step::Inject { .. }
        | Step::Fallback { .. }
        | Step::Finish(_)) => panic!("{step:?} of a retry alone"),
    }
    world.cancel(&mut call);
    world.is_whole();
}
