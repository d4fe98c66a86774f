//! Paths that can't lie beside each other.

use std::collections::BTreeMap;

use tenantry_api::names::RelativePath;

/// The first path that another would hide, also on a file system that folds case or composes characters; with its
/// place in the list and what is wrong.
pub fn path_conflict<'a>(paths: impl Iterator<Item = &'a RelativePath> + Clone) -> Option<(usize, String)> {
    let mut seen: BTreeMap<String, &RelativePath> = BTreeMap::new();
    for (at, path) in paths.clone().enumerate() {
        if let Some(other) = seen.insert(folded(path.as_str()), path) {
            let how =
                if other == path { "twice" } else { "under names that some file systems do not tell apart" };
            return Some((at, format!("{other} and {path} are the same destination {how}")));
        }
    }
    for (at, path) in paths.enumerate() {
        let mut above = path.parent();
        while let Some(folder) = above {
            if let Some(other) = seen.get(&folded(folder.as_str())) {
                return Some((at, format!("{other} is a file, so {path} can't lie beneath it")));
            }
            above = folder.parent();
        }
    }
    None
}

fn folded(path: &str) -> String {
    let composed = icu_normalizer::ComposingNormalizerBorrowed::new_nfkc().normalize(path).into_owned();
    composed.to_lowercase()
}
