//! Symlinks that stay in the tenant's directory, followed by their text alone: each step is looked at through the
//! directory's own handle, so that none can lead out of it, whatever the tree is changed to meanwhile.

use tenantry_api::names::RelativePath;

use super::error::FilesError;
use super::stat::Stat;
use super::tree::Tree;

/// How many symlinks one path may lead through.
const MOST: usize = 8;

impl Tree {
    /// The path of what is really at `path`; `path` itself where no symlink is on the way. A symlink that leads out of the
    /// directory, or to where nothing is, is refused.
    pub fn followed(&self, path: &RelativePath) -> Result<RelativePath, FilesError> {
        let real = self.led_to(path)?;
        if real != *path && self.stat(&real)? == Stat::Missing {
            let found = format!("there is a symlink that leads to {real}, where nothing is");
            return Err(FilesError::refused(path.as_str(), found));
        }
        Ok(real)
    }

    /// The same, whether something is there or not.
    pub(super) fn led_to(&self, path: &RelativePath) -> Result<RelativePath, FilesError> {
        let mut at = path.clone();
        for _ in 0..MOST {
            if !matches!(self.stat(&at)?, Stat::Other(_)) {
                return Ok(at);
            }
            let Some((link, target)) = self.first_link(&at)? else { return Ok(at) };
            let rest = at.as_str()[link.len()..].trim_start_matches('/');
            let next = self.target(&link, &target, rest).map_err(|problem| {
                FilesError::refused(
                    path.as_str(),
                    format!("the symlink {link} leads to {target:?}, {problem}"),
                )
            })?;
            at = next;
        }
        Err(FilesError::refused(path.as_str(), format!("it leads through more than {MOST} symlinks")))
    }

    /// Reads a regular file of at most `limit` bytes, behind symlinks that stay in the directory; `None` where there is
    /// nothing.
    pub fn read_followed(&self, path: &RelativePath, limit: u64) -> Result<Option<Vec<u8>>, FilesError> {
        self.read(&self.followed(path)?, limit)
    }

    /// The first symlink on the way to a path, and what it says.
    fn first_link(&self, path: &RelativePath) -> Result<Option<(String, String)>, FilesError> {
        let text = path.as_str();
        let ends = text.match_indices('/').map(|(at, _)| at).chain([text.len()]);
        for part in ends.map(|end| &text[..end]) {
            if let Some(target) = self.root.link(part)? {
                return Ok(Some((part.to_owned(), target)));
            }
        }
        Ok(None)
    }

