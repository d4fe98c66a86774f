//! An operator: the pass of `operator/src/tenants`, call for call, over the made-up API server and network.
//!
//! What is decided is the shipped `decide`; what is mirrored here is the order of reading, deciding, writing and asking
//! in `pass.rs`, `gather.rs`, `execute.rs`, `record.rs` and `follow.rs`. Not mirrored: rendering, metrics, events, and the
//! thinning of progress (every change of status is written, so more happens in between than in truth).

use std::sync::Arc;

use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::TenantStatus;
use tenantry_planner::decide::{
    Answer, Decision, Effect, Facts, Finalizer, Subject, Submission, Unreached, decide,
};
use tenantry_planner::target::{Desired, Refusal};
use tenantry_protocol::{
    ApiError, ErrorCode, Observation, ObserveRequest, OperationState, OperationStatus, ReleaseRequest,
    ResolveResponse, TenantRef,
};

use crate::agent::{Request, Response};
use crate::api::{self, ApiFault, NAME, Object};
use crate::net::{AgentError, call};
use crate::releases::Prepared;
use crate::sched::{Owner, Shared, TaskId, Topic, die, sleep, until};
use crate::world::{Fault, World};

const TURNS: usize = 5;
const CALL_WITHIN: u64 = 30_000;
const WAIT: u64 = 30_000;
const WAIT_SLACK: u64 = 10_000;
/// How many failed calls in a row are borne before the host counts as unreachable.
const BORNE: u32 = 3;
/// How long a lease holds.
pub const LEASE: u64 = 15_000;

/// What an operator's process remembers; all of it can be lost.
#[derive(Default)]
pub struct Memory {
    /// Whether it runs and believes itself the leader.
    pub leads: bool,
    /// The newest version that its watch has brought.
    pub watched: Option<Arc<Object>>,
    /// Its version.
    pub watched_version: u64,
    /// When the Tenant is to be looked at.
    pub due: Option<u64>,
    written: Option<Arc<Object>>,
    seen: Option<(String, Arc<Observation>)>,
    news: Option<(String, Result<OperationStatus, AgentError>)>,
    follower: Option<(String, TaskId)>,
    failures: u32,
}

impl Memory {
    /// Forgets everything, as a process that ends does; the watch lists again when it is started.
    pub fn lose(&mut self) {
        let (watched, watched_version) = (self.watched.take(), self.watched_version);
        *self = Self { watched, watched_version, ..Self::default() };
    }
}

enum Asked {
    NotAsked,
    Unreached(Unreached, String),
    Refused(ApiError),
    NotBegun(ApiError),
    Seen(Arc<Observation>),
    Unknown(Arc<Observation>),
    Followed(OperationStatus, Option<Arc<Observation>>),
}

impl Asked {
    fn as_answer(&self) -> Answer<'_> {
        match self {
            Self::NotAsked => Answer::NotAsked,
            Self::Unreached(why, text) => Answer::Unreached(*why, text),
            Self::Refused(error) => Answer::Refused(error),
            Self::NotBegun(error) => Answer::NotBegun(error),
            Self::Seen(observation) => Answer::Seen(observation),
            Self::Unknown(observation) => Answer::Unknown(observation),
            Self::Followed(status, observation) => Answer::Followed(status, observation.as_deref()),
        }
    }
}

impl From<AgentError> for Asked {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::Unreached(why, text) => Self::Unreached(why, text),
            AgentError::Refused(error) => Self::Refused(error),
        }
    }
}

struct Turn {
    tenant: Arc<Object>,
    fresh: bool,
    subject: Subject,
    desired: Result<Arc<Prepared>, Refusal>,
}

impl Turn {
    fn desired(&self) -> Result<&Desired, &Refusal> {
        self.desired.as_ref().map(|prepared| &prepared.desired)
    }
}

enum Ending {
    Done(u64),
    Gone,
    Decide(Asked),
    Resolved(ResolveResponse),
}

enum TurnEnd {
    Done(u64),
    Gone,
    Anew(Arc<Object>),
}

struct Operator {
    shared: Shared,
    number: usize,
}

