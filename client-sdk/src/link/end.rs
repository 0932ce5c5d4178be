//! Why a stream ended, and what that means for the next.

use std::{error::Error as _, io, time::Duration};

use fusebox_policy::Timestamp;
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// After an answer that another try will hardly change.
pub(super) const REFUSED_WAIT: Duration = Duration::from_secs(30);
/// How long `GoAway` may keep this process away.
const MAX_AWAY: Duration = Duration::from_secs(300);

/// The end of a stream.
#[derive(Debug)]
pub(super) struct End {
    pub(super) why: String,
    /// Not before this has passed.
    pub(super) at_least: Duration,
    /// When it was welcomed.
    pub(super) welcomed: Option<Timestamp>,
    /// One end does not trust the other.
    pub(super) distrust: bool,
}

impl End {
    /// Nothing speaks against trying again.
    pub(super) fn new(why: impl Into<String>) -> Self {
        Self { why: why.into(), at_least: Duration::ZERO, welcomed: None, distrust: false }
    }

    /// The server does not keep to the protocol: it will hardly do so in a moment.
    pub(super) fn refused(why: impl Into<String>) -> Self {
        Self { at_least: REFUSED_WAIT, ..Self::new(why) }
    }

    /// The server asks not to come again before that.
    pub(super) fn away(why: impl Into<String>, delay: Duration) -> Self {
        Self { at_least: delay.min(MAX_AWAY), ..Self::new(why) }
    }
}

impl From<Status> for End {
    fn from(status: Status) -> Self {
        Self { at_least: refused(&status), distrust: is_distrust(&status), ..Self::new(describe(&status)) }
    }
}

/// What went wrong, down to its cause: that a transport failed says little.
fn describe(status: &Status) -> String {
    let mut text = format!("{:?}: {}", status.code(), status.message());
    let mut cause = status.source();
    while let Some(inner) = cause {
        let words = inner.to_string();
        if !text.contains(&words) {
            text.push_str(": ");
            text.push_str(&words);
        }
        cause = inner.source();
    }
    text
}

/// Whether TLS failed since one end does not accept the other's certificate. Our own refusal is an error of a known kind; that of the
/// server comes as an alert, of which only the words get this far.
fn is_distrust(status: &Status) -> bool {
    let mut cause = status.source();
    while let Some(inner) = cause {
        if inner.downcast_ref::<io::Error>().is_some_and(|error| error.kind() == io::ErrorKind::InvalidData) {
            return true;
        }
        cause = inner.source();
    }
    describe(status).contains("received fatal alert")
}

/// These answers never take protection away; they only slow the next try.
fn refused(status: &Status) -> Duration {
    let asked = || status.get_details_retry_info().and_then(|info| info.retry_delay).unwrap_or_default().min(MAX_AWAY);
    match status.code() {
        Code::Unauthenticated
        | Code::PermissionDenied
        | Code::NotFound
        | Code::Unimplemented
        | Code::InvalidArgument
        | Code::FailedPrecondition => REFUSED_WAIT,
        Code::ResourceExhausted | Code::Unavailable => asked(),
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_may_say_when_to_come_again_and_not_later_than_some_minutes() {
        let told = |code, delay| {
            let details = tonic_types::ErrorDetails::with_retry_info(Some(Duration::from_secs(delay)));
            refused(&Status::with_error_details(code, "later", details))
        };
        assert_eq!(told(Code::ResourceExhausted, 7), Duration::from_secs(7));
        assert_eq!(told(Code::Unavailable, 7), Duration::from_secs(7));
        assert_eq!(told(Code::Unavailable, 1_000_000), MAX_AWAY);
        assert_eq!(told(Code::Internal, 7), Duration::ZERO);
        assert_eq!(refused(&Status::permission_denied("no")), REFUSED_WAIT);
    }
}
