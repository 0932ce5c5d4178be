//! From the tree to the wire message. What is not well-formed is left out: the form has complained about it.

use fusebox_policy::Namespace;

use super::{at::At, limits, read::scalar, tree::Tree};
use crate::v1;

/// What is there, as a wire message. What is not well-formed is left out: the form has complained about it.
pub(super) fn wire(tree: &Tree) -> v1::Policy {
    let metadata = At(tree.get("metadata"));
    let namespace = metadata.text("namespace");
    let namespace = if namespace.is_empty() { Namespace::default_namespace().to_string() } else { namespace };
    let spec = At(tree.get("spec"));
    v1::Policy {
        name: format!("namespaces/{namespace}/policies/{}", metadata.text("name")),
        labels: metadata.texts("labels"),
        spec: Some(v1::PolicySpec {
            r#match: Some(v1::Selector {
                caller: spec.at("match").text("caller"),
                target: spec.at("match").text("target"),
                routes: spec
                    .at("match")
                    .list("routes")
                    .filter_map(|item| scalar(item).map(ToOwned::to_owned))
                    .collect(),
            }),
            pipeline: spec.list("pipeline").map(|item| strategy(At(Some(item)))).collect(),
            coordination: spec.has("coordination").then(|| coordination(spec.at("coordination"))),
            on_change: match spec.text("onChange").as_str() {
                "reset" => v1::OnChange::Reset.into(),
                _ => v1::OnChange::Keep.into(),
            },
        }),
        ..v1::Policy::default()
    }
}

fn strategy(at: At<'_>) -> v1::Strategy {
    use v1::strategy::Kind;
    let kind = if at.has("timeout") {
        Some(Kind::Timeout(timeout(at)))
    } else if at.has("retry") {
        Some(Kind::Retry(retry(at.at("retry"))))
    } else if at.has("circuitBreaker") {
        Some(Kind::CircuitBreaker(circuit_breaker(at.at("circuitBreaker"))))
    } else if at.has("fallback") {
        Some(Kind::Fallback(fallback(at.at("fallback"))))
    } else if at.has("bulkhead") {
        Some(Kind::Bulkhead(limits::bulkhead(at.at("bulkhead"))))
    } else if at.has("rateLimiter") {
        Some(Kind::RateLimiter(limits::rate_limiter(at.at("rateLimiter"))))
    } else if at.has("hedge") {
        Some(Kind::Hedge(limits::hedge(at.at("hedge"))))
    } else if at.has("concurrencyLimit") {
        Some(Kind::ConcurrencyLimit(limits::concurrency_limit(at.at("concurrencyLimit"))))
    } else if at.has("throttle") {
        Some(Kind::Throttle(limits::throttle(at.at("throttle"))))
    } else if at.has("cache") {
        Some(Kind::Cache(limits::cache(at.at("cache"))))
    } else if at.has("chaos") {
        Some(Kind::Chaos(limits::chaos(at.at("chaos"))))
    } else {
        None
    };
    v1::Strategy { name: at.text("name"), kind }
}

fn timeout(at: At<'_>) -> v1::Timeout {
    let inner = at.at("timeout");
    v1::Timeout {
        duration: at.span("timeout").or_else(|| inner.span("duration")),
        scope: match inner.text("scope").as_str() {
            "body" => v1::TimeoutScope::Body.into(),
            _ => v1::TimeoutScope::Head.into(),
        },
        propagate_header: inner.text("propagateHeader"),
    }
}

fn retry(at: At<'_>) -> v1::Retry {
    let (budget, no_budget) = budget(at);
    v1::Retry {
        max_attempts: at.whole("maxAttempts"),
        unlimited: at.flag("unlimited").unwrap_or_default(),
        max_duration: at.span("maxDuration"),
        backoff: at.has("backoff").then(|| backoff(at)),
        failure_when: at.conditions("failureWhen"),
        ignore_when: at.conditions("ignoreWhen"),
        non_idempotent: at.flag("nonIdempotent").unwrap_or_default(),
        respect_retry_after: at.flag("respectRetryAfter"),
        retry_after_max: at.span("retryAfterMax"),
        wait_for_breaker: at.flag("waitForBreaker").unwrap_or_default(),
        budget,
        no_budget,
        on_exhausted: match at.text("onExhausted").as_str() {
            "error" => v1::OnExhausted::Error.into(),
            _ => v1::OnExhausted::LastOutcome.into(),
        },
    }
}

/// A budget, and whether there is to be none.
pub(super) fn budget(at: At<'_>) -> (Option<v1::RetryBudget>, bool) {
    let none = at.value("budget") == Some("none");
    let budget = (at.has("budget") && !none).then(|| v1::RetryBudget {
        ratio: at.at("budget").number("ratio"),
        min_per_second: at.at("budget").whole("minPerSecond"),
    });
    (budget, none)
}

