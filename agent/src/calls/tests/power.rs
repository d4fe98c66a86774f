//! P3, P6, P9 and P16: the power goes after each effect of a whole operation on a real engine. Whatever was not made
//! durable may be lost, in the agent's records and in the tenant's directory alike.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tenantry_api::names::{Identity, OperationId, TenantUid};
use tenantry_api::tenant_status::Outcome;
use tenantry_planner::steps::{JournalState, Record, Step};
use tenantry_protocol::{Bytes, OperateRequest, OperationState};
use test_images::Image;

use crate::calls::Agent;
use crate::config::Config;
use crate::files::tests::model::{Disk, Recorder, chances};
use crate::files::{DiskIo, TransactionState, Transactions, Tree, sha256};
use crate::host::Machine;
use crate::limits::Limits;
use crate::store::Store;

const SEEDS: usize = 4;
const UID: &str = "0b0b0b0b-0000-4000-8000-0000000000aa";
/// A service that only has to run.
const COMPOSE: &str = "services:\n  web:\n    image: REPOSITORY:${TAG:?}\n    stop_grace_period: 1s\n    volumes: [\"./web.conf:/web.conf:ro\"]\n";

struct World {
    folder: tempfile::TempDir,
    project: String,
    repository: String,
}

type Files = BTreeMap<&'static str, Option<String>>;

impl World {
    fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let registry = required("TENANTRY_TEST_REGISTRY");
        let project = format!("agent-power-{}", std::process::id());
        let world = Self {
            folder: tempfile::tempdir().unwrap(),
            repository: format!("{registry}/agent/{project}"),
            project,
        };
        std::fs::create_dir(world.directory()).unwrap();
        std::fs::write(world.directory().join(".env"), "# mine\nTAG=none\n").unwrap();
        let standin = PathBuf::from(required("TENANTRY_STANDIN"));
        Image::version("v1").publish(&standin, &format!("{}:v1", world.repository)).unwrap();
        Image::version("v2").publish(&standin, &format!("{}:v2", world.repository)).unwrap();
        world
    }

    fn directory(&self) -> PathBuf {
        self.folder.path().join(&self.project)
    }

    async fn start(&self, disk_io: DiskIo) -> Arc<Agent> {
        let text = json!({
            "identity": "test", "listen": "127.0.0.1:0", "stateDir": self.folder.path().join("state"),
            "tls": {"ca": "ca", "cert": "cert", "key": "key"}, "operators": ["main"],
            "allow": {"directories": [self.directory()], "registries": [required("TENANTRY_TEST_REGISTRY")]},
        });
        let config = Config::parse(Path::new("/nowhere/agent.yaml"), &text.to_string()).unwrap();
        let machine = Machine::of(&config, disk_io, Limits::default());
        Agent::start_on(Arc::new(config), machine).await.unwrap()
    }

    fn request(&self, number: u64) -> OperateRequest {
        let files = files(self, number);
        let managed: Vec<(&str, &String)> = files
            .iter()
            .filter(|(path, _)| **path != ".env")
            .filter_map(|(path, file)| Some((*path, file.as_ref()?)))
            .collect();
        let manifests: Vec<Value> = managed
            .iter()
            .map(|(path, content)| json!({"path": path, "sha256": sha256(content.as_bytes()), "size": content.len(), "mode": 0o644, "sensitive": false}))
            .collect();
        let contents: Vec<Value> = managed
            .iter()
            .map(|(path, content)| json!({"path": path, "content": Bytes(content.as_bytes().to_vec())}))
            .collect();
        serde_json::from_value(json!({
            "tenant": {"uid": UID, "namespace": "default", "name": "acme"},
            "place": {"project": self.project, "directory": self.directory()},
            "epoch": number, "targetHash": format!("sha256:{number}"), "approach": "Release",
            "manifest": {
                "files": manifests, "protect": [], "jobs": [], "onChange": [],
                "env": {"ownership": "adopted", "patch": [{"name": "TAG", "value": format!("v{number}")}]},
            },
            "contents": contents, "pinned": [], "onFailure": "Rollback", "overwrite": number == 1,
            "verify": {"timeoutMs": 20_000, "stableForMs": 200, "http": []},
        }))
        .unwrap()
    }

    /// Carries an operation out and ends the agent.
    async fn operate(&self, core: &Arc<Agent>, number: u64) {
        let operator = Identity::parse("main").unwrap();
        core.operate(&operator, id(number), self.request(number)).await.unwrap();
        let mut after = 0;
        loop {
            let status = core.operation(&id(number), after, Duration::from_secs(5)).await.unwrap();
            after = status.seq;
            match &status.state {
                OperationState::Running => {}
                OperationState::Ended { outcome: Outcome::Succeeded, .. } => break,
                OperationState::Ended { .. } => panic!("{status:#?}"),
            }
        }
        core.shutdown().await;
    }
}

impl Drop for World {
    fn drop(&mut self) {
        let docker = |arguments: &[&str]| {
            Command::new("docker")
                .args(arguments)
                .output()
                .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
                .unwrap_or_default()
        };
        let filter = format!("label=com.docker.compose.project={}", self.project);
        for container in docker(&["ps", "-aq", "--filter", &filter]).lines() {
            docker(&["rm", "-f", "-v", container]);
        }
        docker(&["network", "rm", &format!("{}_default", self.project)]);
        for repository in [self.repository.clone(), format!("tenantry.local/keep/{UID}")] {
            for image in docker(&["images", "-q", &repository]).lines() {
                docker(&["rmi", "-f", image]);
            }
        }
    }
}

