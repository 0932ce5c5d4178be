//! Why a store could not do what it was asked.

use fusebox_policy::{Invalid, Namespace, Revision};

use super::Measure;
use crate::rollouts::machine::Refused;

/// Why a store could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// A policy of this name is there already.
    #[error("policy {0} exists already")]
    AlreadyExists(String),
    /// A token of this name is in force.
    #[error("a token {0} is in force: choose another name, or revoke it first")]
    TokenExists(String),
    /// There is no policy of this name.
    #[error("there is no policy {0}")]
    NotFound(String),
    /// It has been changed since it was read.
    #[error("policy {name} has been changed by somebody else: its etag is {current} now")]
    EtagMismatch {
        /// The policy.
        name: String,
        /// The etag that it has.
        current: String,
    },
    /// It is an older copy of itself.
    #[error(
        "the store is REGRESSED: replicas run revision {seen}, it was restored at {revision}; no change is taken until `fusebox recover \
         --adopt-present`"
    )]
    Regressed {
        /// Its newest revision.
        revision: Revision,
        /// The highest one that a replica runs.
        seen: Revision,
    },
    /// Only some replicas have what it is to be.
    #[error(
        "policy {policy} has rollout {rollout} in progress: promote or abort it first (`fusebox rollout status`, `fusebox rollout abort`)"
    )]
    RolloutInProgress {
        /// The policy.
        policy: String,
        /// Number of the rollout.
        rollout: Revision,
    },
    /// The candidate is in force already.
    #[error("there is nothing to roll out: policy {0} is so already")]
    NothingToRollOut(String),
    /// There is no such rollout in progress.
    #[error("there is no rollout {0} in progress")]
    NoSuchRollout(String),
    /// The rollout can't go where it is asked to.
    #[error("rollout {name} can't be changed so: {refused}")]
    RolloutRefuses {
        /// The rollout.
        name: String,
        /// Why.
        refused: Refused,
    },
    /// This request was carried out before; these bytes were its answer. Nothing was written now.
    #[error("this request has been carried out before")]
    Repeated(Vec<u8>),
    /// The id of this request was another one's.
    #[error("request id {0} belongs to another request: make a new one for each")]
    RequestIdReused(String),
    /// It contradicts another policy. The number is the index of the change.
    #[error("{1}")]
    Contradiction(usize, Invalid),
    /// The policies of a namespace would be too many, or too large together.
    #[error(
        "namespace {namespace} would hold {would} {what} and may hold {limit}: delete some (`fusebox get policies -n {namespace}`), \
         or let whoever runs the server raise {option}",
        what = measure.words(), option = measure.option()
    )]
    NamespaceFull {
        /// The namespace.
        namespace: Namespace,
        /// What there would be too much of.
        measure: Measure,
        /// How much there may be.
        limit: usize,
        /// How much there would be.
        would: usize,
    },
    /// Stored data can't be read as what it should be.
    #[error("stored data is corrupt: {table} {key}: {reason}")]
    Corrupt {
        /// Where.
        table: &'static str,
        /// Which row.
        key: String,
        /// What is wrong.
        reason: String,
    },
    /// Somebody else wrote for too long.
    #[error("the database is busy")]
    Busy,
    /// There is no room for another change. What is stored can be read.
    #[error("the disk of the database is full")]
    Full,
    /// It is in memory: there is nothing to copy.
    #[error("this control plane keeps its data in memory only: there is nothing to back up")]
    NoBackup,
    /// There is no greater term.
    #[error("term {0} is beyond the greatest one")]
    TermTooHigh(u64),
    /// The data was written by a later version of this program.
    #[error("the database is of a newer version of fusebox than this one: run that, or restore a backup")]
    NewerSchema,
    /// Another process has it open.
    #[error("another fusebox serves from {0}: end it first, or choose another --data-dir")]
    InUse(String),
    /// The disk, or the database on it, did not do its part.
    #[error("the database failed")]
    Database(#[source] sqlx::Error),
    /// The data folder could not be used.
    #[error("cannot use the data folder {path}")]
    Folder {
        /// The folder.
        path: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl StoreError {
    /// Whether the store itself is in trouble (no room, busy, a disk that fails), so that the same may work later. Else what was asked of
    /// it is at fault.
    #[must_use]
    pub fn is_of_the_store(&self) -> bool {
        if let Self::Database(error) = self {
            let other = |kind| matches!(kind, sqlx::error::ErrorKind::Other);
            return error.as_database_error().is_none_or(|error| other(error.kind()));
        }
        matches!(self, Self::Busy | Self::Full | Self::InUse(_) | Self::Folder { .. })
    }
}