/// An operator leads from now on: it looks at the Tenant whenever it is due.
pub async fn lead(shared: Shared, number: usize) {
    {
        let mut world = shared.world();
        world.operators[number].leads = true;
        let now = world.now();
        world.operators[number].due = Some(now);
        // A new leader lists first.
        let (newest, version) = (world.api.tenant.clone(), world.api.newest());
        world.operators[number].watched = newest;
        world.operators[number].watched_version = version;
        world.say(|_| format!("operator {number} leads"));
        let settling = settle_owed(shared.clone(), number);
        world.spawn(Owner::Operator(number), settling);
    }
    let operator = Operator { shared: shared.clone(), number };
    loop {
        until(&shared, Topic::Queue(number), 600_000, |world| due(world, number)).await;
        tick(&shared, number).await;
        match operator.pass().await {
            Ok(again) => {
                let mut world = shared.world();
                world.operators[number].failures = 0;
                if let Some(again) = again {
                    remind(&mut world, number, again);
                }
            }
            Err(fault) => {
                let mut world = shared.world();
                let memory = &mut world.operators[number];
                memory.failures = (memory.failures + 1).min(10);
                let wait = (250 << memory.failures).min(60_000);
                world.say(|_| format!("operator {number}: in vain ({fault:?})"));
                remind(&mut world, number, wait);
            }
        }
    }
}

fn due(world: &mut World, number: usize) -> Option<()> {
    let now = world.now();
    let memory = &mut world.operators[number];
    memory.due.filter(|due| *due <= now)?;
    memory.due = None;
    Some(())
}

/// The Tenant is to be looked at again, at the latest then.
fn remind(world: &mut World, number: usize, wait: u64) {
    let at = world.now() + wait;
    let memory = &mut world.operators[number];
    memory.due = Some(memory.due.map_or(at, |due| due.min(at)));
    world.after(wait, move |world| world.notify(Topic::Queue(number)));
}

/// A pause of an operator: where it may be killed, or stopped for longer than its lease.
async fn tick(shared: &Shared, number: usize) {
    let dies = {
        let mut world = shared.world();
        let rates = world.scenario.rates.clone();
        if world.chance(rates.operator_pause) {
            pause(&mut world, number);
        }
        let dies = world.chance(rates.operator_kill);
        if dies {
            world.count(Fault::OperatorKilled);
            end(&mut world, number);
        }
        dies
    };
    if dies {
        die().await;
    }
    sleep(shared, 1).await;
}

/// An operator's process ends; another leads once the lease is over.
fn end(world: &mut World, number: usize) {
    world.queue.kill(Owner::Operator(number));
    world.operators[number].lose();
    let after = world.rng.u64(500..LEASE);
    let other = if world.rng.bool() { number } else { 1 - number };
    let Some(shared) = world.shared.clone() else { return };
    world.after(after, move |world| {
        if !world.operators.iter().any(|operator| operator.leads) {
            world.operators[other].leads = true;
            world.spawn(Owner::Operator(other), lead(shared, other));
        }
    });
}

/// A leader is stopped past its lease and revived. Until it notices that it was deposed, two act.
fn pause(world: &mut World, number: usize) {
    world.count(Fault::OperatorPaused);
    let other = 1 - number;
    let until = world.now() + LEASE + world.rng.u64(0..60_000);
    world.queue.pause(Owner::Operator(number), until);
    let Some(shared) = world.shared.clone() else { return };
    let takes_over = world.rng.u64(500..LEASE);
    world.after(takes_over, move |world| {
        if !world.operators[other].leads {
            world.count(Fault::TwoLeaders);
            world.ghost.two_leaders = true;
            world.operators[other].leads = true;
            world.spawn(Owner::Operator(other), lead(shared, other));
        }
    });
    let notices = until - world.now() + world.rng.u64(0..40_000);
    world.after(notices, move |world| {
        if world.operators[other].leads && world.operators[number].leads {
            world.say(|_| format!("operator {number} notices that it was deposed"));
            world.queue.kill(Owner::Operator(number));
            world.operators[number].lose();
        }
    });
}

