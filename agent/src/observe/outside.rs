//! Compose files outside of a tenant's directory, read where the local policy grants it (P13).

use std::path::Path;

use tenantry_api::names::Directory;
use tenantry_planner::policy::{Lack, Policy};
use tenantry_protocol::FailureCategory;

use crate::compose::{Explained, ReadOutside, Seen};
use crate::files::{FILE_LIMIT, FilesError, read_real, real};

/// Who reads files outside of a tenant's directory.
#[derive(Clone, Copy)]
pub enum Reader<'a> {
    /// The agent, as far as the local policy grants it.
    Agent(&'a Policy),
    /// A person on the host, who is shown what the agent would have to be granted.
    Person,
}

impl<'a> Reader<'a> {
    /// Reads for a tenant in `directory`.
    pub fn of(self, directory: &'a Directory) -> impl ReadOutside + 'a {
        move |path: &str, may_miss: bool| self.read(directory.as_str(), path, may_miss)
    }

    fn read(self, directory: &str, path: &str, may_miss: bool) -> Result<Seen, Explained> {
        let refused = |problem| Explained::new(FailureCategory::PathRefused, format!("{path} {problem}"));
        let leads = real(Path::new(path)).map_err(refused)?;
        if may_miss && std::fs::symlink_metadata(&leads).is_err() {
            return Ok(Seen::Text(None));
        }
        if let Self::Agent(policy) = self {
            let lacks = lacking(policy, directory, path, &leads);
            if !lacks.is_empty() {
                return Ok(Seen::Lacking(lacks));
            }
        }
        // What was judged is what is read: no link is followed any more.
        read_real(&leads, FILE_LIMIT).map(Seen::Text).map_err(|error| {
            let said = match &error {
                FilesError::Refused { found, .. } => found.clone(),
                other => other.to_string(),
            };
            Explained::new(error.category(), format!("{path}: {said}"))
        })
    }
}

/// What it takes to read a file, by its name and by where it leads.
fn lacking(policy: &Policy, directory: &str, path: &str, leads: &Path) -> Vec<Lack> {
    let mut lacks = policy.path(directory, path, true, false);
    if leads != Path::new(path) {
        let by_link = policy.led_to(directory, path, &leads.display().to_string(), true, false);
        let told = |lack: Lack| Lack {
            problem: format!("{path} leads there by a symlink: {}", lack.problem),
            ..lack
        };
        lacks.extend(by_link.into_iter().map(told));
    }
    lacks
}

#[cfg(test)]
mod tests {
    use tenantry_planner::policy::AllowedMount;

    use super::*;

    #[test]
    fn p13_a_file_is_read_only_where_its_name_and_where_it_leads_are_granted() {
        let folder = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir(top.join("acme")).unwrap();
        std::fs::create_dir(top.join("other")).unwrap();
        std::fs::write(top.join("other/base.yml"), "services: {}").unwrap();
        std::os::unix::fs::symlink("other/base.yml", top.join("link.yml")).unwrap();
        std::os::unix::fs::symlink("base.yml", top.join("other/round.yml")).unwrap();
        let directory = Directory::parse(top.join("acme").display().to_string()).unwrap();
        let at = |path: &str| top.join(path).display().to_string();
        let read = |granted: &[&str], path: &str, may_miss: bool| {
            let mount = |path: &&str| AllowedMount { path: at(path), read_only: true };
            let policy = Policy { mounts: granted.iter().map(mount).collect(), ..Policy::default() };
            match Reader::Agent(&policy).of(&directory)(&at(path), may_miss).unwrap() {
                Seen::Lacking(lacks) => Err(lacks.len()),
                Seen::Text(text) => Ok(text.is_some()),
            }
        };
        assert_eq!(read(&[], "other/base.yml", false), Err(1));
        assert_eq!(read(&["other/base.yml"], "other/base.yml", false), Ok(true));
        assert_eq!(read(&["other"], "other/round.yml", false), Ok(true));
        assert_eq!(read(&["link.yml"], "link.yml", false), Err(1), "where it leads counts");
        assert_eq!(read(&["link.yml", "other"], "link.yml", false), Ok(true));
        assert_eq!(read(&[], "link.yml", false), Err(2));
        assert_eq!(read(&[], "other/.env", false), Err(1));
        assert_eq!(read(&[], "other/.env", true), Ok(false));
        assert_eq!(read(&["other"], "other/.env", false), Ok(false));
        // Nor where a folder or anything else than a file is.
        let policy =
            Policy { mounts: vec![AllowedMount { path: at("other"), read_only: true }], ..Policy::default() };
        assert!(Reader::Agent(&policy).of(&directory)(&at("other"), false).is_err());
        // A person is asked for nothing; nobody reads what the agent keeps for a tenant.
        assert!(matches!(Reader::Person.of(&directory)(&at("link.yml"), false), Ok(Seen::Text(Some(_)))));
    }

    #[test]
    fn p13_neither_the_engines_socket_nor_the_agents_own_files_are_read() {
        let policy = Policy {
            mounts: vec![AllowedMount { path: "/".to_owned(), read_only: false }],
            sockets: vec!["/run/docker.sock".to_owned()],
            private: vec!["/var/lib/tenantry".to_owned()],
            ..Policy::default()
        };
        for path in ["/run/docker.sock", "/var/lib/tenantry/key"] {
            assert_eq!(lacking(&policy, "/srv/acme", path, Path::new(path)).len(), 1, "{path}");
        }
    }
}
