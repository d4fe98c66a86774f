//! The agent's process: what it answers, how it dies, and how it takes up what was in flight.
//!
//! A mirror of the agent's `core` and `operation/run.rs` over a made-up disk. The driver, the step machine, the check of
//! requests and the rule of claims are the shipped ones.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use tenantry_agent::calls::validate::validate;
use tenantry_agent::operation::drive;
use tenantry_agent::store::ClaimWanted;
use tenantry_api::names::{OperationId, TenantUid};
use tenantry_planner::steps::{JournalState, Record, Step};
use tenantry_protocol::{
    AcceptRequest, ApiError, ClaimRequest, ErrorCode, Observation, OperateRequest, OperationState,
    OperationStatus, ReleaseRequest,
};

use crate::effects::Operation;
use crate::host::Journal;
use crate::journal::JournalLog;
use crate::observe::observation;
use crate::scheduler::{Owner, Shared, Topic, die, sleep, until};
use crate::world::{Fault, World};

/// The first and the longest pause before an operation whose journal could not be written is taken up again.
const PAUSE: u64 = 1_000;
const LONGEST_PAUSE: u64 = 60_000;
/// How often what could not be taken up at the start is tried again.
const BUSY_AGAIN: u64 = 5_000;

/// What the agent's process remembers.
#[derive(Default)]
pub struct Process {
    /// Whether it answers.
    pub up: bool,
    /// Rises with every start.
    pub incarnation: u64,
    /// Operations in flight, or the last ones since it was started.
    pub running: BTreeMap<TenantUid, Running>,
    /// Whose lock it holds.
    pub locked: BTreeSet<TenantUid>,
    /// The step that is performed.
    pub step: Option<Step>,
    ticks: u64,
    deaths: usize,
}

/// An operation in flight, or the last one since the agent was started.
pub struct Running {
    /// Which.
    pub id: OperationId,
    /// How it stands.
    pub status: OperationStatus,
}

/// What can be asked of an agent.
#[derive(Clone)]
pub enum Request {
    /// What is on the host, and what the asker knows of it.
    Observe(Box<tenantry_protocol::ObserveRequest>, Option<Arc<Observation>>),
    /// Where references point now.
    Resolve(Vec<String>),
    /// Take over what is there.
    Claim(Box<ClaimRequest>),
    /// Take the host as it is for the truth.
    Accept(Box<AcceptRequest>),
    /// Give it back.
    Release(ReleaseRequest),
    /// Begin.
    Operate(OperationId, Arc<OperateRequest>),
    /// How does it stand?
    Operation(OperationId, u64, u64),
}

/// What it answers.
#[derive(Clone)]
pub enum Response {
    /// Nothing has changed.
    Same,
    /// What was seen.
    Seen(Arc<Observation>),
    /// Where references point.
    Resolved(tenantry_protocol::ResolveResponse),
    /// Claimed.
    Claimed,
    /// Released.
    Released,
    /// How an operation stands.
    Status(OperationStatus),
}

impl Process {
    /// The step that a fault meets.
    pub fn step_name(&self) -> &'static str {
        match self.step {
            _ if !self.up && self.step.is_none() => "starting",
            None => "idle",
            Some(step) => name(step),
        }
    }

    /// The operation of a tenant that has not ended.
    pub fn in_flight(&self, uid: &TenantUid) -> Option<&Running> {
        self.running.get(uid).filter(|running| running.status.state == OperationState::Running)
    }
}

/// The word of a step.
pub fn name(step: Step) -> &'static str {
    // Debug names of a closed set: interned, so that they can be keys.
    static NAMES: std::sync::Mutex<BTreeSet<&'static str>> = std::sync::Mutex::new(BTreeSet::new());
    let text = format!("{step:?}");
    let mut names = NAMES.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    if let Some(known) = names.get(text.as_str()) {
        return known;
    }
    let leaked: &'static str = Box::leak(text.into_boxed_str());
    names.insert(leaked);
    leaked
}

/// A refusal.
pub fn refused(code: ErrorCode, message: impl Into<String>) -> ApiError {
    ApiError { code, field: None, message: message.into() }
}

