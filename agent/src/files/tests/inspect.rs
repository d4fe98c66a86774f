//! Looking at files, and when a remembered hash counts.

use std::time::{Duration, Instant};

use super::*;

fn seen(tree: &Tree, name: &str, cache: &HashCache) -> Seen {
    match tree.inspect(&path(name), cache).unwrap() {
        Found::File(seen) => seen,
        other => panic!("{other:?}"),
    }
}

/// Waits until a file's last change is so old that its hash may be remembered.
fn settle(at: &Path) {
    let changed = at.metadata().unwrap().modified().unwrap();
    let deadline = Instant::now() + Duration::from_secs(5);
    while changed.elapsed().unwrap_or_default() < Duration::from_millis(60) {
        assert!(Instant::now() < deadline, "the clock does not move");
        std::thread::yield_now();
    }
}

#[test]
fn a_file_is_seen_with_its_hash_and_attributes() {
    let directory = sample();
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let seen = seen(&tree, "nginx/conf.d/site.conf", &HashCache::default());
    assert_eq!(seen.sha256, sha256(b"old site\n"));
    assert_eq!((seen.stamp.size, seen.stamp.mode, seen.stamp.uid, seen.stamp.gid), (9, 0o640, 1000, 1001));
    assert_eq!(tree.inspect(&path("nginx/absent"), &HashCache::default()).unwrap(), Found::Missing);
    assert_eq!(tree.inspect(&path("no/such/folder"), &HashCache::default()).unwrap(), Found::Missing);
}

#[test]
fn a_remembered_hash_is_used_while_nothing_changed() {
    let directory = sample();
    let at = directory.path().join(".env");
    settle(&at);
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let cache = HashCache::default();
    let first = seen(&tree, ".env", &cache);
    // A wrong hash under the right stamp: if it comes back, the file was not read.
    let planted = Seen { sha256: sha256(b"planted"), ..first.clone() };
    cache.put(&path(".env"), &planted);
    assert_eq!(seen(&tree, ".env", &cache), planted);
    std::fs::write(&at, "TAG=v9\n").unwrap();
    assert_eq!(seen(&tree, ".env", &cache).sha256, sha256(b"TAG=v9\n"));
}

#[test]
fn p16_an_edit_that_keeps_size_and_mtime_is_noticed() {
    let directory = sample();
    let at = directory.path().join(".env");
    settle(&at);
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let cache = HashCache::default();
    let first = seen(&tree, ".env", &cache);
    let modified = at.metadata().unwrap().modified().unwrap();
    std::fs::write(&at, "TAG=v2\n").unwrap();
    std::fs::File::options().write(true).open(&at).unwrap().set_modified(modified).unwrap();
    let second = seen(&tree, ".env", &cache);
    assert_eq!((first.stamp.size, first.stamp.mtime_ns), (second.stamp.size, second.stamp.mtime_ns));
    assert_eq!(second.sha256, sha256(b"TAG=v2\n"));
}

#[test]
fn edits_in_quick_succession_are_each_noticed() {
    let directory = sample();
    let at = directory.path().join(".env");
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let cache = HashCache::default();
    for round in 0..500 {
        let text = format!("TAG=v{}\n", round % 10);
        std::fs::write(&at, &text).unwrap();
        assert_eq!(seen(&tree, ".env", &cache).sha256, sha256(text.as_bytes()), "round {round}");
    }
}

#[test]
fn the_hash_of_a_file_that_was_just_written_is_not_remembered() {
    let directory = sample();
    let at = directory.path().join(".env");
    // A time in the future is younger than any age, however slow this machine is.
    let future = std::time::SystemTime::now() + Duration::from_hours(1);
    std::fs::File::options().write(true).open(&at).unwrap().set_modified(future).unwrap();
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let cache = HashCache::default();
    let first = seen(&tree, ".env", &cache);
    assert_eq!(cache.get(&path(".env"), &first.stamp), None);
}
