//! One seed, one run: what people do, until everything has come to rest, and what must hold then.

use std::collections::{BTreeMap, BTreeSet};

use fastrand::Rng;
use tenantry_agent::store::Baseline;
use tenantry_api::annotations::{ACCEPT_HOST, RECONCILE, RETRY, ROLLBACK_TO};
use tenantry_api::tenant_status::{Outcome, Phase};

use crate::agent::{self, Process};
use crate::ailments;
use crate::api::{Object, Server};
use crate::disk::Disk;
use crate::host::{Engine, Host};
use crate::net::Net;
use crate::operator;
use crate::oracle::{Oracle, Picture};
use crate::records::Records;
use crate::releases::{Behaviour, Blob, Releases, image_id};
use crate::scenario::{Begins, Deed, Kind, Scenario, Spec};
use crate::scheduler::{Owner, Queue, Scheduler, Shared, sleep};
use crate::user_actions;
use crate::world::{Fault, Violation, World};

/// How long a person waits until everything has come to rest while faults still happen.
const PATIENCE: u64 = 1_500_000;
/// Faults are over: by then all must have come to rest (P4).
const BOUND: u64 = 1_800_000;
/// So long nothing more may happen by itself.
const REST: u64 = 200_000;
/// Within this long a Tenant that is left alone is looked at again: a minute, a tenth more, and the time that it takes.
const LOOKED_AT_AGAIN: u64 = 80_000;
/// The end of any run, and the most events of one.
const END: u64 = 24 * 3_600_000;
const EVENTS: u64 = 400_000;

