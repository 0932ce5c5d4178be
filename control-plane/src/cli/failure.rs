//! What went wrong, for the person at the terminal: what, why, what to do, and the exit code of its class.
//!
//! The only file of the command line that turns a `tonic::Code` into a class. It prints nothing itself except in [`Failure::report`].

use std::{
    error::Error as _,
    fmt::{self, Write as _},
    io,
};

use tonic::{Code, Status};
use tonic_types::StatusExt as _;

/// Kinds of failure, by what a script can do about them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// The operation failed.
    Failed,
    /// Not an error: `diff` found differences.
    Differs,
    /// The command was given wrongly.
    Usage,
    /// There is no such thing.
    NotFound,
    /// It was changed by somebody else, or exists already.
    Conflict,
    /// A definition is wrong.
    Invalid,
    /// The server does not know the caller, or does not let it.
    Denied,
    /// The server cannot be reached, or cannot answer now.
    Unavailable,
    /// A wait took too long.
    TimedOut,
    /// Whoever read the output has stopped: nothing is left to do.
    PipeClosed,
}

impl Class {
    /// The process's exit code.
    pub(crate) const fn exit_code(self) -> u8 {
        match self {
            Self::PipeClosed => 0,
            Self::Failed | Self::Differs => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Conflict => 4,
            Self::Invalid => 5,
            Self::Denied => 6,
            Self::Unavailable => 7,
            Self::TimedOut => 8,
        }
    }
}

/// A bad field that the server named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct BadField {
    /// Path of the field, as the server spells it.
    pub(crate) path: String,
    /// What is wrong.
    pub(crate) reason: String,
}

/// Why a command did not do what it was asked.
#[derive(Debug)]
pub(crate) struct Failure {
    /// Its kind.
    pub(crate) class: Class,
    /// What was tried and why it failed; may have several lines.
    pub(crate) what: String,
    /// What to do about it.
    pub(crate) fix: Option<String>,
    /// Fields that the server refused.
    pub(crate) fields: Vec<BadField>,
    /// The server's word for why, for programs.
    pub(crate) reason: Option<Box<str>>,
    /// What `-v` adds.
    details: Vec<String>,
}

impl Failure {
    /// A failure of a class.
    pub(crate) fn new(class: Class, what: impl Into<String>) -> Self {
        Self { class, what: what.into(), fix: None, fields: Vec::new(), reason: None, details: Vec::new() }
    }

    /// The same with advice.
    pub(crate) fn fix(mut self, fix: impl Into<String>) -> Self {
        self.fix = Some(fix.into());
        self
    }

    /// For `map_err` on an answer of the server: `doing` completes "cannot ...".
    pub(crate) fn to(doing: impl fmt::Display) -> impl FnOnce(Status) -> Self {
        move |status| Self::from_status(&format!("cannot {doing}"), &status)
    }

    fn from_status(what: &str, status: &Status) -> Self {
        let details = status.get_error_details();
        let unreachable = status.code() == Code::Unknown && status.source().is_some();
        let class = if unreachable { Class::Unavailable } else { class_of(status.code()) };
        let mut failure = Self::new(class, format!("{what}: {}", message_of(status)));
        failure.fix = advice(class).map(str::to_owned);
        failure.details.push(format!("gRPC code {:?}", status.code()));
        if let Some(info) = details.error_info() {
            failure.reason = Some(info.reason.as_str().into());
            let rollout = rollout_advice(&info.reason, info.metadata.get("rollout"));
            if let Some(fix) = rollout.or_else(|| remedy(&info.reason).map(str::to_owned)) {
                failure.fix = Some(fix);
            }
            let mut line = format!("reason {} ({})", info.reason, info.domain);
            let mut facts: Vec<_> = info.metadata.iter().collect();
            facts.sort();
            for (key, value) in facts {
                let _ = write!(line, ", {key}={value}");
            }
            failure.details.push(line);
        }
        if let Some(request) = details.request_info() {
            failure.details.push(format!("request {}", request.request_id));
        }
        if let Some(bad) = details.bad_request() {
            failure.fields = bad
                .field_violations
                .iter()
                .map(|field| BadField { path: field.field.clone(), reason: field.description.clone() })
                .collect();
        }
        failure
    }

    /// The text for stderr.
    pub(crate) fn report(&self, verbose: bool) -> String {
        let mut text = format!("error: {}", self.what);
        for field in &self.fields {
            // A server may put the violations into its message too; once is enough.
            if !self.what.contains(&field.reason) {
                let _ = write!(text, "\n  {}: {}", field.path, field.reason);
            }
        }
        if let Some(fix) = &self.fix {
            let _ = write!(text, "\nfix: {fix}");
        }
        if verbose {
            for line in &self.details {
                let _ = write!(text, "\n  {line}");
            }
        }
        text
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        if error.kind() == io::ErrorKind::BrokenPipe {
            Self::new(Class::PipeClosed, "the reader of the output has stopped")
        } else {
            Self::new(Class::Failed, format!("cannot write the output: {error}"))
        }
    }
}

