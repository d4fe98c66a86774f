//! Archives that were damaged, mixed up or made by an enemy: each is refused, and nothing outside is touched.

use std::io::Write as _;

use super::*;
use crate::files::sha256;
use crate::snapshot::entry::{Entry, Kind, Line, Text, TreePath};
use crate::snapshot::tar::{END, padding, write_head};

fn archive_dir_of(directory: &Path) -> PathBuf {
    directory.join(".tenantry/restore/op-1/data")
}

/// Tries to restore; it must be refused and leave the live data alone.
fn refused(directory: &Path, part: &Part) -> String {
    let data = directory.join("data");
    let before = shown(&data);
    let error = restore_data(directory, part, DiskIo::default()).unwrap_err();
    assert_eq!(shown(&data), before, "{error}");
    assert_eq!(left_over(directory), 0, "{error}");
    let tree = Tree::open(directory, DiskIo::default()).unwrap();
    let (uid, id) = (uid(), operation());
    let verified = ArchiveDir::open(&tree, &uid, &id).unwrap().verify(part, &Quiet);
    // What only the unpacker refuses, reading back can't see.
    assert!(verified.is_err() || matches!(error, SnapshotError::Io { .. } | SnapshotError::Refused { .. }));
    error.to_string()
}

#[test]
fn p9_a_flipped_bit_anywhere_is_noticed() {
    let directory = sample();
    let part = keep_data(directory.path());
    for name in ["0.tar.zst", "0.manifest"] {
        let at = archive_dir_of(directory.path()).join(name);
        let right = std::fs::read(&at).unwrap();
        for byte in (0..right.len()).step_by(right.len() / 60 + 1).chain([right.len() - 1]) {
            let mut wrong = right.clone();
            wrong[byte] ^= 1 << (byte % 8);
            std::fs::write(&at, &wrong).unwrap();
            let error = refused(directory.path(), &part);
            assert!(error.contains("can't be restored"), "{name}, byte {byte}: {error}");
        }
        std::fs::write(&at, right).unwrap();
    }
    restore_data(directory.path(), &part, DiskIo::default()).unwrap();
}

#[test]
fn p9_what_is_cut_off_longer_or_gone_is_noticed() {
    let directory = sample();
    let part = keep_data(directory.path());
    for name in ["0.tar.zst", "0.manifest"] {
        let at = archive_dir_of(directory.path()).join(name);
        let right = std::fs::read(&at).unwrap();
        for length in [0, 1, right.len() / 2, right.len() - 1] {
            std::fs::write(&at, &right[..length]).unwrap();
            refused(directory.path(), &part);
        }
        std::fs::write(&at, [right.as_slice(), b"more"].concat()).unwrap();
        refused(directory.path(), &part);
        std::fs::remove_file(&at).unwrap();
        assert!(refused(directory.path(), &part).contains("it is missing"));
        std::fs::write(&at, right).unwrap();
    }
}

#[test]
fn p9_the_archive_of_another_path_or_tenant_is_refused() {
    let directory = sample();
    let part = keep_data(directory.path());
    let tree = Tree::open(directory.path(), DiskIo::default()).unwrap();
    let id = operation();
    let before = shown(&directory.path().join("data"));
    let stranger = TenantUid::parse("ffff").unwrap();
    let error = ArchiveDir::open(&tree, &stranger, &id).unwrap().restore(0, &part, &Quiet).unwrap_err();
    assert!(error.to_string().contains("it is of data of 0a1b path data"), "{error}");
    let elsewhere = Part { what: What::Path(path("other")), ..part };
    let uid = uid();
    let error = ArchiveDir::open(&tree, &uid, &id).unwrap().restore(0, &elsewhere, &Quiet).unwrap_err();
    assert!(error.to_string().contains("it is of data"), "{error}");
    assert_eq!(shown(&directory.path().join("data")), before);
    assert!(!directory.path().join("other").exists());
}

/// An archive as an enemy would make it, its record with it: hashes and lengths are right, what it says is not.
struct Forged {
    lines: String,
    frames: Vec<u8>,
    entries: u64,
    bytes: u64,
}

impl Forged {
    fn new() -> Self {
        let begin =
            Line::Begin { version: 1, of: format!("{} path data", uid()), prefix: Text(b"data".to_vec()) };
        Self {
            lines: serde_json::to_string(&begin).unwrap() + "\n",
            frames: Vec::new(),
            entries: 0,
            bytes: 0,
        }
    }

