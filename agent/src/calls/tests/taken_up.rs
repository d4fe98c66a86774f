//! P2 and P4: an operation that began is carried to its end, also where the disk failed for a while. No engine is needed:
//! without one an operation ends as `Aborted`.

use std::fmt;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde_json::json;
use tenantry_api::names::{Identity, OperationId, TenantUid};
use tenantry_api::tenant_status::Outcome;
use tenantry_planner::steps::Record;
use tenantry_protocol::{ErrorCode, OperateRequest, OperationState, ReleaseRequest, TenantRef};

use crate::calls::Agent;
use crate::config::Config;
use crate::files::{DiskIo, Effect, Hook};
use crate::host::Machine;
use crate::limits::Limits;
use crate::store::{ClaimWanted, Journal, OwnProcesses, Store, StrayProcesses};

const UID: &str = "0b0b0b0b-0000-4000-8000-0000000000bb";

/// Fails some of the times that a journal is made durable, counted from 0.
struct Fails {
    which: std::ops::Range<usize>,
    seen: AtomicUsize,
}

impl Hook for Fails {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        let journal = path.parent().is_some_and(|folder| folder.ends_with("journal"));
        if effect == Effect::SyncFile && journal {
            let seen = self.seen.fetch_add(1, Ordering::SeqCst);
            if self.which.contains(&seen) {
                return Err(io::Error::from_raw_os_error(5));
            }
        }
        Ok(())
    }
}

fn fails(which: std::ops::Range<usize>) -> DiskIo {
    DiskIo::with(Arc::new(Fails { which, seen: AtomicUsize::new(0) }))
}

async fn start(folder: &Path, disk_io: DiskIo) -> Arc<Agent> {
    start_beside(folder, disk_io, Arc::new(OwnProcesses)).await
}

async fn start_beside(folder: &Path, disk_io: DiskIo, strays: Arc<dyn StrayProcesses>) -> Arc<Agent> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let text = json!({
        "identity": "test", "listen": "127.0.0.1:0", "stateDir": folder.join("state"),
        "tls": {"ca": "ca", "cert": "cert", "key": "key"}, "operators": ["main"],
        "allow": {"directories": [folder.join("tenants")], "registries": ["*"]},
        "dockerHost": format!("unix://{}", folder.join("no.sock").display()),
    });
    let config = Config::parse(Path::new("/nowhere/agent.yaml"), &text.to_string()).unwrap();
    let machine = Machine { strays, ..Machine::of(&config, disk_io, Limits::default()) };
    Agent::start_on(Arc::new(config), machine).await.unwrap()
}

fn request(folder: &Path, epoch: u64) -> OperateRequest {
    serde_json::from_value(json!({
        "tenant": {"uid": UID, "namespace": "default", "name": "acme"},
        "place": {"project": "acme", "directory": folder.join("tenants/acme")},
        "epoch": epoch, "targetHash": format!("sha256:{epoch}"), "approach": "ImageOnly",
        "manifest": {
            "files": [], "protect": [], "jobs": [], "onChange": [],
            "env": {"ownership": "adopted", "patch": [{"name": "TAG", "value": "v1"}]},
        },
        "contents": [], "pinned": [], "onFailure": "Rollback", "overwrite": false,
        "verify": {"timeoutMs": 20_000, "stableForMs": 200, "http": []},
    }))
    .unwrap()
}

fn id(text: &str) -> OperationId {
    OperationId::parse(text).unwrap()
}

fn operator() -> Identity {
    Identity::parse("main").unwrap()
}

fn tenant() -> TenantRef {
    let uid = TenantUid::parse(UID).unwrap();
    TenantRef { uid, namespace: "default".to_owned(), name: "acme".to_owned() }
}

/// Waits until an operation has ended.
async fn outcome(core: &Agent, operation: &OperationId) -> Outcome {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let status = core.operation(operation, u64::MAX, Duration::from_millis(200)).await.unwrap();
        if let OperationState::Ended { outcome, .. } = status.state {
            return outcome;
        }
        assert!(Instant::now() < deadline, "nobody carries it out: {status:#?}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn p4_a_first_record_that_is_whole_although_its_sync_failed_is_carried_out() {
    let folder = tempfile::tempdir().unwrap();
    // The journal's head becomes durable; whether the first record did, nobody knows.
    let core = start(folder.path(), fails(1..2)).await;
    let refused = core.operate(&operator(), id("op-1"), request(folder.path(), 1)).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::HostFault, "{refused}");
    assert_eq!(outcome(&core, &id("op-1")).await, Outcome::Aborted);
    core.shutdown().await;
}

