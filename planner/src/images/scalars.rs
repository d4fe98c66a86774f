//! Every scalar of a compose file that is the value of a key `image`, with its place.
//!
//! A key counts wherever it stands: in services, in `x-` extensions that services merge, in flow style and JSON, in
//! every document. Where the value is an alias, the scalar that carries the anchor is meant, once for all its
//! aliases. A value that is null is no scalar: there is nothing to be replaced.
//!
//! An anchored scalar may be used for something else, too, which would change with it: [`ImageScalar::also_at`] says
//! where. Within `x-` extensions, which compose itself does not read, an anchor alone is no use of it.

use std::collections::{BTreeMap, HashMap};
use std::ops::Range;

use granit_parser::{Event, ScalarStyle, StructureStyle, Tag};

use super::events::{self, Step};

/// The longest compose file that is read, in bytes: as much as is read of one anywhere.
pub const FILE_LIMIT: usize = 1024 * 1024;
/// The most levels that a file may nest: as many as are read anywhere.
pub const MAX_DEPTH: usize = 64;

/// Why a file's images can't be told. Never quotes the file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// The file is too long.
    #[error("the file is {size} bytes long; at most {FILE_LIMIT} are read")]
    TooLarge {
        /// The file's length in bytes.
        size: usize,
    },
    /// The file is no UTF-8.
    #[error("line {line} is not UTF-8, which compose files have to be")]
    NotText {
        /// The line, counted from 1.
        line: u32,
    },
    /// The file is no YAML.
    #[error("line {line} can't be read as YAML: it is malformed")]
    Malformed {
        /// The line, counted from 1.
        line: u32,
    },
    /// The file nests too deep.
    #[error("line {line} nests too deep: at most {MAX_DEPTH} levels are read")]
    TooDeep {
        /// The line, counted from 1.
        line: u32,
    },
    /// A value could be read, but its place in the file is not certain.
    #[error("line {line} is YAML, but where exactly its value stands can't be told; write it on one line")]
    Unplaced {
        /// The line, counted from 1.
        line: u32,
    },
}

/// How a scalar is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Without quotes.
    Plain,
    /// In `'`.
    SingleQuoted,
    /// In `"`, as in JSON.
    DoubleQuoted,
    /// Lines after `|`.
    Literal,
    /// Lines after `>`.
    Folded,
}

/// The value of a key `image`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ImageScalar {
    /// The bytes of the value: with quotes or block header, without anchor, tag, comment and the last line's end.
    pub span: Range<usize>,
    /// The line of the first byte, counted from 1.
    pub line: u32,
    /// What compose reads, before it fills in variables.
    pub value: String,
    /// How it is written.
    pub style: Style,
    /// The first line that uses the same scalar for something else, by an alias or where it stands.
    pub also_at: Option<u32>,
}

/// A scalar and what has to be known to write another in its place.
#[derive(Clone, Debug)]
pub(super) struct Placed {
    pub scalar: ImageScalar,
    /// Whether it stands within `[…]` or `{…}`, where plain text may hold less.
    pub in_flow: bool,
    /// Of a block scalar: its lines' indentation.
    pub indentation: usize,
    /// Where the parser says it begins: of a block scalar its text.
    pub text: usize,
}

/// Finds the value of every key `image`, in the order of the file.
///
/// # Errors
/// The file is too long, nests too deep, or is no YAML in UTF-8.
pub fn image_scalars(text: &[u8]) -> Result<Vec<ImageScalar>, Unreadable> {
    Ok(placed(text)?.into_iter().map(|placed| placed.scalar).collect())
}

pub(super) fn placed(bytes: &[u8]) -> Result<Vec<Placed>, Unreadable> {
    let (text, steps) = events::steps(bytes)?;
    let mut search = Search::new(text);
    for step in steps {
        search.take(&step?)?;
    }
    let Search { found, elsewhere, .. } = search;
    let shared = |(start, mut placed): (usize, Placed)| {
        placed.scalar.also_at = elsewhere.get(&start).copied();
        placed
    };
    Ok(found.into_iter().map(shared).collect())
}

/// One open mapping or sequence.
struct Level {
    in_flow: bool,
    next: Next,
}

/// What the next node of a level is.
#[derive(Clone, Copy)]
enum Next {
    Item,
    Key,
    Value { of_image: bool },
}

/// A scalar that aliases may stand for.
struct Anchored {
    /// An alias may be a key, too.
    says_image: bool,
    placed: Option<Placed>,
}

struct Search<'a> {
    text: &'a str,
    levels: Vec<Level>,
    /// By anchor; the parser numbers definitions, so that a name which is defined again is another.
    anchored: HashMap<usize, Anchored>,
    found: BTreeMap<usize, Placed>,
    /// By an anchored scalar's first byte: the first line that uses it for something else than an image.
    elsewhere: HashMap<usize, u32>,
    /// Whether the key of the outermost mapping begins with `x-`.
    in_extension: bool,
    /// The byte after the last node.
    behind: usize,
}

