//! The manifest: what is wrong is said at its place, and what is right reads back unchanged.

use fusebox_policy::Policy;
use fusebox_proto::{manifest, v1};
use prost::Message;

const HEAD: &str =
    "apiVersion: fusebox/v1\nkind: Policy\nmetadata: { name: p }\nspec:\n  match: { target: b }\n  pipeline:\n";

/// Faults of a pipeline that begins at line 7, as `line:column path: reason`.
fn faults(pipeline: &str) -> Vec<String> {
    let text = format!("{HEAD}{pipeline}\n");
    match manifest::parse("test.yaml", &text) {
        Ok(_) => Vec::new(),
        Err(error) => error
            .faults
            .iter()
            .map(|fault| format!("{}:{} {}: {}", fault.line, fault.column, fault.path, fault.reason))
            .collect(),
    }
}

#[test]
fn every_kind_of_mistake_is_named_at_its_place() {
    let table = [
        (
            "    - retry: { maxAttempt: 3 }",
            "7:16 spec.pipeline[0].retry.maxAttempt: unknown field: did you mean maxAttempts?",
        ),
        (
            "    - retry: { maxAttempts: three }",
            "7:29 spec.pipeline[0].retry.maxAttempts: must be a whole number, not negative, is \"three\"",
        ),
        (
            "    - retry: { maxAttempts: -1 }",
            "7:29 spec.pipeline[0].retry.maxAttempts: must be a whole number, not negative, is \"-1\"",
        ),
        ("    - retry: { maxAttempts: 0 }", "7:29 spec.pipeline[0].retry.maxAttempts: must be from 1 to 1000, is 0"),
        ("    - timeout: 5", "7:16 spec.pipeline[0].timeout: 5 has no unit: write 5s or 5ms"),
        (
            "    - timeout: 2 sekonds",
            "7:16 spec.pipeline[0].timeout: must be a duration like 100ms, 10s or 1m30s, is \"2 sekonds\"",
        ),
        ("    - timeout: -1s", "7:16 spec.pipeline[0].timeout: must not be negative, is -1s"),
        ("    - timeout: 0s", "7:16 spec.pipeline[0].timeout.duration: must be greater than zero"),
        ("    - timeout: {}", "7:16 spec.pipeline[0].timeout.duration: is required"),
        (
            "    - {}",
            "7:7 spec.pipeline[0]: must have exactly one of timeout, retry, circuitBreaker, fallback, bulkhead, rateLimiter, hedge, concurrencyLimit, throttle, cache, chaos, has 0",
        ),
        (
            "    - { timeout: 1s, retry: {} }",
            "7:7 spec.pipeline[0]: must have exactly one of timeout, retry, circuitBreaker, fallback, bulkhead, rateLimiter, hedge, concurrencyLimit, throttle, cache, chaos, has 2",
        ),
        (
            "    - circuitBreaker: { failureWhen: { statuses: [\"6xx\"] } }",
            "7:51 spec.pipeline[0].circuitBreaker.failureWhen.statuses[0]: \"6xx\" is not a status: write \"503\", \"5xx\" or \"500-504\"",
        ),
        (
            "    - circuitBreaker: { failureWhen: { errors: [conect] } }",
            "7:49 spec.pipeline[0].circuitBreaker.failureWhen.errors[0]: must be one of any, connect, reset, timeout, body, tls, request, rejected, other, is \"conect\": did you mean connect?",
        ),
        (
            "    - timeout: 1s\n    - timeout: 2s",
            "8:16 spec.pipeline[1].timeout.duration: must be less than the 1s of the timeout around it ([0]), or it never fires",
        ),
        ("    []", "6:3 spec.pipeline: must have at least one strategy"),
        ("    - timeout: &t 1s\n    - timeout: *t", "8:16 : anchors and aliases are not allowed: write it out"),
        ("    - { timeout: 1s, timeout: 2s }", "7:22 : \"timeout\" is there twice"),
    ];
    for (pipeline, expected) in table {
        assert_eq!(faults(pipeline), [expected], "{pipeline}");
    }
}

#[test]
fn faults_of_all_documents_are_reported_together() {
    let text = format!("{HEAD}    - timeout: 5\n---\n{HEAD}    - retry: {{ maxAttempt: 1 }}\n      x: 1\n");
    let error = manifest::parse("test.yaml", &text).unwrap_err();
    let lines: Vec<usize> = error.faults.iter().map(|fault| fault.line).collect();
    assert_eq!(lines, [7, 15, 16]);
    let shown = error.to_string();
    assert!(shown.contains("test.yaml:7:16: spec.pipeline[0].timeout:"), "{shown}");
    assert!(shown.contains("      |                ^"), "a caret under the value: {shown}");
}

