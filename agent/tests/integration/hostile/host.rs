//! A real agent process in a closed room: its compose is counted, its engine can only be looked at, and everything on
//! its disk that is not its own is compared before and after.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_agent::files::sha256;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

use crate::world::{AGENT, Authority, OPERATOR, write_certificates};

/// Stands in the tenant's `.env` and in what is sent; must be found nowhere else (P12).
pub const CANARY: &str = "canary-51ab7e90c2";
/// The tenant that most cases are about.
pub const UID: &str = "a1";
const PLUGINS: [&str; 6] = [
    "/root/.docker/cli-plugins",
    "/usr/local/lib/docker/cli-plugins",
    "/usr/local/libexec/docker/cli-plugins",
    "/usr/lib/docker/cli-plugins",
    "/usr/libexec/docker/cli-plugins",
    "/usr/local/bin",
];
pub const COMPOSE: &str = "services:\n  web:\n    image: registry.example/app:${IMAGE_TAG:?}\n";

/// The agent, and everything around it.
pub struct Host {
    pub folder: tempfile::TempDir,
    pub authority: Authority,
    pub client: reqwest::Client,
    pub port: u16,
    pub changes: Arc<AtomicU64>,
    child: Child,
    epoch: u64,
}

/// What the agent said.
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub text: String,
}

