//! The finisher: a container of its own that recreates the agent's container. Should no agent come up from that, the
//! finisher rolls the operation back in the agent's place, up to the step `HandBack`, where the previous agent is recreated.
//!
//! While an agent has the state directory locked, the finisher opens the records without the lock ([`Host::beside`]) and
//! writes nothing but [`Handed`]. It can be killed at any moment: the engine starts it again, it reads the journal and goes
//! on. It ends by removing its own container.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::compare::ContainerState;
use tenantry_planner::steps::{JournalState, Record, Step};
use tenantry_protocol::{FailureCategory, OperateRequest};
use tokio::sync::{Notify, watch};

use crate::compose::{explain, keep_output};
use crate::config::Config;
use crate::engine::{ProjectContainer, own_id};
use crate::files::DiskIo;
use crate::host::{Host, Machine, TenantCache};
use crate::limits::Limits;
use crate::observe::{Reader, discovered, on_disk, own, redactor};
use crate::operation::{
    Effects, OpenOperation, OperationContext, StepResult, go_on, named, take_up_one, tidy, up_arguments,
    up_limit, what_to_tell,
};
use crate::planning::{RequestContext, StepError};
use crate::store::{Handed, StoreError};

const POLL: Duration = Duration::from_millis(250);
/// After this long without a running container the agent's service counts as failed.
const GONE_AFTER: Duration = Duration::from_secs(3);
/// After so many restarts by the engine the agent counts as failed.
const RESTARTS: u64 = 3;
/// The least time that a new agent has to resume the operation.
const LEAST_PATIENCE: Duration = Duration::from_secs(30);
/// How long an agent that was stopped may hold the state directory.
const LOCK_PATIENCE: Duration = Duration::from_secs(30);
/// How often the finisher acts in the agent's place before it gives up and a person must act.
const TAKE_OVERS: u32 = 4;

/// An operation as its journal tells it.
struct Pending {
    uid: TenantUid,
    request: OperateRequest,
    state: JournalState,
    service: String,
}

/// How waiting for an agent ended.
enum Waited {
    /// An agent has taken the operation up.
    TakenUp,
    /// None did.
    Lost(String),
}

/// Finishes what an operation has to do to the agent that began it; gives up where there is nothing to be done.
pub async fn finish(config: Arc<Config>, id: OperationId) -> Result<(), StoreError> {
    let engine = crate::engine::DockerEngine::new(&config.docker_host, Limits::default());
    let ended = finish_all(&config, &id).await;
    if let Err(error) = &ended {
        tracing::error!(operation = %id, %error, "the operation is not finished, for its records can't be used: an agent that is started on this host says what is wrong");
    }
    // The last that is done: it ends this very process.
    if let Some(own) = own_id()
        && let Err(error) = engine.remove_container(&own).await
    {
        tracing::warn!(%error, "this container could not be removed");
    }
    ended
}

fn machine(config: &Config) -> Machine {
    Machine::of(config, DiskIo::default(), Limits::default())
}

async fn finish_all(config: &Arc<Config>, id: &OperationId) -> Result<(), StoreError> {
    for _ in 0..TAKE_OVERS {
        let host = Arc::new(Host::beside(config.clone(), machine(config))?);
        let Some(pending) = pending(&host, id)? else { return Ok(()) };
        let step = pending.state.current().filter(|step| matches!(step, Step::HandOver | Step::HandBack));
        let failed = match step {
            Some(step) => {
                recreate(&host, id, &pending, step).await?;
                match wait(&host, id, &pending, step).await? {
                    Waited::TakenUp => return Ok(()),
                    Waited::Lost(problem) => Some((step, problem)),
                }
            }
            // A finisher was killed while it rolled the operation back. An agent that runs resumes it by itself.
            None if running(agents(&host, &pending).await.as_deref()) => return Ok(()),
            None => None,
        };
        if take_over(config, id, &pending, failed).await? {
            return Ok(());
        }
    }
    tracing::error!(
        operation = %id,
        "the operation is not finished and no agent came up: start the agent's service by hand, and it goes on by the journal"
    );
    Ok(())
}

/// The operation, if it has not ended.
fn pending(host: &Host, id: &OperationId) -> Result<Option<Pending>, StoreError> {
    for uid in host.store.tenants()? {
        let Some(records) = host.store.journal_records::<Record>(&uid, id)? else { continue };
        let state = JournalState::fold(&records);
        let service = state.plan().and_then(|plan| plan.inside.clone());
        let Some(service) = service.filter(|_| state.outcome().is_none()) else { return Ok(None) };
        let Some(text) = host.store.request(&uid, id)? else { return Ok(None) };
        let Ok(request) = serde_json::from_slice(&text) else { return Ok(None) };
        return Ok(Some(Pending { uid, request, state, service }));
    }
    Ok(None)
}

