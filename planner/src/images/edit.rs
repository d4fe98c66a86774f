//! New values for image scalars, written into a compose file's bytes; every other byte is kept.
//!
//! Each value is written in the style that its scalar has: plain stays plain, quotes stay as they are, a block scalar
//! keeps its header, indentation and line ends. Only what a style can't hold goes into double quotes. A scalar that
//! has its new value already is not touched.
//!
//! Guarantee: the file that comes back was parsed again and says the same, but for the values meant; else nothing
//! comes back. See [`proof`].

mod proof;

use std::collections::BTreeMap;

use super::quote;
use super::scalars::{self, Placed, Style, Unreadable};
use proof::Draft;

/// Why a file can't be edited. Never quotes a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EditError {
    /// The file can't be read.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// There are fewer images than the index says.
    #[error("there is no image number {index} in the file, which has {count}")]
    NoSuchScalar {
        /// The index, counted from 0.
        index: usize,
        /// How many there are.
        count: usize,
    },
    /// The same image is to be set twice.
    #[error("the image at line {line} is to be set twice; set each once")]
    Twice {
        /// The line, counted from 1.
        line: u32,
    },
    /// Something else uses the same anchored scalar and would change with it.
    #[error(
        "the image at line {line} is also used for something else at line {also_at}; write each by itself"
    )]
    AlsoElsewhere {
        /// The line, counted from 1.
        line: u32,
        /// The line of the other use, counted from 1.
        also_at: u32,
    },
    /// A block scalar without text has no line whose indentation could be kept.
    #[error("the image at line {line} is a block without text; write it on one line")]
    EmptyBlock {
        /// The line, counted from 1.
        line: u32,
    },
    /// The value can't be written so that it reads back.
    #[error(
        "the new image at line {line} can't be written so that exactly it is read back; write it on one line"
    )]
    ReadsBackOtherwise {
        /// The line, counted from 1.
        line: u32,
    },
    /// The file would say something else than before beside the images meant.
    #[error("with the new images the file would say something else at line {line}, too")]
    Elsewhere {
        /// The line as it was, counted from 1.
        line: u32,
    },
}

/// Writes new values into a file's image scalars, by their index in [`scalars::image_scalars`].
///
/// # Errors
/// The file can't be read, an index is unknown or named twice, or the result would not say exactly what is meant.
pub fn replace(text: &[u8], edits: &[(usize, String)]) -> Result<Vec<u8>, EditError> {
    let placed = scalars::placed(text)?;
    let mut meant = BTreeMap::new();
    let mut draft = Draft::of(text);
    for (index, value) in wanted(&placed, edits)? {
        let scalar = &placed[index];
        let value = with_line_ends(scalar, value);
        if value != scalar.scalar.value {
            let line = scalar.scalar.line;
            if let Some(also_at) = scalar.scalar.also_at {
                return Err(EditError::AlsoElsewhere { line, also_at });
            }
            let from = first_byte(text, scalar)?;
            let written = quote::keeping(scalar, &value).ok_or(EditError::ReadsBackOtherwise { line })?;
            draft.put(from..scalar.scalar.span.end, &written);
            meant.insert(index, value);
        }
    }
    draft.prove(&placed, &meant)
}

/// The new values in the order of the file.
fn wanted<'a>(
    placed: &[Placed],
    edits: &'a [(usize, String)],
) -> Result<BTreeMap<usize, &'a str>, EditError> {
    let mut wanted = BTreeMap::new();
    for (index, value) in edits {
        let no_such = EditError::NoSuchScalar { index: *index, count: placed.len() };
        let scalar = placed.get(*index).ok_or(no_such)?;
        if wanted.insert(*index, value.as_str()).is_some() {
            return Err(EditError::Twice { line: scalar.scalar.line });
        }
    }
    Ok(wanted)
}

/// The value as it will read: the ends of a block's last lines are a part of what is kept.
fn with_line_ends(placed: &Placed, value: &str) -> String {
    let is_block = matches!(placed.scalar.style, Style::Literal | Style::Folded);
    if !is_block || value.ends_with('\n') {
        return value.to_owned();
    }
    let before = &placed.scalar.value;
    let content = before.trim_end_matches([' ', '\t', '\n']).len();
    let ends = before[content..].find('\n').map_or("", |at| &before[content + at..]);
    format!("{value}{ends}")
}

/// Where the new text begins: of a block scalar the line after the header.
fn first_byte(text: &[u8], placed: &Placed) -> Result<usize, EditError> {
    let span = &placed.scalar.span;
    if !matches!(placed.scalar.style, Style::Literal | Style::Folded) {
        return Ok(span.start);
    }
    let header = text.get(span.clone()).and_then(|block| block.iter().position(|byte| *byte == b'\n'));
    header.map(|at| span.start + at + 1).ok_or(EditError::EmptyBlock { line: placed.scalar.line })
}
