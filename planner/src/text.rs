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

/// A text as a sentence of its own: one line, with a closing mark.
pub fn sentence(text: &str) -> String {
    let clause = clause(text);
    if clause.ends_with(['!', '?']) { clause } else { format!("{clause}.") }
}

/// The first few of a list, and how many more there are.
pub fn listed<T: AsRef<str>>(items: &[T], most: usize) -> String {
    let mut text = items.iter().take(most).map(AsRef::as_ref).collect::<Vec<_>>().join(", ");
    if items.len() > most {
        let _ = write!(text, " and {} more", items.len() - most);
    }
    text
}

/// How many there are of something: `1 file`, `2 files`.
pub fn counted(count: usize, one: &str) -> String {
    format!("{count} {one}{}", if count == 1 { "" } else { "s" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::open("a  b\nc", "a b c.")]
    #[case::closed("a b.", "a b.")]
    #[case::a_question("why?", "why?")]
    fn what_others_said_is_one_sentence(#[case] said: &str, #[case] sentence_: &str) {
        assert_eq!(sentence(said), sentence_);
    }

    #[rstest::rstest]
    #[case(0, "0 files")]
    #[case(1, "1 file")]
    #[case(2, "2 files")]
    fn one_is_not_many(#[case] count: usize, #[case] told: &str) {
        assert_eq!(counted(count, "file"), told);
    }

    #[test]
    fn a_long_list_says_how_many_it_leaves_out() {
        assert_eq!(listed(&["a", "b"], 2), "a, b");
        assert_eq!(listed(&["a", "b", "c"], 1), "a and 2 more");
    }
}
