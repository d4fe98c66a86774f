//! Validated names: what the strings of a resource or of a request are parsed into, once.
//!
//! The API server checks the same shapes with CEL; the agent checks them again by decoding requests into
//! these types, because a compromised operator passes by the API server's checks.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A name that was refused: what it was meant to be, and why it can't be that.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} {shown} {problem}")]
pub struct NameError {
    kind: &'static str,
    shown: String,
    problem: String,
}

impl NameError {
    fn new(kind: &'static str, text: &str, problem: impl Into<String>) -> Self {
        let shown = crate::conditions::bounded(&format!("{text:?}"), 80);
        Self { kind, shown, problem: problem.into() }
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $check:path) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks a text and takes it as this name.
            pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
                let text = text.into();
                $check(&text).map(|()| Self(text))
            }

            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        /// Maps by such names are asked by any text.
        impl std::borrow::Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = NameError;
            fn try_from(text: String) -> Result<Self, NameError> {
                Self::parse(text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

mod probe;

pub use probe::{Argv, LoopbackAddress, LoopbackUrl};

name!(
    /// A compose project's name: lower case letters, digits, `-` and `_`, starting with a letter or digit, at most 63.
    ProjectName, project
);
name!(
    /// A service's name as compose allows it: letters, digits, `.`, `_` and `-`, at most 128.
    ServiceName, service
);
name!(
    /// A volume's name in a compose file: letters, digits, `.`, `_` and `-`, at most 128.
    VolumeName, service
);
name!(
    /// An image tag: letters, digits, `_`, `.` and `-`, starting with a letter, digit or `_`, at most 128.
    ImageTag, image_tag
);
name!(
    /// A variable that may be patched in `.env`. Those that steer compose, Docker or the loader are refused.
    EnvKey, env_key
);
name!(
    /// A path of a file beneath the tenant's directory: relative, normal, without `..`, at most 1,024 bytes.
    RelativePath, relative_path
);
name!(
    /// The tenant's directory: absolute, normal, at most 1,024 bytes, not a system directory.
    Directory, directory
);
name!(
    /// An agent's identity: a DNS label, which its certificate's one name begins with.
    Identity, dns_label
);
name!(
    /// An operation's id: letters, digits and `-`, at most 64; also a folder's name on the host.
    OperationId, operation_id
);
name!(
    /// A Tenant's UID, as the API server gave it: hexadecimal digits and `-`, at most 64.
    TenantUid, tenant_uid
);
name!(
    /// A SHA-256 in lower-case hexadecimal digits, without prefix.
    Sha256, sha256
);

/// A file or folder of the tenant's own. A trailing `/` is allowed and means the same.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ProtectedPath(RelativePath);

impl ProtectedPath {
    /// Checks a text and takes it as a protected path.
    pub fn parse(text: impl Into<String>) -> Result<Self, NameError> {
        let text = text.into();
        RelativePath::parse(text.strip_suffix('/').unwrap_or(&text)).map(Self)
    }

    /// The path without a trailing `/`.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }

    /// Whether `path` is this path or lies below it. `data2` does not lie below `data`.
    pub fn covers(&self, path: &RelativePath) -> bool {
        path.is_at_or_below(&self.0)
    }

    /// Whether a write to `path` could touch what is protected: at, below, or a file where a folder above should be.
    pub fn conflicts_with(&self, path: &RelativePath) -> bool {
        self.covers(path) || self.0.is_at_or_below(path)
    }
}

impl TryFrom<String> for ProtectedPath {
    type Error = NameError;
    fn try_from(text: String) -> Result<Self, NameError> {
        Self::parse(text)
    }
}

impl From<ProtectedPath> for String {
    fn from(path: ProtectedPath) -> String {
        path.0.into()
    }
}

impl fmt::Display for ProtectedPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl RelativePath {
    /// The project's `.env`.
    pub fn env_file() -> Self {
        Self(".env".to_owned())
    }

    /// Whether this path is `other` or lies below it.
    pub fn is_at_or_below(&self, other: &Self) -> bool {
        self.0.strip_prefix(other.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }

    /// The path's last component.
    pub fn file_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// The folder that holds it, or `None` directly beneath the tenant's directory.
    pub fn parent(&self) -> Option<Self> {
        self.0.rsplit_once('/').map(|(parent, _)| Self(parent.to_owned()))
    }
}

impl Directory {
    /// The directory's last component, which plain compose derives a project's name from.
    pub fn base_name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }

    /// Whether this directory is `other` or lies below it.
    pub fn is_at_or_below(&self, other: &str) -> bool {
        let other = other.trim_end_matches('/');
        self.0.strip_prefix(other).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    }
}

fn shaped(
    kind: &'static str,
    text: &str,
    limit: usize,
    first: impl Fn(char) -> bool,
    rest: impl Fn(char) -> bool,
    rule: &str,
) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::new(kind, text, format!("is empty: {rule}")));
    }
    if text.len() > limit {
        return Err(NameError::new(kind, text, format!("is longer than {limit} characters")));
    }
    let mut letters = text.chars();
    if letters.next().is_some_and(first) && letters.all(rest) {
        return Ok(());
    }
    Err(NameError::new(kind, text, format!("is not allowed: {rule}")))
}

