//! Which compose files and profiles are in use, as plain compose chooses them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use tenantry_api::names::RelativePath;
use tenantry_planner::env::{EnvFile, Value};
use tenantry_protocol::{ComposeUse, FailureCategory, Place};

use super::choice::{Chosen, candidates, choose, path};
use super::paths::Surroundings;
use super::scan::{Include, Scan, scan};
use super::{Compose, Explained};

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
    /// Folders that paths of included files are seen from.
    pub folders: Vec<RelativePath>,
    /// Compose files that another one names from `/`: compose reads these in the tenant's directory itself.
    pub named_from_root: Vec<RelativePath>,
    /// Whether services have environment files outside of the directory.
    pub env_files_outside: bool,
    /// The project's name that plain compose would choose; absent where only compose itself can tell.
    pub plain_name: Option<String>,
    /// What names the project, where that is not just the folder. Example: `COMPOSE_PROJECT_NAME in .env`.
    pub named_by: Option<String>,
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
    let env_path = RelativePath::env_file();
    let env_bytes = read(&env_path)?;
    let env = env_bytes
        .as_deref()
        .map(EnvFile::parse)
        .transpose()
        .map_err(|error| Explained::new(FailureCategory::ComposeInvalid, format!(".env: {error}")))?;
    let known = Surroundings::new(place.directory.as_str(), env.as_ref());
    let Chosen { files, by } = choose(place, &known, read)?;
    let chosen = place.compose.as_ref().filter(|choice| !choice.files.is_empty());
    let candidates = candidates(by)?;
    if files.is_empty() || read(&files[0])?.is_none() {
        return Ok(None);
    }
    let given =
        place.compose.as_ref().map(|choice| choice.profiles.clone()).filter(|profiles| !profiles.is_empty());
    let by_env = known.setting("COMPOSE_PROFILES")?.unwrap_or_default();
    let by_env = || by_env.split(',').map(str::trim).filter(|p| !p.is_empty()).map(str::to_owned).collect();
    let Followed { scans, folders, named_from_root, env_files_outside } = follow(&files, &known, read)?;
    let compose_files =
        scans.iter().filter(|(_, scan)| scan.is_some()).map(|(path, _)| path.clone()).collect();
    let written = written_name(env.as_ref(), &files, &scans);
    let plain_name = match &written {
        Some((None, _)) => None,
        Some((Some(name), _)) => Some(name.clone()),
        None => Some(normal_name(place.directory.base_name())),
    };
    let plain = chosen.is_none() && given.is_none() && plain_name.as_deref() == Some(place.project.as_str());
    let mut inputs: Vec<RelativePath> = candidates;
    inputs.extend(scans.into_keys());
    inputs.push(env_path);
    inputs.sort();
    inputs.dedup();
    Ok(Some(Discovered {
        files,
        profiles: given.unwrap_or_else(by_env),
        env: env.is_some(),
        compose_files,
        inputs,
        folders,
        named_from_root,
        env_files_outside,
        plain_name,
        named_by: written.map(|(_, by)| by),
        plain,
    }))
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

/// What the compose files lead to.
#[derive(Default)]
struct Followed {
    scans: Scans,
    env_files_outside: bool,
    folders: Vec<RelativePath>,
    named_from_root: Vec<RelativePath>,
}

/// Every file that the model is read from, with what it names. None of them leaves the directory, and none is anything
/// but a plain file, or a symlink to one that stays there. What is no compose file names nothing. Environment files of
/// services may lie elsewhere: the model is read without them.
fn follow(
    files: &[RelativePath],
    known: &Surroundings<'_>,
    read: &impl InputFile,
) -> Result<Followed, Explained> {
    let mut all = Followed::default();
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
        for included in &found.includes {
            open.extend(all.include(&folder, included, &file, known)?);
            // Compose takes the `.env` of the included project, too.
            if let Some(beside) = open.last().map(|(_, own)| own).filter(|own| !own.is_empty()) {
                env_file(path(&format!("{beside}/.env"))?, read, &mut all.scans)?;
            }
        }
        for named in &found.extends {
            let (path, from_root) = known.file(&folder, named, &file)?;
            all.named_from_root.extend(from_root.then(|| path.clone()));
            let own = path.parent().map(String::from).unwrap_or_default();
            open.push((path, own));
        }
        for named in &found.read_files {
            env_file(known.file(&folder, named, &file)?.0, read, &mut all.scans)?;
        }
        for named in &found.env_files {
            match known.file_of_containers(&folder, named, &file)? {
                Some(path) => env_file(path, read, &mut all.scans)?,
                None => all.env_files_outside = true,
            }
        }
        all.scans.insert(file, Some(found));
    }
    Ok(all)
}

impl Followed {
    /// The files of an entry of `include`, each with the folder that its paths are seen from.
    fn include(
        &mut self,
        folder: &str,
        included: &Include,
        by: &RelativePath,
        known: &Surroundings<'_>,
    ) -> Result<Vec<(RelativePath, String)>, Explained> {
        let mut files = Vec::new();
        for named in &included.files {
            let (path, from_root) = known.file(folder, named, by)?;
            self.named_from_root.extend(from_root.then(|| path.clone()));
            files.push(path);
        }
        let own = match (&included.folder, files.first()) {
            (Some(named), _) => known.folder(folder, named, by)?,
            (None, first) => first.and_then(RelativePath::parent),
        };
        self.folders.extend(own.clone());
        let own = own.map(String::from).unwrap_or_default();
        Ok(files.into_iter().map(|file| (file, own.clone())).collect())
    }
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

/// The project's name as the directory itself says it, and where it does; the name is absent where it depends on variables:
/// compose tells it then.
fn written_name(
    env: Option<&EnvFile>,
    files: &[RelativePath],
    scans: &Scans,
) -> Option<(Option<String>, String)> {
    const KEY: &str = "COMPOSE_PROJECT_NAME";
    let by_env = format!("{KEY} in .env");
    match env.and_then(|env| env.get(KEY)).map(|value| (value, value.literal())) {
        Some((Value::Dynamic(_), _)) => return Some((None, by_env)),
        Some((_, Some(name))) if !name.is_empty() => return Some((Some(name.to_owned()), by_env)),
        _ => {}
    }
    files.iter().rev().find_map(|file| {
        let name = scans.get(file)?.as_ref()?.name.clone()?;
        Some((Some(name).filter(|name| !name.contains('$')), format!("name in {file}")))
    })
}

/// A folder's name as compose makes a project's name of it.
fn normal_name(folder: &str) -> String {
    let kept = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_');
    let name: String = folder.to_lowercase().chars().filter(kept).collect();
    name.trim_start_matches(['-', '_']).to_owned()
}

#[cfg(test)]
mod tests;