impl Host {
    pub fn start() -> Self {
        let folder = tempfile::Builder::new().prefix("hostile-").tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in
            ["srv/acme/data/keep", "srv/acme/conf", "srv/other", "outside", "home/.docker/cli-plugins"]
        {
            std::fs::create_dir_all(at(name)).unwrap();
        }
        // The agent's own folder is there already, so that nothing at all may change around it.
        std::fs::create_dir(at("srv/acme/.tenantry")).unwrap();
        std::fs::set_permissions(at("srv/acme/.tenantry"), PermissionsExt::from_mode(0o700)).unwrap();
        std::fs::write(at("srv/acme/docker-compose.yml"), COMPOSE).unwrap();
        std::fs::write(at("srv/acme/.env"), format!("# mine\nIMAGE_TAG=v1\nSECRET={CANARY}\n")).unwrap();
        std::fs::write(at("srv/acme/data/keep/file"), "the tenant's own").unwrap();
        std::fs::write(at("srv/other/docker-compose.yml"), COMPOSE).unwrap();
        std::fs::write(at("outside/secret"), "outside").unwrap();
        counting_compose(folder.path());
        let changes = engine(&at("engine.sock"));
        let authority = Authority::new();
        let (cert, key) = authority.issue(&[AGENT], 2099);
        write_certificates(folder.path(), &authority.pem, &cert, &key);
        let (child, port) = agent(folder.path());
        let identity = authority.issue(&[OPERATOR], 2099);
        let client = client(&authority, port, Some(&identity));
        Self { folder, authority, client, port, changes, child, epoch: 0 }
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    pub fn url(&self, path: &str) -> String {
        format!("https://{AGENT}:{}{path}", self.port)
    }

    pub async fn call(&self, method: &str, path: &str, body: Vec<u8>) -> Answer {
        let method = reqwest::Method::from_bytes(method.as_bytes()).unwrap();
        let answer = self.client.request(method, self.url(path)).body(body).send().await.unwrap();
        let status = answer.status().as_u16();
        let text = answer.text().await.unwrap();
        assert!(!text.contains(CANARY), "{path} answers with a secret: {text}");
        Answer { status, body: serde_json::from_str(&text).unwrap_or_default(), text }
    }

    /// Waits for an operation's end.
    pub async fn ended(&self, id: &str) -> Value {
        let wait = async {
            let mut after = 0;
            loop {
                let answer = self
                    .call("GET", &format!("/v1/operations/{id}?after={after}&waitSeconds=10"), vec![])
                    .await;
                assert_eq!(answer.status, 200, "{}", answer.text);
                after = answer.body["seq"].as_u64().unwrap();
                if answer.body["state"]["state"] != "running" {
                    return answer.body;
                }
            }
        };
        tokio::time::timeout(Duration::from_mins(2), wait).await.expect("the operation ends")
    }

    pub fn place(&self) -> Value {
        json!({"project": "hostile-acme", "directory": self.path("srv/acme")})
    }

    pub fn tenant() -> Value {
        json!({"uid": UID, "namespace": "fleet", "name": "acme"})
    }

    /// A request for an operation that nothing is wrong with but that its image is not to be had.
    pub fn operation(&mut self) -> Value {
        self.epoch += 1;
        let mut body = json!({
            "tenant": Self::tenant(), "place": self.place(), "epoch": self.epoch,
            "targetHash": format!("sha256:{}", self.epoch), "approach": "Release",
            "manifest": {"files": [], "env": {"ownership": "adopted", "patch": [{"name": "IMAGE_TAG", "value": "v2"}]},
                         "protect": ["data/"], "jobs": [], "onChange": []},
            "contents": [], "pinned": [], "verify": {"timeoutMs": 2_000, "stableForMs": 100, "http": []},
            "onFailure": "Rollback", "overwrite": true,
        });
        manage(&mut body, "conf/site.conf", b"x\n");
        body
    }

    /// How often compose was run.
    pub fn runs(&self) -> usize {
        std::fs::read_to_string(self.path("compose.log")).unwrap_or_default().lines().count()
    }

    pub fn log(&self) -> String {
        std::fs::read_to_string(self.path("agent.log")).unwrap()
    }

    pub fn is_alive(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Everything that is not the agent's own, with content and metadata.
    pub fn look(&self) -> Seen {
        let mut seen = Seen::new();
        for top in ["srv", "outside"] {
            look_into(&self.path(top), &mut seen);
        }
        seen
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What is at each path: kind, inode, links, mode, owner, size, times, and its content.
pub type Seen = BTreeMap<PathBuf, (String, Vec<u8>)>;

pub fn look_into(path: &Path, seen: &mut Seen) {
    let found = std::fs::symlink_metadata(path).unwrap();
    let kind = found.file_type();
    let content = if kind.is_file() {
        std::fs::read(path).unwrap()
    } else if kind.is_symlink() {
        std::fs::read_link(path).unwrap().into_os_string().into_encoded_bytes()
    } else {
        Vec::new()
    };
    let meta = format!(
        "{kind:?} fifo={} ino={} links={} mode={:o} {}:{} size={} rdev={} mtime={}.{} ctime={}.{}",
        kind.is_fifo(),
        found.ino(),
        found.nlink(),
        found.mode(),
        found.uid(),
        found.gid(),
        found.size(),
        found.rdev(),
        found.mtime(),
        found.mtime_nsec(),
        found.ctime(),
        found.ctime_nsec(),
    );
    seen.insert(path.to_owned(), (meta, content));
    if kind.is_dir() {
        for entry in std::fs::read_dir(path).unwrap() {
            let entry = entry.unwrap();
            if entry.file_name() != ".tenantry" {
                look_into(&entry.path(), seen);
            }
        }
    }
}

/// Makes a file managed in a request.
pub fn manage(body: &mut Value, path: &str, content: &[u8]) {
    use base64::Engine as _;
    let hash = sha256(content);
    let file =
        json!({"path": path, "sha256": hash, "size": content.len(), "mode": 0o644, "sensitive": false});
    body["manifest"]["files"].as_array_mut().unwrap().push(file);
    let content = base64::engine::general_purpose::STANDARD.encode(content);
    body["contents"].as_array_mut().unwrap().push(json!({"path": path, "content": content}));
}

pub fn client(authority: &Authority, port: u16, identity: Option<&(String, String)>) -> reqwest::Client {
    let root = reqwest::Certificate::from_pem(authority.pem.as_bytes()).unwrap();
    let builder = reqwest::Client::builder()
        .tls_certs_only([root])
        .resolve(AGENT, ([127, 0, 0, 1], port).into())
        .timeout(Duration::from_secs(70));
    let builder = match identity {
        None => builder,
        Some((cert, key)) => {
            builder.identity(reqwest::Identity::from_pem(format!("{cert}{key}").as_bytes()).unwrap())
        }
    };
    builder.build().unwrap()
}

/// A compose plugin that writes down each run of it.
fn counting_compose(folder: &Path) {
    let real =
        PLUGINS.iter().map(|folder| Path::new(folder).join("docker-compose")).find(|path| path.is_file());
    let real = real.expect("this test needs the compose plugin");
    let plugin = folder.join("home/.docker/cli-plugins/docker-compose");
    let log = folder.join("compose.log");
    let script =
        format!("#!/bin/sh\nprintf '%s\\n' \"$*\" >> {}\nexec {} \"$@\"\n", log.display(), real.display());
    std::fs::write(&plugin, script).unwrap();
    std::fs::set_permissions(&plugin, PermissionsExt::from_mode(0o755)).unwrap();
}

fn agent(folder: &Path) -> (Child, u16) {
    let config = json!({
        "identity": "n5", "listen": "127.0.0.1:0", "stateDir": "state",
        "tls": {"ca": "ca.crt", "cert": "agent.crt", "key": "agent.key"}, "operators": ["main"],
        "dockerHost": format!("unix://{}", folder.join("engine.sock").display()),
        "allow": {"directories": [folder.join("srv"), folder.join("linked")], "registries": ["registry.example"]},
    });
    let path = folder.join("agent.yaml");
    std::fs::write(&path, config.to_string()).unwrap();
    std::fs::set_permissions(&path, PermissionsExt::from_mode(0o600)).unwrap();
    let log = std::fs::File::create(folder.join("agent.log")).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tenantry-agent"))
        .args(["--config", &path.to_string_lossy()])
        .env("HOME", folder.join("home"))
        .env_remove("DOCKER_CONFIG")
        .stdout(Stdio::piped())
        .stderr(log)
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
    let ready: Value = serde_json::from_str(&line).expect("the agent is ready");
    let port = ready["listen"].as_str().unwrap().rsplit(':').next().unwrap().parse().unwrap();
    (child, port)
}

/// The real engine behind a socket that lets nothing pass but looks; counts what was to change something.
fn engine(path: &Path) -> Arc<AtomicU64> {
    let listener = UnixListener::bind(path).unwrap();
    let changes = Arc::new(AtomicU64::new(0));
    let counted = changes.clone();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(pass(stream, counted.clone()));
        }
    });
    changes
}

async fn pass(client: UnixStream, changes: Arc<AtomicU64>) {
    let Ok(engine) = UnixStream::connect("/var/run/docker.sock").await else { return };
    let (mut from_client, mut to_client) = client.into_split();
    let (mut from_engine, mut to_engine) = engine.into_split();
    let back = tokio::spawn(async move { tokio::io::copy(&mut from_engine, &mut to_client).await });
    let mut buffer = vec![0; 64 * 1024];
    while let Ok(read) = from_client.read(&mut buffer).await {
        let changing = [&b"POST "[..], b"PUT ", b"DELETE ", b"PATCH "];
        if changing.iter().any(|method| buffer[..read].starts_with(method)) {
            changes.fetch_add(1, Ordering::SeqCst);
            break;
        }
        if read == 0 || to_engine.write_all(&buffer[..read]).await.is_err() {
            break;
        }
    }
    back.abort();
}