fn lower_alphanumeric(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit()
}

fn project(text: &str) -> Result<(), NameError> {
    let rule = "use lower case letters, digits, '-' and '_', starting with a letter or digit";
    let rest = |c: char| lower_alphanumeric(c) || c == '-' || c == '_';
    shaped("project", text, 63, lower_alphanumeric, rest, rule)
}

fn service(text: &str) -> Result<(), NameError> {
    let rule = "use letters, digits, '.', '_' and '-', starting with a letter or digit";
    let rest = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-');
    shaped("service", text, 128, |c| c.is_ascii_alphanumeric(), rest, rule)
}

fn image_tag(text: &str) -> Result<(), NameError> {
    let rule =
        "use letters, digits, '_', '.' and '-', starting with a letter, digit or '_', for example v2.10.3";
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    shaped("image tag", text, 128, word, |c| word(c) || c == '.' || c == '-', rule)
}

fn env_key(text: &str) -> Result<(), NameError> {
    let rule = "use letters, digits and '_', not starting with a digit";
    let first = |c: char| c.is_ascii_alphabetic() || c == '_';
    shaped("variable", text, 128, first, |c| c.is_ascii_alphanumeric() || c == '_', rule)?;
    let steering = ["COMPOSE_", "DOCKER_", "LD_"].iter().any(|prefix| text.starts_with(prefix));
    if steering || text == "PATH" || text == "HOME" {
        let problem = "steers compose, Docker or the loader itself, so it is never patched";
        return Err(NameError::new("variable", text, problem));
    }
    Ok(())
}

/// The folder beneath a tenant's directory that belongs to the agent.
pub const AGENT_FOLDER: &str = ".tenantry";

fn relative_path(text: &str) -> Result<(), NameError> {
    let refuse = |problem: &str| Err(NameError::new("path", text, problem));
    if text.is_empty() {
        return refuse("is empty: name a file beneath the tenant's directory");
    }
    if text.len() > 1_024 {
        return refuse("is longer than 1024 bytes");
    }
    if text.starts_with('/') {
        return refuse("is absolute: write it relative to the tenant's directory");
    }
    if text.chars().any(char::is_control) {
        return refuse("holds a control character");
    }
    for component in text.split('/') {
        match component {
            "" => return refuse("has an empty component: write it without '//' and without a trailing '/'"),
            "." | ".." => return refuse("has a '.' or '..' component: write the plain path"),
            long if long.len() > 255 => return refuse("has a component longer than 255 bytes"),
            _ => {}
        }
    }
    if text.split('/').next() == Some(AGENT_FOLDER) {
        return refuse("lies in the agent's own folder");
    }
    Ok(())
}

