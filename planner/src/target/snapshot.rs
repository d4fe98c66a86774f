//! What else than files and images belongs to a restore point.

use tenantry_api::names::{ProtectedPath, RelativePath, VolumeName};
use tenantry_api::tenant::{RollbackData, Upgrade};
use tenantry_protocol::{FileManifest, SnapshotPolicy};

use super::{Refusal, RefusalReason, field};

pub(super) fn parse(upgrade: &Upgrade) -> Result<SnapshotPolicy, Refusal> {
    let spec = &upgrade.snapshot;
    let path = |(index, path): (usize, &String)| {
        field(format!("upgrade.snapshot.paths[{index}]"), RelativePath::parse(path))
    };
    let volume = |(index, name): (usize, &String)| {
        field(format!("upgrade.snapshot.volumes[{index}]"), VolumeName::parse(name))
    };
    let paths: Vec<RelativePath> = spec.paths.iter().enumerate().map(path).collect::<Result<_, _>>()?;
    let volumes: Vec<VolumeName> = spec.volumes.iter().enumerate().map(volume).collect::<Result<_, _>>()?;
    kept_once(&paths)?;
    if let Some(at) = (1..volumes.len()).find(|at| volumes[..*at].contains(&volumes[*at])) {
        let message = format!(
            "spec.upgrade.snapshot.volumes[{at}]: {} is named twice; name each volume once.",
            volumes[at]
        );
        return Err(Refusal::new(RefusalReason::InvalidSpec, message));
    }
    let (consistency, retain) = (spec.consistency, spec.retain.clamp(1, 20));
    Ok(SnapshotPolicy { paths, volumes, consistency, retain })
}

/// What lies beneath another path of the snapshot would be kept, and restored, twice.
fn kept_once(paths: &[RelativePath]) -> Result<(), Refusal> {
    for (at, path) in paths.iter().enumerate() {
        let around = paths.iter().enumerate().find(|(other, one)| *other != at && path.is_at_or_below(one));
        if let Some((_, around)) = around {
            let message = format!(
                "spec.upgrade.snapshot.paths[{at}]: {path} is kept with {around} already; name each path once, and \
                 nothing beneath another."
            );
            return Err(Refusal::new(RefusalReason::InvalidSpec, message));
        }
    }
    Ok(())
}

/// A restore point keeps managed files and `.env` anyway, and puts them back by a commit of their own.
pub(super) fn check_overlap(snapshot: &SnapshotPolicy, files: &[FileManifest]) -> Result<(), Refusal> {
    let env = RelativePath::env_file();
    for (at, path) in snapshot.paths.iter().enumerate() {
        let managed = files.iter().map(|file| &file.path).chain([&env]);
        let mut overlapping = managed.filter(|file| file.is_at_or_below(path) || path.is_at_or_below(file));
        if let Some(file) = overlapping.next() {
            let message = format!(
                "spec.upgrade.snapshot.paths[{at}]: {path} overlaps {file}, which each restore point keeps anyway; name \
                 the folders beside it, or take the path out."
            );
            return Err(Refusal::new(RefusalReason::PathRefused, message));
        }
    }
    Ok(())
}

/// Data of the tenant's own is restored only by a person, never by itself (P1).
pub(super) fn check_rollback_data(
    rollback_data: RollbackData,
    snapshot: &SnapshotPolicy,
    protect: &[ProtectedPath],
) -> Result<(), Refusal> {
    if rollback_data == RollbackData::Never {
        return Ok(());
    }
    for (at, path) in snapshot.paths.iter().enumerate() {
        if let Some(own) = protect.iter().find(|own| own.conflicts_with(path)) {
            let message = format!(
                "spec.upgrade.rollbackData is Always, but spec.upgrade.snapshot.paths[{at}] ({path}) overlaps \
                 spec.protect ({own}), which nothing of ours writes; take one of the two out, or set rollbackData to Never."
            );
            return Err(Refusal::new(RefusalReason::PathRefused, message));
        }
    }
    Ok(())
}
