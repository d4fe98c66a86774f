//! The host's local policy: who may ask, and for what. Nothing that an operator sends changes it. What is allowed is read
//! again when the file changes (`host/local_policy.rs`), all else once at the start.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use jiff::Timestamp;
use serde::Deserialize;
use tenantry_api::names::{Directory, Identity, NameError};
use tenantry_planner::policy::{AllowedMount, Feature, Policy, Verification};
use tenantry_protocol::{AGENT_DOMAIN, OPERATOR_DOMAIN};

use crate::files::sha256;

/// How many operations are carried out at once where the file does not say.
pub const DEFAULT_MAX_OPERATIONS: u32 = 4;
const LARGEST_MAX_OPERATIONS: u32 = 64;
const LARGEST_FILE: u64 = 1024 * 1024;
const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";
/// Whoever can speak to one of these has the host.
const USUAL_SOCKETS: [&str; 6] = [
    "/var/run/docker.sock",
    "/run/docker.sock",
    "/var/run/containerd/containerd.sock",
    "/run/containerd/containerd.sock",
    "/var/run/podman/podman.sock",
    "/run/podman/podman.sock",
];

/// The policy file, parsed and checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The file itself.
    pub file: PathBuf,
    /// What the file was like when it was read; absent where the text came from somewhere else.
    pub read_as: Option<FileStamp>,
    /// Who this agent is: what its certificate's name begins with.
    pub identity: Identity,
    /// Where operators connect to.
    pub listen: SocketAddr,
    /// Where metrics and health are served, over plain HTTP. Loopback by default.
    pub metrics_listen: SocketAddr,
    /// The folder of the agent's own records.
    pub state_dir: PathBuf,
    /// Certificates and key.
    pub tls: TlsPaths,
    /// The operators that may ask for anything, by exact name.
    pub operators: Vec<Identity>,
    /// What may be asked for.
    pub allow: Allow,
    /// How many operations are carried out at once.
    pub max_operations: u32,
    /// The engine's address as `DOCKER_HOST` holds it: `unix://` and an absolute path.
    pub docker_host: String,
}

/// What a file is like from outside: another one whenever its content may be another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStamp {
    inode: (u64, u64),
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl FileStamp {
    /// The stamp of a file; `None` where it can't be looked at.
    pub fn of(path: &Path) -> Option<Self> {
        std::fs::metadata(path).ok().as_ref().map(Self::from)
    }

    /// Whether the file's last change was longer ago than this.
    pub fn is_older_than(&self, age: Duration, now: Timestamp) -> bool {
        let last = self.modified.max(self.changed);
        let last = i128::from(last.0) * 1_000_000_000 + i128::from(last.1);
        now.as_nanosecond() - last > age.as_nanos().cast_signed()
    }
}

impl From<&std::fs::Metadata> for FileStamp {
    fn from(seen: &std::fs::Metadata) -> Self {
        Self {
            inode: (seen.dev(), seen.ino()),
            size: seen.len(),
            modified: (seen.mtime(), seen.mtime_nsec()),
            changed: (seen.ctime(), seen.ctime_nsec()),
        }
    }
}

/// Where certificates and key are. All are PEM and are read again when they change.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsPaths {
    /// The authority that signs operators' certificates.
    pub ca: PathBuf,
    /// The agent's own certificate chain.
    pub cert: PathBuf,
    /// Its private key.
    pub key: PathBuf,
}

/// What operators may ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allow {
    /// Tenants may live at or below these directories.
    pub directories: Vec<Directory>,
    /// Images may come from these registries.
    pub registries: Vec<Registry>,
    /// What compose projects may ask of this host beyond ordinary containers.
    pub compose: Policy,
    /// By what else than a look from outside releases may be verified.
    pub verify: Vec<Verification>,
}

/// A registry that images may come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Registry {
    /// Any, written `*`.
    Any,
    /// This one, as an image reference begins: `localhost:5000`, `ghcr.io`, `docker.io`.
    Host(String),
}

