//! The machine's disk: a real folder, below which the shipped agent works, and what becomes of it when the agent
//! is killed or the power is cut between two of its effects.

use std::cell::OnceCell;
use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::ThreadId;

use fastrand::Rng;
use tenantry_agent::files::{Effect, Hook};
use tenantry_api::names::AGENT_FOLDER;

use crate::agent::{Killed, dies};
use crate::releases::Blob;
use crate::scheduler::Shared;
use crate::user_actions;
use crate::world::{Fault, World};

/// What the operating system says of a disk that is full, and of one that fails.
const NO_SPACE: i32 = 28;
const BROKEN: i32 = 5;
/// The agent has a few hundred effects for each occasion on which a disk is said to fail.
const EFFECTS_PER_OCCASION: u32 = 60;
/// In the tenant's directory, what is not a file of the release: ours, data, and the tenant's own tree.
const NOT_FILES: [&str; 3] = [AGENT_FOLDER, DATA, PROTECTED];
/// The data that containers share.
pub const DATA: &str = "data";
/// The tenant's own tree, which nobody of ours touches.
pub const PROTECTED: &str = "uploads";
/// Where it is seen how far a transaction is.
const TRANSACTIONS: &str = ".tenantry/tx";
const PHOTO: &str = "photo";
const THEIRS: &[u8] = b"theirs";
/// The file in the data that the application writes.
const MARK: &str = "mark";

/// The folders of one machine. A thread has one machine at a time, and always the same path for it, so that a seed is the
/// same run every time.
pub struct Disk {
    top: PathBuf,
    /// The tenant's directory.
    pub directory: PathBuf,
    /// The agent's own records.
    pub state: PathBuf,
    /// What a power cut may undo.
    volatile: Vec<Volatile>,
    /// Whether anything that is not synced may be lost.
    forgets: bool,
    /// Whether a file of the tenant's may have changed since it was last looked at.
    changed: bool,
    /// Whether one, or how far a transaction is, may have since the promises were last checked.
    pub unchecked: bool,
    /// Which of the agent's records may have, as paths below their folder; that folder itself where any may.
    pub changed_records: BTreeSet<PathBuf>,
    /// A person's edit that comes at this effect of the agent's, counted from now.
    pub edit_in: Option<u32>,
    files: BTreeMap<String, Blob>,
    /// Whether there is a tree of the tenant's own.
    protects: bool,
}

/// A change that was made and not yet synced.
enum Volatile {
    /// Bytes were added to a file that was so long.
    Appended(PathBuf, u64),
    /// A file's content was another.
    Rewritten(PathBuf, Vec<u8>),
    /// A file was made.
    Created(PathBuf),
    /// A folder was made.
    MadeFolder(PathBuf),
    /// A file or folder was given another path, where there was this file.
    Renamed(PathBuf, PathBuf, Option<Saved>),
    /// A file was removed.
    Removed(PathBuf, Saved),
    /// An empty folder was removed.
    RemovedFolder(PathBuf),
    /// Two paths changed places.
    Exchanged(PathBuf, PathBuf),
}

/// A file as it was.
struct Saved {
    content: Vec<u8>,
    mode: u32,
}

impl Saved {
    fn of(path: &Path) -> Option<Self> {
        let found = path.symlink_metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Self { content: std::fs::read(path).ok()?, mode: found.permissions().mode() })
    }

    fn put(&self, path: &Path) {
        if std::fs::write(path, &self.content).is_ok() {
            let _ = std::fs::set_permissions(path, std::fs::Permissions::from_mode(self.mode));
        }
    }
}

impl Disk {
    /// An empty disk.
    pub fn new(forgets: bool) -> Self {
        let top = place();
        let _ = std::fs::remove_dir_all(&top);
        let (directory, state) = (top.join("srv/acme"), top.join("state"));
        for folder in [&top.join("srv"), &state] {
            #[allow(clippy::expect_used, reason = "without a disk there is no run")]
            std::fs::create_dir_all(folder).expect("a folder");
        }
        Self {
            top,
            directory,
            state,
            volatile: Vec::new(),
            forgets,
            changed: true,
            unchecked: true,
            changed_records: BTreeSet::new(),
            edit_in: None,
            files: BTreeMap::new(),
            protects: false,
        }
    }

