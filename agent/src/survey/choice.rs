//! What the containers of a project tell of how it was started, where that is not what plain compose would choose.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tenantry_api::names::RelativePath;
use tenantry_planner::images::settings::same_reference;
use tenantry_planner::model::Model;
use tenantry_planner::text::listed;
use tenantry_protocol::{ComposeChoice, Place};

use crate::compose::Discovered;
use crate::engine::ComposeContainer;

/// How long compose may take to tell a project's name.
pub(super) const ASK_LIMIT: Duration = Duration::from_mins(1);
/// How many names a sentence spells out.
const SHOWN: usize = 3;

/// The files that the containers were made from, where plain compose would choose others, or none.
pub(super) fn files(
    plain: Option<&Discovered>,
    place: &Place,
    containers: &[ComposeContainer],
) -> Option<ComposeChoice> {
    let real = Path::new(place.directory.as_str());
    let made = containers.iter().filter(|one| one.is_from(real) && !one.files.is_empty());
    let used: BTreeSet<&[String]> = made.map(|one| one.files.as_slice()).collect();
    let [used] = used.into_iter().collect::<Vec<_>>()[..] else { return None };
    let within = |path: &String| {
        let path = Path::new(path);
        let beneath = |path: &Path| path.strip_prefix(real).map(Path::to_owned).ok();
        let path = beneath(path).or_else(|| beneath(&std::fs::canonicalize(path).ok()?))?;
        RelativePath::parse(path.to_str()?).ok()
    };
    let files: Vec<RelativePath> = used.iter().map(within).collect::<Option<_>>()?;
    plain.is_none_or(|plain| files != plain.files).then(|| ComposeChoice { files, profiles: Vec::new() })
}

/// The profiles that have to be switched on for what runs, where they are not.
pub(super) fn profiles(
    all: &Value,
    discovered: &Discovered,
    place: &Place,
    containers: &[ComposeContainer],
) -> Option<ComposeChoice> {
    let real = Path::new(place.directory.as_str());
    let mut on: Vec<String> = discovered.profiles.clone();
    for container in containers.iter().filter(|one| one.running && one.is_from(real)) {
        let named = all["services"][container.service.as_str()]["profiles"].as_array();
        let named: Vec<&str> = named.into_iter().flatten().filter_map(Value::as_str).collect();
        if !named.is_empty() && !named.iter().any(|name| on.iter().any(|on| on == name)) {
            on.extend(named.first().map(|name| (*name).to_owned()));
        }
    }
    if on == discovered.profiles {
        return None;
    }
    let files = place.compose.as_ref().map(|choice| choice.files.clone()).unwrap_or_default();
    Some(ComposeChoice { files, profiles: on })
}

