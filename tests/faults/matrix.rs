//! Kills an agent at each of its points, starts it again, and checks what it made of it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tenantry_protocol::{OperationState, OperationStatus};

use crate::agent::{Agent, Seen, Started, was_killed};
use crate::promises::Before;
use crate::report::Rows;
use crate::sandbox::Sandbox;
use crate::times::Recovery;
use crate::trip::{Trip, Way};
use crate::workload::Workload;

/// Every so many crashes, `docker compose up -d` is run by hand afterwards.
const HAND_RUN_EVERY: usize = 6;
/// How often a sandbox is made before its making counts as failed.
const SANDBOXES: usize = 3;

/// A point at which the agent is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Point {
    pub name: String,
    /// Which time it gets there.
    pub hit: usize,
}

/// Points at which the agent of one operation is killed, one after the other: one, or two for a double crash.
#[derive(Clone, Debug)]
pub struct Crash {
    pub way: Way,
    pub points: Vec<Point>,
    /// Whether it needs a sandbox in which nothing was tried before: where an image is still to be pulled.
    pub fresh: bool,
}

/// A crash that was tried.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    pub workload: &'static str,
    pub way: Way,
    /// Where the agent was killed, in order.
    pub points: Vec<String>,
    pub outcome: String,
    /// From the last start of the agent to the operation's end.
    pub recovery: Option<Recovery>,
    /// What did not hold, if something did not.
    pub broken: Option<String>,
    /// What of the points was not come by, though asked for.
    pub missed: Vec<String>,
}

impl std::fmt::Display for Point {
    fn fmt(&self, to: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(to, "{}#{}", self.name, self.hit)
    }
}

impl Crash {
    /// At one point.
    pub fn at(way: Way, point: &Point) -> Self {
        Self { way, points: vec![point.clone()], fresh: false }
    }

    /// The points as text.
    pub fn names(&self) -> Vec<String> {
        self.points.iter().map(ToString::to_string).collect()
    }
}

/// The points of one way, in the order in which they are first reached after the request is sent.
pub async fn record(sandbox: &mut Sandbox, way: Way) -> Result<Vec<Point>> {
    let log = sandbox.folder().join("points.log");
    let _ = std::fs::remove_file(&log);
    let environment = [("TENANTRY_CRASH_LOG", log.display().to_string())];
    let Started::Ready(mut agent) = Agent::start(sandbox.folder(), &environment)? else {
        bail!("the agent ended at its start")
    };
    let at_start = std::fs::read_to_string(&log).unwrap_or_default().lines().count();
    let trip = Trip::of(sandbox, way)?;
    let before = Before::of(sandbox)?;
    let Seen::Ended(status) = agent.run(&trip.id, &trip.request).await? else { bail!("the agent died") };
    trip.arrived(sandbox, before, &status).with_context(|| format!("{way:?} without a crash"))?;
    drop(agent);
    let text = std::fs::read_to_string(&log)?;
    Ok(points(&text, at_start))
}

/// Each name once: when it is first reached after the start, else at the start.
fn points(log: &str, at_start: usize) -> Vec<Point> {
    let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
    let mut early: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found: Vec<Point> = Vec::new();
    for (at, name) in log.lines().enumerate() {
        let hit = hits.entry(name).or_default();
        *hit += 1;
        if at < at_start {
            early.entry(name).or_insert(*hit);
        } else if !found.iter().any(|point| point.name == name) {
            found.push(Point { name: name.to_owned(), hit: *hit });
        }
    }
    let only_early = early.into_iter().filter(|(name, _)| !found.iter().any(|point| point.name == *name));
    let only_early: Vec<Point> = only_early.map(|(name, hit)| Point { name: name.to_owned(), hit }).collect();
    [only_early, found].concat()
}

