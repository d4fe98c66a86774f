//! Compose's output as it is: it may quote secrets, so it never leaves the host.

use std::fs::OpenOptions;
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

/// How long the log grows before it is moved aside; one older one is kept.
const ROTATE_AT: u64 = 4 * 1024 * 1024;
/// The most that is kept of one run.
const ENTRY_LIMIT: usize = 256 * 1024;

pub(super) fn append(path: &Path, title: &str, output: &str) -> io::Result<()> {
    if std::fs::metadata(path).is_ok_and(|metadata| metadata.len() > ROTATE_AT) {
        std::fs::rename(path, path.with_extension("log.1"))?;
    }
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(if tenantry_faults::Bug::LogForEverybody.is_seeded() { 0o644 } else { 0o600 })
        .open(path)?;
    let output = tenantry_api::conditions::bounded(output, ENTRY_LIMIT);
    let entry = format!("--- {} {title}\n{}\n", jiff::Timestamp::now(), output.trim_end());
    file.write_all(entry.as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn p12_p15_the_log_is_for_its_owner_only_and_bounded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("compose.log");
        let long = "x".repeat(1024 * 1024);
        for _ in 0..40 {
            append(&path, "up", &long).unwrap();
        }
        let sizes =
            ["compose.log", "compose.log.1"].map(|name| std::fs::metadata(folder.path().join(name)).unwrap());
        assert!(sizes.iter().all(|metadata| metadata.len() < ROTATE_AT + 2 * ENTRY_LIMIT as u64));
        assert!(sizes.iter().all(|metadata| metadata.permissions().mode() & 0o777 == 0o600));
    }
}
