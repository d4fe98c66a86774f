#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| tenantry_agent::fuzzing::journal(bytes));
