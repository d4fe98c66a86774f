//! A disk that forgets what was not made durable: records effects, and lays out what a power cut may have left.
//!
//! The model is harsher than most file systems: an entry is durable only when its own folder was synced, content
//! and attributes only when the file itself was; of the rest any part may be there. A rename is atomic.

use super::*;

/// Lets effects happen and be recorded until the process is gone.
pub struct Killed(pub Arc<dyn Hook>, pub Arc<Recorder>);

impl Hook for Killed {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        self.0.before(path, effect)?;
        self.1.before(path, effect)
    }
}

/// An effect that happened.
#[derive(Clone, Debug)]
enum Done {
    MakeFolder,
    Create,
    Append(Vec<u8>),
    Truncate(u64),
    SetOwner(u32, u32),
    SetMode(u32),
    SyncFile,
    Rename(PathBuf),
    Remove,
    RemoveFolder,
    SyncFolder,
    Symlink(Vec<u8>),
    Link(PathBuf),
    /// Attributes of which the model takes no account.
    Other,
    WriteAt(u64, Vec<u8>),
    Exchange(PathBuf),
    SyncAll,
}

/// Records every effect and lets it happen.
#[derive(Default)]
pub struct Recorder(Mutex<Vec<(PathBuf, Done)>>);

impl Recorder {
    pub fn len(&self) -> usize {
        self.0.lock().unwrap().len()
    }

    /// What the n-th effect was, for messages.
    pub fn name(&self, at: usize) -> String {
        self.0
            .lock()
            .unwrap()
            .get(at)
            .map_or("the end".to_owned(), |(path, done)| format!("{done:?} {}", path.display()))
    }
}

impl Hook for Recorder {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        let done = match effect {
            Effect::MakeFolder if path.exists() => return Ok(()),
            Effect::Remove | Effect::RemoveFolder if path.symlink_metadata().is_err() => return Ok(()),
            // The kernel removes no folder this way.
            Effect::Remove if path.symlink_metadata().is_ok_and(|found| found.is_dir()) => return Ok(()),
            Effect::RemoveFolder
                if std::fs::read_dir(path).is_ok_and(|mut entries| entries.next().is_some()) =>
            {
                return Ok(());
            }
            Effect::MakeFolder => Done::MakeFolder,
            Effect::Create => Done::Create,
            Effect::Append(bytes) => Done::Append(bytes.to_vec()),
            Effect::Truncate(length) => Done::Truncate(length),
            Effect::SetOwner(uid, gid) => Done::SetOwner(uid, gid),
            Effect::SetMode(mode) => Done::SetMode(mode),
            Effect::SyncFile => Done::SyncFile,
            Effect::Rename(to) => Done::Rename(to.to_owned()),
            Effect::Remove => Done::Remove,
            Effect::RemoveFolder => Done::RemoveFolder,
            Effect::SyncFolder => Done::SyncFolder,
            Effect::Symlink(target) => Done::Symlink(target.to_vec()),
            Effect::Link(to) => Done::Link(to.to_owned()),
            Effect::SetTime | Effect::SetAttribute => Done::Other,
            Effect::WriteAt(at, bytes) => Done::WriteAt(at, bytes.to_vec()),
            Effect::Exchange(with) => Done::Exchange(with.to_owned()),
            Effect::SyncAll => Done::SyncAll,
        };
        self.0.lock().unwrap().push((path.to_owned(), done));
        Ok(())
    }
}

#[derive(Clone, Debug, PartialEq)]
struct Inode {
    content: Vec<u8>,
    mode: u32,
    owner: (u32, u32),
}

#[derive(Clone, Debug)]
enum Node {
    Folder(u32),
    File(usize),
    Symlink(Vec<u8>),
}

/// A change of names, and whether it is durable.
#[derive(Clone)]
struct Names {
    path: PathBuf,
    done: Done,
    file: usize,
    durable: bool,
}

/// A disk with durable contents, and what happened since.
#[derive(Clone)]
pub struct Disk {
    root: PathBuf,
    start: BTreeMap<PathBuf, Node>,
    /// Each file as it is, and as it is durable.
    files: Vec<(Inode, Inode)>,
    now: BTreeMap<PathBuf, usize>,
    names: Vec<Names>,
}

impl Disk {
    /// Takes a directory, our own folder included, as durable.
    pub fn of(root: &Path) -> Self {
        let mut disk = Self {
            root: root.to_owned(),
            start: BTreeMap::new(),
            files: Vec::new(),
            now: BTreeMap::new(),
            names: Vec::new(),
        };
        disk.start.insert(root.to_owned(), Node::Folder(0o755));
        disk.take(root);
        disk
    }

