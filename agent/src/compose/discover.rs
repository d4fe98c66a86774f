//! Which compose files and profiles are in use, as plain compose chooses them.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::path::Path;

use tenantry_api::names::{NameError, RelativePath};
use tenantry_planner::env::{EnvFile, Value};
use tenantry_protocol::{ComposeUse, FailureCategory, Place};

use super::choice::{Chosen, candidates, choose};
use super::outside::{Outside, OutsideFile, ReadOutside};
use super::paths::{Base, Location, Resolved, Surroundings};
use super::scan::{Include, Named, Scan, scan};
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
    /// What compose reads outside of the directory.
    pub outside: Outside,
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
///
/// Files outside of the tenant's directory are read where the local policy grants it; where it does not, that is told by
/// [`Outside::lacking`], and there is no model.
pub fn inputs(
    place: &Place,
    read: &impl InputFile,
    outside: &impl ReadOutside,
) -> Result<Option<Discovered>, Explained> {
    let env_path = RelativePath::env_file();
    let env_bytes = read(&env_path)?;
    let env = env_bytes
        .as_deref()
        .map(EnvFile::parse)
        .transpose()
        .map_err(|error| Explained::new(FailureCategory::ComposeInvalid, error.to_string()))?;
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
    let Followed { scans, folders, named_from_root, env_files_outside, outside } =
        follow(&files, &known, read, outside)?;
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
        outside,
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
    outside: Outside,
}

/// A compose file that is to be looked through.
struct Open {
    location: Location,
    /// How it was named.
    from_root: bool,
    /// What names it, for people.
    at: String,
    /// The folder that its paths are seen from.
    base: Base,
}

/// What there is to follow files by.
struct Follower<'a, R, O> {
    known: &'a Surroundings<'a>,
    read: &'a R,
    outside: &'a O,
    found: Followed,
}

/// Every file that the model is read from, with what it names. None of them is anything but a plain file, or a symlink to one
/// that stays in the directory; those outside of it are for the policy to grant. What is no compose file names nothing.
/// Environment files of services may lie elsewhere: the model is read without them.
fn follow(
    files: &[RelativePath],
    known: &Surroundings<'_>,
    read: &impl InputFile,
    outside: &impl ReadOutside,
) -> Result<Followed, Explained> {
    let mut follower = Follower { known, read, outside, found: Followed::default() };
    // What a file names is seen from the project's directory; in one that is included or extended, from its own folder.
    let first = |file: &RelativePath| Open {
        location: Location::Inside(file.clone()),
        from_root: false,
        at: String::new(),
        base: known.top(),
    };
    let mut open: Vec<Open> = files.iter().map(first).collect();
    let mut seen = BTreeSet::new();
    while let Some(file) = open.pop() {
        if !seen.insert((file.location.clone(), file.base.clone())) {
            continue;
        }
        if seen.len() > MAX_FILES {
            let problem =
                format!("{}: the compose files include more than {MAX_FILES} others", file.location);
            return Err(Explained::new(FailureCategory::ComposeInvalid, problem));
        }
        open.extend(follower.look_through(file)?);
    }
    Ok(follower.found)
}

