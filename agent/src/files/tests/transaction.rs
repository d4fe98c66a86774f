//! Transactions without faults.

use super::*;

fn opened(directory: &Path) -> Tree {
    Tree::open(directory, DiskIo::default()).unwrap()
}

#[test]
fn an_upgrade_changes_exactly_what_was_asked_and_keeps_modes_and_owners() {
    let before = snapshot(sample().path());
    let after = upgraded();
    let at = |name: &str| after.get(Path::new(name)).cloned();
    assert_eq!(at("docker-compose.yml").unwrap(), (Some(b"services: {new: {}}\n".to_vec()), 0o644, 0, 0));
    assert_eq!(at(".env").unwrap(), (Some(b"TAG=v2\n".to_vec()), 0o600, 0, 0));
    assert_eq!(at("nginx/conf.d/site.conf").unwrap(), (Some(b"new site\n".to_vec()), 0o640, 1000, 1001));
    assert_eq!(at("new/deep/routes.conf").unwrap(), (Some(b"routes\n".to_vec()), 0o640, 33, 34));
    assert_eq!(at("new/deep").unwrap().1, 0o755);
    assert_eq!(at("nginx/old.conf"), None);
    assert_eq!(at("data/mine"), before.get(Path::new("data/mine")).cloned());
}

#[test]
fn p9_a_restore_brings_back_content_mode_owner_and_absence() {
    let directory = sample();
    let before = snapshot(directory.path());
    run(directory.path(), DiskIo::default(), &upgrade()).unwrap();
    let tree = opened(directory.path());
    let files = Transactions::new(&tree);
    files.finish(&operation()).unwrap();
    assert_eq!(files.state(&operation()).unwrap(), TransactionState::None);
    files.restore(&operation()).unwrap();
    assert_eq!(snapshot(directory.path()), before);
    assert_eq!(files.state(&operation()).unwrap(), TransactionState::Restored);
    files.finish(&operation()).unwrap();
    assert_eq!(files.pending().unwrap(), []);
    // Again, when a person asks for it later.
    run_as(directory.path(), "op-2", &upgrade());
    files.restore(&operation()).unwrap();
    assert_eq!(snapshot(directory.path()), before);
}

fn run_as(directory: &Path, name: &str, set: &FileSet) {
    let tree = opened(directory);
    let (files, other) = (Transactions::new(&tree), OperationId::parse(name).unwrap());
    files.prepare(&other, set, &[]).unwrap();
    files.commit(&other).unwrap();
    files.finish(&other).unwrap();
}

#[test]
fn a_folder_that_was_made_stays_if_somebody_put_something_in_it() {
    let directory = sample();
    run(directory.path(), DiskIo::default(), &upgrade()).unwrap();
    std::fs::write(directory.path().join("new/deep/mine"), "x").unwrap();
    Transactions::new(&opened(directory.path())).restore(&operation()).unwrap();
    assert!(directory.path().join("new/deep/mine").exists());
    assert!(!directory.path().join("new/deep/routes.conf").exists());
}

#[test]
fn what_is_already_as_wanted_keeps_its_inode() {
    let directory = sample();
    let inode = |name: &str| directory.path().join(name).metadata().unwrap().ino();
    let (same, other) = (inode(".env"), inode("docker-compose.yml"));
    let set = FileSet { changes: vec![write(".env", "TAG=v1\n"), write("docker-compose.yml", "new\n")] };
    run(directory.path(), DiskIo::default(), &set).unwrap();
    assert_eq!(inode(".env"), same);
    assert_ne!(inode("docker-compose.yml"), other);
}

#[test]
fn a_file_that_is_not_what_the_plan_saw_stops_everything() {
    let directory = sample();
    let before = snapshot(directory.path());
    let change = |before: Before| FileSet {
        changes: vec![
            write("docker-compose.yml", "new\n"),
            Change::Write {
                path: path(".env"),
                content: b"TAG=v2\n".to_vec(),
                mode: None,
                owner: None,
                before,
            },
        ],
    };
    for wrong in [Before::Missing, Before::Is(sha256(b"TAG=v0\n"))] {
        let error = run(directory.path(), DiskIo::default(), &change(wrong)).unwrap_err();
        assert!(matches!(&error, FilesError::Moved { path } if path == ".env"), "{error}");
    }
    assert_eq!(snapshot(directory.path()), before);
    run(directory.path(), DiskIo::default(), &change(Before::Is(sha256(b"TAG=v1\n")))).unwrap();
}

#[test]
fn a_file_edited_between_prepare_and_commit_stops_everything() {
    let directory = sample();
    let tree = opened(directory.path());
    let files = Transactions::new(&tree);
    files.prepare(&operation(), &upgrade(), &[]).unwrap();
    std::fs::write(directory.path().join("nginx/conf.d/site.conf"), "by hand\n").unwrap();
    let edited = snapshot(directory.path());
    let error = files.commit(&operation()).unwrap_err();
    assert!(matches!(&error, FilesError::Moved { path } if path == "nginx/conf.d/site.conf"), "{error}");
    assert_eq!(files.state(&operation()).unwrap(), TransactionState::Prepared);
    assert_eq!(files.recover(&operation()).unwrap(), TransactionState::None);
    assert_eq!(snapshot(directory.path()), edited);
    assert_eq!(files.kept_files(&operation()).unwrap(), None);
}

