//! P3, P6: a disk that is full from any step on, and a port that is taken between the check and the start: the host
//! ends wholly at the new release or wholly at the old one, and says which.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::support::{Sandbox, assert_outcome, failure};
use tenantry_agent::files::{DiskIo, Effect, Hook};
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{FailureCategory, OperationPhase, OperationState, OperationStatus};

const COMPOSE: &str = "services:
  web:
    image: REPOSITORY:${IMAGE_TAG:?}
    restart: unless-stopped
    stop_grace_period: 1s
    environment: {STANDIN_CONFIG: /etc/web.conf}
    volumes: [\"./config/web.conf:/etc/web.conf:ro\"]
";
/// How many places are tried at most where the tenant's own disk is full.
const PLACES: u64 = 40;
/// Where the agent's own records are on the full disk, too.
const OWN_PLACES: [u64; 7] = [0, 2, 5, 9, 14, 19, 25];
/// How long an agent whose disk is full may take until it has ended or says that it waits.
const PATIENCE: Duration = Duration::from_mins(3);

/// A disk that is full from the n-th effect that needs space on, until it is freed.
#[derive(Default)]
struct Disk {
    on: AtomicBool,
    /// Only below this path, if it is set.
    below: OnceLock<PathBuf>,
    everywhere: AtomicBool,
    left: AtomicU64,
    refused: AtomicU64,
}

impl Hook for Disk {
    fn before(&self, path: &Path, effect: Effect<'_>) -> io::Result<()> {
        let needs =
            matches!(effect, Effect::MakeFolder | Effect::Create | Effect::Append(_) | Effect::WriteAt(..));
        let here = self.everywhere.load(Ordering::SeqCst)
            || self.below.get().is_some_and(|top| path.starts_with(top));
        if !needs || !here || !self.on.load(Ordering::SeqCst) {
            return Ok(());
        }
        let spent =
            self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1)).is_err();
        if spent {
            self.refused.fetch_add(1, Ordering::SeqCst);
            return Err(io::Error::from_raw_os_error(28));
        }
        Ok(())
    }
}

impl Disk {
    fn full_after(&self, effects: u64, everywhere: bool) {
        self.everywhere.store(everywhere, Ordering::SeqCst);
        self.left.store(effects, Ordering::SeqCst);
        self.refused.store(0, Ordering::SeqCst);
        self.on.store(true, Ordering::SeqCst);
    }

    fn free(&self) {
        self.on.store(false, Ordering::SeqCst);
    }
}

/// A tenant that runs v1, on a disk that can be full.
async fn running(name: &str) -> (Sandbox, Arc<Disk>) {
    let mut tenant = Sandbox::new(name).await;
    let disk = Arc::new(Disk::default());
    disk.below.set(tenant.directory()).unwrap();
    tenant.stop_agent().await;
    tenant.disk_io = DiskIo::with(disk.clone());
    tenant.start_agent().await;
    tenant.write(".env", "IMAGE_TAG=none\n");
    tenant.verify["stableForMs"] = 100.into();
    tenant.publish("v1", &[]);
    tenant.publish("v2", &[]);
    tenant.manage("docker-compose.yml", &COMPOSE.replace("REPOSITORY", &tenant.repository));
    release(&mut tenant, "v1");
    assert_outcome(&tenant.run("first", "Release").await, Outcome::Succeeded);
    (tenant, disk)
}

fn release(tenant: &mut Sandbox, tag: &str) {
    tenant.manage("config/web.conf", &format!("GREETING={tag}\n"));
    tenant.tag(tag);
}

/// The release that files, `.env` and containers are at, all of them.
fn at(tenant: &Sandbox) -> String {
    let tag = tenant.version_of("web");
    assert_eq!(
        tenant.read("config/web.conf"),
        format!("GREETING={tag}\n"),
        "files and containers are of one release"
    );
    assert_eq!(tenant.read(".env"), format!("IMAGE_TAG={tag}\n"), ".env and containers are of one release");
    tag
}

/// The end of an operation, or nothing where the agent says that it can't go on.
async fn ended(tenant: &Sandbox, id: &OperationId) -> Option<OperationStatus> {
    let wait = async {
        let mut after = 0;
        loop {
            let status = tenant.core().operation(id, after, Duration::from_secs(5)).await.ok()?;
            if status.state != OperationState::Running {
                return Some(status);
            }
            if status.waits_for.is_some() {
                return None;
            }
            after = status.seq;
        }
    };
    tokio::time::timeout(PATIENCE, wait).await.ok().flatten()
}