/// What came of a run.
#[derive(Debug)]
pub struct Report {
    /// The broken promise, if any.
    pub violation: Option<Violation>,
    /// What happened, where it was asked for.
    pub trace: String,
    /// How many events there were.
    pub events: u64,
    /// How often each fault met each step.
    pub coverage: BTreeMap<(Fault, &'static str), u64>,
    /// Hashes of abstract states.
    pub states: BTreeSet<u64>,
    /// How often an agent died again while it recovered.
    pub second_crashes: u64,
    /// Whether two operators acted at once.
    pub two_leaders: bool,
    /// Whether a network was cut.
    pub partitioned: bool,
    /// Every outcome, in order.
    pub outcomes: Vec<Outcome>,
    /// Which kind of run.
    pub kind: Kind,
    /// How it ended.
    pub end: End,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// The host.
    pub host: Picture,
    /// The volume.
    pub data: Option<String>,
    /// What status says.
    pub phase: Option<Phase>,
    /// The deployed tag.
    pub deployed: Option<String>,
    /// The baseline's target and images.
    pub baselines: Vec<(Option<String>, Vec<(String, String)>)>,
    /// Whether something runs that does not stay well.
    pub sick: bool,
}

impl End {
    /// Whether two runs ended alike. How well a sick release was before an operation depends on when one looked: whether that one
    /// was begun, and how it is told, does, too.
    fn is_like(&self, other: &Self) -> bool {
        let failed = |end: &Self| {
            use Phase::{Aborted, Held, Refused, RollbackFailed, RolledBack};
            matches!(end.phase, Some(Held | RolledBack | RollbackFailed | Aborted | Refused))
        };
        let but_for_that = |end: &Self| Self { phase: None, ..end.clone() };
        let looked = self.sick && failed(self) && failed(other);
        self == other || looked && but_for_that(self) == but_for_that(other)
    }
}

/// Runs a seed. One that is about crashes alone is run without them as well, and must end alike (P3).
pub fn run(seed: u64, trace: bool) -> Report {
    let scenario = Scenario::of(seed);
    let mut report = run_scenario(scenario.clone(), trace);
    if scenario.kind == Kind::Twin && report.violation.is_none() {
        let mut calm = scenario;
        calm.rates.agent_kills.clear();
        let twin = run_scenario(calm, trace);
        report.events += twin.events;
        if twin.violation.is_some() {
            report.violation = twin.violation;
            report.trace = twin.trace;
        } else if !twin.end.is_like(&report.end) {
            let what = format!("with crashes it ends as {:?}, without them as {:?}", report.end, twin.end);
            report.trace.push_str("---- without crashes ----\n");
            report.trace.push_str(&twin.trace);
            report.violation = Some(Violation { promise: "P3", what });
        }
    }
    report
}

/// Runs one scenario once.
pub fn run_scenario(scenario: Scenario, trace: bool) -> Report {
    let kind = scenario.kind;
    let shared = Shared::new(world(scenario, trace));
    shared.world().shared = Some(shared.clone());
    begin(&shared);
    let mut scheduler = Scheduler::new(shared.clone());
    let mut events = 0;
    while scheduler.step(END) {
        events += 1;
        let mut world = shared.world();
        world.check();
        if events > EVENTS {
            world.broken("P4", "it never comes to rest: too many events");
        }
        if world.violation.is_some() || world.over {
            break;
        }
    }
    drop(scheduler);
    let mut world = shared.world();
    if !world.over && world.violation.is_none() {
        world.broken("P4", "nothing happens any more, and it is not over");
    }
    world.shared = None;
    let agent = world.agent.take();
    // Dropped without the world: what is in it looks at the world when it ends.
    let queue = std::mem::take(&mut world.queue);
    let report = report(&mut world, kind, events);
    drop(world);
    drop((queue, agent));
    report
}

fn report(world: &mut World, kind: Kind, events: u64) -> Report {
    let coverage = std::mem::take(&mut world.coverage);
    let cut = [Fault::ApiPartition, Fault::AgentPartition, Fault::ApiDown];
    let status = world.api.tenant.as_ref().map(|tenant| tenant.status.clone()).unwrap_or_default();
    world.host.disk.look();
    world.refresh();
    let images = |baseline: &Baseline| {
        let all = baseline.images.iter().map(|image| (image.service.clone(), image.image_id.clone()));
        (baseline.target_hash.clone(), all.collect())
    };
    Report {
        violation: world.violation.clone(),
        trace: world.trace.take().unwrap_or_default(),
        events,
        partitioned: coverage.keys().any(|(fault, _)| cut.contains(fault)),
        coverage,
        states: std::mem::take(&mut world.states),
        second_crashes: world.oracle.second_crashes,
        two_leaders: world.oracle.two_leaders,
        outcomes: world.oracle.outcomes.clone(),
        kind,
        end: End {
            host: world.picture(),
            data: world.host.disk.data(),
            phase: status.phase,
            deployed: status.deployed.as_ref().map(|deployed| deployed.image_tag.clone()),
            baselines: world
                .host
                .records
                .baselines
                .values()
                .filter(|one| is_written(one))
                .map(images)
                .collect(),
            sick: world.own_containers().any(|one| {
                let behaviour = world.host.engine.behaviours.get(&one.image_id);
                !matches!(behaviour, None | Some(Behaviour::Good(_)))
            }),
        },
    }
}

/// Whether a baseline is one, and not what stands for none.
fn is_written(baseline: &Baseline) -> bool {
    *baseline != Baseline::default()
}

fn world(scenario: Scenario, trace: bool) -> World {
    let steady = scenario.kind == Kind::Twin;
    let mut made_up = Rng::with_seed(scenario.seed ^ 0x7e1e_a5e5);
    let releases = Releases::make_up(&mut made_up, steady, scenario.begins == Begins::Installed);
    let rates = &scenario.rates;
    let mut host = Host {
        disk: Disk::new(rates.power_cut > 0 || rates.journal > 0),
        records: Records::default(),
        engine: Engine::default(),
        child: None,
        by_hand: None,
    };
    for release in &releases.all {
        let image = image_id(&format!("app {}", release.tag));
        host.engine.registry.insert(format!("reg.example/app:{}", release.tag), image.clone());
        host.engine.behaviours.insert(image, release.behaviour);
    }
    let db = image_id("db 1");
    host.engine.registry.insert("reg.example/db:1".to_owned(), db.clone());
    host.engine.behaviours.insert(db, Behaviour::Good(300));
    let mut world = World {
        queue: Queue::default(),
        rng: Rng::with_seed(scenario.seed),
        releases,
        host,
        agent: Process::default(),
        api: Server::default(),
        operators: Default::default(),
        oracle: Oracle::default(),
        coverage: BTreeMap::new(),
        states: BTreeSet::new(),
        violation: None,
        trace: trace.then(String::new),
        faulty: true,
        over: false,
        net: Net::default(),
        compose_results: BTreeMap::new(),
        shared: None,
        scenario,
    };
    user_actions::another_project(&mut world);
    if world.scenario.begins == Begins::Installed {
        user_actions::install(&mut world);
    }
    world.begin_truth();
    world
}

fn begin(shared: &Shared) {
    let mut world = shared.world();
    world.operators[0].leads = true;
    world.spawn(Owner::Agent, agent::begin(shared.clone()));
    world.spawn(Owner::Operator(0), operator::lead(shared.clone(), 0));
    world.spawn(Owner::Person, people(shared.clone()));
}

/// What people do, one line after the other; then the faults end, and all must come to rest.
async fn people(shared: Shared) {
    let script = shared.world().scenario.script.clone();
    for line in script {
        sleep(&shared, line.after).await;
        if line.settled {
            settled(&shared, PATIENCE).await;
        }
        user_actions::act(&shared, line.deed).await;
    }
    // Faults go on for a while, but not for ever.
    settled(&shared, PATIENCE).await;
    calm(&shared).await;
    if !settled(&shared, BOUND).await {
        let what = unsettled(&shared.world());
        return shared
            .world()
            .broken("P4", format!("not at rest {} min after the last fault: {what}", BOUND / 60_000));
    }
    // Where something is refused, a person who asks to go back is heard at the next look: that one was asked for.
    let asked = usize::from(waits_to_go_back(&shared.world()));
    let begun = shared.world().oracle.accepted.len();
    sleep(&shared, REST).await;
    let more = shared.world().oracle.accepted.len() - begun;
    shared
        .world()
        .require("P4", more <= asked, || format!("{more} operations were begun without anybody's asking"));
    if shared.world().scenario.kind != Kind::Twin {
        mend(&shared).await;
    }
    let mut world = shared.world();
    world.over = true;
}

/// A person puts right what is wrong: after that the Tenant must become Ready.
async fn mend(shared: &Shared) {
    user_actions::act(shared, Deed::Unedit).await;
    user_actions::unask(&mut shared.world());
    ailments::cure(&mut shared.world());
    let spec = Spec {
        release: 0,
        suspend: false,
        overwrite: true,
        hold: false,
        rollback_data: false,
        snapshot: None,
    };
    user_actions::act(shared, Deed::Spec(spec)).await;
    user_actions::act(shared, Deed::Retry).await;
    sleep(shared, 1_000).await;
    let mut ready = settled(shared, BOUND).await;
    let phase = |world: &World| world.api.tenant.as_ref().and_then(|tenant| tenant.status.phase);
    if phase(&shared.world()) == Some(Phase::Degraded) {
        // What was taken over with a service that does not run is started by who reads that in status.
        user_actions::act(shared, Deed::Compose).await;
        sleep(shared, 60_000).await;
        ready = settled(shared, BOUND).await;
    }
    let mut world = shared.world();
    let status = world.api.tenant.as_ref().map(|tenant| tenant.status.clone()).unwrap_or_default();
    let tag = status.deployed.as_ref().map(|deployed| deployed.image_tag.clone());
    let there = ready && status.phase == Some(Phase::Ready) && tag.as_deref() == Some("v0");
    let what = unsettled(&world);
    world
        .require("P4", there, || format!("a person put everything right, but it is not Ready at v0: {what}"));
}

/// Faults are over once the last message that is late has arrived, and whoever stands still has gone on with what it had
/// decided before.
async fn calm(shared: &Shared) {
    let late = {
        let mut world = shared.world();
        world.faulty = false;
        world.host.disk.edit_in = None;
        world.api.down = 0;
        world.api.cut = [0; 2];
        world.net.cut = [0; 2];
        world.say(|_| "no more faults".to_owned());
        world.net.last.max(world.queue.paused_until()).saturating_sub(world.queue.now)
    };
    sleep(shared, late + 1_000).await;
}

/// Waits until everything has come to rest; false if it does not in time.
async fn settled(shared: &Shared, within: u64) -> bool {
    let end = shared.world().now() + within;
    loop {
        // Twice in a row: what was just asked for may not have been seen yet. An operation that is refused and only kept in
        // mind is begun at the next look where what it was refused for is over: until then nothing rests.
        if at_rest(&shared.world()) {
            let pause = if keeps_one_in_mind(&shared.world()) { LOOKED_AT_AGAIN } else { 2_000 };
            sleep(shared, pause).await;
            if at_rest(&shared.world()) {
                return true;
            }
        }
        if shared.world().now() >= end {
            return false;
        }
        sleep(shared, 1_000).await;
    }
}

/// Whether a person has asked to go back and was not heard yet.
fn waits_to_go_back(world: &World) -> bool {
    let Some(tenant) = &world.api.tenant else { return false };
    let handled = tenant.status.handled.as_ref().and_then(|handled| handled.rollback_to.as_ref());
    tenant.annotations.get(ROLLBACK_TO).is_some_and(|asked| Some(asked) != handled)
}

fn at_rest(world: &World) -> bool {
    let Some(tenant) = &world.api.tenant else { return false };
    let phase = matches!(
        tenant.status.phase,
        Some(
            Phase::Ready
                | Phase::Degraded
                | Phase::Aborted
                | Phase::RolledBack
                | Phase::Held
                | Phase::RollbackFailed
                | Phase::Suspended
                | Phase::Refused
                | Phase::AdoptionNeeded
        )
    );
    let handled = tenant.status.handled.clone().unwrap_or_default();
    let heard = |name: &str, handled: Option<&String>| {
        tenant.annotations.get(name).is_none_or(|asked| Some(asked) == handled)
    };
    let suspended = tenant.spec.suspend;
    let asked = suspended
        || tenant.status.phase == Some(Phase::Refused)
        || (heard(RETRY, handled.retry.as_ref())
            && heard(RECONCILE, handled.reconcile.as_ref())
            && heard(ROLLBACK_TO, handled.rollback_to.as_ref())
            && heard(ACCEPT_HOST, handled.accept_host.as_ref()));
    let flies = world.host.records.open().is_some();
    // One that is named and was never begun is only kept in mind.
    let names_one = tenant.status.upgrade.as_ref().is_some_and(|upgrade| {
        let begun = world.host.records.knows(&upgrade.id);
        upgrade.outcome.is_none() && begun
    });
    let seen = tenant.status.observed_generation == Some(tenant.generation);
    phase
        && !waits_for_place(world, tenant)
        && seen
        && asked
        && !flies
        && !names_one
        && tenant.deleted_at.is_none()
        && world.agent.up
}

/// Whether status names an operation that was never begun.
fn keeps_one_in_mind(world: &World) -> bool {
    let upgrade = world.api.tenant.as_ref().and_then(|tenant| tenant.status.upgrade.as_ref());
    upgrade.is_some_and(|upgrade| upgrade.outcome.is_none() && !world.host.records.knows(&upgrade.id))
}

/// Whether a place is given back that the Tenant was refused for: it is going to get it.
fn waits_for_place(world: &World, tenant: &Object) -> bool {
    let ready = tenantry_api::conditions::find(&tenant.status.conditions, "Ready");
    let claims = &world.host.records.claims;
    let held = claims.values().any(|claim| !claim.released && claim.uid != tenant.uid);
    world.api.owes() || (ready.is_some_and(|ready| ready.reason == "ClaimedByOther") && !held)
}

fn unsettled(world: &World) -> String {
    let Some(tenant) = &world.api.tenant else { return "there is no Tenant".to_owned() };
    let ready = tenantry_api::conditions::find(&tenant.status.conditions, "Ready");
    format!(
        "phase {:?}, deployed {:?}, agent {}, {}",
        tenant.status.phase,
        tenant.status.deployed.as_ref().map(|deployed| deployed.image_tag.as_str()),
        if world.agent.up { "up" } else { "down" },
        ready.map(|ready| ready.message.as_str()).unwrap_or_default()
    )
}

/// The text of `.env` for a tag.
pub fn env_text(tag: &str) -> Blob {
    Blob::new(&format!("IMAGE_TAG={tag}\nOTHER=kept\n"))
}
