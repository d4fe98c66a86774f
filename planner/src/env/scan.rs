//! The grammar of `.env` as compose's parser has it, with the place of every key and value.
//!
//! - Statements are found by skipping white space and `#` lines; `export ` before a key is skipped; `=` and `:` both
//!   separate; a key alone on its line is taken from the environment.
//! - An unquoted value ends at the line's end or at the first ` #`, without trailing white space; `$` is expanded.
//! - A single-quoted value is literal and may span lines; `\'` does not end it and stands for `'`.
//! - A double-quoted value may span lines, knows escapes, and `$` is expanded after them.

use std::ops::Range;

use super::quote::Style;
use super::{EnvError, FILE_LIMIT, Value};

/// The byte order mark that some editors put first; compose skips it.
pub const BOM: &[u8] = b"\xEF\xBB\xBF";

/// One statement and where it stands.
#[derive(Debug)]
pub struct Statement {
    /// The key's bytes.
    pub key: Range<usize>,
    /// What it declares.
    pub declared: Declared,
}

/// What a statement declares.
#[derive(Debug)]
pub enum Declared {
    /// A key alone.
    Bare,
    /// A key with a value.
    Assigned {
        /// The byte after `=` or `:`.
        separator: usize,
        /// The value as written, quotes included, without white space around it.
        span: Range<usize>,
        /// How it is quoted.
        style: Style,
        /// What compose reads.
        value: Value,
    },
}

/// Finds every statement, in order.
pub fn scan(bytes: &[u8]) -> Result<Vec<Statement>, EnvError> {
    if bytes.len() > FILE_LIMIT {
        return Err(EnvError::TooLarge { size: bytes.len() });
    }
    let mut scanner = Scanner { bytes, at: if bytes.starts_with(BOM) { BOM.len() } else { 0 } };
    let mut statements = Vec::new();
    while scanner.find_statement() {
        statements.push(scanner.statement()?);
    }
    Ok(statements)
}

struct Scanner<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Scanner<'_> {
    /// Moves to the next statement's first byte; false at the end.
    fn find_statement(&mut self) -> bool {
        loop {
            self.skip(char::is_whitespace);
            match self.bytes.get(self.at) {
                None => return false,
                Some(b'#') => self.at = self.line_end(self.at),
                Some(_) => return true,
            }
        }
    }

    fn statement(&mut self) -> Result<Statement, EnvError> {
        let exported = self.bytes[self.at..].strip_prefix(b"export").and_then(<[u8]>::first);
        if exported.is_some_and(|byte| matches!(byte, b'\t' | b'\n' | 0x0C | b'\r' | b' ')) {
            self.at += b"export".len();
            self.skip(is_space);
        }
        let (key, separator) = self.key()?;
        let Some(separator) = separator else {
            return Ok(Statement { key, declared: Declared::Bare });
        };
        self.skip(is_space);
        let declared = self.value(separator)?;
        Ok(Statement { key, declared })
    }

    /// The key's range, and the byte after the separator; no separator: it stands alone.
    fn key(&mut self) -> Result<(Range<usize>, Option<usize>), EnvError> {
        let start = self.at;
        if start == self.bytes.len() {
            return Err(self.unreadable(start, "'export' without a variable: name one or remove the line"));
        }
        let (end, separator) = loop {
            let Some((letter, length)) = char_at(self.bytes, self.at) else {
                break (self.at, None);
            };
            let at = self.at;
            self.at += length;
            match letter {
                '=' | ':' => break (at, Some(self.at)),
                '\n' => break (at, None),
                '_' | '.' | '-' | '[' | ']' => {}
                letter if is_space(letter) || letter.is_alphanumeric() => {}
                _ => {
                    let problem = "a variable's name holds a character that compose does not allow; \
                                   use letters, digits and '_', then '=' and the value";
                    return Err(self.unreadable(at, problem));
                }
            }
        };
        let key = start..trim_end(self.bytes, start..end);
        if end < self.bytes.len() && self.bytes[key.clone()].contains(&b' ') {
            return Err(self.unreadable(start, "a variable's name holds a space; write NAME=value"));
        }
        Ok((key, separator))
    }

    fn value(&mut self, separator: usize) -> Result<Declared, EnvError> {
        let start = self.at;
        match self.bytes.get(start) {
            Some(b'\'') => {
                let chars = self.quoted(b'\'')?;
                let span = start..self.at;
                Ok(Declared::Assigned { separator, span, style: Style::Single, value: Value::Literal(chars) })
            }
            Some(b'"') => {
                let chars = self.quoted(b'"')?;
                let span = start..self.at;
                let value = expand(&expand_escapes(&chars));
                Ok(Declared::Assigned { separator, span, style: Style::Double, value })
            }
            _ => {
                let line_end = self.line_end(start);
                let line = &self.bytes[start..line_end];
                let cut = line.windows(2).position(|pair| pair == b" #").unwrap_or(line.len());
                let span = start..trim_end(self.bytes, start..start + cut);
                self.at = line_end;
                let value = expand(&self.bytes[span.clone()]);
                Ok(Declared::Assigned { separator, span, style: Style::Plain, value })
            }
        }
    }

    /// Reads from the opening quote to behind the closing one.
    fn quoted(&mut self, quote: u8) -> Result<Vec<u8>, EnvError> {
        let mut chars = Vec::new();
        let mut escaped = false;
        for at in self.at + 1..self.bytes.len() {
            let byte = self.bytes[at];
            if byte == quote {
                if !escaped {
                    self.at = at + 1;
                    return Ok(chars);
                }
            } else if byte == b'\\' && !escaped {
                escaped = true;
                continue;
            } else if escaped {
                chars.push(b'\\');
            }
            escaped = false;
            chars.push(byte);
        }
        Err(self.unreadable(self.at, "a quoted value is not closed; add the closing quote"))
    }

    fn skip(&mut self, skipped: impl Fn(char) -> bool) {
        while let Some((letter, length)) = char_at(self.bytes, self.at) {
            if !skipped(letter) {
                return;
            }
            self.at += length;
        }
    }

    fn line_end(&self, from: usize) -> usize {
        let rest = &self.bytes[from..];
        from + rest.iter().position(|byte| *byte == b'\n').unwrap_or(rest.len())
    }

    fn unreadable(&self, at: usize, problem: &'static str) -> EnvError {
        let line = self.bytes[..at].split(|byte| *byte == b'\n').count();
        EnvError::Unreadable { line, problem }
    }
}

