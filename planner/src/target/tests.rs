use super::*;
use rstest::rstest;
use serde_json::json;

fn spec(change: impl FnOnce(&mut serde_json::Value)) -> TenantSpec {
    let mut value = json!({
        "host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2",
        "env": {"patch": [{"name": "IMAGE_TAG", "value": "$(imageTag)"}]},
    });
    change(&mut value);
    serde_json::from_value(value).unwrap()
}

fn parse(spec: &TenantSpec) -> Result<Intent, Refusal> {
    Intent::parse("0a1b2c3d-0000-4000-8000-000000000001", "fleet", "acme", spec)
}

fn hash(spec: &TenantSpec) -> String {
    Desired::without_bundle(parse(spec).unwrap()).base_hash
}

#[rstest]
#[case::the_tag("$(imageTag)", "v2")]
#[case::amid_text("a-$(imageTag)-b", "a-v2-b")]
#[case::a_literal("$$(imageTag)", "$(imageTag)")]
#[case::a_dollar("cost $5 $", "cost $5 $")]
#[case::a_compose_variable("${X:-y}", "${X:-y}")]
#[case::twice("$(imageTag)$(imageTag)", "v2v2")]
#[case::empty("", "")]
fn a_value_is_expanded(#[case] value: &str, #[case] expected: &str) {
    assert_eq!(expand(value, &ImageTag::parse("v2").unwrap()).unwrap(), expected);
}

#[rstest]
#[case::unknown("$(hostname)")]
#[case::a_command("$(id)")]
#[case::a_line_break("a\nb")]
fn a_value_that_is_more_than_the_tag_is_refused(#[case] value: &str) {
    assert!(expand(value, &ImageTag::parse("v2").unwrap()).is_err());
}

#[rstest]
#[case::host(|v: &mut serde_json::Value| v["host"] = json!("N5"), "spec.host")]
#[case::project(|v: &mut serde_json::Value| v["project"] = json!("--help"), "spec.project")]
#[case::directory(|v: &mut serde_json::Value| v["directory"] = json!("/srv/../etc"), "spec.directory")]
#[case::tag(|v: &mut serde_json::Value| v["imageTag"] = json!("v1/2"), "spec.imageTag")]
#[case::compose_file(|v: &mut serde_json::Value| v["compose"] = json!({"files": ["a.yml", "../b.yml"]}), "spec.compose.files[1]")]
#[case::protect(|v: &mut serde_json::Value| v["protect"] = json!(["a/../b"]), "spec.protect[0]")]
#[case::variable(|v: &mut serde_json::Value| v["env"]["patch"][0]["name"] = json!("COMPOSE_FILE"), "spec.env.patch[0].name")]
#[case::value(|v: &mut serde_json::Value| v["env"]["patch"][0]["value"] = json!("$(id)"), "spec.env.patch[0].value")]
#[case::no_tag(|v: &mut serde_json::Value| { v.as_object_mut().unwrap().remove("imageTag"); }, "spec.imageTag")]
#[case::no_tag_for_an_image(|v: &mut serde_json::Value| { v.as_object_mut().unwrap().remove("imageTag"); v["env"] = json!({}); v["images"] = json!([{"name": "app", "newTag": "v$(imageTag)"}]) }, "spec.imageTag")]
#[case::an_image_s_name(|v: &mut serde_json::Value| v["images"] = json!([{"name": "App:v1", "newTag": "v1"}]), "spec.images[0]")]
#[case::an_image_s_tag(|v: &mut serde_json::Value| v["images"] = json!([{"name": "app", "newTag": "a/b"}]), "spec.images[0].newTag")]
#[case::nothing_of_an_image(|v: &mut serde_json::Value| v["images"] = json!([{"name": "app"}]), "spec.images[0]")]
#[case::one_image_twice(|v: &mut serde_json::Value| v["images"] = json!([{"name": "redis", "newTag": "1"}, {"name": "docker.io/library/redis", "newTag": "2", "services": ["a"]}]), "spec.images[1]")]
#[case::a_new_name_that_is_another_s(|v: &mut serde_json::Value| v["images"] = json!([{"name": "a", "newName": "b"}, {"name": "b", "newTag": "2"}]), "spec.images[1]")]
#[case::nothing_to_patch(|v: &mut serde_json::Value| v["env"] = json!({}), "spec.env.patch")]
#[case::managed_without_bundle(|v: &mut serde_json::Value| v["env"] = json!({"ownership": "Managed"}), "spec.env.ownership")]
#[case::timeout(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"timeout": "2h"}}), "spec.upgrade.verify.timeout")]
#[case::no_unit(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"stableFor": "15"}}), "spec.upgrade.verify.stableFor")]
#[case::far_probe(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"http": [{"url": "http://localhost.evil/"}]}}), "spec.upgrade.verify.http[0].url")]
#[case::far_port(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"tcp": [{"address": "localhost:1"}, {"address": "10.0.0.1:80"}]}}), "spec.upgrade.verify.tcp[1].address")]
#[case::no_port(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"tcp": [{"address": "localhost"}]}}), "spec.upgrade.verify.tcp[0].address")]
#[case::no_service(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"exec": [{"service": "--all", "command": ["id"]}]}}), "spec.upgrade.verify.exec[0].service")]
#[case::no_program(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"exec": [{"service": "db", "command": []}]}}), "spec.upgrade.verify.exec[0].command")]
#[case::nul_in_a_command(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"exec": [{"service": "db", "command": ["id", "\0"]}]}}), "spec.upgrade.verify.exec[0].command")]
#[case::probe_status(|v: &mut serde_json::Value| v["upgrade"] = json!({"verify": {"http": [{"url": "http://localhost:1/", "status": 0}]}}), "spec.upgrade.verify.http[0].status")]
fn a_bad_field_is_named(#[case] change: fn(&mut serde_json::Value), #[case] name: &str) {
    let refusal = parse(&spec(change)).unwrap_err();
    assert_eq!(refusal.reason, RefusalReason::InvalidSpec);
    assert!(refusal.message.starts_with(name), "{}", refusal.message);
    assert!(refusal.message.ends_with('.'), "{}", refusal.message);
}

