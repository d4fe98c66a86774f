//! What the documentation names is there: every link, every heading that a link leads to, and every path of the
//! repository.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::shell;

/// A page, as it is read.
struct Page {
    path: PathBuf,
    text: String,
}

/// README, changelog and everything in `docs/`.
fn pages() -> Vec<Page> {
    let root = shell::root();
    let folders = ["docs", "docs/guides"].map(|folder| std::fs::read_dir(root.join(folder)).unwrap());
    let docs = folders.into_iter().flatten().map(|entry| entry.unwrap().path());
    let paths = docs.chain(["README.md", "CHANGELOG.md"].map(|name| root.join(name)));
    let pages = paths.filter(|path| path.extension().is_some_and(|extension| extension == "md"));
    pages.map(|path| Page { text: std::fs::read_to_string(&path).unwrap(), path }).collect()
}

/// Every file and folder of the repository, as git knows them, from its root.
fn entries() -> BTreeSet<String> {
    let listed = shell::quietly(&mut shell::command(
        "git",
        &["ls-files", "--cached", "--others", "--exclude-standard"],
    ));
    let mut all = BTreeSet::new();
    for path in listed.unwrap().lines().filter(|path| shell::root().join(path).exists()) {
        let mut folders: Vec<&str> = path.split('/').collect();
        while !folders.is_empty() {
            all.insert(folders.join("/"));
            folders.pop();
        }
    }
    all
}

/// The lines that are prose, not an example in a fence.
fn prose(text: &str) -> String {
    let mut fenced = false;
    let outside = |line: &&str| {
        let fence = line.trim_start().starts_with("```");
        fenced ^= fence;
        !fenced && !fence
    };
    text.lines().filter(outside).collect::<Vec<_>>().join("\n")
}

/// What links lead to.
fn links(text: &str) -> Vec<&str> {
    let parts = text.split("](").skip(1);
    parts.filter_map(|rest| rest.split_once(')').map(|(target, _)| target)).collect()
}

/// What stands between backticks.
fn code(text: &str) -> Vec<&str> {
    text.split('`').skip(1).step_by(2).collect()
}

/// A heading as links write it: `## What is *there*` is `what-is-there`.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    let slug = |heading: &str| {
        let kept = heading.trim_start_matches('#').trim().chars();
        let kept = kept.filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
        kept.collect::<String>().to_lowercase().replace(' ', "-")
    };
    headings.map(slug).collect()
}

/// `a/{b,c}.rs` is `a/b.rs` and `a/c.rs`.
fn expanded(path: &str) -> Vec<String> {
    let Some((before, rest)) = path.split_once('{') else { return vec![path.to_owned()] };
    let Some((inside, after)) = rest.split_once('}') else { return vec![path.to_owned()] };
    inside.split(',').flat_map(|one| expanded(&format!("{before}{}{after}", one.trim()))).collect()
}

/// Why a link leads nowhere; `None` where it leads somewhere, or out of the repository.
fn broken(page: &Page, target: &str) -> Option<String> {
    if target.contains("://") {
        return None;
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let folder = page.path.parent().unwrap_or(Path::new("/"));
    let path = if file.is_empty() { page.path.clone() } else { folder.join(file) };
    if !path.exists() {
        return Some(format!("({target}) leads to nothing"));
    }
    let text = anchor.map(|anchor| (anchor, prose(&std::fs::read_to_string(&path).unwrap_or_default())));
    let (anchor, text) = text?;
    (!anchors(&text).contains(anchor)).then(|| format!("({target}) leads to no heading"))
}

/// Whether a piece of code is a path of this repository: it begins with one of its folders, or is a file of Rust's.
fn is_path(code: &str, entries: &BTreeSet<String>) -> bool {
    let plain = code.chars().all(|c| c.is_ascii_alphanumeric() || "_-./{},".contains(c));
    let rust = is_rust(code);
    let below = code.split_once('/').is_some_and(|(first, _)| first != "target" && entries.contains(first));
    plain && (rust || below)
}

fn is_rust(path: &str) -> bool {
    Path::new(path).extension().is_some_and(|extension| extension == "rs")
}

/// A path from the root; a file of Rust's may be named by its last parts, after one that stands beside it.
fn is_there(path: &str, entries: &BTreeSet<String>) -> bool {
    let path = path.trim_end_matches('/');
    entries.contains(path)
        || (is_rust(path) && entries.iter().any(|entry| entry.ends_with(&format!("/{path}"))))
}

#[test]
fn every_link_leads_somewhere() {
    let mut broken_links = Vec::new();
    for page in pages() {
        let text = prose(&page.text);
        let found = links(&text).into_iter().filter_map(|target| broken(&page, target));
        broken_links.extend(found.map(|problem| format!("{}: {problem}", page.path.display())));
    }
    assert!(broken_links.is_empty(), "{}", broken_links.join("\n"));
}

#[test]
fn every_path_that_is_named_is_there() {
    let entries = entries();
    let mut missing = Vec::new();
    for page in pages() {
        for code in code(&prose(&page.text)).into_iter().filter(|code| is_path(code, &entries)) {
            let paths = expanded(code).into_iter().filter(|path| !is_there(path, &entries));
            missing.extend(paths.map(|path| format!("{}: `{path}`", page.path.display())));
        }
    }
    assert!(missing.is_empty(), "not in the repository:\n{}", missing.join("\n"));
}

#[test]
fn paths_and_links_are_told_from_all_else() {
    let entries = entries();
    for path in ["xtask/src/docs.rs", "docs.rs", "docs/", "xtask/src/{docs,shell}.rs", "gone.rs", "docs/gone"]
    {
        assert!(is_path(path, &entries), "{path}");
    }
    for other in ["cargo xtask test", "spec/x", "imageTag", "target/bench.json", "$(x).rs", "a b.rs"] {
        assert!(!is_path(other, &entries), "{other}");
    }
    assert_eq!(expanded("a/{b,c}/{d,e}.rs"), ["a/b/d.rs", "a/b/e.rs", "a/c/d.rs", "a/c/e.rs"]);
    assert!(is_there("docs/", &entries) && is_there("src/docs.rs", &entries));
    assert!(!is_there("docs/gone.md", &entries) && !is_there("cs.rs", &entries));
    assert_eq!(links("[a](b.md#c) and [d](https://e)"), ["b.md#c", "https://e"]);
    assert_eq!(code("`a` and `b/c.rs`"), ["a", "b/c.rs"]);
    assert!(anchors("# How *it* works, `so`\n").contains("how-it-works-so"));
    assert_eq!(prose("a\n```sh\nb\n```\nc"), "a\nc");
}
