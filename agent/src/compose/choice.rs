//! Which of the files of a directory compose takes for its compose files, and which of ours it would not.

use tenantry_api::names::RelativePath;
use tenantry_planner::env::EnvFile;
use tenantry_protocol::{FailureCategory, FileManifest, Place, UnreadFile};

use super::Explained;
use super::discover::{Discovered, InputFile};
use super::paths::Surroundings;
use super::scan::Named;

const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];

/// The compose files that are read, and what decides that.
pub(super) struct Chosen {
    /// In the order in which compose merges them.
    pub files: Vec<RelativePath>,
    /// What decides that.
    pub by: ChosenBy,
}

/// What decides which compose files are read.
#[derive(Clone, Copy)]
pub(super) enum ChosenBy {
    /// `spec.compose.files`.
    Spec,
    /// `COMPOSE_FILE` in `.env`.
    Env,
    /// The first of compose's own names that is there.
    Names,
}

impl ChosenBy {
    fn said(self) -> Option<String> {
        match self {
            Self::Spec => Some("spec.compose.files".to_owned()),
            Self::Env => Some("COMPOSE_FILE in .env".to_owned()),
            Self::Names => None,
        }
    }
}

/// Which compose files are read.
pub(super) fn choose(
    place: &Place,
    known: &Surroundings<'_>,
    read: &impl InputFile,
) -> Result<Chosen, Explained> {
    if let Some(choice) = place.compose.as_ref().filter(|choice| !choice.files.is_empty()) {
        return Ok(Chosen { files: choice.files.clone(), by: ChosenBy::Spec });
    }
    let Some(text) = known.setting("COMPOSE_FILE")? else {
        let files = first_existing(&FILES, read)?.into_iter().chain(first_existing(&OVERRIDES, read)?);
        return Ok(Chosen { files: files.collect(), by: ChosenBy::Names });
    };
    let separator = known.setting("COMPOSE_PATH_SEPARATOR")?.unwrap_or_else(|| ":".to_owned());
    let key = "COMPOSE_FILE";
    // Its variables are put in already.
    let named = |one: &str| Named { key: key.to_owned(), path: one.replace('$', "$$") };
    let files = text
        .split(separator.as_str())
        .map(|one| known.file_inside(&named(one), ".env"))
        .collect::<Result<_, _>>()?;
    Ok(Chosen { files, by: ChosenBy::Env })
}

/// Managed files that have one of compose's own names, and that compose would not read once they are written. `found` is
/// what it reads now.
pub fn unread(
    place: &Place,
    managed: &[FileManifest],
    found: Option<&Discovered>,
    read: &impl InputFile,
) -> Result<Vec<UnreadFile>, Explained> {
    let managed: Vec<&RelativePath> = named(managed).collect();
    if managed.is_empty() {
        return Ok(Vec::new());
    }
    let env = read(&RelativePath::env_file())?;
    let env = env.as_deref().and_then(|bytes| EnvFile::parse(bytes).ok());
    let known = Surroundings::new(place.directory.as_str(), env.as_ref());
    // Of a file that is to be written it matters only that it will be there.
    let there = |path: &RelativePath| if managed.contains(&path) { Ok(Some(Vec::new())) } else { read(path) };
    let Chosen { files, by } = choose(place, &known, &there)?;
    let is_read = |path: &RelativePath| {
        files.contains(path) || found.is_some_and(|found| found.compose_files.contains(path))
    };
    let unread = managed.into_iter().filter(|path| !is_read(path));
    Ok(unread
        .map(|path| UnreadFile { path: path.clone(), read: files.clone(), named_by: by.said() })
        .collect())
}

/// The same once more of what will be there: managed compose files that a release would not read.
pub fn left_unread<'a>(managed: &'a [FileManifest], staged: &Discovered) -> Vec<&'a RelativePath> {
    named(managed).filter(|path| !staged.compose_files.contains(path)).collect()
}