#[test]
fn prepared_again_it_starts_afresh_and_a_committed_one_is_not_prepared_again() {
    let directory = sample();
    let tree = opened(directory.path());
    let files = Transactions::new(&tree);
    files.prepare(&operation(), &FileSet { changes: vec![write(".env", "TAG=other\n")] }, &[]).unwrap();
    files.prepare(&operation(), &upgrade(), &[]).unwrap();
    files.commit(&operation()).unwrap();
    files.commit(&operation()).unwrap();
    assert_eq!(snapshot(directory.path()), upgraded());
    assert!(matches!(files.prepare(&operation(), &upgrade(), &[]), Err(FilesError::Invalid { .. })));
}

#[test]
fn p12_our_own_folder_is_for_our_eyes_only() {
    let directory = sample();
    run(directory.path(), DiskIo::default(), &upgrade()).unwrap();
    let own = directory.path().join(".tenantry");
    let mode = |at: &Path| at.metadata().unwrap().mode() & 0o7777;
    assert_eq!(mode(&own), 0o700);
    assert_eq!(std::fs::read_to_string(own.join(".gitignore")).unwrap(), "*\n");
    let restore = own.join("restore/op-1");
    assert_eq!((mode(&restore.join("index")), mode(&restore.join("files"))), (0o600, 0o700));
    // What is kept has the mode that it had, so that plain `tar` puts it back; nobody else gets this far.
    assert_eq!(mode(&restore.join("files/nginx/conf.d/site.conf")), 0o640);
    // Opened to the world by somebody, it is closed again.
    std::fs::set_permissions(&own, std::fs::Permissions::from_mode(0o755)).unwrap();
    let tree = opened(directory.path());
    Transactions::new(&tree).finish(&operation()).unwrap();
    assert_eq!(mode(&own), 0o700);
}

#[test]
fn p9_only_the_named_restore_points_stay() {
    let directory = sample();
    for name in ["a", "b", "c"] {
        let set = FileSet { changes: vec![write(".env", &format!("TAG={name}\n"))] };
        run_as(directory.path(), name, &set);
    }
    let tree = opened(directory.path());
    let files = Transactions::new(&tree);
    let id = |name: &str| OperationId::parse(name).unwrap();
    assert!(files.kept_files(&id("c")).unwrap().is_some());
    files.prune(&[id("b")]).unwrap();
    assert!(files.kept_files(&id("b")).unwrap().is_some());
    assert!(files.kept_files(&id("a")).unwrap().is_none());
    assert!(matches!(files.restore(&id("c")), Err(FilesError::NoRestorePoint(_))));
}

#[test]
fn p9_a_damaged_restore_point_is_not_restored() {
    for damaged in ["index", "files/docker-compose.yml"] {
        let directory = sample();
        run(directory.path(), DiskIo::default(), &upgrade()).unwrap();
        let new = snapshot(directory.path());
        let at = directory.path().join(".tenantry/restore/op-1").join(damaged);
        let mut bytes = std::fs::read(&at).unwrap();
        let last = bytes.len() - 3;
        bytes[last] ^= 1;
        std::fs::write(&at, bytes).unwrap();
        let tree = opened(directory.path());
        let error = Transactions::new(&tree).restore(&operation()).unwrap_err();
        assert!(matches!(error, FilesError::Damaged { .. }), "{error}");
        assert!(error.to_string().contains(damaged), "{error}");
        assert_eq!(snapshot(directory.path()), new);
    }
}

#[test]
fn p9_a_file_that_was_edited_since_it_was_kept_is_not_replaced() {
    for at in ["nginx/conf.d/site.conf", ".env"] {
        let directory = sample();
        let tree = opened(directory.path());
        let files = Transactions::new(&tree);
        files.keep(&operation(), &upgrade(), &[]).unwrap();
        std::fs::write(directory.path().join(at), "by hand\n").unwrap();
        let edited = snapshot(directory.path());
        let error = files.stage(&operation(), &upgrade(), &[]).unwrap_err();
        assert!(matches!(&error, FilesError::Moved { path } if path == at), "{error}");
        assert_eq!(files.state(&operation()).unwrap(), TransactionState::None);
        assert_eq!(snapshot(directory.path()), edited);
        assert!(files.kept_files(&operation()).unwrap().is_some(), "the restore point stays");
    }
}

#[test]
fn p9_nothing_is_staged_without_a_restore_point_of_all_that_changes() {
    let directory = sample();
    let tree = opened(directory.path());
    let files = Transactions::new(&tree);
    let error = files.stage(&operation(), &upgrade(), &[]).unwrap_err();
    assert!(matches!(error, FilesError::NoRestorePoint(_)), "{error}");
    let fewer = FileSet { changes: vec![write(".env", "TAG=v2\n")] };
    files.keep(&operation(), &fewer, &[]).unwrap();
    let error = files.stage(&operation(), &upgrade(), &[]).unwrap_err();
    assert!(matches!(error, FilesError::Moved { .. }), "{error}");
}

