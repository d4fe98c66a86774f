//! P3 and P6: the process dies, or the disk fails, at each effect in turn.

use proptest::prelude::*;
use rustix::io::Errno;

use super::*;

/// Runs an upgrade that meets a fault, and gives back what was on disk after recovery and how it had ended.
fn recovered(
    directory: &Path,
    at: usize,
    fault: Fault,
) -> (Result<(), FilesError>, TransactionState, Snapshot) {
    let result = run(directory, DiskIo::with(Faulty::new(at, fault)), &upgrade());
    let tree = Tree::open(directory, DiskIo::default()).unwrap();
    let state = Transactions::new(&tree).recover(&operation()).unwrap();
    (result, state, snapshot(directory))
}

fn effects_of_an_upgrade() -> usize {
    let counter = Faulty::counting();
    run(sample().path(), DiskIo::with(counter.clone()), &upgrade()).unwrap();
    counter.seen()
}

#[test]
fn p6_after_a_crash_at_any_effect_the_set_is_wholly_old_or_wholly_new() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    let total = effects_of_an_upgrade();
    assert!(total > 60, "only {total} effects: is everything announced?");
    for fault in [Fault::Crash, Fault::Torn] {
        let mut turned = false;
        for at in 0..total {
            let directory = sample();
            let (result, state, found) = recovered(directory.path(), at, fault);
            assert!(result.is_err(), "effect {at} did not crash");
            let wanted = if state == TransactionState::Done { &new } else { &old };
            assert_eq!(&found, wanted, "{fault:?} at effect {at}, {state:?}");
            assert!(!(turned && state == TransactionState::None), "old again at effect {at}");
            turned = state == TransactionState::Done;
            assert!(directory.path().join(".tenantry/tx/op-1.new").exists() == turned, "left over at {at}");
        }
        assert!(turned, "no crash was late enough to be rolled forward");
    }
}

#[test]
fn p3_a_second_crash_during_recovery_changes_nothing() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    let total = effects_of_an_upgrade();
    let mut double = 0;
    for at in 0..total {
        for second in 0.. {
            let directory = sample();
            run(directory.path(), DiskIo::with(Faulty::new(at, Fault::Crash)), &upgrade()).unwrap_err();
            let hook = Faulty::new(second, Fault::Crash);
            let tree = Tree::open(directory.path(), DiskIo::with(hook)).unwrap();
            if Transactions::new(&tree).recover(&operation()).is_ok() {
                break;
            }
            double += 1;
            let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
            let state = Transactions::new(&tree).recover(&operation()).unwrap();
            let wanted = if state == TransactionState::Done { &new } else { &old };
            assert_eq!(&snapshot(directory.path()), wanted, "crashes at {at} and {second}, {state:?}");
        }
    }
    assert!(double > 500, "only {double} double crashes");
}

#[test]
fn p9_a_crash_at_any_effect_of_a_restore_ends_wholly_restored_or_wholly_new() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    let mut restored = 0;
    for at in 0.. {
        let directory = sample();
        run(directory.path(), DiskIo::default(), &upgrade()).unwrap();
        let hook = Faulty::new(at, Fault::Torn);
        let tree = Tree::open(directory.path(), DiskIo::with(hook)).unwrap();
        let done = Transactions::new(&tree).restore(&operation()).is_ok();
        let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
        let files = Transactions::new(&tree);
        let state = files.recover(&operation()).unwrap();
        let wanted = if state == TransactionState::Restored { &old } else { &new };
        assert_eq!(&snapshot(directory.path()), wanted, "crash at effect {at}, {state:?}");
        restored += usize::from(state == TransactionState::Restored);
        files.restore(&operation()).unwrap();
        assert_eq!(snapshot(directory.path()), old, "restored again after effect {at}");
        if done {
            break;
        }
    }
    assert!(restored > 5, "only {restored} were rolled forward");
}