/// Why the policy file was refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// It can't be read.
    #[error("{}: can't be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Others than root and the agent's own user could change what is allowed.
    #[error("{}: {problem}; the policy file must belong to root or to the agent's user and be writable by its owner only: `chmod 600 {}`", path.display(), path.display())]
    Exposed {
        /// The file.
        path: PathBuf,
        /// What is wrong with its owner or mode.
        problem: String,
    },
    /// It is not what a policy file looks like.
    #[error("{}: {problem}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What the parser says, with line and column.
        problem: String,
    },
    /// A field's value is refused.
    #[error("{}: {field}: {problem}", path.display())]
    Field {
        /// The file.
        path: PathBuf,
        /// Which field.
        field: String,
        /// What is wrong and what would be right.
        problem: String,
    },
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Document {
    identity: String,
    listen: SocketAddr,
    metrics_listen: Option<SocketAddr>,
    state_dir: PathBuf,
    tls: TlsPaths,
    operators: Vec<String>,
    allow: AllowDocument,
    max_operations: Option<u32>,
    docker_host: Option<String>,
}

/// A further document of the file: what a person has appended to what is allowed.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Appended {
    allow: AppendedAllow,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[derive(Default)]
struct AppendedAllow {
    directories: Vec<String>,
    registries: Vec<String>,
    compose: Vec<String>,
    mounts: Vec<String>,
    verify: Vec<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct AllowDocument {
    directories: Vec<String>,
    registries: Vec<String>,
    #[serde(default)]
    compose: Vec<String>,
    #[serde(default)]
    mounts: Vec<String>,
    #[serde(default)]
    verify: Vec<String>,
}

impl Config {
    /// Reads and checks the policy file. Relative paths in it are seen from the folder that holds it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
        // Seen before it is read: a change in between makes it another one.
        let seen = std::fs::metadata(path).map_err(unreadable)?;
        check_exposure(path, &seen)?;
        let text = std::fs::read_to_string(path).map_err(unreadable)?;
        Ok(Self { read_as: Some(FileStamp::from(&seen)), ..Self::parse(path, &text)? })
    }

    /// Checks a policy file's text; `path` is where it stands, for messages and relative paths.
    pub fn parse(path: &Path, text: &str) -> Result<Self, ConfigError> {
        let malformed = |error: serde_saphyr::Error| ConfigError::Malformed {
            path: path.to_owned(),
            problem: error.to_string(),
        };
        let mut documents = documents(text).into_iter();
        let first = documents.next().unwrap_or_default();
        let mut document: Document = serde_saphyr::from_str(&first).map_err(malformed)?;
        for text in documents {
            let appended: Appended = serde_saphyr::from_str(&text).map_err(malformed)?;
            document.allow.append(appended.allow);
        }
        let checked = document.check(path.parent().unwrap_or(Path::new("/")));
        let config = checked.map_err(|refusal| ConfigError::Field {
            path: path.to_owned(),
            field: refusal.field,
            problem: refusal.problem,
        })?;
        Ok(Self { file: path.to_owned(), ..config })
    }

    /// The one name that the agent's certificate is for.
    pub fn agent_name(&self) -> String {
        format!("{}.{AGENT_DOMAIN}", self.identity)
    }

    /// The names that an operator's certificate may be for, one of them.
    pub fn operator_names(&self) -> Vec<String> {
        self.operators.iter().map(|name| format!("{name}.{OPERATOR_DOMAIN}")).collect()
    }

    /// The path of the engine's socket.
    pub fn docker_socket(&self) -> &Path {
        Path::new(self.docker_host.strip_prefix("unix://").unwrap_or(&self.docker_host))
    }
}

impl Allow {
    /// Names what is allowed: another name whenever that is another. The order of the lines does not count.
    pub fn revision(&self) -> String {
        let mut lines: Vec<String> = self.directories.iter().map(|one| format!("directory {one}")).collect();
        lines.extend(self.registries.iter().map(|one| match one {
            Registry::Any => "registry *".to_owned(),
            Registry::Host(host) => format!("registry {}", host.to_ascii_lowercase()),
        }));
        lines.extend(self.compose.features.iter().map(|one| format!("compose {one}")));
        lines.extend(self.compose.mounts.iter().map(|one| format!("mount {one}")));
        lines.extend(self.verify.iter().map(|one| format!("verify {one}")));
        lines.sort();
        lines.dedup();
        format!("sha256:{}", sha256(lines.join("\n").as_bytes()))
    }

    /// Whether tenants may live in `directory`.
    pub fn directory(&self, directory: &Directory) -> bool {
        self.directories.iter().any(|allowed| directory.is_at_or_below(allowed.as_str()))
    }

    /// Whether a tenant in `directory` could reach the agent's own files, as text that says how.
    pub fn own_files_in(&self, directory: &Directory) -> Option<&str> {
        let overlaps =
            |own: &&String| directory.is_at_or_below(own) || Path::new(own).starts_with(directory.as_str());
        self.compose.private.iter().find(overlaps).map(String::as_str)
    }