    /// The tenant's directory as text.
    pub fn directory(&self) -> String {
        self.directory.display().to_string()
    }

    /// The tenant has a tree of its own, with something in it.
    pub fn protect(&mut self) {
        let tree = self.directory.join(PROTECTED);
        let made = std::fs::create_dir_all(&tree).and_then(|()| std::fs::write(tree.join(PHOTO), THEIRS));
        self.protects = made.is_ok();
    }

    /// Whether the tenant's own tree is as it was, where there is one.
    pub fn protected_is_whole(&self) -> bool {
        let photo = || std::fs::read(self.directory.join(PROTECTED).join(PHOTO));
        !self.protects || photo().is_ok_and(|photo| photo == THEIRS)
    }

    /// A person writes a file.
    pub fn write(&mut self, path: &str, text: &str) {
        let at = self.directory.join(path);
        let folder = at.parent().unwrap_or(&self.directory);
        let _ = std::fs::create_dir_all(folder).and_then(|()| std::fs::write(&at, text));
        (self.changed, self.unchecked) = (true, true);
    }

    /// Every file of the tenant's, data aside.
    pub fn files(&self) -> &BTreeMap<String, Blob> {
        &self.files
    }

    /// Looks at the tenant's files again, where they may have changed.
    pub fn look(&mut self) {
        if std::mem::take(&mut self.changed) {
            let mut files = BTreeMap::new();
            collect(&self.directory, "", &mut files);
            self.files = files;
        }
    }

    /// What the application has left in its data.
    pub fn data(&self) -> Option<String> {
        std::fs::read_to_string(self.directory.join(DATA).join(MARK)).ok()
    }

    /// The application leaves something in its data.
    pub fn mark(&self, text: &str) {
        let folder = self.directory.join(DATA);
        let _ = std::fs::create_dir_all(&folder).and_then(|()| std::fs::write(folder.join(MARK), text));
    }

    /// What a power cut leaves: of what was not synced, anything.
    pub fn power_cut(&mut self, rng: &mut Rng) {
        while let Some(change) = self.volatile.pop() {
            if rng.bool() {
                self.undo(change, rng);
            }
        }
        (self.changed, self.unchecked) = (true, true);
        self.changed_records.insert(PathBuf::new());
    }

    fn undo(&mut self, change: Volatile, rng: &mut Rng) {
        match change {
            Volatile::Appended(path, length) => {
                if let Ok(file) = std::fs::OpenOptions::new().write(true).open(&path) {
                    let now = file.metadata().map_or(length, |found| found.len());
                    let left = if now > length { rng.u64(length..now) } else { now };
                    let _ = file.set_len(left);
                }
            }
            Volatile::Rewritten(path, content) => drop(std::fs::write(path, content)),
            Volatile::Created(path) => drop(std::fs::remove_file(path)),
            Volatile::MadeFolder(path) => drop(std::fs::remove_dir(path)),
            Volatile::Renamed(from, to, old) => {
                if std::fs::rename(&to, &from).is_ok() {
                    self.moved(&to, &from);
                    if let Some(old) = old {
                        old.put(&to);
                    }
                }
            }
            Volatile::Removed(path, saved) => saved.put(&path),
            Volatile::RemovedFolder(path) => drop(std::fs::create_dir(path)),
            Volatile::Exchanged(one, other) => {
                if exchange(&one, &other).is_ok() {
                    self.moved(&one, &other);
                }
            }
        }
    }

    /// What is remembered of a file's content goes with the file.
    fn moved(&mut self, from: &Path, to: &Path) {
        for change in &mut self.volatile {
            if let Volatile::Appended(path, _) | Volatile::Rewritten(path, _) = change
                && let Ok(rest) = path.strip_prefix(from)
            {
                *path = if rest.as_os_str().is_empty() { to.to_owned() } else { to.join(rest) };
            }
        }
    }

