//! `templates/changemaker` has the size and shape of the real thing. Each test fails when the bundle is short of what its
//! name says.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "all of it is test code")]

mod bundle;
mod variables;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use bundle::Bundle;
use serde_json::{Map, Value};

static BUNDLE: LazyLock<Bundle> = LazyLock::new(|| Bundle::read("changemaker"));

fn services() -> &'static Map<String, Value> {
    BUNDLE.compose["services"].as_object().unwrap()
}

/// The distinct bind sources of all services, without `./`, that are single files (or directories).
fn bind_sources(files: bool) -> BTreeSet<&'static str> {
    let volumes = services().values().filter_map(|service| service["volumes"].as_array()).flatten();
    let sources = volumes.filter_map(|volume| volume.as_str()?.strip_prefix("./")?.split(':').next());
    sources
        .filter(|source| {
            let is_file = BUNDLE.is_file(source);
            is_file.unwrap_or_else(|| panic!("./{source} is mounted but neither managed nor in own/"))
                == files
        })
        .collect()
}

fn at_least(wanted: usize, what: &str, found: impl IntoIterator<Item = impl std::fmt::Debug>) {
    let found: Vec<_> = found.into_iter().collect();
    assert!(found.len() >= wanted, "{wanted} {what} are wanted, {} are there: {found:?}", found.len());
}

#[test]
fn about_40_services() {
    let count = services().len();
    assert!((40..=48).contains(&count), "{count} services");
}

#[test]
fn about_1500_lines_of_compose_file_without_padding() {
    let lines = BUNDLE.text().lines();
    let code = lines.clone().filter(|line| !line.trim().is_empty() && !line.trim_start().starts_with('#'));
    let (all, code) = (lines.count(), code.count());
    assert!((1450..=1600).contains(&all) && code >= 1350, "{all} lines, {code} of them say something");
}

#[test]
fn at_least_12_healthchecks() {
    at_least(
        12,
        "healthchecks",
        services().iter().filter(|(_, it)| it["healthcheck"]["test"].is_array()).map(|(name, _)| name),
    );
}

#[test]
fn at_least_3_one_shots() {
    let awaited = services().values().filter_map(|service| service["depends_on"].as_object()).flatten();
    let awaited =
        awaited.filter(|(_, it)| it["condition"] == "service_completed_successfully").map(|(name, _)| name);
    let one_shots: BTreeSet<_> =
        awaited.chain(&BUNDLE.jobs).filter(|name| services()[*name]["restart"] == "no").collect();
    at_least(3, "one-shots", one_shots);
}

#[test]
fn two_profiles() {
    let profiles = services().values().filter_map(|service| service["profiles"].as_array()).flatten();
    at_least(2, "profiles", profiles.filter_map(Value::as_str).collect::<BTreeSet<_>>());
}

#[test]
fn anchors_and_merge_keys() {
    at_least(6, "anchors", BUNDLE.text().lines().filter(|line| line.contains(": &")));
    let count = services().len();
    at_least(count, "merge keys", BUNDLE.text().lines().filter(|line| line.trim_start().starts_with("<<: ")));
}

#[test]
fn six_single_file_mounts_and_six_directory_mounts() {
    at_least(6, "single-file mounts", bind_sources(true));
    at_least(6, "directory mounts", bind_sources(false));
}

#[test]
fn four_services_read_the_whole_env() {
    at_least(
        4,
        "services with env_file: .env",
        services().iter().filter(|(_, it)| it["env_file"] == ".env").map(|(name, _)| name),
    );
}

#[test]
fn eight_named_volumes_that_services_use() {
    let volumes = services().values().filter_map(|service| service["volumes"].as_array()).flatten();
    let used: BTreeSet<_> = volumes.filter_map(|volume| volume.as_str()?.split(':').next()).collect();
    let declared = BUNDLE.compose["volumes"].as_object().unwrap().keys();
    at_least(8, "named volumes", declared.filter(|name| used.contains(name.as_str())));
}

#[test]
fn at_least_145_distinct_variables_in_all_forms() {
    let uses = variables::of(&BUNDLE.compose);
    for form in variables::FORMS {
        assert!(uses.contains_key(form), "no variable is written as {form}");
    }
    at_least(
        145,
        "variables",
        uses.iter().filter(|(form, _)| **form != "$$").flat_map(|(_, names)| names).collect::<BTreeSet<_>>(),
    );
}

#[test]
fn an_env_of_180_variables_that_has_all_required_ones() {
    at_least(180, "variables in example.env", BUNDLE.env.keys());
    let uses = variables::of(&BUNDLE.compose);
    for name in uses["${V:?e}"].iter().chain(&uses["${V?e}"]) {
        assert!(
            BUNDLE.env.get(name).is_some_and(|value| !value.is_empty()),
            "{name} is required and not in example.env"
        );
    }
}

#[test]
fn nginx_in_several_files() {
    at_least(4, "files of nginx", BUNDLE.files.keys().filter(|path| path.starts_with("nginx/")));
}

#[test]
fn mkdocs_is_protected_and_nothing_managed_is_below_a_protected_path() {
    assert!(BUNDLE.protect.contains(&"mkdocs/".to_owned()), "{:?}", BUNDLE.protect);
    at_least(3, "own files in mkdocs/", BUNDLE.own.iter().filter(|path| path.starts_with("mkdocs/")));
    for path in &BUNDLE.protect {
        let managed = BUNDLE.files.keys().find(|file| file.starts_with(path.as_str()));
        assert_eq!(managed, None, "{path} is protected, but the bundle manages a file in it");
    }
}

#[test]
fn images_txt_lists_what_the_compose_file_names() {
    let named: BTreeSet<_> =
        services().values().map(|service| listed(service["image"].as_str().unwrap())).collect();
    assert_eq!(named, BUNDLE.images);
}

/// An image reference as `images.txt` writes it: repository and tag, with the tag's variable looked up in `example.env`.
fn listed(reference: &str) -> String {
    let reference = reference.strip_prefix("${REGISTRY:-localhost:5000}/").expect("an image below REGISTRY");
    let (repository, tag) = reference.split_once(':').expect("a tag");
    let Some(variable) = tag.strip_prefix("${") else {
        return format!("{repository} {tag}");
    };
    let variable = variable.split(':').next().unwrap();
    match variable {
        "IMAGE_TAG" | "API_IMAGE_TAG" => format!("{repository} release"),
        _ => format!("{repository} {}", BUNDLE.env[variable]),
    }
}
