//! What the operator may do at the API server: one list, from which its manifest is generated and by which it looks
//! itself whether anything is missing.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use k8s_openapi::api::rbac::v1::{
    ClusterRole, ClusterRoleBinding, PolicyRule, Role, RoleBinding, RoleRef, Subject,
};
use kube::api::ObjectMeta;
use serde_json::Value;

use crate::GROUP;

/// The namespace that the manifest puts the operator's account into.
pub const OPERATOR_NAMESPACE: &str = "tenantry-system";
/// The operator's account, and the name of all that gives it rights.
pub const OPERATOR: &str = "tenantry-operator";

/// What may be done with one resource.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// The API group.
    pub group: &'static str,
    /// The resource, with its subresource behind a slash.
    pub resource: &'static str,
    /// The verbs.
    pub verbs: &'static [&'static str],
}

const fn right(group: &'static str, resource: &'static str, verbs: &'static [&'static str]) -> Right {
    Right { group, resource, verbs }
}

/// What the operator needs in each namespace that it looks after.
pub const RIGHTS: [Right; 8] = [
    // `patch` puts the finalizer on and takes it off.
    right(GROUP, "tenants", &["get", "list", "watch", "patch"]),
    right(GROUP, "tenants/status", &["patch"]),
    // `patch` keeps claims that are to be released in an annotation.
    right(GROUP, "composehosts", &["get", "list", "watch", "patch"]),
    right(GROUP, "composehosts/status", &["patch"]),
    right(GROUP, "templatebundles", &["get", "list", "watch"]),
    right(GROUP, "templatebundles/status", &["patch"]),
    // Sources of bundles.
    right("", "configmaps", &["get", "list", "watch"]),
    // One that is told again is patched.
    right("events.k8s.io", "events", &["create", "patch"]),
];

/// What it needs in the namespace of its lease, where it takes part in an election.
pub const LEASE_RIGHTS: [Right; 1] =
    [right("coordination.k8s.io", "leases", &["get", "list", "watch", "create", "update", "patch"])];

/// The manifest that gives the operator these rights, an object each.
pub fn manifest() -> Vec<Value> {
    let named = |namespace: Option<&str>| ObjectMeta {
        name: Some(OPERATOR.to_owned()),
        namespace: namespace.map(str::to_owned),
        ..ObjectMeta::default()
    };
    let home = Some(OPERATOR_NAMESPACE);
    let subjects = Some(vec![Subject {
        kind: "ServiceAccount".to_owned(),
        name: OPERATOR.to_owned(),
        namespace: home.map(str::to_owned),
        ..Subject::default()
    }]);
    let role = |kind: &str| RoleRef {
        api_group: "rbac.authorization.k8s.io".to_owned(),
        kind: kind.to_owned(),
        name: OPERATOR.to_owned(),
    };
    let namespace = ObjectMeta { name: Some(OPERATOR_NAMESPACE.to_owned()), ..ObjectMeta::default() };
    let objects = [
        serde_json::to_value(Namespace { metadata: namespace, ..Namespace::default() }),
        serde_json::to_value(ServiceAccount { metadata: named(home), ..ServiceAccount::default() }),
        serde_json::to_value(ClusterRole {
            metadata: named(None),
            rules: Some(rules(&RIGHTS)),
            ..ClusterRole::default()
        }),
        serde_json::to_value(ClusterRoleBinding {
            metadata: named(None),
            role_ref: role("ClusterRole"),
            subjects: subjects.clone(),
        }),
        serde_json::to_value(Role { metadata: named(home), rules: Some(rules(&LEASE_RIGHTS)) }),
        serde_json::to_value(RoleBinding { metadata: named(home), role_ref: role("Role"), subjects }),
    ];
    // Plain structures always have a value.
    objects.into_iter().flatten().collect()
}

fn rules(rights: &[Right]) -> Vec<PolicyRule> {
    let rule = |right: &Right| PolicyRule {
        api_groups: Some(vec![right.group.to_owned()]),
        resources: Some(vec![right.resource.to_owned()]),
        verbs: right.verbs.iter().map(|verb| (*verb).to_owned()).collect(),
        ..PolicyRule::default()
    };
    rights.iter().map(rule).collect()
}
