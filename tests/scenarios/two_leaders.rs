//! Two operators on one namespace, a deposed one that comes back, and a network between them and the agent that cuts
//! and delays: at most one of them changes the host at a time (P2), and what happened is told truly (P16).
//!
//! What the agent admitted is read from its journals, what was done from the engine's events. `TENANTRY_FAULTS=all`
//! makes many runs of a few.

use std::collections::BTreeMap;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::jiff::Timestamp;
use kube::Api;
use serde_json::{Value, json};
use tenantry_api::Tenant;
use tenantry_api::tenant_status::Outcome;
use tenantry_tests::docker::eventually;
use tenantry_tests::world::{World, phase_of};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::sample::{self, Installed};

/// A lease's 15 s, and the time to notice.
const TAKE_OVER: Duration = Duration::from_mins(1);
const SETTLE: Duration = Duration::from_mins(2);
/// An event of the engine and a record of the agent are written with different clocks' precision.
const SLACK: i64 = 1;

fn runs(few: usize, many: usize) -> usize {
    if std::env::var("TENANTRY_FAULTS").is_ok_and(|value| value == "all") { many } else { few }
}

/// An operator that need not lead yet. It ends with the test.
struct Operator {
    name: String,
    child: Child,
}

impl Operator {
    fn start(world: &World, name: &str, elect: bool) -> Result<Self> {
        let pki = world.path("pki");
        let log = std::fs::OpenOptions::new().create(true).append(true).open(world.path(name))?;
        let child = Command::new(tenantry_tests::program("tenantry-operator")?)
            .arg("--kubeconfig")
            .arg(&world.plane.kubeconfig)
            .args(["--namespace", &world.namespace, "--lease-namespace", &world.namespace])
            .arg("--tls-ca")
            .arg(pki.join("ca.crt"))
            .arg("--tls-cert")
            .arg(pki.join("operator-main.crt"))
            .arg("--tls-key")
            .arg(pki.join("operator-main.key"))
            .args([
                "--metrics-listen",
                "127.0.0.1:0",
                &format!("--leader-elect={elect}"),
                "--exit-on-stdin-close",
            ])
            .env("HOSTNAME", name)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()?;
        Ok(Self { name: name.to_owned(), child })
    }