/// A pause of the agent between two effects: where it may be killed.
pub async fn tick(shared: &Shared, most: u64) {
    let (dies, pause) = {
        let mut world = shared.world();
        (dies(&mut world), world.rng.u64(0..=most))
    };
    if dies {
        die().await;
    }
    sleep(shared, pause).await;
}

/// Whether the agent is killed now. It is asked at each effect of its own, and of a compose that it waits for.
pub fn dies(world: &mut World) -> bool {
    world.agent.ticks += 1;
    let due = world.scenario.rates.agent_kills.get(world.agent.deaths).copied();
    let dies = world.faulty && due.is_some_and(|due| world.agent.ticks >= due);
    if dies {
        world.agent.deaths += 1;
        let cut = world.scenario.rates.power_cut;
        let cut = world.chance(cut);
        crash(world, cut);
    }
    dies
}

/// The agent's process ends now; with the machine, where its power is cut.
pub fn crash(world: &mut World, power_cut: bool) {
    world.count(if power_cut { Fault::PowerCut } else { Fault::AgentKilled });
    world.crashed();
    let (whole, torn) = world.host.store.crash(&mut world.rng);
    if torn {
        world.count(Fault::TornRecord);
    }
    for (id, record) in whole {
        world.recorded(&id, &record);
    }
    world.queue.kill(Owner::Agent);
    world.agent.up = false;
    world.agent.ticks = 0;
    world.agent.step = None;
    world.agent.running.clear();
    world.agent.locked.clear();
    world.net_reset();
    let outlives = world.scenario.rates.outlives;
    let of_agent = world.host.child.is_some();
    if power_cut {
        world.queue.kill(Owner::Child);
        world.host.child = None;
        if let Some(by_hand) = world.host.by_hand.take() {
            world.queue.abort(by_hand);
        }
        world.host.disk.power_cut(&mut world.rng);
        let now = world.now();
        world.host.engine.reboot(now);
    } else if of_agent {
        if world.chance(outlives) {
            world.count(Fault::ComposeOutlived);
        } else {
            world.queue.kill(Owner::Child);
            world.host.child = None;
        }
    }
    // Whoever looks after the agent starts it again soon; a machine takes longer.
    let soon = !power_cut && world.rng.bool();
    let down = world.rng.u64(200..if soon { 1_500 } else { 15_000 });
    if let Some(shared) = world.shared.clone() {
        world.after(down, move |world| {
            world.spawn(Owner::Agent, begin(shared));
        });
    }
}

/// The agent is started: what was in flight is taken up again before it answers.
pub async fn begin(shared: Shared) {
    {
        let mut world = shared.world();
        world.agent.incarnation += 1;
        let incarnation = world.agent.incarnation;
        world.say(|_| format!("agent {incarnation} starts"));
    }
    tick(&shared, 50).await;
    let tenants: BTreeSet<TenantUid> =
        shared.world().host.store.journals.keys().map(|(uid, _)| uid.clone()).collect();
    for uid in tenants {
        take_up(&shared, uid).await;
    }
    let mut world = shared.world();
    world.agent.up = true;
    world.recovered();
}

async fn take_up(shared: &Shared, uid: TenantUid) {
    let found = {
        let world = shared.world();
        let id = world.host.store.operations(&uid).pop();
        id.and_then(|id| {
            let journal = world.host.store.journals.get(&(uid.clone(), id.clone()))?;
            let state = JournalState::fold(&journal.records);
            let open = !journal.records.is_empty() && state.outcome().is_none();
            open.then(|| (id, state, journal.request.clone()))
        })
    };
    let Some((id, mut state, request)) = found else { return };
    let Some(request) = request else {
        return shared.world().broken("P3", format!("the request of {id} is gone while it is in flight"));
    };
    reap(shared).await;
    tick(shared, 20).await;
    shared.world().agent.locked.insert(uid.clone());
    let mut log = JournalLog::new(shared, &uid, &id);
    let at = shared.world().timestamp();
    let record = Record::Resumed { at };
    if log.write(&record).await.is_err() {
        shared.world().agent.locked.remove(&uid);
        return take_up_later(shared, uid);
    }
    state.take(&record);
    shared.world().say(|_| format!("{id} is taken up at {:?}", state.current()));
    run(shared, uid, id, request, state);
}

