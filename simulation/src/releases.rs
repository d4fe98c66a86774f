//! The releases that a run knows: what each puts on disk, what it runs, and how well that does.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::{RelativePath, ServiceName, Sha256, TenantUid};
use tenantry_api::tenant::TenantSpec;
use tenantry_planner::bundle::{Bundle, BundleIdentity, Sources};
use tenantry_planner::model::Model;
use tenantry_planner::target::{Desired, Intent, Refusal};
use tenantry_protocol::{Bytes, FileContent, FileManifest};

use crate::scenario::Spec;

/// The tenant's directory.
pub const DIRECTORY: &str = "/srv/acme";
/// The compose project.
pub const PROJECT: &str = "acme";
/// The compose file.
pub const COMPOSE: &str = "docker-compose.yml";
/// The variables.
pub const ENV: &str = ".env";
/// The one volume.
pub const VOLUME: &str = "data";
/// How many releases there are.
pub const COUNT: usize = 8;

/// A file's content, with its hash.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Blob {
    /// The hash.
    pub sha256: Sha256,
    /// The text.
    pub text: Arc<str>,
}

impl Blob {
    /// A content.
    pub fn new(text: &str) -> Self {
        use std::fmt::Write as _;
        let digest = Hasher::digest(text.as_bytes());
        let hex = digest.iter().fold(String::with_capacity(64), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        #[allow(clippy::expect_used, reason = "64 hexadecimal digits are a hash")]
        let sha256 = Sha256::parse(hex).expect("a hash");
        Self { sha256, text: text.into() }
    }
}

/// How well an image does, counted from the start of its container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behaviour {
    /// Healthy after so many milliseconds.
    Good(u64),
    /// Never healthy.
    Sick,
    /// Healthy after the first, ended after the second; stays so.
    Crashes(u64, u64),
    /// Healthy after the first, ended and restarted after the second, over and over.
    Loops(u64, u64),
    /// Healthy, but unhealthy for a while in the middle.
    Wavers(u64, u64),
}

/// A release.
#[derive(Clone, Debug)]
pub struct Release {
    /// Its tag.
    pub tag: String,
    /// Files by path, `.env` aside.
    pub files: BTreeMap<String, Blob>,
    /// How well its application does.
    pub behaviour: Behaviour,
}

/// All releases of a run.
#[derive(Clone, Debug)]
pub struct Releases {
    /// By number.
    pub all: Vec<Release>,
    desired: BTreeMap<(String, String), Result<Arc<Prepared>, Refusal>>,
    models: BTreeMap<(Arc<str>, String), Result<Arc<Model>, String>>,
}

/// What is wanted, and the contents for it.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// The target.
    pub desired: Desired,
    /// Contents of its files.
    pub contents: Vec<FileContent>,
}

impl Releases {
    /// Makes up releases. `steady`: how well each does does not depend on when it is looked at.
    pub fn make_up(rng: &mut Rng, steady: bool) -> Self {
        let all = (0..COUNT).map(|number| release(rng, number, steady)).collect();
        Self { all, desired: BTreeMap::new(), models: BTreeMap::new() }
    }

    /// What a Tenant wants.
    pub fn prepare(&mut self, uid: &TenantUid, name: &str, spec: &Spec) -> Result<Arc<Prepared>, Refusal> {
        let key = (uid.to_string(), format!("{spec:?}"));
        if let Some(known) = self.desired.get(&key) {
            return known.clone();
        }
        let made = self.build(uid, name, spec).map(Arc::new);
        self.desired.insert(key, made.clone());
        made
    }

    fn build(&self, uid: &TenantUid, name: &str, spec: &Spec) -> Result<Prepared, Refusal> {
        #[allow(clippy::expect_used, reason = "the scenario writes specs that decode")]
        let parsed: TenantSpec = serde_json::from_value(spec.json(&self.all)).expect("a spec");
        let intent = Intent::parse(uid.as_str(), "fleet", name, &parsed)?;
        let release = &self.all[spec.release];
        let files = release.files.iter().map(|(path, blob)| manifest(path, blob)).collect();
        let contents = release.files.iter().map(|(path, blob)| FileContent {
            path: relative(path),
            content: Bytes(blob.text.as_bytes().to_vec()),
        });
        let bundle = Bundle {
            identity: BundleIdentity {
                name: "app".to_owned(),
                digest: format!("sha256:{}", digest(release)),
            },
            files: Vec::new(),
            sources: Sources::new(),
            jobs: vec![service("migrate")],
            on_change: Vec::new(),
        };
        Ok(Prepared { desired: Desired::with_bundle(intent, &bundle, files)?, contents: contents.collect() })
    }

