//! The rights of `deploy/rbac.yaml`, as a service account has them: enough for all that the operator does, and told where
//! one is missing.

use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::api::{DynamicObject, ListParams};
use kube::discovery::{ApiResource, Scope as Placed, pinned_kind};
use tenantry_api::rights::{OPERATOR, OPERATOR_NAMESPACE, RIGHTS, manifest};
use tenantry_operator::leader::{self, Lease};

use super::*;

/// All of them, on one server.
pub async fn scenes(server: &ApiServer) -> Result<()> {
    give_all(server).await.context("the manifest is applied")?;
    the_manifest_gives_all_that_is_needed(server).await.context("the manifest gives all that is needed")?;
    a_missing_right_is_told_on_the_tenant(server).await.context("a missing right is told on the Tenant")
}

/// Applies the manifest as `kubectl apply` does.
async fn give_all(server: &ApiServer) -> Result<()> {
    let client = server.client().await?;
    for object in manifest() {
        let object: DynamicObject = serde_json::from_value(object)?;
        let types = object.types.clone().context("an object says its kind")?;
        let (resource, placed): (ApiResource, _) = {
            let (resource, capabilities) = pinned_kind(&client, &(&types).try_into()?).await?;
            (resource, capabilities.scope)
        };
        let api: Api<DynamicObject> = match (placed, object.namespace()) {
            (Placed::Namespaced, Some(namespace)) => {
                Api::namespaced_with(client.clone(), &namespace, &resource)
            }
            _ => Api::all_with(client.clone(), &resource),
        };
        api.patch(&object.name_any(), &PatchParams::apply("person").force(), &Patch::Apply(&object)).await?;
    }
    Ok(())
}

/// Takes a verb of a resource away from the operator.
async fn take(server: &ApiServer, resource: &str, verb: &str) -> Result<()> {
    let roles: Api<ClusterRole> = Api::all(server.client().await?);
    let mut role = roles.get(OPERATOR).await?;
    for rule in role.rules.iter_mut().flatten() {
        if rule.resources.iter().flatten().any(|one| one == resource) {
            rule.verbs.retain(|one| one != verb);
        }
    }
    roles.replace(OPERATOR, &kube::api::PostParams::default(), &role).await?;
    Ok(())
}

async fn scene(server: &ApiServer) -> Result<Scene> {
    let operator = server.client_of(OPERATOR_NAMESPACE, OPERATOR).await?;
    Scene::with_operator(server, Host::with_tag("v1"), operator).await
}

impl Scene {
    async fn until_told(&self, what: &str, holds: impl Fn(Option<String>) -> bool) {
        let begun = std::time::Instant::now();
        while !holds(self.rights.missing()) {
            assert!(begun.elapsed() < WITHIN, "{what}: {:?}", self.rights.missing());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn reasons(&self) -> Result<Vec<String>> {
        let events: Api<Event> = Api::namespaced(self.client.clone(), &self.namespace);
        let all = events.list(&ListParams::default()).await?.items;
        Ok(all.into_iter().filter_map(|event| event.reason).collect())
    }
}

async fn the_manifest_gives_all_that_is_needed(server: &ApiServer) -> Result<()> {
    assert!(RIGHTS.iter().all(|right| !right.verbs.contains(&"*") && right.resource != "secrets"));
    let scene = scene(server).await?;
    let end = CancellationToken::new();
    let lease = Lease { namespace: OPERATOR_NAMESPACE, scope: &Scope::All };
    let lead = leader::lead(scene.operator_client.clone(), lease, "test", &end).await?;
    lead.context("the lead")?.give_up().await;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.tenant("acme", "v2").await?;
    scene.until_deployed("acme", "v2").await?;
    let files = json!({"data": {"bundle.yaml": "files: [{source: a.tera}]", "a.tera": "1"}});
    scene.apply::<ConfigMap>("ConfigMap", "hello-files", &files).await?;
    let source = json!({"spec": {"source": {"configMap": {"name": "hello-files"}}}});
    scene.apply::<TemplateBundle>("TemplateBundle", "hello", &source).await?;
    let bundles: Api<TemplateBundle> = Api::namespaced(scene.client.clone(), &scene.namespace);
    let begun = std::time::Instant::now();
    while bundles.get("hello").await?.status.is_none_or(|status| status.digest.is_none()) {
        assert!(begun.elapsed() < WITHIN, "the bundle's status is not written");
    }
    while !scene.reasons().await?.contains(&"Succeeded".to_owned()) {
        assert!(begun.elapsed() < WITHIN, "no event is written");
    }
    // Gone while its host is away: what the host owes is kept on the ComposeHost.
    scene.host.change(|state| state.gone = true);
    scene.annotate("orphan", "1").await?;
    scene.tenants().delete("acme", &DeleteParams::default()).await?;
    while scene.tenants().get_opt("acme").await?.is_some() {
        assert!(begun.elapsed() < WITHIN, "the Tenant is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(scene.rights.missing(), None);
    Ok(())
}

async fn a_missing_right_is_told_on_the_tenant(server: &ApiServer) -> Result<()> {
    let mut scene = scene(server).await?;
    let forbidden = |status: &TenantStatus| {
        let ready = tenantry_api::conditions::find(&status.conditions, "Ready");
        ready.is_some_and(|ready| ready.status == "Unknown" && ready.reason == "Forbidden")
    };
    take(server, "tenants", "patch").await?;
    scene.tenant("acme", "v1").await?;
    let status = scene.until("acme", "Forbidden", forbidden).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert!(ready.message.contains("cannot patch resource \"tenants\""), "{}", ready.message);
    assert!(ready.message.contains("deploy/rbac.yaml"), "{}", ready.message);
    scene
        .until_told("what is missing", |missing| missing.is_some_and(|text| text.contains("patch tenants")))
        .await;
    assert!(scene.reasons().await?.contains(&"Forbidden".to_owned()));
    give_all(server).await?;
    scene.until_deployed("acme", "v1").await?;
    scene.until_told("nothing is missing", |missing| missing.is_none()).await;

    // What can't even be listed holds up everything: all are told.
    scene.crash();
    take(server, "templatebundles", "list").await?;
    scene.start();
    let status = scene.until("acme", "Forbidden", forbidden).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert!(ready.message.contains("list templatebundles"), "{}", ready.message);
    give_all(server).await?;
    scene.until_deployed("acme", "v1").await?;
    Ok(())
}