#[test]
fn what_is_missing_is_said_where_it_should_be() {
    for (text, expected) in [
        ("", "has no policy"),
        ("kind: Policy\n", "apiVersion: is required"),
        ("[1, 2", "is not YAML"),
        ("just text", "must be a map"),
    ] {
        let error = manifest::parse("test.yaml", text).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
}

#[test]
fn a_name_that_is_there_twice_is_refused() {
    let text = format!("{HEAD}    - timeout: 5s\n---\n{HEAD}    - timeout: 5s\n");
    let error = manifest::parse("test.yaml", &text).unwrap_err();
    assert_eq!(error.faults[0].path, "metadata.name");
}

/// One policy with everything in it.
const FULL: &str = r#"
apiVersion: fusebox/v1
kind: Policy
metadata: { name: everything, namespace: shop, labels: { team: payments, "on": "yes" } }
spec:
  match: { caller: a, target: b, routes: ["GET /", "* /x/*", "pkg.Service/Do"] }
  pipeline:
    - name: last-resort
      fallback:
        failureWhen: { errors: [any], headers: [{ name: X-Sick, value: "1" }, { name: x-warn }], slowerThan: 3s }
        ignoreWhen: { statuses: [404] }
        response: { status: 200, headers: { content-type: application/json }, body: "{\"a\": \"ü\\n\"}" }
    - fallback: { failureWhen: { statuses: [503] }, stale: { maxAge: 1m, maxEntries: 5, maxBodyBytes: 10 } }
    - fallback: { failureWhen: { statuses: [504] }, target: c }
    - fallback: { failureWhen: { statuses: [505] }, function: f }
    - fallback: { failureWhen: { statuses: [506] }, error: "no: luck" }
    - retry: { unlimited: true, maxDuration: 30s, backoff: { linear: { initial: 10ms, step: 20ms, max: 1s }, jitter: 0.5 } }
    - retry: { maxAttempts: 2, backoff: { random: { min: 1ms, max: 2ms } }, budget: none, onExhausted: error, nonIdempotent: true, waitForBreaker: true, respectRetryAfter: false, retryAfterMax: 9s, ignoreWhen: { grpcCodes: [ABORTED] } }
    - retry: { backoff: { decorrelated: { initial: 1ms, max: 2s } }, budget: { ratio: 0.33, minPerSecond: 7 } }
    - retry: { backoff: 10ms }
    - timeout: { duration: 1500ms, scope: body, propagateHeader: x-left }
    - circuitBreaker:
        window: { count: 50 }
        trip: { failureRate: { percent: 33, minCalls: 9 }, failures: 7, consecutiveFailures: 3, slowCallRate: { percent: 80 }, slowCallDuration: 750ms }
        delay: 3s
        delayFactor: 1.5
        delayMax: 1m30s
        delayJitter: 0.25
        respectRetryAfter: false
        halfOpen: { probes: 5, concurrentProbes: 2, successes: 3, maxDuration: 10s }
        ramp: 20s
        mode: shadow
    - circuitBreaker: {}
    - circuitBreaker:
  coordination: { mode: quorum, scope: fleet, quorumPercent: 45, maxOpenPercent: 60 }
  onChange: reset
"#;

fn read(text: &str) -> Policy {
    let mut documents = manifest::parse("full.yaml", text).unwrap_or_else(|error| panic!("{error}"));
    documents.remove(0).policy
}

#[test]
fn the_canonical_form_reads_back_unchanged() {
    let policy = read(FULL);
    let yaml = manifest::to_yaml(&policy);
    assert_eq!(read(&yaml), policy, "{yaml}");
    assert_eq!(manifest::to_yaml(&read(&yaml)), yaml);
    assert_eq!(read(&manifest::to_json(&policy).to_string()), policy, "JSON is YAML");
}

#[test]
fn the_wire_carries_everything() {
    let policy = read(FULL);
    let bytes = v1::Policy::from(&policy).encode_to_vec();
    let back = Policy::try_from(v1::Policy::decode(bytes.as_slice()).unwrap()).unwrap();
    assert_eq!(back, policy);
}

#[test]
fn defaults_are_what_the_documentation_says() {
    let policy = read(&format!("{HEAD}    - retry: {{}}\n    - circuitBreaker: {{}}\n    - timeout: 10s\n"));
    let json = manifest::to_json(&policy);
    let retry = &json["spec"]["pipeline"][0]["retry"];
    assert_eq!(retry["maxAttempts"], 3);
    assert_eq!(retry["backoff"]["exponential"]["initial"], "100ms");
    assert_eq!(retry["backoff"]["jitter"], "full");
    assert_eq!(retry["retryAfterMax"], "1m");
    let breaker = &json["spec"]["pipeline"][1]["circuitBreaker"];
    assert_eq!(breaker["trip"]["failureRate"]["percent"], 50);
    assert_eq!(breaker["trip"]["consecutiveFailures"], 5);
    assert_eq!((&breaker["delay"], &breaker["window"]["time"]), (&"5s".into(), &"10s".into()));
    assert_eq!(breaker["halfOpen"]["probes"], 3);
    assert_eq!(json["spec"]["coordination"]["mode"], "balanced");
    assert_eq!(json["spec"]["coordination"]["scope"], "zone");
}

#[test]
fn a_field_is_located_only_if_it_is_there() {
    let text = format!("{HEAD}    - retry: {{ maxAttempts: 4 }}\n");
    assert_eq!(manifest::locate(&text, 0, "spec.pipeline[0].retry.maxAttempts"), Some((7, 29)));
    assert_eq!(manifest::locate(&text, 0, "metadata.namespace"), None);
    assert_eq!(manifest::locate(&text, 1, "metadata.name"), None);
}

/// What a program prints of stored policies: JSON, in lists or not, with what became of them.
fn printed(names: &[&str]) -> serde_json::Value {
    let policy = |name: &&str| {
        let text = format!("{HEAD}    - retry: {{ maxAttempts: 4 }}\n").replace("name: p", &format!("name: {name}"));
        let mut value = manifest::to_json(&read(&text));
        value["status"] = serde_json::json!({
            "revision": 7, "etag": "\"7-a\"", "createTime": null, "updateTime": "2026-11-25T00:00:00Z", "reconciling": false,
            "instances": 3, "currentInstances": 2, "rejectingInstances": 1,
        });
        value
    };
    serde_json::json!({ "items": names.iter().map(policy).collect::<Vec<_>>(), "nextPageToken": "" })
}

#[test]
fn what_is_printed_of_stored_policies_reads_back_alone_in_lists_and_in_several_documents() {
    let names = |text: &str| {
        let documents = manifest::parse("printed", text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        documents.iter().map(|one| one.policy.name.to_string()).collect::<Vec<_>>()
    };
    let (one, list) = (printed(&["a"])["items"][0].clone(), printed(&["a", "b"]));
    assert_eq!(names(&format!("{one:#}")), ["a"]);
    assert_eq!(names(&format!("{list:#}")), ["a", "b"]);
    assert_eq!(names(&list.to_string()), ["a", "b"]);
    assert_eq!(names(&format!("{list:#}\n---\n{}", printed(&["c"]))), ["a", "b", "c"]);
    let yaml = format!("{HEAD}    - timeout: 1s\nstatus:\n  revision: 7\n  reconciling: maybe\n---\n{list}");
    assert_eq!(names(&yaml), ["p", "a", "b"]);
}

#[test]
fn what_is_no_output_is_refused_with_its_path_in_lists_too() {
    let table = [
        ("/items/1/status/revisions", "status.revisions: unknown field: did you mean revision?"),
        ("/items/0/spec/statuses", "spec.statuses: unknown field: known are match, pipeline, coordination, onChange"),
        ("/itemz", "itemz: unknown field: a list has items and nextPageToken"),
        ("/nextPageToken", "nextPageToken: must be empty: this is a part of a list, get it whole"),
    ];
    for (pointer, expected) in table {
        let mut list = printed(&["a", "b"]);
        let (map, key) = pointer.rsplit_once('/').unwrap();
        list.pointer_mut(map).unwrap()[key] = "x".into();
        let error = manifest::parse("printed", &format!("{list:#}")).unwrap_err();
        let told: Vec<_> = error.faults.iter().map(|fault| format!("{}: {}", fault.path, fault.reason)).collect();
        assert_eq!(told, [expected]);
        let line = error.faults[0].line;
        assert!(format!("{list:#}").lines().nth(line - 1).unwrap().contains(key), "{pointer}: line {line}");
    }
    assert_eq!(manifest::parse("printed", r#"{"items": []}"#).unwrap_err().faults[0].reason, "has no policy");
}

#[test]
fn a_field_of_a_policy_in_a_list_is_located() {
    let text = format!("{:#}", printed(&["a", "b"]));
    let (line, _) = manifest::locate(&text, 1, "metadata.name").unwrap();
    assert!(text.lines().nth(line - 1).unwrap().contains("\"b\""), "line {line}");
}

#[test]
fn the_committed_schema_is_the_present_one() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/schema/policy.schema.json");
    let present = serde_json::to_string_pretty(&manifest::schema()).unwrap() + "\n";
    let committed = std::fs::read_to_string(file).unwrap_or_default();
    assert_eq!(committed, present, "write the output of `fusebox schema` to proto/schema/policy.schema.json");
}
