//! `cargo fuzz run record`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::record::fuzz(data));
