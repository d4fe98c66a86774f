//! A YAML file as a stream of events with byte positions, within bounds.
//!
//! The parser is the one that reads compose files as values elsewhere, so both agree on what a file says. It gives
//! byte positions of exactly the text of a scalar, without its anchor, tag and comment. Aliases are events of their
//! own and are never expanded, and nesting is counted, not recursed into: neither bombs nor depth cost anything.

use std::ops::Range;

use granit_parser::{ErrorKind, Event, Parser, Span, StrInput};

use super::scalars::{FILE_LIMIT, MAX_DEPTH, Unreadable};

/// One event and where it stands.
#[derive(Debug)]
pub struct Step<'a> {
    /// What stands there. Never [`Event::Anchor`].
    pub event: Event<'a>,
    /// The bytes of the text itself; of a block scalar without its header.
    pub span: Range<usize>,
    /// The line of the first byte, counted from 1.
    pub line: u32,
    /// How many characters stand before the first byte on its line.
    pub column: usize,
    /// The byte after the node's anchor and tag; 0 where it has neither.
    pub properties_end: usize,
}

/// Every event of a file, up to the first error.
pub struct Steps<'a> {
    parser: Parser<'a, StrInput<'a>>,
    depth: usize,
    ended: bool,
}

/// Checks size and encoding, and begins to read.
pub fn steps(bytes: &[u8]) -> Result<(&str, Steps<'_>), Unreadable> {
    if bytes.len() > FILE_LIMIT {
        return Err(Unreadable::TooLarge { size: bytes.len() });
    }
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let before = &bytes[..error.valid_up_to()];
        Unreadable::NotText { line: number(before.split(|byte| *byte == b'\n').count()) }
    })?;
    let mut options = granit_parser::options! {
        emit_anchor_events: true,
        flow_nesting_limit: MAX_DEPTH,
        block_nesting_limit: MAX_DEPTH,
    };
    options.set_emit_comments(false);
    let parser = Parser::new_from_str_with_options(text, options);
    Ok((text, Steps { parser, depth: 0, ended: false }))
}

impl<'a> Iterator for Steps<'a> {
    type Item = Result<Step<'a>, Unreadable>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose()?;
        self.ended = step.is_err();
        Some(step)
    }
}

impl<'a> Steps<'a> {
    fn step(&mut self) -> Result<Option<Step<'a>>, Unreadable> {
        let Some((event, span)) = self.event()? else {
            return Ok(None);
        };
        let line = number(span.start.line());
        match event {
            Event::SequenceStart(..) | Event::MappingStart(..) => self.depth += 1,
            Event::SequenceEnd | Event::MappingEnd => self.depth = self.depth.saturating_sub(1),
            _ => {}
        }
        if self.depth > MAX_DEPTH {
            return Err(Unreadable::TooDeep { line });
        }
        let tag_end = span.tag_span().map_or(Ok(0), |tag| bytes_of(&tag).map(|bytes| bytes.end))?;
        let anchor_end = if event.anchor_id().is_some() { self.anchor()? } else { 0 };
        Ok(Some(Step {
            event,
            span: bytes_of(&span)?,
            line,
            column: span.start.col(),
            properties_end: tag_end.max(anchor_end),
        }))
    }

    fn event(&mut self) -> Result<Option<(Event<'a>, Span)>, Unreadable> {
        let read = self.parser.next_event().transpose();
        read.map_err(|error| {
            let line = number(error.marker().line());
            match error.kind() {
                ErrorKind::RecursionLimitExceeded => Unreadable::TooDeep { line },
                _ => Unreadable::Malformed { line },
            }
        })
    }

    /// The end of the anchor that the last node has: its event comes next.
    fn anchor(&mut self) -> Result<usize, Unreadable> {
        match self.event()? {
            Some((Event::Anchor(..), span)) => Ok(bytes_of(&span)?.end),
            Some((_, span)) => Err(Unreadable::Unplaced { line: number(span.start.line()) }),
            None => Err(Unreadable::Unplaced { line: 1 }),
        }
    }
}

fn bytes_of(span: &Span) -> Result<Range<usize>, Unreadable> {
    span.byte_range().ok_or(Unreadable::Unplaced { line: number(span.start.line()) })
}

fn number(line: usize) -> u32 {
    u32::try_from(line).unwrap_or(u32::MAX)
}
