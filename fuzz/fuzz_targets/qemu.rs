//! `cargo fuzz run qemu`
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| colo_fuzz::qemu::fuzz(data));
