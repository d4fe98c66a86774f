//! The layout of this crate as a test: every room imports only from those below it, and no two files outside a single
//! module's own folder import each other in a circle.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;

/// The rooms from the lowest to the highest. A module imports only from those that stand before it.
const ROOMS: [&str; 21] = [
    "limits",
    "files",
    "store",
    "metrics",
    "config",
    "snapshot",
    "engine",
    "compose",
    "host",
    "observe",
    "survey",
    "planning",
    "operation",
    "finisher",
    "calls",
    "tls",
    "server",
    "startup",
    "fuzzing",
    "rooms",
    "main",
];

type Imports = BTreeMap<String, BTreeSet<String>>;

/// Every module of the crate by its path, with its text. Tests are none.
fn modules() -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![source.clone()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            let name = entry.file_stem().unwrap().to_string_lossy().into_owned();
            if entry.is_dir() && name != "tests" {
                folders.push(entry);
            } else if entry.extension().is_some_and(|extension| extension == "rs")
                && name != "lib"
                && name != "tests"
            {
                let path = entry.strip_prefix(&source).unwrap().with_extension("");
                let path = path.to_string_lossy().replace('/', "::");
                let text = fs::read_to_string(&entry).unwrap();
                found.insert(path, text);
            }
        }
    }
    found
}

/// The text without comments, and without a module of tests at its end.
fn code(text: &str) -> String {
    let text = text.split("#[cfg(test)]\nmod").next().unwrap_or_default();
    text.lines().map(|line| line.split("//").next().unwrap_or_default()).collect::<Vec<_>>().join("\n")
}

/// Every path that begins with `crate::` or `super::`, written out from the crate's root; groups in braces are taken
/// apart.
fn paths(module: &str, text: &str) -> BTreeSet<String> {
    let mut all = BTreeSet::new();
    for (start, within) in [("crate::", false), ("super::", true)] {
        for (at, _) in text.match_indices(start) {
            let before = text[..at].chars().next_back();
            if before.is_some_and(|c| c.is_alphanumeric() || c == '_' || c == ':') {
                continue;
            }
            let (mut rest, mut prefix) = (&text[at + start.len()..], String::new());
            if within {
                let mut above = parent(module);
                while let Some(next) = rest.strip_prefix("super::") {
                    (rest, above) = (next, parent(&above));
                }
                prefix = above;
            }
            take_apart(&prefix, rest, &mut all);
        }
    }
    all
}

fn parent(module: &str) -> String {
    module.rsplit_once("::").map(|(above, _)| above.to_owned()).unwrap_or_default()
}

/// Reads one tree of imports; says how much of the text it took.
fn take_apart(prefix: &str, text: &str, all: &mut BTreeSet<String>) -> usize {
    if let Some(inner) = text.strip_prefix('{') {
        let mut at = 1;
        while let Some(skipped) = text[at..].find(|c: char| c.is_alphanumeric() || "_{}*".contains(c)) {
            at += skipped;
            if text[at..].starts_with('}') {
                return at + 1;
            }
            at += take_apart(prefix, &text[at..], all).max(1);
            // `as other` is no import of its own.
            at += text[at..].find([',', '}']).unwrap_or(inner.len().saturating_sub(at));
        }
        return text.len();
    }
    let end = text.find(|c: char| !(c.is_alphanumeric() || c == '_')).unwrap_or(text.len());
    let path = if prefix.is_empty() { text[..end].to_owned() } else { format!("{prefix}::{}", &text[..end]) };
    if let Some(rest) = text[end..].strip_prefix("::") {
        return end + 2 + take_apart(&path, rest, all);
    }
    all.insert(path);
    end
}

fn imports() -> Imports {
    let modules = modules();
    let known = |path: &str| {
        let mut path = path.to_owned();
        while !path.is_empty() && !modules.contains_key(&path) {
            path = parent(&path);
        }
        Some(path).filter(|path| !path.is_empty())
    };
    let of = |(module, text): (&String, &String)| {
        let imported = paths(module, &code(text)).iter().filter_map(|path| known(path)).collect();
        (module.clone(), imported)
    };
    modules.iter().map(of).collect()
}

fn room(module: &str) -> &str {
    module.split("::").next().unwrap_or_default()
}

/// Whether one of two modules is in the other's folder: those belong together.
fn together(one: &str, other: &str) -> bool {
    let within =
        |inner: &str, outer: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with("::"));
    one == other || within(one, other) || within(other, one)
}

#[test]
fn a_room_imports_only_from_those_below_it() {
    let place = |room: &str| ROOMS.iter().position(|known| *known == room);
    let mut wrong = BTreeSet::new();
    for (module, imported) in &imports() {
        let own = place(room(module)).unwrap_or_else(|| panic!("{module} is in no room: add it to ROOMS"));
        let above = imported.iter().filter(|other| room(other) != room(module));
        wrong.extend(
            above.filter(|other| place(room(other)) >= Some(own)).map(|other| format!("{module} -> {other}")),
        );
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn nothing_in_planning_or_operation_imports_in_a_circle() {
    let imports = imports();
    let rooms = ["host", "observe", "planning", "operation", "calls"];
    for start in imports.keys().filter(|module| rooms.contains(&room(module))) {
        let (mut seen, mut open) = (BTreeSet::new(), vec![start]);
        while let Some(module) = open.pop() {
            for other in imports[module].iter().filter(|other| !together(module, other)) {
                assert_ne!(other, start, "{start} imports itself by way of {module}");
                if seen.insert(other) {
                    open.push(other);
                }
            }
        }
    }
    assert!(imports["planning::plan"].contains("planning::context"), "the reader of imports sees nothing");
    assert!(imports["operation::perform"].contains("operation::steps::preflight"), "nor groups in braces");
}
