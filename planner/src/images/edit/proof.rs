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

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    const BEFORE: &str = "image: a # c\nb: c\n---\nd: {image: 'e'}\n";

    fn proved(range: Range<usize>, text: &str, meant: &[(usize, &str)]) -> Result<String, EditError> {
        let placed = scalars::placed(BEFORE.as_bytes())?;
        let mut draft = Draft::of(BEFORE.as_bytes());
        draft.put(range, text);
        let meant = meant.iter().map(|(index, value)| (*index, (*value).to_owned())).collect();
        draft.prove(&placed, &meant).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
    }

    #[test]
    fn what_says_what_is_meant_is_given_out() {
        assert_eq!(proved(7..8, "b", &[(0, "b")]), Ok(BEFORE.replacen(": a", ": b", 1)));
        assert_eq!(proved(0..0, "", &[]).as_deref(), Ok(BEFORE));
    }

    const OTHERWISE: EditError = EditError::ReadsBackOtherwise { line: 1 };
    const HERE: EditError = EditError::Elsewhere { line: 1 };
    const BELOW: EditError = EditError::Elsewhere { line: 2 };
    const LAST: EditError = EditError::Elsewhere { line: 4 };

    #[rstest]
    #[case::another_value_than_meant(7..8, "d", &[(0, "b")], OTHERWISE)]
    #[case::no_yaml(7..8, "'b", &[(0, "b")], OTHERWISE)]
    #[case::a_value_that_is_not_meant(7..8, "b", &[], HERE)]
    #[case::the_value_of_another_image(32..33, "f", &[], LAST)]
    #[case::the_style_of_another_image(7..8, "'a'", &[], HERE)]
    #[case::an_image_more(7..8, "b\nx: {image: a}", &[(0, "b")], LAST)]
    #[case::an_anchor(7..8, "&x b", &[(0, "b")], HERE)]
    #[case::a_tag(7..8, "!!str b", &[(0, "b")], HERE)]
    #[case::a_comment_that_goes(7..12, "b", &[(0, "b")], HERE)]
    #[case::a_comment_that_changes(7..12, "b # d", &[(0, "b")], HERE)]
    #[case::a_space_more(7..8, "b ", &[(0, "b")], HERE)]
    #[case::another_key(7..14, "b # c\ne", &[(0, "b")], BELOW)]
    #[case::a_key_more(7..8, "b\nx: y", &[(0, "b")], BELOW)]
    #[case::the_end_of_the_document(13..13, "...\n---\n", &[], BELOW)]
    fn what_says_anything_else_is_not(
        #[case] range: Range<usize>,
        #[case] text: &str,
        #[case] meant: &[(usize, &str)],
        #[case] error: EditError,
    ) {
        assert_eq!(proved(range, text, meant), Err(error));
    }
}
