//! Kills an agent at each of its points, starts it again, and checks what it made of it.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use serde::Serialize;
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::Outcome;
use tenantry_protocol::{OperateRequest, OperationState, OperationStatus};

use crate::agent::{Agent, Seen, Started, was_killed};
use crate::promises::Before;
use crate::sandbox::{BAD, Sandbox};
use crate::workload::{Release, Workload};

/// Every so many crashes, `docker compose up -d` is run by hand afterwards.
const HAND_RUN_EVERY: usize = 6;

/// Where an upgrade leads.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Way {
    /// From the release with few files to the one with more.
    Up,
    /// And back.
    Down,
    /// To a release that dies, and so back by a rollback.
    Failing,
}

/// A point at which the agent is killed.
#[derive(Clone, Debug, Serialize)]
pub struct Point {
    pub name: String,
    /// Which time it gets there.
    pub hit: usize,
    pub way: Way,
}

/// A crash that was tried.
#[derive(Debug, Serialize)]
pub struct Row {
    pub workload: &'static str,
    pub way: Way,
    /// Where the agent was killed, in order; one, or two for a double crash.
    pub points: Vec<String>,
    pub outcome: String,
    /// From the last start of the agent to the operation's end.
    pub recovery_ms: u128,
    /// Of that, until the agent listened.
    pub ready_ms: u128,
    /// What did not hold, if something did not.
    pub broken: Option<String>,
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
    let before = Before::of(sandbox)?;
    let trip = Trip::of(sandbox, way)?;
    let Seen::Ended(status) = agent.run(&trip.id, &trip.request).await? else { bail!("the agent died") };
    trip.arrived(sandbox, &before, &status).context("without a crash")?;
    drop(agent);
    let text = std::fs::read_to_string(&log)?;
    Ok(points(&text, at_start, way))
}

/// Each name once: when it is first reached after the start, else at the start.
fn points(log: &str, at_start: usize, way: Way) -> Vec<Point> {
    let mut hits: BTreeMap<&str, usize> = BTreeMap::new();
    let mut early: BTreeMap<&str, usize> = BTreeMap::new();
    let mut found: Vec<Point> = Vec::new();
    for (at, name) in log.lines().enumerate() {
        let hit = hits.entry(name).or_default();
        *hit += 1;
        if at < at_start {
            early.entry(name).or_insert(*hit);
        } else if !found.iter().any(|point| point.name == name) {
            found.push(Point { name: name.to_owned(), hit: *hit, way });
        }
    }
    let only_early = early.into_iter().filter(|(name, _)| !found.iter().any(|point| point.name == *name));
    let only_early: Vec<Point> =
        only_early.map(|(name, hit)| Point { name: name.to_owned(), hit, way }).collect();
    [only_early, found].concat()
}

/// One way from where a sandbox is to where it is to be.
struct Trip {
    way: Way,
    id: OperationId,
    request: OperateRequest,
    wanted: Release,
}

impl Trip {
    fn of(sandbox: &mut Sandbox, way: Way) -> Result<Self> {
        let (tag, even) = match way {
            Way::Up => ("v2", true),
            Way::Down => ("v1", false),
            Way::Failing => (BAD, !sandbox.even),
        };
        ensure!(way == Way::Failing || sandbox.even != even, "the sandbox is at {tag} already");
        let (id, request) = sandbox.request(tag, even, false)?;
        Ok(Self { way, id, request, wanted: sandbox.release(tag, even) })
    }

    /// P3: it ends as it does without a crash.
    fn arrived(&self, sandbox: &mut Sandbox, before: &Before, status: &OperationStatus) -> Result<()> {
        let OperationState::Ended { outcome, failure, .. } = &status.state else { bail!("it still runs") };
        let wanted = if self.way == Way::Failing { Outcome::RolledBack } else { Outcome::Succeeded };
        ensure!(*outcome == wanted, "P3: it ended as {outcome:?}: {failure:?}, phases {:#?}", status.phases);
        if *outcome == Outcome::Succeeded {
            sandbox.even = self.way == Way::Up;
            before.check_ended(sandbox, Some(&self.wanted))
        } else {
            before.check_ended(sandbox, None)
        }
    }
}

/// The way that leads on from where a sandbox is.
pub const fn onward(sandbox: &Sandbox) -> Way {
    if sandbox.even { Way::Down } else { Way::Up }
}

