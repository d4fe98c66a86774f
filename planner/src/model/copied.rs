//! Configs and secrets that are written out in the compose files or come from variables. Compose copies them into a
//! container when it starts it and never looks again: they are in no mount, and its own hash of a service leaves them out.
//! Values are kept as hashes alone.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256 as Hasher};

use super::raw::{FileSource, FileUse};
use crate::target::hex;

/// What compose copies into a service's containers, by `config NAME` or `secret NAME`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Copied(BTreeMap<String, Content>);

/// One content, by its hash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
enum Content {
    /// It is known.
    Known(String),
    /// It is a variable's, which compose's model does not tell.
    Variable {
        /// The variable.
        variable: String,
    },
    /// It is one of several, and nobody knows which.
    Doubtful {
        /// What all of them are.
        doubtful: Vec<Content>,
    },
}

impl Content {
    /// Whether it is, or may be, another one. Of a variable that compose does not tell only its name is known.
    fn differs(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Known(one), Self::Known(other))
            | (Self::Variable { variable: one }, Self::Variable { variable: other }) => one != other,
            (Self::Doubtful { doubtful }, other) | (other, Self::Doubtful { doubtful }) => {
                doubtful.iter().any(|one| one.differs(other))
            }
            (Self::Known(_), Self::Variable { .. }) | (Self::Variable { .. }, Self::Known(_)) => false,
        }
    }
}

impl Copied {
    pub(super) fn of(
        configs: &[FileUse],
        config_sources: &BTreeMap<String, FileSource>,
        secrets: &[FileUse],
        secret_sources: &BTreeMap<String, FileSource>,
    ) -> Self {
        let all = [("config", configs, config_sources), ("secret", secrets, secret_sources)];
        let named = all.into_iter().flat_map(|(kind, uses, sources)| {
            uses.iter().filter_map(move |one| {
                let source = one.source.as_deref()?;
                let name = format!("{kind} {source}");
                let content = content(&name, sources.get(source)?)?;
                Some((name, content))
            })
        });
        Self(named.collect())
    }

    /// Whether there is nothing of that kind.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether a content depends on a variable that is not known yet.
    pub fn has_variables(&self) -> bool {
        self.0.values().any(|content| matches!(content, Content::Variable { .. }))
    }

    /// Takes the contents of variables in.
    pub fn resolve(&mut self, variables: &BTreeMap<String, String>) {
        for (name, content) in &mut self.0 {
            if let Content::Variable { variable } = content
                && let Some(value) = variables.get(variable)
            {
                *content = Content::Known(hash(name, value));
            }
        }
    }

    /// What is held where either this or `other` was copied.
    #[must_use]
    pub fn or(mut self, other: &Self) -> Self {
        for (name, content) in &mut self.0 {
            if let Some(other) = other.0.get(name).filter(|other| content.differs(other)) {
                *content = Content::Doubtful { doubtful: vec![content.clone(), other.clone()] };
            }
        }
        self
    }

    /// What is, or may be, otherwise than in `other`, by name.
    pub fn differing<'a>(&'a self, other: &'a Self) -> Vec<&'a str> {
        let names = self.0.keys().chain(other.0.keys().filter(|name| !self.0.contains_key(*name)));
        let differs = |name: &&String| match (self.0.get(*name), other.0.get(*name)) {
            (Some(one), Some(other)) => one.differs(other),
            _ => true,
        };
        names.filter(differs).map(String::as_str).collect()
    }
}

fn content(name: &str, source: &FileSource) -> Option<Content> {
    match (&source.content, &source.environment) {
        (Some(content), _) if !content.is_empty() => Some(Content::Known(hash(name, content))),
        (_, Some(variable)) => Some(Content::Variable { variable: variable.clone() }),
        _ => None,
    }
}

/// Of the name, too, so that equal values can't be told to be equal.
fn hash(name: &str, value: &str) -> String {
    let mut hasher = Hasher::new();
    for part in ["tenantry copied content", name, value] {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part.as_bytes());
    }
    hex(&hasher.finalize())
}

/// The variables that `docker compose config --environment` tells: a line each, in any order, and more for a value of several
/// lines. A line of such a value may look like a variable: of one that is told twice, all that is told is its value.
pub fn variables_told(text: &str) -> BTreeMap<String, String> {
    let mut all: Vec<(String, String)> = Vec::new();
    for line in text.lines() {
        let begins = line.split_once('=').filter(|(name, _)| is_name(name));
        match (begins, all.last_mut()) {
            (Some((name, value)), _) => all.push((name.to_owned(), value.to_owned())),
            (None, Some((_, value))) => {
                value.push('\n');
                value.push_str(line);
            }
            (None, None) => {}
        }
    }
    all.sort();
    let mut told: BTreeMap<String, String> = BTreeMap::new();
    for (name, value) in all {
        told.entry(name).and_modify(|known| known.push_str(&value)).or_insert(value);
    }
    told
}

fn is_name(text: &str) -> bool {
    !text.starts_with(|first: char| first.is_ascii_digit())
        && !text.is_empty()
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}
