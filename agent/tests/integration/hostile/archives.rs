//! Archives that are not what was kept: whatever their manifest says, they are refused and the live data stays.

use std::path::{Path, PathBuf};

use tenantry_agent::files::{DiskIo, Tree, sha256};
use tenantry_agent::snapshot::{ArchiveDir, Part, ProgressSink};
use tenantry_api::names::{OperationId, RelativePath, TenantUid};

use super::host::{Seen, look_into};

struct Patient;

impl ProgressSink for Patient {
    fn progress(&self, _bytes: u64) {}

    fn called_off(&self) -> bool {
        false
    }
}

/// A tenant with data, and a restore point of it.
struct Kept {
    folder: tempfile::TempDir,
    part: Part,
    archive: Vec<u8>,
    manifest: String,
}

fn uid(text: &str) -> TenantUid {
    TenantUid::parse(text).unwrap()
}

impl Kept {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir_all(at("acme/data/deep")).unwrap();
        std::fs::create_dir(at("outside")).unwrap();
        std::fs::write(at("outside/secret"), "outside").unwrap();
        std::fs::write(at("acme/data/deep/file"), "kept").unwrap();
        std::fs::write(at("acme/data/empty"), "").unwrap();
        std::fs::write(at("acme/data/many"), "x".repeat(100_000)).unwrap();
        std::os::unix::fs::symlink("deep", at("acme/data/link")).unwrap();
        std::fs::hard_link(at("acme/data/many"), at("acme/data/twice")).unwrap();
        let tree = Tree::open(&at("acme"), DiskIo::default()).unwrap();
        let (owner, point) = (uid("a1"), OperationId::parse("one").unwrap());
        let archive_dir = ArchiveDir::open(&tree, &owner, &point).unwrap();
        let part = archive_dir.keep(0, &RelativePath::parse("data").unwrap(), &Patient).unwrap();
        let names = part.archive.clone().unwrap();
        let archive = std::fs::read(archive_dir.path().join(names.archive)).unwrap();
        let manifest = std::fs::read_to_string(archive_dir.path().join(names.manifest)).unwrap();
        std::fs::write(at("acme/data/deep/file"), "live").unwrap();
        Self { folder, part, archive, manifest }
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join("acme")
    }

    fn look(&self) -> Seen {
        let mut seen = Seen::new();
        look_into(self.folder.path(), &mut seen);
        seen
    }

    /// Lays these bytes in the restore point, with hashes and lengths that fit, and tries to bring them back.
    fn bring(&self, owner: &str, archive: &[u8], manifest: &str, more: u64) -> Result<(), String> {
        let tree = Tree::open(&self.directory(), DiskIo::default()).unwrap();
        let (owner, point) = (uid(owner), OperationId::parse("one").unwrap());
        let archive_dir = ArchiveDir::open(&tree, &owner, &point).unwrap();
        let mut part = self.part.clone();
        let kept = part.archive.as_mut().unwrap();
        (kept.sha256, kept.archive_bytes) = (sha256(archive), archive.len() as u64);
        (kept.manifest_sha256, kept.manifest_bytes) = (sha256(manifest.as_bytes()), manifest.len() as u64);
        (kept.entries, kept.bytes) = (kept.entries + more, kept.bytes + more);
        Self::restore(&archive_dir, &part, archive, manifest)
    }

    fn restore(
        archive_dir: &ArchiveDir<'_>,
        part: &Part,
        archive: &[u8],
        manifest: &str,
    ) -> Result<(), String> {
        let names = part.archive.as_ref().unwrap();
        std::fs::write(archive_dir.path().join(&names.archive), archive).unwrap();
        std::fs::write(archive_dir.path().join(&names.manifest), manifest).unwrap();
        archive_dir.restore(0, part, &Patient).map_err(|error| error.to_string())
    }

    /// An archive that has changed behind the record's back. With hashes that fit, a bit that changes nothing of what
    /// is unpacked would be none that matters.
    fn changed(&self, what: &str, archive: &[u8]) {
        let before = self.look();
        let tree = Tree::open(&self.directory(), DiskIo::default()).unwrap();
        let (owner, point) = (uid("a1"), OperationId::parse("one").unwrap());
        let archive_dir = ArchiveDir::open(&tree, &owner, &point).unwrap();
        Self::restore(&archive_dir, &self.part, archive, &self.manifest).expect_err(what);
        assert_eq!(self.look(), before, "{what}");
    }

    /// One that must be refused, with the live data as it was.
    fn refused(&self, what: &str, owner: &str, archive: &[u8], manifest: &str, more: u64) {
        let before = self.look();
        let problem = self.bring(owner, archive, manifest, more).expect_err(what);
        assert!(!problem.is_empty());
        assert_eq!(self.look(), before, "{what}: {problem}");
    }
}

