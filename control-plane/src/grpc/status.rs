//! The one place where errors become gRPC statuses.
//!
//! Every error carries `ErrorInfo` with a reason that programs can switch on; bad input carries one violation per field as well.

use std::{collections::HashMap, time::Duration};

use fusebox_policy::Invalid;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

use crate::{
    access::{Principal, Refusal, limits::TooMuch, rules::Rule, tokens::CreateError},
    filter::FilterError,
    policies::RollbackError,
    recovery::AdoptError,
    rollouts::{StepError, gates::Verdict, machine::Refused},
    sessions::admission::Busy,
    store::StoreError,
};

/// Whose reasons these are.
const DOMAIN: &str = "fusebox";
/// Violations in one answer: they travel in a header.
const MOST_VIOLATIONS: usize = 20;
/// Longest text in any part of an answer: bad input is quoted there.
const LONGEST_TEXT: usize = 300;
/// When to try again what failed for a passing cause.
const TRY_AGAIN: Duration = Duration::from_secs(1);

fn short(text: &str) -> String {
    match text.char_indices().nth(LONGEST_TEXT) {
        Some((end, _)) => format!("{}...", &text[..end]),
        None => text.to_owned(),
    }
}

fn with(code: Code, message: impl Into<String>, reason: &str, metadata: &[(&str, &str)]) -> Status {
    let metadata: HashMap<String, String> =
        metadata.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, metadata);
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) {
        details.set_retry_info(Some(TRY_AGAIN));
    }
    Status::with_error_details(code, message, details)
}

/// Bad fields, with their paths.
#[must_use]
pub fn invalid(invalid: &Invalid) -> Status {
    violations("POLICY_INVALID", invalid)
}

/// Bad fields of a request that holds no policy.
#[must_use]
pub fn invalid_request(invalid: &Invalid) -> Status {
    violations("REQUEST_INVALID", invalid)
}

fn violations(reason: &str, invalid: &Invalid) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info(reason, DOMAIN, HashMap::new());
    let violations = invalid.violations();
    for violation in violations.iter().take(MOST_VIOLATIONS) {
        details.add_bad_request_violation(short(&violation.field), short(&violation.reason));
    }
    if let Some(more) = violations.len().checked_sub(MOST_VIOLATIONS).filter(|more| *more > 0) {
        details.add_bad_request_violation("", format!("and {more} more"));
    }
    let message = match violations {
        [one] => one.to_string(),
        [first, ..] => format!("{first} (and {} more)", violations.len() - 1),
        [] => "invalid".to_owned(),
    };
    Status::with_error_details(Code::InvalidArgument, short(&message), details)
}

/// One bad field.
#[must_use]
pub fn invalid_field(field: &str, reason: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("FIELD_INVALID", DOMAIN, HashMap::new());
    details.add_bad_request_violation(field, short(reason));
    Status::with_error_details(Code::InvalidArgument, short(&format!("{field}: {reason}")), details)
}

/// A filter that can't be read.
#[must_use]
pub(crate) fn filter(error: &FilterError) -> Status {
    let mut details = ErrorDetails::new();
    let metadata = HashMap::from([("position".to_owned(), error.position.to_string())]);
    details.set_error_info("FILTER_INVALID", DOMAIN, metadata);
    details.add_bad_request_violation("filter", short(&error.to_string()));
    Status::with_error_details(Code::InvalidArgument, short(&format!("filter: {error}")), details)
}

/// A watch begins further back than is remembered.
#[must_use]
pub(crate) fn compacted(from: u64, oldest: u64) -> Status {
    let message =
        format!("{from} is too far back: the oldest that can be begun from is {oldest}; read everything anew");
    with(Code::OutOfRange, message, "REVISION_COMPACTED", &[("oldest", &oldest.to_string())])
}

/// A watch begins where the server has not been.
#[must_use]
pub(crate) fn revision_unknown(from: u64, newest: u64) -> Status {
    let message = format!("{from} has not been reached: the newest is {newest}; read everything anew");
    with(Code::OutOfRange, message, "REVISION_UNKNOWN", &[("newest", &newest.to_string())])
}

/// Something is not there.
#[must_use]
pub fn not_found(kind: &str, name: &str) -> Status {
    let mut details = ErrorDetails::new();
    let reason = format!("{}_NOT_FOUND", kind.to_uppercase());
    details.set_error_info(reason, DOMAIN, HashMap::from([("name".to_owned(), name.to_owned())]));
    details.set_resource_info(kind, name, "", "");
    Status::with_error_details(Code::NotFound, format!("there is no {kind} {name}"), details)
}

/// A passing trouble of the server.
#[must_use]
pub fn unavailable(reason: &str) -> Status {
    with(Code::Unavailable, reason, "UNAVAILABLE", &[])
}

/// The state of things does not allow it.
#[must_use]
pub fn failed_precondition(reason: &str) -> Status {
    with(Code::FailedPrecondition, reason, "FAILED_PRECONDITION", &[])
}

