//! What Flux sees: its own controller applies commits, waits, and is ready only where it may be.

mod rig;

use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_tests::docker::Project;
use tenantry_tests::world::{SOON, World, phase_of};

use crate::sample;
use rig::Flux;

/// What a commit says.
#[derive(Clone)]
struct Commit {
    tag: String,
    suspend: bool,
    bundle: &'static str,
    greeting: &'static str,
}

/// One Kustomization and the Tenant that it applies.
struct Story {
    world: World,
    flux: Flux,
    project: Project,
    repository: String,
}

impl Story {
    async fn begin() -> Result<Self> {
        let world = World::start("flux").await?;
        let repository = sample::repository("flux")?;
        let project = Project::new(&world.srv, "flux")?;
        project.write(".env", &sample::env_file("none", project.port))?;
        project.write("content/index.md", "the tenant's own words\n")?;
        let flux = Flux::start(&world).await?;
        Ok(Self { world, flux, project, repository })
    }

    fn publish(&self, tag: &str, variables: &[(&str, &str)]) -> Result<()> {
        sample::publish(&self.repository, tag, variables)
    }

    /// Commits a Tenant and its bundle as `docs/guides/flux.md` shows them.
    async fn commit(&mut self, commit: &Commit) -> Result<String> {
        let tenant = self.tenant(commit);
        let bundle = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "TemplateBundle", "metadata": {"name": commit.bundle},
            "spec": {"source": {"configMap": {"name": "shop-files"}}},
        });
        let names = json!({"nameReference": [{
            "kind": "ConfigMap",
            "fieldSpecs": [{"kind": "TemplateBundle", "path": "spec/source/configMap/name"}],
        }]});
        let sources = sample::bundle_files(&self.repository, commit.greeting);
        let generated: Vec<String> =
            sources.iter().map(|(path, _)| format!("{}=shop/{path}", path.replace('/', "__"))).collect();
        let kustomization = json!({
            "namespace": self.world.namespace, "resources": ["bundle.yaml", "acme.yaml"],
            "configurations": ["names.yaml"],
            "configMapGenerator": [{"name": "shop-files", "files": generated}],
        });
        let of_bundle = sources.into_iter().map(|(path, content)| (format!("shop/{path}"), content));
        let own = [
            ("kustomization.yaml", kustomization),
            ("names.yaml", names),
            ("bundle.yaml", bundle),
            ("acme.yaml", tenant),
        ];
        let own = own.into_iter().map(|(path, content)| (path.to_owned(), content.to_string()));
        self.flux.commit(&own.chain(of_bundle).collect::<Vec<_>>()).await
    }

    fn tenant(&self, commit: &Commit) -> serde_json::Value {
        let mut tenant = self.world.tenant(&self.project, &commit.tag);
        tenant["spec"]["bundle"] = json!(commit.bundle);
        tenant["spec"]["suspend"] = json!(commit.suspend);
        // Without `status`, which the API server adds: no difference to what is in git.
        let url = format!("http://127.0.0.1:{}/version", self.project.port);
        tenant["spec"]["upgrade"]["verify"]["http"] = json!([{"url": url}]);
        tenant
    }

    /// Waits until the Kustomization is ready at a revision; just then the Tenant has to be, with what the commit says.
    async fn ready(&self, revision: &str, commit: &Commit) -> Result<()> {
        self.flux.ready_at(revision).await?;
        let tenant = self.world.tenants().get("acme").await?;
        let status = tenant.status.clone().unwrap_or_default();
        ensure!(status.observed_generation == tenant.metadata.generation, "nobody looked yet: {status:?}");
        ensure!(phase_of(&tenant) == Some(Phase::Ready), "{status:?}");
        let deployed = status.deployed.context("what is deployed")?;
        ensure!(deployed.image_tag == commit.tag, "{deployed:?}");
        ensure!(self.project.answer("/version").await? == commit.tag);
        let config = self.project.answer("/config").await?;
        ensure!(config.contains(commit.greeting), "{config}");
        Ok(())
    }

    /// A person's second thought, which is not in git.
    fn retry(&self) -> Result<()> {
        let output = Command::new("kubectl")
            .args(["annotate", "tenant", "acme", "tenantry.dev/retry=1", "--overwrite"])
            .args(["--namespace", &self.world.namespace])
            .env("KUBECONFIG", &self.world.plane.kubeconfig)
            .output()?;
        ensure!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        Ok(())
    }

    /// A new Tenant that no operator has looked at is not what the commit asks for.
    async fn a_new_tenant_is_waited_for(&mut self, first: &Commit) -> Result<()> {
        drop(self.world.operator.take());
        let revision = self.commit(first).await?;
        self.flux.waits_at(&revision).await?;
        self.world.start_operator()?;
        self.ready(&revision, first).await
    }

    /// What fails is told as failed, before Flux's patience ends. Why it failed is the Tenant's to say.
    async fn a_failed_release_is_told(&mut self, release: &Commit) -> Result<()> {
        let revision = self.commit(release).await?;
        let message = self.flux.failed_at(&revision).await?;
        ensure!(message.contains("failed early due to stalled resources"), "{message}");
        ensure!(message.contains("/acme status: 'Failed'"), "{message}");
        Ok(())
    }

    /// The same value of an annotation twice: Flux takes it away in between.
    async fn two_retries_are_heard(&mut self, release: &Commit) -> Result<()> {
        let revision = self.commit(release).await?;
        self.flux.failed_at(&revision).await?;
        self.retry()?;
        let world = &self.world;
        let again = world.until("acme", "the first retry ended", SOON, |tenant| {
            let upgrade = tenant.status.as_ref().and_then(|status| status.upgrade.as_ref());
            upgrade.is_some_and(|upgrade| upgrade.attempt == 2 && upgrade.outcome == Some(Outcome::Aborted))
        });
        again.await?;
        self.flux.reconcile().await?;
        let forgotten = world.until("acme", "the annotation is gone", SOON, |tenant| {
            let handled = tenant.status.as_ref().and_then(|status| status.handled.as_ref());
            let known = handled.and_then(|handled| handled.retry.as_deref()).unwrap_or_default();
            let annotations = tenant.metadata.annotations.clone().unwrap_or_default();
            !annotations.contains_key("tenantry.dev/retry") && known.is_empty()
        });
        forgotten.await?;
        self.publish(&release.tag, &[])?;
        self.retry()?;
        self.world.until_ready_at("acme", &release.tag).await?;
        self.flux.reconcile().await?;
        self.ready(&revision, release).await
    }

    /// A suspended Tenant is not at what another commit asks for, and is again when that is taken back.
    async fn a_suspended_release_is_not_ready(&mut self, release: &Commit, before: &Commit) -> Result<()> {
        let revision = self.commit(release).await?;
        self.world.until_phase("acme", Phase::Suspended).await?;
        self.flux.waits_at(&revision).await?;
        let revision = self.commit(before).await?;
        self.ready(&revision, before).await
    }

    /// Flux applies the same again and again: nobody writes anything.
    async fn nobody_writes_where_nothing_changes(&mut self, release: &Commit) -> Result<()> {
        let world = &self.world;
        let versions = || async {
            let tenant = world.tenants().get("acme").await?.metadata;
            let bundle = world.bundles().get(release.bundle).await?.metadata;
            anyhow::Ok((tenant.generation, tenant.resource_version, bundle.resource_version))
        };
        let before = versions().await?;
        for _ in 0..3 {
            let state = self.flux.reconcile().await?;
            ensure!(state.ready == "True", "{state:?}");
        }
        assert_eq!(versions().await?, before);
        Ok(())
    }
}