    /// Remembers how an effect is undone, and forgets what it makes durable.
    fn remember(&mut self, path: &Path, effect: Effect<'_>) {
        if !self.forgets {
            return;
        }
        let at = path.to_owned();
        let change = match effect {
            Effect::Create if !path.exists() => Volatile::Created(at),
            Effect::MakeFolder if !path.exists() => Volatile::MadeFolder(at),
            Effect::Append(_) => {
                let length = path.metadata().map_or(0, |found| found.len());
                Volatile::Appended(at, length)
            }
            Effect::Truncate(_) | Effect::WriteAt(..) => match std::fs::read(path) {
                Ok(content) => Volatile::Rewritten(at, content),
                Err(_) => return,
            },
            Effect::Rename(to) if path.symlink_metadata().is_ok() => {
                let old = Saved::of(to);
                self.moved(path, to);
                Volatile::Renamed(at, to.to_owned(), old)
            }
            Effect::Remove => match Saved::of(path) {
                Some(saved) => Volatile::Removed(at, saved),
                None => return,
            },
            Effect::RemoveFolder if std::fs::read_dir(path).is_ok_and(|mut all| all.next().is_none()) => {
                Volatile::RemovedFolder(at)
            }
            Effect::Exchange(with) if path.exists() && with.exists() => {
                Volatile::Exchanged(at, with.to_owned())
            }
            Effect::SyncFile => {
                self.volatile.retain(|one| {
                    !matches!(one, Volatile::Appended(of, _) | Volatile::Rewritten(of, _) if of == path)
                });
                return;
            }
            Effect::SyncFolder => {
                self.volatile.retain(|one| !one.entries().contains(&Some(path)));
                return;
            }
            Effect::SyncAll => return self.volatile.clear(),
            _ => return,
        };
        self.volatile.push(change);
    }
}

impl Volatile {
    /// The folders whose entries it changed, those with whose sync it is durable.
    fn entries(&self) -> [Option<&Path>; 2] {
        match self {
            Self::Appended(..) | Self::Rewritten(..) => [None, None],
            Self::Created(path)
            | Self::MadeFolder(path)
            | Self::Removed(path, _)
            | Self::RemovedFolder(path)
            | Self::Renamed(_, path, _) => [path.parent(), None],
            Self::Exchanged(one, other) => [one.parent(), other.parent()],
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.top);
    }
}

fn exchange(one: &Path, other: &Path) -> io::Result<()> {
    let beside = one.with_extension("exchanged");
    std::fs::rename(one, &beside)?;
    std::fs::rename(other, one)?;
    std::fs::rename(&beside, other)
}

/// Whether a path in the tenant's directory can be one of a release's files.
pub fn is_file_of_release(inside: &Path) -> bool {
    !NOT_FILES.iter().any(|top| inside.starts_with(top))
}

fn collect(folder: &Path, below: &str, files: &mut BTreeMap<String, Blob>) {
    for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
        let path = format!("{below}{}", entry.file_name().to_string_lossy());
        if !is_file_of_release(Path::new(&path)) {
            continue;
        }
        let Ok(kind) = entry.file_type() else { continue };
        if kind.is_symlink() {
            continue;
        }
        if kind.is_dir() {
            collect(&entry.path(), &format!("{path}/"), files);
        } else if let Ok(content) = std::fs::read(entry.path()) {
            files.insert(path, Blob::new(&String::from_utf8_lossy(&content)));
        }
    }
}

/// Where this thread's machine is.
fn place() -> PathBuf {
    static THREADS: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static PLACE: OnceCell<PathBuf> = const { OnceCell::new() };
    }
    PLACE.with(|place| {
        let number = || THREADS.fetch_add(1, Ordering::Relaxed);
        let make =
            || std::env::temp_dir().join(format!("tenantry-simulation-{}-{}", std::process::id(), number()));
        place.get_or_init(make).clone()
    })
}

/// What sees every effect of one agent's process on its disk.
pub struct EffectHook {
    shared: Shared,
    incarnation: u64,
    /// The one thread that everything but copying data runs on.
    thread: ThreadId,
}

impl EffectHook {
    /// That of an agent's process.
    pub fn new(shared: &Shared, incarnation: u64) -> Self {
        Self { shared: shared.clone(), incarnation, thread: std::thread::current().id() }
    }
}

