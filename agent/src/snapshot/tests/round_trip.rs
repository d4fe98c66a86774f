//! P9: what was kept comes back exactly, by us and by `tar`.

use std::process::Command;

use proptest::prelude::*;

use super::*;

/// Unpacks a part as a person would.
fn by_hand(directory: &Path) -> tempfile::TempDir {
    let to = scratch();
    let archive = directory.join(".tenantry/restore/op-1/data/0.tar.zst");
    let line = format!(
        "zstd -dc {} | tar -x --xattrs --xattrs-include='user.*' -C {}",
        archive.display(),
        to.path().display()
    );
    assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
    to
}

#[test]
fn p9_a_tree_comes_back_as_it_was() {
    let directory = sample();
    let data = directory.path().join("data");
    let before = shown(&data);
    let part = keep_data(directory.path());
    assert_eq!(shown(&data), before, "keeping changed something");
    let archive = part.archive.clone().unwrap();
    assert_eq!(archive.entries as usize, before.len());
    assert_eq!(archive.notes, Notes::default());
    spoil(directory.path());
    assert_ne!(shown(&data), before);
    restore_data(directory.path(), &part, DiskIo::default()).unwrap();
    assert_eq!(shown(&data), before);
    assert_eq!(left_over(directory.path()), 0);
    restore_data(directory.path(), &part, DiskIo::default()).unwrap();
    assert_eq!(shown(&data), before, "once more");
}

#[test]
fn p9_a_person_can_unpack_it_with_tar() {
    let directory = sample();
    keep_data(directory.path());
    let unpacked = by_hand(directory.path());
    assert_eq!(shown(&unpacked.path().join("data")), shown(&directory.path().join("data")));
}

#[test]
fn p9_what_was_absent_is_absent_again() {
    let directory = sample();
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let (uid, id) = (uid(), operation());
    let archive_dir = ArchiveDir::open(&tree, &uid, &id).unwrap();
    for (n, at) in ["later", "data/later/deep"].iter().enumerate() {
        let part = archive_dir.keep(n, &path(at), &Quiet).unwrap();
        assert_eq!(part.archive, None);
        archive_dir.restore(n, &part, &Quiet).unwrap();
        std::fs::create_dir_all(directory.path().join(at).join("with")).unwrap();
        archive_dir.restore(n, &part, &Quiet).unwrap();
        assert!(!directory.path().join(at).exists(), "{at}");
    }
    assert_eq!(left_over(directory.path()), 0);
}

#[test]
fn p9_a_single_file_and_what_has_gone_come_back() {
    let directory = sample();
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let (uid, id) = (uid(), operation());
    let archive_dir = ArchiveDir::open(&tree, &uid, &id).unwrap();
    let before = shown(&directory.path().join("data/deep"));
    let file = archive_dir.keep(0, &path("data/set"), &Quiet).unwrap();
    let deep = archive_dir.keep(1, &path("data/deep"), &Quiet).unwrap();
    std::fs::remove_dir_all(directory.path().join("data")).unwrap();
    archive_dir.restore(0, &file, &Quiet).unwrap();
    archive_dir.restore(1, &deep, &Quiet).unwrap();
    assert_eq!(directory.path().join("data/set").metadata().unwrap().mode() & 0o7777, 0o4755);
    // The other name of this file is not part of what was kept.
    let only = |mut all: BTreeMap<PathBuf, String>| {
        all.remove(Path::new("also-a"));
        all
    };
    assert_eq!(only(shown(&directory.path().join("data/deep"))), only(before));
}

#[test]
fn p1_reading_leaves_no_trace() {
    let directory = sample();
    let data = directory.path().join("data");
    let traces = |data: &Path| {
        let of = |at: &str| {
            let found = data.join(at).symlink_metadata().unwrap();
            (found.atime(), found.atime_nsec(), found.ctime(), found.ctime_nsec(), found.ino())
        };
        ["", "a", "deep", "deep/er/long", "set"].map(of)
    };
    // Older than the last change, so that a reader would be noted.
    set_time(&data.join("set"), 1, 0);
    let before = traces(&data);
    keep_data(directory.path());
    assert_eq!(traces(&data), before);
}

#[test]
fn holes_stay_holes() {
    let directory = scratch();
    std::fs::create_dir(directory.path().join("data")).unwrap();
    let at = directory.path().join("data/sparse");
    let file = std::fs::File::create(&at).unwrap();
    file.set_len(64 << 20).unwrap();
    std::os::unix::fs::FileExt::write_at(&file, b"in the middle", 40 << 20).unwrap();
    let before = shown(directory.path().join("data").as_path());
    let part = keep_data(directory.path());
    restore_data(directory.path(), &part, DiskIo::default()).unwrap();
    assert_eq!(shown(directory.path().join("data").as_path()), before);
    assert!(at.metadata().unwrap().blocks() * 512 < 8 << 20, "the holes were filled");
}

#[test]
fn p9_a_file_that_is_written_meanwhile_is_named_and_the_archive_is_whole() {
    let directory = sample();
    let at = directory.path().join("data/deep/er/log");
    std::fs::write(&at, content(40 * pack::PIECE, 1)).unwrap();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let part = std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut file = std::fs::OpenOptions::new().append(true).open(&at).unwrap();
            while !stop.load(Ordering::Relaxed) {
                io::Write::write_all(&mut file, b"a line of a log\n").unwrap();
                if file.metadata().unwrap().len() > 41 * pack::PIECE as u64 {
                    file.set_len(39 * pack::PIECE as u64).unwrap();
                }
            }
        });
        let mut kept = (0..50).map(|_| keep_data(directory.path()));
        let torn = kept.find(|part| part.archive.as_ref().unwrap().notes.torn.count > 0);
        stop.store(true, Ordering::Relaxed);
        torn
    });
    let archive = part.expect("no change was noticed in 50 tries").archive.unwrap();
    assert_eq!(archive.notes.torn.first, ["deep/er/log"]);
    by_hand(directory.path());
}