/// What a disk that fails keeps from being taken up is tried again.
fn take_up_later(shared: &Shared, uid: TenantUid) {
    let again = shared.clone();
    shared.world().spawn(Owner::Agent, async move {
        sleep(&again, BUSY_AGAIN).await;
        let busy = again.world().agent.locked.contains(&uid);
        if !busy {
            take_up(&again, uid).await;
        }
    });
}

/// The operation that began and has not ended, by a tenant's journals.
fn in_journal(world: &World, uid: &TenantUid) -> Option<OperationId> {
    let id = world.host.store.operations(uid).pop()?;
    let journal = world.host.store.journals.get(&(uid.clone(), id.clone()))?;
    let open = !journal.records.is_empty() && JournalState::fold(&journal.records).outcome().is_none();
    open.then_some(id)
}

fn busy_with(id: &OperationId) -> ApiError {
    refused(ErrorCode::Busy, format!("operation {id} is in flight"))
}

/// A compose process that outlived an agent is ended before anything else runs.
async fn reap(shared: &Shared) {
    if tenantry_faults::Bug::LeaveTheChild.is_seeded() {
        return;
    }
    let child = shared.world().host.child.clone();
    if let Some(child) = child {
        tick(shared, 20).await;
        let mut world = shared.world();
        world.queue.abort(child.task);
        world.host.child = None;
        world.say(|_| "a compose process of an earlier agent is ended".to_owned());
    }
}

/// Answers a request.
pub async fn answer(shared: &Shared, request: Request) -> Result<Response, ApiError> {
    tick(shared, 5).await;
    match request {
        Request::Observe(request, known) => {
            let mut world = shared.world();
            let engine = world.scenario.rates.engine;
            if world.chance(engine) {
                world.count(Fault::EngineFault);
                return Err(refused(ErrorCode::HostFault, "Docker does not answer"));
            }
            let seen = observation(&mut world, &request)?;
            if known.as_deref() == Some(&seen) {
                return Ok(Response::Same);
            }
            Ok(Response::Seen(Arc::new(seen)))
        }
        Request::Resolve(references) => Ok(Response::Resolved(resolve(&mut shared.world(), references))),
        Request::Claim(request) => claim(shared, *request).await.map(|()| Response::Claimed),
        Request::Accept(request) => accept(shared, *request).await.map(|()| Response::Claimed),
        Request::Release(request) => release(shared, request).await.map(|()| Response::Released),
        Request::Operate(id, request) => operate(shared, id, request).await.map(Response::Status),
        Request::Operation(id, after, wait) => wait_for(shared, id, after, wait).await.map(Response::Status),
    }
}

fn resolve(world: &mut World, references: Vec<String>) -> tenantry_protocol::ResolveResponse {
    let rate = world.scenario.rates.registry;
    let references = references
        .into_iter()
        .map(|reference| {
            let down = world.chance(rate);
            let digest = world.host.engine.registry.get(&reference).cloned().filter(|_| !down);
            let problem = digest.is_none().then(|| "the registry does not answer".to_owned());
            let digest = digest.map(|image| digest_of(&image));
            tenantry_protocol::ResolvedReference { reference, digest, problem }
        })
        .collect();
    tenantry_protocol::ResolveResponse { references }
}

/// The registry's digest of an image.
pub fn digest_of(image: &str) -> String {
    format!("sha256:{}", crate::releases::Blob::new(image).sha256)
}

fn not_busy(world: &World, uid: &TenantUid, unless: Option<&OperationId>) -> Result<(), ApiError> {
    match world.agent.in_flight(uid).filter(|running| Some(&running.id) != unless) {
        Some(running) => Err(busy_with(&running.id)),
        None => Ok(()),
    }
}

/// Takes the tenant's lock.
fn lock(world: &mut World, uid: &TenantUid) -> Result<(), ApiError> {
    let held = world.host.child.as_ref().is_some_and(|child| child.operation.0 == *uid);
    if held || !world.agent.locked.insert(uid.clone()) {
        return Err(refused(ErrorCode::Busy, "another operation of this tenant is under way"));
    }
    Ok(())
}

