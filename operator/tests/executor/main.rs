//! The executor against a real API server and a made-up host.

mod common;
mod gitops;
mod rights;

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use common::api::ApiServer;
use common::host::Host;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams};
use kube::{Api, Client, ResourceExt as _};
use serde_json::{Value, json};
use tenantry_api::tenant_status::{Outcome, Phase, TenantStatus};
use tenantry_api::{ComposeHost, TemplateBundle, Tenant};
use tenantry_operator::metrics::Metrics;
use tenantry_operator::operator::{Operator, Setup};
use tenantry_operator::rights::Rights;
use tenantry_operator::stores::Scope;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

const WITHIN: Duration = Duration::from_secs(20);

/// One namespace, one host, one operator.
struct Scene {
    client: Client,
    /// Whose rights the operator has.
    operator_client: Client,
    rights: Arc<Rights>,
    namespace: String,
    host: Host,
    metrics: Arc<Metrics>,
    operator: Option<(JoinHandle<()>, CancellationToken)>,
}

impl Scene {
    async fn new(server: &ApiServer, host: Host) -> Result<Self> {
        Self::with_operator(server, host, server.client().await?).await
    }

    async fn with_operator(server: &ApiServer, host: Host, operator_client: Client) -> Result<Self> {
        let client = server.client().await?;
        let namespace = server.namespace().await?;
        let rights = Arc::new(Rights::all());
        let metrics = Arc::default();
        let mut scene = Self { client, operator_client, rights, namespace, host, metrics, operator: None };
        let spec = json!({"connection": {"dial": {"address": "127.0.0.1:1"}}, "identity": "n5"});
        scene.apply::<ComposeHost>("ComposeHost", "n5", &json!({ "spec": spec })).await?;
        scene.start();
        Ok(scene)
    }

    fn start(&mut self) {
        let scope = Scope::Namespace(self.namespace.clone());
        self.rights = Arc::new(Rights::new(self.operator_client.clone(), scope.clone(), None));
        let setup = Setup {
            client: self.operator_client.clone(),
            scope,
            rights: self.rights.clone(),
            agents: Arc::new(self.host.clone()),
            bundle_directory: None,
            concurrency: 4,
            instance: None,
            metrics: self.metrics.clone(),
        };
        let end = CancellationToken::new();
        let task = tokio::spawn(Operator::new(setup).run(|| (), end.clone()));
        self.operator = Some((task, end));
    }

    /// Ends the operator as a crash would: in the middle of whatever it does.
    fn crash(&mut self) {
        if let Some((task, end)) = self.operator.take() {
            task.abort();
            end.cancel();
        }
    }

