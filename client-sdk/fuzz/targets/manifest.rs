//! Any bytes as the text of a manifest.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fusebox_fuzz::manifest::run(bytes));
