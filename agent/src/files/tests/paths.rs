//! Tricks of the file system: each is refused with what was found, and nothing outside is touched.

use std::os::unix::fs::symlink;
use std::process::Command;

use rustix::fs::{CWD, FileType, Mode};

use super::*;

/// A mount of its own, taken away at the end.
pub struct Mount(tempfile::TempDir);

impl Mount {
    /// A file system in memory.
    pub fn tmpfs(options: &str) -> Self {
        let at = tempfile::tempdir().unwrap();
        Self::tmpfs_at(at.path(), options);
        Self(at)
    }

    fn tmpfs_at(at: &Path, options: &str) {
        let done =
            Command::new("mount").args(["-t", "tmpfs", "-o", options, "tmpfs"]).arg(at).status().unwrap();
        assert!(done.success(), "these tests mount file systems and must be run by root");
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(self.path());
    }
}

fn unmount(at: &Path) {
    let _ = Command::new("umount").arg("-l").arg(at).status();
}

fn refusal(directory: &Path, name: &str) -> String {
    let before = snapshot(directory);
    let set = FileSet { changes: vec![write(".env", "TAG=v2\n"), write(name, "ours")] };
    let error = run(directory, DiskIo::default(), &set).unwrap_err();
    assert_eq!(error.category(), tenantry_protocol::FailureCategory::PathRefused, "{error}");
    assert_eq!(snapshot(directory), before, "{error}");
    let delete = FileSet { changes: vec![delete(name)] };
    run(directory, DiskIo::default(), &delete).unwrap_err();
    assert_eq!(snapshot(directory), before, "{error}");
    error.to_string()
}

#[test]
fn a_symlink_is_refused_wherever_it_is() {
    let (directory, outside) = (sample(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("site.conf"), "outside").unwrap();
    symlink(outside.path(), directory.path().join("out")).unwrap();
    symlink("/etc/passwd", directory.path().join("passwd")).unwrap();
    symlink("nginx", directory.path().join("inside")).unwrap();
    symlink("nowhere", directory.path().join("dangling")).unwrap();
    assert!(refusal(directory.path(), "out/site.conf").contains("there is a symlink at out"));
    assert!(refusal(directory.path(), "out/new/site.conf").contains("there is a symlink at out"));
    assert!(refusal(directory.path(), "passwd").contains("there is a symlink;"));
    assert!(refusal(directory.path(), "inside/old.conf").contains("symlink at inside"));
    assert!(refusal(directory.path(), "dangling").contains("there is a symlink"));
    assert_eq!(std::fs::read(outside.path().join("site.conf")).unwrap(), b"outside");
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let inside = tree.inspect(&path("inside/old.conf"), &HashCache::default()).unwrap();
    assert_eq!(inside, Found::Blocked("there is a symlink at inside".to_owned()));
    assert!(tree.read(&path("inside/old.conf"), 100).is_err());
    let found = tree.inspect(&path("out/site.conf"), &HashCache::default()).unwrap();
    assert_eq!(found, Found::Blocked("there is a symlink at out".to_owned()));
    assert!(tree.read(&path("passwd"), 100).is_err());
}

#[test]
fn a_directory_that_is_reached_through_a_symlink_is_refused() {
    let (directory, links) = (sample(), tempfile::tempdir().unwrap());
    symlink(directory.path(), links.path().join("srv")).unwrap();
    let error = Tree::open(&links.path().join("srv"), DiskIo::default()).unwrap_err();
    assert!(error.to_string().contains("symlink"), "{error}");
    let error = Tree::open(&links.path().join("srv/nginx"), DiskIo::default()).unwrap_err();
    assert!(error.to_string().contains("symlink at"), "{error}");
    assert!(error.to_string().contains("real path"), "{error}");
    assert_eq!(error.category(), tenantry_protocol::FailureCategory::PathRefused);
    let error = Tree::open(&directory.path().join("docker-compose.yml"), DiskIo::default()).unwrap_err();
    assert!(error.to_string().contains("there is a file"), "{error}");
}

#[test]
fn what_is_no_plain_file_is_refused() {
    let directory = sample();
    let at = |name: &str| directory.path().join(name);
    rustix::fs::mknodat(CWD, at("fifo"), FileType::Fifo, Mode::from_raw_mode(0o644), 0).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, at("null"), FileType::CharacterDevice, Mode::from_raw_mode(0o666), null)
        .unwrap();
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    std::fs::create_dir(at("folder")).unwrap();
    assert!(refusal(directory.path(), "null").contains("a device"));
    assert!(refusal(directory.path(), "socket").contains("a socket"));
    assert!(refusal(directory.path(), "folder").contains("a folder"));
    assert!(
        refusal(directory.path(), "nginx/old.conf/below")
            .contains("a file at nginx/old.conf, where a folder is needed")
    );
    // Last, for a reader that waits for a writer would wait for ever.
    assert!(refusal(directory.path(), "fifo").contains("a FIFO"));
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let blocked = tree.inspect(&path("fifo"), &HashCache::default()).unwrap();
    assert_eq!(blocked, Found::Blocked("there is a FIFO".to_owned()));
}