/// What a person should know before the project is taken over, a sentence each.
pub(super) fn cautions(place: &Place, model: &Model, containers: &[ComposeContainer]) -> Vec<String> {
    let mut all = Vec::new();
    let directory = place.directory.as_str();
    let again = "run `docker compose up -d` there, or it stops at first contact";
    let elsewhere: BTreeSet<&str> = containers
        .iter()
        .map(|one| one.directory.trim_end_matches('/'))
        .filter(|from| *from != directory)
        .collect();
    if !elsewhere.is_empty() {
        let from: Vec<&str> = elsewhere.into_iter().collect();
        all.push(format!(
            "Containers of {} were made from {}, not from {directory}: go to {directory} and {again}.",
            place.project,
            listed(&from, SHOWN)
        ));
    }
    let other_image = |one: &&ComposeContainer| {
        let wanted = model.services.get(one.service.as_str());
        let (Some(wanted), Some(image)) = (wanted, &one.image) else { return false };
        !same_reference(&wanted.image, image)
    };
    for one in containers.iter().filter(other_image).take(SHOWN) {
        let image = one.image.as_deref().unwrap_or_default();
        all.push(format!(
            "{} runs {image}, and the compose files say otherwise: go to {directory} and {again}.",
            one.name
        ));
    }
    let named: BTreeSet<&String> = containers.iter().flat_map(|one| &one.env_files).collect();
    let other_env = |path: &&&String| Path::new(path.as_str()) != Path::new(directory).join(".env");
    if let Some(other) = named.iter().find(other_env) {
        all.push(format!(
            "It was started with --env-file {other}; only .env in {directory} is read. Put what is needed there."
        ));
    }
    all
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use tenantry_api::names::{Directory, ProjectName};

    use super::*;
    use crate::compose::inputs;

    fn place() -> Place {
        let (project, directory) =
            (ProjectName::parse("shop").unwrap(), Directory::parse("/srv/shop").unwrap());
        Place { project, directory, compose: None }
    }

    fn plain() -> Discovered {
        let read = |path: &RelativePath| {
            Ok((path.as_str() == "compose.yaml").then(|| b"services: {web: {image: x}}".to_vec()))
        };
        inputs(&place(), &read, &|_: &str, _| Ok(crate::compose::Seen::Text(None))).unwrap().unwrap()
    }

    fn container(service: &str, files: &[&str]) -> ComposeContainer {
        ComposeContainer {
            name: format!("shop-{service}-1"),
            project: "shop".to_owned(),
            service: service.to_owned(),
            directory: "/srv/shop".to_owned(),
            files: files.iter().map(|file| (*file).to_owned()).collect(),
            running: true,
            ..ComposeContainer::default()
        }
    }

    /// Containers are told apart by `|`, and their files by `,`.
    #[rstest::rstest]
    #[case::what_plain_compose_takes("/srv/shop/compose.yaml", "")]
    #[case::others("/srv/shop/compose.yaml,/srv/shop/prod/extra.yml", "compose.yaml,prod/extra.yml")]
    #[case::outside("/etc/compose.yaml", "")]
    #[case::not_all_the_same("/srv/shop/a.yml|/srv/shop/b.yml", "")]
    fn files_are_said_where_plain_compose_would_take_others(#[case] used: &str, #[case] said: &str) {
        let of = |files: &str| container("web", &files.split(',').collect::<Vec<_>>());
        let containers: Vec<ComposeContainer> = used.split('|').map(of).collect();
        assert_eq!(chosen(Some(&plain()), &containers), said);
    }

    #[test]
    fn files_are_said_where_plain_compose_would_find_none() {
        let containers = [container("web", &["/srv/shop/docker-compose.prod.yml"])];
        assert_eq!(chosen(None, &containers), "docker-compose.prod.yml");
        assert_eq!(chosen(None, &[]), "");
    }

    fn chosen(plain: Option<&Discovered>, containers: &[ComposeContainer]) -> String {
        let found = files(plain, &place(), containers).map(|choice| choice.files).unwrap_or_default();
        found.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
    }

    #[test]
    fn a_profile_is_switched_on_for_what_runs_and_for_nothing_else() {
        let model = json!({"services": {
            "web": {}, "jobs": {"profiles": ["prod"]}, "debug": {"profiles": ["dev"]},
        }});
        let stopped = ComposeContainer { running: false, ..container("debug", &[]) };
        let all = [container("web", &[]), container("jobs", &[]), stopped];
        assert_eq!(profiles(&model, &plain(), &place(), &all).unwrap().profiles, ["prod"]);
        assert_eq!(profiles(&model, &plain(), &place(), &all[..1]), None);
    }

    #[test]
    fn what_would_stop_it_at_first_contact_is_told_before() {
        let json = br#"{"name": "shop", "services": {"web": {"image": "r/shop:v2"}}}"#;
        let model = Model::parse(json, "/srv/shop", "/srv/shop").unwrap();
        let same = ComposeContainer { image: Some("r/shop:v2".to_owned()), ..container("web", &[]) };
        assert_eq!(cautions(&place(), &model, std::slice::from_ref(&same)), [""; 0]);
        let other = ComposeContainer { image: Some("r/shop:v1".to_owned()), ..same.clone() };
        let elsewhere = ComposeContainer { directory: "/home/shop".to_owned(), ..same.clone() };
        let env = ComposeContainer { env_files: vec!["/srv/shop/prod.env".to_owned()], ..same };
        for (one, says) in [
            (other, "shop-web-1 runs r/shop:v1"),
            (elsewhere, "/home/shop"),
            (env, "--env-file /srv/shop/prod.env"),
        ] {
            let told = cautions(&place(), &model, &[one]);
            assert!(told.len() == 1 && told[0].contains(says), "{told:?}");
        }
    }
}