fn other(release: &str) -> &'static str {
    if release == "v1" { "v2" } else { "v1" }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_a_tenants_disk_that_is_full_from_any_step_on_leaves_the_old_release() {
    let (mut tenant, disk) = running("full").await;
    let mut seen = Vec::new();
    for place in 0..PLACES {
        let before = at(&tenant);
        release(&mut tenant, other(&before));
        disk.full_after(place, false);
        let status = tenant.run(&format!("full-{place}"), "Release").await;
        let refused = disk.refused.load(Ordering::SeqCst);
        disk.free();
        let OperationState::Ended { outcome, .. } = status.state else { panic!("still runs: {status:#?}") };
        let now = at(&tenant);
        seen.push((outcome, refused));
        match outcome {
            Outcome::Aborted | Outcome::RolledBack => assert_eq!(now, before, "{status:#?}"),
            // There was room for all of it.
            Outcome::Succeeded if refused == 0 => break,
            _ => panic!("{place} effects, {refused} refused: {status:#?}"),
        }
        assert_eq!(failure(&status).category, FailureCategory::DiskFull, "{status:#?}");
    }
    println!("{seen:?}");
    assert!(
        seen.len() > 5 && seen.last().is_some_and(|(outcome, _)| *outcome == Outcome::Succeeded),
        "{seen:?}"
    );
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p3_a_full_disk_with_the_agents_own_records_on_it_is_gone_on_from_once_there_is_room() {
    let (mut tenant, disk) = running("fullown").await;
    let (mut stuck, mut seen) = (0, Vec::new());
    for place in OWN_PLACES {
        let before = at(&tenant);
        let wanted = other(&before);
        release(&mut tenant, wanted);
        disk.full_after(place, true);
        let id = format!("full-{place}");
        let accepted = tenant.submit(&id, tenant.request("Release")).await;
        if let Err(error) = &accepted {
            assert!(
                error.message.contains("No space left"),
                "after {place} effects: {error:?}; before: {seen:?}"
            );
        }
        let parsed = OperationId::parse(id.as_str()).unwrap();
        let mut status = if accepted.is_ok() { ended(&tenant, &parsed).await } else { None };
        if accepted.is_ok() && status.is_none() {
            let told = tenant.core().operation(&parsed, 0, Duration::ZERO).await.unwrap();
            assert!(told.waits_for.is_some_and(|why| why.contains("No space left")), "{:#?}", told.phases);
            stuck += 1;
        }
        disk.free();
        if accepted.is_ok() && status.is_none() {
            // It goes on by itself; every second time it is started again instead.
            if stuck % 2 == 0 {
                tenant.stop_agent().await;
                tenant.start_agent().await;
            }
            status = Some(tenant.ended(&id).await);
            assert_eq!(status.as_ref().and_then(|status| status.waits_for.as_ref()), None);
        }
        let outcome = status.as_ref().map(|status| match &status.state {
            OperationState::Ended { outcome, .. } => *outcome,
            OperationState::Running => panic!("still runs"),
        });
        let now = at(&tenant);
        seen.push((place, stuck, outcome));
        match outcome {
            None => assert_eq!(now, before),
            Some(Outcome::Aborted | Outcome::RolledBack) => {
                let status = status.unwrap();
                assert_eq!(
                    failure(&status).category,
                    FailureCategory::DiskFull,
                    "{status:#?}; before: {seen:?}"
                );
                assert_eq!(now, before, "{status:#?}");
            }
            Some(Outcome::Succeeded) => assert_eq!(now, wanted, "{status:#?}"),
            Some(other) => panic!("{other:?} after {place} effects: {status:#?}"),
        }
    }
    assert!(stuck > 1, "the disk was full in the middle {stuck} times: {seen:?}");
    let (before, after) = tenant.by_hand();
    assert_eq!(before, after);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_port_that_is_taken_after_the_check_is_rolled_back() {
    let (mut tenant, _disk) = running("port").await;
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let published = COMPOSE.replace("REPOSITORY", &tenant.repository)
        + &format!("    ports: [\"127.0.0.1:{port}:8080\"]\n");
    tenant.manage("docker-compose.yml", &published);
    release(&mut tenant, "v2");
    tenant.submit("two", tenant.request("Release")).await.unwrap();
    let id = OperationId::parse("two").unwrap();
    let (mut after, mut taken) = (0, None);
    while taken.is_none() {
        let status = tenant.core().operation(&id, after, Duration::from_secs(5)).await.unwrap();
        assert_eq!(status.state, OperationState::Running, "{status:#?}");
        after = status.seq;
        if status.phases.iter().any(|phase| phase.name == OperationPhase::Pull) {
            taken = Some(std::net::TcpListener::bind(("127.0.0.1", port)).unwrap());
        }
    }
    let status = tenant.ended("two").await;
    assert_outcome(&status, Outcome::RolledBack);
    assert_eq!(failure(&status).during, OperationPhase::Start, "{status:#?}");
    assert_ne!(failure(&status).category, FailureCategory::AgentFault);
    assert_eq!(at(&tenant), "v1");
}
