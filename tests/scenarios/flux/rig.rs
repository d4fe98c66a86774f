//! Flux's kustomize-controller as it is published; in place of its source-controller, a folder that is served and a source
//! whose status the test writes.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DynamicObject, GroupVersionKind, Patch, PatchParams};
use kube::discovery::ApiResource;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tenantry_tests::control_plane::define;
use tenantry_tests::docker::eventually;
use tenantry_tests::required;
use tenantry_tests::world::{SOON, World};

/// The kinds of sources that the controller watches. It asks for no more than that they are served.
const SOURCES: [(&str, &str); 3] =
    [("GitRepository", "gitrepositories"), ("OCIRepository", "ocirepositories"), ("Bucket", "buckets")];

/// The controller looks every five seconds at what it waits for. What it has not said after two looks it does not say.
const TWO_LOOKS: Duration = Duration::from_secs(6);

/// What a Kustomization's status says.
#[derive(Debug)]
pub struct State {
    /// `Ready`'s status.
    pub ready: String,
    /// Its reason.
    pub reason: String,
    /// Its message.
    pub message: String,
    /// `Healthy`'s status: unknown while what was applied is waited for.
    healthy: String,
    /// The revision that was applied and is well.
    applied: String,
    /// The revision that was tried last.
    attempted: String,
    /// The last request that was done with.
    handled: String,
}

/// A Kustomization `tenants` with `wait: true`, its source, and the controller that looks after it.
pub struct Flux {
    client: kube::Client,
    namespace: String,
    folder: PathBuf,
    served: SocketAddr,
    commits: u32,
    requests: u32,
    _controller: Controller,
}

impl Flux {
    /// Starts the controller, with a source that has nothing yet.
    pub async fn start(world: &World) -> Result<Self> {
        let program = PathBuf::from(required("TENANTRY_KUSTOMIZE_CONTROLLER")?);
        let mut definitions = vec![published(&program.with_extension("yaml"))?];
        for (kind, plural) in SOURCES {
            definitions.push(source(kind, plural)?);
        }
        define(&world.client, &definitions).await?;
        let folder = world.path("flux");
        std::fs::create_dir_all(&folder)?;
        let served = serve(folder.clone())?;
        let controller = Controller::start(&program, world, &folder)?;
        let (client, namespace) = (world.client.clone(), world.namespace.clone());
        let flux =
            Self { client, namespace, folder, served, commits: 0, requests: 0, _controller: controller };
        let spec = json!({"interval": "1h", "url": "https://git.invalid/fleet"});
        flux.apply(&git_repository(), "fleet", spec).await?;
        let spec = json!({
            "interval": "1h", "path": "./", "prune": true, "wait": true, "timeout": "1m",
            "sourceRef": {"kind": "GitRepository", "name": "fleet"},
        });
        flux.apply(&kustomization(), "tenants", spec).await?;
        Ok(flux)
    }

    /// Commits these files, and no others: the revision.
    pub async fn commit(&mut self, files: &[(String, String)]) -> Result<String> {
        self.commits += 1;
        let archive = format!("{}.tar.gz", self.commits);
        let content = pack(&self.folder.join(self.commits.to_string()), files)?;
        std::fs::write(self.folder.join(&archive), &content)?;
        let revision = format!("main@sha1:{:040x}", self.commits);
        let artifact = json!({
            "revision": revision, "path": archive, "url": format!("http://{}/{archive}", self.served),
            "digest": format!("sha256:{:x}", Sha256::digest(&content)),
            "lastUpdateTime": "2026-01-01T00:00:00Z",
        });
        let status = Patch::Merge(json!({"status": {"artifact": artifact}}));
        self.all(&git_repository()).patch_status("fleet", &PatchParams::default(), &status).await?;
        Ok(revision)
    }

    /// Waits until the Kustomization is ready at a revision.
    pub async fn ready_at(&self, revision: &str) -> Result<()> {
        let ready = |state: &State| state.ready == "True" && state.applied == revision;
        self.until("the Kustomization is ready", ready).await.map(drop)
    }

    /// Waits until the Kustomization has failed at a revision: its message.
    pub async fn failed_at(&self, revision: &str) -> Result<String> {
        let failed = |state: &State| state.ready == "False" && state.attempted == revision;
        let state = self.until("the Kustomization has failed", failed).await?;
        ensure!(state.reason == "HealthCheckFailed", "{state:?}");
        Ok(state.message)
    }

    /// Sees the Kustomization wait for what a revision applied, and go on waiting.
    pub async fn waits_at(&self, revision: &str) -> Result<()> {
        let waits = |state: &State| state.healthy == "Unknown" && state.attempted == revision;
        self.until("the Kustomization waits", waits).await?;
        let ended = self.until("the Kustomization has ended", |state| state.ready != "Unknown");
        match tokio::time::timeout(TWO_LOOKS, ended).await {
            Ok(state) => bail!("it did not wait: {:?}", state?),
            Err(_) => Ok(()),
        }
    }

    /// Asks for a run, as `flux reconcile` does, and waits until one that began since has ended.
    pub async fn reconcile(&mut self) -> Result<State> {
        self.requests += 1;
        let request = self.requests.to_string();
        let annotation = json!({"reconcile.fluxcd.io/requestedAt": request});
        let patch = Patch::Merge(json!({"metadata": {"annotations": annotation}}));
        self.all(&kustomization()).patch("tenants", &PatchParams::default(), &patch).await?;
        let handled = |state: &State| state.handled == request && state.ready != "Unknown";
        self.until("the request is handled", handled).await
    }

