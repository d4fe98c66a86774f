//! Which compose files and profiles are in use, as plain compose chooses them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use tenantry_api::names::RelativePath;
use tenantry_planner::env::EnvFile;
use tenantry_protocol::{ComposeUse, FailureCategory, Place};

use super::scan::{Named, Scan, scan};
use super::{Compose, Explained};

const FILES: [&str; 4] = ["compose.yaml", "compose.yml", "docker-compose.yml", "docker-compose.yaml"];
const OVERRIDES: [&str; 4] = [
    "compose.override.yml",
    "compose.override.yaml",
    "docker-compose.override.yml",
    "docker-compose.override.yaml",
];
/// At most so many files are followed: a chain of includes ends somewhere.
const MAX_FILES: usize = 64;

/// The compose files of a project, and how compose is told of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Discovered {
    /// The files in merge order.
    pub files: Vec<RelativePath>,
    /// Profiles that are switched on.
    pub profiles: Vec<String>,
    /// Whether there is a `.env`.
    pub env: bool,
    /// Every file that is read as a compose file: the files, and what they include and extend.
    pub compose_files: Vec<RelativePath>,
    /// Every file that the model is read from, `.env` included: those that exist and those that would count if they did.
    pub inputs: Vec<RelativePath>,
    /// The project's name that plain compose would choose; absent where only compose itself can tell.
    pub plain_name: Option<String>,
    /// Whether plain compose, without any flag, would choose the same.
    plain: bool,
}

/// What each file that the model is read from names; nothing where it is no compose file.
type Scans = BTreeMap<RelativePath, Option<Scan>>;

/// Reads a file of the project: `None` where there is none.
pub trait InputFile: Fn(&RelativePath) -> Result<Option<Vec<u8>>, Explained> {}
impl<F: Fn(&RelativePath) -> Result<Option<Vec<u8>>, Explained>> InputFile for F {}

/// Finds the compose files of a project; `None` where there is none.
pub fn inputs(place: &Place, read: &impl InputFile) -> Result<Option<Discovered>, Explained> {
    let env_path = path(".env")?;
    let env_bytes = read(&env_path)?;
    let env = env_bytes
        .as_deref()
        .map(EnvFile::parse)
        .transpose()
        .map_err(|error| Explained::new(FailureCategory::ComposeInvalid, format!(".env: {error}")))?;
    let chosen = place.compose.as_ref().filter(|choice| !choice.files.is_empty());
    let named = setting(env.as_ref(), "COMPOSE_FILE")?;
    let mut candidates: Vec<RelativePath> = Vec::new();
    let files = match (chosen, named) {
        (Some(choice), _) => choice.files.clone(),
        (None, Some(text)) => {
            let separator =
                setting(env.as_ref(), "COMPOSE_PATH_SEPARATOR")?.unwrap_or_else(|| ":".to_owned());
            text.split(separator.as_str())
                .map(|one| {
                    within("", &Named { key: "COMPOSE_FILE".to_owned(), path: one.to_owned() }, &env_path)
                })
                .collect::<Result<_, _>>()?
        }
        (None, None) => {
            candidates = FILES.into_iter().chain(OVERRIDES).map(path).collect::<Result<_, _>>()?;
            first_existing(&FILES, read)?.into_iter().chain(first_existing(&OVERRIDES, read)?).collect()
        }
    };
    if files.is_empty() || read(&files[0])?.is_none() {
        return Ok(None);
    }
    let given =
        place.compose.as_ref().map(|choice| choice.profiles.clone()).filter(|profiles| !profiles.is_empty());
    let by_env = setting(env.as_ref(), "COMPOSE_PROFILES")?.unwrap_or_default();
    let by_env = || by_env.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let scans = follow(&files, read)?;
    let compose_files =
        scans.iter().filter(|(_, scan)| scan.is_some()).map(|(path, _)| path.clone()).collect();
    let plain_name = plain_name(place, env.as_ref(), &files, &scans)?;
    let plain = chosen.is_none() && given.is_none() && plain_name.as_deref() == Some(place.project.as_str());
    let mut inputs: Vec<RelativePath> = candidates;
    inputs.extend(scans.into_keys());
    inputs.push(env_path);
    inputs.sort();
    inputs.dedup();
    let profiles = given.unwrap_or_else(by_env);
    Ok(Some(Discovered { files, profiles, env: env.is_some(), compose_files, inputs, plain_name, plain }))
}

impl Discovered {
    /// The arguments that say which project it is, for one in `directory`.
    pub fn arguments(&self, place: &Place, directory: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-p".into(), place.project.as_str().into()];
        for file in &self.files {
            arguments.extend(["-f".into(), directory.join(file.as_str()).into_os_string()]);
        }
        arguments.extend(["--project-directory".into(), directory.as_os_str().to_owned()]);
        if self.env {
            arguments.extend(["--env-file".into(), directory.join(".env").into_os_string()]);
        }
        for profile in &self.profiles {
            arguments.extend(["--profile".into(), profile.into()]);
        }
        arguments
    }

    /// What a person types after `docker compose` in the directory, before the command itself.
    pub fn typed_arguments(&self, place: &Place) -> Vec<String> {
        if self.plain {
            return Vec::new();
        }
        let mut arguments = vec!["-p".to_owned(), place.project.to_string()];
        for file in &self.files {
            arguments.extend(["-f".to_owned(), file.to_string()]);
        }
        // By itself compose would take the first file's own folder.
        if self.files.first().is_some_and(|first| first.parent().is_some()) {
            arguments.extend(["--project-directory".to_owned(), ".".to_owned()]);
        }
        for profile in &self.profiles {
            arguments.extend(["--profile".to_owned(), profile.clone()]);
        }
        arguments
    }

