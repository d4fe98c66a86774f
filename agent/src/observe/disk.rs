//! What is on the disk: managed files, `.env`, compose files; and the stamps of everything that was looked at.

use std::collections::BTreeMap;

use tenantry_api::names::{RelativePath, Sha256};
use tenantry_planner::env::EnvFile;
use tenantry_planner::policy::Policy;
use tenantry_protocol::{
    EnvKeyState, EnvManifest, EnvObservation, FailureCategory, FileManifest, FileObservation, FileState,
    Manifest, Place, UnreadFile,
};

use super::copies::Texts;
use super::outside::Reader;
use crate::compose::{Discovered, Explained, inputs, unread};
use crate::files::{FILE_LIMIT, FilesError, Found, Seen, Stamps, Tree};
use crate::host::TenantCache;
use crate::store::Baseline;

/// Everything on disk that an observation says something of.
pub struct Disk {
    /// Each managed file, in the manifest's order.
    pub files: Vec<FileObservation>,
    /// Each managed file that is there, with its hash and stamp.
    pub seen: BTreeMap<RelativePath, Seen>,
    /// Files that we wrote and that the manifest no longer has.
    pub leftovers: Vec<FileObservation>,
    /// The patched keys.
    pub env: EnvObservation,
    /// The compose files; absent where there is none.
    pub compose: Result<Option<Discovered>, Explained>,
    /// Managed compose files that compose would not read.
    pub unread: Vec<UnreadFile>,
    /// What everything was like before it was read.
    pub stamps: Stamps,
}

impl Disk {
    /// Reads a tenant's directory.
    pub fn read(
        tree: &Tree,
        tenant: &TenantCache,
        place: &Place,
        manifest: &Manifest,
        baseline: &Baseline,
        policy: &Policy,
    ) -> Result<Self, FilesError> {
        let managed: Vec<&RelativePath> = manifest.files.iter().map(|file| &file.path).collect();
        let old: Vec<&RelativePath> = baseline.files.keys().filter(|path| !managed.contains(path)).collect();
        let mut stamps = Stamps::of(tree, managed.into_iter().chain(old.iter().copied()))?;
        let mut files = Vec::with_capacity(manifest.files.len());
        let mut seen = BTreeMap::new();
        for file in &manifest.files {
            let found = tree.inspect(&file.path, &tenant.hashes)?;
            files.push(file_observation(file, &found, baseline));
            if let Found::File(known) = found {
                seen.insert(file.path.clone(), known);
            }
        }
        let mut leftovers = Vec::new();
        for path in old {
            leftovers.extend(leftover(path, &tree.inspect(path, &tenant.hashes)?, baseline));
        }
        let env = env_observation(tree, &manifest.env, &mut stamps)?;
        let compose = discover(tree, place, policy, &mut stamps);
        let unread = unread_files(tree, place, manifest, &compose, &mut stamps);
        Ok(Self { files, seen, leftovers, env, compose, unread, stamps })
    }
}

fn file_observation(file: &FileManifest, found: &Found, baseline: &Baseline) -> FileObservation {
    let (state, sha256) = match found {
        Found::Missing => (FileState::Missing, None),
        Found::Blocked(what) => (FileState::Blocked { found: what.clone() }, None),
        Found::File(seen) => (file_state(file, seen), Some(seen.sha256.clone())),
    };
    let hand_edited = state != FileState::Same
        && state != FileState::Attributes
        && edited(&file.path, sha256.as_ref(), baseline);
    let unmanaged = state == FileState::Differs && !baseline.files.contains_key(&file.path);
    FileObservation { path: file.path.clone(), state, sha256, hand_edited, unmanaged, lines: None }
}

/// How a file that is there stands to what is wanted.
pub fn file_state(file: &FileManifest, seen: &Seen) -> FileState {
    if seen.sha256 != file.sha256 {
        return FileState::Differs;
    }
    let owner = file.owner.is_none_or(|owner| (owner.uid, owner.gid) == (seen.stamp.uid, seen.stamp.gid));
    if owner && seen.stamp.mode & 0o7777 == file.mode { FileState::Same } else { FileState::Attributes }
}

/// Whether we once wrote the file, and it holds something else now. One that was taken away holds nothing to lose.
pub fn edited(path: &RelativePath, now: Option<&Sha256>, baseline: &Baseline) -> bool {
    now.is_some_and(|now| baseline.files.get(path).is_some_and(|written| written.sha256 != *now))
}

fn leftover(path: &RelativePath, found: &Found, baseline: &Baseline) -> Option<FileObservation> {
    let (state, sha256) = match found {
        Found::Missing => return None,
        Found::Blocked(what) => (FileState::Blocked { found: what.clone() }, None),
        Found::File(seen) => (FileState::Differs, Some(seen.sha256.clone())),
    };
    let hand_edited = edited(path, sha256.as_ref(), baseline);
    Some(FileObservation { path: path.clone(), state, sha256, hand_edited, unmanaged: false, lines: None })
}

