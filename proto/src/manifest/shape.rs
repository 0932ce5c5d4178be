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
    /// A point of the calendar: `2027-01-01T00:00:00Z`.
    Date,
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
    /// A map with at most one of the latter fields, and any of the former.
    Choosing(&'static [Field], &'static [Field]),
    /// A map with exactly one of the latter fields, and any of the former.
    Element(&'static [Field], &'static [Field]),
    /// The first, where the value is a scalar; else the second.
    Either(&'static Self, &'static Self),
    /// What programs print of a stored policy: whatever stands there is not looked at.
    Output(&'static Self),
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
    field("status", Kind::Map(STATUS), "Output only: what became of the policy. Ignored where a manifest is read."),
]);

const STATUS: &[Field] = &[
    field("revision", Kind::Output(&Kind::Whole), "Output only: number of the change that made it what it is."),
    field("etag", Kind::Output(&Kind::Text), "Output only: for --if-match."),
    field("createTime", Kind::Output(&Kind::Date), "Output only: when it was created."),
    field("updateTime", Kind::Output(&Kind::Date), "Output only: when it was last changed."),
    field(
        "reconciling",
        Kind::Output(&Kind::Bool),
        "Output only: some connected replicas do not run this revision yet.",
    ),
    field("instances", Kind::Output(&Kind::Whole), "Output only: connected replicas that it concerns."),
    field("currentInstances", Kind::Output(&Kind::Whole), "Output only: those that run this revision."),
    field("rejectingInstances", Kind::Output(&Kind::Whole), "Output only: those that refused it."),
];

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
    field("bulkhead", Kind::Map(BULKHEAD), "Bounds how many calls run at the same time."),
    field("rateLimiter", Kind::Map(RATE_LIMITER), "Bounds how many calls begin in a time."),
    field(
        "hedge",
        Kind::Element(HEDGE, HEDGE_DELAY),
        "Tries again before the first try has ended; the first outcome that is no failure counts.",
    ),
    field(
        "concurrencyLimit",
        Kind::Map(CONCURRENCY_LIMIT),
        "Finds by itself how many calls the target can take at the same time.",
    ),
    field("throttle", Kind::Map(THROTTLE), "Refuses calls in the measure in which the target refuses them."),
    field("cache", Kind::Map(CACHE), "Answers from memory; equal requests in flight share one call."),
    field(
        "chaos",
        Kind::Choosing(CHAOS, CHAOS_FAULT),
        "Trouble on purpose, in processes that have opted in, until a date.",
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

const BULKHEAD: &[Field] = &[
    required("maxConcurrent", Kind::Whole, "Calls that may run at the same time, 1 to 1000000."),
    field("maxWaiting", Kind::Whole, "Calls that may wait for a place. Default: 0."),
    field("maxWait", Kind::Duration, "How long one may wait; needs maxWaiting. Default: as long as its caller does."),
];

const RATE_LIMITER: &[Field] = &[
    required("limit", Kind::Whole, "Calls per period, at least 1."),
    field("period", Kind::Duration, "The time that the limit is for, at most 24h. Default: 1s."),
    field("burst", Kind::Whole, "Calls that may begin at once after a rest, 1 to limit. Default: 1, which is smooth."),
    field("maxWait", Kind::Duration, "How long a call may wait for its turn. Default: not at all."),
    field(
        "scope",
        Kind::Choice(&["instance", "fleet"]),
        "Over what the limit is counted. Default: instance, where each replica has the whole limit. With fleet the control plane divides it over the replicas of the caller by demand; a replica that was never told its part has the whole limit, one that has lost the control plane at most the limit divided by the number of replicas.",
    ),
];

const HEDGE_DELAY: &[Field] = &[
    field("delay", Kind::Duration, "A further try begins this long after the one before it; 0s: all at once."),
    field(
        "quantile",
        Kind::Either(&Kind::Number, &Kind::Map(QUANTILE)),
        "A further try begins when this share of the latest calls had ended, 0.5 to 0.999.",
    ),
];

const QUANTILE: &[Field] = &[
    required("quantile", Kind::Number, "The share, 0.5 to 0.999."),
    field("warmUp", Kind::Whole, "Calls that are seen before anything is hedged. Default: 100."),
];

const HEDGE: &[Field] = &[
    field("maxHedges", Kind::Whole, "Tries beside the first one, 1 to 10. Default: 1."),
    field(
        "budget",
        Kind::Either(&Kind::Choice(&["none"]), &Kind::Map(BUDGET)),
        "Bound on the hedges and retries of a target together, or none. Default: ratio 0.2, minPerSecond 3.",
    ),
    field("failureWhen", FAILURE_WHEN, "Which outcomes don't win. Default: any failure or rejection."),
    field("ignoreWhen", FAILURE_WHEN, "Which outcomes win although they look like failures; read before failureWhen."),
];

const CONCURRENCY_LIMIT: &[Field] = &[
    field("initial", Kind::Whole, "Where it begins. Default: 20."),
    field("min", Kind::Whole, "It never falls below. Default: 4."),
    field("max", Kind::Whole, "It never rises above. Default: 200."),
    field(
        "failureWhen",
        FAILURE_WHEN,
        "Which outcomes mean too much load. Default: timeouts, 429, 503, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED.",
    ),
    field("ignoreWhen", FAILURE_WHEN, "Which outcomes say nothing about load; read before failureWhen."),
];

const THROTTLE: &[Field] = &[
    field(
        "multiplier",
        Kind::Number,
        "Calls that are sent for each one that the target accepts, before any is refused, 1 to 100. Default: 2.",
    ),
    field("window", Kind::Duration, "Over which calls, 1s to 1h. Default: 2m."),
    field("minCalls", Kind::Whole, "Fewer calls than this in the window: nothing is refused. Default: 10."),
    field("maxRejectionPercent", Kind::Whole, "Most calls refused, 1 to 100. Default: 90."),
    field(
        "failureWhen",
        FAILURE_WHEN,
        "Which outcomes are refusals. Default: timeouts, 429, 503, RESOURCE_EXHAUSTED, DEADLINE_EXCEEDED.",
    ),
    field("ignoreWhen", FAILURE_WHEN, "Which outcomes count neither way; read before failureWhen."),
];

const CACHE: &[Field] = &[
    required("ttl", Kind::Duration, "How long an answer is good."),
    field("maxEntries", Kind::Whole, "Answers kept, 1 to 1000000. Default: 1000."),
    field("maxBodyBytes", Kind::Whole, "Largest body kept. Default: 65536."),
    field("coalesce", Kind::Bool, "Whether equal requests in flight wait for the first one. Default: true."),
    field("failureWhen", FAILURE_WHEN, "What is not kept. Default: any failure or rejection."),
    field("ignoreWhen", FAILURE_WHEN, "Not kept either; read before failureWhen."),
];

const CHAOS: &[Field] = &[
    required("percent", Kind::Number, "Troubled calls, above 0 and at most 100."),
    field("latency", Kind::Duration, "By how much a troubled call is delayed, at most 1h. Default: not at all."),
    required("until", Kind::Date, "When it ends: 2027-01-01T00:00:00Z."),
];

const CHAOS_FAULT: &[Field] = &[
    field("status", Kind::Whole, "A troubled call ends in a response with this HTTP status."),
    field("grpcCode", Kind::Text, "A troubled call ends in this gRPC code."),
    field(
        "error",
        Kind::Choice(&["connect", "reset", "timeout", "body", "tls", "request", "other"]),
        "A troubled call ends in an error of this kind.",
    ),
];

const COORDINATION: &[Field] = &[
    field("mode", Kind::Choice(MODES), "When the fleet opens. Default: balanced."),
    field("scope", Kind::Choice(&["zone", "fleet"]), "Who opens together. Default: zone."),
    field("acknowledgeSingleWitness", Kind::Bool, "Must be true with mode any. Default: false."),
    field("quorumPercent", Kind::Whole, "Share of the eligible replicas that make a quorum. Default: 30."),
    field(
        "maxOpenPercent",
        Kind::Whole,
        "Share of a caller's targets that the fleet may have open at once, from four targets up. Default: 50; 100: no cap.",
    ),
];
