use std::collections::BTreeMap;

use tenantry_planner::policy::{Lack, Wants};

use super::super::Seen;
use super::*;

fn place(json: serde_json::Value) -> Place {
    let mut all = serde_json::json!({"project": "acme", "directory": "/srv/acme"});
    if !json.is_null() {
        all["compose"] = json;
    }
    serde_json::from_value(all).unwrap()
}

fn discover(place: &Place, files: &[(&str, &str)]) -> Result<Option<Discovered>, Explained> {
    reading(place, files, &[])
}

/// The same on a host that has files outside of the directory; the policy grants all but those that say `-`.
fn reading(
    place: &Place,
    files: &[(&str, &str)],
    outside: &[(&str, &str)],
) -> Result<Option<Discovered>, Explained> {
    let all = |files: &[(&str, &str)]| -> BTreeMap<String, Vec<u8>> {
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect()
    };
    let (files, outside) = (all(files), all(outside));
    let read = move |path: &RelativePath| Ok(files.get(path.as_str()).cloned());
    let elsewhere = move |path: &str, _: bool| match outside.get(path) {
        Some(text) if text == b"-" => Ok(Seen::Lacking(vec![Lack::never("is not granted")])),
        text => Ok(Seen::Text(text.cloned())),
    };
    inputs(place, &read, &elsewhere)
}

fn names(paths: &[RelativePath]) -> Vec<&str> {
    paths.iter().map(RelativePath::as_str).collect()
}

const PLAIN: serde_json::Value = serde_json::Value::Null;

#[test]
fn plain_compose_takes_the_first_name_and_its_override() {
    let files = [("compose.yml", ""), ("docker-compose.yml", ""), ("docker-compose.override.yml", "")];
    let found = discover(&place(PLAIN), &files).unwrap().unwrap();
    assert_eq!(names(&found.files), ["compose.yml", "docker-compose.override.yml"]);
    assert!(found.typed_arguments(&place(PLAIN)).is_empty());
    assert_eq!(discover(&place(PLAIN), &[("x.yml", "")]).unwrap(), None);
}

#[test]
fn the_env_file_chooses_files_profiles_and_project() {
    let env = "COMPOSE_FILE=a.yml:b/c.yml\nCOMPOSE_PROFILES=x, y\nCOMPOSE_PROJECT_NAME=other\n";
    let found = discover(&place(PLAIN), &[(".env", env), ("a.yml", ""), ("b/c.yml", "")]).unwrap().unwrap();
    assert_eq!(names(&found.files), ["a.yml", "b/c.yml"]);
    assert_eq!(found.profiles, ["x", "y"]);
    let typed = found.typed_arguments(&place(PLAIN)).join(" ");
    assert_eq!(typed, "-p acme -f a.yml -f b/c.yml --profile x --profile y");
}

#[test]
fn the_tenants_own_choice_wins_and_is_shown() {
    let place = place(serde_json::json!({"files": ["deploy/c.yml"], "profiles": []}));
    let found = discover(&place, &[("deploy/c.yml", "name: acme"), ("compose.yml", "")]).unwrap().unwrap();
    assert_eq!(found.typed_arguments(&place).join(" "), "-p acme -f deploy/c.yml --project-directory .");
}

#[test]
fn every_file_that_the_model_is_read_from_is_an_input() {
    let files = [
        ("docker-compose.yml", "include: [sub/a.yml]\nservices: {w: {env_file: w.env}}"),
        ("sub/a.yml", "services: {x: {extends: {file: ../base.yml, service: y}}}"),
    ];
    let found = discover(&place(PLAIN), &files).unwrap().unwrap();
    for input in [".env", "docker-compose.yml", "sub/a.yml", "base.yml", "w.env", "compose.yaml"] {
        assert!(names(&found.inputs).contains(&input), "{input}: {:?}", found.inputs);
    }
}

