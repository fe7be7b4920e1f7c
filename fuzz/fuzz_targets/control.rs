//! `cargo fuzz run control`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::control::fuzz(data));