#[test]
fn p9_a_half_committed_set_can_be_restored_at_once() {
    let old = snapshot(sample().path());
    for at in 0..effects_of_an_upgrade() {
        let directory = sample();
        run(directory.path(), DiskIo::with(Faulty::new(at, Fault::Crash)), &upgrade()).unwrap_err();
        let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
        let files = Transactions::new(&tree);
        if files.state(&operation()).unwrap() != TransactionState::Committed {
            continue;
        }
        files.restore(&operation()).unwrap();
        assert_eq!(snapshot(directory.path()), old, "crash at effect {at}");
        assert_eq!(files.recover(&operation()).unwrap(), TransactionState::Restored);
        assert_eq!(snapshot(directory.path()), old, "recovery after the restore, effect {at}");
    }
}

#[test]
fn p9_a_restore_of_a_half_committed_set_survives_two_crashes() {
    let old = snapshot(sample().path());
    let mut double = 0;
    for at in 0..effects_of_an_upgrade() {
        let half = sample();
        run(half.path(), DiskIo::with(Faulty::new(at, Fault::Crash)), &upgrade()).unwrap_err();
        let tree = Tree::open(half.path(), DiskIo::default()).unwrap();
        if Transactions::new(&tree).state(&operation()).unwrap() != TransactionState::Committed {
            continue;
        }
        for second in 0.. {
            let directory = sample();
            run(directory.path(), DiskIo::with(Faulty::new(at, Fault::Crash)), &upgrade()).unwrap_err();
            let restore = |disk_io: DiskIo| {
                let tree = Tree::open(directory.path(), disk_io).unwrap();
                let files = Transactions::new(&tree);
                (files.restore(&operation()).is_ok(), files.state(&operation()).ok())
            };
            let (done, state) = restore(DiskIo::with(Faulty::new(second, Fault::Crash)));
            if done {
                break;
            }
            if state == Some(TransactionState::Restoring) {
                for third in 0.. {
                    double += 1;
                    // Once it was committed, no crash may take the restore back.
                    if restore(DiskIo::with(Faulty::new(third, Fault::Crash))).0 || third > 3 {
                        break;
                    }
                }
                let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
                let state = Transactions::new(&tree).recover(&operation()).unwrap();
                assert_eq!(state, TransactionState::Restored, "crashes at {at} and {second}");
                assert_eq!(snapshot(directory.path()), old, "crashes at {at} and {second}");
            }
        }
    }
    assert!(double > 50, "only {double} double crashes");
}

#[test]
fn p6_what_was_half_discarded_is_never_committed() {
    let new = upgraded();
    for at in 0.. {
        let directory = sample();
        let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
        Transactions::new(&tree).prepare(&operation(), &upgrade(), &[]).unwrap();
        let crashing = Tree::open(directory.path(), DiskIo::with(Faulty::new(at, Fault::Crash))).unwrap();
        let discarded = Transactions::new(&crashing).recover(&operation()).is_ok();
        let before = snapshot(directory.path());
        match Transactions::new(&tree).commit(&operation()) {
            Ok(()) => assert_eq!(snapshot(directory.path()), new, "crash at effect {at}"),
            Err(_) => assert_eq!(snapshot(directory.path()), before, "crash at effect {at}"),
        }
        if discarded {
            break;
        }
    }
}

#[test]
fn p6_an_error_of_the_disk_at_any_effect_is_told_and_leaves_old_or_new() {
    let (old, new) = (snapshot(sample().path()), upgraded());
    for at in 0..effects_of_an_upgrade() {
        for errno in [Errno::NOSPC, Errno::IO, Errno::ROFS] {
            let directory = sample();
            let hook = Faulty::new(at, Fault::Error(errno));
            let tree = Tree::open(directory.path(), DiskIo::with(hook)).unwrap();
            let files = Transactions::new(&tree);
            let result =
                files.prepare(&operation(), &upgrade(), &[]).and_then(|()| files.commit(&operation()));
            let error = result.expect_err("the fault was swallowed");
            let full = error.category() == tenantry_protocol::FailureCategory::DiskFull;
            assert_eq!(full, errno == Errno::NOSPC, "{error}");
            let state = files.state(&operation()).unwrap();
            if state != TransactionState::Committed {
                assert_eq!(snapshot(directory.path()), old, "{error} at effect {at}");
            }
            let state = files.recover(&operation()).unwrap();
            let wanted = if state == TransactionState::Done { &new } else { &old };
            assert_eq!(&snapshot(directory.path()), wanted, "{error} at effect {at}");
        }
    }
}

