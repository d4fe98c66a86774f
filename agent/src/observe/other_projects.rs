//! Other compose projects of a tenant's directory: a second stack beside one of these would have the same data.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use tenantry_api::names::Directory;
use tenantry_protocol::{ApiError, OtherProject, Place};

use crate::compose::Discovered;
use crate::engine::ComposeContainer;
use crate::host::{Host, fault};

/// At most so many containers of one project are named.
const SHOWN: usize = 8;
/// At most so many projects are told.
const PROJECTS: usize = 8;

/// Projects of other names that have containers made from the directory, running or not.
pub async fn running(host: &Arc<Host>, place: &Place) -> Result<Vec<OtherProject>, ApiError> {
    let all = host.engine.compose_containers().await.map_err(fault)?;
    let others: Vec<ComposeContainer> =
        all.into_iter().filter(|one| one.project != place.project.as_str()).collect();
    if others.is_empty() {
        return Ok(Vec::new());
    }
    let directory = place.directory.clone();
    host.blocking(move || from(&directory, &others)).await
}

fn from(directory: &Directory, others: &[ComposeContainer]) -> Vec<OtherProject> {
    let mut by_name: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for one in others.iter().filter(|one| one.is_from(Path::new(directory.as_str()))) {
        let names = by_name.entry(&one.project).or_default();
        if names.len() < SHOWN {
            names.push(one.name.clone());
        }
    }
    let told = by_name.into_iter().map(|(name, containers)| OtherProject {
        name: name.to_owned(),
        containers,
        named_by: None,
    });
    told.take(PROJECTS).collect()
}

/// The project that the directory itself names, where that is another one than the Tenant's: whoever types
/// `docker compose up` there means that one.
pub fn named(place: &Place, discovered: &Discovered) -> Option<OtherProject> {
    let (name, by) = (discovered.plain_name.as_ref()?, discovered.named_by.as_ref()?);
    (name != place.project.as_str()).then(|| OtherProject {
        name: name.clone(),
        containers: Vec::new(),
        named_by: Some(by.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn made(name: &str, project: &str, directory: &str) -> ComposeContainer {
        let (name, project, directory) = (name.to_owned(), project.to_owned(), directory.to_owned());
        ComposeContainer { name, project, directory, ..ComposeContainer::default() }
    }

    #[test]
    fn projects_of_the_directory_are_found_by_whatever_path_compose_knew_it() {
        let folder = tempfile::tempdir().unwrap();
        let root = std::fs::canonicalize(folder.path()).unwrap();
        let real = root.join("shop");
        std::fs::create_dir(&real).unwrap();
        std::os::unix::fs::symlink(&real, root.join("link")).unwrap();
        let at = |path: &str| root.join(path).display().to_string();
        let directory = Directory::parse(at("shop")).unwrap();
        let all = [
            made("a-web-1", "a", &at("shop")),
            made("b-web-1", "b", &at("link/")),
            made("c-web-1", "c", &at("shop2")),
            made("d-web-1", "d", ""),
        ];
        let found = from(&directory, &all);
        let names: Vec<(&str, &str)> =
            found.iter().map(|one| (one.name.as_str(), one.containers[0].as_str())).collect();
        assert_eq!(names, [("a", "a-web-1"), ("b", "b-web-1")]);
    }
}
