//! Whether files that were looked at are still as they were, without reading them again.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_api::names::RelativePath;

use super::error::FilesError;
use super::outside::Led;
use super::stat::Stat;
use super::tree::Tree;

/// How far apart the times of two changes must be to be told apart on any file system.
const TIMESTAMP_GRANULARITY: Duration = Duration::from_millis(50);

/// What was at each path that was looked at.
#[derive(Default)]
pub struct Stamps {
    stats: BTreeMap<RelativePath, Stat>,
    /// Where symlinks led that were followed.
    links: BTreeMap<RelativePath, RelativePath>,
    /// Files outside of the directory.
    outside: BTreeMap<String, Led>,
    /// Whether the directory itself exists.
    directory: bool,
}

impl Stamps {
    /// No stamps yet, of a directory that exists; `default()` is of one that does not.
    pub fn of_directory() -> Self {
        Self { directory: true, ..Self::default() }
    }

    /// The stamps of these paths as they are now.
    pub fn of<'a>(
        tree: &Tree,
        paths: impl IntoIterator<Item = &'a RelativePath>,
    ) -> Result<Self, FilesError> {
        let mut stamps = Self::of_directory();
        for path in paths {
            stamps.stat(tree, path)?;
        }
        Ok(stamps)
    }

    /// Adds the stamp of a path as it is now, unless it is known.
    pub fn stat(&mut self, tree: &Tree, path: &RelativePath) -> Result<(), FilesError> {
        if self.stats.contains_key(path) {
            return Ok(());
        }
        let stat = tree.stat(path)?;
        // Where a symlink leads counts, and what is there; one that leads nowhere is what it is.
        if let Some(target) = tree.led_to(path).ok().filter(|target| target != path) {
            self.links.insert(path.clone(), target.clone());
            self.stat(tree, &target)?;
        }
        self.stats.insert(path.clone(), stat);
        Ok(())
    }

    /// Adds the stamp of a file outside of the directory as it is now, unless it is known.
    pub fn outside(&mut self, path: &str) {
        if !self.outside.contains_key(path) {
            self.outside.insert(path.to_owned(), Led::of(path));
        }
    }

    /// Whether everything is still as it was. On any doubt: no.
    pub fn still_hold(&self, tree: Option<&Tree>) -> bool {
        match tree {
            None => !self.directory,
            Some(tree) => {
                self.directory
                    && self.outside.iter().all(|(path, led)| Led::of(path) == *led)
                    && self.stats.iter().all(|(path, stat)| tree.stat(path).is_ok_and(|now| now == *stat))
                    && self
                        .links
                        .iter()
                        .all(|(path, target)| tree.led_to(path).is_ok_and(|now| now == *target))
            }
        }
    }

    /// Whether the newest change is older than a timestamp is exact. Before that, a further change could get the same
    /// timestamp and go unseen.
    pub fn are_settled(&self, now: Timestamp) -> bool {
        let stats = self.stats.values().chain(self.outside.values().map(|led| &led.stat));
        let newest = stats.filter_map(|stat| match stat {
            Stat::File(stamp) | Stat::Folder(stamp) => Some(stamp.ctime_ns.max(stamp.mtime_ns)),
            Stat::Missing | Stat::Other(_) => None,
        });
        newest.max().is_none_or(|newest| {
            now.as_nanosecond() - newest > TIMESTAMP_GRANULARITY.as_nanos().cast_signed()
        })
    }

    /// Adds the stamps of other paths.
    pub fn add(&mut self, other: Self) {
        self.stats.extend(other.stats);
        self.links.extend(other.links);
        self.outside.extend(other.outside);
    }
}