#[test]
fn files_that_are_not_of_this_host_or_ours_are_refused() {
    for (bad, why) in [
        ("include: ['https://example.org/x.yml']", "not on this host"),
        ("include: ['${X:?set it}.yml']", "depends on variables: X is not set"),
        ("include: ['github.com/a/b']", "not on this host"),
        ("include: ['oci://example.org/a']", "not on this host"),
        ("include: ['git@example.org:a/b']", "not on this host"),
        ("include: ['../../../x.yml']", "climbs above /"),
        ("include: [.tenantry/stage/x.yml]", "agent's own folder"),
        ("include: [../acme/.tenantry/stage/x.yml]", "agent's own folder"),
        ("services: {w: {extends: {file: 'https://example.org/x.yml', service: y}}}", "not on this host"),
        ("services: {w: {env_file: '${X}'}}", "is empty: its variables are not set"),
        ("services: {w: {label_file: ~x/l}}", "services.w.label_file"),
        ("include: [{path: a.yml, project_directory: ../../../x}]", "include[0].project_directory"),
        ("include: [{path: a.yml, project_directory: .tenantry}]", "agent's own folder"),
        ("services: {w: {env_file: 'https://example.org/x.env'}}", "not on this host"),
        ("x-a: &a {label_file: .tenantry/l}\nservices: {w: {<<: *a}}", "services.w.label_file"),
        ("services: {}\n---\ninclude: [.tenantry/x]", "agent's own folder"),
    ] {
        let error = discover(&place(PLAIN), &[("compose.yml", bad)]).unwrap_err();
        assert_eq!(error.category, FailureCategory::PathRefused, "{bad}");
        assert!(error.message.contains(why) && error.message.starts_with("compose.yml"), "{}", error.message);
    }
}

#[test]
fn p13_what_leaves_the_directory_is_left_to_the_policy_and_not_read_before() {
    for (file, path, at) in [
        ("include: [../other.yml]", "/srv/other.yml", "include[0]"),
        ("include: [/etc/x.yml]", "/etc/x.yml", "include[0]"),
        ("include: ['sub/../../x.yml']", "/srv/x.yml", "include[0]"),
        ("include: [{path: [ok.yml, ../x.yml]}]", "/srv/x.yml", "include[0].path[1]"),
        ("include: [{path: ok.yml, env_file: ../x.env}]", "/srv/x.env", "include[0].env_file"),
        ("include: [{path: a.yml, project_directory: ../y}]", "/srv/y/.env", "include[0].path"),
        ("services: {w: {extends: {file: ../x.yml, service: y}}}", "/srv/x.yml", "services.w.extends.file"),
        (
            "x-a: &a {label_file: /etc/shadow}\nservices: {w: {<<: *a}}",
            "/etc/shadow",
            "services.w.label_file",
        ),
        ("services: {}\n---\ninclude: [../other.yml]", "/srv/other.yml", "include[0]"),
    ] {
        let found = reading(&place(PLAIN), &[("compose.yml", file)], &[(path, "-")]).unwrap().unwrap();
        let [violation] = found.outside.lacking.as_slice() else { panic!("{file}: {:?}", found.outside) };
        assert!(violation.at.starts_with(&format!("compose.yml: {at}")), "{}", violation.at);
        assert_eq!(found.outside.demands().count(), 0, "nothing is known of it");
    }
}

#[test]
fn what_an_outside_file_names_is_followed_and_all_of_it_is_asked_for() {
    let files = [(
        "compose.yml",
        "include: [../net.yml]\nservices: {w: {extends: {file: ../base/b.yml, service: x}}}",
    )];
    let outside = [
        ("/srv/net.yml", "services: {n: {env_file: n.env, label_file: l}}"),
        ("/srv/.env", "A=b"),
        ("/srv/l", "a=b"),
        (
            "/srv/base/b.yml",
            "services: {x: {extends: {file: ../acme/own.yml, service: y}, env_file: ../acme/w.env}}",
        ),
    ];
    let found = reading(&place(PLAIN), &files, &outside).unwrap().unwrap();
    let asked: Vec<String> = found
        .outside
        .demands()
        .map(|demand| match demand.wants {
            Wants::Read(path) => format!("{} {path}", demand.at),
            other => panic!("{other:?}"),
        })
        .collect();
    for asks in [
        "compose.yml: include[0] /srv/net.yml",
        "compose.yml: include[0], and .env beside it /srv/.env",
        "/srv/net.yml: services.n.label_file /srv/l",
        "compose.yml: services.w.extends.file /srv/base/b.yml",
    ] {
        assert!(asked.iter().any(|one| one == asks), "{asks}: {asked:?}");
    }
    assert_eq!((asked.len(), found.env_files_outside), (4, true));
    // What is in the directory stays the tenant's own, from wherever it is named.
    assert_eq!(names(&found.compose_files), ["compose.yml", "own.yml"]);
    assert!(names(&found.inputs).contains(&"w.env") && found.outside.is_read());
    let back = discover(&place(PLAIN), &[("compose.yml", "include: [../acme/a.yml]")]).unwrap().unwrap();
    assert!(names(&back.compose_files).contains(&"a.yml") && back.outside.is_read());
    let inside = discover(&place(PLAIN), &[("compose.yml", "include: [sub/../a.yml]")]).unwrap().unwrap();
    assert!(!inside.outside.is_read());
}