/// What is owed to the host is released whenever it answers.
async fn settle_owed(shared: Shared, number: usize) {
    loop {
        sleep(&shared, 30_000).await;
        let owed = shared.world().api.owed.first().cloned();
        let Some(tenant) = owed.and_then(|uid| reference(&uid)) else { continue };
        let answer =
            call(&shared, number, Request::Release(ReleaseRequest { tenant: tenant.clone() }), CALL_WITHIN)
                .await;
        let over = match answer {
            Ok(_) => true,
            Err(AgentError::Refused(error)) => error.code != ErrorCode::Busy,
            Err(AgentError::Unreached(..)) => false,
        };
        if over {
            shared.world().api.owed.remove(tenant.uid.as_str());
        }
    }
}

fn reference(uid: &str) -> Option<TenantRef> {
    let uid = tenantry_api::names::TenantUid::parse(uid).ok()?;
    Some(TenantRef { uid, namespace: "fleet".to_owned(), name: NAME.to_owned() })
}

impl Operator {
    fn memory<T>(&self, with: impl FnOnce(&mut Memory) -> T) -> T {
        with(&mut self.shared.world().operators[self.number])
    }

    async fn pass(&self) -> Result<Option<u64>, ApiFault> {
        let mut tenant = self.latest();
        let mut fresh = false;
        for _ in 0..TURNS {
            let Some(present) = tenant.take() else {
                self.memory(forget);
                return Ok(None);
            };
            match self.turn(present, fresh).await {
                Ok(TurnEnd::Done(wait)) => return Ok(Some(wait)),
                Ok(TurnEnd::Gone) => {
                    self.memory(forget);
                    return Ok(None);
                }
                Ok(TurnEnd::Anew(newer)) => tenant = Some(newer),
                Err(ApiFault::Conflict) => tenant = self.fetch().await?,
                Err(fault) => return Err(fault),
            }
            fresh = true;
        }
        Err(ApiFault::Conflict)
    }

    async fn fetch(&self) -> Result<Option<Arc<Object>>, ApiFault> {
        tick(&self.shared, self.number).await;
        api::get(&self.shared, self.number).await
    }

    /// The newest version that is known without asking.
    fn latest(&self) -> Option<Arc<Object>> {
        self.memory(|memory| match (memory.watched.clone(), memory.written.clone()) {
            (Some(watched), Some(written))
                if watched.uid == written.uid && written.version > watched.version =>
            {
                Some(written)
            }
            (watched, _) => {
                memory.written = None;
                watched
            }
        })
    }

    async fn turn(&self, tenant: Arc<Object>, fresh: bool) -> Result<TurnEnd, ApiFault> {
        let desired = self.shared.world().prepare(&tenant);
        let mut turn = Turn { subject: subject(&tenant), tenant, fresh, desired };
        self.welcome(&mut turn).await?;
        let known = turn.tenant.status.observed_generation;
        if !turn.fresh && known != Some(turn.subject.generation) {
            match self.fetch().await? {
                None => return Ok(TurnEnd::Gone),
                Some(newest) if newest.version != turn.tenant.version => return Ok(TurnEnd::Anew(newest)),
                Some(_) => turn.fresh = true,
            }
        }
        let mut asked = self.ask(&turn).await;
        let mut resolved = None;
        for _ in 0..TURNS {
            let decision = self.decided(&turn, &asked, resolved.as_ref());
            if needs_fresh(&decision) && !turn.fresh {
                let Some(newest) = self.fetch().await? else { return Ok(TurnEnd::Gone) };
                if newest.version != turn.tenant.version {
                    self.shared.world().count(Fault::StaleRead);
                    return Ok(TurnEnd::Anew(newest));
                }
                turn.fresh = true;
            }
            match self.execute(&mut turn, decision).await? {
                Ending::Done(wait) => return Ok(TurnEnd::Done(wait)),
                Ending::Gone => return Ok(TurnEnd::Gone),
                Ending::Decide(answer) => asked = answer,
                Ending::Resolved(answer) => resolved = Some(answer),
            }
        }
        Err(ApiFault::Conflict)
    }