#[test]
fn p9_an_archive_that_is_not_what_was_kept_is_refused_and_the_live_data_stays() {
    let kept = Kept::new();
    let mut count = 0;
    let mut refused = |what: &str, owner: &str, archive: &[u8], manifest: &str, more: u64| {
        kept.refused(what, owner, archive, manifest, more);
        count += 1;
    };
    for (what, from, to) in edits() {
        let manifest = kept.manifest.replacen(&from, &to, 1);
        assert_ne!(manifest, kept.manifest, "{what}: {from} is not in the manifest");
        for more in [0, 1] {
            refused(&format!("{what} {more}"), "a1", &kept.archive, &manifest, more);
        }
    }
    let lines: Vec<&str> = kept.manifest.lines().collect();
    for n in 0..lines.len() {
        let without = [&lines[..n], &lines[n + 1..]].concat().join("\n") + "\n";
        refused(&format!("without line {n}"), "a1", &kept.archive, &without, 0);
        let twice = [&lines[..=n], &lines[n..]].concat().join("\n") + "\n";
        refused(&format!("line {n} twice"), "a1", &kept.archive, &twice, 1);
    }
    for length in (0..kept.archive.len()).step_by(kept.archive.len() / 24 + 1) {
        refused(&format!("cut at {length}"), "a1", &kept.archive[..length], &kept.manifest, 0);
        let mut flipped = kept.archive.clone();
        flipped[length] ^= 0x10;
        kept.changed(&format!("a bit of {length}"), &flipped);
    }
    refused("another tenant's", "b2", &kept.archive, &kept.manifest, 0);
    refused("nothing", "a1", b"", "", 0);
    refused("longer", "a1", &[kept.archive.as_slice(), b"x"].concat(), &kept.manifest, 0);
    refused("twice", "a1", &[kept.archive.as_slice(), &kept.archive].concat(), &kept.manifest, 0);
    let bomb = zstd::bulk::compress(&vec![0; 64 * 1024 * 1024], 3).unwrap();
    for raw in [1_usize, 1 << 20, 1 << 30, 10 << 30, usize::MAX] {
        let manifest = format!(
            "{}\n{{\"frame\":{{\"packed\":{},\"raw\":{raw},\"lines\":0}}}}\n{{\"end\":{{}}}}\n",
            lines[0],
            bomb.len()
        );
        refused(&format!("a bomb of {raw}"), "a1", &bomb, &manifest, 0);
    }
    println!("{count} bad archives refused");
    assert!(count >= 100, "{count}");
    // As it was kept, it is brought back.
    kept.bring("a1", &kept.archive, &kept.manifest, 0).unwrap();
    assert_eq!(read(&kept.directory().join("data/deep/file")), "kept");
    assert_eq!(read(&kept.folder.path().join("outside/secret")), "outside");
}

fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap()
}

/// What a manifest must not say, as replacements of what it says.
fn edits() -> Vec<(String, String, String)> {
    let mut all = Vec::new();
    let long = "x".repeat(5_000);
    for path in [
        "../evil",
        "../../outside/secret",
        "/etc/passwd",
        "deep/../../evil",
        "a//b",
        "./a",
        "deep/.",
        "",
        "link/file",
        "link/../../evil",
        "hex:2e2e2f6576696c",
        "hex:2f657463",
        "hex:zz",
        "hex:6100",
        "a\\u0000b",
        "nowhere/file",
        &long,
        "empty/file",
        "..",
    ] {
        for (what, of) in [("deep/file", "deep/file"), ("empty", "empty"), ("a folder", "deep")] {
            let (from, to) = (format!("\"path\":\"{of}\""), format!("\"path\":\"{path}\""));
            all.push((format!("{what} as {path:.30}"), from, to));
        }
        all.push((
            format!("a hard link to {path:.30}"),
            "\"to\":\"many\"".to_owned(),
            format!("\"to\":\"{path}\""),
        ));
    }
    for (what, from, to) in [
        ("a device", "{\"folder\":{}}", "{\"device\":{\"major\":1,\"minor\":3}}"),
        ("a FIFO", "{\"folder\":{}}", "{\"fifo\":{}}"),
        ("a link that leads out", "\"target\":\"deep\"", "\"target\":\"../../outside\""),
        ("a link that leads to /", "\"target\":\"deep\"", "\"target\":\"/etc\""),
        ("a setuid bit", "\"mode\":", "\"mode\":2048"),
        ("a mode without end", "\"mode\":", "\"mode\":9999999999"),
        ("another version", "\"version\":", "\"version\":9"),
        ("another prefix", "\"prefix\":\"data\"", "\"prefix\":\"..\""),
        ("a size without end", "\"size\":4", "\"size\":18446744073709551615"),
        ("10 GB", "\"size\":4", "\"size\":10000000000"),
        ("an unknown field", "\"kind\":", "\"also\":1,\"kind\":"),
        ("many lines", "\"lines\":", "\"lines\":99999999"),
        ("a negative length", "\"packed\":", "\"packed\":-"),
    ] {
        all.push((what.to_owned(), from.to_owned(), to.to_owned()));
    }
    all
}
