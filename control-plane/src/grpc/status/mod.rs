//! The one place where errors become gRPC statuses.
//!
//! Every error carries `ErrorInfo` with a [`Reason`] that programs can switch on; bad input carries one violation per field as well. What
//! the transport answers by itself is given the same by [`completed`].

mod reason;

use std::{collections::HashMap, time::Duration};

use fusebox_policy::Invalid;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt};

pub use self::reason::Reason;
use crate::{
    access::{Principal, Refusal, limits::TooMuch, rules::Lack, tokens::CreateError},
    filter::FilterError,
    fleet::{ForceError, JoinError},
    policies::RollbackError,
    recovery::AdoptError,
    rollouts::{StepError, gates::Verdict, machine::Refused},
    sessions::admission::Busy,
    store::StoreError,
};

/// Whose reasons these are.
pub const DOMAIN: &str = "fusebox";
/// Violations in one answer: they travel in a header.
const MOST_VIOLATIONS: usize = 20;
/// Bytes of all violations together: a client reads 16 KiB of headers, and these are there in base 64.
const VIOLATIONS_BYTES: usize = 4096;
/// Longest text in any part of an answer, in bytes: bad input is quoted there.
const LONGEST_TEXT: usize = 300;
/// When to try again what failed for a passing cause.
const TRY_AGAIN: Duration = Duration::from_secs(1);

fn short(text: &str) -> String {
    if text.len() <= LONGEST_TEXT {
        return text.to_owned();
    }
    format!("{}...", &text[..text.floor_char_boundary(LONGEST_TEXT)])
}

fn with(reason: Reason, message: impl AsRef<str>, metadata: &[(&str, &str)]) -> Status {
    detailed(reason, message.as_ref(), metadata, ErrorDetails::new())
}

/// A status with everything that goes with its reason.
fn detailed(reason: Reason, message: &str, metadata: &[(&str, &str)], mut details: ErrorDetails) -> Status {
    let message = short(message);
    let facts: HashMap<_, _> = metadata.iter().map(|(key, value)| ((*key).to_owned(), short(value))).collect();
    details.set_error_info(reason.name(), DOMAIN, facts);
    let code = reason.code();
    // The same message again is as large, and what is full does not empty itself.
    let stays = matches!(reason, Reason::MessageTooLarge | Reason::NamespaceFull);
    if matches!(code, Code::Unavailable | Code::ResourceExhausted) && !stays {
        let after = details.retry_info().and_then(|retry| retry.retry_delay).unwrap_or(TRY_AGAIN);
        details.set_retry_info(Some(after));
    }
    let subject = metadata.first().map(|(_, value)| short(value)).unwrap_or_default();
    if code == Code::ResourceExhausted {
        details.add_quota_failure_violation(subject, message.as_str());
    } else if code == Code::FailedPrecondition {
        details.add_precondition_failure_violation(reason.name(), subject, message.as_str());
    }
    Status::with_error_details(code, message, details)
}

/// What the transport has answered by itself, with the details that every error has. `method` is the path of the RPC, `request_id`
/// where the log has more about a fault of the server.
#[must_use]
pub fn completed(answered: &Status, method: &str, request_id: &str) -> Status {
    let mut details = answered.get_error_details();
    let (code, message) = match details.error_info() {
        Some(_) => (answered.code(), answered.message().to_owned()),
        None => {
            let reason = Reason::of_transport(answered.code(), answered.message());
            if answered.message() == "invalid MessageRequest" {
                details.add_bad_request_violation("message_request", "is required");
            }
            let message = if answered.message().is_empty() { reason.name() } else { answered.message() };
            let own = detailed(reason, message, &[("method", method)], details);
            details = own.get_error_details();
            (own.code(), own.message().to_owned())
        }
    };
    if is_fault(code) {
        let reason = details.error_info().map(|info| info.reason.clone()).unwrap_or_default();
        tracing::error!(request_id, method, reason, "a request was answered with a fault of the server");
        details.set_request_info(request_id, "");
    }
    Status::with_error_details(code, message, details)
}

/// Whether a status lacks what [`completed`] gives it.
#[must_use]
pub fn is_incomplete(answered: &Status) -> bool {
    answered.code() != Code::Ok && (is_fault(answered.code()) || answered.get_error_details().error_info().is_none())
}