#[test]
fn what_can_not_be_kept_refuses_it_all_and_a_socket_is_passed_by() {
    use rustix::fs::{FileType, Mode};
    let directory = sample();
    let data = directory.path().join("data");
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let refusal = |at: &str| {
        let seen = ArchiveDir::estimate(&tree, &path(at)).unwrap_err().to_string();
        let (uid, id) = (uid(), operation());
        let kept = ArchiveDir::open(&tree, &uid, &id).unwrap().keep(0, &path(at), &Quiet).unwrap_err();
        assert_eq!(kept.to_string(), seen);
        assert_eq!(kept.category(), tenantry_protocol::FailureCategory::PathRefused);
        seen
    };
    let mode = Mode::from_raw_mode(0o600);
    rustix::fs::mknodat(CWD, data.join("deep/fifo"), FileType::Fifo, mode, 0).unwrap();
    assert!(refusal("data").contains("deep/fifo: a FIFO can't be kept"));
    std::fs::remove_file(data.join("deep/fifo")).unwrap();
    let null = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(CWD, data.join("null"), FileType::CharacterDevice, mode, null).unwrap();
    assert!(refusal("data").contains("null: a device can't be kept"));
    std::fs::remove_file(data.join("null")).unwrap();
    assert!(refusal("data/out").contains("there is a symlink"));
    std::fs::create_dir(data.join("mount")).unwrap();
    let mounted = Command::new("mount").args(["-t", "tmpfs", "tmpfs"]).arg(data.join("mount")).status();
    assert!(mounted.unwrap().success(), "these tests mount file systems and must be run by root");
    let (below, itself) = (refusal("data"), refusal("data/mount"));
    assert!(Command::new("umount").arg(data.join("mount")).status().unwrap().success());
    assert!(below.contains("data/mount: another file system is mounted here"), "{below}");
    assert!(itself.contains("another file system is mounted here"), "{itself}");
    let _socket = std::os::unix::net::UnixListener::bind(data.join("socket")).unwrap();
    let notes = keep_data(directory.path()).archive.unwrap().notes;
    assert_eq!((notes.sockets.count, notes.sockets.first.as_slice()), (1, &["socket".to_owned()][..]));
}

#[derive(Clone, Debug)]
enum Thing {
    File { size: usize, mode: u32, uid: u32, seconds: i64, nanoseconds: i64 },
    Folder(Vec<(Vec<u8>, Thing)>),
    Symlink(String),
}

fn thing() -> impl Strategy<Value = Thing> {
    let size = prop_oneof![4 => 0_usize..2000, 1 => pack::PIECE - 3..pack::PIECE + 1000];
    let file =
        (size, 0_u32..0o1_0000, 0_u32..5_000_000, -10_000_i64..5_000_000_000, 0_i64..1_000_000_000).prop_map(
            |(size, mode, uid, seconds, nanoseconds)| Thing::File { size, mode, uid, seconds, nanoseconds },
        );
    let leaf = prop_oneof![6 => file, 1 => "[a-z./]{1,150}".prop_map(Thing::Symlink)];
    let name = prop_oneof![
        6 => proptest::collection::vec(any::<u8>().prop_filter("no name", |byte| !b"\0/".contains(byte)), 1..40)
            .prop_filter("no name", |name| name != b"." && name != b".."),
        1 => "[a-z]{90,255}".prop_map(String::into_bytes),
    ];
    leaf.prop_recursive(4, 40, 8, move |inner| {
        proptest::collection::vec((name.clone(), inner), 0..8).prop_map(Thing::Folder)
    })
}

fn lay_out(at: &Path, thing: &Thing) {
    match thing {
        Thing::File { size, mode, uid, seconds, nanoseconds } => {
            std::fs::write(at, content(*size, *mode as u8)).unwrap();
            chown(at, Some(*uid), Some(*uid / 2)).unwrap();
            std::fs::set_permissions(at, std::fs::Permissions::from_mode(*mode)).unwrap();
            set_time(at, *seconds, *nanoseconds);
        }
        Thing::Folder(things) => {
            std::fs::create_dir(at).unwrap();
            for (name, thing) in things {
                let below = at.join(std::ffi::OsStr::from_bytes(name));
                if below.symlink_metadata().is_err() {
                    lay_out(&below, thing);
                }
            }
        }
        Thing::Symlink(target) => symlink(target, at).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn p9_any_tree_comes_back_by_us_and_by_tar(things in proptest::collection::vec(thing(), 0..12)) {
        let directory = scratch();
        let data = directory.path().join("data");
        let named = things.into_iter().enumerate().map(|(n, thing)| (format!("t{n}").into_bytes(), thing));
        lay_out(&data, &Thing::Folder(named.collect()));
        let before = shown(&data);
        let part = keep_data(directory.path());
        let unpacked = by_hand(directory.path());
        prop_assert_eq!(&shown(&unpacked.path().join("data")), &before);
        std::fs::remove_dir_all(&data).unwrap();
        restore_data(directory.path(), &part, DiskIo::default()).unwrap();
        prop_assert_eq!(shown(&data), before);
    }
}