impl Hook for EffectHook {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        let mut world = self.shared.world();
        if !world.agent.is_alive(self.incarnation) {
            // What a process does that was killed is not done.
            return Err(io::Error::from_raw_os_error(BROKEN));
        }
        // Copying data goes over threads whose order no seed decides: nothing is decided by chance there.
        if std::thread::current().id() == self.thread {
            comes_an_edit(&mut world);
            let length = length(path, effect);
            if dies(&mut world) {
                cut_short(&mut world, path, effect, length);
                drop(world);
                std::panic::resume_unwind(Box::new(Killed));
            }
            fails(&mut world, path, effect)?;
        }
        world.host.disk.remember(path, effect);
        notice(&mut world, path, effect);
        Ok(())
    }

    fn syncs(&self) -> bool {
        false
    }
}

/// A person's edit that comes in the middle of what the agent does.
fn comes_an_edit(world: &mut World) {
    let Some(left) = world.host.disk.edit_in else { return };
    world.host.disk.edit_in = left.checked_sub(1);
    if left == 0 {
        user_actions::edit(world);
    }
}

/// How long a file is that something is about to be added to.
fn length(path: &Path, effect: Effect<'_>) -> Option<u64> {
    let length = || path.metadata().ok().map(|found| found.len());
    matches!(effect, Effect::Append(_)).then(length).flatten()
}

/// Of what was to be added when the agent was killed, some may be there, unless a power cut took some of what was there.
fn cut_short(world: &mut World, path: &Path, effect: Effect<'_>, before: Option<u64>) {
    let Effect::Append(bytes) = effect else { return };
    if world.rng.bool() && !bytes.is_empty() && before.is_some() && length(path, effect) == before {
        let some = world.rng.usize(0..bytes.len());
        let torn = std::fs::OpenOptions::new().append(true).open(path);
        if torn.and_then(|mut file| io::Write::write_all(&mut file, &bytes[..some])).is_ok() {
            world.count(Fault::TornRecord);
        }
    }
}

/// Fails as a disk that is full, or one whose journal can't be written.
fn fails(world: &mut World, path: &Path, effect: Effect<'_>) -> io::Result<()> {
    let needs_space =
        matches!(effect, Effect::MakeFolder | Effect::Create | Effect::Append(_) | Effect::WriteAt(..));
    let full = world.scenario.rates.disk;
    if needs_space && world.chance_of(full, 1_000 * EFFECTS_PER_OCCASION) {
        world.count(Fault::DiskFull);
        return Err(io::Error::from_raw_os_error(NO_SPACE));
    }
    let of_journal = path.parent().and_then(Path::file_name).is_some_and(|name| name == "journal");
    let broken = world.scenario.rates.journal;
    if of_journal && matches!(effect, Effect::Append(_) | Effect::SyncFile) && world.chance(broken) {
        world.count(Fault::JournalFault);
        if effect == Effect::SyncFile {
            // Only its sync has failed, perhaps: then it is there for whoever reads the journal next.
            lose_or_keep(world, path);
        }
        return Err(io::Error::from_raw_os_error(BROKEN));
    }
    Ok(())
}

fn lose_or_keep(world: &mut World, path: &Path) {
    let appended = |one: &Volatile| matches!(one, Volatile::Appended(of, _) if of == path);
    let keeps = world.rng.bool();
    let disk = &mut world.host.disk;
    let last = disk.volatile.iter().rposition(appended).map(|at| disk.volatile.remove(at));
    if let (false, Some(Volatile::Appended(path, length))) = (keeps, last)
        && let Ok(file) = std::fs::OpenOptions::new().write(true).open(path)
    {
        let _ = file.set_len(length);
    }
}

/// Whoever knows what is true looks again, and whether the effect may be.
fn notice(world: &mut World, path: &Path, effect: Effect<'_>) {
    let touched = match effect {
        Effect::SyncFile | Effect::SyncFolder | Effect::SyncAll => return,
        Effect::Rename(to) | Effect::Exchange(to) | Effect::Link(to) => to,
        _ => path,
    };
    let disk = &mut world.host.disk;
    if let Ok(record) = touched.strip_prefix(&disk.state) {
        disk.changed_records.insert(record.to_owned());
        return;
    }
    let Ok(inside) = touched.strip_prefix(&disk.directory).map(Path::to_owned) else { return };
    let is_file = is_file_of_release(&inside);
    disk.changed |= is_file;
    disk.unchecked |= is_file || inside.starts_with(TRANSACTIONS);
    let source = path.to_owned();
    world.touches(&inside, &source, effect);
}
