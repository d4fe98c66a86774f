//! `bundle.yaml`: what it may say, and what each entry is understood as.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use tenantry_api::names::{RelativePath, ServiceName};
use tenantry_protocol::{ChangeRule, Owner};

use super::{BUNDLE_FILE, BundleError, BundleFile, FILE_LIMIT, Sources, TEMPLATE_SUFFIX, path_conflict};
use crate::target::ENV_FILE;

/// The most services, rules, and names in a rule that a bundle may have.
const RULE_LIMIT: usize = 128;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct Document {
    pub(super) files: Vec<FileEntry>,
    #[serde(default)]
    pub(super) services: BTreeMap<String, ServiceEntry>,
    #[serde(default)]
    pub(super) on_change: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct FileEntry {
    source: String,
    destination: Option<String>,
    mode: Option<String>,
    owner: Option<String>,
    sensitive: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct ServiceEntry {
    kind: ServiceKind,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
enum ServiceKind {
    Job,
    Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RuleEntry {
    paths: Vec<String>,
    services: Vec<String>,
    signal: Option<String>,
}

/// A parser's error as one line: its own text shows an excerpt of the file below the first line.
pub(super) fn yaml_error(error: &serde_saphyr::Error) -> BundleError {
    let text = error.to_string();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("can't be read").trim();
    let place = error
        .location()
        .filter(|_| !first.contains("line "))
        .map(|at| format!(" (line {}, column {})", at.line(), at.column()))
        .unwrap_or_default();
    BundleError::yaml(format!("{}{place}", first.trim_start_matches("error: ")))
}

pub(super) fn files(entries: Vec<FileEntry>, sources: &Sources) -> Result<Vec<BundleFile>, BundleError> {
    if entries.is_empty() {
        return Err(BundleError::yaml(
            "files: is empty; name at least one file that the bundle puts on the host",
        ));
    }
    if entries.len() > FILE_LIMIT {
        return Err(BundleError::yaml(format!("files: has {} entries; at most {FILE_LIMIT}", entries.len())));
    }
    let read = |(index, entry): (usize, FileEntry)| {
        file(entry, sources).map_err(|problem| BundleError::yaml(format!("files[{index}].{problem}")))
    };
    let mut files = entries.into_iter().enumerate().map(read).collect::<Result<Vec<_>, _>>()?;
    files.sort_by(|a, b| a.destination.cmp(&b.destination));
    check_collisions(&files)?;
    Ok(files)
}

fn file(entry: FileEntry, sources: &Sources) -> Result<BundleFile, String> {
    let FileEntry { source, destination, mode, owner, sensitive } = entry;
    if source == BUNDLE_FILE {
        return Err(format!("source: {BUNDLE_FILE} itself is not put on a host"));
    }
    if !sources.contains_key(&source) {
        return Err(format!("source: the bundle has no file {source:?}"));
    }
    let template = source.ends_with(TEMPLATE_SUFFIX);
    let destination = destination.unwrap_or_else(|| source.trim_end_matches(TEMPLATE_SUFFIX).to_owned());
    let destination = RelativePath::parse(destination).map_err(|error| format!("destination: {error}"))?;
    let is_env = destination.as_str() == ENV_FILE;
    if is_env && sensitive == Some(false) {
        return Err(
            "sensitive: .env holds secrets, so it is always sensitive; leave the field out".to_owned()
        );
    }
    let default = if is_env { 0o600 } else { 0o644 };
    Ok(BundleFile {
        template,
        mode: mode.map_or(Ok(default), |mode| parse_mode(&mode))?,
        owner: owner.map(|owner| parse_owner(&owner)).transpose()?,
        sensitive: sensitive.unwrap_or(is_env),
        source,
        destination,
    })
}

fn parse_mode(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("0o").unwrap_or(text);
    let octal = (3..=4).contains(&digits.len()).then(|| u32::from_str_radix(digits, 8).ok()).flatten();
    octal.filter(|mode| *mode <= 0o777).ok_or_else(|| {
        format!("mode: {text:?} is not a file's permission bits; write them in octal and quoted, for example \"0644\"")
    })
}

fn parse_owner(text: &str) -> Result<Owner, String> {
    let number = |part: &str| part.parse::<u32>().ok().filter(|id| *id != u32::MAX);
    let parts = text.split_once(':').and_then(|(uid, gid)| Some((number(uid)?, number(gid)?)));
    parts.map(|(uid, gid)| Owner { uid, gid }).ok_or_else(|| {
        format!(
            "owner: {text:?} is not a numeric user and group; write them quoted, for example \"1000:1000\""
        )
    })
}

fn check_collisions(files: &[BundleFile]) -> Result<(), BundleError> {
    let conflict = path_conflict(files.iter().map(|file| &file.destination));
    conflict.map_or(Ok(()), |(_, problem)| Err(BundleError::yaml(format!("files: {problem}; rename one"))))
}

pub(super) fn jobs(services: BTreeMap<String, ServiceEntry>) -> Result<Vec<ServiceName>, BundleError> {
    if services.len() > RULE_LIMIT {
        return Err(BundleError::yaml(format!(
            "services: has {} entries; at most {RULE_LIMIT}",
            services.len()
        )));
    }
    let jobs = services.into_iter().filter(|(_, entry)| entry.kind == ServiceKind::Job);
    jobs.map(|(name, _)| {
        ServiceName::parse(name).map_err(|error| BundleError::yaml(format!("services: {error}")))
    })
    .collect()
}

pub(super) fn rules(entries: Vec<RuleEntry>) -> Result<Vec<ChangeRule>, BundleError> {
    if entries.len() > RULE_LIMIT {
        return Err(BundleError::yaml(format!(
            "onChange: has {} entries; at most {RULE_LIMIT}",
            entries.len()
        )));
    }
    let read = |(index, entry): (usize, RuleEntry)| {
        rule(entry).map_err(|problem| BundleError::yaml(format!("onChange[{index}].{problem}")))
    };
    entries.into_iter().enumerate().map(read).collect()
}

fn rule(entry: RuleEntry) -> Result<ChangeRule, String> {
    if entry.paths.is_empty() || entry.paths.len() > RULE_LIMIT {
        return Err(format!("paths: name from 1 to {RULE_LIMIT} files or folders"));
    }
    if entry.services.is_empty() || entry.services.len() > RULE_LIMIT {
        return Err(format!("services: name from 1 to {RULE_LIMIT} services"));
    }
    let path = |text: String| {
        let plain = text.strip_suffix('/').unwrap_or(&text).to_owned();
        RelativePath::parse(plain).map_err(|error| format!("paths: {error}"))
    };
    let service = |text: String| ServiceName::parse(text).map_err(|error| format!("services: {error}"));
    Ok(ChangeRule {
        paths: entry.paths.into_iter().map(path).collect::<Result<_, _>>()?,
        services: entry
            .services
            .into_iter()
            .map(service)
            .collect::<Result<BTreeSet<_>, _>>()?
            .into_iter()
            .collect(),
        signal: entry.signal.map(|signal| parse_signal(&signal)).transpose()?,
    })
}

/// The signals that make programs read their files again; those that end or stop a program are not among them.
fn parse_signal(text: &str) -> Result<String, String> {
    let name = text.strip_prefix("SIG").unwrap_or(text);
    match name {
        "HUP" | "USR1" | "USR2" | "WINCH" => Ok(format!("SIG{name}")),
        _ => Err(format!("signal: {text:?} is not one of SIGHUP, SIGUSR1, SIGUSR2 and SIGWINCH")),
    }
}