async fn claim(shared: &Shared, request: ClaimRequest) -> Result<(), ApiError> {
    let uid = request.tenant.uid.clone();
    {
        let mut world = shared.world();
        not_busy(&world, &uid, None)?;
        lock(&mut world, &uid)?;
    }
    let result = claim_locked(shared, &request).await;
    shared.world().agent.locked.remove(&uid);
    result
}

async fn claim_locked(shared: &Shared, request: &ClaimRequest) -> Result<(), ApiError> {
    let uid = &request.tenant.uid;
    if request.take_over {
        return take_over(shared, request).await;
    }
    let mut baseline = shared.world().host.store.baselines.get(uid).cloned().unwrap_or_default();
    for file in &request.manifest.files {
        let world = shared.world();
        let seen = world.host.disk.files.get(file.path.as_str());
        let Some(seen) = seen.filter(|seen| seen.sha256 == file.sha256) else {
            return Err(refused(ErrorCode::Invalid, format!("{} is no longer as it was seen", file.path)));
        };
        let written = tenantry_agent::store::Written { sha256: seen.sha256.clone(), mode: 0o644 };
        baseline.files.insert(file.path.clone(), written);
    }
    let wanted = wanted(request);
    let admitted = tenantry_agent::store::admit(&shared.world().host.store.held, &wanted);
    admitted.map_err(|error| tenantry_agent::host::claim_refused(&error))?;
    baseline.target_hash.get_or_insert_with(|| "adopted".to_owned());
    tick(shared, 3).await;
    shared.world().host.store.baselines.insert(uid.clone(), baseline);
    admit(shared, &wanted).await
}

fn wanted(request: &ClaimRequest) -> ClaimWanted {
    ClaimWanted {
        tenant: request.tenant.clone(),
        operator: "operator".to_owned(),
        place: request.place.clone(),
        epoch: request.epoch,
        operation: None,
        take_over: request.take_over,
    }
}

/// Takes a place from whoever holds it, once nothing of theirs is in flight.
async fn take_over(shared: &Shared, request: &ClaimRequest) -> Result<(), ApiError> {
    let others: Vec<TenantUid> = {
        let world = shared.world();
        let held = world.host.store.held.others(&request.tenant.uid, &request.place);
        held.map(|(claim, _)| claim.uid.clone()).collect()
    };
    let mut locked = Vec::new();
    let mut result = Ok(());
    for uid in &others {
        let mut world = shared.world();
        result = not_busy(&world, uid, None).and_then(|()| lock(&mut world, uid));
        if result.is_err() {
            break;
        }
        locked.push(uid.clone());
        if let Some(open) = in_journal(&world, uid) {
            result = Err(busy_with(&open));
            break;
        }
    }
    if result.is_ok() {
        result = admit(shared, &wanted(request)).await;
    }
    for uid in locked {
        shared.world().agent.locked.remove(&uid);
    }
    result
}

/// The shipped rule of claims over the made-up records.
async fn admit(shared: &Shared, wanted: &ClaimWanted) -> Result<(), ApiError> {
    let admitted = tenantry_agent::store::admit(&shared.world().host.store.held, wanted);
    let admitted = admitted.map_err(|error| tenantry_agent::host::claim_refused(&error))?;
    // Others' claims are released before ours is written: each is durable by itself.
    for claim in admitted.taken.into_iter().chain([admitted.claim]) {
        tick(shared, 3).await;
        let mut world = shared.world();
        world.admitted(&claim);
        world.host.store.held.claims.insert(claim.uid.clone(), claim);
    }
    tick(shared, 3).await;
    Ok(())
}

/// Takes the host's present state for the truth: what is on disk now is what was last written.
async fn accept(shared: &Shared, request: AcceptRequest) -> Result<(), ApiError> {
    let uid = request.tenant.uid.clone();
    {
        let mut world = shared.world();
        not_busy(&world, &uid, None)?;
        lock(&mut world, &uid)?;
    }
    let result = accept_locked(shared, &request).await;
    shared.world().agent.locked.remove(&uid);
    result
}