    fn decided(&self, turn: &Turn, asked: &Asked, resolved: Option<&ResolveResponse>) -> Decision {
        let now = self.shared.world().timestamp();
        decide(&Facts {
            subject: &turn.subject,
            desired: turn.desired(),
            back: None,
            answer: asked.as_answer(),
            resolved,
            status: &turn.tenant.status,
            now,
        })
    }

    /// Gives a new Tenant its conditions before the host is asked.
    async fn welcome(&self, turn: &mut Turn) -> Result<(), ApiFault> {
        let known = turn.tenant.status.phase.is_some();
        if known || turn.subject.deleted_at.is_some() || turn.desired.is_err() {
            return Ok(());
        }
        let decision = self.decided(turn, &Asked::NotAsked, None);
        self.record(turn, &decision).await
    }

    async fn ask(&self, turn: &Turn) -> Asked {
        let in_flight = turn.tenant.status.upgrade.as_ref().filter(|upgrade| upgrade.outcome.is_none());
        match in_flight.map(|upgrade| upgrade.id.clone()) {
            Some(id) => self.ask_about(turn, &id).await,
            None if turn.subject.deleted_at.is_some() || turn.subject.suspend => Asked::NotAsked,
            None => match turn.desired() {
                Ok(desired) => match self.observe(desired).await {
                    Ok(observation) => Asked::Seen(observation),
                    Err(error) => error.into(),
                },
                Err(_) => Asked::NotAsked,
            },
        }
    }

    async fn ask_about(&self, turn: &Turn, id: &str) -> Asked {
        let status = match self.known_news(id) {
            Some(status) => status,
            None => match OperationId::parse(id) {
                Ok(id) => self.operation(&id, 0, 0).await,
                Err(_) => return Asked::NotAsked,
            },
        };
        match status {
            Ok(status) => {
                let ended = matches!(status.state, OperationState::Ended { .. });
                let observation = match (turn.desired(), ended && turn.subject.deleted_at.is_none()) {
                    (Ok(desired), true) => self.observe(desired).await.ok(),
                    _ => None,
                };
                Asked::Followed(status, observation)
            }
            Err(AgentError::Refused(error)) if error.code == ErrorCode::NotFound => match turn.desired() {
                Ok(desired) => match self.observe(desired).await {
                    Ok(observation) => Asked::Unknown(observation),
                    Err(error) => error.into(),
                },
                Err(_) => Asked::NotBegun(error),
            },
            Err(error) => error.into(),
        }
    }

    fn known_news(&self, id: &str) -> Option<Result<OperationStatus, AgentError>> {
        let world = self.shared.world();
        let memory = &world.operators[self.number];
        let (_, status) = memory.news.clone().filter(|(of, _)| of == id)?;
        let follower = memory.follower.as_ref();
        let listens = follower.is_some_and(|(of, task)| of == id && !world.queue.ended(*task));
        (status.is_ok() || listens).then_some(status)
    }

    async fn operation(
        &self,
        id: &OperationId,
        after: u64,
        wait: u64,
    ) -> Result<OperationStatus, AgentError> {
        let request = Request::Operation(id.clone(), after, wait);
        match call(&self.shared, self.number, request, wait + WAIT_SLACK).await? {
            Response::Status(status) => Ok(status),
            _ => Err(strange()),
        }
    }

    async fn observe(&self, desired: &Desired) -> Result<Arc<Observation>, AgentError> {
        let of = desired.base_hash.clone();
        let seen = self.memory(|memory| memory.seen.clone()).filter(|(known, _)| *known == of);
        let request = ObserveRequest {
            tenant: desired.intent.tenant.clone(),
            place: desired.intent.place.clone(),
            manifest: desired.manifest.clone(),
            known: None,
        };
        let known = seen.map(|(_, observation)| observation);
        let request = Request::Observe(Box::new(request), known.clone());
        tick(&self.shared, self.number).await;
        match (call(&self.shared, self.number, request, CALL_WITHIN).await?, known) {
            (Response::Same, Some(known)) => Ok(known),
            (Response::Seen(observation), _) => {
                self.memory(|memory| memory.seen = Some((of, observation.clone())));
                Ok(observation)
            }
            _ => Err(strange()),
        }
    }