/// Kills the agent at these points, one after the other, and lets it recover.
async fn crash(sandbox: &mut Sandbox, wanted: &Crash, number: usize) -> Result<Row> {
    let trip = Trip::of(sandbox, wanted.way)?;
    let before = Before::of(sandbox)?;
    let mut hit = Vec::new();
    let mut ended = None;
    for point in &wanted.points {
        if let Some(status) = until(sandbox, &trip, point).await? {
            ended = Some(status);
            break;
        }
        hit.push(point.to_string());
        before.check_while_dead(sandbox, &trip).context("while the agent is dead")?;
    }
    let (status, recovery) = match ended {
        Some(status) => (status, None),
        None => recover(sandbox, &trip).await.map(|(status, recovery)| (status, Some(recovery)))?,
    };
    trip.arrived(sandbox, before, &status)?;
    if number.is_multiple_of(HAND_RUN_EVERY) {
        sandbox.project.assert_hand_run_changes_nothing()?;
    }
    let OperationState::Ended { outcome, .. } = status.state else { bail!("it still runs") };
    Ok(Row {
        workload: sandbox.workload.name(),
        way: wanted.way,
        missed: wanted.names().split_off(hit.len()),
        points: hit,
        outcome: format!("{outcome:?}"),
        recovery,
        broken: None,
    })
}

/// Starts the agent again and waits for what it makes of the operation.
async fn recover(sandbox: &Sandbox, trip: &Trip) -> Result<(OperationStatus, Recovery)> {
    let (log, times) = (sandbox.folder().join("crash.log"), sandbox.folder().join("times.log"));
    for old in [&log, &times] {
        let _ = std::fs::remove_file(old);
    }
    let environment = [
        ("TENANTRY_CRASH_LOG", log.display().to_string()),
        ("TENANTRY_POINT_TIMES", times.display().to_string()),
    ];
    let (started, begun) = (SystemTime::now(), Instant::now());
    let mut agent = Agent::start_well(sandbox.folder(), &environment)?;
    let status = match agent.follow_or_submit(&trip.id, &trip.request).await? {
        Seen::Ended(status) => *status,
        Seen::Died(status) => bail!("the agent died again by itself: {status}"),
    };
    let took = begun.elapsed();
    drop(agent);
    Ok((status, Recovery::of(&std::fs::read_to_string(&times)?, started, took)))
}

/// Runs an agent until it dies at a point, or gives the operation's end where it does not get there.
async fn until(sandbox: &Sandbox, trip: &Trip, point: &Point) -> Result<Option<OperationStatus>> {
    let log = sandbox.folder().join("crash.log");
    let _ = std::fs::remove_file(&log);
    let environment =
        [("TENANTRY_CRASH_AT", point.to_string()), ("TENANTRY_CRASH_LOG", log.display().to_string())];
    let died = match Agent::start(sandbox.folder(), &environment)? {
        Started::Died(status) => status,
        Started::Ready(mut agent) => match agent.follow_or_submit(&trip.id, &trip.request).await? {
            Seen::Died(status) => status,
            // Its end is told before the last of its files are put away.
            Seen::Ended(status) => match agent.dies_within(Duration::from_millis(300)) {
                Some(died) => died,
                None => return Ok(Some(*status)),
            },
        },
    };
    ensure!(was_killed(died), "the agent ended by itself ({died}), not at {}", point.name);
    let reached = std::fs::read_to_string(&log)?.lines().filter(|line| *line == point.name).count();
    ensure!(reached >= point.hit, "the agent was killed, but never got to {}", point.name);
    Ok(None)
}

/// Crashes that are still to be tried.
pub struct Todo {
    queues: BTreeMap<Way, Vec<Crash>>,
    fresh: Vec<Crash>,
    known: BTreeSet<String>,
    /// Whether points that only a recovery comes by are tried as second crashes.
    explores: bool,
    until: Option<Instant>,
}

impl Todo {
    /// In this order. `known` are names of points that need no looking for.
    pub fn new(wanted: Vec<Crash>, known: BTreeSet<String>, explores: bool, until: Option<Instant>) -> Self {
        let mut queues: BTreeMap<Way, Vec<Crash>> = BTreeMap::new();
        for crash in wanted.into_iter().rev() {
            queues.entry(crash.way).or_default().push(crash);
        }
        Self { queues, fresh: Vec::new(), known, explores, until }
    }

    /// How many are left.
    pub fn left(&self) -> usize {
        self.queues.values().map(Vec::len).sum::<usize>() + self.fresh.len()
    }

    /// Whether nothing more is to be begun.
    fn is_over(&self) -> bool {
        self.left() == 0 || self.until.is_some_and(|until| Instant::now() > until)
    }

