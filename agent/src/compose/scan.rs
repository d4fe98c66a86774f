//! What a compose file refers to, seen without running compose (P13).
//!
//! Compose follows what a file names while it reads it: other files, and whole repositories over the network. So every
//! file is looked through first, and one that can't be wholly understood is never shown to compose. Errors name lines
//! and keys, never values.

use serde_json::Value;

use super::yaml;

/// The longest compose file that is read, in bytes: twenty times the largest seen.
pub const FILE_LIMIT: usize = 1024 * 1024;
/// The most services in one file.
pub const MAX_SERVICES: usize = 1_000;

/// Other files that a compose file names, as written there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// The project's name, where the file gives one.
    pub name: Option<String>,
    /// Compose files that are included, each group as one project of its own.
    pub includes: Vec<Include>,
    /// Compose files that are extended, relative to the same.
    pub extends: Vec<Named>,
    /// Label files, and environment files of what is included, relative to the same: compose reads them with the file.
    pub read_files: Vec<Named>,
    /// Environment files of services, relative to the same: compose reads them when it makes containers.
    pub env_files: Vec<Named>,
}

/// An entry of `include`; its paths are relative to the folder that the file is read for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Include {
    /// The files: the first one, and what is merged into it.
    pub files: Vec<Named>,
    /// The folder that paths in them are seen from; otherwise that of the first one.
    pub folder: Option<Named>,
}

/// A path, and the key that names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// For example `services.web.env_file[0]`.
    pub key: String,
    /// As written.
    pub path: String,
}

/// Looks through a compose file; says what is wrong with one that compose must not see.
pub fn scan(bytes: &[u8]) -> Result<Scan, String> {
    if bytes.len() > FILE_LIMIT {
        return Err(format!("is {} bytes long; at most {FILE_LIMIT} are read", bytes.len()));
    }
    let text = std::str::from_utf8(bytes).map_err(|_| "is not UTF-8".to_owned())?;
    let documents = yaml::documents(text)?;
    let mut found = Scan::default();
    for document in &documents {
        match document {
            Value::Null => {}
            Value::Object(_) => found.document(document)?,
            _ => return Err("is not a mapping, as compose files are".to_owned()),
        }
    }
    Ok(found)
}

impl Scan {
    fn document(&mut self, document: &Value) -> Result<(), String> {
        if let Some(name) = document.get("name") {
            self.name = name.as_str().map(str::to_owned);
        }
        self.include(document.get("include"))?;
        if document.get("models").is_some_and(|models| !models.is_null()) {
            return Err("models: are run by a program of the host, which an agent never starts".to_owned());
        }
        let Some(services) = document.get("services").and_then(Value::as_object) else { return Ok(()) };
        if services.len() > MAX_SERVICES {
            return Err(format!("services: are {}; at most {MAX_SERVICES} are taken", services.len()));
        }
        services.iter().try_for_each(|(name, service)| self.service(name, service))
    }

    fn include(&mut self, include: Option<&Value>) -> Result<(), String> {
        let Some(include) = include.filter(|include| !include.is_null()) else { return Ok(()) };
        let all = include.as_array().ok_or("include: is not a list")?;
        for (at, one) in all.iter().enumerate() {
            let key = format!("include[{at}]");
            if let Value::String(path) = one {
                self.includes.push(Include { files: vec![Named { key, path: path.clone() }], folder: None });
                continue;
            }
            let within = format!("{key}.project_directory");
            let folder = match one.get("project_directory") {
                None | Some(Value::Null) => None,
                Some(Value::String(path)) if path.is_empty() => None,
                Some(Value::String(path)) => Some(Named { key: within, path: path.clone() }),
                Some(_) => return Err(format!("{within}: is not a path")),
            };
            let files = paths(&format!("{key}.path"), one.get("path"))?;
            self.includes.push(Include { files, folder });
            self.read_files.extend(paths(&format!("{key}.env_file"), one.get("env_file"))?);
        }
        Ok(())
    }