    async fn until(&self, what: &str, check: impl Fn(&State) -> bool) -> Result<State> {
        let seen = eventually(what, SOON, || async {
            let state = self.state().await?;
            ensure!(check(&state), "{state:?}");
            Ok(state)
        });
        seen.await.with_context(|| {
            let log = std::fs::read_to_string(self.folder.join("log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            format!("the controller said:\n{}", tail.into_iter().rev().collect::<Vec<_>>().join("\n"))
        })
    }

    async fn state(&self) -> Result<State> {
        let status = &self.all(&kustomization()).get("tenants").await?.data["status"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let conditions = status["conditions"].as_array().context("there are no conditions yet")?;
        let condition =
            |kind: &str| conditions.iter().find(|one| one["type"] == kind).cloned().unwrap_or_default();
        let ready = condition("Ready");
        Ok(State {
            ready: text(&ready["status"]),
            reason: text(&ready["reason"]),
            message: text(&ready["message"]),
            healthy: text(&condition("Healthy")["status"]),
            applied: text(&status["lastAppliedRevision"]),
            attempted: text(&status["lastAttemptedRevision"]),
            handled: text(&status["lastHandledReconcileAt"]),
        })
    }

    async fn apply(&self, resource: &ApiResource, name: &str, spec: Value) -> Result<()> {
        let object = json!({
            "apiVersion": resource.api_version, "kind": resource.kind, "metadata": {"name": name}, "spec": spec,
        });
        let parameters = PatchParams::apply("person").force();
        self.all(resource).patch(name, &parameters, &Patch::Apply(object)).await?;
        Ok(())
    }

    fn all(&self, resource: &ApiResource) -> Api<DynamicObject> {
        Api::namespaced_with(self.client.clone(), &self.namespace, resource)
    }
}

fn kustomization() -> ApiResource {
    resource("kustomize", "Kustomization")
}

fn git_repository() -> ApiResource {
    resource("source", "GitRepository")
}

fn resource(of: &str, kind: &str) -> ApiResource {
    ApiResource::from_gvk(&GroupVersionKind::gvk(&format!("{of}.toolkit.fluxcd.io"), "v1", kind))
}

/// The definition that is published with the controller.
fn published(file: &Path) -> Result<CustomResourceDefinition> {
    let text = std::fs::read_to_string(file).with_context(|| file.display().to_string())?;
    Ok(serde_json::from_value(serde_saphyr::from_str(&text)?)?)
}

/// A definition of a source: any field may be in it.
fn source(kind: &str, plural: &str) -> Result<CustomResourceDefinition> {
    let any = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    Ok(serde_json::from_value(json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": format!("{plural}.source.toolkit.fluxcd.io")},
        "spec": {
            "group": "source.toolkit.fluxcd.io", "scope": "Namespaced",
            "names": {"kind": kind, "plural": plural},
            "versions": [{
                "name": "v1", "served": true, "storage": true, "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": any, "status": any}}},
            }],
        },
    }))?)
}

/// Files as the archive that a source-controller would make of a commit.
fn pack(folder: &Path, files: &[(String, String)]) -> Result<Vec<u8>> {
    for (path, content) in files {
        let file = folder.join(path);
        std::fs::create_dir_all(file.parent().context("a file has a parent")?)?;
        std::fs::write(file, content)?;
    }
    let output = Command::new("tar").args(["-czf", "-", "."]).current_dir(folder).output()?;
    ensure!(output.status.success(), "tar: {}", String::from_utf8_lossy(&output.stderr));
    Ok(output.stdout)
}

/// Serves a folder's files on loopback until the test program ends.
fn serve(folder: PathBuf) -> Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            // Who asks hears of a failure by the answer that breaks off, and asks again.
            let _ = answer(&connection, &folder);
        }
    });
    Ok(address)
}

fn answer(mut connection: &TcpStream, folder: &Path) -> Result<()> {
    let request: Vec<String> = BufReader::new(connection)
        .lines()
        .map_while(Result::ok)
        .take_while(|line| !line.is_empty())
        .collect();
    let path = request.first().and_then(|line| line.split(' ').nth(1)).context("a path")?;
    let content = std::fs::read(folder.join(path.trim_start_matches('/')))?;
    write!(connection, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n", content.len())?;
    Ok(connection.write_all(&content)?)
}

/// The controller's process, which ends with this value, also when the test is killed.
struct Controller {
    shell: Child,
    stdin: Option<ChildStdin>,
}

/// It knows of no pipe that is closed at its end, so a shell waits for that in its place.
const UNTIL_CLOSED: &str = r#""$@" & read -r line; kill -KILL $!; wait"#;

impl Controller {
    fn start(program: &Path, world: &World, folder: &Path) -> Result<Self> {
        let log = std::fs::File::create(folder.join("log"))?;
        let mut shell = Command::new("sh")
            .args(["-c", UNTIL_CLOSED, "sh"])
            .arg(program)
            .args(["--metrics-addr", "127.0.0.1:0", "--health-addr", "127.0.0.1:0"])
            // A wait that would go on for its whole timeout ends with the next commit.
            .args(["--feature-gates", "CancelHealthCheckOnNewRevision=true", "--watch-all-namespaces"])
            .env("KUBECONFIG", &world.plane.kubeconfig)
            .env("RUNTIME_NAMESPACE", &world.namespace)
            .env("TMPDIR", folder)
            .stdin(Stdio::piped())
            .stdout(log.try_clone()?)
            .stderr(log)
            .spawn()
            .with_context(|| program.display().to_string())?;
        let stdin = shell.stdin.take();
        Ok(Self { shell, stdin })
    }
}

impl Drop for Controller {
    fn drop(&mut self) {
        drop(self.stdin.take());
        let _ = self.shell.wait();
    }
}
