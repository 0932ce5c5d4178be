//! Spans of calls and attempts, for traces.
//!
//! At level DEBUG, target `fusebox`: `fusebox.call` with one `fusebox.attempt` for each attempt inside. Where nobody listens, it is
//! one look at a number.

use fusebox_policy::{
    Outcome,
    pipeline::{AttemptKind, Call},
};
use tracing::{Span, field};

use super::live::Live;

/// Whether anybody wants spans.
#[inline]
pub(super) fn wanted() -> bool {
    tracing::enabled!(target: "fusebox", tracing::Level::DEBUG)
}

/// The span of a call.
pub(super) fn call(live: &Live) -> Span {
    tracing::debug_span!(
        target: "fusebox",
        "fusebox.call",
        otel.kind = "internal",
        policy = %live.policy.name,
        revision = live.policy.revision.0,
        target = %live.policy.definition.selector.target(),
        attempts = field::Empty,
        outcome = field::Empty,
    )
}

/// The span of the attempt that begins.
pub(super) fn attempt(call: &Call) -> Span {
    let kind = match call.attempt_kind() {
        AttemptKind::First => "first",
        AttemptKind::Retry => "retry",
        AttemptKind::Hedge => "hedge",
    };
    tracing::debug_span!(
        target: "fusebox",
        "fusebox.attempt",
        otel.kind = "client",
        resilience.attempt = call.attempts(),
        resilience.attempt.kind = kind,
        http.request.resend_count = call.attempts().saturating_sub(1),
        outcome = field::Empty,
    )
}

/// Says how it ended.
pub(super) fn ended(span: &Span, outcome: Outcome, attempts: u32) {
    if !span.is_disabled() {
        span.record("attempts", attempts);
        span.record("outcome", field::display(outcome));
    }
}