    fn take(&mut self, folder: &Path) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let at = entry.unwrap().path();
            let found = at.symlink_metadata().unwrap();
            let mode = found.mode() & 0o7777;
            if found.is_dir() {
                self.start.insert(at.clone(), Node::Folder(mode));
                self.take(&at);
            } else if found.is_symlink() {
                let target = std::fs::read_link(&at).unwrap().into_os_string().into_encoded_bytes();
                self.start.insert(at, Node::Symlink(target));
            } else {
                let inode =
                    Inode { content: std::fs::read(&at).unwrap(), mode, owner: (found.uid(), found.gid()) };
                self.start.insert(at.clone(), Node::File(self.files.len()));
                self.now.insert(at, self.files.len());
                self.files.push((inode.clone(), inode));
            }
        }
    }

    /// Lets the first effects of a recording happen.
    pub fn replay(&mut self, recorder: &Recorder, effects: usize) {
        let all = recorder.0.lock().unwrap();
        for (path, done) in &all[..effects] {
            self.happen(path, done);
        }
    }

    fn happen(&mut self, path: &Path, done: &Done) {
        let file = self.now.get(path).copied();
        match done {
            Done::Create => {
                let inode = Inode { content: Vec::new(), mode: 0o600, owner: (0, 0) };
                self.now.insert(path.to_owned(), self.files.len());
                self.note(path, done, self.files.len());
                self.files.push((inode.clone(), inode));
            }
            Done::Append(bytes) => self.files[file.unwrap()].0.content.extend_from_slice(bytes),
            Done::WriteAt(at, bytes) => {
                let (content, at) = (&mut self.files[file.unwrap()].0.content, usize::try_from(*at).unwrap());
                content.resize(content.len().max(at + bytes.len()), 0);
                content[at..at + bytes.len()].copy_from_slice(bytes);
            }
            Done::Other => {}
            Done::Link(to) => {
                let file = self.now[path];
                self.now.insert(to.clone(), file);
                self.note(path, done, file);
            }
            Done::Exchange(with) => {
                for (old, file) in std::mem::take(&mut self.now) {
                    self.now.insert(exchanged(&old, path, with), file);
                }
                self.note(path, done, usize::MAX);
            }
            Done::SyncAll => {
                self.files.iter_mut().for_each(|(now, durable)| durable.clone_from(now));
                self.names.iter_mut().for_each(|name| name.durable = true);
            }
            Done::Truncate(length) => {
                self.files[file.unwrap()].0.content.truncate(usize::try_from(*length).unwrap());
            }
            Done::SetOwner(uid, gid) => {
                if let Some(file) = file {
                    self.files[file].0.owner = (*uid, *gid);
                }
            }
            // Folders are made with their mode.
            Done::SetMode(mode) => {
                if let Some(file) = file {
                    self.files[file].0.mode = *mode;
                }
            }
            Done::SyncFile => self.files[file.unwrap()].1 = self.files[file.unwrap()].0.clone(),
            Done::Rename(to) => {
                let file = self.now.remove(path);
                // A folder moves with everything in it; so does a symlink.
                let moved =
                    |old: PathBuf| old.strip_prefix(path).map_or(old.clone(), |rest| joined(to, rest));
                self.now =
                    std::mem::take(&mut self.now).into_iter().map(|(old, at)| (moved(old), at)).collect();
                if let Some(file) = file {
                    self.now.insert(to.clone(), file);
                }
                self.note(path, done, file.unwrap_or(usize::MAX));
            }
            Done::Remove => {
                self.now.remove(path);
                self.note(path, done, usize::MAX);
            }
            Done::MakeFolder | Done::RemoveFolder | Done::Symlink(_) => self.note(path, done, usize::MAX),
            Done::SyncFolder => {
                for name in &mut self.names {
                    let entry = match &name.done {
                        Done::Rename(to) | Done::Link(to) => to,
                        _ => &name.path,
                    };
                    name.durable |= entry.parent() == Some(path);
                    // One record of the file system's journal holds both sides.
                    name.durable |= matches!(&name.done, Done::Exchange(with) if with.parent() == Some(path));
                }
            }
        }
    }

    fn note(&mut self, path: &Path, done: &Done, file: usize) {
        self.names.push(Names { path: path.to_owned(), done: done.clone(), file, durable: false });
    }

    /// Lays out, in a directory of its own, what is left after a power cut. `chance` says of each thing that was not
    /// durable how much of it is there after all, from 0 (nothing) to 255 (all).
    pub fn after_power_cut(&self, mut chance: impl FnMut() -> u8) -> tempfile::TempDir {
        let mut left = self.start.clone();
        for name in &self.names {
            if name.durable || chance() > 127 {
                apply(&mut left, name);
            }
        }
        let directory = scratch();
        for (path, node) in &left {
            let at = directory.path().join(path.strip_prefix(&self.root).unwrap());
            match node {
                Node::Folder(_) if *path == self.root => {}
                Node::Folder(mode) => {
                    std::fs::create_dir(&at).unwrap();
                    std::fs::set_permissions(&at, std::fs::Permissions::from_mode(*mode)).unwrap();
                }
                Node::Symlink(target) => {
                    use std::os::unix::ffi::OsStrExt as _;
                    std::os::unix::fs::symlink(std::ffi::OsStr::from_bytes(target), &at).unwrap();
                }
                Node::File(file) => lay_out(&at, &self.files[*file], &mut chance),
            }
        }
        directory
    }
}

