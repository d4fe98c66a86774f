//! The way between operators and the agent: calls that are lost, late, doubled, or answered to nobody.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt as _;
use tenantry_api::names::{Identity, OperationId};
use tenantry_operator::agents::{Agent, AgentError, Agents, Call};
use tenantry_planner::decide::Unreached;
use tenantry_protocol::{
    AcceptRequest, Changes, ClaimRequest, ClaimResponse, HostInfo, ObserveRequest, ObserveResponse,
    OperateRequest, OperationStatus, ReleaseRequest, ResolveRequest, ResolveResponse,
};

use crate::agent::{Request, Response, answer};
use crate::operator::tick;
use crate::scheduler::{Owner, Shared, Topic, until};
use crate::world::{Fault, World};

/// How long a call may take, in milliseconds, and how much longer than the wait that it asks for.
const CALL_WITHIN: u64 = 30_000;
const WAIT_SLACK: u64 = 10_000;

/// Calls under way, and cuts.
#[derive(Default)]
pub struct Net {
    answers: std::collections::BTreeMap<u64, Option<Result<Response, AgentError>>>,
    /// Until when an operator does not reach the agent.
    pub cut: [u64; 2],
    /// When the last request that was sent so far arrives.
    pub last: u64,
}

impl World {
    /// The agent's process ended: connections to it are reset, as far as that is noticed.
    pub fn net_reset(&mut self) {
        let open: Vec<u64> =
            self.net.answers.iter().filter(|(_, answer)| answer.is_none()).map(|(slot, _)| *slot).collect();
        for slot in open {
            if self.rng.bool() {
                let late = self.rng.u64(1..50);
                self.after(late, move |world| world.reply(slot, Err(no_answer("the connection broke"))));
            }
        }
    }

    fn reply(&mut self, slot: u64, result: Result<Response, AgentError>) {
        if let Some(waiting) = self.net.answers.get_mut(&slot)
            && waiting.is_none()
        {
            *waiting = Some(result);
            self.notify(Topic::Slot(slot));
        }
    }

    fn deliver(&mut self, shared: Shared, operator: usize, request: Request, slot: Option<u64>) {
        if self.net.cut[operator] > self.now() {
            return;
        }
        if !self.agent.up {
            if let Some(slot) = slot {
                self.after(1, move |world| world.reply(slot, Err(no_answer("nothing answers"))));
            }
            return;
        }
        let handling = shared.clone();
        self.spawn(Owner::Agent, async move {
            let result = answer(&handling, request).await;
            let Some(slot) = slot else { return };
            let mut world = handling.world();
            let rate = world.scenario.rates.lost;
            if world.chance(rate) {
                return world.count(Fault::AnswerLost);
            }
            if world.net.cut[operator] > world.now() {
                return;
            }
            let ms = world.rng.u64(1..20);
            world.after(ms, move |world| world.reply(slot, result.map_err(AgentError::Refused)));
        });
    }
}

fn no_answer(text: &str) -> AgentError {
    AgentError::Unreached { why: Unreached::NoAnswer, text: text.to_owned() }
}

/// The one host's agent, as one operator reaches it. At each call the operator may be killed or stopped.
#[derive(Clone)]
pub struct Connection {
    shared: Shared,
    operator: usize,
}

impl Connection {
    /// The way from an operator to the agent.
    pub fn new(shared: &Shared, operator: usize) -> Self {
        Self { shared: shared.clone(), operator }
    }

    /// Asks the agent. Whoever gives up waiting can't know whether the request arrives after all.
    async fn call(&self, request: Request, within: u64) -> Result<Response, AgentError> {
        tick(&self.shared, self.operator).await;
        let slot = send(&self.shared, self.operator, request);
        let answered = |world: &mut World| world.net.answers.get_mut(&slot)?.take();
        let answer = until(&self.shared, Topic::Slot(slot), within, answered).await;
        self.shared.world().net.answers.remove(&slot);
        answer.unwrap_or_else(|| {
            Err(AgentError::Unreached { why: Unreached::Timeout, text: "no answer in time".to_owned() })
        })
    }

    async fn claimed(&self, request: Request) -> Result<ClaimResponse, AgentError> {
        match self.call(request, CALL_WITHIN).await? {
            Response::Claimed(answer) => Ok(answer),
            _ => Err(strange()),
        }
    }

