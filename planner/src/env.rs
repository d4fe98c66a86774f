//! `.env` patching, exact to the byte (P7): the wanted keys are set, every other byte stays.
//!
//! The grammar is that of compose's own parser ([`scan`]). Guarantees: keys that already have the wanted value keep
//! their line's bytes; of duplicate keys all are set; a key's quoting style is kept where it can hold the value, else
//! the least quoting that can is used ([`quote`]); an absent key is appended on a line of its own with the file's
//! line ending. The result is parsed again before it is given out, so that a value which could not be written
//! exactly is refused, never approximated. Errors name keys and lines, never values.
//!
//! Caveat: a value that depends on other variables (`${X}`) is not a fixed string, so it never counts as wanted;
//! patching its key replaces it by the literal value.

mod filled;
mod quote;
mod scan;

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

use tenantry_api::names::EnvKey;
use tenantry_protocol::{EnvKeyState, EnvValue};

pub use filled::{Unfilled, filled};
use scan::{Declared, Statement};

/// The longest `.env` that is read, in bytes: a hundred times the largest seen.
pub const FILE_LIMIT: usize = 1024 * 1024;
/// The longest value that is written, in bytes: half of what Linux takes as one environment string of a process.
pub const VALUE_LIMIT: usize = 64 * 1024;

/// Why a `.env` can't be read or patched. Never quotes a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    /// The file is too long.
    #[error(".env is {size} bytes long; at most {FILE_LIMIT} are read")]
    TooLarge {
        /// The file's length in bytes.
        size: usize,
    },
    /// Compose itself can't read the file.
    #[error(".env line {line}: {problem}")]
    Unreadable {
        /// The line, counted from 1.
        line: usize,
        /// What is wrong and what would be right.
        problem: &'static str,
    },
    /// The same key is wanted twice.
    #[error("{name} is to be set twice; name each variable once")]
    Twice {
        /// The key.
        name: EnvKey,
    },
    /// The value is too long.
    #[error("the value for {name} is {size} bytes long; at most {VALUE_LIMIT} can be set")]
    ValueTooLong {
        /// The key.
        name: EnvKey,
        /// The value's length in bytes.
        size: usize,
    },
    /// No environment variable can hold a NUL character.
    #[error("the value for {name} holds a NUL character, which no environment variable can hold")]
    Nul {
        /// The key.
        name: EnvKey,
    },
    /// Compose would not read the value back as it is.
    #[error("the value for {name} can't be written to .env so that compose reads back exactly that")]
    Unrepresentable {
        /// The key.
        name: EnvKey,
    },
}

/// What compose reads for a key.
#[derive(Clone, PartialEq, Eq)]
pub enum Value {
    /// A value of exactly these bytes.
    Literal(Vec<u8>),
    /// A value that depends on other variables, as it is written.
    Dynamic(Vec<u8>),
    /// The key stands alone, without `=`: its value comes from compose's own environment, if at all.
    Inherited,
}

impl Value {
    /// The text, if it is fixed and valid UTF-8.
    pub fn literal(&self) -> Option<&str> {
        match self {
            Self::Literal(bytes) => std::str::from_utf8(bytes).ok(),
            Self::Dynamic(_) | Self::Inherited => None,
        }
    }

    fn is(&self, wanted: &str) -> bool {
        matches!(self, Self::Literal(bytes) if bytes == wanted.as_bytes())
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Literal(bytes) => write!(f, "Literal({} bytes)", bytes.len()),
            Self::Dynamic(_) => f.write_str("Dynamic"),
            Self::Inherited => f.write_str("Inherited"),
        }
    }
}

/// A `.env` as compose reads it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct EnvFile {
    values: BTreeMap<String, Value>,
    /// Every assignment as it stands, in the file's order: a value sees those above it.
    assigned: Vec<(String, Value)>,
}

