//! What a newer server, or a spoiled one, may send where this version knows a list of choices: each that is missing or not known is an
//! error with the path of its field, and no policy is read in part.

#![expect(clippy::unwrap_used, reason = "a test that can not go on should say where")]

use std::collections::BTreeSet;

use fusebox_policy::Policy;
use fusebox_proto::{manifest, v1};
use prost::Message as _;

const HEAD: &str =
    "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  match: { target: b }\n  pipeline:\n";

/// No enum has such a value.
const UNKNOWN: i32 = 99;

fn wire(element: &str) -> v1::Policy {
    v1::Policy::from(&manifest::parse("test.yaml", &format!("{HEAD}    - {element}\n")).unwrap().remove(0).policy)
}

/// The fields at fault once a policy of one element has been changed on the wire.
fn faults(element: &str, change: impl FnOnce(&mut v1::PolicySpec)) -> Vec<String> {
    let mut policy = wire(element);
    change(policy.spec.as_mut().unwrap());
    let invalid = Policy::try_from(policy).expect_err(element);
    invalid.violations().iter().map(|own| own.field.clone()).collect()
}

/// One change of the first element.
macro_rules! change {
    ($kind:ident, $own:ident => $change:expr) => {
        |spec: &mut v1::PolicySpec| {
            let Some(v1::strategy::Kind::$kind($own)) = &mut spec.pipeline[0].kind else { panic!("{spec:?}") };
            $change;
        }
    };
}