#[rstest]
#[case::a_bad_path(json!({"snapshot": {"paths": ["a/../b"]}}), "InvalidSpec", &["spec.upgrade.snapshot.paths[0]", "'..'"])]
#[case::our_own_folder(json!({"snapshot": {"paths": [".tenantry/restore"]}}), "InvalidSpec", &["snapshot.paths[0]", "agent's own"])]
#[case::a_path_twice(json!({"snapshot": {"paths": ["up", "up"]}}), "InvalidSpec", &["snapshot.paths[0]", "name each path once"])]
#[case::a_path_beneath_another(json!({"snapshot": {"paths": ["up/a", "up"]}}), "InvalidSpec", &["snapshot.paths[0]", "up/a is kept with up"])]
#[case::a_volume_twice(json!({"snapshot": {"volumes": ["db", "x", "db"]}}), "InvalidSpec", &["snapshot.volumes[2]", "db is named twice"])]
#[case::a_bad_volume(json!({"snapshot": {"volumes": ["../db"]}}), "InvalidSpec", &["snapshot.volumes[0]"])]
#[case::the_env_file(json!({"snapshot": {"paths": [".env"]}}), "PathRefused", &["snapshot.paths[0]", ".env", "keeps anyway"])]
#[case::restored_over_what_is_protected(
    json!({"snapshot": {"paths": ["content/uploads"]}, "rollbackData": "Always"}), "PathRefused",
    &["spec.upgrade.rollbackData", "spec.upgrade.snapshot.paths[0]", "spec.protect (content"]
)]
#[case::restored_around_what_is_protected(
    json!({"snapshot": {"paths": ["up", "data"]}, "rollbackData": "Always"}), "PathRefused",
    &["spec.upgrade.snapshot.paths[1] (data)", "spec.protect (data/own"]
)]
fn p1_a_snapshot_that_cannot_be_is_refused_with_its_fields(
    #[case] upgrade: serde_json::Value,
    #[case] reason: &str,
    #[case] named: &[&str],
) {
    let refusal = parse(&spec(|v| {
        v["protect"] = json!(["content/", "data/own"]);
        v["upgrade"] = upgrade;
    }))
    .unwrap_err();
    assert_eq!(refusal.reason.as_str(), reason);
    for part in named {
        assert!(refusal.message.contains(part), "{part}: {}", refusal.message);
    }
}