#[tokio::test]
#[ignore = "needs Flux's controller, which takes minutes to build: cargo xtask gitops"]
async fn p14_flux_is_ready_when_its_tenants_are_and_only_then() -> Result<()> {
    let mut story = Story::begin().await?;
    for tag in ["v1", "v2"] {
        story.publish(tag, &[])?;
    }
    story.publish("bad", &[("CRASH_AFTER", "200ms")])?;
    let first = Commit { tag: "v1".to_owned(), suspend: false, bundle: "shop-1", greeting: "hello" };
    story.a_new_tenant_is_waited_for(&first).await?;

    let second = Commit { tag: "v2".to_owned(), ..first };
    let revision = story.commit(&second).await?;
    story.ready(&revision, &second).await?;
    story.a_failed_release_is_told(&Commit { tag: "bad".to_owned(), ..second.clone() }).await?;
    // The registry outlives the run: only a name that is new is missing there.
    let missing = Commit { tag: story.world.namespace.clone(), ..second };
    story.two_retries_are_heard(&missing).await?;

    let suspended = Commit { tag: "v1".to_owned(), suspend: true, ..missing.clone() };
    story.a_suspended_release_is_not_ready(&suspended, &missing).await?;
    story.nobody_writes_where_nothing_changes(&missing).await?;

    // Only the bundle's files change.
    let files = Commit { bundle: "shop-2", greeting: "good evening", ..missing };
    let revision = story.commit(&files).await?;
    story.ready(&revision, &files).await?;
    story.project.assert_hand_run_changes_nothing()?;
    story.world.assert_canary_unseen().await
}
