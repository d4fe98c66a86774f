//! P3 and P9: the process dies, the disk fails, or the power goes, at each effect in turn.

use super::*;
use crate::files::Folder;
use crate::files::tests::model::{Disk, Recorder, chances};
use crate::snapshot::archive_reader::StoredArchive;
use crate::snapshot::entry::Text;
use crate::snapshot::in_place_restore::InPlaceRestore;

/// A directory whose data was kept and then spoiled: the part, the data as it was kept and as it is.
fn spoilt() -> (tempfile::TempDir, Part, BTreeMap<PathBuf, String>, BTreeMap<PathBuf, String>) {
    let directory = sample();
    let kept = shown(&directory.path().join("data"));
    let part = keep_data(directory.path());
    spoil(directory.path());
    let live = shown(&directory.path().join("data"));
    (directory, part, kept, live)
}

#[test]
fn p9_a_crash_at_any_effect_of_a_restore_leaves_the_live_or_the_kept_data_whole() {
    let (mut old, mut new, mut turned) = (0, 0, false);
    for at in 0.. {
        let (directory, part, kept, live) = spoilt();
        let data = directory.path().join("data");
        let done = restore_data(directory.path(), &part, DiskIo::with(Faulty::crash(at))).is_ok();
        let found = shown(&data);
        assert!(found == live || found == kept, "neither after a crash at effect {at}");
        assert!(!(turned && found == live), "old again at effect {at}");
        turned = found == kept;
        *(if turned { &mut new } else { &mut old }) += 1;
        restore_data(directory.path(), &part, DiskIo::default()).unwrap();
        assert_eq!(shown(&data), kept, "after effect {at}");
        assert_eq!(left_over(directory.path()), 0, "after effect {at}");
        if done {
            break;
        }
    }
    assert!(old > 50 && new > 15, "{old} crashes left the old, {new} the new");
}

#[test]
fn p3_a_second_crash_leaves_it_whole_too() {
    let mut double = 0;
    for at in (0..).step_by(13) {
        let mut survived = false;
        for second in (0..).step_by(17) {
            let (directory, part, kept, live) = spoilt();
            let data = directory.path().join("data");
            survived = restore_data(directory.path(), &part, DiskIo::with(Faulty::crash(at))).is_ok();
            let done = restore_data(directory.path(), &part, DiskIo::with(Faulty::crash(second))).is_ok();
            let found = shown(&data);
            assert!(found == live || found == kept, "neither after crashes at {at} and {second}");
            restore_data(directory.path(), &part, DiskIo::default()).unwrap();
            assert_eq!(shown(&data), kept, "after crashes at {at} and {second}");
            double += 1;
            if done {
                break;
            }
        }
        if survived {
            break;
        }
    }
    assert!(double > 30, "only {double} double crashes");
}

#[test]
fn p9_an_error_of_the_disk_is_told_and_leaves_the_live_or_the_kept_data_whole() {
    for errno in [Errno::NOSPC, Errno::IO] {
        for at in 0.. {
            let (directory, part, kept, live) = spoilt();
            let data = directory.path().join("data");
            let restored = restore_data(directory.path(), &part, DiskIo::with(Faulty::error(at, errno)));
            let found = shown(&data);
            assert!(found == live || found == kept, "neither after an error at effect {at}");
            let Err(error) = restored else { break };
            let full = error.category() == tenantry_protocol::FailureCategory::DiskFull;
            assert_eq!(full, errno == Errno::NOSPC, "{error}");
            restore_data(directory.path(), &part, DiskIo::default()).unwrap();
            assert_eq!(shown(&data), kept, "after effect {at}");
        }
    }
}

#[test]
fn p8_an_error_at_any_effect_of_keeping_is_told_and_another_try_replaces_what_is_left() {
    let mut failed = 0;
    for at in 0.. {
        let directory = sample();
        let before = shown(&directory.path().join("data"));
        let tree = Tree::open(directory.path(), DiskIo::with(Faulty::error(at, Errno::NOSPC))).unwrap();
        let (uid, id) = (uid(), operation());
        let kept = ArchiveDir::open(&tree, &uid, &id)
            .and_then(|archive_dir| archive_dir.keep(0, &path("data"), &Quiet));
        assert_eq!(shown(&directory.path().join("data")), before, "effect {at}");
        match kept {
            Ok(_) => break,
            Err(error) => {
                assert_eq!(error.category(), tenantry_protocol::FailureCategory::DiskFull, "{error}");
            }
        }
        failed += 1;
        let part = keep_data(directory.path());
        spoil(directory.path());
        restore_data(directory.path(), &part, DiskIo::default()).unwrap();
        assert_eq!(shown(&directory.path().join("data")), before, "effect {at}");
    }
    assert!(failed > 10, "only {failed} effects");
}

