//! What can go wrong: at start ([`SetupError`]), and in a call ([`CallError`]).
//!
//! An error is for the person who must act: it names policy and strategy, and carries the wait that makes sense.

use std::{error::Error as StdError, time::Duration};

use fusebox_policy::{Invalid, Outcome, PolicyName, Rejection, StrategyName};

/// An error of a function that the service itself has given.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Bad arguments of [`ClientBuilder`](crate::ClientBuilder). The network is never a reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SetupError {
    /// A name that is not one.
    #[error("{field} is not a valid name")]
    Name {
        /// Which setting.
        field: &'static str,
        /// What is wrong with it.
        source: Invalid,
    },
    /// The address of the control plane can't be read.
    #[error("control plane address {address:?} is not an http:// or https:// URL")]
    ControlPlane {
        /// What was given.
        address: String,
        /// What is wrong with it.
        source: BoxError,
    },
    /// A built-in policy is not valid.
    #[error("built-in policy is not valid")]
    BuiltinPolicy(#[source] BoxError),
    /// Two built-in policies describe the same calls.
    #[error("built-in policy {name} describes the calls of another one")]
    BuiltinTie {
        /// The later one.
        name: PolicyName,
        /// Which calls.
        source: Invalid,
    },
    /// A built-in policy has a chaos strategy, and this process has not opted in.
    #[error("built-in policy {name} has a chaos strategy: allow it with ClientBuilder::allow_chaos")]
    BuiltinChaos {
        /// The policy.
        name: PolicyName,
    },
    /// More labels than the control plane takes.
    #[error("a client has at most {limit} labels, not {given}")]
    Labels {
        /// How many are allowed.
        limit: usize,
        /// How many were given.
        given: usize,
    },
    /// TLS was set for an address without it.
    #[error("TLS is set, and {address} is not https://")]
    IdleTls {
        /// The address.
        address: String,
    },
    /// A certificate without its key, or the other way round.
    #[error("FUSEBOX_CERT and FUSEBOX_KEY go together")]
    HalfIdentity,
    /// The token could not be sent.
    #[error("the token is empty, or has characters that can't be sent")]
    BadToken,
    /// A variable that should hold the token does not.
    #[error("the environment variable {name} should hold the token, and is not set")]
    NoTokenInEnv {
        /// The variable.
        name: String,
    },
    /// Others could read the token.
    #[error(
        "the token would go to {address} in plain text, for everybody on the way to read: use https://, or say \
         ClientBuilder::plaintext_token if the way is safe"
    )]
    PlaintextToken {
        /// The address.
        address: String,
    },
    /// A key for a cache that is not kept.
    #[error("a key for the cache is set, and there is no cache: say ClientBuilder::cache_dir")]
    IdleCacheKey,
    /// The kill switch in the environment is neither on nor off.
    #[error("FUSEBOX_FLEET must be on or off, not {value:?}")]
    FleetSwitch {
        /// What it is.
        value: std::ffi::OsString,
    },
    /// The client's task needs a runtime to live in.
    #[error("start must be called inside a tokio runtime")]
    NoRuntime,
}

/// Why a call has no value.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CallError<E> {
    /// The operation's own error.
    #[error("{0}")]
    Inner(#[source] E),
    /// A timeout cut it.
    #[error("timed out after {} ms ({policy}/{strategy})", limit.as_millis())]
    Timeout {
        /// The policy.
        policy: PolicyName,
        /// The element of its pipeline.
        strategy: StrategyName,
        /// The limit.
        limit: Duration,
    },
    /// A strategy refused it.
    #[error("{0}")]
    Rejected(Rejection),
    /// All attempts failed, and the policy asks for this error (`onExhausted: error`).
    #[error("all {attempts} attempts failed")]
    RetriesExhausted {
        /// How many there were.
        attempts: u32,
        /// The last attempt's failure; `None` where that was a response.
        #[source]
        last: Option<Box<Self>>,
        /// The last attempt's outcome.
        outcome: Outcome,
    },
    /// The fallback's own failure.
    #[error(transparent)]
    Fallback(FallbackError),
    /// Trouble on purpose: the policy's chaos strategy ended the call in this.
    #[error("chaos of {policy}/{strategy}: {outcome}")]
    Injected {
        /// The policy.
        policy: PolicyName,
        /// The element of its pipeline.
        strategy: StrategyName,
        /// What it ended in.
        outcome: Outcome,
    },
}

impl<E> CallError<E> {
    /// Whether the operation was refused by a strategy, and so never ran.
    #[must_use]
    pub const fn is_rejection(&self) -> bool {
        matches!(self, Self::Rejected(_))
    }

    /// Whether a timeout of the policy cut it.
    #[must_use]
    pub const fn is_timeout(&self) -> bool {
        matches!(self, Self::Timeout { .. })
    }

    /// When another try may pass, where that is known.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Rejected(rejection) => rejection.retry_after(),
            Self::RetriesExhausted { last, .. } => last.as_ref().and_then(|last| last.retry_after()),
            Self::Inner(_) | Self::Timeout { .. } | Self::Fallback(_) | Self::Injected { .. } => None,
        }
    }

    /// The operation's own error, if it is one.
    #[must_use]
    pub fn into_inner(self) -> Option<E> {
        match self {
            Self::Inner(error) => Some(error),
            Self::RetriesExhausted { last, .. } => last.and_then(|last| last.into_inner()),
            Self::Timeout { .. } | Self::Rejected(_) | Self::Fallback(_) | Self::Injected { .. } => None,
        }
    }
}

/// Why a fallback gave no answer.
#[derive(Debug, thiserror::Error)]
#[error("fallback {policy}/{strategy}: {reason}")]
pub struct FallbackError {
    /// The policy.
    pub policy: PolicyName,
    /// The element of its pipeline.
    pub strategy: StrategyName,
    /// What it should have replaced.
    pub replaced: Outcome,
    /// Why.
    #[source]
    pub reason: FallbackFault,
}

/// Why a fallback gave no answer.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FallbackFault {
    /// The policy answers with this error.
    #[error("{0}")]
    Asked(String),
    /// The policy answers with something that this call can't produce by itself. Calls say so beforehand and such a fallback is
    /// skipped; give the call a typed fallback with [`Target::fallback_with`](crate::Target::fallback_with) or
    /// [`Target::or_value`](crate::Target::or_value).
    #[error("the policy's {0} needs a typed value, and this call has no fallback registered")]
    NoTypedValue(&'static str),
    /// No function of this name was registered.
    #[error("no function named {0:?} is registered")]
    UnknownFunction(String),
    /// No base address was given for this target.
    #[error("no address of target {0:?} is registered")]
    UnknownTarget(String),
    /// There is no last good response that is young enough.
    #[error("no last good response is held")]
    NothingStale,
    /// The request can't be sent a second time.
    #[error("the request's body can't be sent again")]
    NotReplayable,
    /// The function, or the other target, failed.
    #[error("it failed")]
    Failed(#[source] BoxError),
}
