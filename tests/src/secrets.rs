//! Where on a host a secret value may be (P12).

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};

/// Copies of the tenant's own files, what was asked while it is under way, and compose's own words: these may hold it.
const MAY_HOLD: [&str; 6] = ["files", "data", "stage", "tx", "requests", "compose.log"];

/// Looks through the agent's records and the agent's folders in tenants' directories. Gives the number of files.
pub fn check(state: &Path, srv: &Path, secret: &str) -> Result<usize> {
    let mut looked_at = folder(state, secret, false, false)?;
    for tenant in std::fs::read_dir(srv).with_context(|| srv.display().to_string())? {
        let own = tenant?.path().join(".tenantry");
        if own.is_dir() {
            looked_at += folder(&own, secret, false, false)?;
        }
    }
    Ok(looked_at)
}

/// `closed`: a folder above is for its owner only. `may_hold`: a folder above is one of [`MAY_HOLD`].
fn folder(path: &Path, secret: &str, closed: bool, may_hold: bool) -> Result<usize> {
    let closed = closed || path.metadata()?.permissions().mode().trailing_zeros() >= 6;
    let mut looked_at = 0;
    for entry in std::fs::read_dir(path)? {
        let entry = entry?;
        let may_hold = may_hold || entry.file_name().to_str().is_some_and(|name| MAY_HOLD.contains(&name));
        // What was there a moment ago may be gone: an agent cleans up behind itself.
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_dir() {
            looked_at += folder(&entry.path(), secret, closed, may_hold)?;
        } else if let Ok(content) = std::fs::read(entry.path()) {
            let holds = content.windows(secret.len()).any(|part| part == secret.as_bytes());
            let shown = entry.path().display().to_string();
            ensure!(!holds || may_hold, "a secret value was found in {shown}");
            ensure!(!holds || closed, "{shown} holds a secret value, and others than its owner can reach it");
            looked_at += 1;
        }
    }
    Ok(looked_at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p12_a_secret_is_found_in_records_and_in_copies_that_others_can_read() -> Result<()> {
        let host = tempfile::tempdir()?;
        let (state, srv) = (host.path().join("state"), host.path().join("srv"));
        let kept = srv.join("acme/.tenantry/restore/op-1");
        std::fs::create_dir_all(kept.join("files"))?;
        std::fs::create_dir_all(state.join("journal"))?;
        let close = |path: &Path, mode| std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode));
        close(&srv.join("acme/.tenantry"), 0o700)?;
        std::fs::write(kept.join("files/.env"), "TOKEN=secret")?;
        std::fs::write(kept.join("index"), "{}")?;
        std::fs::write(state.join("journal/op-1"), "begun")?;
        assert_eq!(check(&state, &srv, "secret")?, 3);
        std::fs::write(state.join("journal/op-1"), "begun with secret")?;
        assert!(check(&state, &srv, "secret").is_err());
        std::fs::write(state.join("journal/op-1"), "begun")?;
        close(&srv.join("acme/.tenantry"), 0o755)?;
        assert!(check(&state, &srv, "secret").is_err());
        Ok(())
    }
}