/// Whether it is the server's own fault: its log says more.
const fn is_fault(code: Code) -> bool {
    matches!(code, Code::Internal | Code::Unknown | Code::DataLoss)
}

/// An answer took too long.
#[must_use]
pub fn too_late(method: &str, waited: Duration) -> Status {
    let metadata = [("method", method), ("waited_ms", &*waited.as_millis().to_string())];
    with(Reason::DeadlineExceeded, "there was no answer in time", &metadata)
}

/// A fault of this program.
#[must_use]
pub fn fault(method: &str) -> Status {
    with(Reason::Internal, "the server failed: a fault of the server, whose log says more", &[("method", method)])
}

/// What is asked for does not fit to how things are.
#[must_use]
pub fn refused(reason: Reason, message: &str) -> Status {
    with(reason, message, &[])
}

/// Bad fields, with their paths.
#[must_use]
pub fn invalid(invalid: &Invalid) -> Status {
    violations(Reason::PolicyInvalid, invalid)
}

/// Bad fields of a request that holds no policy.
#[must_use]
pub fn invalid_request(invalid: &Invalid) -> Status {
    violations(Reason::RequestInvalid, invalid)
}

fn violations(reason: Reason, invalid: &Invalid) -> Status {
    let mut details = ErrorDetails::new();
    let violations = invalid.violations();
    let (mut told, mut bytes) = (0, 0);
    for violation in violations.iter().take(MOST_VIOLATIONS) {
        let (field, why) = (short(&violation.field), short(&violation.reason));
        bytes += field.len() + why.len();
        if bytes > VIOLATIONS_BYTES {
            break;
        }
        details.add_bad_request_violation(field, why);
        told += 1;
    }
    if let Some(more) = violations.len().checked_sub(told).filter(|more| *more > 0) {
        details.add_bad_request_violation("", format!("and {more} more"));
    }
    let message = match violations {
        [one] => one.to_string(),
        [first, ..] => format!("{first} (and {} more)", violations.len() - 1),
        [] => "invalid".to_owned(),
    };
    detailed(reason, &message, &[], details)
}

/// One bad field.
#[must_use]
pub fn invalid_field(field: &str, reason: &str) -> Status {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation(field, short(reason));
    detailed(Reason::FieldInvalid, &format!("{field}: {reason}"), &[("field", field)], details)
}

/// A filter that can't be read.
#[must_use]
pub(crate) fn filter(error: &FilterError) -> Status {
    let mut details = ErrorDetails::new();
    details.add_bad_request_violation("filter", short(&error.to_string()));
    let position = error.position.to_string();
    detailed(Reason::FilterInvalid, &format!("filter: {error}"), &[("position", &position)], details)
}

/// A watch begins further back than is remembered.
#[must_use]
pub(crate) fn compacted(from: u64, oldest: u64) -> Status {
    let message =
        format!("{from} is too far back: the oldest that can be begun from is {oldest}; read everything anew");
    with(Reason::RevisionCompacted, message, &[("oldest", &oldest.to_string())])
}

/// A watch begins where the server has not been.
#[must_use]
pub(crate) fn revision_unknown(from: u64, newest: u64) -> Status {
    let message = format!("{from} has not been reached: the newest is {newest}; read everything anew");
    with(Reason::RevisionUnknown, message, &[("newest", &newest.to_string())])
}

/// Something is not there.
#[must_use]
pub fn not_found(kind: &str, name: &str) -> Status {
    let mut details = ErrorDetails::new();
    let name = short(name);
    details.set_resource_info(kind, name.as_str(), "", "");
    detailed(Reason::not_found(kind), &format!("there is no {kind} {name}"), &[("name", &name)], details)
}

/// A passing trouble of the server.
#[must_use]
pub fn unavailable(reason: &str) -> Status {
    with(Reason::Unavailable, reason, &[])
}

/// Too many replicas connect at once.
#[must_use]
pub fn busy(busy: Busy) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(busy.after));
    detailed(Reason::TooManyStreams, &busy.to_string(), &[], details)
}

