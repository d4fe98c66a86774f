//! What holds for every definition.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray,
};

use super::*;

fn schemas() -> Vec<(String, JSONSchemaProps)> {
    let all = crds().into_iter().map(|definition| {
        let version = definition.spec.versions.into_iter().next().unwrap();
        (definition.spec.names.kind, version.schema.unwrap().open_api_v3_schema.unwrap())
    });
    all.collect()
}

#[test]
fn p14_what_nobody_has_looked_at_says_so_from_birth() {
    for (kind, schema) in schemas() {
        let status = &schema.properties.unwrap()["status"];
        let default = status.default.as_ref().map(|default| &default.0);
        assert_eq!(default, Some(&serde_json::json!({"observedGeneration": -1})), "{kind}");
    }
}

/// Paths of fields with a default within a list's items.
fn defaults_in_items(schema: &JSONSchemaProps, path: &str, in_items: bool, found: &mut Vec<String>) {
    if in_items && schema.default.is_some() {
        found.push(path.to_owned());
    }
    for (name, field) in schema.properties.iter().flatten() {
        defaults_in_items(field, &format!("{path}.{name}"), in_items, found);
    }
    if let Some(JSONSchemaPropsOrArray::Schema(items)) = &schema.items {
        defaults_in_items(items, &format!("{path}[]"), true, found);
    }
}

/// A client-side `kubectl apply` compares lists whole: a default in an item is a difference each time, and is told as
/// `configured`.
#[test]
fn nothing_is_filled_in_within_a_list_of_a_spec() {
    let mut found = Vec::new();
    for (kind, schema) in schemas() {
        defaults_in_items(&schema.properties.unwrap()["spec"], &kind, false, &mut found);
    }
    assert_eq!(found, Vec::<String>::new());
}
