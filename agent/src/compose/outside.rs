//! Compose files outside of the tenant's directory that a compose file includes or extends, and what else compose reads with
//! them. They are the host's: read, and never written. The local policy judges each before it is read (P13).

use tenantry_planner::policy::{Demand, Lack, Violation, Wants};

use super::Explained;

/// A file outside of the tenant's directory that the model is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutsideFile {
    /// From `/`, as it is named.
    pub path: String,
    /// What names it, for people.
    pub at: String,
    /// Whether it is a compose file; otherwise it is one of environment variables or labels.
    pub compose: bool,
    /// Whether it was named from `/`: a staged compose reads it there.
    pub from_root: bool,
    /// What it says; absent where there is none.
    pub text: Option<Vec<u8>>,
}

/// What is outside of the tenant's directory and counts for the model.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outside {
    /// The files, each once.
    pub files: Vec<OutsideFile>,
    /// Folders that paths of included files are seen from.
    pub folders: Vec<String>,
    /// What the local policy does not grant: nothing was read of that, and compose must not.
    pub lacking: Vec<Violation>,
    /// Whether a path climbs out of the directory by `..`, even if it comes back.
    pub climbs: bool,
}

/// What is known of a file outside.
pub enum Seen {
    /// What it says; `None` where there is none.
    Text(Option<Vec<u8>>),
    /// The local policy does not grant to read it.
    Lacking(Vec<Lack>),
}

/// Reads a file outside of the directory by its path from `/`, if the local policy grants that. Of one that `may_miss` it is
/// no lack that the policy does not name it where there is none.
pub trait ReadOutside: Fn(&str, bool) -> Result<Seen, Explained> {}
impl<F: Fn(&str, bool) -> Result<Seen, Explained>> ReadOutside for F {}

impl Outside {
    /// Whether compose reads anything outside of the directory.
    pub fn is_read(&self) -> bool {
        self.climbs || !self.files.is_empty() || !self.folders.is_empty()
    }

    /// What the model asks of the host by it.
    pub fn demands(&self) -> impl Iterator<Item = Demand> {
        let there = self.files.iter().filter(|file| file.text.is_some());
        there.map(|file| Demand { at: file.at.clone(), wants: Wants::Read(file.path.clone()) })
    }

    /// Takes a file among them, and tells what it says. What the policy does not grant says nothing.
    pub(super) fn take(
        &mut self,
        mut file: OutsideFile,
        may_miss: bool,
        read: &impl ReadOutside,
    ) -> Result<Option<Vec<u8>>, Explained> {
        if let Some(known) = self.files.iter_mut().find(|known| known.path == file.path) {
            known.compose |= file.compose;
            known.from_root &= file.from_root;
            return Ok(known.text.clone());
        }
        match read(&file.path, may_miss)? {
            Seen::Text(text) => file.text.clone_from(&text),
            Seen::Lacking(lacks) => {
                let violation = |lack| Violation { at: file.at.clone(), lack };
                self.lacking.extend(lacks.into_iter().map(violation));
            }
        }
        let text = file.text.clone();
        self.files.push(file);
        Ok(text)
    }
}