fn class_of(code: Code) -> Class {
    match code {
        Code::NotFound => Class::NotFound,
        Code::AlreadyExists | Code::Aborted | Code::FailedPrecondition => Class::Conflict,
        Code::InvalidArgument | Code::OutOfRange => Class::Invalid,
        Code::Unauthenticated | Code::PermissionDenied => Class::Denied,
        // tonic calls a deadline that its own client enforces `Cancelled`.
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled => Class::Unavailable,
        Code::Ok | Code::Unknown | Code::ResourceExhausted | Code::Unimplemented | Code::Internal | Code::DataLoss => {
            Class::Failed
        }
    }
}

fn message_of(status: &Status) -> String {
    let mut text = if status.code() == Code::Unimplemented {
        "the server does not know this request; is it older than this program?".to_owned()
    } else if status.message().is_empty() {
        format!("the server answered {:?} without a reason", status.code())
    } else {
        status.message().to_owned()
    };
    // Transport errors hide the useful part ("connection refused") at the end of the chain.
    let mut cause = status.source();
    while let Some(error) = cause {
        let line = error.to_string();
        if !text.contains(&line) {
            let _ = write!(text, ": {line}");
        }
        cause = error.source();
    }
    text
}

/// What to do about a rollout that is in the way, or does not go on.
fn rollout_advice(reason: &str, rollout: Option<&String>) -> Option<String> {
    let (policy, _) = rollout?.rsplit_once("/rollouts/")?;
    let (namespace, name) = policy.strip_prefix("namespaces/")?.split_once("/policies/")?;
    let scope = if namespace == "default" { String::new() } else { format!(" -n {namespace}") };
    let verb = |verb: &str| format!("`fusebox rollout {verb} policy/{name}{scope}");
    match reason {
        "ROLLOUT_IN_PROGRESS" => Some(format!(
            "{}` shows it; {}` brings it further, {} -m '...'` ends it; then try again",
            verb("status"),
            verb("promote"),
            verb("abort")
        )),
        "GATES_HOLD" => Some(format!(
            "{} -w` shows when they pass; {} --force -m '...'` goes on all the same",
            verb("status"),
            verb("promote")
        )),
        "ROLLOUT_PAUSED" | "ROLLOUT_NOT_PAUSED" | "ROLLOUT_ENDED" | "ROLLOUT_AT_OTHER_STAGE" => {
            Some(format!("{}` shows where it is", verb("status")))
        }
        _ => None,
    }
}

/// What helps against a reason of the server, where that is more than its class says.
fn remedy(reason: &str) -> Option<&'static str> {
    match reason {
        "CREDENTIALS_MISSING" => {
            Some("show a token (--token, FUSEBOX_TOKEN or `fusebox context set`) or a certificate (--cert and --key)")
        }
        "TOKEN_UNKNOWN" | "CREDENTIALS_EXPIRED" | "CREDENTIALS_REVOKED" => {
            Some("let an admin make another one: fusebox token create")
        }
        "ROLE_INSUFFICIENT" => Some("`fusebox whoami` tells who you are; an admin can make a token of another role"),
        "OTHER_NAMESPACE" => Some("name your own namespace with -n; `fusebox whoami` tells which it is"),
        "SCOPE_INSUFFICIENT" => {
            Some("it is about the whole server: ask somebody whose role is for all namespaces (`fusebox whoami`)")
        }
        _ => None,
    }
}

const fn advice(class: Class) -> Option<&'static str> {
    match class {
        Class::Unavailable => Some("check that the control plane is running, then try again"),
        Class::Conflict => Some("read the present state (`fusebox diff`, `fusebox get`), then try again"),
        Class::Denied => Some("ask the owner of the control plane for access"),
        Class::Failed
        | Class::Differs
        | Class::Usage
        | Class::NotFound
        | Class::Invalid
        | Class::TimedOut
        | Class::PipeClosed => None,
    }
}

#[cfg(test)]
mod tests {
    use tonic_types::ErrorDetails;

    use super::*;

    #[test]
    fn each_class_has_the_documented_exit_code() {
        let codes = [
            (Code::NotFound, 3),
            (Code::AlreadyExists, 4),
            (Code::Aborted, 4),
            (Code::InvalidArgument, 5),
            (Code::PermissionDenied, 6),
            (Code::Unauthenticated, 6),
            (Code::Unavailable, 7),
            (Code::Internal, 1),
        ];
        for (code, exit) in codes {
            assert_eq!(Failure::to("try")(Status::new(code, "no")).class.exit_code(), exit, "{code:?}");
        }
    }

    #[test]
    fn the_fields_that_the_server_refused_are_told() {
        let mut details = ErrorDetails::new();
        details.add_bad_request_violation("spec.match", "is required");
        details.set_error_info("POLICY_INVALID", "fusebox", [("policy".to_owned(), "b".to_owned())]);
        let status = Status::with_error_details(Code::InvalidArgument, "1 field is wrong", details);
        let failure = Failure::to("apply")(status);
        assert_eq!(failure.report(false), "error: cannot apply: 1 field is wrong\n  spec.match: is required");
        assert!(failure.report(true).contains("reason POLICY_INVALID (fusebox), policy=b"));
    }

    #[test]
    fn a_closed_pipe_is_a_quiet_success() {
        assert_eq!(Failure::from(io::Error::from(io::ErrorKind::BrokenPipe)).class.exit_code(), 0);
    }
}