impl EnvFile {
    /// Reads a whole `.env`.
    ///
    /// # Errors
    /// [`EnvError::TooLarge`] and [`EnvError::Unreadable`]: compose could not read it either.
    pub fn parse(bytes: &[u8]) -> Result<Self, EnvError> {
        let mut values = BTreeMap::new();
        let mut assigned = Vec::new();
        for statement in scan::scan(bytes)? {
            let key = String::from_utf8_lossy(&bytes[statement.key]).into_owned();
            match statement.declared {
                // Compose leaves what it had before when its own environment lacks the key.
                Declared::Bare => {
                    values.entry(key).or_insert(Value::Inherited);
                }
                Declared::Assigned { value, .. } => {
                    assigned.push((key.clone(), value.clone()));
                    values.insert(key, value);
                }
            }
        }
        Ok(Self { values, assigned })
    }

    /// What compose reads for a key: of duplicates the last.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.values.get(name)
    }

    /// The text that compose makes of each key, where `given` is what compose itself is run with: a value that depends on
    /// others is put together from those and from the lines above it, as compose does. Keys that the file assigns nothing
    /// are not among them.
    pub fn settled(&self, given: &BTreeMap<String, String>) -> BTreeMap<String, Result<String, Unfilled>> {
        let mut above: BTreeMap<String, Result<String, Unfilled>> = BTreeMap::new();
        for (key, value) in &self.assigned {
            let known =
                |name: &str| given.get(name).or_else(|| above.get(name)?.as_ref().ok()).map(String::as_str);
            let text = match value {
                Value::Literal(bytes) => text(bytes).map(str::to_owned),
                Value::Dynamic(bytes) => text(bytes).and_then(|text| filled(text, &known)),
                Value::Inherited => continue,
            };
            above.insert(key.clone(), text);
        }
        above
    }

    /// Every key that is set or named.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.values.keys().map(String::as_str)
    }

    /// How a key stands to what is wanted, without its value.
    pub fn key_state(&self, wanted: &EnvValue) -> EnvKeyState {
        let value = self.get(wanted.name.as_str());
        EnvKeyState {
            name: wanted.name.clone(),
            present: value.is_some_and(|value| *value != Value::Inherited),
            as_wanted: value.is_some_and(|value| value.is(&wanted.value)),
            by_default: false,
            reaches: None,
        }
    }
}

fn text(bytes: &[u8]) -> Result<&str, Unfilled> {
    std::str::from_utf8(bytes).map_err(|_| Unfilled::NoText)
}

/// A patched `.env`.
#[derive(Clone, PartialEq, Eq)]
pub struct Patched {
    /// The whole file.
    pub bytes: Vec<u8>,
    /// Keys that had another value.
    pub changed: Vec<EnvKey>,
    /// Keys that were absent.
    pub appended: Vec<EnvKey>,
}

impl fmt::Debug for Patched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Patched")
            .field("bytes", &self.bytes.len())
            .field("changed", &self.changed)
            .field("appended", &self.appended)
            .finish()
    }
}

/// Sets keys in a `.env` and keeps every other byte. `bytes` is empty where there is no `.env` yet.
///
/// # Errors
/// The file can't be read by compose, or a value can't be written so that compose reads it back exactly.
pub fn patch(bytes: &[u8], values: &[EnvValue]) -> Result<Patched, EnvError> {
    let statements = scan::scan(bytes)?;
    let mut edits: Vec<(Range<usize>, Vec<u8>)> = Vec::new();
    let mut patched = Patched { bytes: Vec::new(), changed: Vec::new(), appended: Vec::new() };
    let mut tail = Vec::new();
    for (at, wanted) in values.iter().enumerate() {
        check(wanted, &values[..at])?;
        let mut own = statements.iter().filter(|s| &bytes[s.key.clone()] == wanted.name.as_str().as_bytes());
        let mut found = false;
        let before = edits.len();
        own.by_ref().for_each(|statement| {
            found = true;
            edits.extend(edit(bytes, statement, &wanted.value));
        });
        if !found {
            patched.appended.push(wanted.name.clone());
            tail.extend_from_slice(wanted.name.as_str().as_bytes());
            tail.push(b'=');
            tail.extend_from_slice(&quote::fresh(&wanted.value));
            tail.extend_from_slice(line_ending(bytes));
        } else if edits.len() > before {
            patched.changed.push(wanted.name.clone());
        }
    }
    patched.bytes = apply(bytes, edits, &tail);
    verify(&patched.bytes, values)?;
    others_stay(bytes, &patched.bytes, values)?;
    Ok(patched)
}

