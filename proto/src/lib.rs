//! The wire of Fusebox.
//!
//! [`v1`] is for operators, [`sync::v1`] for SDKs; both are generated from the `.proto` files beside this crate, whose
//! comments are the specification. The other modules turn wire messages into domain types (`TryFrom`, naming each bad
//! field) and back (`From`). Past this crate no code interprets a wire message.

mod breaker;
mod bulkhead;
mod cache;
mod chaos;
mod concurrency_limit;
mod condition;
mod coordination;
pub mod duration;
mod fallback;
mod hedge;
mod key;
pub mod manifest;
mod policy;
mod rate_limiter;
mod retry;
mod throttle;
mod timeout;

pub use policy::parse_policy_name;

/// `fusebox.v1`: what operators use.
#[expect(clippy::all, clippy::allow_attributes, reason = "generated")]
pub mod v1 {
    tonic::include_proto!("fusebox.v1");
}

/// `fusebox.sync`: what SDKs use.
pub mod sync {
    /// Version 1 of the stream.
    #[expect(clippy::allow_attributes, reason = "generated")]
    pub mod v1 {
        tonic::include_proto!("fusebox.sync.v1");
    }
}

/// The compiled `.proto` files, for server reflection.
pub const FILE_DESCRIPTOR_SET: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptor.bin"));