    /// The next one that can be tried from where a sandbox is; the fullest queue first, those that stay here last.
    fn next(&mut self, sandbox: &Sandbox) -> Option<Crash> {
        let open = Way::ALL.into_iter().filter(|way| way.is_open(sandbox));
        let length = |way: &Way| self.queues.get(way).map_or(0, Vec::len);
        let way = open.filter(|way| length(way) > 0).max_by_key(|way| (*way != Way::Failing, length(way)))?;
        self.queues.get_mut(&way)?.pop()
    }

    /// What is left once nothing else is: each in a sandbox of its own.
    fn next_fresh(&mut self) -> Option<Crash> {
        let waits = self.queues.values().any(|queue| !queue.is_empty());
        if waits { None } else { self.fresh.pop() }
    }

    /// A point that was not come by is tried in a sandbox of its own; one that nobody knew, after this crash.
    fn learn(&mut self, crash: &Crash, row: &Row, log: &str) {
        if !self.explores {
            return;
        }
        if row.points.is_empty() && !crash.fresh {
            self.fresh.push(Crash { fresh: true, ..crash.clone() });
        }
        if row.points.len() != 1 {
            return;
        }
        for name in log.lines() {
            if self.known.insert(name.to_owned()) {
                let points = vec![crash.points[0].clone(), Point { name: name.to_owned(), hit: 1 }];
                let both = Crash { points, ..crash.clone() };
                self.queues.entry(crash.way).or_default().push(both);
            }
        }
    }
}

/// Tries what is to be tried, in a sandbox that is made anew after something did not hold.
pub async fn crash_at_each(workload: Workload, todo: &mut Todo, rows: &Rows) -> Result<()> {
    let mut sandbox = made(workload).await?;
    let mut number = 0;
    while !todo.is_over() {
        let mut wanted = todo.next(&sandbox);
        if wanted.is_none()
            && let Some(alone) = todo.next_fresh()
        {
            drop(sandbox);
            sandbox = made(workload).await?;
            if !alone.way.is_open(&sandbox) {
                record(&mut sandbox, Way::Up).await?;
            }
            wanted = Some(alone);
        }
        let Some(wanted) = wanted else {
            // Only points of another way are left: go there undisturbed.
            let way = Way::onward(&sandbox);
            if let Err(error) = record(&mut sandbox, way).await {
                rows.put(broken(
                    workload,
                    &Crash { way, points: Vec::new(), fresh: false },
                    &sandbox,
                    &error,
                ))?;
                sandbox = made(workload).await?;
            }
            continue;
        };
        number += 1;
        match crash(&mut sandbox, &wanted, number).await {
            Ok(row) => {
                let log = std::fs::read_to_string(sandbox.folder().join("crash.log")).unwrap_or_default();
                todo.learn(&wanted, &row, &log);
                rows.put(row)?;
            }
            Err(error) => {
                rows.put(broken(workload, &wanted, &sandbox, &error))?;
                drop(sandbox);
                sandbox = made(workload).await?;
            }
        }
    }
    Ok(())
}

/// A machine that is busy may fail one that is made.
async fn made(workload: Workload) -> Result<Sandbox> {
    let mut tried = 0;
    loop {
        tried += 1;
        match Sandbox::new(workload, "crash").await {
            Ok(sandbox) => return Ok(sandbox),
            Err(error) if tried == SANDBOXES => return Err(error),
            Err(error) => println!("{:>12} no sandbox: {error:#}", workload.name()),
        }
    }
}

fn broken(workload: Workload, wanted: &Crash, sandbox: &Sandbox, error: &anyhow::Error) -> Row {
    let log = std::fs::read_to_string(sandbox.folder().join("agent.log")).unwrap_or_default();
    let end: Vec<&str> = log.lines().rev().take(12).collect();
    println!("the agent said:\n{}", end.into_iter().rev().collect::<Vec<_>>().join("\n"));
    Row {
        workload: workload.name(),
        way: wanted.way,
        points: wanted.names(),
        outcome: String::new(),
        recovery: None,
        broken: Some(format!("{error:#}")),
        missed: Vec::new(),
    }
}