#[test]
fn what_is_protected_may_be_kept_where_only_a_person_restores_it() {
    let change = |v: &mut serde_json::Value| {
        v["protect"] = json!(["content/"]);
        v["upgrade"] =
            json!({"snapshot": {"paths": ["content", "content2"], "volumes": ["db"], "retain": 3}});
    };
    let intent = parse(&spec(change)).unwrap();
    assert_eq!((intent.snapshot.paths.len(), intent.snapshot.retain), (2, 3));
    assert_eq!(hash(&spec(change)), hash(&spec(|v| v["protect"] = json!(["content/"]))), "no new target");
}

#[test]
fn the_target_changes_with_what_reaches_the_host_and_with_nothing_else() {
    let base = hash(&spec(|_| {}));
    assert_ne!(base, hash(&spec(|v| v["imageTag"] = json!("v3"))));
    assert_ne!(base, hash(&spec(|v| v["upgrade"] = json!({"verify": {"stableFor": "1s"}}))));
    assert_ne!(base, hash(&spec(|v| v["compose"] = json!({"profiles": ["x"]}))));
    assert_eq!(base, hash(&spec(|v| v["suspend"] = json!(true))));
    assert_eq!(base, hash(&spec(|v| v["adopt"] = json!("Overwrite"))));
    assert_eq!(base, hash(&spec(|v| v["upgrade"] = json!({"onFailure": "Hold"}))));
    assert_eq!(base, hash(&spec(|v| v["values"] = json!({"unused": 1}))));
}

#[test]
fn moved_tags_enter_the_hash_only_of_the_target_they_were_found_for() {
    let desired = Desired::without_bundle(parse(&spec(|_| {})).unwrap());
    let image = ResolvedImage { reference: "app:v2".to_owned(), digest: "sha256:1".to_owned() };
    let mut resolved = Resolved { base_hash: desired.base_hash.clone(), images: vec![image] };
    assert_ne!(desired.target_hash(Some(&resolved)), desired.base_hash);
    resolved.base_hash = "sha256:other".to_owned();
    assert_eq!(desired.target_hash(Some(&resolved)), desired.base_hash);
    assert_eq!(desired.target_hash(None), desired.base_hash);
}

#[test]
fn p12_a_patched_value_is_not_printed() {
    let intent = parse(&spec(|v| v["env"]["patch"][0]["value"] = json!("canary-value"))).unwrap();
    assert!(!format!("{intent:?}").contains("canary-value"));
}

proptest::proptest! {
    #[test]
    fn a_value_without_dollars_is_itself(value in "[^$\r\n\0]{0,64}") {
        proptest::prop_assert_eq!(expand(&value, &ImageTag::parse("v2").unwrap()).unwrap(), value);
    }
}

#[test]
fn a_release_without_a_tag_is_called_by_the_tags_of_its_images() {
    let spec = spec(|spec| {
        spec.as_object_mut().unwrap().remove("imageTag");
        spec["env"] = json!({});
        let digest = format!("sha256:{}", "ab".repeat(32));
        spec["images"] = json!([
            {"name": "app", "newTag": "2.0"}, {"name": "redis", "newTag": "7.4-alpine", "services": ["cache"]},
            {"name": "redis", "newTag": "2.0", "services": ["queue"]}, {"name": "db", "digest": digest},
        ]);
    });
    let intent = parse(&spec).unwrap();
    assert_eq!(intent.image_tag.as_str(), "2.0_7.4-alpine_abababababab");
    assert_eq!(intent.images.len(), 4);
    assert!(intent.tag_use.is_unused() && !intent.tag_use.is_given());
}

#[test]
fn a_target_is_another_one_with_other_images_and_the_same_as_ever_without() {
    let with = |tag: &str| hash(&spec(|spec| spec["images"] = json!([{"name": "app", "newTag": tag}])));
    assert_ne!(with("1"), with("2"));
    assert_ne!(with("1"), hash(&spec(|_| {})));
    assert_eq!(with("$(imageTag)"), with("v2"));
}
