//! The way between operators and the agent: calls that are lost, late, doubled, or answered to nobody.

use tenantry_planner::decide::Unreached;
use tenantry_protocol::ApiError;

use crate::agent::{Request, Response, answer};
use crate::sched::{Owner, Shared, Topic, until};
use crate::world::{Fault, World};

/// Why there is no answer.
#[derive(Clone, Debug)]
pub enum AgentError {
    /// It was not reached.
    Unreached(Unreached, String),
    /// It refused.
    Refused(ApiError),
}

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
    AgentError::Unreached(Unreached::NoAnswer, text.to_owned())
}

/// Asks the agent. Whoever gives up waiting can't know whether the request arrives after all.
pub async fn call(
    shared: &Shared,
    operator: usize,
    request: Request,
    within: u64,
) -> Result<Response, AgentError> {
    let slot = send(shared, operator, request);
    let answer =
        until(shared, Topic::Slot(slot), within, |world| world.net.answers.get_mut(&slot)?.take()).await;
    shared.world().net.answers.remove(&slot);
    answer.unwrap_or_else(|| Err(AgentError::Unreached(Unreached::Timeout, "no answer in time".to_owned())))
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
