//! The tenant's files, on a real file system.

mod chain;
mod crash;
mod inspect;
pub mod model;
mod paths;
mod power;
mod transaction;

use std::collections::BTreeMap;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use tenantry_api::names::{OperationId, ProtectedPath, RelativePath};
use tenantry_protocol::Owner;

use super::*;

fn path(text: &str) -> RelativePath {
    RelativePath::parse(text).unwrap()
}

fn operation() -> OperationId {
    OperationId::parse("op-1").unwrap()
}

fn write(at: &str, content: &str) -> Change {
    Change::Write { path: path(at), content: content.into(), mode: None, owner: None, before: Before::Any }
}

fn delete(at: &str) -> Change {
    Change::Delete { path: path(at), before: Before::Any }
}

/// A file as it is seen from outside: content, mode, owner, group. Folders have no content.
type Shown = (Option<Vec<u8>>, u32, u32, u32);
type Snapshot = BTreeMap<PathBuf, Shown>;

/// Everything beneath a directory but our own folder.
fn snapshot(directory: &Path) -> Snapshot {
    let mut all = Snapshot::new();
    collect(directory, directory, &mut all);
    all
}

fn collect(root: &Path, folder: &Path, all: &mut Snapshot) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let at = entry.unwrap().path();
        let relative = at.strip_prefix(root).unwrap().to_owned();
        if relative == Path::new(".tenantry") {
            continue;
        }
        let found = at.symlink_metadata().unwrap();
        let content = found.is_file().then(|| std::fs::read(&at).unwrap());
        all.insert(relative, (content, found.mode() & 0o7777, found.uid(), found.gid()));
        if found.is_dir() {
            collect(root, &at, all);
        }
    }
}

/// An empty directory, in memory where the machine has such a place: what was synced is the model's affair.
pub fn scratch() -> tempfile::TempDir {
    tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir()).unwrap()
}

/// A tenant's directory before an upgrade.
fn sample() -> tempfile::TempDir {
    let directory = scratch();
    let put = |at: &str, content: &str, mode: u32| {
        let at = directory.path().join(at);
        std::fs::create_dir_all(at.parent().unwrap()).unwrap();
        std::fs::write(&at, content).unwrap();
        std::fs::set_permissions(&at, std::fs::Permissions::from_mode(mode)).unwrap();
        at
    };
    put("docker-compose.yml", "services: {old: {}}\n", 0o644);
    put(".env", "TAG=v1\n", 0o600);
    chown(put("nginx/conf.d/site.conf", "old site\n", 0o640), Some(1000), Some(1001)).unwrap();
    put("nginx/old.conf", "gone in the new release\n", 0o644);
    put("data/mine", "the tenant's\n", 0o666);
    directory
}

/// What an upgrade of [`sample`] does.
fn upgrade() -> FileSet {
    let owner = Some(Owner { uid: 33, gid: 34 });
    FileSet {
        changes: vec![
            write("docker-compose.yml", "services: {new: {}}\n"),
            write(".env", "TAG=v2\n"),
            write("nginx/conf.d/site.conf", "new site\n"),
            Change::Write {
                path: path("new/deep/routes.conf"),
                content: b"routes\n".to_vec(),
                mode: Some(0o640),
                owner,
                before: Before::Missing,
            },
            delete("nginx/old.conf"),
        ],
    }
}

/// The directory after [`upgrade`].
fn upgraded() -> Snapshot {
    let directory = sample();
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let files = Transactions::new(&tree);
    files.prepare(&operation(), &upgrade(), &[]).unwrap();
    files.commit(&operation()).unwrap();
    snapshot(directory.path())
}

/// What happens at an effect.
#[derive(Clone, Copy, Debug)]
enum Fault {
    /// This effect and all later ones do not happen: the process is gone.
    Crash,
    /// As `Crash`, but half of what was to be written then is on disk.
    Torn,
    /// This effect fails so; later ones work.
    Error(rustix::io::Errno),
}

/// Counts effects and lets the n-th meet a fault.
struct Faulty {
    at: usize,
    fault: Fault,
    seen: AtomicUsize,
}

impl Faulty {
    fn new(at: usize, fault: Fault) -> Arc<Self> {
        Arc::new(Self { at, fault, seen: AtomicUsize::new(0) })
    }

    /// Only counts.
    fn counting() -> Arc<Self> {
        Self::new(usize::MAX, Fault::Crash)
    }

    fn seen(&self) -> usize {
        self.seen.load(Ordering::SeqCst)
    }
}

impl Hook for Faulty {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        let now = self.seen.fetch_add(1, Ordering::SeqCst);
        match self.fault {
            Fault::Error(errno) if now == self.at => Err(errno.into()),
            Fault::Crash | Fault::Torn if now >= self.at => {
                if let (Fault::Torn, Effect::Append(bytes), true) = (self.fault, effect, now == self.at) {
                    use std::io::Write as _;
                    let mut file = std::fs::OpenOptions::new().append(true).open(path).unwrap();
                    file.write_all(&bytes[..bytes.len() / 2]).unwrap();
                }
                Err(io::Error::other("crashed"))
            }
            _ => Ok(()),
        }
    }
}

/// Prepares and commits an upgrade.
fn run(directory: &Path, disk_io: DiskIo, set: &FileSet) -> Result<(), FilesError> {
    let tree = Tree::open(directory, disk_io)?;
    let files = Transactions::new(&tree);
    files.prepare(&operation(), set, &[])?;
    files.commit(&operation())
}
