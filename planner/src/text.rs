//! Sentences and lists for people, made of what others said.

use std::fmt::Write as _;

pub use tenantry_api::conditions::bounded;

/// The longest text of others that is put into a sentence.
const CLAUSE_LIMIT: usize = 1_024;

/// A text as part of a sentence: one line, without a closing full stop.
pub fn clause(text: &str) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    bounded(line.trim_end_matches('.'), CLAUSE_LIMIT)
}

/// A text as a sentence of its own: one line, with a closing full stop.
pub fn sentence(text: &str) -> String {
    format!("{}.", clause(text))
}

/// The first few of a list, and how many more there are.
pub fn listed<T: AsRef<str>>(items: &[T], most: usize) -> String {
    let mut text = items.iter().take(most).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if items.len() > most {
        let _ = write!(text, " and {} more", items.len() - most);
    }
    text
}