/// Runs `docker compose up` for the agent's service and records how that ended, which the step of the agent waits for.
async fn recreate(
    host: &Arc<Host>,
    id: &OperationId,
    pending: &Pending,
    step: Step,
) -> Result<(), StoreError> {
    tracing::info!(operation = %id, service = pending.service, ?step, "recreating the agent");
    tenantry_faults::point("finisher.recreate.before");
    let problem = match up(host, id, pending).await {
        Ok(()) => None,
        Err(error) => Some(format!("the agent's service {}: {}", pending.service, error.message)),
    };
    tenantry_faults::point("finisher.recreate.after");
    let handed = Handed { operation: id.clone(), step: named(step), problem };
    host.store.save_handed(&pending.uid, &handed)
}

async fn up(host: &Arc<Host>, id: &OperationId, pending: &Pending) -> Result<(), StepError> {
    let place = &pending.request.place;
    let found = match host.tree(&place.directory)? {
        Some(tree) => discovered(&tree, place, Reader::Agent(&host.policy.allow().compose))?,
        None => None,
    };
    let discovered = found.ok_or_else(|| crate::observe::no_compose_file(place))?;
    let compose = host.compose().await?;
    let log = host.store.compose_log(&pending.uid)?;
    let model = on_disk(host, &TenantCache::default(), &compose, place, &discovered, log.clone()).await?;
    if !model.services.contains_key(pending.service.as_str()) {
        // The release no longer has it: it is left running, as any other service would be.
        return Ok(());
    }
    let changed = pending.state.plan().map(|plan| plan.changed.as_slice()).unwrap_or_default();
    let rules = &pending.request.manifest.on_change;
    let told = what_to_tell(&model, place.directory.as_str(), rules, changed);
    // Compose does not recreate a service where only the content of a mounted file has changed.
    let mounts_changed_file = told.contains_key(pending.service.as_str());
    let more: &[&str] = if mounts_changed_file { &["--force-recreate"] } else { &[] };
    let arguments: Vec<OsString> = up_arguments(place, &discovered, more, &[&pending.service]);
    let directory = Path::new(place.directory.as_str());
    let output = compose.run(directory, &arguments, up_limit(&host.limits, &pending.request), None).await?;
    let (code, success) = (output.status.code(), output.status.success());
    let known = redactor(&*host.runtime, directory, &discovered).await;
    let explained = explain("up", code, &output.stderr, &known);
    let title = format!("up of the agent, operation {id}");
    keep_output(&*host.runtime, log, title, output.stderr).await;
    if success { Ok(()) } else { Err(explained.into()) }
}

/// Waits until the journal says that an agent has gone on.
async fn wait(
    host: &Arc<Host>,
    id: &OperationId,
    pending: &Pending,
    step: Step,
) -> Result<Waited, StoreError> {
    let patience = Duration::from_millis(pending.request.verify.timeout_ms).max(LEAST_PATIENCE);
    let (began, mut seen) = (Instant::now(), Instant::now());
    loop {
        let records = host.store.journal_records::<Record>(&pending.uid, id)?.unwrap_or_default();
        if JournalState::fold(&records).current() != Some(step) {
            return Ok(Waited::TakenUp);
        }
        let agents = agents(host, pending).await;
        if agents.is_none() || running(agents.as_deref()) {
            seen = Instant::now();
        }
        let restarts = agents.iter().flatten().map(|one| one.container.restart_count).max().unwrap_or(0);
        let service = &pending.service;
        if seen.elapsed() > GONE_AFTER || restarts >= RESTARTS {
            return Ok(Waited::Lost(format!(
                "the agent's service {service} {}",
                why_not_up(agents.as_deref())
            )));
        }
        if began.elapsed() > patience {
            let seconds = patience.as_secs();
            let problem = format!(
                "the agent's service {service} runs, but did not resume the operation within {seconds} s"
            );
            return Ok(Waited::Lost(problem));
        }
        tokio::time::sleep(POLL).await;
    }
}

