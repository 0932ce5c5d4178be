//! What a caller of a generated client gets when a policy refuses the call: a status that says so in a way that programs can switch on,
//! so that whoever is further out does not take it for a failure of the target.

use ::tonic::{Code, Status};
use fusebox_policy::outcome::{Refuser, Rejection, RejectionReason};
use tonic_types::{ErrorDetails, StatusExt as _};

/// The domain of the `google.rpc.ErrorInfo`, as in the control plane's own errors.
const DOMAIN: &str = "fusebox";

/// The code, and the reason in the `ErrorInfo`.
const fn told(reason: RejectionReason) -> (Code, &'static str) {
    match reason.refuser() {
        Refuser::CircuitBreaker => (Code::Unavailable, "BREAKER_OPEN"),
        Refuser::Bulkhead => (Code::Unavailable, "BULKHEAD_FULL"),
        Refuser::RateLimiter => (Code::ResourceExhausted, "RATE_EXCEEDED"),
        Refuser::ConcurrencyLimit => (Code::Unavailable, "CONCURRENCY_LIMIT"),
        Refuser::Throttle => (Code::Unavailable, "THROTTLED"),
    }
}

/// The status of a refused call: `ErrorInfo` with policy, strategy and state, and `RetryInfo` where it is known when another try may pass.
pub(super) fn status(rejection: &Rejection, message: String) -> Status {
    let (code, reason) = told(rejection.reason);
    let facts = [
        ("policy", rejection.policy.to_string()),
        ("strategy", rejection.strategy.to_string()),
        ("state", rejection.reason.to_string()),
    ];
    let facts = facts.map(|(name, value)| (name.to_owned(), value));
    let mut details = ErrorDetails::with_error_info(reason, DOMAIN, facts);
    if let Some(after) = rejection.retry_after() {
        details.set_retry_info(Some(after));
    }
    Status::with_error_details(code, message, details)
}
