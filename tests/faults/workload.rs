//! The five kinds of upgrade that are crashed, each between two releases.

use serde_json::{Value, json};

/// A value that must be found nowhere but in files of the tenant's.
pub const CANARY: &str = "canary-4f1c-b7";
const USER: u32 = 1000;

/// A kind of upgrade.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Workload {
    /// Only tags change: one in an adopted `.env`, one where the tenant's own compose file writes it out.
    ImageOnly,
    /// Files change, one of them mounted by itself, and the network is defined otherwise, so that it is made anew.
    Release,
    /// `.env` is one of the files.
    ManagedEnv,
    /// `.env` is the tenant's own, and odd; several keys of it are patched.
    AdoptedEnv,
    /// A volume and a folder belong to the restore point, and another service has the network of the one that uses them.
    Volumes,
}

/// A file as a release has it.
pub struct File {
    pub path: &'static str,
    pub content: String,
    pub mode: u32,
    pub owner: Option<u32>,
}

/// One release of a workload.
pub struct Release {
    pub tag: String,
    /// Files of the bundle; `.env` among them where it is managed.
    pub files: Vec<File>,
    /// What is patched in an adopted `.env`.
    pub patch: Vec<(&'static str, String)>,
    /// All of `.env`, as it must be in this release.
    pub env: String,
    /// All of the tenant's own compose file, likewise; absent where the bundle has one.
    pub compose: Option<String>,
    /// What the project's network is labelled with, where that changes.
    pub network: Option<&'static str>,
}

impl Workload {
    /// All of them.
    pub const ALL: [Self; 5] =
        [Self::ImageOnly, Self::Release, Self::ManagedEnv, Self::AdoptedEnv, Self::Volumes];

    /// For names of tests, projects and reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::ImageOnly => "image-only",
            Self::Release => "release",
            Self::ManagedEnv => "managed-env",
            Self::AdoptedEnv => "adopted-env",
            Self::Volumes => "volumes",
        }
    }

    /// The approach that an operator would choose.
    pub const fn approach(self) -> &'static str {
        match self {
            Self::ImageOnly => "ImageOnly",
            _ => "Release",
        }
    }

    /// Whether data belongs to the restore point.
    pub fn has_data(self) -> bool {
        self == Self::Volumes
    }

    /// Whether `worker` has the network of `web`, which is stopped for its data.
    pub fn shares(self) -> bool {
        self == Self::Volumes
    }

    /// Whether the network of one release is not that of the other.
    fn has_another_network(self) -> bool {
        self == Self::Release
    }

    /// What else belongs to the restore point.
    pub fn snapshot(self) -> Value {
        match self {
            Self::Volumes => {
                json!({"paths": ["uploads"], "volumes": ["data"], "consistency": "Stop", "retain": 2})
            }
            _ => json!({"paths": [], "volumes": [], "consistency": "Live", "retain": 2}),
        }
    }

    /// The release with this tag. `even` releases have a file more than the others.
    pub fn release(self, tag: &str, even: bool, repository: &str, port: u16) -> Release {
        let env = self.env(tag, even, port);
        let mut files = Vec::new();
        if self != Self::ImageOnly {
            let greeting = format!("GREETING={tag}\n");
            files.push(file("docker-compose.yml", self.compose(repository, even, tag), 0o644, None));
            files.push(file("config/web.conf", greeting, 0o640, Some(USER)));
            files.push(file("conf.d/a.conf", format!("# of {tag}\n{}\n", "x".repeat(9000)), 0o644, None));
            if even {
                files.push(file("conf.d/deep/er/new.conf", "new\n".to_owned(), 0o600, None));
            }
        }
        if self == Self::ManagedEnv {
            files.push(file(".env", env.clone(), 0o600, Some(USER)));
        }
        let compose = (self == Self::ImageOnly).then(|| self.compose(repository, even, tag));
        let network = self.has_another_network().then(|| round(even));
        Release { tag: tag.to_owned(), files, patch: self.patch(tag, even), env, compose, network }
    }

    fn patch(self, tag: &str, even: bool) -> Vec<(&'static str, String)> {
        match self {
            Self::ManagedEnv => Vec::new(),
            Self::AdoptedEnv => vec![
                ("IMAGE_TAG", tag.to_owned()),
                ("COLOUR", colour(even).to_owned()),
                ("ADDED_BY_US", format!("added {tag}")),
            ],
            _ => vec![("IMAGE_TAG", tag.to_owned())],
        }
    }

    /// `.env` as it must be, byte for byte.
    fn env(self, tag: &str, even: bool, port: u16) -> String {
        match self {
            Self::AdoptedEnv => format!(
                "# by hand, keep\r\nexport IMAGE_TAG={tag} # the release\r\n\r\nSECRET='{CANARY}'\r\nPORT={port}\r\n\
                 COLOUR=\"{}\"\r\nODD = spaced \r\nADDED_BY_US='added {tag}'\r\n",
                colour(even)
            ),
            _ => format!("# mine\nIMAGE_TAG={tag}\nPORT={port}\nSECRET={CANARY}\n"),
        }
    }

    /// The compose file; its services are the same in all releases.
    pub fn compose(self, repository: &str, even: bool, tag: &str) -> String {
        let volumes = if self == Self::Volumes { ", \"data:/data\", \"./uploads:/uploads\"" } else { "" };
        let declared = if self == Self::Volumes { "volumes:\n  data:\n" } else { "" };
        // The release that fails is seen to fail by the one service that has spoiled the data before it ended.
        let (restart, worker) = if self == Self::Volumes {
            ("\"no\"", "{CRASH_AFTER: \"\", LISTEN: \"8081\"}")
        } else {
            ("unless-stopped", "{}")
        };
        let network = if self.shares() { "network_mode: \"service:web\"" } else { "networks: [default]" };
        // A definition that changes, too, and not only the image.
        let round = if self == Self::ImageOnly { "same" } else { round(even) };
        let networks = if self.has_another_network() {
            format!("networks: {{default: {{labels: {{round: {round}}}}}}}\n")
        } else {
            String::new()
        };
        let tag = if self == Self::ImageOnly { tag } else { "${IMAGE_TAG:?}" };
        format!(
            r#"services:
  web:
    image: {repository}:${{IMAGE_TAG:?}}
    restart: {restart}
    stop_grace_period: 1s
    environment: {{STANDIN_CONFIG: /etc/web.conf, ROUND: {round}}}
    ports: ["127.0.0.1:${{PORT:?}}:8080"]
    volumes: ["./config/web.conf:/etc/web.conf:ro", "./conf.d:/conf.d:ro"{volumes}]
    healthcheck: {{test: [CMD, /standin, health, --watch], interval: 200ms, timeout: 1m, retries: 12}}
  worker:
    image: '{repository}:{tag}' # its own
    stop_grace_period: 1s
    environment: {worker}
    {network}
    volumes: ["./mkdocs:/mkdocs:ro"]
{declared}{networks}"#
        )
    }
}

const fn round(even: bool) -> &'static str {
    if even { "even" } else { "odd" }
}

const fn colour(even: bool) -> &'static str {
    if even { "light blue" } else { "dark red" }
}

fn file(path: &'static str, content: String, mode: u32, owner: Option<u32>) -> File {
    File { path, content, mode, owner }
}
