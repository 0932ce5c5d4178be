//! From the tree to the wire message: the strategies that bound calls, spread them, remember or trouble them.

use super::{
    at::{At, error_kind},
    wire::budget,
};
use crate::v1;

pub(super) fn bulkhead(at: At<'_>) -> v1::Bulkhead {
    v1::Bulkhead {
        max_concurrent: at.whole("maxConcurrent").unwrap_or_default(),
        max_waiting: at.whole("maxWaiting").unwrap_or_default(),
        max_wait: at.span("maxWait"),
    }
}

pub(super) fn rate_limiter(at: At<'_>) -> v1::RateLimiter {
    v1::RateLimiter {
        limit: at.whole("limit").unwrap_or_default(),
        period: at.span("period"),
        burst: at.whole("burst"),
        max_wait: at.span("maxWait"),
        scope: match at.text("scope").as_str() {
            "fleet" => v1::RateScope::Fleet.into(),
            _ => v1::RateScope::Instance.into(),
        },
    }
}

pub(super) fn hedge(at: At<'_>) -> v1::Hedge {
    use v1::hedge::Delay;
    let (budget, no_budget) = budget(at);
    let inner = at.at("quantile");
    let quantile = at.number("quantile").or_else(|| inner.number("quantile"));
    let quantile = quantile.map(|quantile| v1::Quantile { quantile, warm_up: inner.whole("warmUp") });
    v1::Hedge {
        delay: at.span("delay").map(Delay::Fixed).or_else(|| quantile.map(Delay::Quantile)),
        max_hedges: at.whole("maxHedges"),
        budget,
        no_budget,
        failure_when: at.conditions("failureWhen"),
        ignore_when: at.conditions("ignoreWhen"),
    }
}

pub(super) fn concurrency_limit(at: At<'_>) -> v1::ConcurrencyLimit {
    v1::ConcurrencyLimit {
        initial: at.whole("initial"),
        min: at.whole("min"),
        max: at.whole("max"),
        failure_when: at.conditions("failureWhen"),
        ignore_when: at.conditions("ignoreWhen"),
    }
}

pub(super) fn throttle(at: At<'_>) -> v1::Throttle {
    v1::Throttle {
        multiplier: at.number("multiplier"),
        window: at.span("window"),
        min_calls: at.whole("minCalls"),
        max_rejection_percent: at.whole("maxRejectionPercent"),
        failure_when: at.conditions("failureWhen"),
        ignore_when: at.conditions("ignoreWhen"),
    }
}

pub(super) fn cache(at: At<'_>) -> v1::Cache {
    v1::Cache {
        ttl: at.span("ttl"),
        max_entries: at.whole("maxEntries"),
        max_body_bytes: at.whole("maxBodyBytes"),
        coalesce: at.flag("coalesce"),
        failure_when: at.conditions("failureWhen"),
        ignore_when: at.conditions("ignoreWhen"),
    }
}

pub(super) fn chaos(at: At<'_>) -> v1::Chaos {
    use v1::chaos::Fault;
    let status = at.whole("status").map(Fault::Status);
    let code = at.value("grpcCode").map(|code| Fault::GrpcCode(code.to_owned()));
    let error = at.value("error").map(|word| Fault::Error(error_kind(word).into()));
    v1::Chaos {
        percent: at.number("percent").unwrap_or_default(),
        latency: at.span("latency"),
        fault: status.or(code).or(error),
        until: at.date("until"),
    }
}
