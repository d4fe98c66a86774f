//! The resources of `tenantry.dev/v1alpha1` and the names that they are made of.
//!
//! This crate says what people may write and what the operator answers. It holds no client and no
//! runtime: the operator, the agent, the command line tool and the tests all read the same types.
//!
//! A custom resource carries plain strings, so that one badly written object can never make a whole
//! list unreadable; [`names`] are what those strings are parsed into, once, before anything is done.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{CustomResourceDefinition, JSON};

pub mod annotations;
pub mod bundle;
pub mod conditions;
pub mod host;
pub mod names;
pub mod rights;
pub mod tenant;
pub mod tenant_status;

pub use bundle::{TemplateBundle, TemplateBundleSpec, TemplateBundleStatus};
pub use host::{ComposeHost, ComposeHostSpec, ComposeHostStatus};
pub use tenant::{Tenant, TenantSpec};
pub use tenant_status::{Phase, TenantStatus};

/// The API group of every resource.
pub const GROUP: &str = "tenantry.dev";
/// The version of every resource.
pub const VERSION: &str = "v1alpha1";
/// The field manager under which the operator writes status.
pub const FIELD_MANAGER: &str = "tenantry-operator";
/// The finalizer that lets an operation in flight end and the host's claim be released.
pub const FINALIZER: &str = "tenantry.dev/claim";

/// The `observedGeneration` of what no operator has looked at yet. By it kstatus, and so Flux, tells a new object from one
/// that is as it should be: without it an object with no conditions counts as current.
pub const NEVER_OBSERVED: i64 = -1;

/// The name of the lease that the operator works under: of all namespaces, or of one, so that operators of different
/// namespaces do not keep each other from work.
pub fn lease(namespace: Option<&str>) -> String {
    const ALL: &str = "tenantry-operator";
    namespace.map_or_else(|| ALL.to_owned(), |namespace| format!("{ALL}-{namespace}"))
}

/// The custom resource definitions, in the order in which they are applied and generated.
pub fn crds() -> Vec<CustomResourceDefinition> {
    use kube::CustomResourceExt;
    let mut all = vec![Tenant::crd(), ComposeHost::crd(), TemplateBundle::crd()];
    for version in all.iter_mut().flat_map(|definition| &mut definition.spec.versions) {
        let schema = version.schema.as_mut().and_then(|schema| schema.open_api_v3_schema.as_mut());
        let status = schema.and_then(|schema| schema.properties.as_mut()?.get_mut("status"));
        if let Some(status) = status {
            status.default = Some(JSON(serde_json::json!({"observedGeneration": NEVER_OBSERVED})));
        }
    }
    all
}

#[cfg(test)]
mod tests;
