//! What a run is about: what people do, and which faults happen how often. All of it comes from the seed.

use fastrand::Rng;

use crate::disk::DATA;
use crate::releases::{COUNT, PROJECT, Release, bundle_name};

/// What a run is about.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// The seed.
    pub seed: u64,
    /// Which kind of run.
    pub kind: Kind,
    /// What people do, in order.
    pub script: Vec<Line>,
    /// How often what happens.
    pub rates: Rates,
    /// How the host is at the beginning.
    pub begins: Begins,
}

/// Kinds of runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Only crashes, and the same run without them must end alike (P3).
    Twin,
    /// Two operators that both act (P2).
    TwoLeaders,
    /// Cut networks.
    Partitions,
    /// Everything at once.
    Everything,
}

/// How the host is at the beginning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Begins {
    /// With nothing.
    Empty,
    /// With the first release, installed by hand.
    Installed,
}

/// How often what happens, in thousandths of its occasions.
#[derive(Clone, Debug, Default)]
pub struct Rates {
    /// Milliseconds until faults are over.
    pub until: u64,
    /// The agent is killed at these of its effects and calls, counted from its last start.
    pub agent_kills: Vec<u64>,
    /// Of the agent's deaths, power cuts.
    pub power_cut: u32,
    /// A compose process goes on when its agent is killed.
    pub outlives: u32,
    /// An operator is killed, at each of its pauses.
    pub operator_kill: u32,
    /// An operator is stopped for longer than its lease, at each of its pauses.
    pub operator_pause: u32,
    /// A request or an answer is lost.
    pub lost: u32,
    /// A request arrives late, or twice.
    pub late: u32,
    /// A partition begins, at each call.
    pub partition: u32,
    /// The API server fails a call.
    pub api: u32,
    /// A watch event is missed.
    pub missed: u32,
    /// The engine fails a call.
    pub engine: u32,
    /// A disk is full.
    pub disk: u32,
    /// A journal can't be written.
    pub journal: u32,
    /// The registry does not answer.
    pub registry: u32,
    /// `docker compose` fails half way.
    pub compose: u32,
}

/// What a person does, and how long after the line before.
#[derive(Clone, Debug)]
pub struct Line {
    /// Milliseconds after the line before; after everything has come to rest where `settled`.
    pub after: u64,
    /// Whether to wait until everything has come to rest.
    pub settled: bool,
    /// What.
    pub deed: Deed,
}

/// What a person does.
#[derive(Clone, Debug, PartialEq)]
pub enum Deed {
    /// Changes the spec.
    Spec(Spec),
    /// Sets `tenantry.dev/retry`.
    Retry,
    /// Sets `tenantry.dev/reconcile`.
    Reconcile,
    /// Sets `tenantry.dev/rollback-to`: to the newest restore point, with data or without.
    RollBack(bool),
    /// Sets `tenantry.dev/accept-host`.
    Accept,
    /// Deletes the Tenant without waiting for its host, and has one of the same name take the place over at once.
    TakeOver,
    /// Deletes the Tenant; makes it anew under the same name after so many milliseconds.
    Recreate(u64),
    /// Edits a managed file.
    Edit,
    /// Takes such edits back.
    Unedit,
    /// Runs `docker compose up -d` by hand.
    Compose,
    /// Pauses a service, or does nothing about one that dies or keeps ending; puts right what is so already.
    Ail,
    /// Removes images that nothing holds.
    Prune,
    /// Pushes another image under the deployed tag.
    MoveTag,
}

/// What of the spec a run changes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Which release.
    pub release: usize,
    /// `spec.suspend`.
    pub suspend: bool,
    /// `spec.adopt: Overwrite`.
    pub overwrite: bool,
    /// `spec.upgrade.onFailure: Hold`.
    pub hold: bool,
    /// `spec.upgrade.rollbackData: Always`.
    pub rollback_data: bool,
    /// Whether data is part of restore points, and by which consistency.
    pub snapshot: Option<&'static str>,
}

impl Spec {
    /// As a person would write it.
    pub fn json(&self, releases: &[Release], directory: &str) -> serde_json::Value {
        let paths = if self.snapshot.is_some() { vec![DATA] } else { vec![] };
        serde_json::json!({
            "host": "n5", "project": PROJECT, "directory": directory, "bundle": bundle_name(&releases[self.release].tag),
            "imageTag": releases[self.release].tag,
            "adopt": if self.overwrite { "Overwrite" } else { "IfIdentical" },
            "env": {"patch": [{"name": "IMAGE_TAG", "value": "$(imageTag)"}]},
            "protect": ["uploads/"],
            "suspend": self.suspend,
            "upgrade": {
                "onFailure": if self.hold { "Hold" } else { "Rollback" },
                "rollbackData": if self.rollback_data { "Always" } else { "Never" },
                "snapshot": {"paths": paths, "consistency": self.snapshot.unwrap_or("Stop"), "retain": 2},
                "verify": {"timeout": "30s", "stableFor": "10s"},
            },
        })
    }
}

