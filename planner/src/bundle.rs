//! A bundle: its files, and the `bundle.yaml` that says where they go.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::Deserialize;
use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::{RelativePath, ServiceName};
use tenantry_protocol::{ChangeRule, Owner};

use crate::target::{ENV_FILE, hex};

/// The file of a bundle that describes the others.
pub const BUNDLE_FILE: &str = "bundle.yaml";
/// What a template's name ends with.
pub const TEMPLATE_SUFFIX: &str = ".tera";
/// How a `/` is written in a ConfigMap's key.
pub const KEY_SEPARATOR: &str = "__";
/// The most files that a bundle may have.
pub const FILE_LIMIT: usize = 512;
/// The most bytes that a bundle's files may have together.
pub const SIZE_LIMIT: usize = 8 * 1024 * 1024;
const RULE_LIMIT: usize = 128;

/// Why a bundle can't be used, with the file and the place in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{file}: {problem}")]
pub struct BundleError {
    /// The file.
    pub file: String,
    /// What is wrong and what would be right.
    pub problem: String,
}

impl BundleError {
    fn new(file: &str, problem: impl Into<String>) -> Self {
        Self { file: file.to_owned(), problem: problem.into() }
    }

    fn yaml(problem: impl Into<String>) -> Self {
        Self::new(BUNDLE_FILE, problem)
    }
}

/// A bundle's files as they came from its source: path in the bundle, and bytes.
pub type Sources = BTreeMap<String, Arc<[u8]>>;

/// Which bundle, and which of its versions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleIdentity {
    /// The TemplateBundle's name.
    pub name: String,
    /// SHA-256 over all paths and contents.
    pub digest: String,
}

/// A bundle that has been understood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bundle {
    /// Which.
    pub identity: BundleIdentity,
    /// What is put on the host, sorted by destination.
    pub files: Vec<BundleFile>,
    /// Every file's bytes; those that no entry names can still be included by templates.
    pub sources: Sources,
    /// Services that run once, even if nothing depends on them.
    pub jobs: Vec<ServiceName>,
    /// What is done with services when files of a mounted directory change.
    pub on_change: Vec<ChangeRule>,
}

