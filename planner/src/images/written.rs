//! An image reference as a compose file writes it, variables and all, and what of it can be changed.
//!
//! Compose fills in variables before it takes a reference apart, so only what stands outside of them tells the parts:
//! the `:` of `${TAG:-v1}` begins no tag. A part without variables can always be changed, also beside parts that have
//! some. A part that comes out of variables can't: the variable is to be set instead.
//!
//! Caveats: what variables hold is not known here. Where they stand in a name's last part and no tag is written
//! behind, the tag may come out of them ([`Tag::Hidden`]). A `:` before a variable is taken for a tag's, not for a
//! port's, where no `/` follows.

mod pieces;

use super::name::normal_name;
use pieces::Pieces;

/// The longest tag.
const LONGEST_TAG: usize = 128;

/// A part of a reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Part {
    /// As written.
    pub text: String,
    /// The variables that it is made from, each once, in the order of the text; of nested ones all.
    pub variables: Vec<String>,
}

impl Part {
    /// The text, if no variable is in it.
    pub fn literal(&self) -> Option<&str> {
        self.variables.is_empty().then_some(self.text.as_str())
    }
}

/// What is written of a tag.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Tag {
    /// Nothing, and there is none.
    Absent,
    /// A tag behind its `:`.
    Written(Part),
    /// Nothing, but variables at the name's end may hold one.
    Hidden {
        /// These variables.
        variables: Vec<String>,
    },
}

/// An image reference as written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// Registry and path, without tag and digest.
    pub name: Part,
    /// The tag.
    pub tag: Tag,
    /// The digest, without `@`.
    pub digest: Option<Part>,
    /// Whether compose can fill in the variables at all.
    readable: bool,
}

/// What is to be changed, by kustomize's words: what is not given stays, but a new tag drops a digest, and a digest
/// drops a tag that is not given, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// Another name.
    pub new_name: Option<String>,
    /// Another tag.
    pub new_tag: Option<String>,
    /// A digest: `sha256:` and 64 digits, or `sha512:` and 128.
    pub digest: Option<String>,
}

/// Why a reference can't be changed as wanted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CannotChange {
    /// The tag comes from variables.
    #[error("its tag comes from {}; set that with env.patch", list(.variables))]
    TagFromVariables {
        /// These variables.
        variables: Vec<String>,
    },
    /// The name comes from variables.
    #[error("its name comes from {}; set that with env.patch", list(.variables))]
    NameFromVariables {
        /// These variables.
        variables: Vec<String>,
    },
    /// The digest comes from variables.
    #[error("its digest comes from {}; set that with env.patch", list(.variables))]
    DigestFromVariables {
        /// These variables.
        variables: Vec<String>,
    },
    /// Compose would refuse the file.
    #[error("it has a '$' that compose can't read; write '$$' for the character, or '${{NAME}}'")]
    Malformed,
    /// What is written is no image.
    #[error("what is written is no image's name")]
    NoReference,
    /// The new name is none.
    #[error("the new name is no image's name; write it in small letters, without tag and digest")]
    BadName,
    /// The new tag is none.
    #[error(
        "the new tag is no tag; it has up to 128 letters, digits, '_', '.' and '-' and begins with none of the last two"
    )]
    BadTag,
    /// The digest is none.
    #[error("the digest is none; write 'sha256:' and 64 digits of 0-9 and a-f")]
    BadDigest,
}

fn list(variables: &[String]) -> String {
    let (noun, names) = (if variables.len() == 1 { "variable" } else { "variables" }, variables.join(", "));
    format!("the {noun} {names}")
}

impl Written {
    /// Takes a reference apart. Every text has parts; whether they are good is told when they are to be changed.
    pub fn parse(value: &str) -> Self {
        let pieces = Pieces::of(value);
        let at = pieces.first('@', 0..value.len());
        let named = at.unwrap_or(value.len());
        let last_part = pieces.last('/', 0..named).map_or(0, |slash| slash + 1);
        let colon = pieces.last(':', last_part..named);
        let part = |range: std::ops::Range<usize>| Part {
            variables: pieces.variables(range.clone()),
            text: value[range].to_owned(),
        };
        let hidden = pieces.variables(last_part..named);
        let tag = match colon {
            Some(colon) => Tag::Written(part(colon + 1..named)),
            None if hidden.is_empty() => Tag::Absent,
            None => Tag::Hidden { variables: hidden },
        };
        Self {
            name: part(0..colon.unwrap_or(named)),
            tag,
            digest: at.map(|at| part(at + 1..value.len())),
            readable: pieces.are_readable(),
        }
    }

    /// The reference with a change made.
    ///
    /// # Errors
    /// A part that is to change comes from variables, what is written is no reference, or what is new is none.
    pub fn with(&self, change: &Change) -> Result<String, CannotChange> {
        change.check()?;
        if !self.readable {
            return Err(CannotChange::Malformed);
        }
        if self.name.literal().is_some_and(|name| normal_name(name).is_none()) {
            return Err(CannotChange::NoReference);
        }
        let name = match &change.new_name {
            Some(_) if !self.name.variables.is_empty() => {
                return Err(CannotChange::NameFromVariables { variables: self.name.variables.clone() });
            }
            Some(name) => name,
            None => &self.name.text,
        };
        let changes_version = change.new_tag.is_some() || change.digest.is_some();
        let (tag, digest) = if changes_version {
            self.version_is_literal()?;
            (change.new_tag.as_deref(), change.digest.as_deref())
        } else {
            (self.tag.text(), self.digest.as_ref().map(|digest| digest.text.as_str()))
        };
        let tag = tag.map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        Ok(format!("{name}{tag}{digest}"))
    }

    /// Tag and digest are replaced together, so both have to be without variables.
    fn version_is_literal(&self) -> Result<(), CannotChange> {
        let variables = match &self.tag {
            Tag::Absent => &[],
            Tag::Written(tag) => tag.variables.as_slice(),
            Tag::Hidden { variables } => variables,
        };
        if !variables.is_empty() {
            return Err(CannotChange::TagFromVariables { variables: variables.to_vec() });
        }
        match &self.digest {
            Some(digest) if !digest.variables.is_empty() => {
                Err(CannotChange::DigestFromVariables { variables: digest.variables.clone() })
            }
            _ => Ok(()),
        }
    }
}

impl Tag {
    fn text(&self) -> Option<&str> {
        match self {
            Self::Written(part) => Some(&part.text),
            Self::Absent | Self::Hidden { .. } => None,
        }
    }
}

impl Change {
    fn check(&self) -> Result<(), CannotChange> {
        if self.new_name.as_deref().is_some_and(|name| normal_name(name).is_none()) {
            return Err(CannotChange::BadName);
        }
        if self.new_tag.as_deref().is_some_and(|tag| !is_tag(tag)) {
            return Err(CannotChange::BadTag);
        }
        if self.digest.as_deref().is_some_and(|digest| !is_digest(digest)) {
            return Err(CannotChange::BadDigest);
        }
        Ok(())
    }
}

fn is_tag(tag: &str) -> bool {
    let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    tag.len() <= LONGEST_TAG
        && tag.starts_with(is_word)
        && tag.chars().all(|c| is_word(c) || ".-".contains(c))
}

fn is_digest(digest: &str) -> bool {
    let (length, digits) = match digest.split_once(':') {
        Some(("sha256", digits)) => (64, digits),
        Some(("sha512", digits)) => (128, digits),
        _ => return false,
    };
    digits.len() == length && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