#[test]
fn p6_a_full_file_system_leaves_the_old_set() {
    let mount = super::paths::Mount::tmpfs("size=256k");
    let directory = mount.path().join("tenant");
    std::fs::create_dir(&directory).unwrap();
    std::fs::write(directory.join(".env"), "TAG=v1\n").unwrap();
    let before = snapshot(&directory);
    let big = "x".repeat(300 * 1024);
    let set = FileSet { changes: vec![write(".env", "TAG=v2\n"), write("big", &big)] };
    let error = run(&directory, DiskIo::default(), &set).unwrap_err();
    assert_eq!(error.category(), tenantry_protocol::FailureCategory::DiskFull, "{error}");
    assert_eq!(snapshot(&directory), before);
    // Nothing of the attempt takes space any more.
    for left in ["tx", "restore"] {
        assert_eq!(std::fs::read_dir(directory.join(".tenantry").join(left)).unwrap().count(), 0, "{left}");
    }
    let small = FileSet { changes: vec![write(".env", "TAG=v2\n"), write("big", &big[..150 * 1024])] };
    run(&directory, DiskIo::default(), &small).unwrap();
}

const NAMES: [&str; 7] = ["a", "b", ".env", "d/one", "d/two", "d/e/three", "f/g/four"];

fn content() -> impl Strategy<Value = String> {
    prop_oneof![Just(String::new()), "[a-z\n]{1,20}"]
}

fn any_set() -> impl Strategy<Value = FileSet> {
    let change = |name: &'static str| {
        prop_oneof![
            2 => Just(None),
            3 => (content(), prop::option::of(0_u32..0o1000), prop::option::of(0_u32..3)).prop_map(move |(content, mode, owner)| {
                let owner = owner.map(|id| Owner { uid: id, gid: id });
                Some(Change::Write { path: path(name), content: content.into_bytes(), mode, owner, before: Before::Any })
            }),
            1 => Just(Some(delete(name))),
        ]
    };
    NAMES.map(change).prop_map(|changes| FileSet { changes: changes.into_iter().flatten().collect() })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn p6_any_set_crashed_anywhere_is_old_or_new_and_restores(
        before in prop::collection::btree_map(prop::sample::select(&NAMES[..]), content(), 0..7),
        set in any_set(),
        at in 0_usize..120,
    ) {
        let make = || {
            let directory = scratch();
            for (name, content) in &before {
                let at = directory.path().join(name);
                std::fs::create_dir_all(at.parent().unwrap()).unwrap();
                std::fs::write(at, content).unwrap();
            }
            directory
        };
        let whole = make();
        let old = snapshot(whole.path());
        run(whole.path(), DiskIo::default(), &set).unwrap();
        let new = snapshot(whole.path());
        for change in &set.changes {
            let found = new.get(Path::new(change.path().as_str())).map(|(content, ..)| content.clone().unwrap());
            let wanted = match change { Change::Write { content, .. } => Some(content.clone()), Change::Delete { .. } => None };
            prop_assert_eq!(found, wanted);
        }

        let crashed = make();
        let _ = run(crashed.path(), DiskIo::with(Faulty::new(at, Fault::Torn)), &set);
        let tree = Tree::open(crashed.path(), DiskIo::default()).unwrap();
        let files = Transactions::new(&tree);
        let state = files.recover(&operation()).unwrap();
        let found = snapshot(crashed.path());
        prop_assert_eq!(&found, if state == TransactionState::Done { &new } else { &old });
        if state == TransactionState::Done {
            files.restore(&operation()).unwrap();
            prop_assert_eq!(&snapshot(crashed.path()), &old);
        }
    }
}
