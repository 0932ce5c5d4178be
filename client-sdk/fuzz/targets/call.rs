//! Any bytes as a pipeline and what happens to calls that go through it.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fusebox_fuzz::call::run(bytes));