/// A tree that the model of a disk knows all of: no links, attributes or times.
fn plain() -> tempfile::TempDir {
    let directory = scratch();
    let data = directory.path().join("data");
    std::fs::create_dir_all(data.join("deep")).unwrap();
    std::fs::write(data.join("a"), "alpha").unwrap();
    std::fs::write(data.join("deep/b"), "beta").unwrap();
    symlink("a", data.join("link")).unwrap();
    directory
}

/// Names and contents: the model forgets times.
fn contents(top: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |at: PathBuf| {
        let full = top.join(&at);
        let bytes = if full.is_symlink() {
            std::fs::read_link(full).unwrap().into_os_string().into_encoded_bytes()
        } else {
            std::fs::read(full).unwrap_or_default()
        };
        (at, bytes)
    };
    shown(top).into_keys().map(read).collect()
}

#[test]
fn p9_a_power_cut_after_any_effect_of_a_restore_leaves_the_live_or_the_kept_data_whole() {
    let directory = plain();
    let data = directory.path().join("data");
    let kept = contents(&data);
    let part = keep_data(directory.path());
    spoil_plain(&data);
    let live = contents(&data);
    let start = Disk::of(directory.path());
    let recorder = Arc::new(Recorder::default());
    restore_data(directory.path(), &part, DiskIo::with(recorder.clone())).unwrap();
    assert_eq!(contents(&data), kept);
    let mut seen = [false; 2];
    for effects in 0..=recorder.len() {
        for seed in 0..8 {
            let mut disk = start.clone();
            disk.replay(&recorder, effects);
            let left = disk.after_power_cut(chances(seed));
            let found = contents(&left.path().join("data"));
            let at = format!("power cut before {} (effect {effects}), seed {seed}", recorder.name(effects));
            assert!(found == live || found == kept, "{at}: {found:?}");
            seen[usize::from(found == kept)] = true;
            restore_data(left.path(), &part, DiskIo::default())
                .unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(contents(&left.path().join("data")), kept, "{at}");
        }
    }
    assert_eq!(seen, [true, true]);
}

fn spoil_plain(data: &Path) {
    std::fs::write(data.join("a"), "changed").unwrap();
    std::fs::remove_file(data.join("deep/b")).unwrap();
    std::fs::write(data.join("added"), "later").unwrap();
}

/// Rolls a part into a folder as a helper does.
fn restore_in_place(directory: &Path, archive: &Archive, disk_io: DiskIo) -> Result<(), SnapshotError> {
    let folder = Folder::open(&directory.join(".tenantry/restore/op-1/data"), DiskIo::default())?;
    let top = Folder::open(&directory.join("data"), disk_io)?;
    let (prefix, of) = (Text(b"data".to_vec()), format!("{} path data", uid()));
    let stored = StoredArchive { archive, folder: &folder, prefix: &prefix, of: &of, threads: 2 };
    InPlaceRestore { top: &top, stage: ".tenantry-op-1-0" }.restore(&stored, &Quiet)
}

#[test]
fn p9_a_crash_at_any_effect_of_rolling_in_is_rolled_forward() {
    let (mut old, mut between) = (0, 0);
    for at in 0.. {
        let (directory, part, kept, live) = spoilt();
        let archive = part.archive.unwrap();
        let data = directory.path().join("data");
        let done = restore_in_place(directory.path(), &archive, DiskIo::with(Faulty::crash(at))).is_ok();
        let (ready, found) = (data.join(".tenantry-op-1-0/ready").exists(), shown(&data));
        let beside = |path: &PathBuf| !path.to_string_lossy().starts_with(".tenantry-");
        let found: BTreeMap<_, _> = found.into_iter().filter(|(path, _)| beside(path)).collect();
        // The stage changes the time of the folder that it is in; nothing else may be different.
        let same = |a: &BTreeMap<PathBuf, String>, b: &BTreeMap<PathBuf, String>| {
            a.iter().skip(1).eq(b.iter().skip(1))
        };
        assert!(
            ready || same(&found, &live) || same(&found, &kept),
            "effect {at}: neither, and no way forward"
        );
        *(if ready { &mut between } else { &mut old }) += 1;
        restore_in_place(directory.path(), &archive, DiskIo::default()).unwrap();
        assert_eq!(shown(&data), kept, "after effect {at}");
        if done {
            break;
        }
    }
    assert!(old > 30 && between > 20, "{old} before the moment, {between} after it");
}
