//! From the tree to the domain: checks the form, builds the wire message, lets the domain judge it, and puts every fault at its place.

use std::{collections::BTreeMap, time::Duration};

use fusebox_policy::{Invalid, Namespace, Policy};

use super::{
    shape::{Field, Kind, MANIFEST},
    tree::{Node, Tree},
};
use crate::{duration, v1};

/// A fault and its place.
pub(super) struct Wrong {
    pub(super) line: usize,
    pub(super) column: usize,
    pub(super) path: String,
    pub(super) reason: String,
}

/// Reads one document.
pub(super) fn policy(tree: &Tree) -> Result<Policy, Vec<Wrong>> {
    let mut form = Form { wrong: Vec::new() };
    form.check(tree, MANIFEST, "");
    if !form.wrong.is_empty() {
        // What is there and well-formed is judged too, so that one round shows all there is to mend. Faults of the domain at places
        // that the form has already complained about would only repeat it.
        if let Err(invalid) = Policy::try_from(wire(tree)) {
            form.add_domain(tree, &invalid);
        }
        return Err(form.sorted());
    }
    Policy::try_from(wire(tree)).map_err(|invalid| {
        form.add_domain(tree, &invalid);
        form.sorted()
    })
}

struct Form {
    wrong: Vec<Wrong>,
}

impl Form {
    fn sorted(mut self) -> Vec<Wrong> {
        self.wrong.sort_by_key(|wrong| (wrong.line, wrong.column));
        self.wrong
    }

    fn push(&mut self, line: usize, column: usize, path: &str, reason: String) {
        self.wrong.push(Wrong { line, column, path: path.to_owned(), reason });
    }

    fn at(&mut self, tree: &Tree, path: &str, reason: String) {
        self.push(tree.line, tree.column, path, reason);
    }

    fn add_domain(&mut self, tree: &Tree, invalid: &Invalid) {
        for violation in invalid.violations() {
            let path = match violation.field.as_str() {
                "name" => "metadata.name",
                "labels" => "metadata.labels",
                other => other,
            };
            let known = |wrong: &Wrong| path.starts_with(&wrong.path) || wrong.path.starts_with(path);
            // Faults of the form come first; a fault of the domain at the same place would be its echo.
            if self.wrong.iter().any(known) {
                continue;
            }
            let (line, column) = tree.locate(path);
            self.push(line, column, path, violation.reason.clone());
        }
    }

    fn check(&mut self, tree: &Tree, kind: Kind, path: &str) {
        match kind {
            Kind::Text => self.scalar(tree, path, "text", |_| true),
            Kind::Exactly(wanted) => self.scalar(tree, path, &format!("\"{wanted}\""), |text| text == wanted),
            Kind::Duration => self.duration(tree, path),
            Kind::Whole => self.scalar(tree, path, "a whole number, not negative", |text| text.parse::<u32>().is_ok()),
            Kind::Number => self.scalar(tree, path, "a number", |text| text.parse::<f64>().is_ok_and(f64::is_finite)),
            Kind::Bool => self.scalar(tree, path, "true or false", |text| matches!(text, "true" | "false")),
            Kind::Choice(words) => self.choice(tree, path, words),
            Kind::Status => self.scalar(tree, path, "a status: \"503\", \"5xx\" or \"500-504\"", |_| true),
            Kind::Jitter => self.scalar(tree, path, "none, full, equal or a ratio from 0 to 1", |text| {
                matches!(text, "none" | "full" | "equal") || text.parse::<f64>().is_ok()
            }),
            Kind::Texts => match &tree.node {
                Node::Map(entries) => {
                    for entry in entries {
                        self.check(&entry.value, Kind::Text, &join(path, &entry.key));
                    }
                }
                Node::Scalar { .. } | Node::List(_) => self.must_be(tree, path, "a map"),
            },
            Kind::List(inner) => match &tree.node {
                Node::List(items) => {
                    for (index, item) in items.iter().enumerate() {
                        self.check(item, *inner, &format!("{path}[{index}]"));
                    }
                }
                Node::Scalar { .. } | Node::Map(_) => self.must_be(tree, path, "a list"),
            },
            Kind::Map(fields) => self.map(tree, path, &[fields]),
            Kind::OneOf(kinds) => {
                self.map(tree, path, &[kinds]);
                self.exactly_one(tree, path, kinds);
            }
            Kind::Element(shared, kinds) => {
                self.map(tree, path, &[shared, kinds]);
                self.exactly_one(tree, path, kinds);
            }
            Kind::Either(scalar, other) => {
                let simple = matches!(tree.node, Node::Scalar { .. }) && !tree.is_null();
                self.check(tree, if simple { *scalar } else { *other }, path);
            }
        }
    }

