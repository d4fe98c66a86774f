//! The state folder: what lies where, and whose it is.

use std::fs::{DirBuilder, File, OpenOptions, TryLockError};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::paths;

/// The state folder of one `tenantry up`.
#[derive(Clone, Debug)]
pub struct Layout {
    root: PathBuf,
}

impl Layout {
    /// Makes the folder and those within, for the owner alone.
    pub fn prepare(root: &Path) -> anyhow::Result<Self> {
        let make = |path: &Path| {
            let made = DirBuilder::new().recursive(true).mode(0o700).create(path);
            made.with_context(|| format!("can't make the state folder {}", path.display()))
        };
        make(root)?;
        let root = root.canonicalize().with_context(|| root.display().to_string())?;
        own_and_close(&root)?;
        let layout = Self { root };
        make(&layout.logs())?;
        Ok(layout)
    }

    /// Keeps every other `tenantry up` from this folder until the file is dropped.
    pub fn lock(&self) -> anyhow::Result<File> {
        let path = self.root.join("lock");
        let mut file =
            OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                file.read_to_string(&mut pid)?;
                bail!(
                    "another `tenantry up` (process {}) uses {}: end it first, or give --state-dir another folder",
                    pid.trim(),
                    self.root.display()
                );
            }
            Err(TryLockError::Error(error)) => return Err(error).context(path.display().to_string()),
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(file)
    }

    /// What this tree's operator is called among operators: made once, so that no two are ever called the same and a
    /// restart does not change it.
    pub fn identity(&self) -> anyhow::Result<String> {
        let path = self.root.join("identity");
        match std::fs::read_to_string(&path) {
            Ok(kept) if !kept.trim().is_empty() => return Ok(kept.trim().to_owned()),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(error).context(path.display().to_string());
            }
            _ => {}
        }
        let made = format!("up-{:016x}", fastrand::u64(..));
        let mut file = tempfile::NamedTempFile::new_in(&self.root)?;
        writeln!(file, "{made}")?;
        file.as_file().sync_all()?;
        file.persist(&path).with_context(|| path.display().to_string())?;
        Ok(made)
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }
    /// The control plane's data.
    pub fn control_plane(&self) -> PathBuf {
        self.root.join("control-plane")
    }
    /// The control plane's kubeconfig.
    pub fn kubeconfig(&self) -> PathBuf {
        self.root.join(paths::KUBECONFIG)
    }
    /// Authority and certificates.
    pub fn pki(&self) -> PathBuf {
        self.root.join("pki")
    }
    /// The agent's policy file.
    pub fn policy(&self) -> PathBuf {
        self.root.join(paths::POLICY)
    }
    /// What the programs log.
    pub fn logs(&self) -> PathBuf {
        self.root.join("logs")
    }
}

/// Refuses a folder of somebody else, and closes one that others may look into.
fn own_and_close(path: &Path) -> anyhow::Result<()> {
    let metadata = std::fs::metadata(path)?;
    let own = rustix::process::geteuid().as_raw();
    if metadata.uid() != own {
        bail!(
            "{} belongs to user {}, not to user {own}: give --state-dir a folder of your own",
            path.display(),
            metadata.uid()
        );
    }
    if metadata.mode() & 0o077 != 0 {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o700))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_one_on_the_same_folder_is_told_which_process_has_it() {
        let folder = tempfile::tempdir().unwrap();
        let layout = Layout::prepare(&folder.path().join("state")).unwrap();
        assert_eq!(std::fs::metadata(layout.root()).unwrap().mode() & 0o777, 0o700);
        let held = layout.lock().unwrap();
        let message = layout.lock().unwrap_err().to_string();
        assert!(message.contains(&format!("(process {})", std::process::id())), "{message}");
        drop(held);
        layout.lock().unwrap();
    }

    #[test]
    fn its_operator_is_called_the_same_after_a_restart_and_like_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let identity = |name: &str| Layout::prepare(&folder.path().join(name)).unwrap().identity().unwrap();
        assert_eq!(identity("a"), identity("a"));
        assert_ne!(identity("a"), identity("b"));
    }
}