    /// What compose makes of a compose file and a tag.
    pub fn model(&mut self, compose: &Blob, tag: Option<&str>) -> Result<Arc<Model>, String> {
        let Some(tag) = tag else { return Err("IMAGE_TAG is not set".to_owned()) };
        let key = (compose.text.clone(), tag.to_owned());
        if let Some(known) = self.models.get(&key) {
            return known.clone();
        }
        let made = parse_model(&compose.text, tag).map(Arc::new);
        self.models.insert(key, made.clone());
        made
    }
}

/// A path that is one.
#[allow(clippy::expect_used, reason = "only paths of this crate come here")]
pub fn relative(path: &str) -> RelativePath {
    RelativePath::parse(path).expect("a path")
}

fn service(name: &str) -> ServiceName {
    #[allow(clippy::expect_used, reason = "only names of this crate come here")]
    ServiceName::parse(name).expect("a name")
}

fn digest(release: &Release) -> Sha256 {
    let all: String = release.files.iter().map(|(path, blob)| format!("{path} {}\n", blob.sha256)).collect();
    Blob::new(&all).sha256
}

fn manifest(path: &str, blob: &Blob) -> FileManifest {
    FileManifest {
        path: relative(path),
        sha256: blob.sha256.clone(),
        size: blob.text.len() as u64,
        mode: 0o644,
        owner: None,
        sensitive: false,
    }
}

fn release(rng: &mut Rng, number: usize, steady: bool) -> Release {
    let mut files = BTreeMap::new();
    // Some releases share their files with the one before: only the image changes.
    let shape = if rng.bool() { number / 2 * 2 } else { number };
    let variant = shape % 4;
    files.insert(COMPOSE.to_owned(), Blob::new(&format!("variant {variant}\n")));
    files.insert("conf/app.conf".to_owned(), Blob::new(&format!("conf {}\n", shape / 2)));
    if shape % 3 != 0 {
        files.insert("conf/extra.conf".to_owned(), Blob::new(&format!("extra {shape}\n")));
    }
    let behaviour = behaviour(rng, number, steady);
    Release { tag: format!("v{number}"), files, behaviour }
}

fn behaviour(rng: &mut Rng, number: usize, steady: bool) -> Behaviour {
    let healthy = rng.u64(200..9_000);
    // The first release runs, so that there is something to go back to.
    if number == 0 {
        return Behaviour::Good(healthy);
    }
    match rng.u32(0..100) {
        0..=54 => Behaviour::Good(healthy),
        55..=69 => Behaviour::Sick,
        70..=81 => Behaviour::Crashes(healthy, healthy + rng.u64(500..8_500)),
        82..=91 => Behaviour::Loops(healthy, healthy + rng.u64(500..8_500)),
        92..=95 if !steady => Behaviour::Crashes(healthy, healthy + rng.u64(14_000..90_000)),
        _ if !steady => Behaviour::Wavers(healthy, healthy + rng.u64(500..60_000)),
        _ => Behaviour::Good(healthy),
    }
}

/// What `docker compose config` would print of our made-up compose files.
fn parse_model(text: &str, tag: &str) -> Result<Model, String> {
    let variant: usize = text
        .trim()
        .strip_prefix("variant ")
        .and_then(|number| number.parse().ok())
        .ok_or_else(|| "docker-compose.yml: line 1: not a mapping".to_owned())?;
    let app = format!("reg.example/app:{tag}");
    let bind = |path: &str| {
        let source = format!("{DIRECTORY}/{path}");
        serde_json::json!([{"type": "bind", "source": source, "target": "/conf"}])
    };
    let mut services = serde_json::json!({
        "web": {"image": app, "volumes": bind("conf/app.conf"), "healthcheck": {"test": ["CMD", "x"]},
                "restart": "unless-stopped", "environment": {"TAG": tag}},
        "db": {"image": "reg.example/db:1", "restart": "unless-stopped",
               "volumes": [{"type": "volume", "source": VOLUME, "target": "/data"}]},
    });
    if variant & 1 != 0 {
        services["worker"] =
            serde_json::json!({"image": app, "volumes": bind("conf"), "restart": "unless-stopped"});
    }
    if variant & 2 != 0 {
        services["migrate"] = serde_json::json!({"image": app, "environment": {"TAG": tag}});
    }
    let model = serde_json::json!({"name": PROJECT, "services": services});
    Model::parse(model.to_string().as_bytes(), DIRECTORY, DIRECTORY).map_err(|error| error.to_string())
}
