//! How a value is written as a YAML scalar: in the style that is there, or in double quotes where that can't hold it.

use super::scalars::{Placed, Style};

/// The text of a scalar; of a block scalar the one line, without its header and its line's end. `None` where a block
/// would have to hold what stands in double quotes only.
pub fn keeping(placed: &Placed, value: &str) -> Option<String> {
    let is_printable = |value: &str| value.chars().all(is_printable);
    let text = match placed.scalar.style {
        Style::Plain if is_plain(value, placed.in_flow) => value.to_owned(),
        Style::SingleQuoted if is_printable(value) => format!("'{}'", value.replace('\'', "''")),
        Style::Plain | Style::SingleQuoted | Style::DoubleQuoted => double(value),
        Style::Literal | Style::Folded => {
            let line = value.trim_end_matches('\n');
            let is_line = is_printable(line) && !line.is_empty();
            return is_line.then(|| " ".repeat(placed.indentation) + line);
        }
    };
    Some(text)
}

/// Whether a value reads back as this text when it stands without quotes, by YAML 1.1 and 1.2 alike.
fn is_plain(value: &str, in_flow: bool) -> bool {
    let leads = |c: char| "-?:,[]{}#&*!|>'\"%@`=<.".contains(c);
    let in_flow_ends = |c: char| in_flow && ",[]{}".contains(c);
    !value.is_empty()
        && !value.starts_with(leads)
        && !value.starts_with(char::is_whitespace)
        && !value.ends_with(char::is_whitespace)
        && !value.ends_with(':')
        && !value.contains(": ")
        && !value.contains(":\t")
        && !value.contains(" #")
        && !value.contains("\t#")
        && !value.contains(in_flow_ends)
        && value.chars().all(is_printable)
        && !is_number(value)
        && !is_word(value)
}

/// Whether some reader could take it for a number, a time or a date: all of these begin with a digit or sign and
/// hold few letters. Some image names look the same; quotes do them no harm.
fn is_number(value: &str) -> bool {
    let part = |c: char| c.is_ascii_hexdigit() || "xXoO_.:+-TtZz ".contains(c);
    value.starts_with(|c: char| c.is_ascii_digit() || c == '+') && value.chars().all(part)
}

/// Whether some reader takes it for a boolean or for null.
fn is_word(value: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "~"];
    words.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// Whether a character may stand in a scalar as it is, and is no line's end.
fn is_printable(c: char) -> bool {
    let ends_line = matches!(c, '\u{85}' | '\u{2028}' | '\u{2029}');
    !(c.is_control() || ends_line || matches!(c, '\u{feff}' | '\u{fffe}' | '\u{ffff}'))
}

/// In double quotes, with escapes that JSON knows, too.
fn double(value: &str) -> String {
    let mut text = String::with_capacity(value.len() + 2);
    text.push('"');
    for c in value.chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            '\n' => text += "\\n",
            '\r' => text += "\\r",
            '\t' => text += "\\t",
            c if is_printable(c) => text.push(c),
            // All others are within the basic plane, where four digits are enough.
            c => text.extend(format!("\\u{:04x}", u32::from(c)).chars()),
        }
    }
    text.push('"');
    text
}
