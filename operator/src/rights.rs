//! Whether the operator may do at the API server all that it has to, and who is told where it may not.

use futures::future::join_all;
use jiff::Timestamp;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::{ListParams, PostParams};
use kube::{Api, Client, ResourceExt as _};
use parking_lot::Mutex;
use tenantry_api::Tenant;
use tenantry_api::rights::{LEASE_RIGHTS, RIGHTS, Right};
use tenantry_planner::decide::forbidden;
use tokio::sync::Notify;

use crate::cluster::Cluster;
use crate::stores::Scope;
use std::time::Duration;
use tenantry_process::runtime::Runtime;

/// How often it is looked whether what was missing has been given.
const LOOK_AGAIN: Duration = Duration::from_secs(10);
/// The most missing rights that a message names.
const SHOWN: usize = 12;

/// What the operator may do.
pub struct Rights {
    /// `None`: whatever is asked, for there is nobody who would say no.
    reviewer: Option<Reviewer>,
    missing: Mutex<Vec<String>>,
    doubted: Notify,
}

struct Reviewer {
    client: Client,
    scope: Scope,
    lease_namespace: Option<String>,
}

impl Rights {
    /// The rights of this client's user in a scope, and, where it takes part in an election, in the lease's namespace.
    pub fn new(client: Client, scope: Scope, lease_namespace: Option<String>) -> Self {
        let reviewer = Reviewer { client, scope, lease_namespace };
        Self { reviewer: Some(reviewer), missing: Mutex::default(), doubted: Notify::new() }
    }

    /// All rights: for a cluster that is made up.
    pub fn all() -> Self {
        Self { reviewer: None, missing: Mutex::default(), doubted: Notify::new() }
    }

    /// What is missing, as a sentence; `None` where nothing is known to be.
    pub fn missing(&self) -> Option<String> {
        let missing = self.missing.lock();
        if missing.is_empty() {
            return None;
        }
        Some(format!("It may not {}.", tenantry_planner::text::listed(&missing, SHOWN)))
    }

    /// A call was refused: what is missing is to be looked at.
    pub fn seen_missing(&self) {
        self.doubted.notify_one();
    }

    /// Looks what is missing, and says so in the log where it is news.
    pub async fn look(&self) {
        let Some(reviewer) = &self.reviewer else { return };
        let Some(found) = reviewer.missing().await else { return };
        let before = std::mem::replace(&mut *self.missing.lock(), found.clone());
        if found == before {
            return;
        }
        if found.is_empty() {
            tracing::info!("the operator has every right that it needs at the API server");
        } else {
            tracing::error!(
                missing = found.join(", "),
                "the operator lacks rights at the API server: `kubectl apply -f deploy/rbac.yaml` gives all that it needs"
            );
        }
    }

    /// Looks again whenever a call was refused, until nothing is missing; `given` is told when that is so. Tenants are told
    /// here where they can't be by whoever looks after them: nobody does before everything has been listed.
    pub async fn watch_over(&self, cluster: &dyn Cluster, runtime: &dyn Runtime, given: impl Fn()) {
        loop {
            self.look().await;
            while let Some(missing) = self.missing() {
                if let Some(reviewer) = self.reviewer.as_ref().filter(|_| self.lacks_listing()) {
                    reviewer.tell_all(cluster, &missing, runtime.now()).await;
                }
                runtime.sleep(LOOK_AGAIN).await;
                self.look().await;
                if self.missing().is_none() {
                    given();
                }
            }
            self.doubted.notified().await;
        }
    }

    fn lacks_listing(&self) -> bool {
        let missing = self.missing.lock();
        missing.iter().any(|right| right.starts_with("list ") || right.starts_with("watch "))
    }
}

impl Reviewer {
    /// The rights that are missing; `None` where the API server does not say.
    async fn missing(&self) -> Option<Vec<String>> {
        let namespace = match &self.scope {
            Scope::All => None,
            Scope::Namespace(name) => Some(name.as_str()),
        };
        let lease = self.lease_namespace.as_deref();
        let of_lease = LEASE_RIGHTS.iter().filter(|_| lease.is_some()).map(|right| (right, lease));
        let all = RIGHTS.iter().map(|right| (right, namespace)).chain(of_lease);
        let asked = all.flat_map(|(right, namespace)| {
            right.verbs.iter().map(move |verb| self.lacks(right, verb, namespace))
        });
        let answers: Option<Vec<_>> = join_all(asked).await.into_iter().collect();
        Some(answers?.into_iter().flatten().collect())
    }

    /// What is missing where this may not be done. The outer `None`: the API server does not say.
    async fn lacks(&self, right: &Right, verb: &str, namespace: Option<&str>) -> Option<Option<String>> {
        let (resource, subresource) = match right.resource.split_once('/') {
            Some((resource, sub)) => (resource, Some(sub.to_owned())),
            None => (right.resource, None),
        };
        let attributes = ResourceAttributes {
            group: Some(right.group.to_owned()),
            resource: Some(resource.to_owned()),
            subresource,
            verb: Some(verb.to_owned()),
            namespace: namespace.map(str::to_owned),
            ..ResourceAttributes::default()
        };
        let spec =
            SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() };
        let review = SelfSubjectAccessReview { spec, ..Default::default() };
        let reviews: Api<SelfSubjectAccessReview> = Api::all(self.client.clone());
        let status = reviews.create(&PostParams::default(), &review).await.ok()?.status?;
        let place = namespace.map_or_else(String::new, |name| format!(" in namespace {name}"));
        Some((!status.allowed).then(|| format!("{verb} {}{place}", right.resource)))
    }

    async fn tell_all(&self, cluster: &dyn Cluster, missing: &str, now: Timestamp) {
        let tenants: Api<Tenant> = self.scope.api(&self.client);
        let Ok(all) = tenants.list(&ListParams::default()).await else { return };
        for tenant in all {
            tell(cluster, &tenant, missing, now).await;
        }
    }
}

/// Says on a Tenant what its operator may not do. One that can't even be written is in the log and the health already.
pub async fn tell(cluster: &dyn Cluster, tenant: &Tenant, missing: &str, now: Timestamp) {
    let status = tenant.status.clone().unwrap_or_default();
    let generation = tenant.metadata.generation.unwrap_or(0);
    let missing = tenantry_planner::text::sentence(missing);
    let (next, event) = forbidden(&status, generation, &missing, now);
    if next != status
        && let Err(error) = cluster.apply_status(tenant, &next).await
    {
        tracing::warn!(tenant = tenant.name_any(), "what is missing could not be written on it: {error}");
    }
    if let Some(event) = event {
        cluster.publish(tenant, &[event]).await;
    }
}
