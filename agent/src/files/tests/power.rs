//! P6: the power goes after each effect in turn; only what was made durable is sure to be there.

use super::model::{Disk, Killed, Recorder, chances};
use super::*;

const SEEDS: usize = 8;

/// Cuts the power after each effect of an action on a directory, and recovers.
fn cut_everywhere(
    directory: &Path,
    action: impl Fn(&Tree),
    check: impl Fn(TransactionState, Snapshot, &str),
) -> usize {
    let start = Disk::of(directory);
    let recorder = Arc::new(Recorder::default());
    action(&Tree::open(directory, DiskIo::with(recorder.clone())).unwrap());
    for effects in 0..=recorder.len() {
        for seed in 0..SEEDS {
            let mut disk = start.clone();
            disk.replay(&recorder, effects);
            let left = disk.after_power_cut(chances(seed));
            let tree = Tree::open(left.path(), DiskIo::default()).unwrap();
            let at = format!("power cut before {} (effect {effects}), seed {seed}", recorder.name(effects));
            let state = Transactions::new(&tree)
                .recover(&operation())
                .unwrap_or_else(|error| panic!("{at}: {error}"));
            check(state, snapshot(left.path()), &at);
        }
    }
    recorder.len()
}

#[test]
fn p6_a_power_cut_after_any_effect_leaves_the_set_wholly_old_or_wholly_new() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    let effects = cut_everywhere(
        sample().path(),
        |tree| {
            let files = Transactions::new(tree);
            files.prepare(&operation(), &upgrade(), &[]).unwrap();
            files.commit(&operation()).unwrap();
        },
        |state, found, at| {
            let wanted = if state == TransactionState::Done { &new } else { &old };
            assert_eq!(&found, wanted, "{at}, {state:?}");
        },
    );
    assert!(effects > 60, "only {effects} effects");
}

#[test]
fn p6_a_power_cut_in_a_recovery_takes_back_nothing_that_the_recovery_relied_on() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    let (mut kills, mut recoveries) = (0, 0);
    for kill in 0.. {
        let directory = sample();
        let start = Disk::of(directory.path());
        let recorder = Arc::new(Recorder::default());
        let faulty = Faulty::new(kill, Fault::Crash);
        let ended =
            run(directory.path(), DiskIo::with(Arc::new(Killed(faulty, recorder.clone()))), &upgrade());
        kills += 1;
        let before = recorder.len();
        let tree = Tree::open(directory.path(), DiskIo::with(recorder.clone())).unwrap();
        let files = Transactions::new(&tree);
        if files.state(&operation()).unwrap() == TransactionState::Committed {
            files.recover(&operation()).unwrap();
            recoveries += 1;
            for effects in before..=recorder.len() {
                for seed in 0..SEEDS {
                    let mut disk = start.clone();
                    disk.replay(&recorder, effects);
                    let left = disk.after_power_cut(chances(seed));
                    let tree = Tree::open(left.path(), DiskIo::default()).unwrap();
                    let state = Transactions::new(&tree).recover(&operation()).unwrap();
                    let wanted = if state == TransactionState::Done { &new } else { &old };
                    let at = format!("killed at {kill}, power cut at {effects}, seed {seed}, {state:?}");
                    assert_eq!(&snapshot(left.path()), wanted, "{at}");
                }
            }
        }
        if ended.is_ok() {
            break;
        }
    }
    assert!(kills > 60 && recoveries > 5, "{kills} kills, {recoveries} recoveries");
}

#[test]
fn p6_a_power_cut_after_a_success_is_tidied_up_by_whoever_finishes() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    let directory = sample();
    let mut disk = Disk::of(directory.path());
    let recorder = Arc::new(Recorder::default());
    run(directory.path(), DiskIo::with(recorder.clone()), &upgrade()).unwrap();
    disk.replay(&recorder, recorder.len());
    let mut taken_back = 0;
    for seed in 0..100 {
        let left = disk.after_power_cut(chances(seed));
        let tree = Tree::open(left.path(), DiskIo::default()).unwrap();
        let files = Transactions::new(&tree);
        taken_back += usize::from(files.state(&operation()).unwrap() == TransactionState::Committed);
        files.finish(&operation()).unwrap_or_else(|error| panic!("seed {seed}: {error}"));
        assert_eq!(files.state(&operation()).unwrap(), TransactionState::None, "seed {seed}");
        assert_eq!(snapshot(left.path()), new, "seed {seed}");
        files.restore(&operation()).unwrap();
        assert_eq!(snapshot(left.path()), old, "seed {seed}");
    }
    assert!(taken_back > 10, "the last record was taken back only {taken_back} times");
}