/// The character at a byte; a byte that is not UTF-8 counts as one unknown character.
fn char_at(bytes: &[u8], at: usize) -> Option<(char, usize)> {
    let rest = bytes.get(at..).filter(|rest| !rest.is_empty())?;
    if rest[0].is_ascii() {
        return Some((char::from(rest[0]), 1));
    }
    let window = &rest[..rest.len().min(4)];
    let valid = match std::str::from_utf8(window) {
        Ok(text) => text,
        Err(error) => std::str::from_utf8(&window[..error.valid_up_to()]).unwrap_or_default(),
    };
    Some(valid.chars().next().map_or((char::REPLACEMENT_CHARACTER, 1), |letter| (letter, letter.len_utf8())))
}

/// The end of a range without the white space at its end.
fn trim_end(bytes: &[u8], range: Range<usize>) -> usize {
    let mut end = range.start;
    let mut at = range.start;
    while at < range.end {
        let Some((letter, length)) = char_at(bytes, at) else {
            break;
        };
        at += length;
        if !letter.is_whitespace() {
            end = at.min(range.end);
        }
    }
    end
}

/// White space within a line, as compose's parser has it.
pub fn is_space(letter: char) -> bool {
    matches!(letter, '\t' | '\u{b}' | '\u{c}' | '\r' | ' ' | '\u{85}' | '\u{a0}')
}

/// Replaces the escapes that compose knows; `\$` becomes `$$`, which [`expand`] reads as a literal `$`.
fn expand_escapes(chars: &[u8]) -> Vec<u8> {
    let mut result = Vec::with_capacity(chars.len());
    let mut at = 0;
    while at < chars.len() {
        let next = chars.get(at + 1).copied();
        let (text, length): (&[u8], usize) = match (chars[at], next) {
            (b'\\', Some(b'$')) => (b"$$", 2),
            (b'\\', Some(b'a')) => (b"\x07", 2),
            (b'\\', Some(b'b')) => (b"\x08", 2),
            (b'\\', Some(b'f')) => (b"\x0C", 2),
            (b'\\', Some(b'n')) => (b"\n", 2),
            (b'\\', Some(b'r')) => (b"\r", 2),
            (b'\\', Some(b't')) => (b"\t", 2),
            (b'\\', Some(b'v')) => (b"\x0B", 2),
            (b'\\', Some(b'"')) => (b"\"", 2),
            (b'\\', Some(b'\\')) => (b"\\", 2),
            (b'\\', Some(b'0')) => {
                at += octal(&chars[at..], &mut result);
                continue;
            }
            _ => (&chars[at..=at], 1),
        };
        result.extend_from_slice(text);
        at += length;
    }
    result
}

/// `\0` and up to three digits: a character by its octal number if there are three that give at most 255; otherwise
/// compose drops the `0` and keeps the rest. Returns how many bytes were read.
fn octal(chars: &[u8], result: &mut Vec<u8>) -> usize {
    let digits = chars[2..].iter().take(3).take_while(|byte| byte.is_ascii_digit()).count();
    let number = &chars[2..2 + digits];
    let code = if digits == 3 && number.iter().all(|digit| *digit < b'8') {
        number.iter().fold(0_u32, |code, digit| code * 8 + u32::from(digit - b'0'))
    } else {
        u32::MAX
    };
    if let Ok(code) = u8::try_from(code) {
        result.extend_from_slice(char::from(code).encode_utf8(&mut [0; 4]).as_bytes());
    } else {
        result.push(b'\\');
        result.extend_from_slice(number);
    }
    2 + digits
}

/// Expands `$$`; any real substitution makes the value dynamic. A `$` that begins nothing stays.
fn expand(text: &[u8]) -> Value {
    let mut result = Vec::with_capacity(text.len());
    let mut at = 0;
    while at < text.len() {
        if text[at] != b'$' {
            result.push(text[at]);
            at += 1;
            continue;
        }
        match char_at(text, at + 1) {
            Some(('$', _)) => {
                result.push(b'$');
                at += 2;
            }
            // Compose matches names regardless of case, so that the long s and the Kelvin sign begin one too.
            Some(('{' | '_' | '\u{17f}' | '\u{212a}', _)) => return Value::Dynamic(text.to_vec()),
            Some((letter, _)) if letter.is_ascii_alphabetic() => return Value::Dynamic(text.to_vec()),
            _ => {
                result.push(b'$');
                at += 1;
            }
        }
    }
    Value::Literal(result)
}
