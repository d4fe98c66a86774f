//! Reconciling one Tenant: observe, decide, and carry the decision out; again where something moved meanwhile.

use std::sync::Arc;
use std::time::Duration;

use kube::ResourceExt;
use tenantry_api::Tenant;
use tenantry_api::annotations::{ACCEPT_HOST, CLAIM, ORPHAN, RECONCILE, RETRY, ROLLBACK_TO};
use tenantry_api::conditions::{READY, Truth, find};
use tenantry_api::tenant_status::TenantStatus;
use tenantry_planner::decide::{Decision, Effect, Facts, Finalizer, Subject, decide};
use tenantry_protocol::{Capability, ResolveResponse};

use super::Tenants;
use super::observe::{AgentAnswer, DesiredState};
use crate::cluster::ClusterError;
use crate::key::Key;

/// How many attempts one reconciliation makes when something moves under it.
const ATTEMPTS: usize = 5;

/// Why a reconciliation came to nothing. It is tried again.
#[derive(Debug, thiserror::Error)]
pub enum ReconcileError {
    /// The API server refused or did not answer.
    #[error("the API server: {0}")]
    Api(#[from] ClusterError),
    /// Somebody else wrote the object at the same time, again and again.
    #[error("the object changes faster than it can be looked at")]
    Contended,
}

impl ReconcileError {
    /// A word of a bounded set, for metrics.
    pub fn category(&self) -> &'static str {
        match self {
            Self::Api(_) => "api_error",
            Self::Contended => "conflict",
        }
    }

    /// Whether somebody else wrote the object in between.
    pub fn is_conflict(&self) -> bool {
        matches!(self, Self::Api(ClusterError::Conflict))
    }
}

/// A Tenant in the middle of an attempt.
pub(super) struct Attempt {
    pub key: Key,
    pub tenant: Arc<Tenant>,
    /// Whether it was read from the API server itself in this attempt.
    pub fresh: bool,
    pub subject: Subject,
    pub wanted: DesiredState,
}

/// What came of carrying out a decision.
pub(super) enum Executed {
    /// Look again after this.
    Done(Duration),
    /// The Tenant is gone.
    Gone,
    /// Something was learnt that changes the decision.
    Decide(AgentAnswer),
    /// A registry answered.
    Resolved(ResolveResponse),
}

impl Tenants {
    /// Attempts until one comes to an end. `None`: there is no such Tenant any more.
    pub(super) async fn try_reconcile(
        self: &Arc<Self>,
        key: &Key,
    ) -> Result<Option<Duration>, ReconcileError> {
        let mut tenant = self.latest(key);
        let mut fresh = false;
        for _ in 0..ATTEMPTS {
            let Some(present) = tenant.take() else {
                self.forget(key);
                return Ok(None);
            };
            match self.attempt(key, present, fresh).await {
                Ok(AttemptEnd::Done(wait)) => return Ok(Some(wait)),
                Ok(AttemptEnd::Gone) => {
                    self.forget(key);
                    return Ok(None);
                }
                Ok(AttemptEnd::Anew(newer)) => tenant = Some(newer),
                Err(error) if error.is_conflict() => tenant = self.fetch(key).await?,
                Err(error) => return Err(error),
            }
            fresh = true;
        }
        Err(ReconcileError::Contended)
    }

    async fn attempt(
        self: &Arc<Self>,
        key: &Key,
        tenant: Arc<Tenant>,
        fresh: bool,
    ) -> Result<AttemptEnd, ReconcileError> {
        let wanted = self.desired_state(&tenant).await;
        let subject = self.subject(&tenant);
        let mut attempt = Attempt { key: key.clone(), tenant, fresh, subject, wanted };
        self.before_asking(&mut attempt).await?;
        // A new spec most likely means work: it is read afresh while the host is asked.
        let known = attempt.tenant.status.as_ref().and_then(|status| status.observed_generation);
        let early = !attempt.fresh && known != Some(attempt.subject.generation);
        let fetch = async { if early { self.fetch(key).await.map(Some) } else { Ok(None) } };
        let (mut asked, fetched) = tokio::join!(self.ask_agent(&attempt), fetch);
        match fetched? {
            Some(None) => return Ok(AttemptEnd::Gone),
            Some(Some(newest)) if newest.resource_version() != attempt.tenant.resource_version() => {
                return Ok(AttemptEnd::Anew(newest));
            }
            Some(Some(_)) => attempt.fresh = true,
            None => {}
        }
        let mut resolved = None;
        for _ in 0..ATTEMPTS {
            let decision = self.decided(&attempt, &asked, resolved.as_ref());
            if needs_fresh(&decision) && !attempt.fresh {
                let Some(newest) = self.fetch(key).await? else { return Ok(AttemptEnd::Gone) };
                if newest.resource_version() != attempt.tenant.resource_version() {
                    return Ok(AttemptEnd::Anew(newest));
                }
                attempt.fresh = true;
            }
            match self.execute(&mut attempt, decision).await? {
                Executed::Done(wait) => return Ok(AttemptEnd::Done(wait)),
                Executed::Gone => return Ok(AttemptEnd::Gone),
                Executed::Decide(answer) => asked = answer,
                Executed::Resolved(answer) => resolved = Some(answer),
            }
        }
        Err(ReconcileError::Contended)
    }

