//! What a compose file refers to, seen without running compose: other files that its model is read from.

use serde_json::Value;

/// Other files that a compose file names, as written there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The project's name, where the file gives one.
    pub name: Option<String>,
    /// Compose files that are included or extended, relative to this file's folder.
    pub compose_files: Vec<String>,
    /// Environment files, relative to the project's directory.
    pub env_files: Vec<String>,
}

/// Looks through a compose file. A file that can't be read names nothing: compose will say what is wrong with it.
pub fn scan(text: &str) -> Scan {
    let Ok(document) = serde_saphyr::from_str::<Value>(text) else {
        return Scan::default();
    };
    let mut found = Scan { name: text_of(document.get("name")), ..Scan::default() };
    for include in list(document.get("include")) {
        match include {
            Value::String(path) => found.compose_files.push(path.clone()),
            other => {
                found.compose_files.extend(texts(other.get("path")));
                found.env_files.extend(texts(other.get("env_file")));
            }
        }
    }
    let services = document.get("services").and_then(Value::as_object);
    for service in services.into_iter().flat_map(serde_json::Map::values) {
        found.compose_files.extend(text_of(service.get("extends").and_then(|extends| extends.get("file"))));
        found.env_files.extend(texts(service.get("env_file")));
        found.env_files.extend(texts(service.get("label_file")));
    }
    found
}

fn list(value: Option<&Value>) -> &[Value] {
    value.and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn text_of(value: Option<&Value>) -> Option<String> {
    value.and_then(Value::as_str).map(str::to_owned)
}

/// A text, or each text of a list, or each `path` of a list.
fn texts(value: Option<&Value>) -> Vec<String> {
    match value {
        Some(Value::String(text)) => vec![text.clone()],
        Some(Value::Array(all)) => {
            all.iter().filter_map(|one| text_of(Some(one)).or_else(|| text_of(one.get("path")))).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_of_naming_another_file_is_found() {
        let found = scan(
            "name: acme
include:
  - a.yml
  - {path: [b.yml, c/d.yml], env_file: b.env}
x-common: &common {env_file: .env}
services:
  one: {<<: *common, extends: {file: base.yml, service: x}}
  two: {env_file: [one.env, {path: two.env, required: false}], extends: {service: one}, volumes: !reset []}
",
        );
        assert_eq!(found.name.as_deref(), Some("acme"));
        assert_eq!(found.compose_files, ["a.yml", "b.yml", "c/d.yml", "base.yml"]);
        assert_eq!(found.env_files, ["b.env", ".env", "one.env", "two.env"]);
    }

    #[test]
    fn p15_a_file_that_is_no_yaml_or_a_bomb_names_nothing() {
        let line = |n: i32| format!("a{n}: &a{n} [{}]\n", [format!("*a{}", n - 1).as_str(); 9].join(","));
        let bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned() + &(1..12).map(line).collect::<String>();
        for text in ["services: [", "\t", &bomb, "5", ""] {
            assert_eq!(scan(text), Scan::default());
        }
    }
}
