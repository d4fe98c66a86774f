//! Everything there is: host, agent, API server, operators, and what is known to be true of them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::agent::Process;
use crate::api::Server;
use crate::host::Host;
use crate::net::Net;
use crate::operator::Process as Operator;
use crate::oracle::Oracle;
use crate::releases::Releases;
use crate::scenario::Scenario;
use crate::scheduler::{Queue, Shared, TaskId};
use fastrand::Rng;
use jiff::Timestamp;

/// Seconds since 1970 at which every run begins: long ago, so that no file is ever old enough to be known by its times,
/// which are not the seed's to decide.
const START: i64 = 1_500_000_000;

/// A kind of fault. Counted, with the step that it met.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Fault {
    AgentKilled,
    PowerCut,
    SecondCrash,
    OperatorKilled,
    OperatorPaused,
    TwoLeaders,
    ApiDown,
    ApiPartition,
    AgentPartition,
    RequestLost,
    AnswerLost,
    RequestLate,
    RequestTwice,
    Conflict,
    WriteUnanswered,
    StaleRead,
    WatchMissed,
    EngineFault,
    DiskFull,
    JournalFault,
    RegistryDown,
    ComposeFailed,
    NetworkTaken,
    ComposeOutlived,
    TornRecord,
    EditedByHand,
    ComposeByHand,
    ImagesPruned,
    TagMoved,
    /// A person paused a service.
    PausedByHand,
    /// The engine could not end a container properly.
    Dead,
    /// A container began to end again and again.
    KeepsEnding,
    Recreated,
    TakenOver,
    Unhealthy,
}

/// A broken promise.
#[derive(Clone, Debug)]
pub struct Violation {
    /// Which.
    pub promise: &'static str,
    /// How.
    pub what: String,
}

/// Everything there is.
pub struct World {
    /// Time and what is to happen.
    pub queue: Queue,
    /// Decides the order of things.
    pub rng: Rng,
    /// What this run is about.
    pub scenario: Scenario,
    /// The releases that there are.
    pub releases: Releases,
    /// The machine.
    pub host: Host,
    /// The agent's process.
    pub agent: Process,
    /// The API server.
    pub api: Server,
    /// The operators' processes.
    pub operators: [Operator; 2],
    /// What is known to be true.
    pub oracle: Oracle,
    /// How often each fault met each step.
    pub coverage: BTreeMap<(Fault, &'static str), u64>,
    /// Hashes of the abstract states that were seen.
    pub states: BTreeSet<u64>,
    /// The first broken promise.
    pub violation: Option<Violation>,
    /// What happened, where it is wanted.
    pub trace: Option<String>,
    /// Whether faults still happen.
    pub faulty: bool,
    /// Whether the run is over.
    pub over: bool,
    /// Calls under way.
    pub net: Net,
    /// How compose processes ended.
    pub compose_results: BTreeMap<TaskId, Result<(), String>>,
    /// The world itself, for what begins tasks. Taken out at the end.
    pub shared: Option<Shared>,
}

/// The time so many milliseconds after the beginning.
pub fn timestamp(ms: u64) -> Timestamp {
    let millis = START * 1_000 + i64::try_from(ms).unwrap_or(0);
    Timestamp::from_millisecond(millis).unwrap_or(Timestamp::UNIX_EPOCH)
}

impl World {
    /// Milliseconds since the beginning.
    pub fn now(&self) -> u64 {
        self.queue.now
    }

    /// The time.
    pub fn timestamp(&self) -> Timestamp {
        timestamp(self.queue.now)
    }

    /// Whether something of this chance, in thousandths, happens while faults do.
    pub fn chance(&mut self, thousandths: u32) -> bool {
        self.chance_of(thousandths, 1_000)
    }

    /// Whether something happens that is this frequent while faults do.
    pub fn chance_of(&mut self, times: u32, of: u32) -> bool {
        self.faulty && times > 0 && self.rng.u32(0..of) < times
    }

    /// Counts a fault.
    pub fn count(&mut self, fault: Fault) {
        let step = self.agent.step_name();
        *self.coverage.entry((fault, step)).or_default() += 1;
        self.say(|_| format!("fault {fault:?} at {step}"));
    }

    /// Notes a line, where somebody wants to read it.
    pub fn say(&mut self, line: impl FnOnce(&Self) -> String) {
        if self.trace.is_none() {
            return;
        }
        let text = line(self);
        let now = self.queue.now;
        if let Some(trace) = &mut self.trace {
            let _ = writeln!(trace, "{:>9}.{:03} {text}", now / 1_000, now % 1_000);
        }
    }

    /// A promise is broken. The first one counts.
    pub fn broken(&mut self, promise: &'static str, what: impl Into<String>) {
        let what = what.into();
        self.say(|_| format!("BROKEN {promise}: {what}"));
        if self.violation.is_none() {
            self.violation = Some(Violation { promise, what });
        }
    }

    /// Requires something of a promise.
    pub fn require(&mut self, promise: &'static str, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken(promise, what());
        }
    }
}
