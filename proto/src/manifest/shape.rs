//! The form of a manifest, described once: which fields there are, of what kind, and what they mean.

/// What a value may be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    /// Any text.
    Text,
    /// This text and no other.
    Exactly(&'static str),
    /// As people write it: `100ms`, `1m30s`.
    Duration,
    /// A whole number, not negative.
    Whole,
    /// A number.
    Number,
    /// `true` or `false`.
    Bool,
    /// One of these words.
    Choice(&'static [&'static str]),
    /// A status, as text or number.
    Status,
    /// `none`, `full`, `equal`, or a number: a ratio.
    Jitter,
    /// A map from text to text.
    Texts,
    /// A list.
    List(&'static Self),
    /// A map with these fields.
    Map(&'static [Field]),
    /// A map with exactly one of these fields.
    OneOf(&'static [Field]),
    /// A map with exactly one of the latter fields, and any of the former.
    Element(&'static [Field], &'static [Field]),
    /// The first, where the value is a scalar; else the second.
    Either(&'static Self, &'static Self),
}

/// A field of a map.
#[derive(Clone, Copy, Debug)]
pub(super) struct Field {
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    pub(super) required: bool,
    /// What it means, and its default.
    pub(super) doc: &'static str,
}

const fn field(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, required: false, doc }
}

const fn required(name: &'static str, kind: Kind, doc: &'static str) -> Field {
    Field { name, kind, required: true, doc }
}

pub(super) const API_VERSION: &str = "fusebox/v1";
pub(super) const ERROR_KINDS: &[&str] =
    &["any", "connect", "reset", "timeout", "body", "tls", "request", "rejected", "other"];
pub(super) const MODES: &[&str] = &["balanced", "quorum", "pooled", "any", "local"];

pub(super) const MANIFEST: Kind = Kind::Map(&[
    required("apiVersion", Kind::Exactly(API_VERSION), "Version of this form."),
    required("kind", Kind::Exactly("Policy"), "What it describes."),
    required("metadata", Kind::Map(METADATA), "Name and labels."),
    required("spec", Kind::Map(SPEC), "What is asked for."),
]);

const METADATA: &[Field] = &[
    required(
        "name",
        Kind::Text,
        "Name of the policy: lower-case letters, digits and inner '-', at most 63 characters.",
    ),
    field("namespace", Kind::Text, "Namespace of the policy. Default: default."),
    field("labels", Kind::Texts, "Free labels."),
];

const SPEC: &[Field] = &[
    required("match", Kind::Map(MATCH), "The calls that the policy is for. The most specific policy wins."),
    required(
        "pipeline",
        Kind::List(&Kind::Element(STRATEGY, STRATEGIES)),
        "Strategies, outermost first: [fallback, retry, circuitBreaker, timeout] is fallback(retry(circuitBreaker(timeout(call)))).",
    ),
    field(
        "coordination",
        Kind::Map(COORDINATION),
        "How replicas share the state of circuit breakers. Default: balanced, zone.",
    ),
    field("onChange", Kind::Choice(&["keep", "reset"]), "What a changed definition does to live state. Default: keep."),
];

const MATCH: &[Field] = &[
    field("caller", Kind::Text, "The calling service. Default: any."),
    required("target", Kind::Text, "The service that is called."),
    field(
        "routes",
        Kind::List(&Kind::Text),
        "Routes, any of which matches: \"GET /path\", \"* /path/*\", \"package.Service/Method\". Default: every route.",
    ),
];

const STRATEGY: &[Field] = &[field(
    "name",
    Kind::Text,
    "Name inside the pipeline, for metrics and breaker keys. Default: the kind in kebab case.",
)];

const STRATEGIES: &[Field] = &[
    field("timeout", Kind::Either(&Kind::Duration, &Kind::Map(TIMEOUT)), "Limits how long the inside may take."),
    field("retry", Kind::Map(RETRY), "Runs the inside again when another try can help."),
    field("circuitBreaker", Kind::Map(CIRCUIT_BREAKER), "Stops calling a target that fails."),
    field(
        "fallback",
        Kind::Map(FALLBACK),
        "Answers in place of a failed inside: one of response, error, function, target, stale.",
    ),
];

const TIMEOUT: &[Field] = &[
    required("duration", Kind::Duration, "The limit."),
    field(
        "scope",
        Kind::Choice(&["head", "body"]),
        "Until the response head, or the whole body, has arrived. Default: head.",
    ),
    field("propagateHeader", Kind::Text, "Header that carries the remaining milliseconds downstream. Default: none."),
];

const CONDITIONS: &[Field] = &[
    field("statuses", Kind::List(&Kind::Status), "HTTP statuses: \"503\", \"5xx\", \"500-504\"."),
    field("grpcCodes", Kind::List(&Kind::Text), "gRPC codes: \"UNAVAILABLE\"."),
    field("errors", Kind::List(&Kind::Choice(ERROR_KINDS)), "Kinds of error."),
    field("headers", Kind::List(&Kind::Map(HEADER)), "Response headers."),
    field("slowerThan", Kind::Duration, "Strictly longer than this."),
];

const HEADER: &[Field] = &[
    required("name", Kind::Text, "Name of the header."),
    field("value", Kind::Text, "The exact value. Default: any."),
];

const FAILURE_WHEN: Kind = Kind::Map(CONDITIONS);

const RETRY: &[Field] = &[
    field("maxAttempts", Kind::Whole, "Attempts in total, the first included, 1 to 1000. Default: 3."),
    field("unlimited", Kind::Bool, "No limit on attempts; only together with maxDuration. Default: false."),
    field("maxDuration", Kind::Duration, "Limit over all attempts and waits. Default: none."),
    field(
        "backoff",
        Kind::Either(&Kind::Duration, &Kind::Element(JITTER, BACKOFF)),
        "The wait between attempts; a duration alone is a fixed wait. Default: exponential from 100ms, factor 2, at most 10s, full jitter.",
    ),
    field(
        "failureWhen",
        FAILURE_WHEN,
        "What is retried. Default: connect, reset, timeout, other errors, 429, 502-504, UNAVAILABLE, RESOURCE_EXHAUSTED.",
    ),
    field("ignoreWhen", FAILURE_WHEN, "What is never retried; read before failureWhen."),
    field("nonIdempotent", Kind::Bool, "Retry requests that are not idempotent too. Default: false."),
    field("respectRetryAfter", Kind::Bool, "Honour Retry-After and gRPC pushback. Default: true."),
    field("retryAfterMax", Kind::Duration, "An asked wait above this ends the call. Default: 60s."),
    field("waitForBreaker", Kind::Bool, "Wait for an inner breaker whose open time is known. Default: false."),
    field(
        "budget",
        Kind::Either(&Kind::Choice(&["none"]), &Kind::Map(BUDGET)),
        "Bound on the retries of a target, or none. Default: ratio 0.2, minPerSecond 3.",
    ),
    field(
        "onExhausted",
        Kind::Choice(&["lastOutcome", "error"]),
        "What the caller gets after the last attempt. Default: lastOutcome.",
    ),
];

const BUDGET: &[Field] = &[
    field("ratio", Kind::Number, "Retries per call over the last 10s, 0 to 1. Default: 0.2."),
    field("minPerSecond", Kind::Whole, "Retries per second that are always allowed. Default: 3."),
];

const JITTER: &[Field] = &[field(
    "jitter",
    Kind::Jitter,
    "Spread of the wait: none, full, equal, or a ratio from 0 to 1. Default: full for exponential, none otherwise.",
)];

const BACKOFF: &[Field] = &[
    field("fixed", Kind::Map(FIXED), "The same wait each time."),
    field("linear", Kind::Map(LINEAR), "A wait that grows by a step."),
    field("exponential", Kind::Map(EXPONENTIAL), "A wait that grows by a factor."),
    field("random", Kind::Map(RANDOM), "A wait drawn between two bounds."),
    field("decorrelated", Kind::Map(DECORRELATED), "A wait drawn between initial and three times the previous one."),
];

const FIXED: &[Field] = &[required("delay", Kind::Duration, "The wait.")];
const LINEAR: &[Field] = &[
    required("initial", Kind::Duration, "The first wait."),
    field("step", Kind::Duration, "What each further wait adds. Default: initial."),
    field("max", Kind::Duration, "Upper bound. Default: none."),
];
const EXPONENTIAL: &[Field] = &[
    required("initial", Kind::Duration, "The first wait."),
    field("factor", Kind::Number, "At least 1. Default: 2."),
    field("max", Kind::Duration, "Upper bound. Default: none."),
];
const RANDOM: &[Field] =
    &[required("min", Kind::Duration, "Lower bound."), required("max", Kind::Duration, "Upper bound.")];
const DECORRELATED: &[Field] = &[
    required("initial", Kind::Duration, "The first wait and the lower bound."),
    required("max", Kind::Duration, "Upper bound."),
];

const CIRCUIT_BREAKER: &[Field] = &[
    field(
        "failureWhen",
        FAILURE_WHEN,
        "What counts as a failure. Default: 5xx but 501, the gRPC codes of an outage, and every error but tls, request and rejected.",
    ),
    field("ignoreWhen", FAILURE_WHEN, "What counts neither way; read before failureWhen."),
    field("window", Kind::OneOf(WINDOW), "Over which calls rates are taken. Default: time 10s."),
    field(
        "trip",
        Kind::Map(TRIP),
        "When it opens: any rule that is set. Default: failureRate 50 percent of at least 20 calls, consecutiveFailures 5.",
    ),
    field("delay", Kind::Duration, "How long it stays open. Default: 5s."),
    field("delayFactor", Kind::Number, "Growth for each further opening without a close in between. Default: 2."),
    field("delayMax", Kind::Duration, "Upper bound of the grown delay. Default: 60s, or delay if longer."),
    field("delayJitter", Kind::Number, "Share of the delay that is added at random, 0 to 1. Default: 0.1."),
    field("respectRetryAfter", Kind::Bool, "A Retry-After on the outcome that trips sets the delay. Default: true."),
    field("retryAfterMax", Kind::Duration, "Upper bound of that. Default: 60s."),
    field(
        "halfOpen",
        Kind::Map(HALF_OPEN),
        "How it tests whether the target is back. With coordination, the numbers of the whole fleet.",
    ),
    field(
        "ramp",
        Kind::Duration,
        "After closing, admit a share that rises from 10 percent to all over this time. Default: none.",
    ),
    field("mode", Kind::Choice(&["enforced", "shadow", "disabled"]), "Whether it acts. Default: enforced."),
];

const WINDOW: &[Field] = &[
    field("count", Kind::Whole, "The last this many calls, 1 to 10000."),
    field("time", Kind::Duration, "The calls of this long, 100ms to 1h."),
];

const TRIP: &[Field] = &[
    field("failureRate", Kind::Map(RATE), "Share of failures."),
    field("failures", Kind::Whole, "Failures in the window."),
    field("consecutiveFailures", Kind::Whole, "Failures in a row."),
    field("slowCallRate", Kind::Map(RATE), "Share of slow calls."),
    field("slowCallDuration", Kind::Duration, "Slow is strictly longer than this. Required with slowCallRate."),
];

const RATE: &[Field] = &[
    required("percent", Kind::Whole, "1 to 100; reached means tripped."),
    field("minCalls", Kind::Whole, "Fewer calls than this never trip. Default: 20."),
];

const HALF_OPEN: &[Field] = &[
    field("probes", Kind::Whole, "Probes in total per half-open period. Default: 3."),
    field("concurrentProbes", Kind::Whole, "Probes in flight at the same time. Default: 1."),
    field("successes", Kind::Whole, "Successes that close it. Default: probes."),
    field("maxDuration", Kind::Duration, "A longer half-open period opens again. Default: none."),
];

const FALLBACK: &[Field] = &[
    field("failureWhen", FAILURE_WHEN, "On which outcomes. Default: any failure or rejection."),
    field("ignoreWhen", FAILURE_WHEN, "On which outcomes never; read before failureWhen."),
    field("response", Kind::Map(RESPONSE), "A fixed response."),
    field("error", Kind::Text, "An error with this text."),
    field("function", Kind::Text, "A function that the service registered under this name."),
    field("target", Kind::Text, "The same call to another target."),
    field("stale", Kind::Map(STALE), "The last good response of the same request."),
];

const RESPONSE: &[Field] = &[
    field("status", Kind::Whole, "HTTP status. Default: 200."),
    field("headers", Kind::Texts, "Headers."),
    field("body", Kind::Text, "Body, at most 64 KiB. Default: empty."),
];

const STALE: &[Field] = &[
    required("maxAge", Kind::Duration, "Older ones are not used."),
    field("maxEntries", Kind::Whole, "Responses kept per target. Default: 100."),
    field("maxBodyBytes", Kind::Whole, "Largest body kept. Default: 65536."),
];

const COORDINATION: &[Field] = &[
    field("mode", Kind::Choice(MODES), "When the fleet opens. Default: balanced."),
    field("scope", Kind::Choice(&["zone", "fleet"]), "Who opens together. Default: zone."),
    field("acknowledgeSingleWitness", Kind::Bool, "Must be true with mode any. Default: false."),
    field("quorumPercent", Kind::Whole, "Share of the eligible replicas that make a quorum. Default: 30."),
];