/// Too much of something.
#[must_use]
pub fn resource_exhausted(reason: &str) -> Status {
    with(Code::ResourceExhausted, reason, "RESOURCE_EXHAUSTED", &[])
}

/// Too many replicas connect at once.
#[must_use]
pub fn busy(busy: Busy) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("TOO_MANY_STREAMS", DOMAIN, HashMap::new());
    details.set_retry_info(Some(busy.after));
    Status::with_error_details(Code::ResourceExhausted, busy.to_string(), details)
}

/// Somebody is not known.
#[must_use]
pub fn unauthenticated(refusal: &Refusal) -> Status {
    let reason = match refusal {
        Refusal::Nothing => "CREDENTIALS_MISSING",
        Refusal::Malformed => "CREDENTIALS_MALFORMED",
        Refusal::UnknownToken => "TOKEN_UNKNOWN",
        Refusal::Expired => "CREDENTIALS_EXPIRED",
        Refusal::Revoked => "CREDENTIALS_REVOKED",
        Refusal::Nameless | Refusal::Unreadable(_) => "CERTIFICATE_UNUSABLE",
        #[cfg(feature = "jwt")]
        Refusal::BadJwt(_) => "JWT_UNUSABLE",
        Refusal::NotGranted(_) => "ROLE_NOT_GRANTED",
    };
    with(Code::Unauthenticated, short(&refusal.to_string()), reason, &[])
}

/// Somebody may not do this.
#[must_use]
pub fn permission_denied(path: &str, principal: &Principal, rule: Rule) -> Status {
    let message = format!("{} ({}) may not call {path}: it needs {}", principal.name, principal.role, rule.needs());
    let metadata = [("principal", &*principal.name), ("role", principal.role.name()), ("method", path)];
    with(Code::PermissionDenied, short(&message), "ROLE_INSUFFICIENT", &metadata)
}

/// Somebody may speak for another service only.
#[must_use]
pub fn not_own_service(principal: &Principal, namespace: &str, service: &str) -> Status {
    let message = format!("{} ({}) may not speak for {namespace}/{service}", principal.name, principal.role);
    let metadata = [("principal", &*principal.name), ("namespace", namespace), ("service", service)];
    with(Code::PermissionDenied, short(&message), "NOT_OWN_SERVICE", &metadata)
}

/// One identity, or address, asks for too much.
#[must_use]
pub fn too_much(of_what: &str, too_much: TooMuch) -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("IDENTITY_LIMIT", DOMAIN, HashMap::new());
    details.set_retry_info(Some(too_much.after));
    Status::with_error_details(Code::ResourceExhausted, short(&format!("too many {of_what}")), details)
}

/// The server has as many connections as it takes.
#[must_use]
pub fn too_many_connections() -> Status {
    let mut details = ErrorDetails::new();
    details.set_error_info("TOO_MANY_CONNECTIONS", DOMAIN, HashMap::new());
    details.set_retry_info(Some(TRY_AGAIN * 5));
    Status::with_error_details(Code::ResourceExhausted, "the server has as many connections as it takes", details)
}

/// No service has this method, or the table of access does not know it.
#[must_use]
pub fn unlisted(path: &str) -> Status {
    let path = short(path);
    with(Code::Unimplemented, format!("there is no {path}"), "METHOD_UNKNOWN", &[("method", &path)])
}

/// A request came past the gate: a fault of this program.
#[must_use]
pub fn no_principal() -> Status {
    tracing::error!("a request came to a service without passing the gate");
    with(Code::Internal, "the server has lost who calls", "NO_PRINCIPAL", &[])
}

/// Why no token was made.
#[must_use]
pub fn create_token(error: &CreateError) -> Status {
    match error {
        CreateError::Store(error) => store(error),
        CreateError::Random(_) => unavailable(&error.to_string()),
    }
}

/// Given up in favour of somebody else.
#[must_use]
pub fn aborted(reason: &str) -> Status {
    with(Code::Aborted, reason, "ABORTED", &[])
}