fn apply(left: &mut BTreeMap<PathBuf, Node>, name: &Names) {
    let path = &name.path;
    let folder_of = |left: &BTreeMap<PathBuf, Node>, at: &Path| {
        at.parent().is_some_and(|parent| matches!(left.get(parent), Some(Node::Folder(_))))
    };
    match &name.done {
        Done::MakeFolder if folder_of(left, path) => {
            let own = path.components().any(|component| component.as_os_str() == ".tenantry");
            left.insert(path.clone(), Node::Folder(if own { 0o700 } else { 0o755 }));
        }
        Done::Create if folder_of(left, path) => {
            left.insert(path.clone(), Node::File(name.file));
        }
        Done::Rename(to) if folder_of(left, to) && name.file != usize::MAX => {
            left.remove(path);
            left.insert(to.clone(), Node::File(name.file));
        }
        Done::Rename(to) if folder_of(left, to) => {
            let moved = |old: PathBuf| old.strip_prefix(path).map_or(old.clone(), |rest| joined(to, rest));
            *left = std::mem::take(left).into_iter().map(|(old, node)| (moved(old), node)).collect();
        }
        Done::Symlink(target) if folder_of(left, path) => {
            left.insert(path.clone(), Node::Symlink(target.clone()));
        }
        Done::Link(to) if folder_of(left, to) => {
            left.insert(to.clone(), Node::File(name.file));
        }
        Done::Exchange(with) if left.contains_key(path) && left.contains_key(with) => {
            *left = std::mem::take(left)
                .into_iter()
                .map(|(old, node)| (exchanged(&old, path, with), node))
                .collect();
        }
        Done::Remove => {
            left.remove(path);
        }
        // It was empty, so whatever was in it has gone with it.
        Done::RemoveFolder => left.retain(|other, _| !other.starts_with(path)),
        _ => {}
    }
}

/// Where a path is after two others have changed places.
fn exchanged(path: &Path, one: &Path, other: &Path) -> PathBuf {
    let instead = |from: &Path, to: &Path| path.strip_prefix(from).ok().map(|rest| joined(to, rest));
    instead(one, other).or_else(|| instead(other, one)).unwrap_or_else(|| path.to_owned())
}

/// Without the slash that an empty rest would leave at the end.
fn joined(to: &Path, rest: &Path) -> PathBuf {
    to.join(rest).components().collect()
}

fn lay_out(at: &Path, (now, durable): &(Inode, Inode), chance: &mut impl FnMut() -> u8) {
    let mut inode = durable.clone();
    if now.content != durable.content {
        // Some of what was appended; the journal's and the records' files are only ever appended to.
        let shared = durable.content.len().min(now.content.len());
        let more = (now.content.len() - shared) * usize::from(chance()) / 255;
        inode.content = now.content[..shared + more].to_vec();
    }
    if chance() > 127 {
        (inode.mode, inode.owner) = (now.mode, now.owner);
    }
    std::fs::write(at, &inode.content).unwrap();
    chown(at, Some(inode.owner.0), Some(inode.owner.1)).unwrap();
    std::fs::set_permissions(at, std::fs::Permissions::from_mode(inode.mode)).unwrap();
}

/// How much of what was not durable is left: nothing, everything, or by chance.
pub fn chances(seed: usize) -> impl FnMut() -> u8 {
    let mut state = (seed as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    move || match seed {
        0 => 0,
        1 => 255,
        _ => {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            (state >> 56) as u8
        }
    }
}
