//! The variables of a compose file, by the form in which they are written.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The forms that compose knows.
pub const FORMS: [&str; 10] =
    ["$V", "${V}", "${V:-d}", "${V-d}", "${V:?e}", "${V?e}", "${V:+r}", "${V+r}", "nested", "$$"];

/// Names by form; the names under `nested` are those inside another variable's text.
pub type Uses = BTreeMap<&'static str, BTreeSet<String>>;

/// All variables in the values of a document.
pub fn of(document: &Value) -> Uses {
    let mut uses = Uses::new();
    visit(document, &mut uses);
    uses
}

fn visit(value: &Value, uses: &mut Uses) {
    match value {
        Value::String(text) => scan(text, false, uses),
        Value::Array(items) => items.iter().for_each(|item| visit(item, uses)),
        Value::Object(members) => members.values().for_each(|member| visit(member, uses)),
        _ => {}
    }
}

fn scan(mut text: &str, inside: bool, uses: &mut Uses) {
    while let Some(at) = text.find('$') {
        text = &text[at + 1..];
        if let Some(rest) = text.strip_prefix('$') {
            uses.entry("$$").or_default().insert("$".to_owned());
            text = rest;
            continue;
        }
        let braced = text.strip_prefix('{');
        let rest = braced.unwrap_or(text);
        let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(rest.len());
        let (name, rest) = rest.split_at(end);
        let note = |form, uses: &mut Uses| {
            uses.entry(form).or_default().insert(name.to_owned());
            if inside {
                uses.entry("nested").or_default().insert(name.to_owned());
            }
        };
        if braced.is_none() {
            note("$V", uses);
            text = rest;
            continue;
        }
        let close = closing(rest);
        let (operator, form) = [
            (":-", "${V:-d}"),
            (":?", "${V:?e}"),
            (":+", "${V:+r}"),
            ("-", "${V-d}"),
            ("?", "${V?e}"),
            ("+", "${V+r}"),
            ("", "${V}"),
        ]
        .into_iter()
        .find(|(operator, _)| rest.starts_with(operator))
        .expect("the last one always fits");
        note(form, uses);
        scan(&rest[operator.len()..close], true, uses);
        text = &rest[close + 1..];
    }
}

/// Where the brace that was opened before `text` is closed.
fn closing(text: &str) -> usize {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return at,
            '}' => depth -= 1,
            _ => {}
        }
    }
    panic!("a brace is not closed in {text:?}")
}

#[test]
fn every_form_is_told_from_the_others() {
    let text = "$A-${B} ${C:-c} ${D-$E} ${F:?f} ${G?g} ${H:+${I:-i}} ${J+j} $$K $${L}";
    let uses = of(&serde_json::json!({"x": [text]}));
    let names = |form| uses[form].iter().map(String::as_str).collect::<Vec<_>>().join(",");
    assert_eq!(FORMS.map(names), ["A,E", "B", "C,I", "D", "F", "G", "H", "J", "E,I", "$"]);
}