/// A store's error.
#[must_use]
pub fn store(error: &StoreError) -> Status {
    match error {
        StoreError::AlreadyExists(name) => {
            let mut details = ErrorDetails::new();
            details.set_error_info("POLICY_EXISTS", DOMAIN, HashMap::from([("name".to_owned(), name.clone())]));
            details.set_resource_info("policy", name, "", "");
            Status::with_error_details(Code::AlreadyExists, error.to_string(), details)
        }
        StoreError::TokenExists(name) => {
            let mut details = ErrorDetails::new();
            details.set_error_info("TOKEN_EXISTS", DOMAIN, HashMap::from([("name".to_owned(), name.clone())]));
            Status::with_error_details(Code::AlreadyExists, error.to_string(), details)
        }
        StoreError::NotFound(name) => not_found("policy", name),
        StoreError::EtagMismatch { name, current } => {
            let metadata = [("name", name.as_str()), ("current_etag", current.as_str())];
            with(Code::Aborted, error.to_string(), "ETAG_MISMATCH", &metadata)
        }
        StoreError::Regressed { revision, seen } => {
            let (revision, seen) = (revision.to_string(), seen.to_string());
            let metadata = [("revision", revision.as_str()), ("seen_revision", seen.as_str())];
            with(Code::FailedPrecondition, error.to_string(), "STORE_REGRESSED", &metadata)
        }
        StoreError::Contradiction(_, invalid_policy) => invalid(invalid_policy),
        StoreError::RolloutInProgress { policy, rollout } => {
            let name = format!("{policy}/rollouts/{rollout}");
            let metadata = [("policy", policy.as_str()), ("rollout", name.as_str())];
            with(Code::FailedPrecondition, error.to_string(), "ROLLOUT_IN_PROGRESS", &metadata)
        }
        StoreError::NothingToRollOut(policy) => {
            let metadata = [("policy", policy.as_str())];
            with(Code::FailedPrecondition, error.to_string(), "NOTHING_TO_ROLL_OUT", &metadata)
        }
        StoreError::NoSuchRollout(name) => not_found("rollout", name),
        StoreError::RolloutRefuses { name, refused } => {
            let reason = match refused {
                Refused::Ended => "ROLLOUT_ENDED",
                Refused::Paused => "ROLLOUT_PAUSED",
                Refused::NotPaused => "ROLLOUT_NOT_PAUSED",
                Refused::OtherStage => "ROLLOUT_AT_OTHER_STAGE",
            };
            with(Code::FailedPrecondition, error.to_string(), reason, &[("rollout", name)])
        }
        StoreError::RequestIdReused(id) => {
            let mut details = ErrorDetails::new();
            let metadata = HashMap::from([("request_id".to_owned(), id.clone())]);
            details.set_error_info("REQUEST_ID_REUSED", DOMAIN, metadata);
            details.add_bad_request_violation("request_id", error.to_string());
            Status::with_error_details(Code::InvalidArgument, error.to_string(), details)
        }
        // Whoever gave an id decodes the answer. Without one this does not happen.
        StoreError::Repeated(_) => with(Code::AlreadyExists, error.to_string(), "REQUEST_REPEATED", &[]),
        StoreError::Corrupt { .. } | StoreError::NewerSchema => {
            tracing::error!(error = %error, "the store is broken");
            with(Code::Internal, error.to_string(), "STORE_CORRUPT", &[])
        }
        StoreError::Busy => with(Code::Unavailable, error.to_string(), "STORE_BUSY", &[]),
        StoreError::Full => {
            tracing::error!(error = %error, "changes are refused; what is in force goes on");
            with(Code::Unavailable, error.to_string(), "STORE_FULL", &[])
        }
        StoreError::NoBackup => with(Code::FailedPrecondition, error.to_string(), "NO_BACKUP", &[]),
        StoreError::TermTooHigh(_) => with(Code::FailedPrecondition, error.to_string(), "TERM_TOO_HIGH", &[]),
        StoreError::InUse(_) | StoreError::Database(_) | StoreError::Folder { .. } => {
            tracing::error!(error = %error, source = ?std::error::Error::source(error), "the store failed");
            with(
                Code::Unavailable,
                "the store failed: nothing was changed, what is in force goes on",
                "STORE_FAILED",
                &[],
            )
        }
    }
}

/// Why a rollout is not promoted: each gate that holds it is in the metadata.
#[must_use]
pub fn gates_hold(error: &StepError) -> Status {
    match error {
        StepError::Store(error) => store(error),
        StepError::GatesHold { name, gates } => {
            let holding = gates.iter().filter(|gate| gate.verdict != Verdict::Pass);
            let words: Vec<_> =
                holding.map(|gate| (gate.name, short(&format!("{}: {}", gate.verdict.name(), gate.detail)))).collect();
            let metadata: Vec<_> = words.iter().map(|(gate, words)| (*gate, words.as_str())).collect();
            let metadata = [metadata.as_slice(), &[("rollout", name.as_str())]].concat();
            with(Code::FailedPrecondition, error.to_string(), "GATES_HOLD", &metadata)
        }
    }
}

/// Why a restored copy is not put in force.
#[must_use]
pub fn adopt(error: &AdoptError) -> Status {
    match error {
        AdoptError::Store(error) => store(error),
        AdoptError::NotRegressed(_) => with(Code::FailedPrecondition, error.to_string(), "STORE_NOT_REGRESSED", &[]),
    }
}

/// A rollback's error.
#[must_use]
pub fn rollback(error: &RollbackError) -> Status {
    match error {
        RollbackError::Store(error) => store(error),
        RollbackError::NoSuchRevision { name, revision } => {
            not_found("revision", &format!("{name}/revisions/{revision}"))
        }
        RollbackError::NothingEarlier(_) | RollbackError::Deletion { .. } => failed_precondition(&error.to_string()),
    }
}
