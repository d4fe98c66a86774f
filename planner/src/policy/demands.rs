//! The demands of a resolved model, read from compose's JSON field by field.
//!
//! Every field that compose can print is either in the list of harmless ones or has a reader here; all others are
//! demands by themselves. Values are quoted only where they are paths or names, never where they may be secrets.

mod resources;
mod service;

use serde_json::{Map, Value};

use super::{Demand, Feature, MAX_CONTAINERS, MAX_SERVICES, Wants};
use crate::model::plain_path;

/// Labels that tell whose a container, network or volume is.
const OWN_LABELS: [&str; 2] = ["com.docker.compose.", "tenantry."];

/// Everything that a resolved model asks of its host.
pub fn demands(document: &Value) -> Vec<Demand> {
    let mut found = Found::default();
    let Some(document) = document.as_object() else { return Vec::new() };
    for (key, value) in document {
        match key.as_str() {
            "name" => {}
            "services" => services(value, &mut found),
            "volumes" => each(value, key, &mut found, resources::volume),
            "networks" => each(value, key, &mut found, resources::network),
            "configs" | "secrets" => each(value, key, &mut found, resources::file),
            "models" => {
                if value.as_object().is_some_and(|models| !models.is_empty()) {
                    found.never(key, "models are run by a program of the host, which an agent never starts");
                }
            }
            other => found.unknown("", other),
        }
    }
    found.all
}

#[derive(Default)]
struct Found {
    all: Vec<Demand>,
}

impl Found {
    fn feature(&mut self, at: &str, feature: Feature, what: impl Into<String>) {
        self.all.push(Demand { at: at.to_owned(), wants: Wants::Feature(feature, what.into()) });
    }

    fn never(&mut self, at: &str, problem: impl Into<String>) {
        self.all.push(Demand { at: at.to_owned(), wants: Wants::Never(problem.into()) });
    }

    fn path(&mut self, at: &str, source: &str, read_only: bool, relabels: bool) {
        let wants = Wants::Path { source: plain_path(source), read_only, relabels };
        self.all.push(Demand { at: at.to_owned(), wants });
    }

    fn read(&mut self, at: &str, path: &str) {
        self.all.push(Demand { at: at.to_owned(), wants: Wants::Read(plain_path(path)) });
    }

    /// A field that this version does not know. People's own extensions begin with `x-`.
    fn unknown(&mut self, at: &str, key: &str) {
        if !key.starts_with("x-") {
            let at = if at.is_empty() { shown(key) } else { format!("{at}.{}", shown(key)) };
            self.feature(&at, Feature::UnknownFields, "this agent does not know this field");
        }
    }

    fn labels(&mut self, at: &str, labels: &Value) {
        let keys = keys_of(labels);
        for key in keys.iter().filter(|key| OWN_LABELS.iter().any(|own| key.starts_with(own))) {
            let at = format!("{at}.{}", shown(key));
            self.never(
                &at,
                "labels of compose and of Tenantry say what belongs to whom: choose another name",
            );
        }
    }
}

fn services(value: &Value, found: &mut Found) {
    let Some(all) = value.as_object() else { return };
    if all.len() > MAX_SERVICES {
        found.never("services", format!("are {}; at most {MAX_SERVICES} are taken", all.len()));
        return;
    }
    let containers: u64 = all.values().map(service::containers).fold(0, u64::saturating_add);
    if containers > MAX_CONTAINERS {
        found.never("services", format!("have {containers} containers; at most {MAX_CONTAINERS} are taken"));
    }
    each(value, "services", found, service::service);
}

fn each(value: &Value, key: &str, found: &mut Found, read: impl Fn(&str, &Map<String, Value>, &mut Found)) {
    for (name, one) in value.as_object().into_iter().flatten() {
        if let Some(fields) = one.as_object() {
            read(&format!("{key}.{}", shown(name)), fields, found);
        }
    }
}

/// Whether a value says anything at all.
fn is_set(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => false,
        Value::Bool(true) => true,
        Value::Number(number) => number.as_f64() != Some(0.0),
        Value::String(text) => !text.is_empty(),
        Value::Array(all) => !all.is_empty(),
        Value::Object(all) => !all.is_empty(),
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts(value: &Value) -> impl Iterator<Item = &str> {
    value.as_array().into_iter().flatten().filter_map(Value::as_str)
}

/// The keys of a mapping, or of a list of `key=value`.
fn keys_of(value: &Value) -> Vec<&str> {
    match value {
        Value::Object(all) => all.keys().map(String::as_str).collect(),
        other => texts(other).map(|one| one.split('=').next().unwrap_or(one)).collect(),
    }
}

/// A name as it may stand in a message.
fn shown(name: &str) -> String {
    tenantry_api::conditions::bounded(&name.replace(char::is_control, "?"), 80)
}