/// Somebody is not known.
#[must_use]
pub fn unauthenticated(refusal: &Refusal) -> Status {
    let reason = match refusal {
        Refusal::Nothing => Reason::CredentialsMissing,
        Refusal::Malformed => Reason::CredentialsMalformed,
        Refusal::UnknownToken => Reason::TokenUnknown,
        Refusal::Expired => Reason::CredentialsExpired,
        Refusal::Revoked => Reason::CredentialsRevoked,
        Refusal::Nameless | Refusal::Unreadable(_) => Reason::CertificateUnusable,
        #[cfg(feature = "jwt")]
        Refusal::BadJwt(_) => Reason::JwtUnusable,
        Refusal::NotGranted(_) => Reason::RoleNotGranted,
    };
    with(reason, refusal.to_string(), &[])
}

/// Somebody may not do this.
#[must_use]
pub fn permission_denied(path: &str, principal: &Principal, lack: Lack) -> Status {
    let message = format!("{} ({}) may not call {path}: it needs {lack}", principal.name, principal.role);
    let metadata = [("principal", &*principal.name), ("role", principal.role.name()), ("method", path)];
    let reason = match lack {
        Lack::Role(_) => Reason::RoleInsufficient,
        Lack::Scope(_) => Reason::ScopeInsufficient,
    };
    with(reason, message, &metadata)
}

/// Somebody's role goes over another namespace. What is there, nobody has looked.
#[must_use]
pub fn other_namespace(principal: &Principal) -> Status {
    let own = principal.role.namespace().map(ToString::to_string).unwrap_or_default();
    let message =
        format!("{} ({}) reaches nothing but the namespace {own}: name things of it", principal.name, principal.role);
    let metadata = [("principal", &*principal.name), ("role", principal.role.name()), ("namespace", own.as_str())];
    with(Reason::OtherNamespace, message, &metadata)
}

/// Somebody may speak for another service only.
#[must_use]
pub fn not_own_service(principal: &Principal, namespace: &str, service: &str) -> Status {
    let message = format!("{} ({}) may not speak for {namespace}/{service}", principal.name, principal.role);
    let metadata = [("principal", &*principal.name), ("namespace", namespace), ("service", service)];
    with(Reason::NotOwnService, message, &metadata)
}

/// One identity, or address, asks for too much.
#[must_use]
pub fn too_much(of_what: &str, too_much: TooMuch) -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(too_much.after));
    detailed(Reason::IdentityLimit, &format!("too many {of_what}"), &[("what", of_what)], details)
}

/// The server has as many connections as it takes.
#[must_use]
pub fn too_many_connections() -> Status {
    let mut details = ErrorDetails::new();
    details.set_retry_info(Some(TRY_AGAIN * 5));
    detailed(Reason::TooManyConnections, "the server has as many connections as it takes", &[], details)
}

/// No service has this method, or the table of access does not know it.
#[must_use]
pub fn unlisted(path: &str) -> Status {
    let path = short(path);
    with(Reason::MethodUnknown, format!("there is no {path}"), &[("method", &path)])
}

/// A request came past the gate: a fault of this program.
#[must_use]
pub fn no_principal() -> Status {
    tracing::error!("a request came to a service without passing the gate");
    with(Reason::NoPrincipal, "the server has lost who calls", &[])
}

/// Why no token was made.
#[must_use]
pub fn create_token(error: &CreateError) -> Status {
    match error {
        CreateError::Store(error) => store(error),
        CreateError::Random(_) => unavailable(&error.to_string()),
    }
}