/// Kills the agent at these points, one after the other, and lets it recover. `None`: it never got to the first.
pub async fn crash(sandbox: &mut Sandbox, points: &[Point], number: usize) -> Result<Option<Row>> {
    let way = points[0].way;
    let before = Before::of(sandbox)?;
    let trip = Trip::of(sandbox, way)?;
    let mut hit = Vec::new();
    let mut last = None;
    for point in points {
        if let Some(status) = until(sandbox, &trip, point).await? {
            last = Some(status);
            break;
        }
        hit.push(format!("{}#{}", point.name, point.hit));
        before.check_while_dead(sandbox, &trip.id, &trip.wanted).context("while the agent is dead")?;
    }
    let begun = Instant::now();
    let (status, ready) = if let Some(status) = last {
        (status, Duration::ZERO)
    } else {
        let mut agent = Agent::start_well(sandbox.folder())?;
        match agent.follow_or_submit(&trip.id, &trip.request).await? {
            Seen::Ended(status) => (*status, agent.ready_after),
            Seen::Died(status) => bail!("the agent died again by itself: {status}"),
        }
    };
    let recovery = begun.elapsed();
    trip.arrived(sandbox, &before, &status)?;
    if number.is_multiple_of(HAND_RUN_EVERY) {
        sandbox.project.assert_hand_run_changes_nothing()?;
    }
    if hit.is_empty() {
        return Ok(None);
    }
    let OperationState::Ended { outcome, .. } = status.state else { bail!("it still runs") };
    Ok(Some(Row {
        workload: sandbox.workload.name(),
        way,
        points: hit,
        outcome: format!("{outcome:?}"),
        recovery_ms: recovery.as_millis(),
        ready_ms: ready.as_millis(),
        broken: None,
    }))
}

/// Runs an agent until it dies at a point, or gives the operation's end where it does not get there.
async fn until(sandbox: &Sandbox, trip: &Trip, point: &Point) -> Result<Option<OperationStatus>> {
    let log = sandbox.folder().join("crash.log");
    let _ = std::fs::remove_file(&log);
    let environment = [
        ("TENANTRY_CRASH_AT", format!("{}#{}", point.name, point.hit)),
        ("TENANTRY_CRASH_LOG", log.display().to_string()),
    ];
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

/// Crashes at each of these points, in a sandbox that is made anew after something did not hold.
pub async fn crash_at_each(workload: Workload, wanted: Vec<Vec<Point>>) -> Result<Vec<Row>> {
    let mut queues: BTreeMap<&str, Vec<Vec<Point>>> = BTreeMap::new();
    for points in wanted.into_iter().rev() {
        queues.entry(key(points[0].way)).or_default().push(points);
    }
    let mut rows = Vec::new();
    let mut sandbox = Sandbox::new(workload, "crash").await?;
    let mut number = 0;
    while queues.values().any(|queue| !queue.is_empty()) {
        let way = onward(&sandbox);
        let mut take = |way| queues.get_mut(key(way)).and_then(Vec::pop);
        let Some(points) = take(way).or_else(|| take(Way::Failing)) else {
            // Only points of the other way are left: go there undisturbed.
            record(&mut sandbox, way).await?;
            continue;
        };
        number += 1;
        let begun = Instant::now();
        match crash(&mut sandbox, &points, number).await {
            Ok(Some(row)) => {
                println!(
                    "{:>12} {:?} {} -> {} in {} ms, {} ms in all",
                    row.workload,
                    row.way,
                    row.points.join(" then "),
                    row.outcome,
                    row.recovery_ms,
                    begun.elapsed().as_millis()
                );
                rows.push(row);
            }
            Ok(None) => println!("{:>12} {:?} {} was not reached", workload.name(), way, points[0].name),
            Err(error) => {
                let names: Vec<String> =
                    points.iter().map(|point| format!("{}#{}", point.name, point.hit)).collect();
                let log = std::fs::read_to_string(sandbox.folder().join("agent.log")).unwrap_or_default();
                let end: Vec<&str> = log.lines().rev().take(12).collect();
                println!(
                    "{:>12} {:?} {} BROKEN: {error:#}\nthe agent said:\n{}",
                    workload.name(),
                    points[0].way,
                    names.join(" then "),
                    end.into_iter().rev().collect::<Vec<_>>().join("\n")
                );
                rows.push(Row {
                    workload: workload.name(),
                    way: points[0].way,
                    points: names,
                    outcome: String::new(),
                    recovery_ms: 0,
                    ready_ms: 0,
                    broken: Some(format!("{error:#}")),
                });
                drop(sandbox);
                sandbox = Sandbox::new(workload, "crash").await?;
            }
        }
    }
    Ok(rows)
}

const fn key(way: Way) -> &'static str {
    match way {
        Way::Up => "up",
        Way::Down => "down",
        Way::Failing => "failing",
    }
}
