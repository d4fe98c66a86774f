//! Compose's JSON as it comes. What is not named here is covered by each service's definition hash.

use super::attachments::Written;
use super::{
    BTreeMap, BTreeSet, Bind, Condition, Copied, Demand, Deserialize, ImageFrom, Meant, Model, ModelError,
    NamedNetwork, NamedVolume, Port, Restart, Service, ServiceName, digest,
};

#[derive(Deserialize)]
pub(super) struct Document {
    #[serde(default)]
    name: String,
    #[serde(default)]
    services: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    volumes: BTreeMap<String, Option<Resource>>,
    #[serde(default)]
    networks: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    configs: BTreeMap<String, FileSource>,
    #[serde(default)]
    secrets: BTreeMap<String, FileSource>,
}

/// A named volume or a network.
#[derive(Default, Deserialize)]
struct Resource {
    #[serde(default)]
    name: String,
    driver: Option<String>,
    driver_opts: Option<BTreeMap<String, String>>,
    #[serde(default)]
    external: bool,
}

#[derive(Deserialize)]
pub(super) struct FileSource {
    file: Option<String>,
    pub(super) content: Option<String>,
    pub(super) environment: Option<String>,
}

#[derive(Deserialize)]
struct RawService {
    image: Option<String>,
    build: Option<serde_json::Value>,
    pull_policy: Option<String>,
    scale: Option<u32>,
    deploy: Option<Deploy>,
    #[serde(default)]
    depends_on: BTreeMap<String, Dependency>,
    #[serde(default)]
    env_file: Vec<EnvFile>,
    #[serde(default)]
    volumes: Vec<Volume>,
    #[serde(default)]
    ports: Vec<RawPort>,
    #[serde(default)]
    configs: Vec<FileUse>,
    #[serde(default)]
    secrets: Vec<FileUse>,
    network_mode: Option<String>,
    pid: Option<String>,
    ipc: Option<String>,
    #[serde(default)]
    volumes_from: Vec<String>,
    healthcheck: Option<Healthcheck>,
    restart: Option<String>,
    stop_grace_period: Option<String>,
    container_name: Option<String>,
}

#[derive(Deserialize)]
struct Deploy {
    replicas: Option<u32>,
    restart_policy: Option<RestartPolicy>,
}

#[derive(Deserialize)]
struct RestartPolicy {
    condition: Option<String>,
}

#[derive(Deserialize)]
struct Dependency {
    condition: Option<String>,
    #[serde(default)]
    restart: bool,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum EnvFile {
    Path(String),
    Entry { path: String },
}

#[derive(Deserialize)]
struct Volume {
    #[serde(rename = "type")]
    kind: String,
    source: Option<String>,
    bind: Option<BindOptions>,
}

#[derive(Deserialize)]
struct RawPort {
    host_ip: Option<String>,
    published: Option<String>,
    protocol: Option<String>,
}

#[derive(Deserialize)]
struct BindOptions {
    #[serde(default = "yes")]
    create_host_path: bool,
}

#[derive(Deserialize)]
pub(super) struct FileUse {
    pub(super) source: Option<String>,
}

#[derive(Deserialize)]
struct Healthcheck {
    #[serde(default)]
    disable: bool,
    test: Option<serde_json::Value>,
}

fn yes() -> bool {
    true
}

impl Document {
    pub(super) fn model(mut self, demands: Vec<Demand>) -> Result<Model, ModelError> {
        let volumes = std::mem::take(&mut self.volumes);
        let networks: BTreeMap<String, NamedNetwork> =
            std::mem::take(&mut self.networks).into_iter().map(|(key, one)| (key, network(&one))).collect();
        let (mut services, mut sources) = (BTreeMap::new(), BTreeMap::new());
        for (name, value) in &self.services {
            let refuse = |problem: String| ModelError::Service { name: name.clone(), problem };
            let parsed = ServiceName::parse(name.as_str()).map_err(|error| refuse(error.to_string()))?;
            let raw = RawService::deserialize(value)
                .map_err(|_| refuse("is not as compose prints services".to_owned()))?;
            sources.insert(parsed.clone(), raw.volumes_from.clone());
            let meant = Written::deserialize(value).map(|written| written.meant(&networks));
            let mut service = self.service(name, raw, value)?;
            service.meant = meant.map_err(|_| {
                refuse("has networks or ports that are not as compose prints them".to_owned())
            })?;
            services.insert(parsed, service);
        }
        inherit_binds(&mut services, &sources);
        Ok(Model {
            project: self.name,
            services,
            volumes: volumes.into_iter().map(|(key, one)| (key, one.unwrap_or_default().volume())).collect(),
            networks,
            demands,
        })
    }

