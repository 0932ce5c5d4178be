//! What programs switch on: the reason in the `ErrorInfo` of each error, and the code that goes with it.
//!
//! `control-plane/docs/errors.md` tells people of them; a test holds that page to this list. A reason that was given away stays.

use tonic::Code;

/// One list, from which the type, its names and its codes come.
macro_rules! reasons {
    ($($(#[$doc:meta])* $variant:ident = $name:literal => $code:ident,)+) => {
        /// Why something is refused.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Reason {
            $($(#[$doc])* $variant,)+
        }

        impl Reason {
            /// Every reason.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// As it stands in `ErrorInfo.reason`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// The code that goes with it.
            #[must_use]
            pub const fn code(self) -> Code {
                match self {
                    $(Self::$variant => Code::$code,)+
                }
            }
        }
    };
}

reasons! {
    // What was sent is no request at all.

    /// The bytes of a message are no message of the method.
    MessageMalformed = "MESSAGE_MALFORMED" => InvalidArgument,
    /// A method that takes one message was sent none.
    MessageMissing = "MESSAGE_MISSING" => InvalidArgument,
    /// The frame around a message is wrong, or cut short.
    FrameMalformed = "FRAME_MALFORMED" => InvalidArgument,
    /// A message is larger than the method takes.
    MessageTooLarge = "MESSAGE_TOO_LARGE" => ResourceExhausted,
    /// A message is compressed in a way that the server does not know.
    CompressionUnsupported = "COMPRESSION_UNSUPPORTED" => Unimplemented,
    /// No service has this method.
    MethodUnknown = "METHOD_UNKNOWN" => Unimplemented,

    // What is in a request is wrong.

    /// Bad fields of a policy or a rollout.
    PolicyInvalid = "POLICY_INVALID" => InvalidArgument,
    /// Bad fields of a request.
    RequestInvalid = "REQUEST_INVALID" => InvalidArgument,
    /// One bad field.
    FieldInvalid = "FIELD_INVALID" => InvalidArgument,
    /// A filter that can't be read.
    FilterInvalid = "FILTER_INVALID" => InvalidArgument,
    /// Another request had this id.
    RequestIdReused = "REQUEST_ID_REUSED" => InvalidArgument,

    // Who asks.

    /// Nothing was shown.
    CredentialsMissing = "CREDENTIALS_MISSING" => Unauthenticated,
    /// What was shown is of no known kind.
    CredentialsMalformed = "CREDENTIALS_MALFORMED" => Unauthenticated,
    /// The token is not one of this server.
    TokenUnknown = "TOKEN_UNKNOWN" => Unauthenticated,
    /// The credential's time is over.
    CredentialsExpired = "CREDENTIALS_EXPIRED" => Unauthenticated,
    /// Somebody has ended the credential.
    CredentialsRevoked = "CREDENTIALS_REVOKED" => Unauthenticated,
    /// The certificate names nobody.
    CertificateUnusable = "CERTIFICATE_UNUSABLE" => Unauthenticated,
    /// The JWT does not count here. Of servers with JWTs.
    JwtUnusable = "JWT_UNUSABLE" => Unauthenticated,
    /// The name has no role here.
    RoleNotGranted = "ROLE_NOT_GRANTED" => Unauthenticated,
    /// The role may not call the method.
    RoleInsufficient = "ROLE_INSUFFICIENT" => PermissionDenied,
    /// The method is about the whole server, and the role is bound to a namespace.
    ScopeInsufficient = "SCOPE_INSUFFICIENT" => PermissionDenied,
    /// What is named is not of the namespace that the role is bound to, whether it is there or not.
    OtherNamespace = "OTHER_NAMESPACE" => PermissionDenied,
    /// A replica speaks for a service that is not its own.
    NotOwnService = "NOT_OWN_SERVICE" => PermissionDenied,

    // Too much.

    /// One identity, address or replica asks for too much.
    IdentityLimit = "IDENTITY_LIMIT" => ResourceExhausted,
    /// The server has as many connections as it takes.
    TooManyConnections = "TOO_MANY_CONNECTIONS" => ResourceExhausted,
    /// The policies of a namespace would be too many, or too large together.
    NamespaceFull = "NAMESPACE_FULL" => ResourceExhausted,
    /// Too many replicas connect at once.
    TooManyStreams = "TOO_MANY_STREAMS" => ResourceExhausted,
    /// Whoever follows a stream does not read it.
    ReaderTooSlow = "READER_TOO_SLOW" => ResourceExhausted,
    /// Another backup is being made.
    BackupInProgress = "BACKUP_IN_PROGRESS" => ResourceExhausted,

    // What is there, and in which state.

    /// There is no such policy.
    PolicyNotFound = "POLICY_NOT_FOUND" => NotFound,
    /// There is no such revision of the policy.
    RevisionNotFound = "REVISION_NOT_FOUND" => NotFound,
    /// There is no such rollout.
    RolloutNotFound = "ROLLOUT_NOT_FOUND" => NotFound,
    /// Nobody holds such a breaker.
    BreakerNotFound = "BREAKER_NOT_FOUND" => NotFound,
    /// No override with this selector is in force.
    OverrideNotFound = "OVERRIDE_NOT_FOUND" => NotFound,
    /// No replica connects as this service or calls it.
    ServiceNotFound = "SERVICE_NOT_FOUND" => NotFound,
    /// No such replica is connected.
    InstanceNotFound = "INSTANCE_NOT_FOUND" => NotFound,
    /// There is no such token.
    TokenNotFound = "TOKEN_NOT_FOUND" => NotFound,
    /// There is a policy of this name.
    PolicyExists = "POLICY_EXISTS" => AlreadyExists,
    /// A token of this name is in force.
    TokenExists = "TOKEN_EXISTS" => AlreadyExists,
    /// A request was sent again, and has been answered.
    RequestRepeated = "REQUEST_REPEATED" => AlreadyExists,
    /// Somebody else has changed it meanwhile.
    EtagMismatch = "ETAG_MISMATCH" => Aborted,
    /// What the pages of a list show is not remembered any more.
    PagesOutdated = "PAGES_OUTDATED" => Aborted,
    /// A watch begins further back than is remembered.
    RevisionCompacted = "REVISION_COMPACTED" => OutOfRange,
    /// A watch begins where the server has not been.
    RevisionUnknown = "REVISION_UNKNOWN" => OutOfRange,
    /// The policy has no revision that can be gone back to.
    NothingToRollBack = "NOTHING_TO_ROLL_BACK" => FailedPrecondition,
    /// The candidate is what is in force.
    NothingToRollOut = "NOTHING_TO_ROLL_OUT" => FailedPrecondition,
    /// The policy has a rollout in progress.
    RolloutInProgress = "ROLLOUT_IN_PROGRESS" => FailedPrecondition,
    /// The rollout has ended.
    RolloutEnded = "ROLLOUT_ENDED" => FailedPrecondition,
    /// The rollout is paused.
    RolloutPaused = "ROLLOUT_PAUSED" => FailedPrecondition,
    /// The rollout is not paused.
    RolloutNotPaused = "ROLLOUT_NOT_PAUSED" => FailedPrecondition,
    /// The rollout has come to another stage meanwhile.
    RolloutAtOtherStage = "ROLLOUT_AT_OTHER_STAGE" => FailedPrecondition,
    /// A gate holds the promotion.
    GatesHold = "GATES_HOLD" => FailedPrecondition,
    /// The database is an older copy.
    StoreRegressed = "STORE_REGRESSED" => FailedPrecondition,
    /// The database is no older copy.
    StoreNotRegressed = "STORE_NOT_REGRESSED" => FailedPrecondition,
    /// The data is in memory only.
    NoBackup = "NO_BACKUP" => FailedPrecondition,
    /// A replica has seen a term that can't be.
    TermTooHigh = "TERM_TOO_HIGH" => FailedPrecondition,
    /// A stream of a replica does not begin with one Hello.
    HelloExpected = "HELLO_EXPECTED" => FailedPrecondition,
    /// The replica speaks another protocol.
    ProtocolUnsupported = "PROTOCOL_UNSUPPORTED" => FailedPrecondition,
    /// The replica has a revision that this store can't have given.
    CacheUnknown = "CACHE_UNKNOWN" => FailedPrecondition,

    // What the server can't do now, or did wrong.

    /// A passing trouble, like the end of the server.
    Unavailable = "UNAVAILABLE" => Unavailable,
    /// A replica was not heard for long.
    ReplicaSilent = "REPLICA_SILENT" => Unavailable,
    /// Another change takes long.
    StoreBusy = "STORE_BUSY" => Unavailable,
    /// The disk is full.
    StoreFull = "STORE_FULL" => Unavailable,
    /// The store failed.
    StoreFailed = "STORE_FAILED" => Unavailable,
    /// The answer took longer than the caller, or the server, waits.
    DeadlineExceeded = "DEADLINE_EXCEEDED" => DeadlineExceeded,
    /// Something stored is not as it was written.
    StoreCorrupt = "STORE_CORRUPT" => Internal,
    /// A request came past the gate.
    NoPrincipal = "NO_PRINCIPAL" => Internal,
    /// A fault of the server.
    Internal = "INTERNAL" => Internal,

    // What the transport says by itself.

    /// Of health and reflection: there is no such service or symbol.
    NotFound = "NOT_FOUND" => NotFound,
    /// The method is there, and does not do this.
    Unimplemented = "UNIMPLEMENTED" => Unimplemented,
    /// The transport has too much to do.
    ResourceExhausted = "RESOURCE_EXHAUSTED" => ResourceExhausted,
    /// The caller has given up.
    Cancelled = "CANCELLED" => Cancelled,
    /// Nothing more is known.
    Unknown = "UNKNOWN" => Unknown,
}

impl Reason {
    /// That a thing of this kind is not there.
    pub(super) fn not_found(kind: &str) -> Self {
        let name = format!("{}_NOT_FOUND", kind.to_uppercase());
        Self::ALL.iter().copied().find(|reason| reason.name() == name).unwrap_or(Self::NotFound)
    }

    /// The reason of an error that the transport has made by itself: its texts are all that tells them apart. A test sends what
    /// provokes each.
    pub(super) fn of_transport(code: Code, message: &str) -> Self {
        let begins = |texts: &[&str]| texts.iter().any(|text| message.starts_with(text));
        match code {
            Code::Internal if begins(&["failed to decode Protobuf message"]) => Self::MessageMalformed,
            Code::Internal if begins(&["Missing request message"]) => Self::MessageMissing,
            Code::Internal
                if begins(&["protocol error: received message", "Unexpected EOF", "Error decompressing"]) =>
            {
                Self::FrameMalformed
            }
            Code::OutOfRange if begins(&["Error, decoded message length too large"]) => Self::MessageTooLarge,
            Code::ResourceExhausted if begins(&["Error decompressing: size limit"]) => Self::MessageTooLarge,
            Code::Unimplemented if begins(&["Content is compressed with"]) => Self::CompressionUnsupported,
            Code::InvalidArgument => Self::RequestInvalid,
            Code::NotFound => Self::NotFound,
            Code::DeadlineExceeded => Self::DeadlineExceeded,
            Code::ResourceExhausted => Self::ResourceExhausted,
            Code::Unimplemented => Self::Unimplemented,
            Code::Unavailable => Self::Unavailable,
            Code::Cancelled => Self::Cancelled,
            Code::Internal => Self::Internal,
            Code::Ok
            | Code::Unknown
            | Code::AlreadyExists
            | Code::PermissionDenied
            | Code::FailedPrecondition
            | Code::Aborted
            | Code::OutOfRange
            | Code::DataLoss
            | Code::Unauthenticated => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn reasons_are_written_as_programs_expect_and_each_once() {
        let names: BTreeSet<_> = Reason::ALL.iter().map(|reason| reason.name()).collect();
        assert_eq!(names.len(), Reason::ALL.len());
        for name in names {
            assert!(name.len() <= 63 && name.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'_'), "{name}");
        }
    }

    #[test]
    fn a_kind_of_thing_has_its_own_reason_for_being_absent() {
        for kind in ["policy", "revision", "rollout", "breaker", "override", "service", "instance", "token"] {
            assert_ne!(Reason::not_found(kind), Reason::NotFound, "{kind}");
        }
    }
}
