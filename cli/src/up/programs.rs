//! Where the tree's programs are.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::anyhow;

/// The tree's programs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Programs {
    /// The control plane; `None`: another cluster is used.
    pub standalone: Option<PathBuf>,
    /// The operator.
    pub operator: PathBuf,
    /// The agent.
    pub agent: PathBuf,
}

/// Looks for all of them: in `given`, else beside this program, then in `PATH`.
pub fn find(given: Option<&Path>, standalone: Option<&Path>, own_plane: bool) -> anyhow::Result<Programs> {
    let folders = match given {
        Some(folder) => vec![folder.to_owned()],
        None => usual_folders(),
    };
    let one = |name: &str| find_in(&folders, name);
    let standalone = match (own_plane, standalone) {
        (false, _) => None,
        (true, Some(path)) if runs(path) => Some(path.to_owned()),
        (true, Some(path)) => return Err(anyhow!("--standalone: {} is not a program", path.display())),
        (true, None) => Some(one("tenantry-standalone")?),
    };
    Ok(Programs { standalone, operator: one("tenantry-operator")?, agent: one("tenantry-agent")? })
}

fn usual_folders() -> Vec<PathBuf> {
    let own = std::env::current_exe().ok().and_then(|path| path.parent().map(Path::to_owned));
    let path = std::env::var_os("PATH").unwrap_or_default();
    own.into_iter().chain(std::env::split_paths(&path)).collect()
}

fn find_in(folders: &[PathBuf], name: &str) -> anyhow::Result<PathBuf> {
    folders.iter().map(|folder| folder.join(name)).find(|path| runs(path)).ok_or_else(|| {
        let first = folders.first().map(|folder| folder.display().to_string()).unwrap_or_default();
        let rest = if folders.len() > 1 { ", nor in PATH" } else { "" };
        anyhow!("{name} is not in {first}{rest}: install it there, or say where it is with --bin-dir")
    })
}

fn runs(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_program_is_named_with_where_it_was_looked_for() {
        let folder = tempfile::tempdir().unwrap();
        let message = find(Some(folder.path()), None, true).unwrap_err().to_string();
        assert!(
            message.contains("tenantry-standalone is not in") && message.contains("--bin-dir"),
            "{message}"
        );
        for name in ["tenantry-operator", "tenantry-agent"] {
            let path = folder.path().join(name);
            std::fs::write(&path, "").unwrap();
            std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        }
        let programs = find(Some(folder.path()), None, false).unwrap();
        assert_eq!((programs.standalone, programs.agent), (None, folder.path().join("tenantry-agent")));
    }
}