    async fn apply<K>(&self, kind: &str, name: &str, body: &Value) -> Result<()>
    where
        K: kube::Resource<DynamicType = (), Scope = kube::core::NamespaceResourceScope>
            + Clone
            + std::fmt::Debug
            + serde::de::DeserializeOwned,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), &self.namespace);
        let mut object = body.clone();
        object["apiVersion"] = json!(K::api_version(&()));
        object["kind"] = json!(kind);
        object["metadata"]["name"] = json!(name);
        api.patch(name, &PatchParams::apply("person").force(), &Patch::Apply(&object)).await?;
        Ok(())
    }

    async fn tenant(&self, name: &str, tag: &str) -> Result<()> {
        self.tenant_with(name, json!({"imageTag": tag})).await
    }

    async fn tenant_with(&self, name: &str, more: Value) -> Result<()> {
        let mut spec = json!({
            "host": "n5", "project": name, "directory": format!("/srv/{name}"),
            "env": {"patch": [{"name": "IMAGE_TAG", "value": "$(imageTag)"}]},
        });
        for (key, value) in more.as_object().context("an object")? {
            spec[key] = value.clone();
        }
        self.apply::<Tenant>("Tenant", name, &json!({ "spec": spec })).await
    }

    async fn annotate(&self, name: &str, value: &str) -> Result<()> {
        let annotation = format!("tenantry.dev/{name}");
        let patch = json!({"metadata": {"annotations": {annotation: value}}});
        self.tenants().patch("acme", &PatchParams::default(), &Patch::Merge(&patch)).await?;
        Ok(())
    }

    fn tenants(&self) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Waits until a status is so.
    async fn until(
        &self,
        name: &str,
        what: &str,
        holds: impl Fn(&TenantStatus) -> bool,
    ) -> Result<TenantStatus> {
        let begun = std::time::Instant::now();
        loop {
            let status = self.tenants().get(name).await?.status.unwrap_or_default();
            if holds(&status) {
                return Ok(status);
            }
            if begun.elapsed() > WITHIN {
                bail!(
                    "{name} did not become {what}; its status is {}",
                    serde_json::to_string_pretty(&status)?
                );
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn until_phase(&self, name: &str, phase: Phase) -> Result<TenantStatus> {
        self.until(name, phase.as_str(), |status| status.phase == Some(phase)).await
    }

    async fn until_deployed(&self, name: &str, tag: &str) -> Result<TenantStatus> {
        self.until(name, &format!("deployed at {tag}"), |status| {
            status.phase == Some(Phase::Ready)
                && status.deployed.as_ref().is_some_and(|deployed| deployed.image_tag == tag)
        })
        .await
    }

    fn written(&self, kind: &str) -> f64 {
        let label = format!("tenantry_operator_api_writes_total{{kind=\"{kind}\"}} ");
        let text = self.metrics.text();
        text.lines()
            .find_map(|line| line.strip_prefix(&label))
            .and_then(|number| number.parse().ok())
            .unwrap_or(0.0)
    }
}

impl Scene {
    /// Touches a Tenant and waits until the operator has begun to look at it again.
    async fn looks_again(&self, name: &str, touch: &str) -> Result<()> {
        let observed = || self.host.change(|state| state.calls["observe"]);
        let before = observed();
        let touched = json!({"metadata": {"annotations": {"example.org/touch": touch}}});
        self.tenants().patch(name, &PatchParams::default(), &Patch::Merge(&touched)).await?;
        let begun = std::time::Instant::now();
        while observed() == before {
            assert!(begun.elapsed() < WITHIN, "not looked at again");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.crash();
    }
}

/// One test function: all scenes share one server, which ends with the process.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_executor_on_a_real_api_server() -> Result<()> {
    let server = ApiServer::start().await?;
    adopts_then_upgrades_with_few_writes(&server).await.context("adopts, then upgrades with few writes")?;
    a_failed_target_is_not_tried_again(&server).await.context("a failed target is not tried again")?;
    a_lost_answer_is_found_again(&server).await.context("a lost answer is found again")?;
    a_lost_request_is_sent_again(&server).await.context("a lost request is sent again")?;
    a_restarted_operator_goes_on(&server).await.context("a restarted operator goes on")?;
    an_unreachable_host_is_told(&server).await.context("an unreachable host is told")?;
    the_older_of_two_wins(&server).await.context("the older of two wins")?;
    a_deleted_tenant_releases_its_claim(&server).await.context("a deleted Tenant releases its claim")?;
    p9_a_person_goes_back_and_the_wanted_target_stays_away(&server).await.context("a person goes back")?;
    p9_a_person_goes_back_though_the_bundle_is_gone(&server)
        .await
        .context("a person goes back without a bundle")?;
    p16_damaged_records_wait_for_a_person(&server).await.context("damaged records wait for a person")?;
    p2_a_claim_is_taken_over_when_asked_for(&server).await.context("a claim is taken over")?;
    a_bundle_is_installed_and_followed(&server).await.context("a bundle is installed and followed")?;
    gitops::scenes(&server).await?;
    rights::scenes(&server).await
}

async fn adopts_then_upgrades_with_few_writes(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    let status = scene.until_deployed("acme", "v1").await?;
    assert!(status.upgrade.is_none(), "adopted, not upgraded");
    let tenant = scene.tenants().get("acme").await?;
    assert!(tenant.finalizers().iter().any(|name| name == tenantry_api::FINALIZER));

    let before = scene.written("tenant_status");
    scene.tenant("acme", "v2").await?;
    let status = scene.until_deployed("acme", "v2").await?;
    let upgrade = status.upgrade.context("an upgrade")?;
    assert_eq!((upgrade.outcome, upgrade.from.as_deref()), (Some(Outcome::Succeeded), Some("v1")));
    assert_eq!(upgrade.phases.len(), 4);
    let writes = scene.written("tenant_status") - before;
    assert!((2.0..=7.0).contains(&writes), "{writes} status writes for one upgrade");
    let requests = scene.host.change(|state| state.requests.len());
    assert_eq!(requests, 1);

    // Nothing is written while nothing changes, also when looked at again. A look ends before the next one begins, so
    // what the looks before the first wrote is counted by then, and what that one and the second wrote when the third begins.
    scene.looks_again("acme", "1").await?;
    let before = scene.written("tenant_status");
    scene.looks_again("acme", "2").await?;
    scene.looks_again("acme", "3").await?;
    assert!((scene.written("tenant_status") - before).abs() < 0.5, "a no-op wrote status");
    Ok(())
}

async fn a_failed_target_is_not_tried_again(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.host.change(|state| state.outcome = Some(Outcome::RolledBack));
    scene.tenant("acme", "v2").await?;
    let status = scene.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(status.deployed.context("deployed")?.image_tag, "v1");
    assert_eq!(status.blocked_target.context("blocked")?.image_tag, "v2");

    scene.host.change(|state| state.outcome = None);
    let retry = json!({"metadata": {"annotations": {"tenantry.dev/retry": "1"}}});
    assert_eq!(scene.host.change(|state| state.requests.len()), 1, "tried again by itself");
    scene.tenants().patch("acme", &PatchParams::default(), &Patch::Merge(&retry)).await?;
    let status = scene.until_deployed("acme", "v2").await?;
    assert_eq!(status.handled.and_then(|handled| handled.retry).as_deref(), Some("1"));
    assert_eq!(status.history.len(), 2);
    Ok(())
}

async fn a_lost_answer_is_found_again(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.host.change(|state| state.lose_answers = 1);
    scene.tenant("acme", "v2").await?;
    scene.until_deployed("acme", "v2").await?;
    let ids = scene.host.change(|state| state.operations.len());
    assert_eq!(ids, 1, "one operation, though its answer was lost");
    Ok(())
}

async fn a_lost_request_is_sent_again(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.host.change(|state| state.lose_requests = 2);
    scene.tenant("acme", "v2").await?;
    let status = scene.until_deployed("acme", "v2").await?;
    let requests = scene.host.change(|state| state.requests.clone());
    assert_eq!(requests.len(), 1);
    assert_eq!(
        status.upgrade.context("an upgrade")?.id,
        requests[0].0.as_str(),
        "under the id that status named"
    );
    Ok(())
}

async fn a_restarted_operator_goes_on(server: &ApiServer) -> Result<()> {
    let mut scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.host.change(|state| state.hold = true);
    scene.tenant("acme", "v2").await?;
    scene.until_phase("acme", Phase::Verifying).await?;
    scene.crash();
    // It ends while no operator looks, and the spec moves on.
    scene.host.change(|state| state.hold = false);
    scene.tenant("acme", "v3").await?;
    scene.start();
    let status = scene.until_deployed("acme", "v3").await?;
    let tags: Vec<_> = status.history.iter().map(|entry| (entry.to.as_str(), entry.outcome)).collect();
    assert_eq!(tags, [("v3", Outcome::Succeeded), ("v2", Outcome::Succeeded)]);
    let epochs =
        scene.host.change(|state| state.requests.iter().map(|(_, one)| one.epoch).collect::<Vec<_>>());
    assert!(epochs.is_sorted_by(|a, b| a < b), "{epochs:?}");
    Ok(())
}

async fn an_unreachable_host_is_told(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.host.change(|state| state.gone = true);
    scene.tenant("acme", "v1").await?;
    let status = scene.until_phase("acme", Phase::HostUnreachable).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert_eq!(ready.status, "Unknown");
    assert!(ready.message.contains("connection refused"), "{}", ready.message);
    scene.host.change(|state| state.gone = false);
    scene.until_deployed("acme", "v1").await?;
    Ok(())
}

async fn the_older_of_two_wins(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.tenant_with("rival", json!({"imageTag": "v1", "project": "acme"})).await?;
    let status = scene.until_phase("rival", Phase::Refused).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert!(["Duplicate", "ClaimedByOther"].contains(&ready.reason.as_str()), "{}", ready.reason);
    Ok(())
}

async fn a_deleted_tenant_releases_its_claim(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    assert!(scene.host.change(|state| state.claim.is_some()));
    let of_host = |host: &str| ListParams::default().fields(&format!("spec.host={host}"));
    assert_eq!(scene.tenants().list(&of_host("another")).await?.items.len(), 0);
    assert_eq!(
        scene.tenants().list(&of_host("n5")).await?.items.len(),
        1,
        "one command finds those of a host"
    );
    // A host that is away is waited for, and the Tenant says so.
    scene.host.change(|state| state.gone = true);
    scene.tenants().delete("acme", &DeleteParams::default()).await?;
    let waits = |status: &TenantStatus| {
        let deleting = tenantry_api::conditions::find(&status.conditions, "Deleting");
        deleting.is_some_and(|one| one.reason == "WaitsForHost" && one.message.contains("waits until"))
    };
    scene.until("acme", "what it waits for", waits).await?;
    scene.host.change(|state| state.gone = false);
    let begun = std::time::Instant::now();
    while scene.tenants().get_opt("acme").await?.is_some() {
        assert!(begun.elapsed() < WITHIN, "the Tenant is still there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(scene.host.change(|state| state.claim.is_none()));
    assert_eq!(scene.host.change(|state| state.requests.len()), 0, "deleting did something on the host");
    let reasons = scene.reasons().await?;
    for told in ["Deleting", "Released"] {
        assert!(reasons.iter().any(|reason| reason == told), "{told}: {reasons:?}");
    }
    Ok(())
}

async fn p9_a_person_goes_back_and_the_wanted_target_stays_away(server: &ApiServer) -> Result<()> {
    let mut scene = Scene::new(server, Host::with_tag("v1")).await?;
    for tag in ["v1", "v2", "v3"] {
        scene.tenant("acme", tag).await?;
        scene.until_deployed("acme", tag).await?;
    }
    let status = scene.until("acme", "two restore points", |status| status.restore_points.len() == 2).await?;
    assert_eq!(status.restore_points[0].image_tag, "v2");
    // The operator dies with the rollback in flight, and its successor tells the end.
    scene.host.change(|state| state.hold = true);
    scene.annotate("rollback-to", ",data,monday").await?;
    scene
        .until("acme", "going back", |status| {
            status
                .upgrade
                .as_ref()
                .is_some_and(|upgrade| upgrade.rollback_to.is_some() && upgrade.phases.len() > 2)
        })
        .await?;
    scene.crash();
    scene.host.change(|state| state.hold = false);
    scene.start();
    let status = scene.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(status.deployed.context("deployed")?.image_tag, "v2");
    assert_eq!(status.blocked_target.context("blocked")?.image_tag, "v3");
    let upgrade = status.upgrade.context("an upgrade")?;
    assert_eq!((upgrade.outcome, upgrade.data_restored), (Some(Outcome::Succeeded), true));
    assert!(status.history[0].message.contains("is lost"), "{}", status.history[0].message);
    assert_eq!(scene.host.change(|state| state.requests.len()), 3);
    // A point that is not there holds up nothing but itself, and no upgrade slips in.
    scene.annotate("rollback-to", "nowhere-1").await?;
    let status = scene.until_phase("acme", Phase::Refused).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert_eq!(ready.reason, "RestorePointMissing");
    assert!(ready.message.contains(&status.restore_points[0].id), "{}", ready.message);
    assert_eq!(scene.host.change(|state| state.requests.len()), 3);
    Ok(())
}

async fn p16_damaged_records_wait_for_a_person(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    scene.tenant("acme", "v1").await?;
    scene.until_deployed("acme", "v1").await?;
    scene.host.change(|state| state.damage = Some("/state/journal/x-1 is damaged: line 3".to_owned()));
    scene.tenant("acme", "v2").await?;
    let status = scene.until_phase("acme", Phase::Refused).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert_eq!(ready.reason, "RecordsDamaged");
    assert!(ready.message.contains("tenantry accept-host acme"), "{}", ready.message);
    assert_eq!(scene.host.change(|state| state.requests.len()), 0);
    let epoch = scene.host.change(|state| state.epoch);
    scene.annotate("accept-host", "1").await?;
    let status = scene.until_phase("acme", Phase::Aborted).await?;
    assert!(status.blocked_target.context("blocked")?.accepted);
    scene.host.change(|state| {
        assert_eq!((state.calls["accept"], state.requests.len()), (1, 0));
        assert!(state.epoch > epoch, "P2: the epoch rises");
    });
    scene.annotate("retry", "1").await?;
    scene.until_deployed("acme", "v2").await?;
    Ok(())
}

async fn p2_a_claim_is_taken_over_when_asked_for(server: &ApiServer) -> Result<()> {
    let host = Host::with_tag("v1");
    let other = tenantry_api::names::TenantUid::parse("ff")?;
    host.change(|state| state.claim = Some(other));
    let scene = Scene::new(server, host).await?;
    scene.tenant("acme", "v1").await?;
    let status = scene.until_phase("acme", Phase::Refused).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert_eq!(ready.reason, "ClaimedByOther");
    scene.annotate("claim", "1").await?;
    let status = scene.until_deployed("acme", "v1").await?;
    assert_eq!(status.handled.and_then(|handled| handled.claim).as_deref(), Some("1"));
    assert_eq!(scene.host.change(|state| state.calls["takeover"]), 1);
    Ok(())
}

async fn a_bundle_is_installed_and_followed(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::default()).await?;
    let spec = json!({"imageTag": "v1", "bundle": "hello", "values": {"name": "x"}, "env": {}});
    scene.tenant_with("acme", spec).await?;
    let status = scene.until_phase("acme", Phase::Refused).await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert_eq!(ready.reason, "BundleMissing");

    let source = json!({"spec": {"source": {"configMap": {"name": "hello-files"}}}});
    scene.apply::<TemplateBundle>("TemplateBundle", "hello", &source).await?;
    let data = |text: &str| {
        json!({"data": {
            "bundle.yaml": "files: [{source: conf__a.tera, destination: conf/a}, {source: conf/a.tera, destination: conf/b}]",
            "conf__a.tera": text,
        }})
    };
    // The first version names a file by its key instead of its path: refused, with the place.
    scene.apply::<ConfigMap>("ConfigMap", "hello-files", &data("{{ values.name }}")).await?;
    let status = scene
        .until("acme", "BundleInvalid", |status| {
            let ready = tenantry_api::conditions::find(&status.conditions, "Ready");
            ready.is_some_and(|ready| ready.reason == "BundleInvalid")
        })
        .await?;
    let ready = tenantry_api::conditions::find(&status.conditions, "Ready").context("Ready")?;
    assert!(ready.message.contains("files[0].source"), "{}", ready.message);

    let mut good = data("{{ values.name }}");
    good["data"]["bundle.yaml"] = json!("files: [{source: conf/a.tera}]");
    scene.apply::<ConfigMap>("ConfigMap", "hello-files", &good).await?;
    let first = scene.until_deployed("acme", "v1").await?;
    good["data"]["conf__a.tera"] = json!("{{ values.name }} and more");
    scene.apply::<ConfigMap>("ConfigMap", "hello-files", &good).await?;
    let old = first.deployed.context("deployed")?.bundle_revision;
    let second = scene
        .until("acme", "at the new bundle", |status| {
            let deployed = status.deployed.as_ref();
            status.phase == Some(Phase::Ready)
                && deployed.is_some_and(|deployed| deployed.bundle_revision != old)
        })
        .await?;
    assert_eq!(second.plan.context("a plan")?.files.modified, 1);
    let bundle: Api<TemplateBundle> = Api::namespaced(scene.client.clone(), &scene.namespace);
    // The bundle says it once its Tenants have noted it.
    let digest = second.deployed.context("deployed")?.bundle_revision;
    let begun = std::time::Instant::now();
    loop {
        let status = bundle.get("hello").await?.status.context("a status")?;
        if (status.files, &status.digest) == (Some(1), &digest) {
            return Ok(());
        }
        assert!(begun.elapsed() < WITHIN, "{:?} is not {digest:?}", status.digest);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

async fn p9_a_person_goes_back_though_the_bundle_is_gone(server: &ApiServer) -> Result<()> {
    let scene = Scene::new(server, Host::with_tag("v1")).await?;
    for tag in ["v1", "v2"] {
        scene.tenant("acme", tag).await?;
        scene.until_deployed("acme", tag).await?;
    }
    scene.until("acme", "a restore point", |status| status.restore_points.len() == 1).await?;
    scene.tenant_with("acme", json!({"imageTag": "v3", "bundle": "gone"})).await?;
    let refused = |status: &TenantStatus| {
        let ready = tenantry_api::conditions::find(&status.conditions, "Ready");
        ready.is_some_and(|ready| ready.reason == "BundleMissing")
    };
    scene.until("acme", "refused", refused).await?;
    scene.annotate("rollback-to", ",now").await?;
    let went_back =
        |status: &TenantStatus| status.deployed.as_ref().is_some_and(|deployed| deployed.image_tag == "v1");
    let status = scene.until("acme", "going back", went_back).await?;
    assert_eq!(
        status.blocked_target.context("blocked")?.image_tag,
        "v2",
        "what was left does not come back by itself"
    );
    scene.until("acme", "refused again", refused).await?;
    // As it was before the bundle went: that is what was left.
    scene.tenant_with("acme", json!({"imageTag": "v2", "bundle": null})).await?;
    scene.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(scene.host.change(|state| state.requests.len()), 2);
    Ok(())
}