    fn must_be(&mut self, tree: &Tree, path: &str, wanted: &str) {
        let found = match &tree.node {
            _ if tree.is_null() => "nothing".to_owned(),
            Node::Scalar { text, .. } => format!("{text:?}"),
            Node::List(_) | Node::Map(_) => tree.kind().to_owned(),
        };
        self.at(tree, path, format!("must be {wanted}, is {found}"));
    }

    fn scalar(&mut self, tree: &Tree, path: &str, wanted: &str, fits: impl Fn(&str) -> bool) {
        match &tree.node {
            Node::Scalar { text, .. } if !tree.is_null() && fits(text) => {}
            Node::Scalar { .. } | Node::List(_) | Node::Map(_) => self.must_be(tree, path, wanted),
        }
    }

    fn duration(&mut self, tree: &Tree, path: &str) {
        match scalar(tree) {
            Some(text) if read_duration(text).is_some() => {}
            Some(text) if text.parse::<f64>().is_ok_and(|number| number >= 0.0) => {
                let reason = format!("{text} has no unit: write {text}s or {text}ms");
                self.at(tree, path, reason);
            }
            Some(text) if text.starts_with('-') => {
                self.at(tree, path, format!("must not be negative, is {text}"));
            }
            Some(_) | None => self.must_be(tree, path, "a duration like 100ms, 10s or 1m30s"),
        }
    }

    fn choice(&mut self, tree: &Tree, path: &str, words: &[&str]) {
        match scalar(tree) {
            Some(text) if words.contains(&text) => {}
            Some(text) => {
                let list = words.join(", ");
                let hint = nearest(text, words).map(|word| format!(": did you mean {word}?")).unwrap_or_default();
                self.at(tree, path, format!("must be one of {list}, is {text:?}{hint}"));
            }
            None => self.must_be(tree, path, &format!("one of {}", words.join(", "))),
        }
    }

    fn map(&mut self, tree: &Tree, path: &str, parts: &[&[Field]]) {
        let fields = || parts.iter().copied().flatten();
        let Node::Map(entries) = &tree.node else {
            self.must_be(tree, path, "a map");
            return;
        };
        for entry in entries {
            let inner = join(path, &entry.key);
            match fields().find(|field| field.name == entry.key) {
                // `circuitBreaker:` with nothing behind it is as good as `circuitBreaker: {}`.
                Some(Field { kind: Kind::Map(known), .. })
                    if entry.value.is_null() && known.iter().all(|field| !field.required) => {}
                Some(field) => self.check(&entry.value, field.kind, &inner),
                None => {
                    let names: Vec<&str> = fields().map(|field| field.name).collect();
                    let hint = nearest(&entry.key, &names).map_or_else(
                        || format!("known are {}", names.join(", ")),
                        |name| format!("did you mean {name}?"),
                    );
                    self.push(entry.line, entry.column, &inner, format!("unknown field: {hint}"));
                }
            }
        }
        for field in fields().filter(|field| field.required) {
            if entries.iter().all(|entry| entry.key != field.name) {
                self.at(tree, &join(path, field.name), "is required".to_owned());
            }
        }
    }

    fn exactly_one(&mut self, tree: &Tree, path: &str, kinds: &[Field]) {
        let Node::Map(entries) = &tree.node else {
            return;
        };
        let present = entries.iter().filter(|entry| kinds.iter().any(|field| field.name == entry.key)).count();
        // An unknown field has been complained about: it is most likely the misspelt one.
        let unknown =
            entries.len() > present && present == 0 && self.wrong.iter().any(|wrong| wrong.path.starts_with(path));
        if present != 1 && !unknown {
            let names: Vec<&str> = kinds.iter().map(|field| field.name).collect();
            self.at(tree, path, format!("must have exactly one of {}, has {present}", names.join(", ")));
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") }
}

/// The known word that was most likely meant.
fn nearest<'a>(text: &str, words: &[&'a str]) -> Option<&'a str> {
    let folded = |text: &str| text.to_lowercase().replace(['_', '-'], "");
    let text = folded(text);
    let distance = |word: &str| {
        let word: Vec<char> = folded(word).chars().collect();
        let mut row: Vec<usize> = (0..=word.len()).collect();
        for (line, letter) in text.chars().enumerate() {
            let mut corner = row[0];
            row[0] = line + 1;
            for column in 0..word.len() {
                let above = row[column + 1];
                let change = corner + usize::from(letter != word[column]);
                row[column + 1] = change.min(above + 1).min(row[column] + 1);
                corner = above;
            }
        }
        row[word.len()]
    };
    words
        .iter()
        .map(|word| (distance(word), *word))
        .filter(|(far, word)| *far <= 2.min(word.len() / 2))
        .min()
        .map(|(_, word)| word)
}

