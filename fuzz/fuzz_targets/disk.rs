//! `cargo fuzz run disk`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::disk::fuzz(data));