#[test]
fn p6_a_power_cut_while_a_restore_is_tidied_up_brings_nothing_of_the_release_back() {
    let old = snapshot(sample().path());
    let directory = sample();
    let start = Disk::of(directory.path());
    let recorder = Arc::new(Recorder::default());
    let tree = Tree::open(directory.path(), DiskIo::with(recorder.clone())).unwrap();
    let files = Transactions::new(&tree);
    files.prepare(&operation(), &upgrade(), &[]).unwrap();
    files.commit(&operation()).unwrap();
    files.restore(&operation()).unwrap();
    let restored = recorder.len();
    files.finish(&operation()).unwrap();
    for effects in restored..=recorder.len() {
        for seed in 0..100 {
            let mut disk = start.clone();
            disk.replay(&recorder, effects);
            let left = disk.after_power_cut(chances(seed));
            let tree = Tree::open(left.path(), DiskIo::default()).unwrap();
            let at = format!("power cut before {} (effect {effects}), seed {seed}", recorder.name(effects));
            Transactions::new(&tree).finish(&operation()).unwrap_or_else(|error| panic!("{at}: {error}"));
            assert_eq!(snapshot(left.path()), old, "{at}");
        }
    }
}

#[test]
fn p6_once_committed_it_is_new_whatever_is_lost() {
    let new = upgraded();
    let commit = |tree: &Tree| {
        let files = Transactions::new(tree);
        files.prepare(&operation(), &upgrade(), &[]).unwrap();
        files.commit(&operation()).unwrap();
        files.finish(&operation()).unwrap();
    };
    let directory = sample();
    let mut disk = Disk::of(directory.path());
    let recorder = Arc::new(Recorder::default());
    commit(&Tree::open(directory.path(), DiskIo::with(recorder.clone())).unwrap());
    disk.replay(&recorder, recorder.len());
    for seed in 0..100 {
        let left = disk.after_power_cut(chances(seed));
        let tree = Tree::open(left.path(), DiskIo::default()).unwrap();
        let files = Transactions::new(&tree);
        assert_eq!(
            files.state(&operation()).unwrap(),
            TransactionState::None,
            "seed {seed}: finished means gone"
        );
        assert_eq!(snapshot(left.path()), new, "seed {seed}");
        files.restore(&operation()).unwrap();
        assert_eq!(
            snapshot(left.path()),
            snapshot(sample().path()),
            "seed {seed}: the restore point is durable"
        );
    }
}

#[test]
fn p9_a_power_cut_after_any_effect_of_a_restore_leaves_it_wholly_new_or_wholly_restored() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    let directory = sample();
    run(directory.path(), DiskIo::default(), &upgrade()).unwrap();
    cut_everywhere(
        directory.path(),
        |tree| Transactions::new(tree).restore(&operation()).unwrap(),
        |state, found, at| {
            let wanted = if state == TransactionState::Restored { &old } else { &new };
            assert_eq!(&found, wanted, "{at}, {state:?}");
        },
    );
}

#[test]
fn p6_a_power_cut_spares_files_on_another_mount_too() {
    let set = super::paths::with_another_mount();
    let mounted = super::paths::Mounted::new();
    let old = snapshot(mounted.path());
    let new = {
        let mounted = super::paths::Mounted::new();
        run(mounted.path(), DiskIo::default(), &set).unwrap();
        snapshot(mounted.path())
    };
    cut_everywhere(
        mounted.path(),
        |tree| {
            let files = Transactions::new(tree);
            files.prepare(&operation(), &set, &[]).unwrap();
            files.commit(&operation()).unwrap();
        },
        |state, mut found, at| {
            // What was staged beside its target and whose list was lost may lie around; it is nobody's file.
            let wanted = if state == TransactionState::Done { &new } else { &old };
            found.retain(|path, _| !path.to_string_lossy().contains("/.tenantry-op-1-"));
            assert_eq!(&found, wanted, "{at}, {state:?}");
        },
    );
}