/// Those that have one of compose's own names.
fn named(managed: &[FileManifest]) -> impl Iterator<Item = &RelativePath> {
    let is_own = |path: &&RelativePath| FILES.iter().chain(&OVERRIDES).any(|name| *name == path.as_str());
    managed.iter().map(|file| &file.path).filter(is_own)
}

/// The names that are looked for, where names decide.
pub(super) fn candidates(by: ChosenBy) -> Result<Vec<RelativePath>, Explained> {
    match by {
        ChosenBy::Names => FILES.into_iter().chain(OVERRIDES).map(path).collect(),
        ChosenBy::Spec | ChosenBy::Env => Ok(Vec::new()),
    }
}

fn first_existing(names: &[&str], read: &impl InputFile) -> Result<Option<RelativePath>, Explained> {
    for name in names {
        let path = path(name)?;
        if read(&path)?.is_some() {
            return Ok(Some(path));
        }
    }
    Ok(None)
}

fn path(text: &str) -> Result<RelativePath, Explained> {
    RelativePath::parse(text).map_err(|e| Explained::new(FailureCategory::PathRefused, e.to_string()))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use rstest::rstest;
    use serde_json::json;

    use super::*;
    use crate::compose::inputs;

    /// What of the bundle's files is not read, beside the host's own.
    fn unread_of(managed: &[&str], host: &[(&str, &str)]) -> Vec<String> {
        let hash = "0".repeat(64);
        let file =
            |path: &&str| json!({"path": path, "sha256": hash, "size": 1, "mode": 0o644, "sensitive": false});
        let managed: Vec<FileManifest> =
            managed.iter().map(|path| serde_json::from_value(file(path)).unwrap()).collect();
        let place: Place =
            serde_json::from_value(json!({"project": "shop", "directory": "/srv/shop"})).unwrap();
        let host: BTreeMap<&str, &str> = host.iter().copied().collect();
        let read = |path: &RelativePath| Ok(host.get(path.as_str()).map(|text| text.as_bytes().to_vec()));
        let found = inputs(&place, &read, &|_: &str, _| Ok(crate::compose::Seen::Text(None))).unwrap();
        let unread = unread(&place, &managed, found.as_ref(), &read).unwrap();
        let told = |one: &UnreadFile| {
            let read: Vec<&str> = one.read.iter().map(RelativePath::as_str).collect();
            format!("{} for {}{}", one.path, read.join("+"), one.named_by.as_ref().map_or("", |_| " by .env"))
        };
        unread.iter().map(told).collect()
    }

    const ONE: &str = "services: {web: {image: x}}";

    #[rstest]
    #[case::one_of_its_own_name(&["docker-compose.yml"], &[("docker-compose.yml", ONE)], &[])]
    #[case::one_that_comes_first(&["compose.yaml"], &[("docker-compose.yml", ONE)], &[])]
    #[case::one_that_is_not_reached(&["docker-compose.yml"], &[("compose.yaml", ONE)], &["docker-compose.yml for compose.yaml"])]
    #[case::an_override_beside_another(
        &["compose.yaml", "docker-compose.override.yml"], &[("compose.override.yaml", ONE)],
        &["docker-compose.override.yml for compose.yaml+compose.override.yaml"]
    )]
    #[case::an_override_of_its_own(&["compose.yaml", "compose.override.yaml"], &[], &[])]
    #[case::one_that_env_does_not_name(
        &["compose.yaml"], &[(".env", "COMPOSE_FILE=prod.yaml\n"), ("prod.yaml", ONE)],
        &["compose.yaml for prod.yaml by .env"]
    )]
    #[case::one_that_the_hosts_own_includes(
        &["docker-compose.yml"], &[("compose.yaml", "include: [docker-compose.yml]"), ("docker-compose.yml", ONE)], &[]
    )]
    #[case::what_has_no_name_of_composes(&["app.yml", "sub/compose.yaml"], &[("compose.yaml", ONE)], &[])]
    fn p16_a_bundles_compose_file(
        #[case] managed: &[&str],
        #[case] host: &[(&str, &str)],
        #[case] expected: &[&str],
    ) {
        assert_eq!(unread_of(managed, host), expected);
    }
}