type Case = (&'static str, &'static str, fn(&mut v1::PolicySpec), &'static str);

/// A field or a oneof as `Message.name`, a policy that has it, what becomes of it on the wire, and the path that must be named.
const CASES: &[Case] = &[
    ("Strategy.kind", "timeout: 1s", |spec| spec.pipeline[0].kind = None, "spec.pipeline[0]"),
    ("PolicySpec.on_change", "timeout: 1s", |spec| spec.on_change = UNKNOWN, "spec.onChange"),
    ("Timeout.scope", "timeout: 1s", change!(Timeout, own => own.scope = UNKNOWN), "spec.pipeline[0].timeout.scope"),
    (
        "Conditions.errors",
        "retry: { failureWhen: { errors: [connect] } }",
        change!(Retry, own => own.failure_when.as_mut().unwrap().errors[0] = UNKNOWN),
        "spec.pipeline[0].retry.failureWhen.errors[0]",
    ),
    (
        "Conditions.errors",
        "retry: { failureWhen: { errors: [connect] } }",
        change!(Retry, own => own.failure_when.as_mut().unwrap().errors[0] = 0),
        "spec.pipeline[0].retry.failureWhen.errors[0]",
    ),
    (
        "Retry.on_exhausted",
        "retry: {}",
        change!(Retry, own => own.on_exhausted = UNKNOWN),
        "spec.pipeline[0].retry.onExhausted",
    ),
    (
        "Backoff.shape",
        "retry: { backoff: { fixed: { delay: 1s } } }",
        change!(Retry, own => own.backoff.as_mut().unwrap().shape = None),
        "spec.pipeline[0].retry.backoff",
    ),
    (
        "Backoff.jitter",
        "retry: { backoff: { fixed: { delay: 1s } } }",
        change!(Retry, own => own.backoff.as_mut().unwrap().jitter = UNKNOWN),
        "spec.pipeline[0].retry.backoff.jitter",
    ),
    (
        "CircuitBreaker.mode",
        "circuitBreaker: {}",
        change!(CircuitBreaker, own => own.mode = UNKNOWN),
        "spec.pipeline[0].circuitBreaker.mode",
    ),
    (
        "Window.kind",
        "circuitBreaker: {}",
        change!(CircuitBreaker, own => own.window = Some(v1::Window { kind: None })),
        "spec.pipeline[0].circuitBreaker.window",
    ),
    (
        "Fallback.with",
        "fallback: { error: gone }",
        change!(Fallback, own => own.with = None),
        "spec.pipeline[0].fallback",
    ),
    (
        "RateLimiter.scope",
        "rateLimiter: { limit: 5 }",
        change!(RateLimiter, own => own.scope = UNKNOWN),
        "spec.pipeline[0].rateLimiter.scope",
    ),
    ("Hedge.delay", "hedge: { delay: 1s }", change!(Hedge, own => own.delay = None), "spec.pipeline[0].hedge"),
    (
        "Chaos.fault",
        "chaos: { percent: 5, status: 503, until: 2030-01-01T00:00:00Z }",
        change!(Chaos, own => own.fault = None),
        "spec.pipeline[0].chaos",
    ),
    (
        "Chaos.error",
        "chaos: { percent: 5, latency: 1s, error: reset, until: 2030-01-01T00:00:00Z }",
        change!(Chaos, own => own.fault = Some(v1::chaos::Fault::Error(UNKNOWN))),
        "spec.pipeline[0].chaos.error",
    ),
    (
        "Chaos.error",
        "chaos: { percent: 5, latency: 1s, error: reset, until: 2030-01-01T00:00:00Z }",
        change!(Chaos, own => own.fault = Some(v1::chaos::Fault::Error(0))),
        "spec.pipeline[0].chaos.error",
    ),
    (
        "Coordination.mode",
        "circuitBreaker: {}",
        |spec| spec.coordination.as_mut().unwrap().mode = UNKNOWN,
        "spec.coordination.mode",
    ),
    (
        "Coordination.scope",
        "circuitBreaker: {}",
        |spec| spec.coordination.as_mut().unwrap().scope = UNKNOWN,
        "spec.coordination.scope",
    ),
];

#[test]
fn each_choice_that_is_missing_or_not_known_is_an_error_at_its_place() {
    for (name, element, change, path) in CASES {
        assert_eq!(faults(element, change), [*path], "{name} of {element}");
    }
}

/// The fields of policies that are an enum, and their oneofs, by the `.proto` file.
fn choices() -> BTreeSet<String> {
    let mut compiler = protox::Compiler::new([env!("CARGO_MANIFEST_DIR")]).unwrap();
    compiler.open_file("fusebox/v1/policy.proto").unwrap();
    let files = compiler.file_descriptor_set().file;
    let file = files.iter().find(|file| file.name() == "fusebox/v1/policy.proto").unwrap();
    let mut found = BTreeSet::new();
    for message in &file.message_type {
        // What is `optional` has a oneof of its own in the descriptor.
        let real =
            |index: i32| !message.field.iter().any(|field| field.oneof_index == Some(index) && field.proto3_optional());
        for (index, oneof) in (0..).zip(&message.oneof_decl) {
            if real(index) {
                found.insert(format!("{}.{}", message.name(), oneof.name()));
            }
        }
        let enums =
            message.field.iter().filter(|field| field.r#type() == prost_types::field_descriptor_proto::Type::Enum);
        found.extend(enums.map(|field| format!("{}.{}", message.name(), field.name())));
    }
    found
}

#[test]
fn no_choice_of_the_protocol_is_left_out_of_the_table() {
    let tested: BTreeSet<String> = CASES.iter().map(|(name, ..)| (*name).to_owned()).collect();
    assert_eq!(tested, choices());
}

#[test]
fn a_strategy_of_a_kind_that_is_not_known_comes_as_none_and_the_rest_of_its_policy_is_not_run() {
    /// A strategy as a later version may have it: of a kind with a number that is not given out yet.
    #[derive(Clone, PartialEq, prost::Message)]
    struct Later {
        #[prost(message, optional, tag = "200")]
        kind: Option<v1::Timeout>,
    }
    let later = Later { kind: Some(v1::Timeout::default()) }.encode_to_vec();
    let strategy = v1::Strategy::decode(later.as_slice()).unwrap();
    assert_eq!(strategy.kind, None);
    let change = |spec: &mut v1::PolicySpec| spec.pipeline.push(strategy);
    assert_eq!(faults("timeout: 1s", change), ["spec.pipeline[1]"]);
}
