//! What the API server itself refuses, with which words: shape, exclusivity and immutability of the resources.

use anyhow::Result;
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams, PostParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use tenantry_tests::control_plane::ControlPlane;

fn tenant() -> Value {
    json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
        "metadata": {"name": "acme"},
        "spec": {
            "host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v1",
            "env": {"patch": [{"name": "IMAGE_TAG", "value": "$(imageTag)"}]},
        },
    })
}

fn host() -> Value {
    json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "ComposeHost",
        "metadata": {"name": "n5"},
        "spec": {"identity": "n5", "connection": {"dial": {"address": "10.0.0.5:7443"}}},
    })
}

fn bundle() -> Value {
    json!({
        "apiVersion": "tenantry.dev/v1alpha1", "kind": "TemplateBundle",
        "metadata": {"name": "hello"},
        "spec": {"source": {"configMap": {"name": "hello"}}},
    })
}

fn api(client: &kube::Client, namespace: &str, object: &Value) -> Api<DynamicObject> {
    let kind = object["kind"].as_str().unwrap_or_default();
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk("tenantry.dev", "v1alpha1", kind));
    Api::namespaced_with(client.clone(), namespace, &resource)
}

/// What the API server says to an object; empty when it takes it.
async fn refusal(client: &kube::Client, namespace: &str, object: &Value) -> Result<String> {
    let typed: DynamicObject = serde_json::from_value(object.clone())?;
    let parameters = PostParams { dry_run: true, ..PostParams::default() };
    match api(client, namespace, object).create(&parameters, &typed).await {
        Ok(_) => Ok(String::new()),
        Err(kube::Error::Api(status)) => Ok(status.message),
        Err(other) => Err(other.into()),
    }
}

/// Sets a value at a pointer; `null` takes it away.
fn with(mut object: Value, pointer: &str, value: Value) -> Value {
    let (parent, key) = pointer.rsplit_once('/').unwrap();
    let parent = object.pointer_mut(parent).unwrap_or_else(|| panic!("no {parent} in the object"));
    match parent {
        Value::Object(fields) if value.is_null() => drop(fields.remove(key)),
        Value::Object(fields) => drop(fields.insert(key.to_owned(), value)),
        Value::Array(items) => items[key.parse::<usize>().unwrap()] = value,
        _ => panic!("{pointer} leads into a scalar"),
    }
    object
}

