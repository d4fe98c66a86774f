//! Recording: status, finalizer, events. A status that says nothing new is not written.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt as _;
use tenantry_api::conditions::{HOST_REACHABLE, READY, find};
use tenantry_api::tenant_status::{Phase, TenantStatus};
use tenantry_api::{FINALIZER, Tenant};
use tenantry_planner::decide::{Decision, Finalizer};

use super::Tenants;
use super::reconcile::{Attempt, ReconcileError};
use crate::cluster::ClusterError;

impl Tenants {
    /// Writes what is new. Returns how long progress alone waits until it may be written.
    pub(super) async fn record(
        &self,
        attempt: &mut Attempt,
        decision: &Decision,
    ) -> Result<Option<Duration>, ReconcileError> {
        self.ensure_finalizer(attempt, decision).await?;
        let old = attempt.tenant.status.clone().unwrap_or_default();
        if old == decision.status {
            self.count_phase(attempt, &old);
            return Ok(None);
        }
        let only_progress = is_progress(&old, &decision.status);
        let waits = self.with_cache(&attempt.key, |cache| {
            if only_progress {
                return cache.progress.may_write(self.runtime.instant()).err();
            }
            cache.progress.reset();
            None
        });
        if waits.is_some() {
            return Ok(waits);
        }
        self.write_status(attempt, &decision.status).await?;
        self.count_phase(attempt, &decision.status);
        for entry in &decision.status.history {
            if !old.history.iter().any(|known| known.id == entry.id) {
                self.metrics.upgraded(entry.outcome.as_str());
            }
        }
        self.publish_events(attempt, decision);
        Ok(None)
    }

    /// Puts our finalizer on before anything is held on the host.
    pub(super) async fn ensure_finalizer(
        &self,
        attempt: &mut Attempt,
        decision: &Decision,
    ) -> Result<(), ReconcileError> {
        if decision.finalizer == Finalizer::Add && !attempt.subject.finalizer {
            self.add_finalizer(attempt).await?;
        }
        Ok(())
    }

    /// Events go out beside the reconciliation: nothing waits for them.
    fn publish_events(&self, attempt: &Attempt, decision: &Decision) {
        for event in &decision.events {
            let action = event.action();
            tracing::info!(tenant = %attempt.key, operation = action, reason = event.reason, "{}", event.note);
        }
        if decision.events.is_empty() {
            return;
        }
        self.metrics.wrote("event");
        let (cluster, tenant, events) =
            (self.cluster.clone(), attempt.tenant.clone(), decision.events.clone());
        self.runtime.spawn(Box::pin(async move { cluster.publish(&tenant, &events).await }));
    }

    async fn write_status(&self, attempt: &mut Attempt, status: &TenantStatus) -> Result<(), ReconcileError> {
        let written = self.cluster.apply_status(&attempt.tenant, status).await?;
        self.metrics.wrote("tenant_status");
        self.take(attempt, written);
        Ok(())
    }

    async fn add_finalizer(&self, attempt: &mut Attempt) -> Result<(), ReconcileError> {
        let mut finalizers = attempt.tenant.finalizers().to_vec();
        finalizers.push(FINALIZER.to_owned());
        self.write_finalizers(attempt, &finalizers).await
    }

    pub(super) async fn remove_finalizer(&self, attempt: &mut Attempt) -> Result<(), ReconcileError> {
        let kept: Vec<String> =
            attempt.tenant.finalizers().iter().filter(|name| *name != FINALIZER).cloned().collect();
        match self.write_finalizers(attempt, &kept).await {
            Err(ReconcileError::Api(ClusterError::NotFound)) => Ok(()),
            other => other,
        }
    }

    async fn write_finalizers(
        &self,
        attempt: &mut Attempt,
        finalizers: &[String],
    ) -> Result<(), ReconcileError> {
        let written = self.cluster.patch_finalizers(&attempt.tenant, finalizers).await?;
        self.metrics.wrote("tenant_finalizer");
        self.take(attempt, written);
        Ok(())
    }

    /// Goes on with what a write returned: it is the newest there is.
    fn take(&self, attempt: &mut Attempt, written: Arc<Tenant>) {
        self.with_cache(&attempt.key, |cache| cache.written = Some(written.clone()));
        attempt.subject = self.subject(&written);
        attempt.tenant = written;
        attempt.fresh = true;
    }

    fn count_phase(&self, attempt: &Attempt, status: &TenantStatus) {
        let phase = status.phase.map(Phase::as_str);
        let before = self.with_cache(&attempt.key, |cache| std::mem::replace(&mut cache.phase, phase));
        self.metrics.moved(before, phase);
    }
}

/// Whether an operation goes on in the phase that status names already: news of less weight than a phase.
fn is_progress(old: &TenantStatus, new: &TenantStatus) -> bool {
    let in_flight = |status: &TenantStatus| {
        let upgrade = status.upgrade.as_ref().filter(|upgrade| upgrade.outcome.is_none());
        upgrade.map(|upgrade| upgrade.id.clone())
    };
    let same = |kind| {
        let find = |status: &TenantStatus| {
            find(&status.conditions, kind).map(|one| (one.status.clone(), one.reason.clone()))
        };
        find(old) == find(new)
    };
    in_flight(new).is_some()
        && in_flight(old) == in_flight(new)
        && old.phase == new.phase
        && old.observed_generation == new.observed_generation
        && same(READY)
        && same(HOST_REACHABLE)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn status(phase: &str, outcome: &str, message: &str) -> TenantStatus {
        let mut value = json!({
            "phase": phase, "observedGeneration": 1,
            "upgrade": {
                "id": "a-1", "epoch": 1, "to": "v2", "targetHash": "x", "attempt": 1,
                "startedAt": "2026-01-01T00:00:00Z",
                "phases": [{"name": "Pulling", "state": "Running", "startedAt": "2026-01-01T00:00:00Z", "message": message}],
            },
        });
        if !outcome.is_empty() {
            value["upgrade"]["outcome"] = json!(outcome);
        }
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn only_news_within_a_phase_is_progress() {
        let pulling = status("Pulling", "", "1 of 3");
        assert!(is_progress(&pulling, &status("Pulling", "", "2 of 3")));
        assert!(!is_progress(&pulling, &status("Starting", "", "")));
        assert!(!is_progress(&pulling, &status("Pulling", "Aborted", "")));
        let mut newer = status("Pulling", "", "1 of 3");
        newer.observed_generation = Some(2);
        assert!(!is_progress(&pulling, &newer), "that a newer spec waits is said at once");
    }
}