    fn signal(&self, signal: &str) -> Result<()> {
        let status = Command::new("kill").args([signal, &self.child.id().to_string()]).status()?;
        ensure!(status.success(), "{} can't be sent {signal}", self.name);
        Ok(())
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A network that can be bad: connections that are cut after some bytes of an answer, and chunks that are late.
struct Network {
    address: String,
    bad: Arc<AtomicBool>,
}

impl Network {
    async fn before(agent: &str) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let bad = Arc::new(AtomicBool::new(false));
        let (agent, is_bad) = (agent.to_owned(), bad.clone());
        tokio::spawn(async move {
            while let Ok((down, _)) = listener.accept().await {
                let (agent, bad) = (agent.clone(), is_bad.clone());
                tokio::spawn(async move {
                    let Ok(up) = TcpStream::connect(agent).await else { return };
                    let (down_read, down_write) = down.into_split();
                    let (up_read, up_write) = up.into_split();
                    // Whichever direction ends first takes the other along.
                    tokio::select! {
                        () = pass(down_read, up_write, bad.clone()) => {}
                        () = pass(up_read, down_write, bad) => {}
                    }
                });
            }
        });
        Ok(Self { address, bad })
    }

    fn be_bad(&self, bad: bool) {
        self.bad.store(bad, Ordering::SeqCst);
    }
}

async fn pass(
    mut from: tokio::net::tcp::OwnedReadHalf,
    mut to: tokio::net::tcp::OwnedWriteHalf,
    bad: Arc<AtomicBool>,
) {
    let mut left = fastrand::usize(4_000..60_000);
    let mut buffer = vec![0; 16 * 1024];
    while let Ok(read @ 1..) = from.read(&mut buffer).await {
        if bad.load(Ordering::SeqCst) {
            if read >= left {
                return;
            }
            left -= read;
            if fastrand::u8(0..4) == 0 {
                tokio::time::sleep(Duration::from_millis(fastrand::u64(20..400))).await;
            }
        }
        if to.write_all(&buffer[..read]).await.is_err() {
            return;
        }
    }
}

/// What the agent recorded of one operation.
#[derive(Clone, Debug)]
struct Admitted {
    number: u64,
    epoch: u64,
    from: i64,
    to: Option<i64>,
    outcome: Option<String>,
}

/// Every operation in the agent's journals, by its id.
fn journals(world: &World, into: &mut BTreeMap<String, Admitted>) -> Result<()> {
    for tenant in std::fs::read_dir(world.path("agent-state/tenants"))? {
        let Ok(journals) = std::fs::read_dir(tenant?.path().join("journal")) else { continue };
        for journal in journals {
            let journal = journal?;
            let text = std::fs::read_to_string(journal.path())?;
            let mut records = text
                .lines()
                .filter_map(|line| serde_json::from_str::<Value>(line.splitn(3, ' ').nth(2)?).ok());
            let head = records.next().context("a journal has a head")?;
            let (mut admitted, second) = (None, |record: &Value| -> Result<i64> {
                let at: Timestamp = record["at"].as_str().context("a time")?.parse()?;
                Ok(at.as_second())
            });
            for record in records {
                let kind = record["record"].as_str().unwrap_or_default().to_lowercase();
                if kind == "accepted" {
                    admitted = Some(Admitted {
                        number: head["number"].as_u64().context("a number")?,
                        epoch: record["epoch"].as_u64().context("an epoch")?,
                        from: second(&record)?,
                        to: None,
                        outcome: None,
                    });
                } else if let (Some(admitted), "ended") = (&mut admitted, kind.as_str()) {
                    admitted.to = Some(second(&record)?);
                    admitted.outcome = record["outcome"].as_str().map(str::to_owned);
                }
            }
            if let Some(admitted) = admitted {
                into.insert(journal.file_name().to_string_lossy().into_owned(), admitted);
            }
        }
    }
    Ok(())
}

/// Seconds at which the engine made, started or removed a container of the project.
fn engine_events(project: &str, since: i64) -> Result<Vec<(i64, String)>> {
    let filter = format!("label=com.docker.compose.project={project}");
    let output = Command::new("docker")
        .args(["events", "--since", &since.to_string(), "--until", &Timestamp::now().as_second().to_string()])
        .args(["--filter", &filter, "--filter", "event=create", "--filter", "event=start"])
        .args(["--filter", "event=destroy", "--format", "{{.Time}} {{.Action}} {{.Actor.Attributes.name}}"])
        .output()?;
    let text = String::from_utf8(output.stdout)?;
    let parse = |line: &str| {
        let (time, what) = line.split_once(' ')?;
        Some((time.parse().ok()?, what.to_owned()))
    };
    Ok(text.lines().filter_map(parse).collect())
}

/// One tenant under two operators.
struct Scene {
    world: World,
    installed: Installed,
    network: Network,
    operators: Vec<Operator>,
    elect: bool,
    begun: i64,
    admitted: BTreeMap<String, Admitted>,
    tag: usize,
}

impl Scene {
    async fn new(name: &str, elect: bool) -> Result<Self> {
        let mut world = World::start(name).await?;
        world.operator = None;
        let installed = sample::install(&world, name)?;
        for tag in ["v2", "v3"] {
            sample::publish(&installed.repository, tag, &[("START_DELAY", "1s")])?;
        }
        let network = Network::before(&world.agent_address).await?;
        world
            .apply(&json!({
                "apiVersion": "tenantry.dev/v1alpha1", "kind": "ComposeHost", "metadata": {"name": "n5"},
                "spec": {"identity": "n5", "connection": {"dial": {"address": network.address}}},
            }))
            .await?;
        let operators = ["op-a", "op-b"]
            .iter()
            .map(|name| Operator::start(&world, name, elect))
            .collect::<Result<_>>()?;
        let mut manifest = world.tenant(&installed.project, "v1");
        manifest["spec"]["upgrade"]["verify"]["stableFor"] = json!("500ms");
        world.apply(&manifest).await?;
        world.until_ready_at("acme", "v1").await?;
        let begun = Timestamp::now().as_second();
        let admitted = BTreeMap::new();
        Ok(Self { world, installed, network, operators, elect, begun, admitted, tag: 1 })
    }

    /// Asks for the next of three releases.
    async fn ask(&mut self) -> Result<String> {
        self.tag = self.tag % 3 + 1;
        let tag = format!("v{}", self.tag);
        self.world.patch("acme", json!({"spec": {"imageTag": tag}})).await?;
        Ok(tag)
    }

    async fn settled_at(&self, tag: &str) -> Result<Tenant> {
        let at_tag = |tenant: &Tenant| {
            let deployed = tenant.status.as_ref().and_then(|status| status.deployed.as_ref());
            phase_of(tenant) == Some(tenantry_api::Phase::Ready)
                && deployed.is_some_and(|deployed| deployed.image_tag == tag)
        };
        self.world.until("acme", &format!("Ready at {tag}"), SETTLE, at_tag).await
    }

    /// Which operator leads, by its place in the list.
    async fn leader(&self) -> Result<usize> {
        let leases: Api<Lease> = Api::namespaced(self.world.client.clone(), &self.world.namespace);
        let lease = leases.get(&tenantry_api::lease(Some(&self.world.namespace))).await?;
        let holder = lease.spec.and_then(|spec| spec.holder_identity).context("nobody holds the lease")?;
        let of = |operator: &Operator| holder.starts_with(&format!("{}-", operator.name));
        self.operators.iter().position(of).with_context(|| format!("{holder} is none of the two"))
    }

