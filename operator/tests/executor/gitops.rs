//! What GitOps tools, and kubectl, read: never `Ready` for what is not so yet.

use std::collections::BTreeSet;

use k8s_openapi::api::events::v1::Event;
use kube::api::ListParams;

use super::*;

/// All of them, on one server.
pub async fn scenes(server: &ApiServer) -> Result<()> {
    p14_what_nobody_has_looked_at_says_so(server).await.context("what nobody has looked at says so")?;
    p14_suspended_is_not_ready_for_another_release(server).await.context("suspended for another release")?;
    p14_ready_is_left_before_a_bundle_says_its_digest(server).await.context("a bundle's digest")?;
    each_operation_has_its_own_event(server).await.context("each operation has its own event")?;
    a_value_that_was_taken_away_is_heard_again(server).await.context("a value is heard again")
}

fn ready(status: &TenantStatus) -> (String, String) {
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready");
    ready.map(|ready| (ready.status.clone(), ready.reason.clone())).unwrap_or_default()
}

fn hello() -> Value {
    json!({"spec": {"source": {"configMap": {"name": "hello-files"}}}})
}

async fn p14_what_nobody_has_looked_at_says_so(server: &ApiServer) -> Result<()> {
    let mut scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.crash();
    scene.tenant("acme", "v1").await?;
    scene.apply::<TemplateBundle>("TemplateBundle", "hello", &hello()).await?;
    let host = json!({"spec": {"connection": {"dial": {"address": "127.0.0.1:1"}}, "identity": "n6"}});
    scene.apply::<ComposeHost>("ComposeHost", "n6", &host).await?;
    let hosts: Api<ComposeHost> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let bundles: Api<TemplateBundle> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let never = json!({"observedGeneration": tenantry_api::NEVER_OBSERVED});
    assert_eq!(serde_json::to_value(scene.tenants().get("acme").await?.status)?, never);
    assert_eq!(serde_json::to_value(hosts.get("n6").await?.status)?, never);
    assert_eq!(serde_json::to_value(bundles.get("hello").await?.status)?, never);
    scene.start();
    let status = scene.until_deployed("acme", "v1").await?;
    assert_eq!(status.observed_generation, Some(1));
    Ok(())
}

async fn p14_suspended_is_not_ready_for_another_release(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    for (tag, truth) in [("v1", "True"), ("v2", "False"), ("v1", "True")] {
        scene.tenant_with("acme", json!({"imageTag": tag, "suspend": true})).await?;
        let generation = scene.tenants().get("acme").await?.metadata.generation;
        let status =
            scene.until("acme", "looked at", |status| status.observed_generation == generation).await?;
        assert_eq!(ready(&status), (truth.to_owned(), "Suspended".to_owned()), "{tag}");
        for kind in ["Reconciling", "Stalled"] {
            let condition = tenantry_api::conditions::find(&status.conditions, kind).context(kind)?;
            assert_eq!(condition.status, "False", "{kind}");
        }
    }
    assert_eq!(scene.host.change(|state| state.requests.len()), 0);
    Ok(())
}

async fn p14_ready_is_left_before_a_bundle_says_its_digest(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::default()).await?;
    let map = |text: &str| json!({"data": {"bundle.yaml": "files: [{source: a.tera}]", "a.tera": text}});
    scene.apply::<ConfigMap>("ConfigMap", "hello-files", &map("1")).await?;
    scene.apply::<TemplateBundle>("TemplateBundle", "hello", &hello()).await?;
    scene.tenant_with("acme", json!({"imageTag": "v1", "bundle": "hello", "env": {}})).await?;
    scene.until_deployed("acme", "v1").await?;
    let bundles: Api<TemplateBundle> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let digest = async || anyhow::Ok(bundles.get("hello").await?.status.and_then(|status| status.digest));
    scene.host.change(|state| state.hold = true);
    for text in ["2", "3", "4"] {
        let before = digest().await?;
        scene.apply::<ConfigMap>("ConfigMap", "hello-files", &map(text)).await?;
        let begun = std::time::Instant::now();
        let now = loop {
            match digest().await? {
                now if now != before => break now,
                _ => assert!(begun.elapsed() < WITHIN, "the bundle's status never says its digest"),
            }
        };
        let status = scene.tenants().get("acme").await?.status.context("a status")?;
        assert_eq!(status.observed_bundle_revision, now);
        assert_eq!(ready(&status).0, "False", "{:?}", ready(&status));
        scene.host.change(|state| state.hold = false);
        let at_it = |status: &TenantStatus| {
            let deployed = status.deployed.as_ref().and_then(|deployed| deployed.bundle_revision.as_ref());
            deployed == now.as_ref() && status.phase == Some(Phase::Ready)
        };
        scene.until("acme", "at the new bundle", at_it).await?;
        scene.host.change(|state| state.hold = true);
    }
    Ok(())
}

async fn each_operation_has_its_own_event(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.host.change(|state| state.hold = true);
    scene.tenant("acme", "v2").await?;
    scene.until_phase("acme", Phase::Verifying).await?;
    scene.tenant("acme", "v1").await?;
    scene.until("acme", "seen to wait", |status| status.observed_generation == Some(3)).await?;
    scene.host.change(|state| state.hold = false);
    let status = scene.until_deployed("acme", "v1").await?;
    let ended: BTreeSet<String> = status.history.iter().map(|entry| entry.id.clone()).collect();
    assert_eq!(ended.len(), 2);
    let events: Api<Event> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let begun = std::time::Instant::now();
    loop {
        let all = events.list(&ListParams::default()).await?.items;
        let told = all.into_iter().filter(|event| event.reason.as_deref() == Some("Succeeded"));
        let told: BTreeSet<String> = told.filter_map(|event| event.action).collect();
        if told == ended {
            return Ok(());
        }
        assert!(begun.elapsed() < WITHIN, "told of {told:?}, not of {ended:?}");
    }
}

async fn a_value_that_was_taken_away_is_heard_again(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.host.change(|state| state.outcome = Some(Outcome::RolledBack));
    scene.tenant("acme", "v2").await?;
    for tries in 1..=2 {
        let tried =
            |status: &TenantStatus| status.phase == Some(Phase::RolledBack) && status.history.len() == tries;
        scene.until("acme", "rolled back", tried).await?;
        scene.annotate("retry", "1").await?;
        scene.until("acme", "tried again", |status| status.history.len() == tries + 1).await?;
        let gone = json!({"metadata": {"annotations": {"tenantry.dev/retry": null}}});
        scene.tenants().patch("acme", &PatchParams::default(), &Patch::Merge(&gone)).await?;
        let noted = |status: &TenantStatus| {
            status.handled.as_ref().is_some_and(|handled| handled.retry.as_deref() == Some(""))
        };
        scene.until("acme", "without the annotation", noted).await?;
    }
    Ok(())
}
