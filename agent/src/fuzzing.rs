//! Doors for fuzzers: what reads bytes that somebody else may have written. Each panics where a promise is broken.
#![doc(hidden)]

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;
use tenantry_api::names::{OperationId, RelativePath, TenantUid};
use tenantry_protocol::{
    AcceptRequest, ClaimRequest, ObserveRequest, OperateRequest, ReleaseRequest, ResolveRequest,
};

use crate::files::{DiskIo, Tree, sha256};
use crate::snapshot::{self, Archive, ArchiveDir, Part, ProgressSink, What};

/// A journal's bytes: what is read of them is read again from its own part, and nothing more.
pub fn journal(bytes: &[u8]) {
    crate::store::fuzz(bytes);
}

/// Every request of the protocol: what decodes says the same once it is encoded.
pub fn request(bytes: &[u8]) {
    both::<ObserveRequest>(bytes);
    both::<ResolveRequest>(bytes);
    both::<ClaimRequest>(bytes);
    both::<AcceptRequest>(bytes);
    both::<ReleaseRequest>(bytes);
    if let Some(request) = both::<OperateRequest>(bytes) {
        let _ = crate::calls::validate::validate(&request);
    }
}

fn both<T: DeserializeOwned + serde::Serialize + PartialEq + std::fmt::Debug>(bytes: &[u8]) -> Option<T> {
    let read: T = serde_json::from_slice(bytes).ok()?;
    let again: Option<T> = serde_json::to_vec(&read).ok().and_then(|text| serde_json::from_slice(&text).ok());
    assert_eq!(again.as_ref(), Some(&read));
    Some(read)
}

/// A compose file: what it names is told, or why it is refused, in bounded words.
pub fn compose_file(bytes: &[u8]) {
    if let Err(problem) = crate::compose::scan(bytes) {
        assert!(problem.len() < 1_000);
    }
}

/// An image reference: what is taken for one is written the same.
pub fn reference(text: &str) {
    if let Some(reference) = crate::engine::Reference::parse(text) {
        assert!(text.starts_with(&reference.repository));
    }
}

/// An archive with its manifest, whose length comes first: it is what was kept, or it is refused; and whatever it says,
/// nothing but `data` in `folder` is touched.
pub fn archive(folder: &Path, bytes: &[u8]) {
    let Some((length, rest)) = bytes.split_first_chunk::<2>() else { return };
    let length = usize::from(u16::from_le_bytes(*length)).min(rest.len());
    let (manifest, archive) = rest.split_at(length);
    let _ = brought_back(folder, manifest, archive);
    assert!(std::fs::read(folder.join("own")).is_ok_and(|own| own == b"the tenant's own"));
    let others = std::fs::read_dir(folder).map_or(0, Iterator::count);
    assert!(others <= 3, "something was put beside data");
}

/// Lays an archive in a restore point as if we had kept it, and brings it back.
fn brought_back(folder: &Path, manifest: &[u8], archive: &[u8]) -> Option<()> {
    std::fs::write(folder.join("own"), "the tenant's own").ok()?;
    let tree = Tree::open(folder, DiskIo::default()).ok()?;
    let (tenant, point) = (TenantUid::parse("a1").ok()?, OperationId::parse("x").ok()?);
    let archive_dir = ArchiveDir::open(&tree, &tenant, &point).ok()?;
    std::fs::write(archive_dir.path().join("0.tar.zst"), archive).ok()?;
    std::fs::write(archive_dir.path().join("0.manifest"), manifest).ok()?;
    let (entries, bytes) = said(manifest);
    let archive = Archive {
        archive: "0.tar.zst".to_owned(),
        sha256: sha256(archive),
        archive_bytes: archive.len() as u64,
        manifest: "0.manifest".to_owned(),
        manifest_sha256: sha256(manifest),
        manifest_bytes: manifest.len() as u64,
        entries,
        bytes,
        notes: snapshot::Notes::default(),
    };
    let part = Part { what: What::Path(RelativePath::parse("data").ok()?), archive: Some(archive) };
    let right = archive_dir.verify(&part, &Patient).is_ok();
    let restored = archive_dir.restore(0, &part, &Patient).is_ok();
    assert!(right || !restored, "what was not right was brought back");
    Some(())
}

/// How much a manifest says that there is.
fn said(manifest: &[u8]) -> (u64, u64) {
    let lines =
        manifest.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice::<Value>(line).ok());
    lines.filter_map(|line| line.get("entry").cloned()).fold((0, 0), |(entries, bytes), entry| {
        let size = entry["kind"]["file"]["size"].as_u64().unwrap_or(0);
        (entries + 1, u64::saturating_add(bytes, size))
    })
}

struct Patient;

impl ProgressSink for Patient {
    fn progress(&self, _bytes: u64) {}

    fn called_off(&self) -> bool {
        false
    }
}