    /// A deposed operator that comes back ends by itself; another waits in its place.
    async fn replace(&mut self, which: usize) -> Result<()> {
        let operator = &mut self.operators[which];
        for _ in 0..600 {
            if operator.child.try_wait()?.is_some() {
                let name = operator.name.clone();
                self.operators[which] = Operator::start(&self.world, &name, self.elect)?;
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        bail!("{} did not notice that it was deposed", operator.name)
    }

    /// P2 and P16 over everything that has happened so far.
    async fn check(&mut self, run: usize, tag: &str) -> Result<()> {
        journals(&self.world, &mut self.admitted)?;
        let mut in_order: Vec<(&String, &Admitted)> = self.admitted.iter().collect();
        in_order.sort_by_key(|(_, admitted)| admitted.number);
        for pair in in_order.windows(2) {
            let ((_, earlier), (_, later)) = (pair[0], pair[1]);
            ensure!(earlier.epoch < later.epoch, "run {run}: epochs rise: {pair:?}");
            let ended = earlier
                .to
                .with_context(|| format!("run {run}: one begins while another goes on: {pair:?}"))?;
            ensure!(ended <= later.from, "run {run}: two at a time: {pair:?}");
        }
        for (at, what) in engine_events(&self.installed.project.name, self.begun)? {
            let within = |admitted: &Admitted| {
                (admitted.from - SLACK..=admitted.to.unwrap_or(i64::MAX - 1) + SLACK).contains(&at)
            };
            ensure!(
                self.admitted.values().any(within),
                "run {run}: {what} at {at} belongs to no operation: {:#?}",
                self.admitted
            );
        }
        let status = self.world.tenants().get("acme").await?.status.unwrap_or_default();
        for entry in &status.history {
            // What was given up before it reached the agent is told as such.
            let Some(recorded) = self.admitted.get(&entry.id) else {
                ensure!(entry.outcome == Outcome::Aborted, "run {run}: the host knows nothing of {entry:?}");
                continue;
            };
            ensure!(
                recorded.outcome.as_deref() == Some(entry.outcome.as_str()),
                "run {run}: {entry:?} {recorded:?}"
            );
        }
        let answered = self.installed.project.answer("/version").await?;
        ensure!(answered == tag, "run {run}: {answered} runs, {tag} is said to");
        Ok(())
    }
}

/// The leader is stopped at any moment of an upgrade, deposed, and set going again: at once or when all is over.
#[tokio::test(flavor = "multi_thread")]
async fn p2_p16_a_deposed_operator_that_comes_back_changes_nothing() -> Result<()> {
    let mut scene = Scene::new("deposed", true).await?;
    for run in 0..runs(1, 12) {
        let tag = scene.ask().await?;
        scene.network.be_bad(run % 3 == 2);
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..2_500))).await;
        let deposed = scene.leader().await?;
        scene.operators[deposed].signal("-STOP")?;
        eventually("the other one leads", TAKE_OVER, || async {
            let leader = scene.leader().await?;
            ensure!(leader != deposed, "{} still leads", scene.operators[deposed].name);
            Ok(())
        })
        .await?;
        let tag = if run % 2 == 0 { scene.ask().await? } else { tag };
        if run % 4 < 2 {
            scene.operators[deposed].signal("-CONT")?;
        }
        scene.network.be_bad(false);
        scene.settled_at(&tag).await.with_context(|| format!("run {run}"))?;
        scene.operators[deposed].signal("-CONT")?;
        scene.replace(deposed).await?;
        scene.settled_at(&tag).await?;
        scene.check(run, &tag).await?;
    }
    Ok(())
}

/// Two that both believe to lead, with a network that cuts requests and answers in the middle.
#[tokio::test(flavor = "multi_thread")]
async fn p2_p16_two_operators_at_once_over_a_bad_network_are_one_mutator() -> Result<()> {
    let mut scene = Scene::new("twoatonce", false).await?;
    for run in 0..runs(2, 12) {
        scene.network.be_bad(true);
        let mut tag = scene.ask().await?;
        tokio::time::sleep(Duration::from_millis(fastrand::u64(0..1_500))).await;
        // One of them sleeps through the middle and wakes up with what it had in mind.
        let sleeper = run % 2;
        scene.operators[sleeper].signal("-STOP")?;
        if run % 3 == 1 {
            tag = scene.ask().await?;
        }
        tokio::time::sleep(Duration::from_millis(fastrand::u64(500..4_000))).await;
        scene.operators[sleeper].signal("-CONT")?;
        scene.network.be_bad(run % 4 == 3);
        scene.settled_at(&tag).await.with_context(|| format!("run {run}"))?;
        scene.network.be_bad(false);
        scene.check(run, &tag).await?;
    }
    Ok(())
}
