//! The canonical form: every default filled in, fields in the order of the schema.

use std::time::{Duration, UNIX_EPOCH};

use fusebox_policy::{
    Policy,
    breaker::{BreakerMode, BreakerSpec, HalfOpenSpec, RateRule, WindowSpec},
    bulkhead::BulkheadSpec,
    cache::CacheSpec,
    chaos::{ChaosSpec, Fault},
    concurrency_limit::ConcurrencyLimitSpec,
    condition::{Classifier, Conditions, ErrorRule},
    fallback::{FallbackSpec, FallbackWith},
    fleet::{Coordination, CoordinationMode},
    hedge::{HedgeDelay, HedgeSpec},
    pipeline::StrategySpec,
    policy::OnChange,
    rate_limiter::{RateLimiterSpec, RateScope},
    retry::{
        MaxAttempts, OnExhausted, RetrySpec,
        backoff::{Backoff, Jitter, Shape},
        budget::BudgetSpec,
    },
    throttle::ThrottleSpec,
    timeout::{TimeoutScope, TimeoutSpec},
};
use serde_json::{Map, Value, json};

use super::{shape::API_VERSION, yaml::yaml};

/// The policy as a manifest in JSON.
#[must_use]
pub fn to_json(policy: &Policy) -> Value {
    let Policy { namespace, name, labels, definition, revision: _ } = policy;
    let mut metadata = object([("name", json!(name.as_str())), ("namespace", json!(namespace.as_str()))]);
    if !labels.as_map().is_empty() {
        metadata.insert("labels".to_owned(), json!(labels.as_map()));
    }
    let selector = &definition.selector;
    let mut matches = Map::new();
    put(&mut matches, "caller", selector.caller().map(|caller| json!(caller.as_str())));
    matches.insert("target".to_owned(), json!(selector.target().as_str()));
    let routes: Vec<String> = selector.routes().iter().map(ToString::to_string).collect();
    put(&mut matches, "routes", (!routes.is_empty()).then(|| json!(routes)));
    let pipeline: Vec<Value> = definition
        .pipeline
        .strategies()
        .iter()
        .map(|strategy| {
            let spec = match strategy.spec() {
                StrategySpec::Timeout(spec) => timeout(spec),
                StrategySpec::Retry(spec) => retry(spec),
                StrategySpec::CircuitBreaker(spec) => circuit_breaker(spec),
                StrategySpec::Fallback(spec) => fallback(spec),
                StrategySpec::Bulkhead(spec) => bulkhead(spec),
                StrategySpec::RateLimiter(spec) => rate_limiter(spec),
                StrategySpec::Hedge(spec) => hedge(spec),
                StrategySpec::ConcurrencyLimit(spec) => concurrency_limit(spec),
                StrategySpec::Throttle(spec) => throttle(spec),
                StrategySpec::Cache(spec) => cache(spec),
                StrategySpec::Chaos(spec) => chaos(spec),
            };
            Value::Object(object([("name", json!(strategy.name().as_str())), (strategy.spec().kind(), spec)]))
        })
        .collect();
    let on_change = match definition.on_change {
        OnChange::Keep => "keep",
        OnChange::Reset => "reset",
    };
    json!({
        "apiVersion": API_VERSION,
        "kind": "Policy",
        "metadata": metadata,
        "spec": {
            "match": matches,
            "pipeline": pipeline,
            "coordination": coordination(&definition.coordination),
            "onChange": on_change,
        },
    })
}

/// The policy as a manifest in YAML. [`super::parse`] takes it back unchanged.
#[must_use]
pub fn to_yaml(policy: &Policy) -> String {
    let mut text = String::new();
    yaml(&mut text, &to_json(policy), 0);
    text
}

fn object<const N: usize>(fields: [(&str, Value); N]) -> Map<String, Value> {
    fields.into_iter().map(|(name, value)| (name.to_owned(), value)).collect()
}

fn put(map: &mut Map<String, Value>, name: &str, value: Option<Value>) {
    if let Some(value) = value {
        map.insert(name.to_owned(), value);
    }
}

