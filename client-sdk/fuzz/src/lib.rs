//! What must hold for any bytes from outside.
//!
//! Each module is one target: `run` takes bytes and panics where a promise is broken. A fuzzer calls it with whatever leads to new
//! code (`.ci/fuzz`, feature `libfuzzer`); `tests/stored.rs` calls it with the seeds in `corpus` and with everything in `crashes`
//! that once broke a promise.

pub mod call;
pub mod manifest;
pub mod protobuf;
pub mod retry_after;
pub mod wire;

/// A target: its name, which is that of its folders, and what it does with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 4] =
    [("manifest", manifest::run), ("wire", wire::run), ("retry_after", retry_after::run), ("call", call::run)];
