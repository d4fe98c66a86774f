//! The agent's process: how it is started, what it is asked, and how it dies. What runs in it is the shipped agent.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tenantry_agent::calls::Agent;
use tenantry_agent::config::Config;
use tenantry_agent::files::DiskIo;
use tenantry_agent::host::Machine;
use tenantry_agent::limits::Limits;
use tenantry_agent::store::StrayProcesses;
use tenantry_api::names::{Identity, OperationId};
use tenantry_planner::steps::Step;
use tenantry_protocol::{
    AcceptRequest, ApiError, ClaimRequest, ClaimResponse, ObserveRequest, ObserveResponse, OperateRequest,
    OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
};

use crate::compose::{self, ComposeLauncher};
use crate::disk::EffectHook;
use crate::engine::EngineClient;
use crate::runtime::VirtualRuntime;
use crate::scheduler::{Owner, Shared, die, sleep};
use crate::world::{Fault, World};

/// How soon an agent that could not be started is started again.
const START_AGAIN: u64 = 5_000;

/// What the agent's process is to the world.
#[derive(Default)]
pub struct Process {
    /// Whether it answers.
    pub up: bool,
    /// Rises with every start.
    pub incarnation: u64,
    /// Whether the process runs.
    alive: bool,
    agent: Option<Arc<Agent>>,
    /// The step that is performed.
    pub step: Option<Step>,
    ticks: u64,
    deaths: usize,
}

/// What a killed process unwinds with.
pub struct Killed;

/// What can be asked of an agent.
#[derive(Clone)]
pub enum Request {
    /// What is on the host.
    Observe(Box<ObserveRequest>),
    /// Where references point now.
    Resolve(ResolveRequest),
    /// Take over what is there.
    Claim(Box<ClaimRequest>),
    /// Take the host as it is for the truth.
    Accept(Box<AcceptRequest>),
    /// Give it back.
    Release(ReleaseRequest),
    /// Begin.
    Operate(OperationId, Box<OperateRequest>),
    /// How does it stand?
    Operation(OperationId, u64, Duration),
}

/// What it answers.
#[derive(Clone)]
pub enum Response {
    /// What was seen.
    Observed(ObserveResponse),
    /// Where references point.
    Resolved(ResolveResponse),
    /// Claimed.
    Claimed(ClaimResponse),
    /// Released.
    Released,
    /// How an operation stands.
    Status(OperationStatus),
}

impl Process {
    /// Whether the process of this number runs.
    pub fn is_alive(&self, incarnation: u64) -> bool {
        self.alive && self.incarnation == incarnation
    }

    /// The step that a fault meets.
    pub fn step_name(&self) -> &'static str {
        match self.step {
            _ if !self.up && self.step.is_none() => "starting",
            None => "idle",
            Some(step) => name(step),
        }
    }

    /// The run is over: whatever the process held is dropped by whoever calls this.
    pub fn take(&mut self) -> Option<Arc<Agent>> {
        self.alive = false;
        self.agent.take()
    }
}

/// The word of a step.
fn name(step: Step) -> &'static str {
    // Debug names of a closed set: interned, so that they can be keys.
    static NAMES: Mutex<BTreeSet<&'static str>> = Mutex::new(BTreeSet::new());
    let text = format!("{step:?}");
    let mut names = NAMES.lock();
    if let Some(known) = names.get(text.as_str()) {
        return known;
    }
    let leaked: &'static str = Box::leak(text.into_boxed_str());
    names.insert(leaked);
    leaked
}

/// A pause of the agent at a call to its engine: where it may be killed.
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

