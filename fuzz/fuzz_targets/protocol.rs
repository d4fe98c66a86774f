#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    tenantry_agent::fuzzing::request(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        tenantry_agent::fuzzing::reference(text);
    }
});