    fn service(&self, name: &str, raw: RawService, value: &serde_json::Value) -> Result<Service, ModelError> {
        let built = raw.build.is_some();
        let image_from = match raw.pull_policy.as_deref() {
            Some("never" | "build") => ImageFrom::Host,
            _ if !built => ImageFrom::Registry,
            _ if raw.image.is_some() => ImageFrom::RegistryOrHost,
            _ => ImageFrom::Host,
        };
        let image = match raw.image {
            Some(image) => image,
            None if built => format!("{}-{name}", self.name),
            None => {
                let problem = "has neither image nor build".to_owned();
                return Err(ModelError::Service { name: name.to_owned(), problem });
            }
        };
        let named = raw.volumes.iter().filter(|volume| volume.kind == "volume");
        let volumes = named.filter_map(|volume| volume.source.clone()).collect();
        let mut binds: Vec<Bind> = raw.volumes.into_iter().filter_map(Volume::bind).collect();
        binds.extend(files(&raw.configs, &self.configs));
        binds.extend(files(&raw.secrets, &self.secrets));
        let deploy = raw.deploy.as_ref();
        let modes = [&raw.network_mode, &raw.pid, &raw.ipc];
        let shared = modes.into_iter().flatten().filter_map(|mode| mode.strip_prefix("service:"));
        let restarting = raw.depends_on.iter().filter(|(_, how)| how.restart);
        Ok(Service {
            image,
            image_from,
            replicas: raw.scale.or(deploy.and_then(|deploy| deploy.replicas)).unwrap_or(1),
            restarts_with: restarting.map(|(on, _)| on.clone()).collect(),
            shares: shared.map(str::to_owned).collect::<BTreeSet<_>>(),
            copied: Copied::of(&raw.configs, &self.configs, &raw.secrets, &self.secrets),
            depends_on: raw.depends_on.into_iter().map(|(on, how)| (on, how.condition())).collect(),
            env_files: raw.env_file.into_iter().map(EnvFile::path).collect(),
            binds,
            volumes,
            publishes: !raw.ports.is_empty(),
            ports: raw.ports.into_iter().filter_map(RawPort::port).collect(),
            meant: Meant::default(),
            container_name: raw.container_name,
            healthcheck: raw.healthcheck.as_ref().is_some_and(Healthcheck::on),
            restart: restart(raw.restart.as_deref(), deploy),
            stop_grace_ms: raw.stop_grace_period.as_deref().and_then(milliseconds),
            definition: definition(value),
        })
    }
}

impl Resource {
    fn volume(self) -> NamedVolume {
        let driver_opts = self.driver_opts.unwrap_or_default();
        NamedVolume { name: self.name, driver: self.driver, driver_opts, external: self.external }
    }
}

fn network(value: &serde_json::Value) -> NamedNetwork {
    let Resource { name, external, .. } = Option::deserialize(value).ok().flatten().unwrap_or_default();
    NamedNetwork { name, external, definition: digest(value) }
}

impl Volume {
    fn bind(self) -> Option<Bind> {
        let source = self.source.filter(|_| self.kind == "bind")?;
        Some(Bind {
            source: super::plain_path(&source),
            create: self.bind.is_none_or(|options| options.create_host_path),
        })
    }
}

impl RawPort {
    fn port(self) -> Option<Port> {
        let published = self.published?.parse().ok().filter(|port| *port != 0)?;
        let host_ip = self.host_ip.filter(|address| !address.is_empty());
        Some(Port { host_ip, published, protocol: self.protocol.unwrap_or_else(|| "tcp".to_owned()) })
    }
}

impl Dependency {
    fn condition(self) -> Condition {
        match self.condition.as_deref() {
            Some("service_healthy") => Condition::Healthy,
            Some("service_completed_successfully") => Condition::CompletedSuccessfully,
            _ => Condition::Started,
        }
    }
}

impl EnvFile {
    fn path(self) -> String {
        match self {
            Self::Path(path) | Self::Entry { path } => path,
        }
    }
}

impl Healthcheck {
    fn on(&self) -> bool {
        let first = self.test.as_ref().and_then(|test| test.get(0)).and_then(serde_json::Value::as_str);
        !self.disable && first != Some("NONE")
    }
}

fn files(uses: &[FileUse], sources: &BTreeMap<String, FileSource>) -> Vec<Bind> {
    let file = |one: &FileUse| sources.get(one.source.as_deref()?)?.file.clone();
    uses.iter()
        .filter_map(file)
        .map(|source| Bind { source: super::plain_path(&source), create: false })
        .collect()
}

/// What a service has by `volumes_from` is mounted into it as into its source.
fn inherit_binds(
    services: &mut BTreeMap<ServiceName, Service>,
    sources: &BTreeMap<ServiceName, Vec<String>>,
) {
    let named = |text: &String| ServiceName::parse(text.split(':').next().unwrap_or_default()).ok();
    let of = |name: &ServiceName| sources.get(name).into_iter().flatten().filter_map(named);
    for name in sources.keys() {
        let (mut open, mut seen) = (of(name).collect::<Vec<_>>(), BTreeSet::from([name.clone()]));
        let mut more = Vec::new();
        while let Some(source) = open.pop() {
            if seen.insert(source.clone()) {
                more.extend(services.get(&source).into_iter().flat_map(|source| source.binds.clone()));
                open.extend(of(&source));
            }
        }
        if let Some(service) = services.get_mut(name) {
            let new: Vec<Bind> = more.into_iter().filter(|bind| !service.binds.contains(bind)).collect();
            service.binds.extend(new);
        }
    }
}

fn restart(word: Option<&str>, deploy: Option<&Deploy>) -> Restart {
    let condition =
        deploy.and_then(|deploy| deploy.restart_policy.as_ref()).and_then(|p| p.condition.as_deref());
    match (word, condition) {
        (Some("always" | "unless-stopped"), _) | (None, Some("any")) => Restart::Always,
        (Some(other), _) if other.starts_with("on-failure") => Restart::OnFailure,
        (None, Some("on-failure")) => Restart::OnFailure,
        _ => Restart::No,
    }
}

/// Go's notation of a duration, as far as compose prints it: `1m30s`, `500ms`.
fn milliseconds(text: &str) -> Option<u64> {
    let mut rest = text;
    let mut total = 0.0;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let number: f64 = rest[..digits].parse().ok()?;
        let unit = &rest[digits..];
        let (factor, length) = match unit.as_bytes() {
            [b'm', b's', ..] => (1.0, 2),
            [b'h', ..] => (3_600_000.0, 1),
            [b'm', ..] => (60_000.0, 1),
            [b's', ..] => (1_000.0, 1),
            _ => return None,
        };
        total += number * factor;
        rest = &unit[length..];
    }
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    Some(total as u64)
}

fn definition(value: &serde_json::Value) -> String {
    let mut value = value.clone();
    if let Some(members) = value.as_object_mut() {
        members.remove("image");
    }
    digest(&value)
}
