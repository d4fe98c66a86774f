//! Variables put into a text as compose does it: `$X`, `${X}`, and the forms of `${X…}` with `-`, `+` and `?`, one within
//! another as deep as they come.
//!
//! The grammar is that of compose's templates. What is no variable stays as it is written, `$$` is a `$`, and a variable
//! that is not set is empty. Errors name variables, never values.

use super::VALUE_LIMIT;

/// How many variables may stand one within another.
const MOST_WITHIN: usize = 16;

/// Why a text can't be filled in.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unfilled {
    /// A `${` that compose does not read as a variable.
    #[error("what follows a '${{' is no variable")]
    Invalid,
    /// `${X:?…}` of a variable that is not set.
    #[error("{0} is not set")]
    Required(String),
    /// One within another, too often.
    #[error("more than {MOST_WITHIN} variables stand one within another")]
    TooDeep,
    /// It would be longer than any value.
    #[error("it is longer than {VALUE_LIMIT} bytes")]
    TooLong,
    /// Bytes that are no text.
    #[error("it is no UTF-8 text")]
    NoText,
}

/// A text with its variables put in; `known` says what each is.
///
/// # Errors
/// [`Unfilled`].
pub fn filled<'a>(text: &str, known: &impl Fn(&str) -> Option<&'a str>) -> Result<String, Unfilled> {
    within(text, known, 0)
}

fn within<'a>(
    text: &str,
    known: &impl Fn(&str) -> Option<&'a str>,
    depth: usize,
) -> Result<String, Unfilled> {
    if depth > MOST_WITHIN {
        return Err(Unfilled::TooDeep);
    }
    let mut all = String::new();
    let mut rest = text;
    while let Some(at) = rest.find('$') {
        all.push_str(&rest[..at]);
        rest = &rest[at + 1..];
        if let Some(after) = rest.strip_prefix('$') {
            all.push('$');
            rest = after;
        } else if rest.starts_with('{') {
            let end = closing(rest).ok_or(Unfilled::Invalid)?;
            all.push_str(&braced(&rest[1..end], known, depth)?);
            rest = &rest[end + 1..];
        } else {
            let (name, after) = rest.split_at(name_length(rest));
            all.push_str(if name.is_empty() { "$" } else { known(name).unwrap_or_default() });
            rest = after;
        }
        if all.len() > VALUE_LIMIT {
            return Err(Unfilled::TooLong);
        }
    }
    all.push_str(rest);
    Ok(all)
}

/// What stands in `${…}`.
fn braced<'a>(
    inner: &str,
    known: &impl Fn(&str) -> Option<&'a str>,
    depth: usize,
) -> Result<String, Unfilled> {
    let (name, form) = inner.split_at(name_length(inner));
    if name.is_empty() {
        return Err(Unfilled::Invalid);
    }
    let (even_empty, form) = match form.strip_prefix(':') {
        Some(form) => (false, form),
        None => (true, form),
    };
    let set = known(name).filter(|value| even_empty || !value.is_empty());
    let mut letters = form.chars();
    match (letters.next(), set) {
        (None, _) if even_empty => Ok(set.unwrap_or_default().to_owned()),
        (Some('-'), None) | (Some('+'), Some(_)) => within(letters.as_str(), known, depth + 1),
        (Some('-' | '?'), Some(value)) => Ok(value.to_owned()),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => Err(Unfilled::Required(name.to_owned())),
        _ => Err(Unfilled::Invalid),
    }
}

/// Where the brace closes that a text begins with.
fn closing(text: &str) -> Option<usize> {
    let mut open = 0_usize;
    for (at, letter) in text.char_indices() {
        match letter {
            '{' => open += 1,
            '}' if open == 1 => return Some(at),
            '}' => open = open.checked_sub(1)?,
            _ => {}
        }
    }
    None
}

/// How much of a text's beginning is a variable's name.
fn name_length(text: &str) -> usize {
    if !text.starts_with(|c: char| c.is_ascii_alphabetic() || c == '_') {
        return 0;
    }
    text.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).unwrap_or(text.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case("a$X-${X}b", Ok("ax-xb"))]
    #[case("$$X $5 $", Ok("$X $5 $"))]
    #[case("${NONE}|${NONE-d}|${NONE:-d}|$NONE", Ok("|d|d|"))]
    #[case("${EMPTY-d}|${EMPTY:-d}", Ok("|d"))]
    #[case("${X+r}|${NONE+r}|${EMPTY+r}|${EMPTY:+r}", Ok("r||r|"))]
    #[case("${X:?no}|${EMPTY?no}", Ok("x|"))]
    #[case("${EMPTY:?no}", Err(Unfilled::Required("EMPTY".to_owned())))]
    #[case("${NONE:-${EMPTY:-${X}y}}z", Ok("xyz"))]
    #[case("${X:+${NONE:-{a}}}", Ok("{a}"))]
    #[case("${NONE:-a$X$$}", Ok("ax$"))]
    #[case("${X", Err(Unfilled::Invalid))]
    #[case("${}", Err(Unfilled::Invalid))]
    #[case("${X:}", Err(Unfilled::Invalid))]
    #[case("${X!}", Err(Unfilled::Invalid))]
    fn a_text_is_filled_in_as_compose_does_it(#[case] text: &str, #[case] expected: Result<&str, Unfilled>) {
        let known = |name: &str| match name {
            "X" => Some("x"),
            "EMPTY" => Some(""),
            _ => None,
        };
        assert_eq!(filled(text, &known), expected.map(str::to_owned), "{text}");
    }

    #[test]
    fn neither_depth_nor_length_is_without_an_end() {
        let deep = format!("{}{}", "${A:-".repeat(10_000), "}".repeat(10_000));
        assert_eq!(filled(&deep, &|_: &str| None), Err(Unfilled::TooDeep));
        let long = "x".repeat(VALUE_LIMIT);
        assert_eq!(filled("$A$A", &|_: &str| Some(long.as_str())), Err(Unfilled::TooLong));
    }
}