async fn accept_locked(shared: &Shared, request: &AcceptRequest) -> Result<(), ApiError> {
    let uid = &request.tenant.uid;
    let wanted = ClaimWanted {
        tenant: request.tenant.clone(),
        operator: "operator".to_owned(),
        place: request.place.clone(),
        epoch: request.epoch,
        operation: None,
        take_over: false,
    };
    let admitted = tenantry_agent::store::admit(&shared.world().host.store.held, &wanted);
    admitted.map_err(|error| tenantry_agent::host::claim_refused(&error))?;
    let old = shared.world().host.store.baselines.get(uid).cloned().unwrap_or_default();
    let mut files = BTreeMap::new();
    for path in request.manifest.files.iter().map(|file| &file.path).chain(old.files.keys()) {
        if let Some(seen) = shared.world().host.disk.files.get(path.as_str()).cloned() {
            let written = tenantry_agent::store::Written { sha256: seen.sha256, mode: 0o644 };
            files.insert(path.clone(), written);
        }
    }
    tick(shared, 3).await;
    let baseline = tenantry_agent::store::Baseline { target_hash: Some("accepted".to_owned()), files, ..old };
    shared.world().host.store.baselines.insert(uid.clone(), baseline);
    admit(shared, &wanted).await
}

async fn release(shared: &Shared, request: ReleaseRequest) -> Result<(), ApiError> {
    let uid = request.tenant.uid;
    {
        let mut world = shared.world();
        not_busy(&world, &uid, None)?;
        lock(&mut world, &uid)?;
        if let Some(open) = in_journal(&world, &uid) {
            world.agent.locked.remove(&uid);
            return Err(busy_with(&open));
        }
    }
    tick(shared, 3).await;
    shared.world().host.store.held.tombstones.insert(uid.clone());
    tick(shared, 3).await;
    let mut world = shared.world();
    if let Some(claim) = world.host.store.held.claims.get_mut(&uid) {
        claim.released = true;
    }
    world.released(&uid);
    world.agent.locked.remove(&uid);
    world.say(|_| format!("{uid} is released"));
    Ok(())
}

async fn operate(
    shared: &Shared,
    id: OperationId,
    request: Arc<OperateRequest>,
) -> Result<OperationStatus, ApiError> {
    validate(&request)?;
    let uid = request.tenant.uid.clone();
    {
        let mut world = shared.world();
        if let Some(known) = known(&world, &uid, &id, &request)? {
            return Ok(known);
        }
        not_busy(&world, &uid, Some(&id))?;
        lock(&mut world, &uid)?;
    }
    let state = match take_on(shared, &id, &request).await {
        Ok(state) => state,
        Err(error) => {
            shared.world().agent.locked.remove(&uid);
            left_by(shared, &uid, &error);
            return Err(error);
        }
    };
    let status = state.status(&id);
    shared.world().say(|_| format!("{id} (epoch {}) is accepted", request.epoch));
    run(shared, uid, id, request, state);
    Ok(status)
}

/// A disk that failed may have kept the first record whole all the same: then the operation was begun, and goes on.
fn left_by(shared: &Shared, uid: &TenantUid, error: &ApiError) {
    if error.code == ErrorCode::HostFault {
        take_up_later(shared, uid.clone());
    }
}

fn known(
    world: &World,
    uid: &TenantUid,
    id: &OperationId,
    request: &OperateRequest,
) -> Result<Option<OperationStatus>, ApiError> {
    let Some(journal) = world.host.store.journals.get(&(uid.clone(), id.clone())) else { return Ok(None) };
    if journal.records.is_empty() {
        return Ok(None);
    }
    if journal.asked != asked(request) {
        return Err(refused(ErrorCode::OperationMismatch, format!("{id} was begun with another body")));
    }
    let running = world.agent.running.get(uid).filter(|running| running.id == *id);
    let status =
        running.map_or_else(|| JournalState::fold(&journal.records).status(id), |one| one.status.clone());
    Ok(Some(status))
}

/// What stands for a hash over the request's text.
fn asked(request: &OperateRequest) -> String {
    format!("{} {} {:?} {:?}", request.epoch, request.target_hash, request.approach, request.action)
}