#[test]
fn p15_a_chain_of_outside_files_ends_somewhere() {
    let chain: Vec<(String, String)> =
        (0..100).map(|n| (format!("/srv/i{n}.yml"), format!("include: [i{}.yml]", n + 1))).collect();
    let chain: Vec<(&str, &str)> = chain.iter().map(|(path, text)| (path.as_str(), text.as_str())).collect();
    let error = reading(&place(PLAIN), &[("compose.yml", "include: [../i0.yml]")], &chain).unwrap_err();
    assert!(error.message.contains("more than 64"), "{}", error.message);
    let files = [("compose.yml", "include: [../a.yml]")];
    let error = reading(&place(PLAIN), &files, &[("/srv/a.yml", "services: {w: {provider: {type: sh}}}")]);
    assert!(error.unwrap_err().message.starts_with("/srv/a.yml: services.w.provider"));
}

#[test]
fn p13_what_compose_must_not_see_is_refused_before_it_is_run() {
    for (bad, why) in [
        ("services: {w: {provider: {type: sh}}}", "services.w.provider"),
        ("services: {w: {models: [m]}}", "services.w.models"),
        ("models: {m: {model: x}}", "models"),
        ("include: ../x.yml", "include: is not a list"),
        ("include: [{path: a.yml, project_directory: [x]}]", "include[0].project_directory"),
        ("services: {w: {env_file: [{file: x}]}}", "services.w.env_file[0]: is not a path"),
        ("services: [", "can't be read as YAML"),
    ] {
        let error = discover(&place(PLAIN), &[("compose.yml", bad)]).unwrap_err();
        assert_eq!(error.category, FailureCategory::ComposeInvalid, "{bad}");
        assert!(error.message.contains(why) && error.message.starts_with("compose.yml"), "{}", error.message);
    }
}

#[test]
fn what_an_included_file_names_is_seen_from_its_own_folder() {
    let files = [
        ("compose.yml", "include: [sub/a.yml]"),
        ("sub/a.yml", "services: {w: {env_file: [a.env, ../b.env]}}"),
    ];
    let found = discover(&place(PLAIN), &files).unwrap().unwrap();
    for input in ["sub/a.env", "b.env", "sub/.env"] {
        assert!(names(&found.inputs).contains(&input), "{input}: {:?}", found.inputs);
    }
    let leaves =
        [("compose.yml", "include: [sub/a.yml]"), ("sub/a.yml", "services: {w: {label_file: ../../b.env}}")];
    let found = reading(&place(PLAIN), &leaves, &[("/srv/b.env", "-")]).unwrap().unwrap();
    assert_eq!(found.outside.lacking[0].at, "sub/a.yml: services.w.label_file");
}