fn backoff(at: At<'_>) -> v1::Backoff {
    use v1::backoff::Shape;
    let inner = at.at("backoff");
    let shape = if let Some(delay) = at.span("backoff") {
        Some(Shape::Fixed(v1::FixedBackoff { delay: Some(delay) }))
    } else if inner.has("fixed") {
        Some(Shape::Fixed(v1::FixedBackoff { delay: inner.at("fixed").span("delay") }))
    } else if inner.has("linear") {
        let at = inner.at("linear");
        Some(Shape::Linear(v1::LinearBackoff {
            initial: at.span("initial"),
            step: at.span("step"),
            max: at.span("max"),
        }))
    } else if inner.has("exponential") {
        let at = inner.at("exponential");
        Some(Shape::Exponential(v1::ExponentialBackoff {
            initial: at.span("initial"),
            factor: at.number("factor"),
            max: at.span("max"),
        }))
    } else if inner.has("random") {
        let at = inner.at("random");
        Some(Shape::Random(v1::RandomBackoff { min: at.span("min"), max: at.span("max") }))
    } else if inner.has("decorrelated") {
        let at = inner.at("decorrelated");
        Some(Shape::Decorrelated(v1::DecorrelatedBackoff { initial: at.span("initial"), max: at.span("max") }))
    } else {
        None
    };
    let (jitter, jitter_ratio) = match inner.value("jitter") {
        None => (v1::Jitter::Unspecified, 0.0),
        Some("none") => (v1::Jitter::None, 0.0),
        Some("full") => (v1::Jitter::Full, 0.0),
        Some("equal") => (v1::Jitter::Equal, 0.0),
        // The form has checked that it is a number; what is not one is no ratio, and the domain says so.
        Some(ratio) => (v1::Jitter::Ratio, ratio.parse().unwrap_or(f64::NAN)),
    };
    v1::Backoff { shape, jitter: jitter.into(), jitter_ratio }
}

fn circuit_breaker(at: At<'_>) -> v1::CircuitBreaker {
    let window = at.at("window");
    let trip = at.at("trip");
    let half_open = at.at("halfOpen");
    let rate = |key: &str| {
        trip.has(key).then(|| v1::RateRule {
            percent: trip.at(key).whole("percent").unwrap_or_default(),
            min_calls: trip.at(key).whole("minCalls"),
        })
    };
    v1::CircuitBreaker {
        failure_when: at.conditions("failureWhen"),
        ignore_when: at.conditions("ignoreWhen"),
        window: at.has("window").then(|| v1::Window {
            kind: match (window.whole("count"), window.span("time")) {
                (Some(count), _) => Some(v1::window::Kind::Count(count)),
                (None, Some(time)) => Some(v1::window::Kind::Time(time)),
                (None, None) => None,
            },
        }),
        trip: at.has("trip").then(|| v1::TripRules {
            failure_rate: rate("failureRate"),
            failures: trip.whole("failures"),
            consecutive_failures: trip.whole("consecutiveFailures"),
            slow_call_rate: rate("slowCallRate"),
            slow_call_duration: trip.span("slowCallDuration"),
        }),
        delay: at.span("delay"),
        delay_factor: at.number("delayFactor"),
        delay_max: at.span("delayMax"),
        delay_jitter: at.number("delayJitter"),
        respect_retry_after: at.flag("respectRetryAfter"),
        retry_after_max: at.span("retryAfterMax"),
        half_open: at.has("halfOpen").then(|| v1::HalfOpen {
            probes: half_open.whole("probes"),
            concurrent_probes: half_open.whole("concurrentProbes"),
            successes: half_open.whole("successes"),
            max_duration: half_open.span("maxDuration"),
        }),
        ramp: at.span("ramp"),
        mode: match at.text("mode").as_str() {
            "shadow" => v1::BreakerMode::Shadow.into(),
            "disabled" => v1::BreakerMode::Disabled.into(),
            _ => v1::BreakerMode::Enforced.into(),
        },
    }
}

fn fallback(at: At<'_>) -> v1::Fallback {
    use v1::fallback::With;
    let response = at.at("response");
    let stale = at.at("stale");
    let mut with = Vec::new();
    if at.has("response") {
        with.push(With::Response(v1::StaticResponse {
            status: response.whole("status"),
            headers: response.texts("headers"),
            body: response.text("body"),
        }));
    }
    with.extend(at.has("error").then(|| With::Error(at.text("error"))));
    with.extend(at.has("function").then(|| With::Function(at.text("function"))));
    with.extend(at.has("target").then(|| With::Target(at.text("target"))));
    if at.has("stale") {
        with.push(With::Stale(v1::Stale {
            max_age: stale.span("maxAge"),
            max_entries: stale.whole("maxEntries"),
            max_body_bytes: stale.whole("maxBodyBytes"),
        }));
    }
    // More than one is as good as none: the domain asks for exactly one.
    let with = if with.len() == 1 { with.pop() } else { None };
    v1::Fallback { failure_when: at.conditions("failureWhen"), ignore_when: at.conditions("ignoreWhen"), with }
}

fn coordination(at: At<'_>) -> v1::Coordination {
    let named = |prefix: &str, key: &str| format!("{prefix}_{}", at.text(key).to_uppercase());
    v1::Coordination {
        mode: v1::CoordinationMode::from_str_name(&named("COORDINATION_MODE", "mode")).unwrap_or_default().into(),
        scope: v1::CoordinationScope::from_str_name(&named("COORDINATION_SCOPE", "scope")).unwrap_or_default().into(),
        acknowledge_single_witness: at.flag("acknowledgeSingleWitness").unwrap_or_default(),
        quorum_percent: at.whole("quorumPercent"),
        max_open_percent: at.whole("maxOpenPercent"),
    }
}