/// Claims the place and writes the journal's first record, each durable before the next.
async fn take_on(
    shared: &Shared,
    id: &OperationId,
    request: &Arc<OperateRequest>,
) -> Result<JournalState, ApiError> {
    let uid = &request.tenant.uid;
    if let Some(open) = in_journal(&shared.world(), uid).filter(|open| open != id) {
        return Err(busy_with(&open));
    }
    let wanted = ClaimWanted {
        tenant: request.tenant.clone(),
        operator: "operator".to_owned(),
        place: request.place.clone(),
        epoch: request.epoch,
        operation: Some(id.clone()),
        take_over: false,
    };
    admit(shared, &wanted).await?;
    {
        let mut world = shared.world();
        let all = world.host.store.journals.iter().filter(|((of, _), _)| of == uid);
        let number = all.map(|(_, journal)| journal.number + 1).max().unwrap_or(0);
        let key = (uid.clone(), id.clone());
        let fresh =
            Journal { number, request: Some(request.clone()), asked: asked(request), ..Journal::default() };
        world.host.store.journals.entry(key).or_insert(fresh);
    }
    tick(shared, 3).await;
    let mut log = JournalLog::new(shared, uid, id);
    let at = shared.world().timestamp();
    let record = Record::accepted(at, request);
    log.write(&record).await.map_err(|error| tenantry_agent::host::store_refused(&error))?;
    Ok(JournalState::fold([&record]))
}

/// Carries an operation out in a task of its own.
fn run(shared: &Shared, uid: TenantUid, id: OperationId, request: Arc<OperateRequest>, state: JournalState) {
    let mut world = shared.world();
    world.agent.running.insert(uid.clone(), Running { id: id.clone(), status: state.status(&id) });
    let work = carry_out(shared.clone(), uid, id, request, state);
    world.spawn(Owner::Agent, work);
}

async fn carry_out(
    shared: Shared,
    uid: TenantUid,
    id: OperationId,
    request: Arc<OperateRequest>,
    mut state: JournalState,
) {
    let effects = Operation::new(&shared, &uid, &id, &request);
    let mut pause = PAUSE;
    loop {
        let mut log = JournalLog::new(&shared, &uid, &id);
        let now = || shared.world().timestamp();
        let publish_unless_ended = |state: &JournalState| {
            let mut world = shared.world();
            world.agent.step = state.current();
            if state.outcome().is_none() {
                publish(&mut world, &uid, &id, state);
            }
        };
        if let Ok(ended) = drive(&effects, &mut log, state.clone(), now, publish_unless_ended).await {
            tick(&shared, 5).await;
            let mut world = shared.world();
            if let Some(journal) = world.host.store.journals.get_mut(&(uid.clone(), id.clone())) {
                journal.request = None;
            }
            world.agent.locked.remove(&uid);
            world.agent.step = None;
            publish(&mut world, &uid, &id, &ended);
            return;
        }
        sleep(&shared, pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
        let world = shared.world();
        if let Some(journal) = world.host.store.journals.get(&(uid.clone(), id.clone())) {
            state = JournalState::fold(&journal.records);
        }
    }
}

fn publish(world: &mut World, uid: &TenantUid, id: &OperationId, state: &JournalState) {
    let mut status = state.status(id);
    if let Some(running) = world.agent.running.get_mut(uid) {
        status.seq = status.seq.max(running.status.seq + 1);
        running.status = status;
    }
    world.notify(Topic::News);
}

async fn wait_for(
    shared: &Shared,
    id: OperationId,
    after: u64,
    wait: u64,
) -> Result<OperationStatus, ApiError> {
    let running = |world: &World| {
        world.agent.running.values().find(|running| running.id == id).map(|one| one.status.clone())
    };
    if running(&shared.world()).is_some() {
        let newer =
            until(shared, Topic::News, wait, |world| running(world).filter(|status| status.seq > after))
                .await;
        if let Some(status) = newer.or_else(|| running(&shared.world())) {
            return Ok(status);
        }
    }
    let world = shared.world();
    let recorded = world.host.store.journal_of(&id).filter(|(_, journal)| !journal.records.is_empty());
    recorded
        .map(|(_, journal)| JournalState::fold(&journal.records).status(&id))
        .ok_or_else(|| refused(ErrorCode::NotFound, format!("this host knows no operation {id}")))
}
