//! The releases that a run knows: what each puts on disk, what it runs, and how well that does.

use std::collections::BTreeMap;
use std::sync::Arc;

use fastrand::Rng;
use serde_json::json;
use sha2::{Digest as _, Sha256 as Hasher};
use tenantry_api::names::Sha256;
use tenantry_api::tenant::TenantSpec;
use tenantry_planner::bundle::{BUNDLE_FILE, Bundle, Sources};
use tenantry_planner::target::{Refusal, RefusalReason};

use crate::disk::DATA;
use crate::scenario::Spec;

/// The compose project.
pub const PROJECT: &str = "acme";
/// The compose file.
pub const COMPOSE: &str = "docker-compose.yml";
/// The variables.
pub const ENV: &str = ".env";
/// A tag that `.env` says.
pub const FROM_ENV: &str = "${IMAGE_TAG:?}";
/// A link of the tenant's own that leads to [`CONF`].
pub const LINK: &str = "current.conf";
/// What `web` reads when it starts.
pub const CONF: &str = "conf/app.conf";
/// The config that compose copies into `db`, where there is one.
pub const COPIED: &str = "app";
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
    /// Whether its tag reaches an image: some write another release's out.
    pub reaches: bool,
}

/// All releases of a run.
#[derive(Clone, Debug)]
pub struct Releases {
    /// By number.
    pub all: Vec<Release>,
    specs: BTreeMap<String, TenantSpec>,
    bundles: BTreeMap<String, Arc<Bundle>>,
}

impl Releases {
    /// Makes up releases. `steady`: how well each does does not depend on when it is looked at. `links`: the tenant has links
    /// that they may mount.
    pub fn make_up(rng: &mut Rng, steady: bool, links: bool) -> Self {
        let all = (0..COUNT).map(|number| release(rng, number, steady, links)).collect();
        Self { all, specs: BTreeMap::new(), bundles: BTreeMap::new() }
    }

    /// A spec as the API server has it.
    pub fn spec(&mut self, spec: &Spec, directory: &str) -> TenantSpec {
        let Self { all, specs, .. } = self;
        let made = specs.entry(format!("{spec:?}")).or_insert_with(|| {
            #[allow(clippy::expect_used, reason = "the scenario writes specs that decode")]
            serde_json::from_value(spec.json(all, directory)).expect("a spec")
        });
        made.clone()
    }

    /// The bundle of a release.
    pub fn bundle(&mut self, name: &str) -> Result<Arc<Bundle>, Refusal> {
        if let Some(known) = self.bundles.get(name) {
            return Ok(known.clone());
        }
        let release = self.all.iter().find(|release| bundle_name(&release.tag) == name);
        let release = release
            .ok_or_else(|| Refusal::new(RefusalReason::BundleMissing, format!("there is no {name}")))?;
        let bundle = Bundle::parse(name, sources(release))
            .map_err(|error| Refusal::new(RefusalReason::BundleInvalid, error.to_string()))?;
        let bundle = Arc::new(bundle);
        self.bundles.insert(name.to_owned(), bundle.clone());
        Ok(bundle)
    }
}

/// The image of that name.
pub fn image_id(name: &str) -> String {
    format!("sha256:{}", Blob::new(name).sha256)
}

/// The registry's digest of an image.
pub fn digest_of(image: &str) -> String {
    format!("sha256:{}", Blob::new(image).sha256)
}

/// What a release's bundle is called.
pub fn bundle_name(tag: &str) -> String {
    format!("app-{tag}")
}

/// A bundle's files as a person would have written them: each is copied to the path that it has in the bundle.
fn sources(release: &Release) -> Sources {
    let entries: Vec<String> = release.files.keys().map(|path| format!("{{source: {path}}}")).collect();
    let text = format!("files: [{}]\nservices: {{migrate: {{kind: Job}}}}\n", entries.join(", "));
    let files = release.files.iter().map(|(path, blob)| (path.clone(), Arc::from(blob.text.as_bytes())));
    files.chain([(BUNDLE_FILE.to_owned(), Arc::from(text.into_bytes()))]).collect()
}

fn release(rng: &mut Rng, number: usize, steady: bool, links: bool) -> Release {
    let mut files = BTreeMap::new();
    // Some releases share their files with the one before: only the image changes.
    let shape = if rng.bool() { number / 2 * 2 } else { number };
    let variant = shape % 4;
    let reaches = number == 0 || rng.u32(0..12) > 0;
    let tag = if reaches { FROM_ENV } else { "v0" };
    let conf = if links && shape % 3 != 2 { LINK } else { CONF };
    files.insert(COMPOSE.to_owned(), Blob::new(&compose_file(variant, conf, shape % 3, tag)));
    files.insert(CONF.to_owned(), Blob::new(&format!("conf {}\n", shape / 2)));
    if shape % 3 != 0 {
        files.insert("conf/extra.conf".to_owned(), Blob::new(&format!("extra {shape}\n")));
    }
    let behaviour = behaviour(rng, number, steady);
    Release { tag: format!("v{number}"), files, behaviour, reaches }
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

/// A compose file in which `web` mounts that config, and of which the application's tag is written so. JSON is YAML, too.
pub fn compose_file(variant: usize, conf: &str, subnet: usize, tag: &str) -> String {
    let app = format!("reg.example/app:{tag}");
    let bind =
        |path: &str, target: &str| json!([{"type": "bind", "source": format!("./{path}"), "target": target}]);
    let mut services = json!({
        "web": {"image": app, "volumes": bind(conf, "/app.conf"), "healthcheck": {"test": ["CMD", "x"]},
                "restart": "unless-stopped", "environment": {"TAG": "${IMAGE_TAG:?}"}},
        "db": {"image": "reg.example/db:1", "restart": "unless-stopped", "volumes": bind(DATA, "/data")},
    });
    if variant & 1 != 0 {
        services["worker"] =
            json!({"image": app, "volumes": bind("conf", "/conf"), "restart": "unless-stopped"});
        // Compose itself would not restart it with `db`: what it depends on is written out.
        services["side"] = json!({"image": "reg.example/db:1", "restart": "unless-stopped",
            "network_mode": "service:db", "depends_on": {"db": {"condition": "service_started"}}});
        services["web"]["depends_on"] = json!({"db": {"condition": "service_started", "restart": true}});
    }
    let mut file = json!({"services": services});
    if variant & 2 != 0 {
        file["services"]["migrate"] = json!({"image": app, "environment": {"TAG": "${IMAGE_TAG:?}"}});
        file["services"]["db"]["configs"] = json!([{"source": COPIED, "target": "/db.conf"}]);
        file["configs"] = json!({COPIED: {"content": "for ${IMAGE_TAG:?}"}});
    }
    let subnet = format!("10.9.{subnet}.0/24");
    file["networks"] = json!({"default": {"ipam": {"config": [{"subnet": subnet}]}}});
    format!("{file:#}\n")
}
