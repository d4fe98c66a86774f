//! The first line names the value that is set, the rest is the file.
#![no_main]

use tenantry_api::names::EnvKey;
use tenantry_planner::env::{EnvFile, patch};
use tenantry_protocol::EnvValue;

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let mut parts = bytes.splitn(2, |byte| *byte == 0xff);
    let (Some(value), Some(file)) = (parts.next(), parts.next()) else { return };
    let Ok(value) = String::from_utf8(value.to_vec()) else { return };
    let Ok(name) = EnvKey::parse("KEY") else { return };
    let wanted = EnvValue { name, value };
    let Ok(patched) = patch(file, std::slice::from_ref(&wanted)) else { return };
    // What was written is what is read, and other keys say what they said.
    let (before, after) = (EnvFile::parse(file), EnvFile::parse(&patched.bytes));
    let (Ok(before), Ok(after)) = (before, after) else { panic!("a file that was patched can't be read") };
    assert_eq!(after.get("KEY").and_then(|value| value.literal()), Some(wanted.value.as_str()));
    for key in before.keys().filter(|key| *key != "KEY") {
        assert!(before.get(key) == after.get(key), "{key} says something else");
    }
    // Once more changes nothing.
    let again = patch(&patched.bytes, std::slice::from_ref(&wanted)).expect("patched once, patched twice");
    assert!(again.bytes == patched.bytes && again.changed.is_empty() && again.appended.is_empty());
});