    /// Says what is known before the host is asked, for that can take its time: a new Tenant gets its conditions, and one
    /// whose bundle has changed leaves `Ready`.
    async fn before_asking(self: &Arc<Self>, attempt: &mut Attempt) -> Result<(), ReconcileError> {
        let Ok(desired) = &attempt.wanted.desired else { return Ok(()) };
        let status = attempt.tenant.status.as_ref();
        let known = status.is_some_and(|status| {
            status.phase.is_some()
                && (!is_ready(status) || speaks_of(status, desired.bundle_revision.as_deref()))
        });
        if known || attempt.subject.deleted_at.is_some() {
            return Ok(());
        }
        let decision = self.decided(attempt, &AgentAnswer::NotAsked, None);
        self.record(attempt, &decision).await.map(|_| ())
    }

    fn decided(
        &self,
        attempt: &Attempt,
        asked: &AgentAnswer,
        resolved: Option<&ResolveResponse>,
    ) -> Decision {
        let empty = TenantStatus::default();
        decide(&Facts {
            subject: &attempt.subject,
            desired: attempt.wanted.desired.as_deref(),
            back: attempt.wanted.back.as_deref(),
            answer: asked.as_answer(),
            resolved,
            status: attempt.tenant.status.as_ref().unwrap_or(&empty),
            now: self.runtime.now(),
        })
    }

    /// The newest version that is known without asking.
    fn latest(&self, key: &Key) -> Option<Arc<Tenant>> {
        let watched = self.watched.get(&key.reference());
        let written = self.with_cache(key, |cache| cache.written.clone());
        match (watched, written) {
            (Some(watched), Some(written))
                if watched.uid() == written.uid() && version(&written) > version(&watched) =>
            {
                Some(written)
            }
            (watched, _) => {
                self.with_cache(key, |cache| cache.written = None);
                watched
            }
        }
    }

    async fn fetch(&self, key: &Key) -> Result<Option<Arc<Tenant>>, ReconcileError> {
        Ok(self.cluster.get_tenant(key).await?)
    }

    fn forget(&self, key: &Key) {
        if let Some(cache) = self.caches.lock().remove(key) {
            self.metrics.moved(cache.phase, None);
        }
    }
}

enum AttemptEnd {
    Done(Duration),
    Gone,
    /// Begin again with this newer version.
    Anew(Arc<Tenant>),
}

/// Whatever changes something on a host, or lets go of it, is done only on what was read just now (P5).
fn needs_fresh(decision: &Decision) -> bool {
    let lets_go = matches!(decision.finalizer, Finalizer::Remove | Finalizer::Abandon);
    let changes = decision.effect.as_ref().is_some_and(Effect::changes_host);
    lets_go || changes
}

/// Whether a status claims that its target runs.
pub fn is_ready(status: &TenantStatus) -> bool {
    find(&status.conditions, READY).is_some_and(|ready| ready.status == Truth::True.as_str())
}

/// Whether a status speaks of this revision of the bundle.
pub fn speaks_of(status: &TenantStatus, bundle_revision: Option<&str>) -> bool {
    status.observed_bundle_revision.as_deref() == bundle_revision
}

/// Versions of one object can be compared as numbers (Kubernetes 1.34 and later say so; earlier ones do it, too).
fn version(tenant: &Tenant) -> u128 {
    tenant.resource_version().and_then(|version| version.parse().ok()).unwrap_or(0)
}

impl Tenants {
    /// What of a Tenant, and of what its host's agent can do, the decision needs.
    pub(super) fn subject(&self, tenant: &Tenant) -> Subject {
        Subject {
            cannot_roll_back: self.lacks(tenant, Capability::Rollback),
            only_http_probes: self.lacks(tenant, Capability::Probes),
            ignores_reach: self.lacks(tenant, Capability::Images),
            ..subject(tenant)
        }
    }

    /// Whether the agent of a Tenant's host is known to be one that can't do something.
    pub(super) fn lacks(&self, tenant: &Tenant, able: Capability) -> bool {
        let host = self.hosts.get(&Key::of(tenant).beside(&tenant.spec.host));
        let capabilities =
            host.as_ref().and_then(|host| host.status.as_ref()).map(|status| &status.capabilities);
        let known = capabilities.filter(|capabilities| !capabilities.is_empty());
        known.is_some_and(|all| !all.contains(&String::from(able)))
    }
}

fn subject(tenant: &Tenant) -> Subject {
    let annotation = |name: &str| tenant.annotations().get(name).filter(|value| !value.is_empty()).cloned();
    Subject {
        uid: tenant.uid().unwrap_or_default(),
        generation: tenant.metadata.generation.unwrap_or(0),
        deleted_at: tenant.metadata.deletion_timestamp.as_ref().map(|time| time.0),
        finalizer: tenant.finalizers().iter().any(|name| name == tenantry_api::FINALIZER),
        suspend: tenant.spec.suspend,
        host: tenant.spec.host.clone(),
        image_tag: tenant.spec.release(),
        reconcile: annotation(RECONCILE),
        retry: annotation(RETRY),
        rollback_to: annotation(ROLLBACK_TO),
        accept_host: annotation(ACCEPT_HOST),
        claim: annotation(CLAIM),
        cannot_roll_back: false,
        only_http_probes: false,
        ignores_reach: false,
        orphan: tenant.annotations().contains_key(ORPHAN),
    }
}