#[test]
fn environment_files_of_services_may_lie_elsewhere_and_are_left_to_the_policy() {
    for (file, outside, inputs) in [
        ("services: {w: {env_file: ../.env}}", true, &[".env", "compose.yml"][..]),
        ("services: {w: {env_file: [a.env, {path: /etc/app.env, required: false}]}}", true, &["a.env"]),
        ("include: [sub/a.yml]", true, &["a.env", "sub/a.yml"]),
        ("services: {w: {env_file: [a.env, sub/../b.env]}}", false, &["a.env", "b.env"]),
    ] {
        let files =
            [("compose.yml", file), ("sub/a.yml", "services: {w: {env_file: [../../b.env, ../a.env]}}")];
        let found = discover(&place(PLAIN), &files).unwrap().unwrap();
        assert_eq!(found.env_files_outside, outside, "{file}");
        for input in inputs {
            assert!(names(&found.inputs).contains(input), "{file}: {:?}", found.inputs);
        }
    }
}

#[test]
fn what_an_included_file_names_is_seen_from_the_folder_that_its_include_gives() {
    let files = [
        (".env", "ENVF=web.env\n"),
        ("compose.yml", "include: [{path: [sub/a.yml, sub/b.yml], project_directory: parts/one}]"),
        ("sub/a.yml", "services: {w: {env_file: [a.env, '${ENVF}', /srv/acme/c.env]}}"),
        ("sub/b.yml", "services: {w: {env_file: b.env}}"),
    ];
    let found = discover(&place(PLAIN), &files).unwrap().unwrap();
    for input in
        ["parts/one/a.env", "parts/one/b.env", "parts/one/web.env", "parts/one/.env", "c.env", "sub/b.yml"]
    {
        assert!(names(&found.inputs).contains(&input), "{input}: {:?}", found.inputs);
    }
    assert_eq!(names(&found.folders), ["parts/one"]);
    assert!(!names(&found.inputs).contains(&"sub/.env"), "{:?}", found.inputs);
    assert_eq!(names(&found.named_from_root), [""; 0], "an environment file is not read by compose");

    let here = [
        ("compose.yml", "include: [{path: sub/a.yml, project_directory: .}]"),
        ("sub/a.yml", "services: {w: {env_file: a.env}}"),
    ];
    let found = discover(&place(PLAIN), &here).unwrap().unwrap();
    assert!(names(&found.inputs).contains(&"a.env"), "{:?}", found.inputs);
    let rooted = [("compose.yml", "include: [/srv/acme/sub/a.yml]"), ("sub/a.yml", "services: {}")];
    let found = discover(&place(PLAIN), &rooted).unwrap().unwrap();
    assert_eq!(names(&found.named_from_root), ["sub/a.yml"]);
}

#[test]
fn a_setting_that_is_made_of_others_is_what_compose_makes_of_it() {
    let env = "DOC_ENGINE=${DOC_ENGINE:-elastic}\nDEVICE=cpu\nCOMPOSE_PROFILES=${DOC_ENGINE},${DEVICE}\n\
               X=1\nCOMPOSE_FILE=${X}.yml:a$$b.yml\n";
    let files = [(".env", env), ("1.yml", ""), ("a$b.yml", ""), ("compose.yml", "")];
    let found = discover(&place(PLAIN), &files).unwrap().unwrap();
    assert_eq!(names(&found.files), ["1.yml", "a$b.yml"]);
    assert_eq!(found.profiles, ["elastic", "cpu"]);
    let error = discover(&place(PLAIN), &[(".env", "COMPOSE_FILE=${X:?no}.yml\n")]).unwrap_err();
    assert!(
        error.message.contains("COMPOSE_FILE depends on other variables: X is not set"),
        "{}",
        error.message
    );
}

#[test]
fn a_projects_name_that_depends_on_others_is_left_to_compose() {
    let files = [(".env", "APP=shop\nCOMPOSE_PROJECT_NAME=${APP}_prod\n"), ("compose.yml", "name: other")];
    let found = discover(&place(PLAIN), &files).unwrap().unwrap();
    assert_eq!(found.plain_name, None);
    assert_eq!(found.typed_arguments(&place(PLAIN)).join(" "), "-p acme -f compose.yml");
}

#[test]
fn a_folders_name_becomes_a_projects_name_as_in_compose() {
    for (folder, name) in [("Acme.Org", "acmeorg"), ("_x-1", "x-1"), ("a b", "ab")] {
        assert_eq!(normal_name(folder), name);
    }
}
