//! `cargo fuzz run peer`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::peer::fuzz(data));
