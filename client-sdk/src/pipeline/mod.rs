//! Runs a policy's pipeline around one call.
//!
//! [`Live`] is a policy with its live state, [`drive`] carries a call through it. The decisions are the core's
//! ([`fusebox_policy::pipeline::Call`]); what is here does what they say. Nothing in here knows the wire or the link.

pub(crate) mod cell;
mod driver;
mod live;

pub(crate) use driver::{Failed, Operation, drive};
pub(crate) use live::{Live, Stage};