/// The containers of the agent's service; `None` while the engine does not say.
async fn agents(host: &Host, pending: &Pending) -> Option<Vec<ProjectContainer>> {
    let place = &pending.request.place;
    let found = host.engine.service_containers(place.project.as_str(), &pending.service).await;
    found.ok().map(|all| own(all, place.directory.as_str()))
}

fn running(agents: Option<&[ProjectContainer]>) -> bool {
    let runs = |one: &ProjectContainer| {
        matches!(one.container.state, ContainerState::Running | ContainerState::Restarting)
    };
    agents.into_iter().flatten().any(runs)
}

/// What keeps the agent's service from being there for good.
fn why_not_up(agents: Option<&[ProjectContainer]>) -> String {
    match agents.into_iter().flatten().next() {
        Some(one) => format!(
            "does not stay up: the last exit code of its container is {}, after {} restarts",
            one.container.exit_code, one.container.restart_count
        ),
        None => "has no container".to_owned(),
    }
}

/// Carries the operation on in the agent's place, which mostly is to roll it back. True when nothing is left for the
/// finisher to do.
async fn take_over(
    config: &Arc<Config>,
    id: &OperationId,
    pending: &Pending,
    failed: Option<(Step, String)>,
) -> Result<bool, StoreError> {
    tracing::warn!(operation = %id, problem = ?failed, "no agent goes on with the operation: taking it over");
    let beside = Host::beside(config.clone(), machine(config))?;
    let agents = agents(&beside, pending).await.unwrap_or_default();
    for one in &agents {
        if let Err(error) = beside.engine.stop_container(&one.container.id).await {
            tracing::warn!(container = one.container.name, %error, "the agent's container could not be stopped");
        }
    }
    tenantry_faults::point("finisher.take_over");
    let host = Arc::new(open(config).await?);
    let taken = take_up_one(&host, &pending.uid).await?;
    let still = |state: &JournalState| failed.as_ref().is_none_or(|(step, _)| state.current() == Some(*step));
    let ended = match taken {
        Some((request, open)) if still(&open.state) => drive(&host, id, request, open, failed).await?,
        // It ended, or the agent went on before it was stopped: started again, the agent resumes it.
        _ => true,
    };
    drop(host);
    if ended {
        for one in &agents {
            // Also one that failed: without any agent no operator can reach this host.
            let _ = beside.engine.start_container(&one.container.id).await;
        }
    }
    Ok(ended)
}

/// The records, once the agent that was stopped has let go of them.
async fn open(config: &Arc<Config>) -> Result<Host, StoreError> {
    let deadline = Instant::now() + LOCK_PATIENCE;
    loop {
        match Host::open(config.clone(), machine(config)) {
            Err(StoreError::InUse { .. }) if Instant::now() < deadline => tokio::time::sleep(POLL).await,
            other => return other,
        }
    }
}

/// Drives the operation to its end (true), or to where the previous agent is to be recreated (false).
async fn drive(
    host: &Arc<Host>,
    id: &OperationId,
    request: OperateRequest,
    open: OpenOperation,
    failed: Option<(Step, String)>,
) -> Result<bool, StoreError> {
    let OpenOperation { journal, state, lock } = open;
    let (status, _watched) = watch::channel(state.status(id));
    let (cache, request) = (Arc::new(TenantCache::default()), Arc::new(request));
    let asked = RequestContext { host: host.clone(), cache, request };
    let operation = OperationContext::new(asked, id.clone(), status, lock);
    let taking = TakingOver { operation: Arc::new(operation), failed, hand_back: Notify::new() };
    let ended = tokio::select! {
        ended = go_on(host, &taking, journal, state) => ended?,
        () = taking.hand_back.notified() => return Ok(false),
    };
    tidy(&taking.operation, &ended).await;
    Ok(true)
}

/// Performs the steps of an operation whose agent is gone.
struct TakingOver {
    operation: Arc<OperationContext>,
    /// The step that no agent went on with, and why.
    failed: Option<(Step, String)>,
    /// That the step `HandBack` was reached.
    hand_back: Notify,
}

impl Effects for TakingOver {
    async fn perform(&self, step: Step, state: &JournalState) -> Result<StepResult, StepError> {
        match &self.failed {
            Some((failed, problem)) if *failed == step => {
                Err(StepError::new(FailureCategory::StartFailed, problem.clone()))
            }
            _ if step == Step::HandBack => {
                // This step is the previous agent's, which `finish_all` recreates and which then resumes the operation.
                self.hand_back.notify_one();
                std::future::pending().await
            }
            _ => self.operation.perform(step, state).await,
        }
    }
}
