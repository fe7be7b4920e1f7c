//! `cargo fuzz run pv`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::pv::fuzz(data));