    async fn status(&self, request: Request, within: u64) -> Result<OperationStatus, AgentError> {
        match self.call(request, within).await? {
            Response::Status(status) => Ok(status),
            _ => Err(strange()),
        }
    }
}

fn strange() -> AgentError {
    let text = "the agent answered something else".to_owned();
    AgentError::Unreached { why: Unreached::BadAnswer, text }
}

impl Agents for Connection {
    fn at(&self, _: &Identity, _: &str) -> Result<Arc<dyn Agent>, AgentError> {
        Ok(Arc::new(self.clone()))
    }
}

impl Agent for Connection {
    fn host(&self) -> Call<'_, HostInfo> {
        // Nothing here asks for it: a ComposeHost's status does not change.
        async { Err(strange()) }.boxed()
    }

    fn changes<'a>(&'a self, _: &'a str, _: Duration) -> Call<'a, Changes> {
        // Nothing here follows a host: its tenants are looked at at their times.
        async { Err(strange()) }.boxed()
    }

    fn observe<'a>(&'a self, request: &'a ObserveRequest) -> Call<'a, ObserveResponse> {
        async move {
            match self.call(Request::Observe(Box::new(request.clone())), CALL_WITHIN).await? {
                Response::Observed(answer) => Ok(answer),
                _ => Err(strange()),
            }
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, request: &'a ResolveRequest) -> Call<'a, ResolveResponse> {
        async move {
            match self.call(Request::Resolve(request.clone()), 2 * CALL_WITHIN).await? {
                Response::Resolved(answer) => Ok(answer),
                _ => Err(strange()),
            }
        }
        .boxed()
    }

    fn claim<'a>(&'a self, request: &'a ClaimRequest) -> Call<'a, ClaimResponse> {
        self.claimed(Request::Claim(Box::new(request.clone()))).boxed()
    }

    fn accept<'a>(&'a self, request: &'a AcceptRequest) -> Call<'a, ClaimResponse> {
        self.claimed(Request::Accept(Box::new(request.clone()))).boxed()
    }

    fn release<'a>(&'a self, request: &'a ReleaseRequest) -> Call<'a, ()> {
        async move { self.call(Request::Release(request.clone()), CALL_WITHIN).await.map(|_| ()) }.boxed()
    }

    fn operate<'a>(&'a self, id: &'a OperationId, request: &'a OperateRequest) -> Call<'a, OperationStatus> {
        self.status(Request::Operate(id.clone(), Box::new(request.clone())), CALL_WITHIN).boxed()
    }

    fn operation<'a>(&'a self, id: &'a OperationId, after: u64, wait: Duration) -> Call<'a, OperationStatus> {
        let within = u64::try_from(wait.as_millis()).unwrap_or(u64::MAX).saturating_add(WAIT_SLACK);
        self.status(Request::Operation(id.clone(), after, wait), within).boxed()
    }
}

fn send(shared: &Shared, operator: usize, request: Request) -> u64 {
    let mut world = shared.world();
    let slot = world.queue.number();
    world.net.answers.insert(slot, None);
    let rates = world.scenario.rates.clone();
    if world.chance(rates.partition) {
        world.count(Fault::AgentPartition);
        let until = world.now() + world.rng.u64(1_000..60_000);
        world.net.cut[operator] = until;
    }
    if world.chance(rates.lost) {
        world.count(Fault::RequestLost);
        return slot;
    }
    let mut ms = world.rng.u64(1..20);
    let doubled = world.chance(rates.late);
    if doubled {
        world.count(Fault::RequestTwice);
        let later = ms + world.rng.u64(1..90_000);
        let (again, shared) = (request.clone(), shared.clone());
        world.net.last = world.net.last.max(world.queue.now + later);
        world.after(later, move |world| world.deliver(shared, operator, again, None));
    }
    if world.chance(rates.late) {
        world.count(Fault::RequestLate);
        ms += world.rng.u64(1_000..120_000);
    }
    let shared = shared.clone();
    world.net.last = world.net.last.max(world.queue.now + ms);
    world.after(ms, move |world| world.deliver(shared, operator, request, Some(slot)));
    slot
}