    /// What is in use, for people.
    pub fn in_use(&self, compose: &Compose, place: &Place) -> ComposeUse {
        let mut words = vec![compose.typed().to_owned()];
        words.extend(self.typed_arguments(place));
        words.push("up -d".to_owned());
        ComposeUse {
            files: self.files.iter().map(ToString::to_string).collect(),
            profiles: self.profiles.clone(),
            command: words.join(" "),
        }
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

/// A variable of `.env` that steers compose. One that depends on other variables is refused rather than guessed.
fn setting(env: Option<&EnvFile>, name: &str) -> Result<Option<String>, Explained> {
    let Some(value) = env.and_then(|env| env.get(name)) else {
        return Ok(None);
    };
    if let Some(text) = value.literal() {
        return Ok(Some(text.to_owned()).filter(|text| !text.is_empty()));
    }
    let problem = format!(".env: {name} depends on other variables: write its value out");
    Err(Explained::new(FailureCategory::ComposeInvalid, problem))
}

/// Every file that the model is read from, with what it names. None of them leaves the directory, and none is anything
/// but a plain file. What is no compose file names nothing.
fn follow(files: &[RelativePath], read: &impl InputFile) -> Result<Scans, Explained> {
    let mut scans = Scans::new();
    // What a file names is seen from the project's directory; in one that is included or extended, from its own folder.
    let mut open: Vec<(RelativePath, String)> =
        files.iter().map(|file| (file.clone(), String::new())).collect();
    let mut seen = BTreeSet::new();
    while let Some((file, folder)) = open.pop() {
        if !seen.insert((file.clone(), folder.clone())) {
            continue;
        }
        if seen.len() > MAX_FILES {
            let problem = format!("{file}: the compose files include more than {MAX_FILES} others");
            return Err(Explained::new(FailureCategory::ComposeInvalid, problem));
        }
        let content = read(&file)?.unwrap_or_default();
        let found = scan(&content).map_err(|problem| {
            Explained::new(FailureCategory::ComposeInvalid, format!("{file}: {problem}"))
        })?;
        for named in found.includes.iter().chain(&found.extends) {
            let path = within(&folder, named, &file)?;
            let own = path.parent().map(String::from).unwrap_or_default();
            open.push((path, own));
        }
        for named in &found.includes {
            // Compose takes the `.env` beside an included file, too.
            let beside = within(&folder, named, &file)?.parent().map(|folder| format!("{folder}/.env"));
            if let Some(beside) = beside {
                env_file(path(&beside)?, read, &mut scans)?;
            }
        }
        for named in &found.env_files {
            env_file(within(&folder, named, &file)?, read, &mut scans)?;
        }
        scans.insert(file, Some(found));
    }
    Ok(scans)
}

/// Takes an environment file among the inputs. Reading it shows that it is a plain file, or not there.
fn env_file(path: RelativePath, read: &impl InputFile, scans: &mut Scans) -> Result<(), Explained> {
    if scans.len() > MAX_FILES {
        let problem = format!("{path}: the compose files name more than {MAX_FILES} others");
        return Err(Explained::new(FailureCategory::ComposeInvalid, problem));
    }
    if let Entry::Vacant(place) = scans.entry(path) {
        read(place.key())?;
        place.insert(None);
    }
    Ok(())
}

/// The project's name that plain compose would choose; `None` where it can't be told.
fn plain_name(
    place: &Place,
    env: Option<&EnvFile>,
    files: &[RelativePath],
    scans: &Scans,
) -> Result<Option<String>, Explained> {
    if let Some(name) = setting(env, "COMPOSE_PROJECT_NAME")? {
        return Ok(Some(name));
    }
    let written = files.iter().rev().find_map(|file| scans.get(file)?.as_ref()?.name.clone());
    Ok(match written {
        Some(name) if name.contains('$') => None,
        Some(name) => Some(name),
        None => Some(normal_name(place.directory.base_name())),
    })
}

/// A folder's name as compose makes a project's name of it.
fn normal_name(folder: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = folder.to_lowercase().chars().filter(kept).collect();
    name.trim_start_matches(['-', '_']).to_owned()
}

fn path(text: &str) -> Result<RelativePath, Explained> {
    RelativePath::parse(text).map_err(|e| Explained::new(FailureCategory::PathRefused, e.to_string()))
}

/// A path as written in a file that is read for `folder`, seen from the project's directory.
fn within(folder: &str, named: &Named, by: &RelativePath) -> Result<RelativePath, Explained> {
    let Named { key, path: written } = named;
    let refuse = |problem: &str| {
        let message = format!("{by}: {key}: {:?} {problem}", tenantry_api::conditions::bounded(written, 120));
        Explained::new(FailureCategory::PathRefused, message)
    };
    if written.contains('$') {
        return Err(refuse("depends on variables: name the files that compose reads plainly"));
    }
    // Git repositories, OCI artifacts, and whatever else a later compose may fetch.
    let remote = ["git@", "github.com/", "gitlab.com/", "bitbucket.org/"];
    if written.contains(':') || written.contains('#') || remote.iter().any(|start| written.starts_with(start))
    {
        return Err(refuse(
            "is not on this host: the files that compose reads must lie in the tenant's directory",
        ));
    }
    if written.starts_with(['/', '~', '\\']) {
        return Err(refuse("is absolute: name it relative to the tenant's directory"));
    }
    let mut parts: Vec<&str> = folder.split('/').filter(|part| !part.is_empty()).collect();
    for part in written.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop().ok_or_else(|| refuse("leaves the tenant's directory"))?;
            }
            other => parts.push(other),
        }
    }
    RelativePath::parse(parts.join("/")).map_err(|error| refuse(&error.to_string()))
}

#[cfg(test)]
mod tests;