/// Whether the agent is killed now, or was. It is asked at each effect of its own, at each call to its engine, and while it
/// waits for compose.
pub fn dies(world: &mut World) -> bool {
    if !world.agent.alive {
        // Of two calls that a process made at once, the second: who is dead is not killed again, nor started twice.
        return true;
    }
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
    world.queue.kill(Owner::Agent);
    world.agent.up = false;
    world.agent.ticks = 0;
    world.agent.step = None;
    drop(world.agent.take());
    world.net_reset();
    let outlives = world.scenario.rates.outlives;
    if power_cut {
        world.queue.kill(Owner::Child);
        world.host.child = None;
        if let Some(by_hand) = world.host.by_hand.take() {
            world.queue.abort(by_hand);
        }
        let World { host, rng, .. } = world;
        host.disk.power_cut(rng);
        // What was recorded was recorded of containers as they were.
        world.power_was_cut();
        let now = world.now();
        if world.host.engine.ailing.is_some() {
            world.disturb();
        }
        world.host.engine.reboot(now);
    } else if world.host.child.is_some() {
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
    let (config, machine) = {
        let mut world = shared.world();
        world.agent.incarnation += 1;
        world.agent.alive = true;
        let incarnation = world.agent.incarnation;
        world.say(|_| format!("agent {incarnation} starts"));
        (Arc::new(policy(&world)), machine(&shared, incarnation))
    };
    tick(&shared, 50).await;
    loop {
        match Agent::start_on(config.clone(), machine.clone()).await {
            Ok(agent) => {
                let mut world = shared.world();
                world.agent.agent = Some(agent);
                world.agent.up = true;
                return world.recovered();
            }
            Err(error) => {
                shared.world().say(|_| format!("the agent can't start: {error}"));
                sleep(&shared, START_AGAIN).await;
            }
        }
    }
}

/// The machine as one process of the agent has it.
fn machine(shared: &Shared, incarnation: u64) -> Machine {
    Machine {
        disk_io: DiskIo::with(Arc::new(EffectHook::new(shared, incarnation))),
        engine: Arc::new(EngineClient::new(shared, incarnation)),
        launcher: Arc::new(ComposeLauncher::new(shared)),
        runtime: Arc::new(VirtualRuntime::new(shared, Owner::Agent)),
        strays: Arc::new(Strays(shared.clone())),
        limits: Limits::default(),
    }
}

/// The host's policy file.
fn policy(world: &World) -> Config {
    let top = world.host.disk.directory.parent().unwrap_or(Path::new("/")).display();
    let text = format!(
        "{{identity: n5, listen: '127.0.0.1:0', stateDir: '{}', tls: {{ca: /ca, cert: /cert, key: /key}}, \
         operators: [operator], allow: {{directories: ['{top}'], registries: ['*']}}}}",
        world.host.disk.state.display(),
    );
    #[allow(clippy::expect_used, reason = "this very text is a policy")]
    Config::parse(Path::new("/etc/tenantry/agent.yaml"), &text).expect("a policy")
}

/// A compose process of an agent that was killed.
#[derive(Debug)]
struct Strays(Shared);

impl StrayProcesses for Strays {
    fn take_lock(&self, lock: &File) -> io::Result<bool> {
        compose::end(&mut self.0.world());
        Ok(lock.try_lock().is_ok())
    }
}

/// Answers a request.
pub async fn answer(shared: &Shared, request: Request) -> Result<Response, ApiError> {
    tick(shared, 5).await;
    let Some(agent) = shared.world().agent.agent.clone() else {
        die().await;
        return Ok(Response::Released);
    };
    #[allow(clippy::expect_used, reason = "this very name is one")]
    let operator = Identity::parse("operator").expect("a name");
    let response = match request {
        Request::Observe(request) => agent.observe(*request).await.map(Response::Observed),
        Request::Resolve(request) => agent.resolve(request).await.map(Response::Resolved),
        Request::Claim(request) => agent.claim(&operator, *request).await.map(Response::Claimed),
        Request::Accept(request) => agent.accept(&operator, *request).await.map(Response::Claimed),
        Request::Release(request) => agent.release(&operator, request).await.map(|()| Response::Released),
        Request::Operate(id, request) => agent.operate(&operator, id, *request).await.map(Response::Status),
        Request::Operation(id, after, wait) => agent.operation(&id, after, wait).await.map(Response::Status),
    };
    let told = match &response {
        Ok(Response::Status(status)) => Some(&status.id),
        _ => None,
    };
    shared.world().answers(told);
    response
}