fn required(variable: &str) -> String {
    std::env::var(variable)
        .unwrap_or_else(|_| panic!("{variable} is not set: run the tests through `cargo xtask test`"))
}

fn id(number: u64) -> OperationId {
    OperationId::parse(format!("op-{number}")).unwrap()
}

/// Every file that the two releases have, as one of them has it.
fn files(world: &World, number: u64) -> Files {
    BTreeMap::from([
        (".env", Some(format!("# mine\nTAG=v{number}\n"))),
        ("docker-compose.yml", Some(COMPOSE.replace("REPOSITORY", &world.repository))),
        ("web.conf", Some(format!("GREETING=v{number}\n"))),
        ("conf.d/new.conf", (number == 2).then(|| "new\n".to_owned())),
    ])
}

fn found(directory: &Path, like: &Files) -> Files {
    like.keys().map(|path| (*path, std::fs::read_to_string(directory.join(path)).ok())).collect()
}

/// What an agent that is started after the power cut finds, and what it would make of it.
fn check(left: &Path, world: &World, at: &str) -> Option<TransactionState> {
    let (old, new) = (files(world, 1), files(world, 2));
    let directory = left.join(&world.project);
    let store =
        Store::open(&left.join("state"), DiskIo::default()).unwrap_or_else(|error| panic!("{at}: {error}"));
    let uid = TenantUid::parse(UID).unwrap();
    let opened = store.open_journal::<Record>(&uid, &id(2)).unwrap_or_else(|error| panic!("{at}: {error}"));
    let records = opened.map(|(_, records)| records).unwrap_or_default();
    let state = JournalState::fold(&records);
    let done = |step: Step| {
        records.iter().any(|record| matches!(record, Record::Done { step: done, .. } if *done == step))
    };
    let epoch = store.claim_of(&uid).map_or(0, |claim| claim.epoch);
    assert!(epoch == 2 || (records.is_empty() && epoch == 1), "{at}: P2: epoch {epoch}");
    if !records.is_empty() && state.outcome().is_none() {
        let request = store.request(&uid, &id(2)).unwrap_or_else(|error| panic!("{at}: {error}"));
        assert!(request.is_some(), "{at}: P3: what was asked is gone, and so it can't go on");
    }
    let tree = Tree::open(&directory, DiskIo::default()).unwrap();
    let transactions = Transactions::new(&tree);
    let transaction = transactions.recover(&id(2)).unwrap_or_else(|error| panic!("{at}: {error}"));
    let now = found(&directory, &new);
    assert!(now == old || now == new, "{at}: P6: neither old nor new: {now:#?}");
    assert!(
        now == new || !done(Step::Write),
        "{at}: P6: the journal claims that files are written, and they are not"
    );
    assert!(now == old || !records.is_empty(), "{at}: P3: files changed without a journal");
    let baseline = store.baseline(&uid).unwrap_or_else(|error| panic!("{at}: {error}"));
    if baseline.target_hash.as_deref() == Some("sha256:2") {
        assert!(now == new && done(Step::Verify), "{at}: P16: the baseline is ahead of what was seen");
    }
    if let Some(outcome) = state.outcome() {
        assert_eq!(outcome, Outcome::Succeeded, "{at}");
        assert_eq!(
            baseline.target_hash.as_deref(),
            Some("sha256:2"),
            "{at}: P16: ended, and the baseline is behind"
        );
    } else if now == new && transaction == TransactionState::Done {
        transactions.restore(&id(2)).unwrap_or_else(|error| panic!("{at}: P9: no way back: {error}"));
        assert_eq!(found(&directory, &old), old, "{at}: P9: not as it was");
    }
    (!records.is_empty()).then_some(transaction)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_p6_p16_a_power_cut_after_any_effect_of_a_whole_upgrade_is_recovered_from() {
    let world = World::new();
    let core = world.start(DiskIo::default()).await;
    world.operate(&core, 1).await;
    drop(core);
    assert_eq!(found(&world.directory(), &files(&world, 2)), files(&world, 1));
    let before = Disk::of(world.folder.path());
    let recorder = Arc::new(Recorder::default());
    let core = world.start(DiskIo::with(recorder.clone())).await;
    world.operate(&core, 2).await;
    drop(core);
    let total = recorder.len();
    assert!(total > 100, "only {total} effects");
    let mut seen = Vec::new();
    for effects in 0..=total {
        for seed in 0..SEEDS {
            let mut disk = before.clone();
            disk.replay(&recorder, effects);
            let left = disk.after_power_cut(chances(seed));
            let at = format!(
                "power cut before {} (effect {effects} of {total}), seed {seed}",
                recorder.name(effects)
            );
            seen.push(check(left.path(), &world, &at));
        }
    }
    let count = |wanted: Option<TransactionState>| seen.iter().filter(|one| **one == wanted).count();
    println!(
        "{total} effects, {} power cuts, {} of them before the operation was accepted",
        seen.len(),
        count(None)
    );
    assert!(
        count(None) > 0 && count(Some(TransactionState::None)) > 0 && count(Some(TransactionState::Done)) > 0,
        "{seen:?}"
    );
}