fn directory(text: &str) -> Result<(), NameError> {
    let refuse = |problem: &str| Err(NameError::new("directory", text, problem));
    let Some(relative) = text.strip_prefix('/') else {
        return refuse("is not absolute: write it from '/', for example /srv/acme");
    };
    if let Err(error) = relative_path(relative) {
        return refuse(&error.problem);
    }
    let system = ["proc", "sys", "dev", "run", "boot"];
    if relative.split('/').next().is_some_and(|top| system.contains(&top)) {
        return refuse("lies in a system directory");
    }
    Ok(())
}

fn dns_label(text: &str) -> Result<(), NameError> {
    let rule = "use lower case letters, digits and '-', not at either end";
    shaped("identity", text, 63, lower_alphanumeric, |c| lower_alphanumeric(c) || c == '-', rule)?;
    if text.ends_with('-') {
        return Err(NameError::new("identity", text, format!("is not allowed: {rule}")));
    }
    Ok(())
}

fn operation_id(text: &str) -> Result<(), NameError> {
    let rest = |c: char| c.is_ascii_alphanumeric() || c == '-';
    shaped("operation id", text, 64, |c| c.is_ascii_alphanumeric(), rest, "use letters, digits and '-'")
}

fn tenant_uid(text: &str) -> Result<(), NameError> {
    let rest = |c: char| c.is_ascii_hexdigit() || c == '-';
    shaped("tenant uid", text, 64, |c| c.is_ascii_hexdigit(), rest, "use hexadecimal digits and '-'")
}

fn sha256(text: &str) -> Result<(), NameError> {
    let hex = |c: char| c.is_ascii_digit() || matches!(c, 'a'..='f');
    if text.len() == 64 && text.chars().all(hex) {
        return Ok(());
    }
    Err(NameError::new("sha256", text, "is not 64 lower-case hexadecimal digits"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: fmt::Debug>(result: Result<T, NameError>) -> String {
        result.unwrap_err().to_string()
    }

    #[test]
    fn a_path_that_could_leave_the_directory_is_refused_with_its_cause() {
        let cases = [
            ("", "is empty"),
            ("/etc/passwd", "is absolute"),
            ("..", "'..'"),
            ("a/../../b", "'..'"),
            ("./a", "'.'"),
            ("a//b", "empty component"),
            ("a/", "trailing"),
            ("a\0b", "control"),
            ("a\nb", "control"),
            (".tenantry/journal", "agent's own"),
        ];
        for (path, cause) in cases {
            let message = refused(RelativePath::parse(path));
            assert!(message.contains(cause), "{path:?}: {message}");
        }
        assert!(refused(RelativePath::parse("a/".repeat(2_500) + "b")).contains("1024"));
        assert!(RelativePath::parse("nginx/conf.d/site.conf").is_ok());
    }

    #[test]
    fn p1_a_protected_folder_does_not_cover_its_prefix_sibling() {
        let data = ProtectedPath::parse("data/").unwrap();
        let path = |text: &str| RelativePath::parse(text).unwrap();
        assert!(data.covers(&path("data")) && data.covers(&path("data/x/y")));
        assert!(!data.covers(&path("data2")) && !data.covers(&path("dat")));
        assert!(ProtectedPath::parse("a/b").unwrap().conflicts_with(&path("a")));
    }

    #[test]
    fn names_that_could_be_read_as_flags_or_commands_are_refused() {
        for bad in ["-f", "--help", "$(id)", "Upper", "", "a b"] {
            assert!(ProjectName::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["", "a b", "--privileged", "-x", ".x", &"x".repeat(129), "v1/2", "v1@sha256"] {
            assert!(ImageTag::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["A=B", "A\nB", "1A", "COMPOSE_FILE", "DOCKER_HOST", "PATH", "LD_PRELOAD", ""] {
            assert!(EnvKey::parse(bad).is_err(), "{bad:?}");
        }
        for bad in ["srv/x", "/", "/srv/../etc", "/srv/", "/proc/self/root", "//srv"] {
            assert!(Directory::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn decoding_checks_as_parsing_does() {
        let decoded: Result<ProjectName, _> = serde_json::from_str("\"--help\"");
        assert!(decoded.unwrap_err().to_string().contains("lower case"));
    }
}
