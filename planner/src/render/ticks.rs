//! Makes every turn of every loop of a template call a function, which ends a loop that has no end.
//!
//! A loop without output never meets the writer, and a thread can't be stopped from outside. The call is put
//! on the line of the loop's own tag and writes nothing, so that neither output nor line numbers change.

/// The function's name; a bundle's templates have no reason to use it.
pub const NAME: &str = "tenantry_tick";

/// Puts the call behind each `{% for … %}`.
pub fn insert(template: &str) -> String {
    let mut out = String::with_capacity(template.len() + 64);
    let mut rest = template;
    while let Some(at) = rest.find("{%").into_iter().chain(rest.find("{#")).min() {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let length = if rest.starts_with("{#") { comment_length(rest) } else { tag_length(rest) };
        let (piece, after) = rest.split_at(length);
        out.push_str(piece);
        rest = after;
        match keyword(piece) {
            // The tag's own trimming of what follows is handed on to the call.
            "for" if piece.ends_with("-%}") => out.extend(["{{ ", NAME, "() -}}"]),
            "for" => out.extend(["{{ ", NAME, "() }}"]),
            "raw" => {
                let length = raw_length(rest);
                out.push_str(&rest[..length]);
                rest = &rest[length..];
            }
            _ => {}
        }
    }
    out.push_str(rest);
    out
}

fn keyword(tag: &str) -> &str {
    let Some(inside) = tag.strip_prefix("{%") else { return "" };
    let inside = inside.trim_start_matches('-').trim_start();
    inside.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or("")
}

fn comment_length(text: &str) -> usize {
    text.find("#}").map_or(text.len(), |end| end + 2)
}

/// The length of a tag: its end within a string is none.
fn tag_length(text: &str) -> usize {
    let mut quote: Option<char> = None;
    let mut escaped = false;
    for (at, c) in text.char_indices() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(open) if c == open => quote = None,
            None if matches!(c, '"' | '\'' | '`') => quote = Some(c),
            None if text[at..].starts_with("%}") => return at + 2,
            Some(_) | None => {}
        }
    }
    text.len()
}

/// How far a raw block reaches, its end tag not included.
fn raw_length(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        if keyword(&text[from + at..]) == "endraw" {
            return from + at;
        }
        from += at + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[rstest::rstest]
    #[case::plain("{% for x in y %}a{% endfor %}", "{% for x in y %}{{ tenantry_tick() }}a{% endfor %}")]
    #[case::trimming("{%- for x in y -%} a", "{%- for x in y -%}{{ tenantry_tick() -}} a")]
    #[case::a_string("{% for x in ['%}'] %}a", "{% for x in ['%}'] %}{{ tenantry_tick() }}a")]
    #[case::a_comment("{# {% for x in y %} #}a", "{# {% for x in y %} #}a")]
    #[case::raw("{% raw %}{% for x in y %}{% endraw %}b", "{% raw %}{% for x in y %}{% endraw %}b")]
    #[case::other("{% if format %}{{ for }}{% endif %}", "{% if format %}{{ for }}{% endif %}")]
    #[case::unclosed("{% for x", "{% for x{{ tenantry_tick() }}")]
    fn only_loops_get_the_call(#[case] template: &str, #[case] expected: &str) {
        assert_eq!(insert(template), expected);
    }

    proptest::proptest! {
        #[test]
        fn any_text_without_a_loop_stays(text in "[a-z{}%# \n\"'-]{0,60}") {
            let marked = insert(&text);
            proptest::prop_assert_eq!(marked.replace("{{ tenantry_tick() }}", "").replace("{{ tenantry_tick() -}}", ""), text);
        }
    }
}