    /// Where a symlink leads, as a path of the directory. Folders above the link are real ones, so that `..` at the
    /// beginning means what it says; behind another name it might not.
    fn target(&self, link: &str, target: &str, rest: &str) -> Result<RelativePath, String> {
        let own = self.directory().to_str().unwrap_or_default();
        let (mut parts, written): (Vec<&str>, &str) = match target.strip_prefix('/') {
            Some(_) => {
                let below = tenantry_planner::model::beneath(own, target);
                (Vec::new(), below.ok_or("which is not in the tenant's directory")?)
            }
            None => (
                link.rsplit_once('/').map(|(folder, _)| folder.split('/').collect()).unwrap_or_default(),
                target,
            ),
        };
        let mut named = target.starts_with('/');
        for part in written.split('/').chain(rest.split('/')) {
            match part {
                "" | "." => {}
                ".." if named => return Err("with '..' in the middle: make it a plain path".to_owned()),
                ".." => drop(parts.pop().ok_or("which is not in the tenant's directory")?),
                other => {
                    named = true;
                    parts.push(other);
                }
            }
        }
        RelativePath::parse(parts.join("/")).map_err(|error| format!("where {error}"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;
    use crate::files::{DiskIo, FILE_LIMIT, Stamps};

    struct Place {
        folder: tempfile::TempDir,
        tree: Tree,
    }

    impl Place {
        fn new() -> Self {
            let folder = tempfile::tempdir().unwrap();
            let top = std::fs::canonicalize(folder.path()).unwrap();
            for path in ["acme/stack/deep", "acme/conf", "other"] {
                std::fs::create_dir_all(top.join(path)).unwrap();
            }
            std::fs::write(top.join("acme/stack/compose.yaml"), "inside").unwrap();
            std::fs::write(top.join("other/secret"), "outside").unwrap();
            let tree = Tree::open(&top.join("acme"), DiskIo::default()).unwrap();
            Self { folder, tree }
        }

        fn link(&self, at: &str, target: &str) {
            let at = self.folder.path().join("acme").join(at);
            let _ = std::fs::remove_file(&at);
            symlink(target, at).unwrap();
        }

        fn followed(&self, path: &str) -> Result<String, String> {
            let path = RelativePath::parse(path).unwrap();
            self.tree.followed(&path).map(String::from).map_err(|error| error.to_string())
        }
    }

    #[test]
    fn p13_a_link_that_stays_in_the_directory_is_followed_and_one_that_leaves_is_refused() {
        let place = Place::new();
        let own = place.tree.directory().display().to_string();
        let inside =
            [("stack/compose.yaml", "stack/compose.yaml"), ("./stack//compose.yaml", "stack/compose.yaml")];
        for (target, leads) in inside {
            place.link("compose.yaml", target);
            assert_eq!(place.followed("compose.yaml").as_deref(), Ok(leads), "{target}");
        }
        place.link("compose.yaml", &format!("{own}/stack/compose.yaml"));
        assert_eq!(place.followed("compose.yaml").as_deref(), Ok("stack/compose.yaml"));
        place.link("stack/deep/up.yaml", "../compose.yaml");
        assert_eq!(place.followed("stack/deep/up.yaml").as_deref(), Ok("stack/compose.yaml"));
        place.link("folder", "stack");
        assert_eq!(place.followed("folder/compose.yaml").as_deref(), Ok("stack/compose.yaml"));
        assert_eq!(place.followed("stack/compose.yaml").as_deref(), Ok("stack/compose.yaml"));
        assert_eq!(place.followed("conf/none").as_deref(), Ok("conf/none"));

        for target in [
            "../other/secret",
            "/etc/passwd",
            "stack/../../other/secret",
            // Behind a name that is a link itself, '..' leads elsewhere.
            "stack/../stack/compose.yaml",
            "/",
            ".",
            ".tenantry/x",
            &format!("{own}/../other/secret"),
        ] {
            place.link("compose.yaml", target);
            let refused = place.followed("compose.yaml").unwrap_err();
            assert!(
                refused.starts_with("compose.yaml: the symlink compose.yaml leads to"),
                "{target}: {refused}"
            );
        }
        place.link("compose.yaml", "nothing/there");
        assert!(
            place.followed("compose.yaml").unwrap_err().contains("leads to nothing/there, where nothing is")
        );
        place.link("a", "b");
        place.link("b", "a");
        assert!(place.followed("a").unwrap_err().contains("more than 8"));
    }

    #[test]
    fn what_is_read_through_a_link_is_the_file_behind_it() {
        let place = Place::new();
        place.link("compose.yaml", "stack/compose.yaml");
        let path = RelativePath::parse("compose.yaml").unwrap();
        assert_eq!(place.tree.read_followed(&path, FILE_LIMIT).unwrap().as_deref(), Some(&b"inside"[..]));
        assert!(place.tree.read(&path, FILE_LIMIT).is_err(), "what is not to be followed is not");
    }

    #[test]
    fn a_change_behind_a_link_and_another_link_are_noticed() {
        let place = Place::new();
        place.link("compose.yaml", "stack/compose.yaml");
        let path = RelativePath::parse("compose.yaml").unwrap();
        let stamps = || Stamps::of(&place.tree, [&path]).unwrap();
        let seen = stamps();
        assert!(seen.still_hold(Some(&place.tree)));
        std::fs::write(place.folder.path().join("acme/stack/compose.yaml"), "changed").unwrap();
        assert!(!seen.still_hold(Some(&place.tree)));
        let seen = stamps();
        place.link("compose.yaml", "stack/deep/compose.yaml");
        assert!(!seen.still_hold(Some(&place.tree)));
        let seen = stamps();
        std::fs::write(place.folder.path().join("acme/stack/deep/compose.yaml"), "now there").unwrap();
        assert!(!seen.still_hold(Some(&place.tree)));
    }
}