fn span(duration: Duration) -> Value {
    json!(humantime::format_duration(duration).to_string().replace(' ', ""))
}

fn conditions(conditions: &Conditions) -> Value {
    let mut map = Map::new();
    let Conditions { statuses, grpc_codes, errors, headers, slower_than } = conditions;
    let statuses: Vec<String> = statuses.iter().map(ToString::to_string).collect();
    put(&mut map, "statuses", (!statuses.is_empty()).then(|| json!(statuses)));
    let codes: Vec<&str> = grpc_codes.iter().map(|code| code.name()).collect();
    put(&mut map, "grpcCodes", (!codes.is_empty()).then(|| json!(codes)));
    let errors: Vec<String> = errors
        .iter()
        .map(|rule| match rule {
            ErrorRule::Any => "any".to_owned(),
            ErrorRule::Rejected => "rejected".to_owned(),
            ErrorRule::Kind(kind) => kind.to_string(),
        })
        .collect();
    put(&mut map, "errors", (!errors.is_empty()).then(|| json!(errors)));
    let headers: Vec<Value> = headers
        .iter()
        .map(|rule| {
            let mut header = object([("name", json!(rule.name()))]);
            put(&mut header, "value", rule.value().map(|value| json!(value)));
            Value::Object(header)
        })
        .collect();
    put(&mut map, "headers", (!headers.is_empty()).then(|| json!(headers)));
    put(&mut map, "slowerThan", slower_than.map(span));
    Value::Object(map)
}

fn classifier(map: &mut Map<String, Value>, classifier: &Classifier) {
    map.insert("failureWhen".to_owned(), conditions(classifier.failure_when()));
    let ignored = classifier.ignore_when();
    put(map, "ignoreWhen", (!ignored.is_empty()).then(|| conditions(ignored)));
}

fn timeout(spec: &TimeoutSpec) -> Value {
    let scope = match spec.scope() {
        TimeoutScope::Head => "head",
        TimeoutScope::Body => "body",
    };
    let mut map = object([("duration", span(spec.duration())), ("scope", json!(scope))]);
    put(&mut map, "propagateHeader", spec.propagate_header().map(|name| json!(name)));
    Value::Object(map)
}

fn retry(spec: &RetrySpec) -> Value {
    let mut map = match spec.max_attempts() {
        MaxAttempts::Limited(limit) => object([("maxAttempts", json!(limit.get()))]),
        MaxAttempts::Unlimited => object([("unlimited", json!(true))]),
    };
    put(&mut map, "maxDuration", spec.max_duration().map(span));
    map.insert("backoff".to_owned(), backoff(spec.backoff()));
    classifier(&mut map, spec.classifier());
    map.insert("nonIdempotent".to_owned(), json!(spec.non_idempotent()));
    map.insert("respectRetryAfter".to_owned(), json!(spec.respect_retry_after()));
    map.insert("retryAfterMax".to_owned(), span(spec.retry_after_max()));
    map.insert("waitForBreaker".to_owned(), json!(spec.wait_for_breaker()));
    map.insert("budget".to_owned(), budget(spec.budget()));
    let on_exhausted = match spec.on_exhausted() {
        OnExhausted::LastOutcome => "lastOutcome",
        OnExhausted::Error => "error",
    };
    map.insert("onExhausted".to_owned(), json!(on_exhausted));
    Value::Object(map)
}

fn budget(budget: Option<&BudgetSpec>) -> Value {
    budget.map_or_else(
        || json!("none"),
        |budget| json!({ "ratio": budget.ratio(), "minPerSecond": budget.min_per_second() }),
    )
}