    async fn execute(&self, turn: &mut Turn, decision: Decision) -> Result<Ending, ApiFault> {
        self.hold(turn, &decision).await?;
        if let Some(ending) = self.before_writing(turn, &decision).await {
            return Ok(ending);
        }
        if matches!(decision.finalizer, Finalizer::Remove | Finalizer::Abandon) {
            return self.let_go(turn, &decision).await;
        }
        self.record(turn, &decision).await?;
        let requeue = u64::try_from(decision.requeue.as_millis()).unwrap_or(60_000);
        match &decision.effect {
            Some(Effect::Submit(submission)) => Ok(self.submit(turn, submission, requeue).await),
            Some(Effect::Follow { id, after }) => {
                self.follow(id.clone(), *after);
                Ok(Ending::Done(requeue))
            }
            _ => {
                self.memory(|memory| memory.news = None);
                self.stop_following();
                Ok(Ending::Done(requeue))
            }
        }
    }

    async fn before_writing(&self, turn: &Turn, decision: &Decision) -> Option<Ending> {
        let request = match &decision.effect {
            Some(Effect::Claim(request)) => Request::Claim(request.clone()),
            Some(Effect::Accept(request)) => Request::Accept(request.clone()),
            Some(Effect::Release) => {
                let tenant = reference(turn.tenant.uid.as_str())?;
                Request::Release(ReleaseRequest { tenant })
            }
            Some(Effect::Resolve { references }) => Request::Resolve(references.clone()),
            _ => return None,
        };
        tick(&self.shared, self.number).await;
        match call(&self.shared, self.number, request, CALL_WITHIN).await {
            Ok(Response::Resolved(answer)) => Some(Ending::Resolved(answer)),
            Ok(_) => {
                self.memory(|memory| memory.seen = None);
                None
            }
            Err(error) => Some(Ending::Decide(error.into())),
        }
    }

    /// Takes the finalizer off: the object goes.
    async fn let_go(&self, turn: &mut Turn, decision: &Decision) -> Result<Ending, ApiFault> {
        if decision.finalizer == Finalizer::Abandon
            && let Some(tenant) = reference(turn.tenant.uid.as_str())
        {
            api::owe(&self.shared, self.number, &tenant).await?;
        }
        tick(&self.shared, self.number).await;
        match api::write(&self.shared, self.number, &turn.tenant, |tenant| tenant.finalizer = false).await {
            Ok(_) | Err(ApiFault::Gone) => Ok(Ending::Gone),
            Err(fault) => Err(fault),
        }
    }

    async fn hold(&self, turn: &mut Turn, decision: &Decision) -> Result<(), ApiFault> {
        if decision.finalizer == Finalizer::Add && !turn.subject.finalizer {
            self.write(turn, |tenant| tenant.finalizer = true).await?;
        }
        Ok(())
    }

    async fn record(&self, turn: &mut Turn, decision: &Decision) -> Result<(), ApiFault> {
        self.hold(turn, decision).await?;
        if *turn.tenant.status == decision.status {
            return Ok(());
        }
        let status: Arc<TenantStatus> = Arc::new(decision.status.clone());
        self.write(turn, |tenant| tenant.status = status).await
    }

    async fn write(&self, turn: &mut Turn, change: impl FnOnce(&mut Object)) -> Result<(), ApiFault> {
        tick(&self.shared, self.number).await;
        let written = api::write(&self.shared, self.number, &turn.tenant, change).await?;
        self.memory(|memory| memory.written = Some(written.clone()));
        turn.subject = subject(&written);
        turn.tenant = written;
        turn.fresh = true;
        Ok(())
    }