    /// Whether an image may come from where `reference` points to.
    pub fn reference(&self, reference: &str) -> bool {
        self.registry(registry_of(reference)) || tenantry_faults::Bug::AnyRegistry.is_seeded()
    }

    /// Whether images may come from the registry `host`.
    pub fn registry(&self, host: &str) -> bool {
        self.registries.iter().any(|allowed| match allowed {
            Registry::Any => true,
            Registry::Host(name) => name.eq_ignore_ascii_case(host),
        })
    }
}

/// The registry that an image reference points to, as Docker reads it: `docker.io` where it names none.
pub fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((first, _)) if first == "localhost" || first.contains(['.', ':']) => first,
        _ => "docker.io",
    }
}

/// The documents of a YAML text, each on the lines where it stands, so that an error names the right one. Those that
/// hold nothing but comments are left out.
fn documents(text: &str) -> Vec<String> {
    let marks = |line: &str| line == "---" || line.starts_with("--- ") || line.starts_with("---\t");
    let mut all: Vec<String> = vec![String::new()];
    for (at, line) in text.lines().enumerate() {
        match all.last_mut().filter(|_| !marks(line)) {
            Some(open) => {
                open.push_str(line);
                open.push('\n');
            }
            None => all.push(format!("{}{line}\n", "\n".repeat(at))),
        }
    }
    let says = |line: &str| {
        let line = line.strip_prefix("---").unwrap_or(line).trim();
        !line.is_empty() && !line.starts_with('#')
    };
    all.retain(|document| document.lines().any(says));
    all
}

impl AllowDocument {
    fn append(&mut self, more: AppendedAllow) {
        self.directories.extend(more.directories);
        self.registries.extend(more.registries);
        self.compose.extend(more.compose);
        self.mounts.extend(more.mounts);
        self.verify.extend(more.verify);
    }
}

struct Refusal {
    field: String,
    problem: String,
}

impl Refusal {
    fn new(field: impl Into<String>, problem: impl std::fmt::Display) -> Self {
        Self { field: field.into(), problem: format!("{problem}") }
    }
}

impl Document {
    fn check(self, folder: &Path) -> Result<Config, Refusal> {
        let identity = Identity::parse(self.identity).map_err(|error| Refusal::new("identity", error))?;
        let max_operations = self.max_operations.unwrap_or(DEFAULT_MAX_OPERATIONS);
        if !(1..=LARGEST_MAX_OPERATIONS).contains(&max_operations) {
            let problem = format!("{max_operations} is not between 1 and {LARGEST_MAX_OPERATIONS}");
            return Err(Refusal::new("maxOperations", problem));
        }
        let operators = names("operators", self.operators, Identity::parse)?;
        if operators.is_empty() {
            return Err(Refusal::new("operators", "is empty: name the operators that may use this host"));
        }
        let directories = names("allow.directories", self.allow.directories, Directory::parse)?;
        if directories.is_empty() {
            let problem = "is empty: name the directories that tenants may live below, for example /srv";
            return Err(Refusal::new("allow.directories", problem));
        }
        let at = |path: PathBuf| if path.is_absolute() { path } else { folder.join(path) };
        let (state_dir, docker_host) = (at(self.state_dir), docker_host(self.docker_host)?);
        let tls = TlsPaths { ca: at(self.tls.ca), cert: at(self.tls.cert), key: at(self.tls.key) };
        let compose = Policy {
            features: words("allow.compose", "feature", Feature::ALL, Feature::parse, self.allow.compose)?,
            mounts: mounts(self.allow.mounts)?,
            sockets: sockets(&docker_host),
            private: [&state_dir, &tls.key].into_iter().map(|path| plain(path)).collect(),
        };
        Ok(Config {
            file: PathBuf::new(),
            read_as: None,
            identity,
            listen: self.listen,
            metrics_listen: self.metrics_listen.unwrap_or_else(|| (Ipv4Addr::LOCALHOST, 0).into()),
            state_dir,
            tls,
            operators,
            allow: Allow {
                directories,
                registries: registries(self.allow.registries)?,
                compose,
                verify: verifications(self.allow.verify)?,
            },
            max_operations,
            docker_host,
        })
    }
}

fn names<T>(
    field: &str,
    texts: Vec<String>,
    parse: impl Fn(String) -> Result<T, NameError>,
) -> Result<Vec<T>, Refusal> {
    let numbered = texts.into_iter().enumerate();
    numbered.map(|(i, text)| parse(text).map_err(|e| Refusal::new(format!("{field}[{i}]"), e))).collect()
}