fn backoff(backoff: &Backoff) -> Value {
    let (name, shape) = match backoff.shape() {
        Shape::Fixed { delay } => ("fixed", object([("delay", span(delay))])),
        Shape::Linear { initial, step, max } => {
            let mut map = object([("initial", span(initial)), ("step", span(step))]);
            put(&mut map, "max", max.map(span));
            ("linear", map)
        }
        Shape::Exponential { initial, factor, max } => {
            let mut map = object([("initial", span(initial)), ("factor", json!(factor))]);
            put(&mut map, "max", max.map(span));
            ("exponential", map)
        }
        Shape::Random { min, max } => ("random", object([("min", span(min)), ("max", span(max))])),
        Shape::Decorrelated { initial, max } => {
            ("decorrelated", object([("initial", span(initial)), ("max", span(max))]))
        }
    };
    let jitter = match backoff.jitter() {
        Jitter::None => json!("none"),
        Jitter::Full => json!("full"),
        Jitter::Equal => json!("equal"),
        Jitter::Ratio(ratio) => json!(ratio),
    };
    Value::Object(object([(name, Value::Object(shape)), ("jitter", jitter)]))
}

fn circuit_breaker(spec: &BreakerSpec) -> Value {
    let mut map = Map::new();
    classifier(&mut map, spec.classifier());
    let window = match spec.window() {
        WindowSpec::Count(count) => json!({ "count": count }),
        WindowSpec::Time(time) => json!({ "time": span(time) }),
    };
    map.insert("window".to_owned(), window);
    let rate = |rule: RateRule| json!({ "percent": rule.percent, "minCalls": rule.min_calls });
    let rules = spec.trip();
    let mut trip = Map::new();
    put(&mut trip, "failureRate", rules.failure_rate.map(rate));
    put(&mut trip, "failures", rules.failures.map(|limit| json!(limit)));
    put(&mut trip, "consecutiveFailures", rules.consecutive_failures.map(|limit| json!(limit)));
    put(&mut trip, "slowCallRate", rules.slow_call_rate.map(|(rule, _)| rate(rule)));
    put(&mut trip, "slowCallDuration", rules.slow_call_rate.map(|(_, limit)| span(limit)));
    map.insert("trip".to_owned(), Value::Object(trip));
    map.insert("delay".to_owned(), span(spec.delay()));
    map.insert("delayFactor".to_owned(), json!(spec.delay_factor()));
    map.insert("delayMax".to_owned(), span(spec.delay_max()));
    map.insert("delayJitter".to_owned(), json!(spec.delay_jitter()));
    map.insert("respectRetryAfter".to_owned(), json!(spec.respect_retry_after()));
    map.insert("retryAfterMax".to_owned(), span(spec.retry_after_max()));
    let HalfOpenSpec { probes, concurrent_probes, successes, max_duration } = spec.half_open();
    let mut half_open = object([
        ("probes", json!(probes)),
        ("concurrentProbes", json!(concurrent_probes)),
        ("successes", json!(successes)),
    ]);
    put(&mut half_open, "maxDuration", max_duration.map(span));
    map.insert("halfOpen".to_owned(), Value::Object(half_open));
    put(&mut map, "ramp", spec.ramp().map(span));
    let mode = match spec.mode() {
        BreakerMode::Enforced => "enforced",
        BreakerMode::Shadow => "shadow",
        BreakerMode::Disabled => "disabled",
    };
    map.insert("mode".to_owned(), json!(mode));
    Value::Object(map)
}

fn fallback(spec: &FallbackSpec) -> Value {
    let mut map = Map::new();
    classifier(&mut map, spec.classifier());
    let (name, with) = match spec.with() {
        FallbackWith::Response(response) => {
            let mut with = object([("status", json!(response.status))]);
            put(&mut with, "headers", (!response.headers.is_empty()).then(|| json!(response.headers)));
            with.insert("body".to_owned(), json!(response.body));
            ("response", Value::Object(with))
        }
        FallbackWith::Error(text) => ("error", json!(text)),
        FallbackWith::Function(name) => ("function", json!(name)),
        FallbackWith::Target(target) => ("target", json!(target.as_str())),
        FallbackWith::Stale(stale) => (
            "stale",
            json!({
                "maxAge": span(stale.max_age),
                "maxEntries": stale.max_entries,
                "maxBodyBytes": stale.max_body_bytes,
            }),
        ),
    };
    map.insert(name.to_owned(), with);
    Value::Object(map)
}

