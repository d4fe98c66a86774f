//! The proof that an edited file says what is meant, and nothing else.
//!
//! A draft's bytes leave it only through [`Draft::prove`]. Three things are checked, each on what a fresh parse says:
//! the images are as many as before and each has its old or its new value; every other event of the parse is equal,
//! in style, tag and anchor, too; and with the new values cut out of the new file and the old ones out of the old
//! one, the same bytes are left.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use granit_parser::Event;

use super::EditError;
use crate::images::events::{self, Step};
use crate::images::scalars::{self, Placed, Style};

/// An edited file that is not proved yet.
pub struct Draft<'a> {
    before: &'a [u8],
    after: Vec<u8>,
    /// Up to where the old file has been taken over.
    taken: usize,
}

impl<'a> Draft<'a> {
    /// Begins with nothing of a file.
    pub fn of(before: &'a [u8]) -> Self {
        Self { before, after: Vec::with_capacity(before.len()), taken: 0 }
    }

    /// Takes the file over up to a range and puts a text in its place. Ranges come in the order of the file.
    pub fn put(&mut self, range: Range<usize>, text: &str) {
        self.after.extend_from_slice(self.before.get(self.taken..range.start).unwrap_or_default());
        self.after.extend_from_slice(text.as_bytes());
        self.taken = range.end;
    }

    /// Takes over what is left, and gives the file out if it says what is `meant`: new values by index in `placed`.
    pub fn prove(mut self, placed: &[Placed], meant: &BTreeMap<usize, String>) -> Result<Vec<u8>, EditError> {
        self.after.extend_from_slice(self.before.get(self.taken..).unwrap_or_default());
        let line = meant.keys().next().map_or(1, |index| placed[*index].scalar.line);
        // What the new bytes do to the file is the edit's doing, not the file's.
        let again = scalars::placed(&self.after).map_err(|_| EditError::ReadsBackOtherwise { line })?;
        values_are_meant(placed, &again, meant)?;
        self.other_events_stay(placed, &again, meant)?;
        let kept = |bytes, of: &[Placed]| without(bytes, of, meant);
        if kept(self.before, placed) != kept(&self.after, &again) {
            return Err(EditError::Elsewhere { line });
        }
        Ok(self.after)
    }

    fn other_events_stay(
        &self,
        placed: &[Placed],
        again: &[Placed],
        meant: &BTreeMap<usize, String>,
    ) -> Result<(), EditError> {
        let (_, mut old) = events::steps(self.before)?;
        let (_, mut new) = events::steps(&self.after)?;
        let (old_places, new_places) = (places(placed, meant), places(again, meant));
        loop {
            match (old.next().transpose()?, new.next().transpose()?) {
                (None, None) => return Ok(()),
                (Some(old), Some(new)) => {
                    let meant = (is_among(&old_places, &old), is_among(&new_places, &new));
                    let same = match meant {
                        (false, false) => old.event == new.event,
                        (true, true) => differ_in_value_alone(&old.event, &new.event),
                        _ => false,
                    };
                    if !same {
                        return Err(EditError::Elsewhere { line: old.line });
                    }
                }
                (old, _) => return Err(EditError::Elsewhere { line: old.map_or(1, |old| old.line) }),
            }
        }
    }
}

fn values_are_meant(
    before: &[Placed],
    after: &[Placed],
    meant: &BTreeMap<usize, String>,
) -> Result<(), EditError> {
    for (index, old) in before.iter().enumerate() {
        let (old, new) = (&old.scalar, after.get(index).map(|new| &new.scalar));
        let line = old.line;
        let wanted = meant.get(&index).unwrap_or(&old.value);
        let is_quoted = |new: Style| {
            new == Style::DoubleQuoted && matches!(old.style, Style::Plain | Style::SingleQuoted)
        };
        let as_meant = |value: &str, style: Style| {
            value == wanted && (style == old.style || meant.contains_key(&index) && is_quoted(style))
        };
        match new {
            Some(new) if as_meant(&new.value, new.style) => {}
            _ if meant.contains_key(&index) => return Err(EditError::ReadsBackOtherwise { line }),
            _ => return Err(EditError::Elsewhere { line }),
        }
    }
    let more = before.len() != after.len();
    let line = before.last().map_or(1, |last| last.scalar.line);
    if more { Err(EditError::Elsewhere { line }) } else { Ok(()) }
}

/// Where the parser says that the scalars which are meant begin.
fn places(placed: &[Placed], meant: &BTreeMap<usize, String>) -> BTreeSet<usize> {
    meant.keys().filter_map(|index| placed.get(*index)).map(|placed| placed.text).collect()
}

fn is_among(places: &BTreeSet<usize>, step: &Step<'_>) -> bool {
    matches!(step.event, Event::Scalar(..)) && places.contains(&step.span.start)
}

/// Styles are compared with the values.
fn differ_in_value_alone(old: &Event<'_>, new: &Event<'_>) -> bool {
    match (old, new) {
        (Event::Scalar(_, _, old_anchor, old_tag), Event::Scalar(_, _, new_anchor, new_tag)) => {
            old_anchor == new_anchor && old_tag == new_tag
        }
        _ => false,
    }
}

/// A file's bytes between the scalars that are meant.
fn without<'b>(bytes: &'b [u8], placed: &[Placed], meant: &BTreeMap<usize, String>) -> Vec<&'b [u8]> {
    let mut left = Vec::with_capacity(meant.len() + 1);
    let mut at = 0;
    for span in meant.keys().filter_map(|index| placed.get(*index)).map(|placed| &placed.scalar.span) {
        left.push(bytes.get(at..span.start).unwrap_or_default());
        at = span.end;
    }
    left.push(bytes.get(at..).unwrap_or_default());
    left
}
