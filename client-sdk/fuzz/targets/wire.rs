//! Any bytes as a policy on the wire.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| fusebox_fuzz::wire::run(bytes));

// Half of the changes keep the message one; the fuzzer's own ones show what else bytes can be.
libfuzzer_sys::fuzz_mutator!(|data: &mut [u8], size: usize, max_size: usize, seed: u32| {
    if seed % 2 == 0 {
        return libfuzzer_sys::fuzzer_mutate(data, size, max_size);
    }
    let mut changed = fusebox_fuzz::protobuf::change(&data[..size], seed.into());
    changed.truncate(max_size);
    data[..changed.len()].copy_from_slice(&changed);
    changed.len()
});