impl Scenario {
    /// The scenario of a seed.
    pub fn of(seed: u64) -> Self {
        let mut rng = Rng::with_seed(seed ^ 0x5ce0_a110);
        let kind = match seed % 4 {
            0 => Kind::Twin,
            1 => Kind::TwoLeaders,
            2 => Kind::Partitions,
            _ => Kind::Everything,
        };
        let begins = if rng.u32(0..3) == 0 { Begins::Installed } else { Begins::Empty };
        let script = script(&mut rng, kind, begins);
        let rates = rates(&mut rng, kind);
        Self { seed, kind, script, rates, begins }
    }
}

fn first_spec(rng: &mut Rng, begins: Begins) -> Spec {
    let snapshot = [None, Some("Live"), Some("Pause"), Some("Stop")][rng.usize(0..4)];
    Spec {
        release: if begins == Begins::Installed && rng.bool() { 0 } else { rng.usize(0..COUNT) },
        suspend: false,
        overwrite: rng.bool(),
        hold: rng.u32(0..6) == 0,
        rollback_data: snapshot.is_some() && rng.bool(),
        snapshot,
    }
}

fn script(rng: &mut Rng, kind: Kind, begins: Begins) -> Vec<Line> {
    let twin = kind == Kind::Twin;
    let mut spec = first_spec(rng, begins);
    let line = |rng: &mut Rng, deed| {
        let settled = twin || rng.u32(0..3) == 0;
        let after = if settled { 1_000 } else { rng.u64(0..60_000) };
        Line { after, settled, deed }
    };
    let mut script = Vec::new();
    // What is to be taken over is not always well.
    if begins == Begins::Installed && !twin && rng.bool() {
        script.push(Line { after: rng.u64(0..90_000), settled: false, deed: Deed::Ail });
    }
    script.push(Line { after: 0, settled: false, deed: Deed::Spec(spec.clone()) });
    for _ in 0..rng.u32(1..5) {
        let deed = match rng.u32(0..100) {
            0..=54 => {
                spec.release = rng.usize(0..COUNT);
                Deed::Spec(spec.clone())
            }
            55..=61 => {
                spec.hold = !spec.hold;
                spec.release = rng.usize(0..COUNT);
                Deed::Spec(spec.clone())
            }
            62..=66 => {
                spec.suspend = !spec.suspend;
                Deed::Spec(spec.clone())
            }
            67..=74 => Deed::Retry,
            75..=76 => Deed::Reconcile,
            77..=80 => Deed::RollBack(rng.bool()),
            _ if twin => Deed::RollBack(rng.bool()),
            81 => Deed::Accept,
            82 => Deed::TakeOver,
            83..=84 => Deed::Recreate(rng.u64(0..30_000)),
            85..=88 => Deed::Edit,
            89 => Deed::Compose,
            90..=93 => Deed::Ail,
            94..=96 => Deed::Prune,
            _ => Deed::MoveTag,
        };
        let next = line(rng, deed);
        script.push(next);
    }
    script
}

fn rates(rng: &mut Rng, kind: Kind) -> Rates {
    let mut some = |chance: u32, most: u32| if rng.u32(0..100) < chance { rng.u32(1..=most) } else { 0 };
    let mut rates = Rates { until: 400_000, power_cut: some(60, 600), outlives: 500, ..Rates::default() };
    match kind {
        Kind::Twin => {}
        Kind::TwoLeaders => {
            rates.operator_pause = 80 + some(80, 60);
            rates.operator_kill = some(30, 10);
            rates.late = some(50, 80);
            rates.lost = some(50, 60);
            rates.api = some(30, 30);
            rates.missed = some(30, 200);
        }
        Kind::Partitions => {
            rates.partition = 60 + some(80, 40);
            rates.operator_kill = some(50, 15);
            rates.operator_pause = some(30, 10);
            rates.late = some(80, 150);
            rates.lost = some(80, 150);
            rates.api = some(60, 60);
            rates.missed = some(50, 300);
        }
        Kind::Everything => {
            rates.operator_kill = some(40, 15);
            rates.operator_pause = some(20, 10);
            rates.partition = some(30, 15);
            rates.late = some(40, 100);
            rates.lost = some(40, 100);
            rates.api = some(40, 60);
            rates.missed = some(40, 200);
            rates.engine = some(40, 25);
            rates.disk = some(30, 20);
            rates.journal = some(30, 30);
            rates.registry = some(40, 150);
            rates.compose = some(40, 200);
        }
    }
    let kills = match kind {
        Kind::Twin => rng.usize(16..64),
        Kind::TwoLeaders | Kind::Partitions => rng.usize(0..2),
        Kind::Everything => rng.usize(0..4),
    };
    for number in 0..kills {
        // The one after a crash mostly comes soon, so that it hits the recovery.
        let most = if number > 0 && rng.u32(0..4) > 0 { 60 } else { 600 };
        rates.agent_kills.push(rng.u64(1..most));
    }
    rates
}