    async fn submit(&self, turn: &Turn, submission: &Submission, requeue: u64) -> Ending {
        let Ok(prepared) = &turn.desired else { return Ending::Done(requeue) };
        let request = submission.request(prepared.contents.clone());
        tick(&self.shared, self.number).await;
        let request = Request::Operate(submission.id.clone(), Arc::new(request));
        match call(&self.shared, self.number, request, CALL_WITHIN).await {
            Ok(Response::Status(status)) => {
                let ended = matches!(status.state, OperationState::Ended { .. });
                let seq = status.seq;
                self.memory(|memory| memory.news = Some((submission.id.to_string(), Ok(status))));
                self.follow(submission.id.clone(), seq);
                Ending::Done(if ended { 0 } else { requeue })
            }
            Ok(_) => Ending::Decide(strange().into()),
            Err(AgentError::Refused(error)) => Ending::Decide(Asked::NotBegun(error)),
            Err(error) => Ending::Decide(error.into()),
        }
    }

    fn follow(&self, id: OperationId, after: u64) {
        let world = self.shared.world();
        let known = world.operators[self.number].follower.clone();
        if known.is_some_and(|(of, task)| of == id.as_str() && !world.queue.ended(task)) {
            return;
        }
        drop(world);
        self.stop_following();
        let mut world = self.shared.world();
        let follower = Operator { shared: self.shared.clone(), number: self.number };
        let of = id.to_string();
        let task = world.spawn(Owner::Operator(self.number), async move { follower.listen(id, after).await });
        world.operators[self.number].follower = Some((of, task));
    }

    fn stop_following(&self) {
        let mut world = self.shared.world();
        if let Some((_, task)) = world.operators[self.number].follower.take() {
            world.queue.abort(task);
        }
    }

    /// Waits for news of an operation until it has ended.
    async fn listen(&self, id: OperationId, mut after: u64) {
        let mut failures = 0_u32;
        loop {
            match self.operation(&id, after, WAIT).await {
                Ok(status) => {
                    let recovered = failures > BORNE;
                    failures = 0;
                    let ended = matches!(status.state, OperationState::Ended { .. });
                    if status.seq > after || ended || recovered {
                        after = after.max(status.seq);
                        self.tell(&id, Ok(status));
                    }
                    if ended {
                        return;
                    }
                }
                Err(AgentError::Refused(error)) if error.code == ErrorCode::NotFound => {
                    return self.tell(&id, Err(AgentError::Refused(error)));
                }
                Err(error) => {
                    failures += 1;
                    if failures > BORNE {
                        self.tell(&id, Err(error));
                    }
                    sleep(&self.shared, (200 << failures.min(8)).min(10_000)).await;
                }
            }
        }
    }

    fn tell(&self, id: &OperationId, status: Result<OperationStatus, AgentError>) {
        let mut world = self.shared.world();
        world.operators[self.number].news = Some((id.to_string(), status));
        remind(&mut world, self.number, 0);
    }
}

fn forget(memory: &mut Memory) {
    memory.written = None;
    memory.seen = None;
    memory.news = None;
}

fn strange() -> AgentError {
    AgentError::Unreached(Unreached::BadAnswer, "the agent answered something else".to_owned())
}

/// Whatever changes something on a host, or lets go of it, is done only on what was read just now (P5).
fn needs_fresh(decision: &Decision) -> bool {
    let lets_go = matches!(decision.finalizer, Finalizer::Remove | Finalizer::Abandon);
    let changes = decision.effect.as_ref().is_some_and(Effect::changes_host);
    lets_go || changes
}

fn subject(tenant: &Object) -> Subject {
    let annotation = |name: &str| tenant.annotations.get(name).filter(|value| !value.is_empty()).cloned();
    Subject {
        uid: tenant.uid.to_string(),
        generation: tenant.generation,
        deleted_at: tenant.deleted_at,
        finalizer: tenant.finalizer,
        suspend: tenant.spec.suspend,
        host: "n5".to_owned(),
        image_tag: format!("v{}", tenant.spec.release),
        reconcile: annotation(tenantry_api::annotations::RECONCILE),
        retry: annotation(tenantry_api::annotations::RETRY),
        rollback_to: annotation(tenantry_api::annotations::ROLLBACK_TO),
        accept_host: annotation(tenantry_api::annotations::ACCEPT_HOST),
        claim: annotation(tenantry_api::annotations::CLAIM),
        orphan: annotation(tenantry_api::annotations::ORPHAN).is_some(),
        ..Subject::default()
    }
}
