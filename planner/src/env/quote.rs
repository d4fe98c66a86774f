//! How a value is written so that compose reads it back exactly.

use super::scan::is_space;

/// How a value is quoted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Not at all.
    Plain,
    /// `'…'`, literal.
    Single,
    /// `"…"`, with escapes.
    Double,
}

/// Writes a value in the style that its key already has, if that style can hold it. `followed`: more than white
/// space comes after it on its line.
pub fn keeping(style: Style, value: &str, followed: bool) -> Vec<u8> {
    match style {
        Style::Plain if value.is_empty() && followed => b"''".to_vec(),
        Style::Plain if fits_plain(value) => value.as_bytes().to_vec(),
        Style::Plain | Style::Single if fits_single(value) => single(value),
        Style::Plain | Style::Single | Style::Double => double(value),
    }
}

/// Writes a value for a key that has none yet: plain only if every reader of such files would take it as it is.
pub fn fresh(value: &str) -> Vec<u8> {
    let simple = |c: char| c.is_ascii_alphanumeric() || "_./:@%+,=^-".contains(c);
    if value.chars().all(simple) {
        value.as_bytes().to_vec()
    } else if fits_single(value) {
        single(value)
    } else {
        double(value)
    }
}

fn fits_plain(value: &str) -> bool {
    let blank = |c: char| is_space(c) || c.is_whitespace();
    let starts_well = !value.starts_with(|c: char| blank(c) || matches!(c, '\'' | '"' | '#'));
    let control = |c: char| c.is_control() && c != '\t';
    starts_well
        && !value.ends_with(blank)
        && !value.contains(" #")
        && !value.contains(|c| c == '$' || control(c))
}

/// Line breaks would fit, but are written as escapes on one line instead.
fn fits_single(value: &str) -> bool {
    !value.contains(['\'', '\n', '\r']) && !value.ends_with('\\')
}

fn single(value: &str) -> Vec<u8> {
    format!("'{value}'").into_bytes()
}

fn double(value: &str) -> Vec<u8> {
    let mut text = String::with_capacity(value.len() + 8);
    text.push('"');
    for letter in value.chars() {
        match letter {
            '\n' => text.push_str("\\n"),
            '\r' => text.push_str("\\r"),
            '\\' | '"' | '$' => text.extend(['\\', letter]),
            _ => text.push(letter),
        }
    }
    text.push('"');
    text.into_bytes()
}
