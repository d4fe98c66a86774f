//! A bundle of `templates/`, rendered, with what else is in its folder.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
struct Description {
    files: Vec<File>,
    services: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
struct File {
    source: String,
}

/// What an installation would consist of.
pub struct Bundle {
    /// The managed files' text by destination.
    pub files: BTreeMap<String, String>,
    /// The compose file, with anchors and merge keys resolved.
    pub compose: Value,
    /// Services that `bundle.yaml` calls Jobs.
    pub jobs: BTreeSet<String>,
    /// The tenant's own files, that the person who installs copies.
    pub own: BTreeSet<String>,
    /// `example.env`.
    pub env: BTreeMap<String, String>,
    /// `images.txt` without its comment.
    pub images: BTreeSet<String>,
    /// `spec.protect` of the example Tenant.
    pub protect: Vec<String>,
}

impl Bundle {
    /// Reads and renders the folder.
    pub fn read(name: &str) -> Self {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(name);
        let text = |path: &str| {
            fs::read_to_string(root.join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
        };
        let description: Description = serde_saphyr::from_str(&text("bundle.yaml")).unwrap();
        let files: BTreeMap<_, _> = description
            .files
            .iter()
            .map(|File { source }| match source.strip_suffix(".tera") {
                Some(destination) => (destination.to_owned(), render(&text(source))),
                None => (source.clone(), text(source)),
            })
            .collect();
        let mut own = BTreeSet::new();
        list(&root.join("own"), &root.join("own"), &mut own);
        Self {
            compose: compose(&files["docker-compose.yml"]),
            files,
            jobs: description
                .services
                .into_iter()
                .filter(|(_, it)| it["kind"] == "Job")
                .map(|(name, _)| name)
                .collect(),
            own,
            env: env(&text("example.env")),
            images: text("images.txt")
                .lines()
                .filter(|line| !line.starts_with('#'))
                .map(str::to_owned)
                .collect(),
            protect: protect(&text("tenant.yaml")),
        }
    }

    /// The compose file's text.
    pub fn text(&self) -> &str {
        &self.files["docker-compose.yml"]
    }

    /// Whether a bind source is a file of the installation; `None` when it is not there at all.
    pub fn is_file(&self, path: &str) -> Option<bool> {
        let mut all = self.files.keys().chain(&self.own);
        let below = format!("{path}/");
        if self.files.contains_key(path) || self.own.contains(path) {
            return Some(true);
        }
        all.any(|file| file.starts_with(&below)).then_some(false)
    }
}

/// Forty services that share a handful of anchors are no alias bomb: the parser's usual ratio would refuse them.
fn compose(text: &str) -> Value {
    let options =
        serde_saphyr::options! { budget: serde_saphyr::budget! { alias_anchor_ratio_multiplier: 50 } };
    serde_saphyr::from_str_with_options(text, options).unwrap()
}

fn render(template: &str) -> String {
    let mut tera = tera::Tera::default();
    tera.add_raw_template("it", template).unwrap();
    let context = json!({
        "imageTag": "v1",
        "values": {},
        "tenant": {"name": "riverside", "namespace": "fleet"},
        "project": "changemaker",
        "directory": "/srv/changemaker",
    });
    tera.render("it", &tera::Context::from_serialize(&context).unwrap()).unwrap()
}

fn list(root: &Path, directory: &Path, into: &mut BTreeSet<String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path: PathBuf = entry.unwrap().path();
        if path.is_dir() {
            list(root, &path, into);
        } else {
            into.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
        }
    }
}

fn env(text: &str) -> BTreeMap<String, String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines
        .filter_map(|line| line.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn protect(manifest: &str) -> Vec<String> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(manifest).unwrap();
    let tenant = documents.iter().find(|document| document["kind"] == "Tenant").unwrap();
    serde_json::from_value(tenant["spec"]["protect"].clone()).unwrap()
}