fn registries(texts: Vec<String>) -> Result<Vec<Registry>, Refusal> {
    if texts.is_empty() {
        let problem =
            "is empty: name the registries that images may come from, for example ghcr.io, or '*' for any";
        return Err(Refusal::new("allow.registries", problem));
    }
    let numbered = texts.into_iter().enumerate();
    numbered
        .map(|(i, text)| {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | ':' | '[' | ']');
            match text.as_str() {
                "*" => Ok(Registry::Any),
                host if !host.is_empty() && host.chars().all(plain) => Ok(Registry::Host(text)),
                _ => {
                    let problem = format!("{text:?} is not a registry: write its host and port, as image references begin (ghcr.io, localhost:5000), or '*' for any");
                    Err(Refusal::new(format!("allow.registries[{i}]"), problem))
                }
            }
        })
        .collect()
}

/// Words of the policy file, each one of those that there are.
fn words<T: fmt::Display>(
    field: &str,
    kind: &str,
    known: &[T],
    parse: impl Fn(&str) -> Option<T>,
    names: Vec<String>,
) -> Result<Vec<T>, Refusal> {
    let numbered = names.into_iter().enumerate();
    numbered
        .map(|(at, name)| {
            parse(&name).ok_or_else(|| {
                let all: Vec<String> = known.iter().map(ToString::to_string).collect();
                let problem =
                    format!("{name:?} is not a {kind} that can be allowed: these are {}", all.join(", "));
                Refusal::new(format!("{field}[{at}]"), problem)
            })
        })
        .collect()
}

fn verifications(names: Vec<String>) -> Result<Vec<Verification>, Refusal> {
    words("allow.verify", "way to verify", Verification::ALL, Verification::parse, names)
}

fn mounts(texts: Vec<String>) -> Result<Vec<AllowedMount>, Refusal> {
    let numbered = texts.into_iter().enumerate();
    numbered
        .map(|(at, text)| {
            let (path, read_only) = text.strip_suffix(":ro").map_or((text.as_str(), false), |path| (path, true));
            let path = path.trim_end_matches('/');
            let relative = path.strip_prefix('/').unwrap_or_default();
            let normal = relative.split('/').all(|part| !matches!(part, "" | "." | ".."));
            if normal && !relative.contains([':', '\0']) {
                return Ok(AllowedMount { path: path.to_owned(), read_only });
            }
            let problem = format!(
                "{text:?} is not a directory that can be allowed: write an absolute path below /, for example \
                 /mnt/media, or /mnt/media:ro where it may only be read. / itself is never allowed here; HostFiles in \
                 allow.compose lets it be read"
            );
            Err(Refusal::new(format!("allow.mounts[{at}]"), problem))
        })
        .collect()
}

/// Where the engine can be spoken to, under each name that a mount could have for it.
fn sockets(docker_host: &str) -> Vec<String> {
    let own = docker_host.strip_prefix("unix://").unwrap_or(docker_host);
    let real = std::fs::canonicalize(own).ok().and_then(|path| path.to_str().map(str::to_owned));
    let mut all: Vec<String> = USUAL_SOCKETS.map(str::to_owned).into();
    all.extend([own.to_owned()].into_iter().chain(real));
    all.sort();
    all.dedup();
    all
}

/// A path without what says nothing (`.`, `//`), as mounts are compared with it.
fn plain(path: &Path) -> String {
    path.components().collect::<PathBuf>().display().to_string()
}

fn docker_host(text: Option<String>) -> Result<String, Refusal> {
    let text = text.unwrap_or_else(|| DEFAULT_DOCKER_HOST.to_owned());
    match text.strip_prefix("unix://") {
        Some(path) if path.starts_with('/') => Ok(text),
        _ => {
            let problem = format!(
                "{text:?} is not the engine's socket on this host: write unix:// and its absolute path, for example {DEFAULT_DOCKER_HOST}"
            );
            Err(Refusal::new("dockerHost", problem))
        }
    }
}

