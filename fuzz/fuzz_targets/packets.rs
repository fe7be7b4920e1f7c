//! `cargo fuzz run packets`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::packets::fuzz(data));