fn env_observation(
    tree: &Tree,
    env: &EnvManifest,
    stamps: &mut Stamps,
) -> Result<EnvObservation, FilesError> {
    let file = RelativePath::env_file();
    stamps.stat(tree, &file)?;
    let content = match tree.read_followed(&file, FILE_LIMIT) {
        Ok(content) => content,
        Err(FilesError::Refused { .. }) => None,
        Err(error) => return Err(error),
    };
    let parsed = content.as_deref().and_then(|bytes| EnvFile::parse(bytes).ok());
    let absent = |name: &tenantry_api::names::EnvKey| EnvKeyState {
        name: name.clone(),
        present: false,
        as_wanted: false,
        by_default: false,
        reaches: None,
    };
    let keys = env
        .patch()
        .iter()
        .map(|wanted| parsed.as_ref().map_or_else(|| absent(&wanted.name), |env| env.key_state(wanted)));
    Ok(EnvObservation { exists: content.is_some(), keys: keys.collect() })
}

/// The compose files of a directory, with the stamps of all that was asked for.
fn discover(
    tree: &Tree,
    place: &Place,
    policy: &Policy,
    stamps: &mut Stamps,
) -> Result<Option<Discovered>, Explained> {
    let looked = std::cell::RefCell::new(Stamps::of_directory());
    let read = |path: &RelativePath| {
        looked.borrow_mut().stat(tree, path).map_err(|error| explained(&error))?;
        tree.read_followed(path, FILE_LIMIT).map_err(|error| explained(&error))
    };
    let reader = Reader::Agent(policy).of(&place.directory);
    let outside = |path: &str, may_miss: bool| {
        looked.borrow_mut().outside(path);
        reader(path, may_miss)
    };
    let found = inputs(place, &read, &outside);
    let mut looked = looked.into_inner();
    if let Ok(Some(discovered)) = &found {
        for path in &discovered.inputs {
            looked.stat(tree, path).map_err(|error| explained(&error))?;
        }
    }
    stamps.add(looked);
    found
}

/// Managed compose files that compose would not read. What can't be looked at is told as what is wrong with the compose
/// files; and what a managed `.env` will name is known only once it is there.
fn unread_files(
    tree: &Tree,
    place: &Place,
    manifest: &Manifest,
    compose: &Result<Option<Discovered>, Explained>,
    stamps: &mut Stamps,
) -> Vec<UnreadFile> {
    if matches!(manifest.env, EnvManifest::Managed) {
        return Vec::new();
    }
    let looked = std::cell::RefCell::new(Stamps::default());
    let read = |path: &RelativePath| {
        looked.borrow_mut().stat(tree, path).map_err(|error| explained(&error))?;
        tree.read_followed(path, FILE_LIMIT).map_err(|error| explained(&error))
    };
    let found = compose.as_ref().ok().and_then(Option::as_ref);
    let unread = unread(place, &manifest.files, found, &read).unwrap_or_default();
    stamps.add(looked.into_inner());
    unread
}

/// The compose files of a directory; `None` where there is none.
pub fn discovered(tree: &Tree, place: &Place, reader: Reader<'_>) -> Result<Option<Discovered>, Explained> {
    let read = |path: &RelativePath| tree.read_followed(path, FILE_LIMIT).map_err(|error| explained(&error));
    inputs(place, &read, &reader.of(&place.directory))
}

/// The texts that compose reads of a directory.
pub fn texts(tree: &Tree, discovered: &Discovered) -> Result<Texts, FilesError> {
    let read =
        |path: &RelativePath| Ok(tree.read_followed(path, FILE_LIMIT)?.map(|text| (path.clone(), text)));
    discovered.inputs.iter().filter_map(|path| read(path).transpose()).collect()
}

/// A file's trouble in compose's place.
pub fn explained(error: &FilesError) -> Explained {
    Explained { category: error.category(), message: error.to_string() }
}

/// No compose file where one is needed.
pub fn no_compose_file(place: &Place) -> Explained {
    let directory = &place.directory;
    let message = match place.compose.as_ref().and_then(|choice| choice.files.first()) {
        Some(file) => format!("there is no {file} in {directory}, which spec.compose.files names"),
        None => format!(
            "there is no compose file in {directory}: compose.yaml, compose.yml or docker-compose.yml"
        ),
    };
    Explained { category: FailureCategory::ComposeInvalid, message }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::files::DiskIo;

    #[test]
    fn a_compose_file_behind_a_link_that_stays_is_found_and_one_that_leaves_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = std::fs::canonicalize(folder.path()).unwrap().join("shop");
        std::fs::create_dir_all(at.join("stack")).unwrap();
        std::fs::write(at.join("stack/compose.yaml"), "services: {web: {image: x}}").unwrap();
        let place: Place =
            serde_json::from_value(serde_json::json!({"project": "shop", "directory": at})).unwrap();
        let tree = Tree::open(&at, DiskIo::default()).unwrap();
        assert_eq!(discovered(&tree, &place, Reader::Person), Ok(None));
        std::os::unix::fs::symlink("stack/compose.yaml", at.join("compose.yaml")).unwrap();
        let found = discovered(&tree, &place, Reader::Person).unwrap().unwrap();
        assert_eq!(found.files, [RelativePath::parse("compose.yaml").unwrap()]);
        std::os::unix::fs::symlink("/etc/hostname", at.join("compose.override.yaml")).unwrap();
        assert!(discovered(&tree, &place, Reader::Person).is_err());
    }
}