fn check_exposure(path: &Path, metadata: &std::fs::Metadata) -> Result<(), ConfigError> {
    let own = rustix::process::geteuid().as_raw();
    let problem = if !metadata.is_file() {
        "is not a file".to_owned()
    } else if metadata.len() > LARGEST_FILE {
        "is larger than 1 MiB".to_owned()
    } else if metadata.uid() != 0 && metadata.uid() != own {
        format!("belongs to user {}", metadata.uid())
    } else if metadata.mode() & 0o022 != 0 {
        format!("has mode {:o}, so that others may write to it", metadata.mode() & 0o777)
    } else {
        return Ok(());
    };
    Err(ConfigError::Exposed { path: path.to_owned(), problem })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    const GOOD: &str = "identity: n5
listen: 127.0.0.1:7443
stateDir: state
tls: {ca: ca.crt, cert: /etc/t/agent.crt, key: agent.key}
operators: [main]
allow:
  directories: [/srv]
  registries: ['localhost:5000', docker.io]
";

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(Path::new("/etc/tenantry/agent.yaml"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn a_small_file_is_enough_and_relative_paths_are_seen_from_its_folder() {
        let config = parse(GOOD).unwrap();
        assert_eq!(config.state_dir, Path::new("/etc/tenantry/state"));
        assert_eq!(config.tls.cert, Path::new("/etc/t/agent.crt"));
        assert_eq!(config.max_operations, DEFAULT_MAX_OPERATIONS);
        assert_eq!(config.docker_socket(), Path::new("/var/run/docker.sock"));
        assert!(config.metrics_listen.ip().is_loopback());
        assert_eq!(config.agent_name(), "n5.agent.tenantry.internal");
        assert_eq!(config.operator_names(), ["main.operator.tenantry.internal"]);
    }

    #[test]
    fn a_refusal_names_the_field_and_what_would_be_right() {
        let cases = [
            ("n5", "N5", "identity: identity \"N5\" is not allowed"),
            ("[main]", "[]", "operators: is empty"),
            ("[main]", "[main, '*']", "operators[1]: identity \"*\""),
            ("[/srv]", "[/srv, srv/x]", "allow.directories[1]: directory \"srv/x\" is not absolute"),
            ("[/srv]", "[]", "allow.directories: is empty"),
            (
                "docker.io]",
                "'https://ghcr.io']",
                "allow.registries[1]: \"https://ghcr.io\" is not a registry",
            ),
            (
                "operators:",
                "dockerHost: tcp://1.2.3.4:2375\noperators:",
                "dockerHost: \"tcp://1.2.3.4:2375\"",
            ),
            (
                "registries:",
                "compose: [Privilege]\n  registries:",
                "allow.compose[0]: \"Privilege\" is not a feature that can be allowed: these are Privileged, HostNetwork",
            ),
            (
                "registries:",
                "verify: [Exec, exec]\n  registries:",
                "allow.verify[1]: \"exec\" is not a way to verify that can be allowed: these are Exec",
            ),
            ("registries:", "mounts: [/]\n  registries:", "allow.mounts[0]: \"/\" is not a directory"),
            ("registries:", "mounts: ['/:ro']\n  registries:", "/ itself is never allowed"),
            ("registries:", "mounts: [/mnt, /a/../b]\n  registries:", "allow.mounts[1]"),
            ("registries:", "mounts: [mnt]\n  registries:", "write an absolute path"),
            ("operators:", "maxOperations: 0\noperators:", "maxOperations: 0 is not between 1 and 64"),
            ("operators:", "operaters: []\noperators:", "operaters"),
            ("127.0.0.1:7443", "somewhere", "socket address"),
        ];
        for (old, new, expected) in cases {
            let message = parse(&GOOD.replacen(old, new, 1)).unwrap_err();
            assert!(message.contains(expected), "{new}: {message}");
            assert!(message.starts_with("/etc/tenantry/agent.yaml: "), "{message}");
        }
    }

    #[test]
    fn p13_only_listed_directories_and_registries_are_allowed() {
        let allow = parse(GOOD).unwrap().allow;
        let directory = |text: &str| Directory::parse(text).unwrap();
        assert!(allow.directory(&directory("/srv/acme")) && allow.directory(&directory("/srv")));
        assert!(!allow.directory(&directory("/srv2/acme")) && !allow.directory(&directory("/etc")));
        for good in ["localhost:5000/a:v1", "nginx", "library/nginx:1", "docker.io/x/y", "LOCALHOST:5000/a"] {
            assert!(allow.reference(good), "{good}");
        }
        for bad in ["localhost/a", "ghcr.io/a/b:v1", "localhost:5001/a", "docker.io.evil.example/a"] {
            assert!(!allow.reference(bad), "{bad}");
        }
        let any = parse(&GOOD.replace("docker.io", "'*'")).unwrap().allow;
        assert!(any.reference("ghcr.io/a/b:v1"));
    }

    #[test]
    fn p13_nothing_dangerous_is_granted_unless_it_is_named() {
        let allow = parse(GOOD).unwrap().allow;
        assert_eq!(allow.verify, []);
        let nothing = allow.compose;
        assert_eq!((nothing.features, nothing.mounts), (vec![], vec![]));
        let exec = GOOD.replace("registries:", "verify: [Exec]\n  registries:");
        assert_eq!(parse(&exec).unwrap().allow.verify, [Verification::Exec]);
        let some =
            GOOD.replace("registries:", "compose: [HostPid]\n  mounts: [/mnt/a, '/mnt/b:ro']\n  registries:");
        let some = parse(&some).unwrap().allow.compose;
        assert_eq!(some.features, [Feature::HostPid]);
        let mounts: Vec<(&str, bool)> =
            some.mounts.iter().map(|one| (one.path.as_str(), one.read_only)).collect();
        assert_eq!(mounts, [("/mnt/a", false), ("/mnt/b", true)]);
    }

    #[test]
    fn p13_a_tenant_never_lives_where_the_agents_own_files_are() {
        let text = GOOD.replace("stateDir: state", "stateDir: /srv/.agent/state");
        let allow = parse(&text).unwrap().allow;
        for (directory, own) in
            [("/srv", true), ("/srv/.agent", true), ("/srv/.agent/state/tenants", true), ("/srv/acme", false)]
        {
            let directory = Directory::parse(directory).unwrap();
            assert_eq!(allow.own_files_in(&directory).is_some(), own, "{directory}");
        }
    }

    #[test]
    fn what_a_person_appends_adds_to_what_is_allowed_and_to_nothing_else() {
        let appended = format!(
            "---\n# mine\n{GOOD}# since the move\n--- {{allow: {{compose: [DockerSocket], mounts: [\"/mnt/a/:ro\"]}}}}\n\
             ---\nallow:\n  registries: [ghcr.io]\n---\n# nothing\n"
        );
        let allow = parse(&appended).unwrap().allow;
        assert_eq!(allow.compose.features, [Feature::DockerSocket]);
        assert_eq!(allow.compose.mounts[0].to_string(), "/mnt/a:ro");
        assert!(allow.registry("ghcr.io") && allow.registry("docker.io"));
        assert_eq!(allow.directories, parse(GOOD).unwrap().allow.directories);
        for (more, says) in [
            ("--- {operators: [evil]}", "operators"),
            ("--- {allow: {}, operators: [evil]}", "operators"),
            ("--- {allow: {compose: [Privilege]}}", "allow.compose[0]: \"Privilege\""),
            ("---\nallow:\n  mount: [/x]", "line 11"),
        ] {
            let problem = parse(&format!("{GOOD}{more}")).unwrap_err();
            assert!(problem.contains(says), "{more}: {problem}");
        }
    }

    #[test]
    fn the_revision_names_what_is_allowed_whatever_the_order() {
        let revision = |text: &str| parse(text).unwrap().allow.revision();
        let two = GOOD.replace("registries:", "compose: [HostPid, HostIpc]\n  registries:");
        let turned = two.replace("[HostPid, HostIpc]", "[HostIpc, HostPid]");
        assert_eq!(revision(&two), revision(&turned));
        assert_eq!(revision(GOOD), revision(&GOOD.replace("7443", "7444")));
        for (old, new) in [
            ("[/srv]", "[/srv, /home]"),
            ("docker.io]", "docker.io, ghcr.io]"),
            ("registries:", "mounts: [/mnt]\n  registries:"),
            ("registries:", "verify: [Exec]\n  registries:"),
        ] {
            assert_ne!(revision(GOOD), revision(&GOOD.replace(old, new)), "{new}");
        }
        let read_only = GOOD.replace("registries:", "mounts: ['/mnt:ro']\n  registries:");
        assert_ne!(revision(&read_only), revision(&read_only.replace(":ro", "")));
    }

    #[test]
    fn a_file_that_others_may_write_to_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.yaml");
        std::fs::write(&path, GOOD).unwrap();
        for (mode, good) in [(0o600, true), (0o644, true), (0o660, false), (0o602, false)] {
            std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
            let loaded = Config::load(&path);
            assert_eq!(loaded.is_ok(), good, "{mode:o}: {loaded:?}");
        }
        let message = Config::load(&path).unwrap_err().to_string();
        assert!(message.contains("has mode 602") && message.contains("chmod 600"), "{message}");
    }
}
