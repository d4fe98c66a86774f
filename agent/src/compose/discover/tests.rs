use std::collections::BTreeMap;

use super::*;

fn place(json: serde_json::Value) -> Place {
    let mut all = serde_json::json!({"project": "acme", "directory": "/srv/acme"});
    if !json.is_null() {
        all["compose"] = json;
    }
    serde_json::from_value(all).unwrap()
}

fn discover(place: &Place, files: &[(&str, &str)]) -> Result<Option<Discovered>, Explained> {
    let all: BTreeMap<String, Vec<u8>> =
        files.iter().map(|(path, text)| ((*path).to_owned(), text.as_bytes().to_vec())).collect();
    inputs(place, &move |path: &RelativePath| Ok(all.get(path.as_str()).cloned()))
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
fn files_that_leave_the_directory_are_refused() {
    for (bad, why) in [
        ("include: [../other.yml]", "leaves"),
        ("include: [/etc/x.yml]", "absolute"),
        ("include: ['https://example.org/x.yml']", "not on this host"),
        ("include: ['${X:?set it}.yml']", "depends on variables: X is not set"),
        ("include: [{path: [ok.yml, ../x.yml]}]", "include[0].path[1]"),
        ("include: [{path: ok.yml, env_file: ../x.env}]", "include[0].env_file"),
        ("include: ['github.com/a/b']", "not on this host"),
        ("include: ['oci://example.org/a']", "not on this host"),
        ("include: ['git@example.org:a/b']", "not on this host"),
        ("include: ['sub/../../x.yml']", "leaves"),
        ("include: [.tenantry/stage/x.yml]", "agent's own folder"),
        ("services: {w: {extends: {file: ../x.yml, service: y}}}", "services.w.extends.file"),
        ("services: {w: {extends: {file: 'https://example.org/x.yml', service: y}}}", "not on this host"),
        ("services: {w: {env_file: '${X}'}}", "is empty: its variables are not set"),
        ("services: {w: {label_file: ~/l}}", "services.w.label_file"),
        ("include: [{path: a.yml, project_directory: /}]", "include[0].project_directory"),
        ("include: [{path: a.yml, project_directory: ../x}]", "include[0].project_directory"),
        ("include: [{path: a.yml, project_directory: .tenantry}]", "agent's own folder"),
        ("services: {w: {env_file: 'https://example.org/x.env'}}", "not on this host"),
        ("x-a: &a {label_file: /etc/shadow}\nservices: {w: {<<: *a}}", "services.w.label_file"),
        ("services: {}\n---\ninclude: [../other.yml]", "leaves"),
    ] {
        let error = discover(&place(PLAIN), &[("compose.yml", bad)]).unwrap_err();
        assert_eq!(error.category, FailureCategory::PathRefused);
        assert!(error.message.contains(why) && error.message.starts_with("compose.yml"), "{}", error.message);
    }
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
    assert!(discover(&place(PLAIN), &leaves).unwrap_err().message.contains("leaves"));
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