fn scalar(tree: &Tree) -> Option<&str> {
    match &tree.node {
        Node::Scalar { text, .. } if !tree.is_null() => Some(text),
        Node::Scalar { .. } | Node::List(_) | Node::Map(_) => None,
    }
}

fn read_duration(text: &str) -> Option<Duration> {
    // A bare zero needs no unit in humantime; here every duration has one.
    if text.bytes().all(|byte| byte.is_ascii_digit()) { None } else { humantime::parse_duration(text).ok() }
}

/// What is there, as a wire message. What is not well-formed is left out: the form has complained about it.
fn wire(tree: &Tree) -> v1::Policy {
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

/// A place in the tree that may not be there.
#[derive(Clone, Copy)]
struct At<'a>(Option<&'a Tree>);

impl<'a> At<'a> {
    fn at(self, key: &str) -> Self {
        At(self.0.and_then(|tree| tree.get(key)))
    }

    fn has(self, key: &str) -> bool {
        self.at(key).0.is_some()
    }

    fn value(self, key: &str) -> Option<&'a str> {
        self.at(key).0.and_then(scalar)
    }

    fn text(self, key: &str) -> String {
        self.value(key).unwrap_or_default().to_owned()
    }

    fn whole(self, key: &str) -> Option<u32> {
        self.value(key)?.parse().ok()
    }

    fn number(self, key: &str) -> Option<f64> {
        self.value(key)?.parse().ok()
    }

    fn flag(self, key: &str) -> Option<bool> {
        self.value(key)?.parse().ok()
    }

    fn span(self, key: &str) -> Option<prost_types::Duration> {
        self.value(key).and_then(read_duration).map(duration::to_wire)
    }

    fn list(self, key: &str) -> impl Iterator<Item = &'a Tree> + use<'a> {
        match self.at(key).0.map(|tree| &tree.node) {
            Some(Node::List(items)) => items.iter(),
            Some(Node::Scalar { .. } | Node::Map(_)) | None => [].iter(),
        }
    }

    fn texts(self, key: &str) -> BTreeMap<String, String> {
        match self.at(key).0.map(|tree| &tree.node) {
            Some(Node::Map(entries)) => {
                entries.iter().filter_map(|entry| Some((entry.key.clone(), scalar(&entry.value)?.to_owned()))).collect()
            }
            Some(Node::Scalar { .. } | Node::List(_)) | None => BTreeMap::new(),
        }
    }

    fn conditions(self, key: &str) -> Option<v1::Conditions> {
        let at = self.at(key);
        let words = |key: &str| at.list(key).filter_map(|item| scalar(item).map(ToOwned::to_owned)).collect::<Vec<_>>();
        self.has(key).then(|| v1::Conditions {
            statuses: words("statuses"),
            grpc_codes: words("grpcCodes"),
            errors: words("errors").iter().map(|word| error_kind(word).into()).collect(),
            headers: at
                .list("headers")
                .map(|item| v1::HeaderMatch { name: At(Some(item)).text("name"), value: At(Some(item)).text("value") })
                .collect(),
            slower_than: at.span("slowerThan"),
        })
    }
}

fn error_kind(word: &str) -> v1::ErrorKind {
    v1::ErrorKind::from_str_name(&format!("ERROR_KIND_{}", word.to_uppercase())).unwrap_or(v1::ErrorKind::Unspecified)
}

fn strategy(at: At<'_>) -> v1::Strategy {
    let kind = if at.has("timeout") {
        Some(v1::strategy::Kind::Timeout(timeout(at)))
    } else if at.has("retry") {
        Some(v1::strategy::Kind::Retry(retry(at.at("retry"))))
    } else if at.has("circuitBreaker") {
        Some(v1::strategy::Kind::CircuitBreaker(circuit_breaker(at.at("circuitBreaker"))))
    } else if at.has("fallback") {
        Some(v1::strategy::Kind::Fallback(fallback(at.at("fallback"))))
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
    let no_budget = at.value("budget") == Some("none");
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
        budget: (at.has("budget") && !no_budget).then(|| v1::RetryBudget {
            ratio: at.at("budget").number("ratio"),
            min_per_second: at.at("budget").whole("minPerSecond"),
        }),
        no_budget,
        on_exhausted: match at.text("onExhausted").as_str() {
            "error" => v1::OnExhausted::Error.into(),
            _ => v1::OnExhausted::LastOutcome.into(),
        },
    }
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
    }
}