/// One file that a bundle puts on the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BundleFile {
    /// Its path in the bundle.
    pub source: String,
    /// Where it goes.
    pub destination: RelativePath,
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub owner: Option<Owner>,
    /// Whether content and diffs are never shown.
    pub sensitive: bool,
    /// Rendered, or copied byte for byte.
    pub template: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    files: Vec<FileEntry>,
    #[serde(default)]
    services: BTreeMap<String, ServiceEntry>,
    #[serde(default)]
    on_change: Vec<RuleEntry>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct FileEntry {
    source: String,
    destination: Option<String>,
    mode: Option<String>,
    owner: Option<String>,
    sensitive: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ServiceEntry {
    kind: ServiceKind,
}

#[derive(Clone, Copy, Deserialize, PartialEq, Eq)]
enum ServiceKind {
    Job,
    Service,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RuleEntry {
    paths: Vec<String>,
    services: Vec<String>,
    signal: Option<String>,
}

impl Bundle {
    /// Understands a bundle's files.
    pub fn parse(name: &str, sources: Sources) -> Result<Self, BundleError> {
        check_size(&sources)?;
        let Some(text) = sources.get(BUNDLE_FILE) else {
            return Err(BundleError::yaml("is missing; a bundle needs it to say which files go where"));
        };
        let text = std::str::from_utf8(text).map_err(|_| BundleError::yaml("is not UTF-8 text"))?;
        let document: Document = serde_saphyr::from_str(text).map_err(|error| yaml_error(&error))?;
        let files = files(document.files, &sources)?;
        let jobs = jobs(document.services)?;
        let on_change = rules(document.on_change)?;
        let identity = BundleIdentity { name: name.to_owned(), digest: digest(&sources) };
        Ok(Self { identity, files, sources, jobs, on_change })
    }
}

/// Maps a ConfigMap's key to a path of the bundle: `nginx__site.conf` is `nginx/site.conf`.
pub fn path_of_key(key: &str) -> String {
    key.replace(KEY_SEPARATOR, "/")
}

/// SHA-256 over all paths and contents, each with its length, so that no two bundles can be confused.
pub fn digest(sources: &Sources) -> String {
    let mut hasher = Hasher::new();
    for (path, content) in sources {
        for part in [path.as_bytes(), content] {
            hasher.update((part.len() as u64).to_be_bytes());
            hasher.update(part);
        }
    }
    format!("sha256:{}", hex(&hasher.finalize()))
}

fn check_size(sources: &Sources) -> Result<(), BundleError> {
    if sources.len() > FILE_LIMIT {
        let problem = format!("the bundle has {} files; at most {FILE_LIMIT} are allowed", sources.len());
        return Err(BundleError::yaml(problem));
    }
    let size: usize = sources.values().map(|content| content.len()).sum();
    if size > SIZE_LIMIT {
        let problem =
            format!("the bundle's files have {size} bytes together; at most {SIZE_LIMIT} are allowed");
        return Err(BundleError::yaml(problem));
    }
    for path in sources.keys() {
        RelativePath::parse(path).map_err(|error| BundleError::new(path, error.to_string()))?;
    }
    Ok(())
}

/// A parser's error as one line: its own text shows an excerpt of the file below the first line.
fn yaml_error(error: &serde_saphyr::Error) -> BundleError {
    let text = error.to_string();
    let first = text.lines().find(|line| !line.trim().is_empty()).unwrap_or("can't be read").trim();
    let place = error
        .location()
        .filter(|_| !first.contains("line "))
        .map(|at| format!(" (line {}, column {})", at.line(), at.column()))
        .unwrap_or_default();
    BundleError::yaml(format!("{}{place}", first.trim_start_matches("error: ")))
}

fn files(entries: Vec<FileEntry>, sources: &Sources) -> Result<Vec<BundleFile>, BundleError> {
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

/// The first path that another would hide, also on a file system that folds case or composes characters; with its
/// place in the list and what is wrong.
pub fn path_conflict<'a>(paths: impl Iterator<Item = &'a RelativePath> + Clone) -> Option<(usize, String)> {
    let mut seen: BTreeMap<String, &RelativePath> = BTreeMap::new();
    for (at, path) in paths.clone().enumerate() {
        if let Some(other) = seen.insert(folded(path.as_str()), path) {
            let how =
                if other == path { "twice" } else { "under names that some file systems do not tell apart" };
            return Some((at, format!("{other} and {path} are the same destination {how}")));
        }
    }
    for (at, path) in paths.enumerate() {
        let mut above = path.parent();
        while let Some(folder) = above {
            if let Some(other) = seen.get(&folded(folder.as_str())) {
                return Some((at, format!("{other} is a file, so {path} can't lie beneath it")));
            }
            above = folder.parent();
        }
    }
    None
}

fn folded(path: &str) -> String {
    let composed = icu_normalizer::ComposingNormalizerBorrowed::new_nfkc().normalize(path).into_owned();
    composed.to_lowercase()
}

fn jobs(services: BTreeMap<String, ServiceEntry>) -> Result<Vec<ServiceName>, BundleError> {
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

fn rules(entries: Vec<RuleEntry>) -> Result<Vec<ChangeRule>, BundleError> {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(yaml: &str) -> Sources {
        let files: [(&str, &str); 6] = [
            (BUNDLE_FILE, yaml),
            ("docker-compose.yml.tera", "services: {}"),
            ("nginx/site.conf", "server {}"),
            ("NGINX/site.conf", "server {}"),
            (".env.tera", "A=1"),
            ("a", "a"),
        ];
        files.iter().map(|(path, text)| ((*path).to_owned(), Arc::from(text.as_bytes()))).collect()
    }

    fn problem(yaml: &str) -> String {
        Bundle::parse("hello", sources(yaml)).unwrap_err().to_string()
    }

    #[test]
    fn a_bundle_is_understood_with_its_defaults() {
        let yaml = "files:\n\
                    - source: docker-compose.yml.tera\n\
                    - {source: nginx/site.conf, destination: nginx/conf.d/site.conf, mode: '0640', owner: '101:101'}\n\
                    - source: .env.tera\n\
                    services: {migrate: {kind: Job}, web: {kind: Service}}\n\
                    onChange:\n\
                    - {paths: [nginx/conf.d/], services: [nginx], signal: HUP}\n";
        let bundle = Bundle::parse("hello", sources(yaml)).unwrap();
        let shown: Vec<_> =
            bundle.files.iter().map(|file| (file.destination.as_str(), file.mode, file.template)).collect();
        assert_eq!(
            shown,
            [
                (".env", 0o600, true),
                ("docker-compose.yml", 0o644, true),
                ("nginx/conf.d/site.conf", 0o640, false)
            ]
        );
        assert!(bundle.files[0].sensitive && !bundle.files[1].sensitive);
        assert_eq!(bundle.files[2].owner, Some(Owner { uid: 101, gid: 101 }));
        assert_eq!(bundle.jobs.iter().map(ServiceName::as_str).collect::<Vec<_>>(), ["migrate"]);
        assert_eq!(bundle.on_change[0].signal.as_deref(), Some("SIGHUP"));
        assert_eq!(bundle.on_change[0].paths[0].as_str(), "nginx/conf.d");
    }

    #[rstest::rstest]
    #[case::no_files("files: []", "files: is empty")]
    #[case::unknown_field("files: [{source: a, colour: red}]", "colour")]
    #[case::no_such_source("files: [{source: b}]", "files[0].source: the bundle has no file \"b\"")]
    #[case::the_bundle_file("files: [{source: bundle.yaml}]", "itself")]
    #[case::leaves_the_directory("files: [{source: a, destination: ../a}]", "'..'")]
    #[case::absolute("files: [{source: a, destination: /etc/a}]", "is absolute")]
    #[case::the_agents_own("files: [{source: a, destination: .tenantry/a}]", "agent's own")]
    #[case::twice("files: [{source: a}, {source: nginx/site.conf, destination: a}]", "twice")]
    #[case::case_collision("files: [{source: nginx/site.conf}, {source: NGINX/site.conf}]", "tell apart")]
    #[case::unicode_collision(
        "files: [{source: a, destination: \"caf\\u00e9\"}, {source: nginx/site.conf, destination: \"cafe\\u0301\"}]",
        "tell apart"
    )]
    #[case::file_as_folder(
        "files: [{source: a, destination: x}, {source: nginx/site.conf, destination: x/y}]",
        "beneath"
    )]
    #[case::setuid("files: [{source: a, mode: '4755'}]", "permission bits")]
    #[case::a_name_as_owner("files: [{source: a, owner: 'root:root'}]", "numeric")]
    #[case::env_not_sensitive("files: [{source: .env.tera, sensitive: false}]", "always sensitive")]
    #[case::killing_signal(
        "files: [{source: a}]\nonChange: [{paths: [a], services: [x], signal: SIGKILL}]",
        "SIGHUP"
    )]
    #[case::service_name("files: [{source: a}]\nservices: {'--help': {kind: Job}}", "service")]
    #[case::duplicate_key("files: [{source: a}]\nfiles: [{source: a}]", "duplicate")]
    #[case::not_yaml("files: [", "bundle.yaml")]
    fn a_bundle_yaml_is_refused_with_its_place(#[case] yaml: &str, #[case] cause: &str) {
        let problem = problem(yaml);
        assert!(problem.starts_with("bundle.yaml: ") && problem.contains(cause), "{problem}");
        assert!(!problem.contains('\n'), "{problem}");
    }

    #[test]
    fn a_misspelt_field_is_named_with_its_line() {
        let problem = problem("files:\n- source: a\n  colour: red\n");
        assert!(problem.contains("line 3"), "{problem}");
    }

    #[test]
    fn a_bundle_without_bundle_yaml_says_so() {
        let error = Bundle::parse("hello", Sources::new()).unwrap_err();
        assert_eq!(
            error.to_string(),
            "bundle.yaml: is missing; a bundle needs it to say which files go where"
        );
    }

    #[test]
    fn the_digest_tells_a_moved_boundary_apart() {
        let one = |path: &str, text: &str| Sources::from([(path.to_owned(), Arc::from(text.as_bytes()))]);
        assert_ne!(digest(&one("ab", "c")), digest(&one("a", "bc")));
        assert_eq!(digest(&one("a", "b")), digest(&one("a", "b")));
    }

    #[test]
    fn a_key_of_a_config_map_is_a_path() {
        assert_eq!(path_of_key("nginx__conf.d__site.conf"), "nginx/conf.d/site.conf");
    }

    proptest::proptest! {
        #[test]
        fn p15_no_text_makes_the_reader_panic(text in ".{0,200}") {
            let _ = Bundle::parse("any", sources(&text));
        }
    }
}
