//! The resources of `tenantry.dev/v1alpha1` and the names that they are made of.
//!
//! This crate says what people may write and what the operator answers. It holds no client and no
//! runtime: the operator, the agent, the command line tool and the tests all read the same types.
//!
//! A custom resource carries plain strings, so that one badly written object can never make a whole
//! list unreadable; [`names`] are what those strings are parsed into, once, before anything is done.

pub mod annotations;
pub mod bundle;
pub mod conditions;
pub mod host;
pub mod names;
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

/// The name of the lease that the operator works under: of all namespaces, or of one, so that operators of different
/// namespaces do not keep each other from work.
pub fn lease(namespace: Option<&str>) -> String {
    const ALL: &str = "tenantry-operator";
    namespace.map_or_else(|| ALL.to_owned(), |namespace| format!("{ALL}-{namespace}"))
}

/// The custom resource definitions, in the order in which they are applied and generated.
pub fn crds()
-> Vec<k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition> {
    use kube::CustomResourceExt;
    vec![Tenant::crd(), ComposeHost::crd(), TemplateBundle::crd()]
}
