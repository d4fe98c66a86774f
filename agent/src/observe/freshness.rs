//! Whether containers have read the managed files that are mounted into them as they are now.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::{RelativePath, Sha256};
use tenantry_planner::model::{Mounted, Service};
use tenantry_protocol::{MountFreshness, StaleFile};

use crate::engine::ProjectContainer;
use crate::files::Seen;
use crate::store::{Start, Starts};

/// Managed files as they are on disk.
pub type Contents = BTreeMap<RelativePath, Seen>;

#[derive(PartialEq)]
enum Read {
    Current,
    Stale,
    Unknown,
}

/// Whether all containers of a service have read its mounted files as they are now.
pub fn freshness(
    service: &Service,
    directory: &str,
    containers: &[&ProjectContainer],
    files: &Contents,
    starts: &Starts,
) -> MountFreshness {
    let (mut stale, mut unknown) = (led_elsewhere(service, directory, containers, starts), Vec::new());
    for (path, seen) in files {
        let Some(mounted) = service.mounts(directory, path) else { continue };
        let file = || StaleFile { path: path.clone(), mounted_singly: mounted == Mounted::Singly };
        let reads: Vec<Read> =
            containers.iter().map(|container| read(container, path, seen, starts)).collect();
        if reads.contains(&Read::Stale) {
            stale.push(file());
        } else if reads.contains(&Read::Unknown) {
            unknown.push(file());
        }
    }
    if !stale.is_empty() {
        MountFreshness::Stale { files: stale }
    } else if !unknown.is_empty() {
        MountFreshness::Unknown { files: unknown }
    } else {
        MountFreshness::Current
    }
}

fn start_of<'a>(container: &ProjectContainer, starts: &'a Starts) -> Option<&'a Start> {
    starts.of(&container.container.id, &container.started_raw)
}

/// What is mounted by a symlink that led somewhere else when a container was started: it sees what was there then.
fn led_elsewhere(
    service: &Service,
    directory: &str,
    containers: &[&ProjectContainer],
    starts: &Starts,
) -> Vec<StaleFile> {
    let known = containers.iter().filter_map(|container| start_of(container, starts));
    let moved: BTreeSet<RelativePath> =
        known.flat_map(|start| start.not_mounted(&service.mounted(directory))).collect();
    moved.into_iter().map(|path| StaleFile { path, mounted_singly: true }).collect()
}

/// Inline configs and secrets that are known to have been copied into a container otherwise than they are now.
pub fn outdated(service: &Service, containers: &[&ProjectContainer], starts: &Starts) -> Vec<String> {
    let known = containers.iter().filter_map(|container| {
        // A start that is not ours may have been compose's, which copies them anew.
        start_of(container, starts)?.copied.as_ref()
    });
    let names: BTreeSet<&str> = known.flat_map(|copied| service.copied.differing(copied)).collect();
    names.into_iter().map(str::to_owned).collect()
}

fn read(container: &ProjectContainer, path: &RelativePath, seen: &Seen, starts: &Starts) -> Read {
    let recorded: Option<&Sha256> = start_of(container, starts).and_then(|start| start.files.get(path));
    if let Some(hash) = recorded {
        return if *hash == seen.sha256 { Read::Current } else { Read::Stale };
    }
    match container.container.started_at {
        // What never ran has read nothing yet.
        None => Read::Current,
        Some(at) if seen.stamp.ctime_ns < at.as_nanosecond() => Read::Current,
        Some(_) => Read::Unknown,
    }
}