fn check(wanted: &EnvValue, earlier: &[EnvValue]) -> Result<(), EnvError> {
    let name = wanted.name.clone();
    if earlier.iter().any(|other| other.name == name) {
        return Err(EnvError::Twice { name });
    }
    if wanted.value.len() > VALUE_LIMIT {
        return Err(EnvError::ValueTooLong { name, size: wanted.value.len() });
    }
    if wanted.value.contains('\0') {
        return Err(EnvError::Nul { name });
    }
    Ok(())
}

/// What replaces what, so that one statement has the wanted value; nothing where it has it already.
fn edit(bytes: &[u8], statement: &Statement, wanted: &str) -> Option<(Range<usize>, Vec<u8>)> {
    match &statement.declared {
        Declared::Bare => {
            let mut text = vec![b'='];
            text.extend_from_slice(&quote::fresh(wanted));
            Some((statement.key.end..statement.key.end, text))
        }
        Declared::Assigned { value, .. } if value.is(wanted) => None,
        Declared::Assigned { separator, span, style, .. } => {
            let comment_only = *separator < span.start
                && bytes.get(span.start) == Some(&b'#')
                && bytes[span.start - 1] == b' ';
            let replaced =
                if span.is_empty() || comment_only { *separator..*separator } else { span.clone() };
            let rest = bytes[replaced.end..].split(|byte| *byte == b'\n').next().unwrap_or_default();
            let followed = rest.iter().any(|byte| !byte.is_ascii_whitespace());
            Some((replaced, quote::keeping(*style, wanted, followed)))
        }
    }
}

fn apply(bytes: &[u8], mut edits: Vec<(Range<usize>, Vec<u8>)>, tail: &[u8]) -> Vec<u8> {
    edits.sort_by_key(|(range, _)| range.start);
    let mut result = Vec::with_capacity(bytes.len() + tail.len() + 64);
    let mut at = 0;
    for (range, text) in edits {
        result.extend_from_slice(&bytes[at..range.start]);
        result.extend_from_slice(&text);
        at = range.end;
    }
    result.extend_from_slice(&bytes[at..]);
    let has_text = result.strip_prefix(scan::BOM).unwrap_or(&result).last().is_some();
    if !tail.is_empty() && has_text && result.last() != Some(&b'\n') {
        result.extend_from_slice(line_ending(bytes));
    }
    result.extend_from_slice(tail);
    if tenantry_faults::Bug::TidyLineEndings.is_seeded() {
        result.retain(|byte| *byte != b'\r');
    }
    result
}

/// The line ending of the file's last complete line.
fn line_ending(bytes: &[u8]) -> &'static [u8] {
    match bytes.iter().rposition(|byte| *byte == b'\n') {
        Some(at) if at > 0 && bytes[at - 1] == b'\r' => b"\r\n",
        _ => b"\n",
    }
}

/// Reads the result again: every definition of every wanted key must be exactly the wanted value.
fn verify(bytes: &[u8], values: &[EnvValue]) -> Result<(), EnvError> {
    let statements = scan::scan(bytes)?;
    for wanted in values {
        let mut own = statements.iter().filter(|s| &bytes[s.key.clone()] == wanted.name.as_str().as_bytes());
        let holds = |s: &Statement| matches!(&s.declared, Declared::Assigned { value, .. } if value.is(&wanted.value));
        if !own.clone().any(holds) || !own.all(holds) {
            return Err(EnvError::Unrepresentable { name: wanted.name.clone() });
        }
    }
    Ok(())
}

/// A line that is not complete would swallow what is appended after it: all other keys must say what they said.
fn others_stay(before: &[u8], after: &[u8], values: &[EnvValue]) -> Result<(), EnvError> {
    let (before, after) = (EnvFile::parse(before)?, EnvFile::parse(after)?);
    let Some(first) = values.first() else { return Ok(()) };
    let wanted = |key: &str| values.iter().any(|value| value.name.as_str() == key);
    let mut others = before.keys().chain(after.keys()).filter(|key| !wanted(key));
    if others.all(|key| before.get(key) == after.get(key)) {
        return Ok(());
    }
    Err(EnvError::Unrepresentable { name: first.name.clone() })
}

#[cfg(test)]
mod tests;