    fn entry(path: &str, kind: Kind) -> Entry {
        let path = TreePath::try_from(Text(path.into())).unwrap();
        Entry { path, kind, mode: 0o755, uid: 0, gid: 0, mtime: (0, 0), xattrs: Vec::new() }
    }

    fn line(mut self, line: &str) -> Self {
        self.lines += line;
        self.lines += "\n";
        self
    }

    fn frame(mut self, raw: &[u8], lines: &[String]) -> Self {
        let packed = zstd::bulk::compress(raw, 3).unwrap();
        let head = Line::Frame { packed: packed.len(), raw: raw.len(), lines: lines.len() };
        self.frames.extend_from_slice(&packed);
        self = self.line(&serde_json::to_string(&head).unwrap());
        lines.iter().fold(self, |this, line| this.line(line))
    }

    fn add(mut self, path: &str, kind: Kind, content: &[u8]) -> Self {
        let entry = Self::entry(path, kind);
        let mut raw = Vec::new();
        write_head(&mut raw, &Text(b"data".to_vec()), &entry);
        raw.extend_from_slice(content);
        raw.resize(raw.len() + padding(content.len() as u64), 0);
        self.entries += 1;
        self.bytes += content.len() as u64;
        self.frame(&raw, &[serde_json::to_string(&Line::Entry(entry)).unwrap()])
    }

    fn file(self, path: &str, content: &[u8]) -> Self {
        let kind = Kind::File { size: content.len() as u64, sha256: Some(sha256(content)) };
        self.add(path, kind, content)
    }

    fn part(self, directory: &Path) -> Part {
        let this = self.frame(&END, &[]).line("{\"end\":{}}");
        let at = archive_dir_of(directory);
        std::fs::write(at.join("0.tar.zst"), &this.frames).unwrap();
        std::fs::write(at.join("0.manifest"), &this.lines).unwrap();
        let archive = Archive {
            archive: "0.tar.zst".to_owned(),
            sha256: sha256(&this.frames),
            archive_bytes: this.frames.len() as u64,
            manifest: "0.manifest".to_owned(),
            manifest_sha256: sha256(this.lines.as_bytes()),
            manifest_bytes: this.lines.len() as u64,
            entries: this.entries,
            bytes: this.bytes,
            notes: Notes::default(),
        };
        Part { what: What::Path(path("data")), archive: Some(archive) }
    }
}

fn top() -> Forged {
    Forged::new().add("", Kind::Folder {}, b"")
}

fn text(bytes: &str) -> Text {
    Text(bytes.into())
}

#[test]
fn p9_an_enemys_archive_is_refused_and_touches_nothing_outside() {
    let directory = sample();
    keep_data(directory.path());
    let outside = scratch();
    std::fs::write(outside.path().join("theirs"), "theirs").unwrap();
    let out = outside.path().to_str().unwrap();
    let to = |path: &str| Kind::Link { to: TreePath::try_from(text(path)).unwrap() };
    // The one that is right is taken, so that the others are refused for what they are.
    let right = top().file("a", b"x").add("b", to("a"), b"").part(directory.path());
    restore_data(directory.path(), &right, DiskIo::default()).unwrap();

    let symlinked = || top().add("s", Kind::Symlink { target: text(out) }, b"");
    let cases = [
        ("a file behind a symlink", symlinked().file("s/theirs", b"ours")),
        ("a folder behind a symlink", symlinked().add("s/new", Kind::Folder {}, b"")),
        ("a file in place of a symlink", symlinked().file("s", b"ours")),
        ("a name of what a symlink leads to", symlinked().add("l", to("s"), b"")),
        ("a name of what is behind a symlink", symlinked().add("l", to("s/theirs"), b"")),
        ("a name of what is not there", top().add("l", to("nothing"), b"")),
        ("a name of a folder", top().add("d", Kind::Folder {}, b"").add("l", to("d"), b"")),
        ("the same path twice", top().file("a", b"1").file("a", b"2")),
        ("a file in no folder", top().file("d/a", b"1")),
        ("a second top", top().add("", Kind::Folder {}, b"")),
        ("a top that is a symlink", Forged::new().add("", Kind::Symlink { target: text(out) }, b"")),
        ("no entry at all", Forged::new()),
    ];
    for (what, forged) in cases {
        let part = forged.part(directory.path());
        let error = refused(directory.path(), &part);
        println!("{what}: {error}");
        assert_eq!(std::fs::read(outside.path().join("theirs")).unwrap(), b"theirs", "{what}");
        assert_eq!(std::fs::read_dir(outside.path()).unwrap().count(), 1, "{what}");
        assert_eq!(outside.path().join("theirs").metadata().unwrap().nlink(), 1, "{what}");
    }
}

