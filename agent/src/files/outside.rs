//! Files outside of the tenant's directory, which are looked at and read, and never written.

use std::path::{Path, PathBuf};

use super::disk_io::DiskIo;
use super::error::FilesError;
use super::folder::Folder;
use super::stat::Stat;

/// Where a path leads; what of it is missing is made where it is looked for.
pub fn real(path: &Path) -> Result<PathBuf, String> {
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        match std::fs::symlink_metadata(there) {
            Ok(_) => break,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("can't be looked at: {error}")),
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { break };
        missing.push(name);
        there = parent;
    }
    let real = std::fs::canonicalize(there).map_err(|error| format!("can't be followed: {error}"))?;
    Ok(missing.into_iter().rev().fold(real, |path, name| path.join(name)))
}

/// Reads a regular file by its absolute path, none of whose components may be a symlink any more; `None` where there is
/// nothing.
pub fn read_real(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, FilesError> {
    Ok(Folder::root(DiskIo::default())?.read(from_root(path)?, limit)?.map(|(content, _)| content))
}

/// What is at a path, wherever it leads; links may lead elsewhere later, so that counts, too.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Led {
    to: PathBuf,
    pub stat: Stat,
}

impl Led {
    /// What is there now; what can't be looked at is told as such.
    pub fn of(path: &str) -> Self {
        let unseen = |problem: String| Self { to: PathBuf::new(), stat: Stat::Other(problem) };
        let to = match real(Path::new(path)) {
            Ok(to) => to,
            Err(problem) => return unseen(problem),
        };
        let look = || Folder::root(DiskIo::default())?.stat(from_root(&to)?);
        match look() {
            Ok(stat) => Self { to, stat },
            Err(problem) => unseen(problem.to_string()),
        }
    }
}

fn from_root(path: &Path) -> Result<&str, FilesError> {
    let relative = path.strip_prefix("/").unwrap_or(path);
    relative.to_str().ok_or_else(|| FilesError::refused("a file", "its name is not UTF-8"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::files::tests::scratch;
    use crate::files::{Stamps, Tree};

    #[test]
    fn what_is_remembered_of_an_outside_file_is_dropped_when_it_or_where_it_leads_changes() {
        let (scratch, elsewhere) = (scratch(), scratch());
        let tree = Tree::open(scratch.path(), DiskIo::default()).unwrap();
        let at = elsewhere.path().join("base.yml");
        let holds_after = |change: &dyn Fn()| {
            let mut stamps = Stamps::of_directory();
            stamps.outside(at.to_str().unwrap());
            assert!(stamps.still_hold(Some(&tree)));
            change();
            stamps.still_hold(Some(&tree))
        };
        assert!(!holds_after(&|| std::fs::write(&at, "a: 1").unwrap()), "made");
        assert!(!holds_after(&|| std::fs::write(&at, "a: 22").unwrap()), "changed");
        assert!(!holds_after(&|| std::fs::remove_file(&at).unwrap()), "removed");
        for name in ["one", "two"] {
            std::fs::write(elsewhere.path().join(name), "").unwrap();
        }
        symlink("one", &at).unwrap();
        let another = || {
            std::fs::remove_file(&at).unwrap();
            symlink("two", &at).unwrap();
        };
        assert!(!holds_after(&another), "leads elsewhere");
        assert!(holds_after(&|| {}));
    }
}
