//! Recording: status, finalizer, events. A status that says nothing new is not written.

use std::sync::Arc;
use std::time::{Duration, Instant};

use kube::api::{Patch, PatchParams};
use kube::{Api, Resource, ResourceExt};
use serde_json::json;
use tenantry_api::conditions::{READY, RECONCILING};
use tenantry_api::tenant_status::{Phase, PhaseState, TenantStatus};
use tenantry_api::{FIELD_MANAGER, FINALIZER, Tenant};
use tenantry_planner::decide::{Decision, Finalizer};

use super::Tenants;
use super::pass::{PassError, Turn, subject};

impl Tenants {
    /// Writes what is new. Returns how long progress alone waits until it may be written.
    pub(super) async fn record(
        &self,
        turn: &mut Turn,
        decision: &Decision,
    ) -> Result<Option<Duration>, PassError> {
        if decision.finalizer == Finalizer::Add {
            self.add_finalizer(turn).await?;
        }
        let old = turn.tenant.status.clone().unwrap_or_default();
        if old == decision.status {
            self.count_phase(turn, &old);
            return Ok(None);
        }
        let only_progress = is_progress(&old, &decision.status);
        let waits = self.with_memory(&turn.key, |memory| {
            if only_progress {
                return memory.progress.may_write(Instant::now()).err();
            }
            memory.progress.reset();
            None
        });
        if waits.is_some() {
            return Ok(waits);
        }
        self.write_status(turn, &decision.status).await?;
        self.count_phase(turn, &decision.status);
        for entry in &decision.status.history {
            if !old.history.iter().any(|known| known.id == entry.id) {
                self.metrics.upgraded(entry.outcome.as_str());
            }
        }
        let action = decision.status.upgrade.as_ref().map_or("Observe", |upgrade| upgrade.id.as_str());
        self.tell(turn, action, decision);
        Ok(None)
    }

    /// Events go out beside the pass: nothing waits for them.
    fn tell(&self, turn: &Turn, action: &str, decision: &Decision) {
        for note in &decision.notes {
            tracing::info!(tenant = %turn.key, operation = action, reason = note.reason, "{}", note.text);
        }
        if decision.notes.is_empty() {
            return;
        }
        self.metrics.wrote("event");
        let (events, tenant, action, notes) =
            (self.events.clone(), turn.tenant.clone(), action.to_owned(), decision.notes.clone());
        tokio::spawn(async move { events.publish(tenant.as_ref(), &action, &notes).await });
    }

    async fn write_status(&self, turn: &mut Turn, status: &TenantStatus) -> Result<(), PassError> {
        let body = json!({
            "apiVersion": Tenant::api_version(&()),
            "kind": Tenant::kind(&()),
            "metadata": {
                "name": turn.key.name,
                "namespace": turn.key.namespace,
                "resourceVersion": turn.tenant.resource_version(),
            },
            "status": status,
        });
        let parameters = PatchParams::apply(FIELD_MANAGER).force();
        let written = self.api(turn).patch_status(&turn.key.name, &parameters, &Patch::Apply(&body)).await?;
        self.metrics.wrote("tenant_status");
        self.take(turn, written);
        Ok(())
    }

    async fn add_finalizer(&self, turn: &mut Turn) -> Result<(), PassError> {
        let mut finalizers = turn.tenant.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        self.write_finalizers(turn, &finalizers).await
    }

    pub(super) async fn remove_finalizer(&self, turn: &mut Turn) -> Result<(), PassError> {
        let kept: Vec<String> =
            turn.tenant.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
        match self.write_finalizers(turn, &kept).await {
            Err(PassError::Api(error)) if is_gone(&error) => Ok(()),
            other => other,
        }
    }

    async fn write_finalizers(&self, turn: &mut Turn, finalizers: &[String]) -> Result<(), PassError> {
        let body = json!({
            "metadata": { "resourceVersion": turn.tenant.resource_version(), "finalizers": finalizers }
        });
        let parameters =
            PatchParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PatchParams::default() };
        let written = self.api(turn).patch(&turn.key.name, &parameters, &Patch::Merge(&body)).await?;
        self.metrics.wrote("tenant_finalizer");
        self.take(turn, written);
        Ok(())
    }

    /// Goes on with what a write returned: it is the newest there is.
    fn take(&self, turn: &mut Turn, mut written: Tenant) {
        written.managed_fields_mut().clear();
        let written = Arc::new(written);
        self.with_memory(&turn.key, |memory| memory.written = Some(written.clone()));
        turn.subject = subject(&written);
        turn.tenant = written;
        turn.fresh = true;
    }

    fn api(&self, turn: &Turn) -> Api<Tenant> {
        Api::namespaced(self.client.clone(), &turn.key.namespace)
    }

    fn count_phase(&self, turn: &Turn, status: &TenantStatus) {
        let phase = status.phase.map(Phase::as_str);
        let before = self.with_memory(&turn.key, |memory| std::mem::replace(&mut memory.phase, phase));
        self.metrics.moved(before, phase);
    }
}

fn is_gone(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.code == 404)
}

/// Whether two statuses differ only in how far a pull is.
fn is_progress(old: &TenantStatus, new: &TenantStatus) -> bool {
    new.phase == Some(Phase::Pulling) && without_progress(old) == without_progress(new)
}

fn without_progress(status: &TenantStatus) -> TenantStatus {
    let mut status = status.clone();
    let spoken = status.conditions.iter_mut().filter(|one| one.type_ == READY || one.type_ == RECONCILING);
    spoken.for_each(|condition| condition.message.clear());
    if let Some(upgrade) = &mut status.upgrade {
        for phase in upgrade.phases.iter_mut().filter(|phase| phase.state == PhaseState::Running) {
            phase.message = None;
        }
    }
    status
}