#[tokio::test]
async fn p13_the_api_server_refuses_badly_shaped_tenants_naming_the_field() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let client = plane.client().await?;
    let namespace = plane.namespace(&client, "rules").await?;
    assert_eq!(refusal(&client, &namespace, &tenant()).await?, "", "the example itself must be taken");

    let probes = json!({"verify": {
        "http": [{"url": "http://localhost:4000/api/health", "contains": "ok"}],
        "tcp": [{"address": "127.0.0.1:5432"}, {"address": "[::1]:65535"}],
        "exec": [{"service": "db", "command": ["pg_isready", "-q"]}, {"service": "db", "command": ["id", ""]}],
    }});
    let complete = with(tenant(), "/spec/upgrade", probes);
    assert_eq!(refusal(&client, &namespace, &complete).await?, "", "probes of every kind must be taken");

    let long = "x".repeat(300);
    let cases: Vec<(&str, Value, &str)> = vec![
        ("/spec/host", json!("N5"), "spec.host"),
        ("/spec/host", json!(""), "spec.host"),
        ("/spec/host", Value::Null, "spec.host"),
        ("/spec/project", json!("Upper"), "spec.project"),
        ("/spec/project", json!("-f"), "spec.project"),
        ("/spec/project", json!("$(id)"), "spec.project"),
        ("/spec/project", json!(long), "spec.project"),
        ("/spec/directory", json!("srv/acme"), "for example /srv/acme"),
        ("/spec/directory", json!("/srv/acme/"), "for example /srv/acme"),
        ("/spec/directory", json!("/srv//acme"), "spec.directory"),
        ("/spec/directory", json!("/srv/../etc"), "write the plain path"),
        ("/spec/directory", json!("/srv/.."), "write the plain path"),
        ("/spec/directory", json!("/srv/a\nb"), "spec.directory"),
        ("/spec/imageTag", json!("a b"), "spec.imageTag"),
        ("/spec/imageTag", json!("--privileged"), "spec.imageTag"),
        ("/spec/imageTag", json!(long), "spec.imageTag"),
        ("/spec/imageTag", json!(""), "spec.imageTag"),
        ("/spec/bundle", json!("../x"), "spec.bundle"),
        ("/spec/adopt", json!("Maybe"), "spec.adopt"),
        ("/spec/protect", json!(["/etc"]), "spec.protect"),
        ("/spec/protect", json!(["a/../../b"]), "write the plain path"),
        ("/spec/protect", json!([".."]), "write the plain path"),
        ("/spec/protect", json!(["mkdocs/", "mkdocs/"]), "Duplicate"),
        ("/spec/jobs", json!(["seed", "seed"]), "Duplicate"),
        ("/spec/jobs", json!(["--all"]), "spec.jobs[0]"),
        ("/spec/compose", json!({"files": ["/etc/passwd"]}), "spec.compose.files"),
        ("/spec/compose", json!({"files": ["-f"]}), "spec.compose.files"),
        ("/spec/compose", json!({"profiles": ["--all"]}), "spec.compose.profiles"),
        ("/spec/env/patch/0/name", json!("A=B"), "spec.env.patch[0].name"),
        ("/spec/env/patch/0/name", json!("A\nB"), "spec.env.patch[0].name"),
        ("/spec/env/patch/0/name", json!("COMPOSE_FILE"), "steers compose"),
        ("/spec/env/patch/0/name", json!("DOCKER_HOST"), "steers compose"),
        ("/spec/env/patch/0/name", json!("LD_PRELOAD"), "steers compose"),
        ("/spec/env/patch/0/name", json!("PATH"), "steers compose"),
        ("/spec/env/patch/0/value", json!("a\nb"), "spec.env.patch[0].value"),
        ("/spec/env/patch/0/value", json!("$(bundle)"), "only $(imageTag)"),
        ("/spec/env/patch/0/value", json!("x".repeat(4097)), "spec.env.patch[0].value"),
        ("/spec/env/ownership", json!("Managed"), "env.patch is for an Adopted"),
        (
            "/spec/env/patch",
            json!([]),
            "without a bundle a release reaches the host only through env.patch or images",
        ),
        ("/spec/images", json!([{"name": "app"}]), "what becomes of the image"),
        ("/spec/images", json!([{"name": "app:v1 ", "newTag": "v2"}]), "spec.images[0].name"),
        ("/spec/images", json!([{"name": "app", "newTag": "$(bundle)"}]), "newTag must be a tag"),
        ("/spec/images", json!([{"name": "app", "newTag": "a/b"}]), "spec.images[0].newTag"),
        ("/spec/images", json!([{"name": "app", "digest": "sha256:00"}]), "spec.images[0].digest"),
        ("/spec/imageTag", json!(null), "imageTag may be left out only without a bundle"),
        ("/spec/upgrade", json!({"approach": "Release"}), "Release needs a bundle"),
        ("/spec/upgrade", json!({"approach": "Script"}), "spec.upgrade.approach"),
        ("/spec/upgrade", json!({"onFailure": "Retry"}), "spec.upgrade.onFailure"),
        ("/spec/upgrade", json!({"verify": {"timeout": "0s"}}), "from 1s to 1h"),
        ("/spec/upgrade", json!({"verify": {"timeout": "2h"}}), "from 1s to 1h"),
        ("/spec/upgrade", json!({"verify": {"timeout": "-1s"}}), "verify.timeout"),
        ("/spec/upgrade", json!({"verify": {"timeout": "20 seconds"}}), "for example 120s"),
        ("/spec/upgrade", json!({"verify": {"timeout": "9223372036854775807s"}}), "verify.timeout"),
        ("/spec/upgrade", json!({"verify": {"stableFor": "11m"}}), "from 0s to 10m"),
        ("/spec/upgrade", json!({"verify": {"http": [{"url": "http://example.com/"}]}}), "http[0].url"),
        (
            "/spec/upgrade",
            json!({"verify": {"http": [{"url": "http://localhost/", "status": 0}]}}),
            "http[0].status",
        ),
        ("/spec/upgrade", json!({"verify": {"tcp": [{"address": "10.0.0.1:80"}]}}), "tcp[0].address"),
        ("/spec/upgrade", json!({"verify": {"tcp": [{"address": "127.0.0.1:0"}]}}), "tcp[0].address"),
        (
            "/spec/upgrade",
            json!({"verify": {"exec": [{"service": "db", "command": "id"}]}}),
            "exec[0].command",
        ),
        ("/spec/upgrade", json!({"verify": {"exec": [{"service": "db", "command": []}]}}), "exec[0].command"),
        (
            "/spec/upgrade",
            json!({"verify": {"exec": [{"service": "db", "command": ["", "x"]}]}}),
            "must name a program first",
        ),
        (
            "/spec/upgrade",
            json!({"verify": {"exec": [{"service": "--all", "command": ["id"]}]}}),
            "exec[0].service",
        ),
        ("/spec/suspend", json!("yes"), "spec.suspend"),
    ];
    for (pointer, value, expected) in cases {
        let said = refusal(&client, &namespace, &with(tenant(), pointer, value.clone())).await?;
        assert!(said.contains(expected), "{pointer} = {value}: expected {expected:?}, was told {said:?}");
    }
    let mut untagged = with(with(tenant(), "/spec/imageTag", json!(null)), "/spec/env", json!({}));
    for (tag, expected) in [("7.4-alpine", ""), ("v$(imageTag)", "imageTag may be left out only")] {
        untagged = with(untagged, "/spec/images", json!([{"name": "redis", "newTag": tag}]));
        let said = refusal(&client, &namespace, &untagged).await?;
        assert!(said.contains(expected) && said.is_empty() == expected.is_empty(), "{tag}: {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn p13_the_api_server_refuses_badly_shaped_hosts_and_bundles() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let client = plane.client().await?;
    let namespace = plane.namespace(&client, "rules").await?;
    assert_eq!(refusal(&client, &namespace, &host()).await?, "");
    assert_eq!(refusal(&client, &namespace, &bundle()).await?, "");
    let both = json!({"configMap": {"name": "a"}, "directory": {"name": "b"}});
    let cases: Vec<(Value, &str, Value, &str)> = vec![
        (host(), "/spec/identity", json!("N5"), "spec.identity"),
        (host(), "/spec/identity", json!("*"), "spec.identity"),
        (host(), "/spec/connection/dial/address", json!("10.0.0.5"), "dial.address"),
        (host(), "/spec/connection/dial/address", json!("http://n5:1"), "dial.address"),
        (host(), "/spec/connection", json!({}), "spec.connection.dial"),
        (bundle(), "/spec/source", json!({}), "exactly one of"),
        (bundle(), "/spec/source", both, "exactly one of"),
        (bundle(), "/spec/source/configMap/name", json!("../x"), "configMap.name"),
        (bundle(), "/spec/source", json!({"directory": {"name": "../etc"}}), "directory.name"),
        (bundle(), "/spec/source", json!({"directory": {"name": ".."}}), "directory.name"),
    ];
    for (object, pointer, value, expected) in cases {
        let said = refusal(&client, &namespace, &with(object, pointer, value.clone())).await?;
        assert!(said.contains(expected), "{pointer} = {value}: expected {expected:?}, was told {said:?}");
    }
    Ok(())
}

#[tokio::test]
async fn host_project_and_directory_of_a_tenant_cannot_be_changed() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let client = plane.client().await?;
    let namespace = plane.namespace(&client, "rules").await?;
    let tenants = api(&client, &namespace, &tenant());
    tenants.create(&PostParams::default(), &serde_json::from_value(tenant())?).await?;
    for (field, value) in [("host", "n6"), ("project", "other"), ("directory", "/srv/other")] {
        let change = Patch::Merge(json!({"spec": {field: value}}));
        let error = tenants.patch("acme", &PatchParams::default(), &change).await.unwrap_err().to_string();
        assert!(error.contains(&format!("{field} cannot be changed")), "{error}");
    }
    let change = Patch::Merge(json!({"spec": {"imageTag": "v2"}}));
    tenants.patch("acme", &PatchParams::default(), &change).await?;
    Ok(())
}

#[tokio::test]
async fn a_new_tenant_shows_its_documented_defaults() -> Result<()> {
    let plane = ControlPlane::shared().await?;
    let client = plane.client().await?;
    let namespace = plane.namespace(&client, "rules").await?;
    let tenants = api(&client, &namespace, &tenant());
    let made = tenants.create(&PostParams::default(), &serde_json::from_value(tenant())?).await?;
    let spec = &made.data["spec"];
    assert_eq!(spec["adopt"], "IfIdentical");
    assert_eq!(spec["env"]["ownership"], "Adopted");
    assert_eq!(spec["upgrade"]["approach"], "Auto");
    assert_eq!(spec["upgrade"]["onFailure"], "Rollback");
    assert_eq!(spec["upgrade"]["verify"]["timeout"], "120s");
    assert_eq!(spec["upgrade"]["verify"]["stableFor"], "15s");
    assert_eq!(spec["suspend"], false);
    Ok(())
}
