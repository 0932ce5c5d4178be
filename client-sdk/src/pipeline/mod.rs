//! Runs a policy's pipeline around one call.
//!
//! [`Live`] is a policy with its live state, [`drive`] carries a call through it. The decisions are the core's
//! ([`fusebox_policy::pipeline::Call`]); what is here does what they say. Nothing in here knows the wire or the link.

pub(crate) mod cache;
mod calling;
pub(crate) mod cell;
mod drive;
mod failure;
mod lane;
mod limited;
mod live;
mod operation;
mod purse;
mod race;
mod snapshot;
mod spans;
mod tally;
mod within;

pub(crate) use cache::{CacheStore, Flight};
pub(crate) use calling::calling;
#[cfg(feature = "http")]
pub(crate) use drive::drive;
pub(crate) use limited::{Limited, Wanted};
pub(crate) use live::{Live, Stage};
pub(crate) use operation::{Looked, Operation};
pub(crate) use purse::Purse;
pub(crate) use snapshot::Snapshot;
