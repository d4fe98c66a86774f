//! The data of one restore point: `DIR/.tenantry/restore/<operation>/data/`.

use std::path::Path;

use tenantry_api::names::{OperationId, RelativePath, TenantUid};

use super::archive_reader::{StoredArchive, is_there, read_archive};
use super::entry::Text;
use super::error::SnapshotError;
use super::exchange_restore::ExchangeRestore;
use super::source::{OURS, Source};
use super::take::{Taking, estimate, take};
use super::{Archive, Estimate, Part, ProgressSink, What, threads};
use crate::files::{DiskIo, Folder, Tree, sha256};

/// What stands before each path in a volume's archive.
pub(crate) const TOP: &str = ".";
/// Where data is unpacked, in our own folder.
const DATA: &str = "data";
/// By what is in this file a helper knows the directory for the one that is meant.
pub(crate) const PROOF: &str = "proof";
/// It is a hash.
pub(crate) const PROOF_LIMIT: u64 = 64;

/// Where the data of a restore point is kept.
pub struct ArchiveDir<'a> {
    folder: Folder,
    tree: &'a Tree,
    tenant: &'a TenantUid,
    point: &'a OperationId,
}

impl<'a> ArchiveDir<'a> {
    /// The archive directory of a restore point, made if need be.
    pub fn open(
        tree: &'a Tree,
        tenant: &'a TenantUid,
        point: &'a OperationId,
    ) -> Result<Self, SnapshotError> {
        let all = tree.make_own("restore")?;
        for (folder, name) in [(&all, point.as_str())] {
            if folder.make(name, 0o700)? {
                folder.sync()?;
            }
        }
        let own = all.below(point.as_str())?;
        if own.make(DATA, 0o700)? {
            own.sync()?;
        }
        Ok(Self { folder: own.below(DATA)?, tree, tenant, point })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Whose data a part is, as its manifest says it.
    pub fn of(&self, what: &What) -> String {
        let what = match what {
            What::Path(path) => format!("path {path}"),
            What::Volume { name, .. } => format!("volume {name}"),
        };
        format!("{} {what}", self.tenant)
    }

    /// How much there is at a path; `None` where there is nothing. Refused where it could not be kept.
    pub fn estimate(tree: &Tree, path: &RelativePath) -> Result<Option<Estimate>, SnapshotError> {
        match parent(tree, path)? {
            Some(folder) => estimate(&Source::new(&folder, path.file_name())?),
            None => Ok(None),
        }
    }

    /// How much there is in a volume whose folder we can see.
    pub fn estimate_volume(mountpoint: &Path) -> Result<Option<Estimate>, SnapshotError> {
        let (folder, name) = around(mountpoint, DiskIo::default())?;
        estimate(&Source::new(&folder, &name)?)
    }

    /// Keeps what is at a path, as the n-th part, and reads it back.
    pub fn keep(
        &self,
        n: usize,
        path: &RelativePath,
        sink: &dyn ProgressSink,
    ) -> Result<Part, SnapshotError> {
        let what = What::Path(path.clone());
        let archive = match parent(self.tree, path)? {
            Some(folder) => {
                let source = Source::new(&folder, path.file_name())?;
                let prefix = Text(path.as_str().as_bytes().to_vec());
                keep(&source, prefix, &self.of(&what), &self.folder, &n.to_string(), sink)?
            }
            None => None,
        };
        Ok(Part { what, archive })
    }

    /// Keeps a volume whose folder we can see.
    pub fn keep_volume(
        &self,
        n: usize,
        what: What,
        mountpoint: &Path,
        sink: &dyn ProgressSink,
    ) -> Result<Part, SnapshotError> {
        let (folder, name) = around(mountpoint, self.tree.root.disk_io().clone())?;
        let (source, of) = (Source::new(&folder, &name)?, self.of(&what));
        let prefix = Text(TOP.as_bytes().to_vec());
        let archive = keep(&source, prefix, &of, &self.folder, &n.to_string(), sink)?;
        Ok(Part { what, archive })
    }

    /// Puts something here that no other folder holds, and says what it is.
    pub fn prove(&self) -> Result<String, SnapshotError> {
        let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
        let proof =
            sha256(format!("{now} {} {}", std::process::id(), self.path().display()).as_bytes()).to_string();
        self.unprove()?;
        self.folder.create(PROOF)?.append(proof.as_bytes())?;
        Ok(proof)
    }

    /// Takes it away again.
    pub fn unprove(&self) -> Result<(), SnapshotError> {
        self.folder.remove(PROOF)?;
        Ok(())
    }

    /// A part that a helper has kept and read back: that it came to this very directory.
    pub fn arrived(&self, what: What, archive: Archive) -> Result<Part, SnapshotError> {
        let (prefix, of) = (prefix(&what), self.of(&what));
        is_there(&self.stored(&archive, &prefix, &of))?;
        Ok(Part { what, archive: Some(archive) })
    }

    /// Reads a part once more and compares all of it.
    pub fn verify(&self, part: &Part, sink: &dyn ProgressSink) -> Result<(), SnapshotError> {
        let Some(archive) = &part.archive else { return Ok(()) };
        let (prefix, of) = (prefix(&part.what), self.of(&part.what));
        read_archive(&self.stored(archive, &prefix, &of), None, sink)
    }

    /// Brings a path back, as the n-th part.
    pub fn restore(&self, n: usize, part: &Part, sink: &dyn ProgressSink) -> Result<(), SnapshotError> {
        let What::Path(path) = &part.what else {
            return Err(SnapshotError::refused(self.path(), "a volume is restored as such"));
        };
        let Some(exchange) = self.exchange_restore(n, path, part.archive.is_some())? else { return Ok(()) };
        self.exchange(&exchange, part, sink)
    }

    /// Brings a volume back whose folder we can see.
    pub fn restore_volume(
        &self,
        n: usize,
        part: &Part,
        mountpoint: &Path,
        sink: &dyn ProgressSink,
    ) -> Result<(), SnapshotError> {
        let (parent, name) = around(mountpoint, self.tree.root.disk_io().clone())?;
        let beside = parent.again()?;
        let exchange = ExchangeRestore { parent, name, beside, stage: self.beside_name(n) };
        self.exchange(&exchange, part, sink)
    }

    fn exchange(
        &self,
        exchange: &ExchangeRestore,
        part: &Part,
        sink: &dyn ProgressSink,
    ) -> Result<(), SnapshotError> {
        match &part.archive {
            Some(archive) => {
                let (prefix, of) = (prefix(&part.what), self.of(&part.what));
                exchange.restore(&self.stored(archive, &prefix, &of), sink)
            }
            None => exchange.remove(),
        }
    }

    fn exchange_restore(
        &self,
        n: usize,
        path: &RelativePath,
        make: bool,
    ) -> Result<Option<ExchangeRestore>, SnapshotError> {
        if make {
            make_parents(self.tree, path)?;
        }
        let Some(parent) = parent(self.tree, path)? else { return Ok(None) };
        let own = self.tree.make_own(DATA)?;
        let (beside, stage) = if own.mount()? == parent.mount()? {
            (own, format!("{}-{n}", self.point))
        } else {
            (parent.again()?, self.beside_name(n))
        };
        Ok(Some(ExchangeRestore { parent, name: path.file_name().to_owned(), beside, stage }))
    }

    /// The name of the folder that is used while the n-th part is brought back.
    pub fn beside_name(&self, n: usize) -> String {
        format!("{}{}-{n}", String::from_utf8_lossy(OURS), self.point)
    }

    fn stored<'b>(&'b self, archive: &'b Archive, prefix: &'b Text, of: &'b str) -> StoredArchive<'b> {
        StoredArchive { archive, folder: &self.folder, prefix, of, threads: threads() }
    }
}

/// Keeps a tree and reads it back.
pub(crate) fn keep(
    source: &Source,
    prefix: Text,
    of: &str,
    folder: &Folder,
    name: &str,
    sink: &dyn ProgressSink,
) -> Result<Option<Archive>, SnapshotError> {
    let taking = Taking { source, prefix, of, folder, name, threads: threads() };
    let Some(archive) = take(&taking, sink)? else { return Ok(None) };
    let stored =
        StoredArchive { archive: &archive, folder, prefix: &taking.prefix, of, threads: taking.threads };
    read_archive(&stored, None, sink)?;
    Ok(Some(archive))
}

fn prefix(what: &What) -> Text {
    let prefix = match what {
        What::Path(path) => path.as_str(),
        What::Volume { .. } => TOP,
    };
    Text(prefix.as_bytes().to_vec())
}

/// The folder that a path is in; `None` where there is none.
fn parent(tree: &Tree, path: &RelativePath) -> Result<Option<Folder>, SnapshotError> {
    match path.parent() {
        None => Ok(Some(tree.root.again()?)),
        Some(parent) if tree.stat(&parent)? == crate::files::Stat::Missing => Ok(None),
        Some(parent) => Ok(Some(tree.root.below(parent.as_str())?)),
    }
}

/// Makes the folders above a path, where a release has taken them away.
fn make_parents(tree: &Tree, path: &RelativePath) -> Result<(), SnapshotError> {
    let mut missing = Vec::new();
    let mut at = path.parent();
    while let Some(folder) = at.filter(|folder| matches!(tree.stat(folder), Ok(crate::files::Stat::Missing)))
    {
        at = folder.parent();
        missing.push(folder);
    }
    for folder in missing.iter().rev() {
        let Some(above) = parent(tree, folder)? else { return Ok(()) };
        above.make(folder.file_name(), 0o755)?;
        above.sync()?;
    }
    Ok(())
}

/// The folder around a volume's data, and the data's name in it.
fn around(mountpoint: &Path, disk_io: DiskIo) -> Result<(Folder, String), SnapshotError> {
    let (Some(parent), Some(name)) =
        (mountpoint.parent(), mountpoint.file_name().and_then(|name| name.to_str()))
    else {
        return Err(SnapshotError::refused(mountpoint, "this is no volume's folder"));
    };
    Ok((Folder::open(parent, disk_io)?, name.to_owned()))
}