/// A store's error.
#[must_use]
pub fn store(error: &StoreError) -> Status {
    match error {
        StoreError::AlreadyExists(name) => {
            let mut details = ErrorDetails::new();
            details.set_resource_info("policy", short(name), "", "");
            detailed(Reason::PolicyExists, &error.to_string(), &[("name", name)], details)
        }
        StoreError::TokenExists(name) => {
            let mut details = ErrorDetails::new();
            details.set_resource_info("token", short(name), "", "");
            detailed(Reason::TokenExists, &error.to_string(), &[("name", name)], details)
        }
        StoreError::NotFound(name) => not_found("policy", name),
        StoreError::EtagMismatch { name, current } => {
            let metadata = [("name", name.as_str()), ("current_etag", current.as_str())];
            with(Reason::EtagMismatch, error.to_string(), &metadata)
        }
        StoreError::Regressed { revision, seen } => {
            let (revision, seen) = (revision.to_string(), seen.to_string());
            let metadata = [("revision", revision.as_str()), ("seen_revision", seen.as_str())];
            with(Reason::StoreRegressed, error.to_string(), &metadata)
        }
        StoreError::Contradiction(_, invalid_policy) => invalid(invalid_policy),
        StoreError::NamespaceFull { namespace, measure, limit, would } => {
            let (limit, would) = (limit.to_string(), would.to_string());
            let metadata =
                [("namespace", namespace.as_str()), ("of", measure.name()), ("limit", &*limit), ("would", &*would)];
            with(Reason::NamespaceFull, error.to_string(), &metadata)
        }
        StoreError::RolloutInProgress { policy, rollout } => {
            let name = format!("{policy}/rollouts/{rollout}");
            let metadata = [("policy", policy.as_str()), ("rollout", name.as_str())];
            with(Reason::RolloutInProgress, error.to_string(), &metadata)
        }
        StoreError::NothingToRollOut(policy) => {
            let metadata = [("policy", policy.as_str())];
            with(Reason::NothingToRollOut, error.to_string(), &metadata)
        }
        StoreError::NoSuchRollout(name) => not_found("rollout", name),
        StoreError::RolloutRefuses { name, refused } => {
            let reason = match refused {
                Refused::Ended => Reason::RolloutEnded,
                Refused::Paused => Reason::RolloutPaused,
                Refused::NotPaused => Reason::RolloutNotPaused,
                Refused::OtherStage => Reason::RolloutAtOtherStage,
            };
            with(reason, error.to_string(), &[("rollout", name)])
        }
        StoreError::RequestIdReused(id) => {
            let mut details = ErrorDetails::new();
            details.add_bad_request_violation("request_id", short(&error.to_string()));
            detailed(Reason::RequestIdReused, &error.to_string(), &[("request_id", id)], details)
        }
        // Whoever gave an id decodes the answer. Without one this does not happen.
        StoreError::Repeated(_) => with(Reason::RequestRepeated, error.to_string(), &[]),
        StoreError::Corrupt { .. } => {
            tracing::error!(error = %error, "the store is broken");
            // Which row it is, is told by the log, `fusebox check` and the alarm: it may be of a namespace that is not the caller's.
            let message =
                "something stored is not as it was written: the log of the server and `fusebox check` say what";
            with(Reason::StoreCorrupt, message, &[])
        }
        StoreError::NewerSchema => {
            tracing::error!(error = %error, "the store is broken");
            with(Reason::StoreCorrupt, error.to_string(), &[])
        }
        StoreError::Busy => with(Reason::StoreBusy, error.to_string(), &[]),
        StoreError::Full => {
            tracing::error!(error = %error, "changes are refused; what is in force goes on");
            with(Reason::StoreFull, error.to_string(), &[])
        }
        StoreError::NoBackup => with(Reason::NoBackup, error.to_string(), &[]),
        StoreError::TermTooHigh(_) => with(Reason::TermTooHigh, error.to_string(), &[]),
        StoreError::InUse(_) | StoreError::Database(_) | StoreError::Folder { .. } => {
            tracing::error!(error = %error, source = ?std::error::Error::source(error), "the store failed");
            with(Reason::StoreFailed, "the store failed: nothing was changed, what is in force goes on", &[])
        }
    }
}

/// Why a replica can't be one of the fleet.
#[must_use]
pub fn join(error: &JoinError) -> Status {
    match error {
        JoinError::Store(error) => store(error),
        JoinError::TermTooFar { seen, reach } => {
            let metadata = [("seen", &*seen.to_string()), ("reach", &*reach.to_string())];
            with(Reason::TermTooHigh, error.to_string(), &metadata)
        }
    }
}

/// Why breakers are not forced or released.
#[must_use]
pub fn force(error: &ForceError) -> Status {
    match error {
        ForceError::Store(error) => store(error),
        ForceError::Changed { target, current } => {
            let metadata = [("name", target.as_str()), ("current_etag", current.as_str())];
            with(Reason::EtagMismatch, error.to_string(), &metadata)
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
            with(Reason::GatesHold, error.to_string(), &metadata)
        }
    }
}

/// Why a restored copy is not put in force.
#[must_use]
pub fn adopt(error: &AdoptError) -> Status {
    match error {
        AdoptError::Store(error) => store(error),
        AdoptError::NotRegressed(_) => with(Reason::StoreNotRegressed, error.to_string(), &[]),
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
        RollbackError::NothingEarlier(_) | RollbackError::Deletion { .. } => {
            refused(Reason::NothingToRollBack, &error.to_string())
        }
    }
}