fn bulkhead(spec: &BulkheadSpec) -> Value {
    let mut map = object([("maxConcurrent", json!(spec.max_concurrent())), ("maxWaiting", json!(spec.max_waiting()))]);
    put(&mut map, "maxWait", spec.max_wait().map(span));
    Value::Object(map)
}

fn rate_limiter(spec: &RateLimiterSpec) -> Value {
    let scope = match spec.scope() {
        RateScope::Instance => "instance",
        RateScope::Fleet => "fleet",
    };
    json!({
        "limit": spec.limit(),
        "period": span(spec.period()),
        "burst": spec.burst(),
        "maxWait": span(spec.max_wait()),
        "scope": scope,
    })
}

fn hedge(spec: &HedgeSpec) -> Value {
    let mut map = match spec.delay() {
        HedgeDelay::Fixed(delay) => object([("delay", span(delay))]),
        HedgeDelay::Quantile(quantile) => {
            object([("quantile", json!({ "quantile": quantile.share(), "warmUp": quantile.warm_up() }))])
        }
    };
    map.insert("maxHedges".to_owned(), json!(spec.max_hedges()));
    map.insert("budget".to_owned(), budget(spec.budget()));
    classifier(&mut map, spec.classifier());
    Value::Object(map)
}

fn concurrency_limit(spec: &ConcurrencyLimitSpec) -> Value {
    let mut map = object([("initial", json!(spec.initial())), ("min", json!(spec.min())), ("max", json!(spec.max()))]);
    classifier(&mut map, spec.classifier());
    Value::Object(map)
}

fn throttle(spec: &ThrottleSpec) -> Value {
    let mut map = object([
        ("multiplier", json!(spec.multiplier())),
        ("window", span(spec.window())),
        ("minCalls", json!(spec.min_calls())),
        ("maxRejectionPercent", json!(spec.max_rejection_percent())),
    ]);
    classifier(&mut map, spec.classifier());
    Value::Object(map)
}

fn cache(spec: &CacheSpec) -> Value {
    let mut map = object([
        ("ttl", span(spec.ttl())),
        ("maxEntries", json!(spec.max_entries())),
        ("maxBodyBytes", json!(spec.max_body_bytes())),
        ("coalesce", json!(spec.coalesce())),
    ]);
    classifier(&mut map, spec.classifier());
    Value::Object(map)
}

fn chaos(spec: &ChaosSpec) -> Value {
    let mut map = object([("percent", json!(spec.percent()))]);
    put(&mut map, "latency", (!spec.latency().is_zero()).then(|| span(spec.latency())));
    match spec.fault() {
        Some(Fault::Status(status)) => put(&mut map, "status", Some(json!(status))),
        Some(Fault::Grpc(code)) => put(&mut map, "grpcCode", Some(json!(code.name()))),
        Some(Fault::Error(kind)) => put(&mut map, "error", Some(json!(kind.to_string()))),
        None => {}
    }
    let until = UNIX_EPOCH + Duration::from_secs(u64::try_from(spec.until().0).unwrap_or_default());
    map.insert("until".to_owned(), json!(humantime::format_rfc3339_seconds(until).to_string()));
    Value::Object(map)
}

fn coordination(coordination: &Coordination) -> Value {
    let mut map = object([("mode", json!(coordination.mode().name())), ("scope", json!(coordination.scope().name()))]);
    match coordination.mode() {
        CoordinationMode::Any => put(&mut map, "acknowledgeSingleWitness", Some(json!(true))),
        CoordinationMode::Balanced | CoordinationMode::Quorum => {
            put(&mut map, "quorumPercent", Some(json!(coordination.quorum_percent())));
        }
        CoordinationMode::Pooled | CoordinationMode::Local => {}
    }
    if coordination.mode() != CoordinationMode::Local {
        put(&mut map, "maxOpenPercent", Some(json!(coordination.max_open_percent())));
    }
    Value::Object(map)
}