/// What an agent leaves that is killed right after it has accepted an operation.
fn accepted(folder: &Path) -> Journal<Record> {
    let store = Store::open(&folder.join("state"), DiskIo::default()).unwrap();
    let request = request(folder, 1);
    let claim = ClaimWanted {
        operation: Some(id("op-1")),
        ..ClaimWanted::new(&request.tenant, operator().to_string(), &request.place, 1)
    };
    store.claim(&claim).unwrap();
    let text = serde_json::to_vec(&request).unwrap();
    let mut journal = store.begin::<Record>(&request.tenant.uid, &id("op-1"), &text).unwrap();
    journal.append(&Record::accepted(Timestamp::now(), &request)).unwrap();
    journal
}

/// Notes when journals are made durable and when what was asked is forgotten.
#[derive(Default)]
struct Order(Mutex<Vec<&'static str>>);

impl Hook for Order {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        let of = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        match (of, effect) {
            (Some("journal"), Effect::SyncFile) => self.0.lock().unwrap().push("durable"),
            (Some("requests"), Effect::Remove) => self.0.lock().unwrap().push("forgotten"),
            _ => {}
        }
        Ok(())
    }
}

#[tokio::test]
async fn p3_an_end_is_durable_before_what_was_asked_is_forgotten_also_where_another_agent_wrote_it() {
    let folder = tempfile::tempdir().unwrap();
    let mut journal = accepted(folder.path());
    let ended = Record::Ended { at: Timestamp::now(), outcome: Outcome::Aborted, failure: None };
    journal.append(&ended).unwrap();
    drop(journal);
    let order = Arc::new(Order::default());
    let core = start(folder.path(), DiskIo::with(order.clone())).await;
    core.shutdown().await;
    assert_eq!(*order.0.lock().unwrap(), ["durable", "forgotten"]);
}

#[tokio::test]
async fn p2_p4_what_a_disk_keeps_from_being_taken_up_is_taken_up_later_and_nothing_else_is_begun_before() {
    let folder = tempfile::tempdir().unwrap();
    drop(accepted(folder.path()));
    let core = start(folder.path(), fails(0..2)).await;
    let status = core.operation(&id("op-1"), 0, Duration::ZERO).await.unwrap();
    assert_eq!(status.state, OperationState::Running);
    // Nobody drives it right now. The place is not free for all that.
    let newer = core.operate(&operator(), id("op-2"), request(folder.path(), 2)).await.unwrap_err();
    let gone = core.release(&operator(), ReleaseRequest { tenant: tenant() }).await.unwrap_err();
    for refused in [newer, gone] {
        assert_eq!(refused.code, ErrorCode::Busy, "{refused}");
        assert!(refused.message.contains("op-1"), "{refused}");
    }
    assert_eq!(outcome(&core, &id("op-1")).await, Outcome::Aborted);
    core.operate(&operator(), id("op-2"), request(folder.path(), 2)).await.unwrap();
    assert_eq!(outcome(&core, &id("op-2")).await, Outcome::Aborted);
    core.release(&operator(), ReleaseRequest { tenant: tenant() }).await.unwrap();
    core.shutdown().await;
}

/// Whoever drives an operation, and ends it just as somebody else wants its lock.
struct Driver(Mutex<Option<(Journal<Record>, File)>>);

impl fmt::Debug for Driver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Driver")
    }
}

impl StrayProcesses for Driver {
    fn take_lock(&self, lock: &File) -> io::Result<bool> {
        if let Some((mut journal, held)) = self.0.lock().unwrap().take() {
            let ended = Record::Ended { at: Timestamp::now(), outcome: Outcome::Succeeded, failure: None };
            journal.append(&ended).unwrap();
            drop(held);
        }
        Ok(lock.try_lock().is_ok())
    }
}

#[tokio::test]
async fn p2_p3_an_operation_that_ends_while_its_lock_is_waited_for_is_not_taken_up() {
    let folder = tempfile::tempdir().unwrap();
    let journal = accepted(folder.path());
    let lock = File::create(folder.path().join("state/tenants").join(UID).join("lock")).unwrap();
    lock.lock().unwrap();
    let driver = Arc::new(Driver(Mutex::new(Some((journal, lock)))));
    let core = start_beside(folder.path(), DiskIo::default(), driver.clone()).await;
    assert!(driver.0.lock().unwrap().is_none(), "the lock was not asked for");
    let status = core.operation(&id("op-1"), 0, Duration::ZERO).await.unwrap();
    let succeeded =
        |state: &OperationState| matches!(state, OperationState::Ended { outcome: Outcome::Succeeded, .. });
    assert!(succeeded(&status.state), "{status:#?}");
    core.operate(&operator(), id("op-2"), request(folder.path(), 2)).await.unwrap();
    core.shutdown().await;
}
