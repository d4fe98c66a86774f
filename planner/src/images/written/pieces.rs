//! What of a text is literal and what compose fills in.
//!
//! `$NAME` and `${NAME}` are filled in; after a name in braces may follow `-`, `?` or `+`, each also behind a `:`, and
//! a text that may hold the same again. `$$` stands for the character. Anything else behind a `$` makes compose refuse
//! the file. The text is read once, from left to right, however deep it nests.

use std::collections::BTreeSet;
use std::ops::Range;

/// A text's variables and where they stand.
pub struct Pieces<'a> {
    text: &'a str,
    /// Each outermost variable, with what stands in its braces.
    filled: Vec<Filled<'a>>,
    readable: bool,
}

struct Filled<'a> {
    range: Range<usize>,
    names: Vec<&'a str>,
}

impl<'a> Pieces<'a> {
    /// Finds every variable.
    pub fn of(text: &'a str) -> Self {
        let mut reader = Reader { text, at: 0, open: Vec::new(), filled: Vec::new(), begun: 0 };
        let readable = reader.read();
        Self { text, filled: reader.filled, readable }
    }

    /// Whether compose can read every `$`.
    pub fn are_readable(&self) -> bool {
        self.readable
    }

    /// The first such character of a range that is literal.
    pub fn first(&self, character: char, range: Range<usize>) -> Option<usize> {
        let mut places = self.places(character, range);
        places.next()
    }

    /// The last such character of a range that is literal.
    pub fn last(&self, character: char, range: Range<usize>) -> Option<usize> {
        self.places(character, range).last()
    }

    /// The names of a range's variables, each once.
    pub fn variables(&self, range: Range<usize>) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let within = self.filled.iter().filter(|filled| range.contains(&filled.range.start));
        let names = within.flat_map(|filled| filled.names.iter().copied());
        names.filter(|name| seen.insert(*name)).map(str::to_owned).collect()
    }

    fn places(&self, character: char, range: Range<usize>) -> impl Iterator<Item = usize> {
        let mut filled = self.filled.iter().map(|filled| &filled.range).peekable();
        let found = self.text[range.clone()].match_indices(character).map(move |(at, _)| range.start + at);
        found.filter(move |at| {
            while filled.next_if(|filled| filled.end <= *at).is_some() {}
            filled.peek().is_none_or(|filled| *at < filled.start)
        })
    }
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
    /// The open braces; whether names in each can get into the value, as they can't out of the text of an error.
    open: Vec<bool>,
    filled: Vec<Filled<'a>>,
    /// Where the outermost variable begins.
    begun: usize,
}

impl Reader<'_> {
    /// Reads everything; false where compose would refuse it. From there to the end counts as one variable without
    /// a name, so that no part is found in it.
    fn read(&mut self) -> bool {
        while let Some(found) = self.text[self.at..].find(['$', '}']) {
            self.at += found;
            if self.text[self.at..].starts_with('}') {
                self.at += 1;
                self.close();
                continue;
            }
            if self.open.is_empty() {
                self.begun = self.at;
            }
            if self.variable().is_none() {
                self.end_at(self.text.len());
                return false;
            }
        }
        let complete = self.open.is_empty();
        if !complete {
            self.end_at(self.text.len());
        }
        complete
    }

    /// Reads what begins with `$`. `None` where compose can't.
    fn variable(&mut self) -> Option<()> {
        let rest = &self.text[self.at + 1..];
        if rest.starts_with('$') {
            self.at += 2;
            return Some(());
        }
        let in_braces = rest.strip_prefix('{');
        let name = name(in_braces.unwrap_or(rest))?;
        if self.open.is_empty() {
            self.filled.push(Filled { range: self.begun..self.begun, names: Vec::new() });
        }
        let gets_in = self.open.last().copied().unwrap_or(true);
        if let Some(filled) = self.filled.last_mut().filter(|_| gets_in) {
            filled.names.push(name);
        }
        self.at += 1 + name.len();
        let Some(in_braces) = in_braces else {
            self.end_if_outermost();
            return Some(());
        };
        self.at += 1;
        let behind = &in_braces[name.len()..];
        if behind.starts_with('}') {
            self.at += 1;
            self.end_if_outermost();
            return Some(());
        }
        let operator = behind.strip_prefix(':').unwrap_or(behind);
        let is_error = operator.starts_with('?');
        operator.starts_with(['-', '?', '+']).then(|| self.open.push(gets_in && !is_error))
    }

    fn close(&mut self) {
        if self.open.pop().is_some() {
            self.end_if_outermost();
        }
    }

    fn end_if_outermost(&mut self) {
        if let Some(filled) = self.filled.last_mut().filter(|_| self.open.is_empty()) {
            filled.range.end = self.at;
        }
    }

    fn end_at(&mut self, end: usize) {
        match self.filled.last_mut() {
            Some(filled) if filled.range.start == self.begun => filled.range.end = end,
            _ => self.filled.push(Filled { range: self.begun..end, names: Vec::new() }),
        }
    }
}

/// The name that a text begins with. Compose matches names regardless of case, so the long s and the Kelvin sign are
/// letters of them, too.
fn name(text: &str) -> Option<&str> {
    let begins = |c: char| c.is_ascii_alphabetic() || matches!(c, '_' | '\u{17f}' | '\u{212a}');
    let end = text.find(|c: char| !begins(c) && !c.is_ascii_digit()).unwrap_or(text.len());
    text.starts_with(begins).then(|| &text[..end])
}