    fn service(&mut self, name: &str, service: &Value) -> Result<(), String> {
        let at = format!("services.{}", tenantry_api::conditions::bounded(name, 80));
        for key in ["provider", "models"] {
            if service.get(key).is_some_and(|value| !value.is_null()) {
                return Err(format!(
                    "{at}.{key}: is run by a program of the host, which an agent never starts"
                ));
            }
        }
        if let Some(file) = service.get("extends").and_then(|extends| extends.get("file")) {
            self.extends.extend(paths(&format!("{at}.extends.file"), Some(file))?);
        }
        self.env_files.extend(paths(&format!("{at}.env_file"), service.get("env_file"))?);
        self.read_files.extend(paths(&format!("{at}.label_file"), service.get("label_file"))?);
        Ok(())
    }
}

/// A text, or each text of a list, or each `path` of a list or mapping. Anything else is refused: compose might
/// understand it.
fn paths(key: &str, value: Option<&Value>) -> Result<Vec<Named>, String> {
    let one = |key: String, value: &Value| match value.get("path").unwrap_or(value) {
        Value::String(path) => Ok(Named { key, path: path.clone() }),
        _ => Err(format!("{key}: is not a path")),
    };
    match value {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(all)) => {
            all.iter().enumerate().map(|(at, value)| one(format!("{key}[{at}]"), value)).collect()
        }
        Some(value) => one(key.to_owned(), value).map(|named| vec![named]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(all: &[Named]) -> Vec<String> {
        all.iter().map(|one| format!("{}={}", one.key, one.path)).collect()
    }

    #[test]
    fn every_form_of_naming_another_file_is_found() {
        let found = scan(
            b"name: acme
include:
  - a.yml
  - {path: [b.yml, c/d.yml], env_file: b.env, project_directory: e}
x-common: &common {env_file: .env}
services:
  one: {<<: *common, extends: {file: base.yml, service: x}}
  two: {env_file: [one.env, {path: two.env, required: false}], extends: {service: one}, volumes: !reset []}
---
services:
  three: {label_file: l.env, env_file: {path: e.env}}
",
        )
        .unwrap();
        assert_eq!(found.name.as_deref(), Some("acme"));
        let included: Vec<Vec<String>> = found.includes.iter().map(|one| names(&one.files)).collect();
        assert_eq!(included[0], ["include[0]=a.yml"]);
        assert_eq!(included[1], ["include[1].path[0]=b.yml", "include[1].path[1]=c/d.yml"]);
        let folder = found.includes[1].folder.clone().unwrap();
        assert_eq!((folder.key.as_str(), folder.path.as_str()), ("include[1].project_directory", "e"));
        assert_eq!(names(&found.extends), ["services.one.extends.file=base.yml"]);
        assert_eq!(
            names(&found.env_files),
            [
                "services.one.env_file=.env",
                "services.two.env_file[0]=one.env",
                "services.two.env_file[1]=two.env",
                "services.three.env_file=e.env",
            ]
        );
        let read_files = ["include[1].env_file=b.env", "services.three.label_file=l.env"];
        assert_eq!(names(&found.read_files), read_files);
    }

    #[test]
    fn p15_what_is_no_yaml_or_a_bomb_or_too_much_is_refused() {
        let line = |n: i32| format!("a{n}: &a{n} [{}]\n", [format!("*a{}", n - 1).as_str(); 9].join(","));
        let bomb = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n".to_owned() + &(1..12).map(line).collect::<String>();
        let deep = "[".repeat(100_000);
        let many =
            (0..10_000).fold("services:\n".to_owned(), |all, n| all + &format!("  s{n}: {{image: x}}\n"));
        let long = format!("# {}\n", "x".repeat(FILE_LIMIT));
        for text in ["services: [", "\t- x", &bomb, &deep, &many, &long, "5", "a: 1\na: 2", "- x"] {
            let problem = scan(text.as_bytes()).expect_err(&text[..text.len().min(40)]);
            assert!(problem.len() < 200, "{problem}");
        }
        for bytes in [&b"\xff\xfes\0e\0"[..], b"services: {\xff: 1}"] {
            assert!(scan(bytes).is_err());
        }
        assert_eq!(scan(b""), Ok(Scan::default()));
    }

    #[test]
    fn p12_an_unreadable_file_is_not_quoted() {
        let problem = scan(b"services:\n  web: {environment: [PASSWORD=hunter2\n").unwrap_err();
        assert!(problem.contains("line") && !problem.contains("hunter2"), "{problem}");
    }
}
