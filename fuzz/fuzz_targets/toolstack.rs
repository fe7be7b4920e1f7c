//! `cargo fuzz run toolstack`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::toolstack::fuzz(data));
