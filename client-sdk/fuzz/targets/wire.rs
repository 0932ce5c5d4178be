//! Any bytes as a policy on the wire.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fusebox_fuzz::wire::run(bytes));