#[test]
fn p9_a_path_that_leads_out_does_not_even_decode() {
    let directory = sample();
    keep_data(directory.path());
    let absolute = format!("{}/x", directory.path().display());
    let long = "a/".repeat(2_100) + "b";
    let name = "n".repeat(256);
    let deep = vec!["d"; 300].join("/");
    for bad in [
        "../x",
        "/etc/x",
        "a/../../x",
        "a//b",
        "a/",
        "./a",
        ".",
        "..",
        "a\0b",
        &absolute,
        &long,
        &name,
        &deep,
    ] {
        let line = serde_json::json!({"entry": {"path": bad, "kind": {"folder": {}}, "mode": 493, "uid": 0, "gid": 0, "mtime": [0, 0]}});
        let part = top().frame(b"x", &[line.to_string()]).part(directory.path());
        let error = refused(directory.path(), &part);
        assert!(error.contains("does not decode"), "{bad:?}: {error}");
    }
    assert!(TreePath::try_from(text("a/b...c")).is_ok());
}

#[test]
fn p15_a_bomb_is_stopped_by_what_the_record_says() {
    let directory = sample();
    keep_data(directory.path());
    let zeros = vec![0_u8; pack::PIECE];
    // More than was kept.
    let mut part =
        (0..20).fold(top(), |forged, n| forged.file(&format!("f{n}"), &zeros)).part(directory.path());
    let archive = part.archive.as_mut().unwrap();
    archive.bytes = 3 * pack::PIECE as u64;
    assert!(refused(directory.path(), &part).contains("more than was kept"));
    // A frame that unpacks to more than it says, and one that says too much.
    let bomb = zstd::bulk::compress(&vec![0_u8; 512 << 20], 3).unwrap();
    for raw in [4096_usize, 512 << 20] {
        let mut forged = top();
        forged.frames.extend_from_slice(&bomb);
        let head = format!("{{\"frame\":{{\"packed\":{},\"raw\":{raw},\"lines\":0}}}}", bomb.len());
        let part = forged.line(&head).part(directory.path());
        refused(directory.path(), &part);
    }
    // A line without end.
    let mut endless = top();
    endless.lines += &"x".repeat(2 << 20);
    assert!(refused(directory.path(), &endless.part(directory.path())).contains("too long"));
}

#[test]
fn p9_content_and_modes_are_what_the_manifest_says_or_nothing() {
    let directory = sample();
    keep_data(directory.path());
    let entry = Forged::entry("a", Kind::File { size: 4, sha256: Some(sha256(b"good")) });
    let line = serde_json::to_string(&Line::Entry(entry.clone())).unwrap();
    let raw = |entry: &Entry, content: &[u8]| {
        let mut raw = Vec::new();
        write_head(&mut raw, &Text(b"data".to_vec()), entry);
        raw.extend_from_slice(content);
        raw.resize(raw.len() + 508, 0);
        raw
    };
    let setuid = Entry { mode: 0o4755, ..entry.clone() };
    let elsewhere = Entry { path: TreePath::try_from(text("b")).unwrap(), ..entry.clone() };
    for (what, raw) in [
        ("other content", raw(&entry, b"evil")),
        ("a setuid bit", raw(&setuid, b"good")),
        ("another name", raw(&elsewhere, b"good")),
        ("something after it", [raw(&entry, b"good"), vec![1]].concat()),
    ] {
        let mut forged = top();
        (forged.entries, forged.bytes) = (2, 4);
        let part = forged.frame(&raw, std::slice::from_ref(&line)).part(directory.path());
        let error = refused(directory.path(), &part);
        assert!(error.contains("can't be restored"), "{what}: {error}");
    }
}

#[test]
fn p9_a_manifest_of_garbage_is_refused() {
    use proptest::test_runner::{Config, TestRunner};
    let directory = sample();
    let part = keep_data(directory.path());
    let at = archive_dir_of(directory.path()).join("0.manifest");
    let right = std::fs::read(&at).unwrap();
    let mut runner = TestRunner::new(Config { cases: 200, ..Config::default() });
    let wrong = (0..right.len(), proptest::collection::vec(proptest::prelude::any::<u8>(), 1..20));
    runner
        .run(&wrong, |(place, bytes)| {
            let mut text = right.clone();
            let end = (place + bytes.len()).min(text.len());
            text.splice(place..end, bytes);
            if text != right {
                std::fs::File::create(&at).unwrap().write_all(&text).unwrap();
                refused(directory.path(), &part);
            }
            Ok(())
        })
        .unwrap();
}