impl<R: InputFile, O: ReadOutside> Follower<'_, R, O> {
    /// Looks through a compose file; gives those that it names.
    fn look_through(&mut self, file: Open) -> Result<Vec<Open>, Explained> {
        let Open { location, from_root, at, base } = file;
        let by = location.to_string();
        let content = match &location {
            Location::Inside(path) => (self.read)(path)?,
            Location::Outside(path) => {
                let file = OutsideFile { path: path.clone(), at, compose: true, from_root, text: None };
                self.found.outside.take(file, false, self.outside)?
            }
        };
        let found = scan(&content.unwrap_or_default())
            .map_err(|problem| Explained::new(FailureCategory::ComposeInvalid, format!("{by}: {problem}")))?;
        let mut open = Vec::new();
        for included in &found.includes {
            open.extend(self.include(&base, included, &by)?);
        }
        for named in &found.extends {
            let (location, resolved) = self.compose_file(&base, named, &by)?;
            let (at, from_root) = (named_by(&by, named), resolved.from_root);
            open.push(Open { location, from_root, at, base: resolved.parent() });
        }
        for named in &found.read_files {
            let (location, resolved) = self.known.file(&base, named, &by)?;
            self.found.outside.climbs |= resolved.climbs;
            self.variables(location, named_by(&by, named), resolved.from_root, false)?;
        }
        for named in &found.env_files {
            match self.known.file_of_containers(&base, named, &by)? {
                Some(path) => self.variables(Location::Inside(path), String::new(), false, false)?,
                None => self.found.env_files_outside = true,
            }
        }
        if let Location::Inside(path) = location {
            self.found.scans.insert(path, Some(found));
        }
        Ok(open)
    }

    /// A compose file that another one names.
    fn compose_file(
        &mut self,
        base: &Base,
        named: &Named,
        by: &str,
    ) -> Result<(Location, Resolved), Explained> {
        let (location, resolved) = self.known.file(base, named, by)?;
        self.found.outside.climbs |= resolved.climbs;
        if let Location::Inside(path) = &location {
            self.found.named_from_root.extend(resolved.from_root.then(|| path.clone()));
        }
        Ok((location, resolved))
    }

    /// The files of an entry of `include`, each with the folder that its paths are seen from.
    fn include(&mut self, base: &Base, included: &Include, by: &str) -> Result<Vec<Open>, Explained> {
        let mut files = Vec::new();
        for named in &included.files {
            files.push((named, self.compose_file(base, named, by)?));
        }
        let own = match (&included.folder, files.first()) {
            (Some(named), _) => {
                let folder = self.known.folder(base, named, by)?;
                self.found.outside.climbs |= folder.climbs;
                folder.as_base()
            }
            (None, Some((_, (_, first)))) => first.parent(),
            (None, None) => return Ok(Vec::new()),
        };
        if own.path != self.known.top().path {
            self.folder(&own, included, by)?;
        }
        let open = |(named, (location, resolved)): (&Named, (Location, Resolved))| {
            let (at, from_root) = (named_by(by, named), resolved.from_root);
            Open { location, from_root, at, base: own.clone() }
        };
        Ok(files.into_iter().map(open).collect())
    }

    /// Takes the folder of an included project among those that count. Compose takes the `.env` in it, too.
    fn folder(&mut self, own: &Base, included: &Include, by: &str) -> Result<(), Explained> {
        let refuse = |error: NameError| Explained::new(FailureCategory::PathRefused, error.to_string());
        match self.known.location(&own.path).map_err(refuse)? {
            Location::Inside(path) => self.found.folders.push(path),
            Location::Outside(path) if path.is_empty() => {}
            Location::Outside(path) => self.found.outside.folders.push(path),
        }
        let beside = format!("{}/.env", own.path.trim_end_matches('/'));
        let at = included.files.first().map_or_else(|| by.to_owned(), |named| named_by(by, named));
        let at = format!("{at}, and .env beside it");
        self.variables(self.known.location(&beside).map_err(refuse)?, at, own.from_root, true)
    }

    /// Takes a file of variables or labels among the inputs. Reading it shows that it is a plain file, or not there.
    fn variables(
        &mut self,
        location: Location,
        at: String,
        from_root: bool,
        may_miss: bool,
    ) -> Result<(), Explained> {
        let Followed { scans, outside, .. } = &mut self.found;
        if scans.len() + outside.files.len() > MAX_FILES {
            let problem = format!("{location}: the compose files name more than {MAX_FILES} others");
            return Err(Explained::new(FailureCategory::ComposeInvalid, problem));
        }
        match location {
            Location::Inside(path) => {
                if let Entry::Vacant(place) = scans.entry(path) {
                    (self.read)(place.key())?;
                    place.insert(None);
                }
            }
            Location::Outside(path) => {
                let file = OutsideFile { path, at, compose: false, from_root, text: None };
                outside.take(file, may_miss, self.outside)?;
            }
        }
        Ok(())
    }
}

/// What names a file, for people.
fn named_by(by: &str, named: &Named) -> String {
    format!("{by}: {}", named.key)
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
