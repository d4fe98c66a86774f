//! The cluster, as reconciling a Tenant needs it: reads that go past the watch's cache, and every write.

use std::error::Error;
use std::sync::Arc;

use futures::future::BoxFuture;
use tenantry_api::tenant_status::TenantStatus;
use tenantry_api::{ComposeHost, Tenant};
use tenantry_planner::bundle::Bundle;
use tenantry_planner::decide::Event;
use tenantry_planner::target::Refusal;

use crate::key::Key;

mod api_server;

pub use api_server::ApiServer;

/// Why a call to the API server came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum ClusterError {
    /// The object has another version than the one that the write was made from.
    #[error("the object was written by somebody else in between")]
    Conflict,
    /// The operator may not do that. The text is the API server's own: who may not do what.
    #[error("{0}")]
    Forbidden(String),
    /// There is no such object.
    #[error("there is no such object")]
    NotFound,
    /// The API server refused or did not answer.
    #[error("{0}")]
    Failed(#[source] Box<dyn Error + Send + Sync>),
}

/// An answer of the API server that is on its way.
pub type Reply<'a, T> = BoxFuture<'a, Result<T, ClusterError>>;

/// What a reconciliation reads from the API server itself and writes there. Every write names the version that it was made from.
pub trait Cluster: Send + Sync {
    /// The Tenant as it is now.
    fn get_tenant<'a>(&'a self, key: &'a Key) -> Reply<'a, Option<Arc<Tenant>>>;
    /// Applies the status.
    fn apply_status<'a>(&'a self, tenant: &'a Tenant, status: &'a TenantStatus) -> Reply<'a, Arc<Tenant>>;
    /// Puts these finalizers in the place of those that there are.
    fn patch_finalizers<'a>(&'a self, tenant: &'a Tenant, finalizers: &'a [String])
    -> Reply<'a, Arc<Tenant>>;
    /// The ComposeHost as it is now.
    fn get_host<'a>(&'a self, key: &'a Key) -> Reply<'a, Option<Arc<ComposeHost>>>;
    /// Sets an annotation of a ComposeHost; `None` removes it.
    fn annotate_host<'a>(
        &'a self,
        host: &'a ComposeHost,
        annotation: &'a str,
        value: Option<&'a str>,
    ) -> Reply<'a, ()>;
    /// A bundle, understood; or why it can't be used.
    fn bundle<'a>(&'a self, key: &'a Key) -> BoxFuture<'a, Result<Arc<Bundle>, Refusal>>;
    /// Publishes Events. One that can't be written is logged: it is never worth a second try.
    fn publish<'a>(&'a self, about: &'a Tenant, events: &'a [Event]) -> BoxFuture<'a, ()>;
}
