#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| iot_core_fuzz::run("text", data));
