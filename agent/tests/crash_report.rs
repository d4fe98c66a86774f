//! P12: what a fault of the agent's own leaves behind says where it was, and never what was in its words.
//! A program of its own, for the hook is the whole process's.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unnecessary_literal_unwrap)]

use std::os::unix::fs::MetadataExt;

#[test]
fn p12_a_crash_report_is_for_root_alone_and_quotes_no_value() {
    const CANARY: &str = "canary-0c4e8a1d77";
    let folder = tempfile::tempdir().unwrap();
    tenantry_agent::startup::tell_faults(folder.path());
    let secret: Result<(), String> = Err(CANARY.to_owned());
    std::thread::spawn(move || secret.expect("a value was wrong")).join().unwrap_err();
    let report = folder.path().join("crash-report");
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.contains("tests/crash_report.rs:") && !text.contains(CANARY), "{text}");
    assert_eq!(std::fs::metadata(&report).unwrap().mode() & 0o777, 0o600);

    std::thread::spawn(|| panic!("words of the program's own")).join().unwrap_err();
    let text = std::fs::read_to_string(&report).unwrap();
    assert!(text.contains("words of the program's own"), "{text}");
    assert!(!text.contains("(in other words)"), "the latest one's: {text}");
}
