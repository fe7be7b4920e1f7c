//! `cargo fuzz run image`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::image::fuzz(data));