#[test]
fn p1_a_hard_link_into_a_protected_folder_is_refused() {
    let directory = sample();
    std::fs::hard_link(directory.path().join("data/mine"), directory.path().join("linked")).unwrap();
    let before = directory.path().join("data/mine").metadata().unwrap();
    assert!(refusal(directory.path(), "linked").contains("2 hard links"));
    let after = directory.path().join("data/mine").metadata().unwrap();
    assert_eq!(
        (before.ino(), before.nlink(), before.ctime_nsec()),
        (after.ino(), after.nlink(), after.ctime_nsec())
    );
}

#[test]
fn p1_a_protected_path_is_refused_and_its_prefix_sibling_is_not() {
    let directory = sample();
    let before = snapshot(directory.path());
    let protect =
        [ProtectedPath::parse("data/").unwrap(), ProtectedPath::parse("nginx/conf.d/site.conf").unwrap()];
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let files = Transactions::new(&tree);
    for name in ["data", "data/mine", "data/new/file", "nginx/conf.d/site.conf", "nginx/conf.d", "nginx"] {
        let set = FileSet { changes: vec![write(".env", "x"), write(name, "x")] };
        let error = files.prepare(&operation(), &set, &protect).unwrap_err();
        assert!(matches!(error, FilesError::Protected { .. }), "{name}: {error}");
        let set = FileSet { changes: vec![delete(name)] };
        assert!(files.prepare(&operation(), &set, &protect).is_err(), "{name}");
    }
    assert_eq!(snapshot(directory.path()), before);
    let set = FileSet { changes: vec![write("data2/x", "x"), write("nginx/conf.d/site.conf2", "x")] };
    files.prepare(&operation(), &set, &protect).unwrap();
    files.commit(&operation()).unwrap();
}

#[test]
fn a_set_that_contradicts_itself_is_refused() {
    let directory = sample();
    let owner = Some(Owner { uid: u32::MAX, gid: 0 });
    let strange =
        |mode, owner| Change::Write { path: path("x"), content: vec![], mode, owner, before: Before::Any };
    let cases = [
        (vec![write("a", "1"), write("a", "2")], "named twice"),
        (vec![write("a/b", "1"), write("a-b", "1"), write("a", "2")], "also the folder of a/b"),
        (vec![strange(Some(0o4755), None)], "above 0777"),
        (vec![strange(None, owner)], "no user or group"),
    ];
    for (changes, cause) in cases {
        let error = run(directory.path(), DiskIo::default(), &FileSet { changes }).unwrap_err();
        assert!(error.to_string().contains(cause), "{error}");
    }
}

#[test]
fn an_agents_folder_that_is_not_ours_is_refused() {
    let set = FileSet { changes: vec![write(".env", "TAG=v2\n")] };
    let (directory, outside) = (sample(), tempfile::tempdir().unwrap());
    symlink(outside.path(), directory.path().join(".tenantry")).unwrap();
    let error = run(directory.path(), DiskIo::default(), &set).unwrap_err();
    assert!(error.to_string().contains("symlink"), "{error}");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 0);

    let directory = sample();
    std::fs::create_dir(directory.path().join(".tenantry")).unwrap();
    chown(directory.path().join(".tenantry"), Some(1000), Some(1000)).unwrap();
    let error = run(directory.path(), DiskIo::default(), &set).unwrap_err();
    assert!(error.to_string().contains("belongs to user 1000"), "{error}");
}

/// Puts a symlink to the outside in a folder's place just before each rename.
struct Swap {
    folder: PathBuf,
    outside: PathBuf,
}

impl Hook for Swap {
    fn before(&self, _: &Path, effect: Effect<'_>) -> io::Result<()> {
        if let Effect::Rename(target) = effect
            && target.starts_with(&self.folder)
            && self.folder.symlink_metadata().unwrap().is_dir()
        {
            std::fs::rename(&self.folder, self.folder.with_extension("away")).unwrap();
            symlink(&self.outside, &self.folder).unwrap();
        }
        Ok(())
    }
}

