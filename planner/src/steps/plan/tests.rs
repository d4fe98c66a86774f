//! The one hash of a plan: what it covers, and what it does not depend on.

use rstest::rstest;
use serde_json::json;

use super::*;

fn request(target: &str) -> OperateRequest {
    serde_json::from_value(json!({
        "tenant": {"uid": "0b0b0b0b-0000-4000-8000-0000000000cc", "namespace": "default", "name": "acme"},
        "place": {"project": "acme", "directory": "/srv/acme"},
        "epoch": 1, "targetHash": target, "approach": "Release",
        "manifest": {"files": [], "protect": [], "jobs": [], "onChange": [], "env": {"ownership": "managed"}},
        "contents": [], "pinned": [], "onFailure": "Rollback", "overwrite": false,
        "verify": {"timeoutMs": 20_000, "stableForMs": 200, "http": []},
    }))
    .unwrap()
}

fn sha256(digit: char) -> Sha256 {
    Sha256::parse(digit.to_string().repeat(64)).unwrap()
}

fn plan() -> Plan {
    Plan {
        report: PlanReport {
            hash: String::new(),
            files: tenantry_protocol::FileCounts::default(),
            recreates: vec![],
        },
        compose: ComposeUse { files: vec![], profiles: vec![], command: String::new() },
        previous_compose: None,
        writes: true,
        first: false,
        changed: vec![],
        files: vec![FileChange {
            path: RelativePath::parse("app.conf").unwrap(),
            before: Some(sha256('a')),
            after: Some(sha256('b')),
            mode: None,
        }],
        image_edits: vec![],
        env_keys: vec!["IMAGE_TAG".to_owned()],
        containers: vec!["c1".to_owned()],
        before: crate::before::Before::new(),
        references: vec![],
        previous_images: vec![],
        left_running: vec![],
        left_files: vec![],
        removed: vec![],
        data: None,
        choices: Some(vec![ImageChoice {
            reference: "app:v2".to_owned(),
            from: ImageSource::Registry { digest: "sha256:1".to_owned() },
        }]),
        images: vec![],
        inside: None,
        checked: Checked::new(),
        copied: BTreeMap::new(),
        copied_next: BTreeMap::new(),
        previous_checked: Checked::new(),
    }
}

fn hash(change: impl FnOnce(&mut Plan)) -> String {
    let mut plan = plan();
    change(&mut plan);
    plan.hashed(&request("sha256:target")).report.hash
}

#[rstest]
#[case::a_file_before(|plan: &mut Plan| plan.files[0].before = Some(sha256('c')))]
#[case::a_file_after(|plan: &mut Plan| plan.files[0].after = None)]
#[case::a_mode(|plan: &mut Plan| plan.files[0].mode = Some(0o600))]
#[case::a_key_of_env(|plan: &mut Plan| plan.env_keys.push("TAG".to_owned()))]
#[case::an_image(|plan: &mut Plan| plan.choices = Some(vec![ImageChoice {
    reference: "app:v2".to_owned(),
    from: ImageSource::Registry { digest: "sha256:2".to_owned() },
}]))]
#[case::a_service_that_is_removed(|plan: &mut Plan| plan.removed.push(RemovedService {
    service: "old".to_owned(),
    containers: vec![],
    first: false,
    grace_ms: None,
}))]
fn p20_a_plan_that_would_change_something_else_has_another_hash(#[case] change: fn(&mut Plan)) {
    assert_ne!(hash(change), hash(|_| ()));
}

#[test]
fn p20_another_target_has_another_hash() {
    let other = plan().hashed(&request("sha256:other")).report.hash;
    assert_ne!(other, hash(|_| ()));
}

#[test]
fn p20_the_same_plan_has_the_same_hash_whichever_containers_run() {
    let again = hash(|plan| plan.containers = vec!["another".to_owned()]);
    assert_eq!(again, hash(|_| ()));
    assert!(again.starts_with("sha256:"), "{again}");
}