#[test]
fn p9_a_restore_point_that_does_not_read_back_is_not_one() {
    let directory = sample();
    let tree = opened(directory.path());
    let files = Transactions::new(&tree);
    let bytes = files.keep(&operation(), &upgrade(), &[]).unwrap();
    assert_eq!(bytes, files.check(&operation()).unwrap());
    assert!(bytes > 50, "{bytes}");
    std::fs::write(directory.path().join(".tenantry/restore/op-1/files/.env"), "TAG=v9\n").unwrap();
    assert!(matches!(files.check(&operation()), Err(FilesError::Damaged { .. })));
}

#[test]
fn p9_an_index_that_says_something_else_is_noticed() {
    let directory = sample();
    run(directory.path(), DiskIo::default(), &upgrade()).unwrap();
    let at = directory.path().join(".tenantry/restore/op-1/index");
    let text = std::fs::read_to_string(&at).unwrap();
    // 0640 becomes 0666.
    let changed = text.replace("\"mode\":416", "\"mode\":438");
    assert_ne!(text, changed);
    std::fs::write(&at, changed).unwrap();
    let tree = opened(directory.path());
    let error = Transactions::new(&tree).restore(&operation()).unwrap_err();
    assert!(error.to_string().contains("checksum"), "{error}");
}

#[test]
fn the_stage_is_a_tree_of_its_own_that_goes_with_the_plan() {
    let directory = sample();
    let tree = opened(directory.path());
    let stage = Stage::create(&tree, "plan-1", Layout::Directory).unwrap();
    assert_eq!(stage.path().file_name(), directory.path().file_name());
    stage.write(&path("nginx/conf.d/new.conf"), b"new").unwrap();
    stage.write(&path("nginx/conf.d/new.conf"), b"newer").unwrap();
    assert!(stage.copy(&tree, &path(".env")).unwrap());
    assert!(!stage.copy(&tree, &path("absent")).unwrap());
    assert!(stage.has(&path(".env")).unwrap() && !stage.has(&path("absent")).unwrap());
    assert_eq!(std::fs::read(stage.path().join("nginx/conf.d/new.conf")).unwrap(), b"newer");
    let other = Stage::create(&tree, "plan-2", Layout::Directory).unwrap();
    Stage::remove_abandoned(&tree, |plan| plan == "plan-1").unwrap();
    assert!(stage.path().exists() && !other.path().exists());
    Stage::remove(&tree, "plan-1").unwrap();
    assert!(!stage.path().exists());
}

#[test]
fn a_directory_is_made_with_what_is_missing_above_it() {
    let base = tempfile::tempdir().unwrap();
    let wanted = base.path().join("a/b");
    assert!(matches!(Tree::open(&wanted, DiskIo::default()), Err(FilesError::NoDirectory(_))));
    let tree = Tree::create(&wanted, DiskIo::default()).unwrap();
    assert_eq!((tree.directory(), wanted.metadata().unwrap().mode() & 0o777), (wanted.as_path(), 0o755));
    Tree::create(&wanted, DiskIo::default()).unwrap();
    assert!(tree.free_bytes().unwrap() > 0);
}

fn writing(path: &str, content: &str) -> FileSet {
    let path = RelativePath::parse(path).unwrap();
    let content = content.as_bytes().to_vec();
    FileSet {
        changes: vec![Change::Write { path, content, mode: Some(0o600), owner: None, before: Before::Any }],
    }
}

#[test]
fn p9_a_point_that_goes_leaves_what_it_kept_to_the_one_before_it() {
    let directory = tempfile::tempdir().unwrap();
    let at = |path: &str| directory.path().join(path);
    std::fs::write(at("a"), "a0").unwrap();
    std::fs::create_dir(at("deep")).unwrap();
    std::fs::write(at("deep/b"), "b0").unwrap();
    let id = |name: &str| OperationId::parse(name).unwrap();
    run_as(directory.path(), "op-1", &writing("a", "a1"));
    run_as(directory.path(), "op-2", &writing("deep/b", "b1"));
    run_as(directory.path(), "op-3", &writing("a", "a2"));
    let tree = opened(directory.path());
    let files = Transactions::new(&tree);
    for _ in 0..2 {
        // Once more, as after a crash in between.
        files.fold_into(&id("op-1"), &id("op-2")).unwrap();
        files.fold_into(&id("op-1"), &id("op-3")).unwrap();
    }
    files.prune(&[id("op-1")]).unwrap();
    assert_eq!(files.check(&id("op-1")).unwrap(), 4);
    let kept = files.kept_files(&id("op-1")).unwrap().unwrap();
    let was = |path: &str| {
        let file = kept.files.iter().find(|file| file.path.as_str() == path).unwrap();
        String::from_utf8(files.kept_content(&id("op-1"), file).unwrap().unwrap()).unwrap()
    };
    assert_eq!(
        (was("a"), was("deep/b")),
        ("a0".to_owned(), "b0".to_owned()),
        "as they were before the first"
    );
}