#[test]
fn a_folder_swapped_for_a_symlink_during_the_write_leads_nowhere() {
    let (directory, outside) = (sample(), tempfile::tempdir().unwrap());
    std::fs::write(outside.path().join("site.conf"), "outside").unwrap();
    let folder = directory.path().join("nginx/conf.d");
    let hook = Swap { folder: folder.clone(), outside: outside.path().to_owned() };
    // The write goes to the folder that was checked, wherever that is now; making it durable meets the symlink.
    let error = run(directory.path(), DiskIo::with(Arc::new(hook)), &upgrade()).unwrap_err();
    assert!(error.to_string().contains("nginx/conf.d: there is a symlink"), "{error}");
    assert_eq!(std::fs::read(outside.path().join("site.conf")).unwrap(), b"outside");
    assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1);
}

/// Puts a symlink in a folder's place as soon as the first file, which is not in it, is put in its place.
struct SwapOnce(PathBuf);
impl Hook for SwapOnce {
    fn before(&self, _: &Path, effect: Effect<'_>) -> io::Result<()> {
        if let Effect::Rename(target) = effect
            && target.ends_with("docker-compose.yml")
        {
            std::fs::rename(&self.0, self.0.with_extension("away")).unwrap();
            symlink("../data", &self.0).unwrap();
        }
        Ok(())
    }
}

#[test]
fn p1_a_folder_swapped_for_a_symlink_to_a_protected_one_leads_nowhere() {
    let directory = sample();
    let folder = directory.path().join("nginx/conf.d");
    let protected = directory.path().join("data");
    std::fs::write(protected.join("site.conf"), "the tenant's\n").unwrap();
    let error = run(directory.path(), DiskIo::with(Arc::new(SwapOnce(folder))), &upgrade()).unwrap_err();
    assert!(error.to_string().contains("nginx/conf.d: there is a symlink"), "{error}");
    assert_eq!(std::fs::read(protected.join("site.conf")).unwrap(), b"the tenant's\n");
    assert_eq!(std::fs::read_dir(protected).unwrap().count(), 2);
}

/// A tenant's directory with a folder on another mount.
pub struct Mounted(tempfile::TempDir);

impl Mounted {
    pub fn new() -> Self {
        let directory = sample();
        let inner = directory.path().join("other");
        std::fs::create_dir(&inner).unwrap();
        Mount::tmpfs_at(&inner, "size=1m");
        std::fs::write(inner.join("kept.conf"), "old\n").unwrap();
        Self(directory)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        unmount(&self.0.path().join("other"));
    }
}

/// An upgrade of [`Mounted`].
pub fn with_another_mount() -> FileSet {
    let mut set = upgrade();
    set.changes.extend([write("other/kept.conf", "new\n"), write("other/sub/new.conf", "new\n")]);
    set
}

#[test]
fn p6_a_file_on_another_mount_is_staged_beside_itself_and_crashes_as_well() {
    let set = with_another_mount();
    let (old, new, total) = {
        let mounted = Mounted::new();
        let old = snapshot(mounted.path());
        let counter = Faulty::counting();
        run(mounted.path(), DiskIo::with(counter.clone()), &set).unwrap();
        let tree = Tree::open(mounted.path(), DiskIo::default()).unwrap();
        Transactions::new(&tree).finish(&operation()).unwrap();
        let new = snapshot(mounted.path());
        assert_eq!(new[Path::new("other/sub/new.conf")].0.as_deref(), Some(&b"new\n"[..]));
        Transactions::new(&tree).restore(&operation()).unwrap();
        assert_eq!(snapshot(mounted.path()), old);
        (old, new, counter.seen())
    };
    for at in 0..total {
        let mounted = Mounted::new();
        run(mounted.path(), DiskIo::with(Faulty::new(at, Fault::Torn)), &set).unwrap_err();
        let tree = Tree::open(mounted.path(), DiskIo::default()).unwrap();
        let state = Transactions::new(&tree).recover(&operation()).unwrap();
        let wanted = if state == TransactionState::Done { &new } else { &old };
        assert_eq!(&snapshot(mounted.path()), wanted, "crash at effect {at}, {state:?}");
    }
}

#[test]
fn a_file_that_is_a_mount_point_is_refused() {
    let directory = sample();
    let at = directory.path().join("nginx/old.conf");
    let source = directory.path().join("data/mine");
    let done = Command::new("mount").arg("--bind").arg(&source).arg(&at).status().unwrap();
    assert!(done.success(), "these tests mount file systems and must be run by root");
    let message = refusal(directory.path(), "nginx/old.conf");
    unmount(&at);
    assert!(message.contains("a mount point"), "{message}");
}