impl<'a> Search<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            text,
            levels: Vec::new(),
            anchored: HashMap::new(),
            found: BTreeMap::new(),
            elsewhere: HashMap::new(),
            in_extension: false,
            behind: 0,
        }
    }

    fn take(&mut self, step: &Step<'_>) -> Result<(), Unreadable> {
        let end = step.span.end;
        match &step.event {
            Event::Scalar(value, ..) => {
                let is_outermost_key = matches!(self.levels.as_slice(), [Level { next: Next::Key, .. }]);
                let says_image = value == "image";
                let of_image = self.advance(says_image);
                if is_outermost_key {
                    self.in_extension = value.starts_with("x-");
                }
                self.scalar(step, says_image, of_image)?;
            }
            Event::Alias(id) => {
                let of_image = self.advance(self.anchored.get(id).is_some_and(|scalar| scalar.says_image));
                if let Some(placed) = self.anchored.get(id).and_then(|scalar| scalar.placed.as_ref()) {
                    let start = placed.scalar.span.start;
                    if of_image {
                        // Once: a long text and many aliases would be a bomb.
                        self.found.entry(start).or_insert_with(|| placed.clone());
                    } else {
                        self.elsewhere.entry(start).or_insert(step.line);
                    }
                }
            }
            Event::SequenceStart(style, ..) => self.open(*style, Next::Item),
            Event::MappingStart(style, ..) => self.open(*style, Next::Key),
            Event::SequenceEnd | Event::MappingEnd => {
                self.levels.pop();
            }
            _ => {}
        }
        if !matches!(step.event, Event::SequenceStart(..) | Event::MappingStart(..)) {
            self.behind = self.behind.max(end);
        }
        Ok(())
    }

    fn open(&mut self, style: StructureStyle, next: Next) {
        self.advance(false);
        self.levels.push(Level { in_flow: style == StructureStyle::Flow, next });
    }

    /// Takes one node of the innermost level; says whether it is the value of a key `image`.
    fn advance(&mut self, says_image: bool) -> bool {
        if let [Level { next: Next::Key, .. }] = self.levels.as_slice() {
            self.in_extension = false;
        }
        let Some(level) = self.levels.last_mut() else {
            return false;
        };
        let (next, of_image) = match level.next {
            Next::Item => (Next::Item, false),
            Next::Key => (Next::Value { of_image: says_image }, false),
            Next::Value { of_image } => (Next::Key, of_image),
        };
        level.next = next;
        of_image
    }

    fn scalar(&mut self, step: &Step<'_>, says_image: bool, of_image: bool) -> Result<(), Unreadable> {
        let anchor = step.event.anchor_id();
        if !of_image && anchor.is_none() {
            return Ok(());
        }
        let placed = self.place(step)?;
        if let Some(placed) = &placed {
            let start = placed.scalar.span.start;
            if of_image {
                self.found.insert(start, placed.clone());
            } else if !self.in_extension {
                self.elsewhere.insert(start, placed.scalar.line);
            }
        }
        if let Some(id) = anchor {
            self.anchored.insert(id, Anchored { says_image, placed });
        }
        Ok(())
    }

    /// The place of a scalar's text; nothing where it is null.
    fn place(&self, step: &Step<'_>) -> Result<Option<Placed>, Unreadable> {
        let Event::Scalar(value, style, _, tag) = &step.event else {
            return Ok(None);
        };
        let style = match style {
            ScalarStyle::Plain if step.span.is_empty() || is_null(value, tag.as_deref()) => return Ok(None),
            ScalarStyle::Plain => Style::Plain,
            ScalarStyle::SingleQuoted => Style::SingleQuoted,
            ScalarStyle::DoubleQuoted => Style::DoubleQuoted,
            ScalarStyle::Literal => Style::Literal,
            ScalarStyle::Folded => Style::Folded,
        };
        let is_block = matches!(style, Style::Literal | Style::Folded);
        let span = if is_block { self.block(step)? } else { step.span.clone() };
        // The parser gives a block scalar's line as that of its text.
        let lines = self.text.get(span.start..step.span.start).map_or(0, line_breaks);
        let line = step.line.saturating_sub(u32::try_from(lines).unwrap_or(u32::MAX)).max(1);
        let scalar = ImageScalar { span, line, value: value.clone().into_owned(), style, also_at: None };
        let in_flow = self.levels.last().is_some_and(|level| level.in_flow);
        Ok(Some(Placed { scalar, in_flow, indentation: step.column, text: step.span.start }))
    }

    /// A block scalar's bytes, from its header to its last line that is not blank, without that line's end.
    ///
    /// Between header and text stand only blank lines, and before the header on its line only what [`Self::behind`]
    /// and the node's own properties cover, `:`, `-`, `?` and spaces.
    fn block(&self, step: &Step<'_>) -> Result<Range<usize>, Unreadable> {
        let unplaced = Unreadable::Unplaced { line: step.line };
        let after = self.behind.max(step.properties_end);
        let indicator = |c: char| matches!(c, '|' | '>');
        let text = self.text.get(step.span.clone()).ok_or(unplaced.clone())?;
        let before = self.text.get(after..step.span.start).ok_or(unplaced.clone())?;
        let before = before.trim_end();
        let line = before.rfind(['\n', '\r']).map_or(0, |at| at + 1);
        let start = match before[line..].find(indicator) {
            Some(at) => after + line + at,
            // The place of an empty one is its header.
            None if text.starts_with(indicator) => step.span.start,
            None => return Err(unplaced),
        };
        let content = text.trim_end_matches([' ', '\t', '\n', '\r']);
        let last = step.span.start + content.len();
        let blanks = text[content.len()..].find(['\n', '\r']).unwrap_or(text.len() - content.len());
        let end = if content.is_empty() { start + header_length(&self.text[start..]) } else { last + blanks };
        Ok(start..end.max(start))
    }
}

/// A block scalar's first line, without what follows the indicators.
fn header_length(text: &str) -> usize {
    text.find(|c: char| !matches!(c, '|' | '>' | '+' | '-' | '0'..='9')).unwrap_or(text.len())
}

fn line_breaks(text: &str) -> usize {
    text.bytes().filter(|byte| *byte == b'\n').count()
}

fn is_null(value: &str, tag: Option<&Tag>) -> bool {
    let is_text = tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("str") || tag.parts() == ("", "!"));
    let says_null = matches!(value, "" | "~" | "null" | "Null" | "NULL");
    says_null && !is_text || tag.is_some_and(|tag| tag.is_yaml_core_schema_tag("null"))
}
