//! Any bytes as the head of an HTTP response.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fusebox_fuzz::retry_after::run(bytes));
