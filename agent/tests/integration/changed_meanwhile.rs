//! What compose reads may be changed after it was checked: a container that can write to the directory would do it.

use std::fs::write;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenantry_agent::files::{DiskIo, Effect, Hook};
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::FailureCategory;

use crate::support::{Sandbox, assert_outcome, failure};

/// Writes an override as soon as the release's own files are in place.
struct Writes {
    at: PathBuf,
    content: &'static str,
}

impl Hook for Writes {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        // The record of the commit becomes the record that it is done.
        if matches!(effect, Effect::Rename(_)) && path.ends_with("COMMIT") {
            write(&self.at, self.content)?;
        }
        Ok(())
    }
}

const OVERRIDE: &str = "docker-compose.override.yml";

/// An upgrade during which the override appears.
async fn upgraded_while(tenant: &mut Sandbox, content: &'static str) -> tenantry_protocol::OperationStatus {
    tenant.publish("v1", &[]);
    tenant.publish("v2", &[]);
    tenant.manage("docker-compose.yml", &tenant.compose());
    tenant.tag("v1");
    assert_outcome(&tenant.run("1a2b3c4d-1", "Release").await, Outcome::Succeeded);
    tenant.stop_agent().await;
    let at = tenant.directory().join(OVERRIDE);
    tenant.disk_io = DiskIo::with(Arc::new(Writes { at, content }));
    tenant.start_agent().await;
    tenant.tag("v2");
    tenant.run("1a2b3c4d-2", "Release").await
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_what_was_changed_after_it_was_checked_is_checked_again_before_it_is_started() {
    let mut tenant = Sandbox::usual("meanwhile").await;
    let before = "services: {web: {privileged: true, volumes: ['/:/host']}}\n";
    let ended = upgraded_while(&mut tenant, before).await;
    // The override lies there still, so nothing can be started by it: what ran goes on.
    assert_outcome(&ended, Outcome::RollbackFailed);
    let failure = failure(&ended);
    assert_eq!(failure.category, FailureCategory::PolicyRefused, "{}", failure.message);
    assert!(failure.message.contains(OVERRIDE), "{}", failure.message);
    assert!(failure.message.contains("changed while the operation was under way"), "{}", failure.message);
    assert_eq!(tenant.version_of("web"), "v1");
    let web = tenant.container("web");
    assert_eq!(
        crate::support::docker(&["inspect", "-f", "{{.HostConfig.Privileged}}", &web]).trim(),
        "false"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn p13_what_a_person_may_change_meanwhile_is_started_as_it_is() {
    let mut tenant = Sandbox::usual("meanwhileok").await;
    let ended = upgraded_while(&mut tenant, "services: {worker: {environment: {EXTRA: yes-please}}}\n").await;
    assert_outcome(&ended, Outcome::Succeeded);
    assert_eq!(tenant.version_of("web"), "v2");
    let worker = tenant.container("worker");
    assert!(
        crate::support::docker(&["inspect", "-f", "{{.Config.Env}}", &worker]).contains("EXTRA=yes-please")
    );
}
