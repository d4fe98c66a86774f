//! P6: the power goes after each effect in turn; only what was made durable is sure to be there.

use super::model::{Disk, Recorder, chances};
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
    action(&Tree::open(directory, Calls::with(recorder.clone())).unwrap());
    for effects in 0..=recorder.len() {
        for seed in 0..SEEDS {
            let mut disk = start.clone();
            disk.replay(&recorder, effects);
            let left = disk.after_power_cut(chances(seed));
            let tree = Tree::open(left.path(), Calls::default()).unwrap();
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
    commit(&Tree::open(directory.path(), Calls::with(recorder.clone())).unwrap());
    disk.replay(&recorder, recorder.len());
    for seed in 0..100 {
        let left = disk.after_power_cut(chances(seed));
        let tree = Tree::open(left.path(), Calls::default()).unwrap();
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
    run(directory.path(), Calls::default(), &upgrade()).unwrap();
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
        run(mounted.path(), Calls::default(), &set).unwrap();
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
