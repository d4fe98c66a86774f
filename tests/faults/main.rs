//! The crash matrix: a real agent, a real engine, real compose, and SIGKILL at every point that the agent has.
//!
//! `cargo xtask test` tries some points of each workload; `cargo xtask faults` tries all of them (`TENANTRY_FAULTS=all`,
//! or a number of them) and shows the table. Results are in `target/faults/`.

mod agent;
mod matrix;
mod promises;
mod sandbox;
mod strace;
mod workload;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use matrix::{Point, Row, Way, crash_at_each, record};
use sandbox::Sandbox;
use workload::Workload;

/// How many points of a way are tried where not all are asked for.
const SOME: [(Way, usize); 3] = [(Way::Up, 3), (Way::Down, 3), (Way::Failing, 3)];
/// How many double crashes of a workload are tried, and where not all are asked for.
const DOUBLES: (usize, usize) = (16, 1);
/// How many hosts of a workload are crashed side by side where all points are.
const SIDE_BY_SIDE: usize = 2;

/// How many points of a workload are asked for: `all`, or a number. `None`: only a few.
fn asked() -> Option<usize> {
    let value = std::env::var("TENANTRY_FAULTS").ok()?;
    if value == "all" { Some(usize::MAX) } else { value.parse().ok() }
}

/// Every point of a workload, each on one of the ways that come by it: the way there and the way back take turns, and
/// a release that fails has what is on neither.
async fn every_point(workload: Workload) -> Result<Vec<Point>> {
    let mut sandbox = Sandbox::new(workload, "record").await?;
    let up = record(&mut sandbox, Way::Up).await?;
    let down = record(&mut sandbox, Way::Down).await?;
    let failing = record(&mut sandbox, Way::Failing).await?;
    let has = |points: &[Point], name: &str| points.iter().any(|point| point.name == name);
    let back = |name: &str| up.iter().position(|point| point.name == name).is_none_or(|at| at % 2 == 1);
    let mut points: Vec<Point> = Vec::new();
    points.extend(up.iter().filter(|point| !(back(&point.name) && has(&down, &point.name))).cloned());
    points.extend(down.iter().filter(|point| back(&point.name)).cloned());
    points.extend(failing.into_iter().filter(|point| !has(&up, &point.name) && !has(&down, &point.name)));
    Ok(points)
}

/// All, or a few that are spread evenly, others for each workload.
fn chosen(points: &[Point], workload: Workload) -> Vec<Vec<Point>> {
    if let Some(count) = asked() {
        let count = count.min(points.len());
        return (0..count).map(|at| vec![points[at * points.len() / count].clone()]).collect();
    }
    let offset = Workload::ALL.iter().position(|one| *one == workload).unwrap_or_default();
    let mut few = Vec::new();
    for (way, some) in SOME {
        let of_way: Vec<&Point> = points.iter().filter(|point| point.way == way).collect();
        let step = (of_way.len() / some).max(1);
        let from = offset * step / Workload::ALL.len();
        few.extend(of_way.into_iter().skip(from).step_by(step).take(some).map(|point| vec![point.clone()]));
    }
    few
}

/// Two crashes in one operation, the second at a later point of the same way. A seed for each workload.
fn doubles(points: &[Point], workload: Workload) -> Vec<Vec<Point>> {
    let seed = Workload::ALL.iter().position(|one| *one == workload).unwrap_or_default() as u64;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut wanted = Vec::new();
    while wanted.len() < if asked().is_some() { DOUBLES.0 } else { DOUBLES.1 } {
        let first = random.usize(..points.len() - 1);
        let later: Vec<&Point> =
            points[first + 1..].iter().filter(|point| point.way == points[first].way).collect();
        if let Some(second) = random.choice(later) {
            // Counted from the agent's start: one that goes on comes to it sooner than one that begins.
            wanted.push(vec![points[first].clone(), Point { hit: 1, ..second.clone() }]);
        }
    }
    wanted
}

async fn crashes(workload: Workload) -> Result<()> {
    let points = every_point(workload).await?;
    println!("{}: {} points", workload.name(), points.len());
    ensure!(points.len() >= 60, "{} has only {} points", workload.name(), points.len());
    let mut wanted = chosen(&points, workload);
    wanted.extend(doubles(&points, workload));
    let hosts = if asked().is_some() { SIDE_BY_SIDE } else { 1 };
    let share = |host| -> Vec<Vec<Point>> { wanted.iter().skip(host).step_by(hosts).cloned().collect() };
    let running: Vec<_> = (0..hosts).map(|host| tokio::spawn(crash_at_each(workload, share(host)))).collect();
    let mut rows = Vec::new();
    for done in running {
        rows.extend(done.await??);
    }
    report(workload.name(), &rows)
}

/// Writes what was seen, and fails where something did not hold.
fn report(name: &str, rows: &[Row]) -> Result<()> {
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).with_file_name("faults");
    std::fs::create_dir_all(&folder)?;
    std::fs::write(folder.join(format!("{name}.json")), serde_json::to_vec_pretty(rows)?)?;
    let broken: Vec<String> = rows
        .iter()
        .filter_map(|row| {
            row.broken.as_ref().map(|why| format!("{:?} {}: {why}", row.way, row.points.join(" then ")))
        })
        .collect();
    ensure!(
        broken.is_empty(),
        "{} of {} crashes broke a promise:\n{}",
        broken.len(),
        rows.len(),
        broken.join("\n")
    );
    ensure!(!rows.is_empty(), "nothing was tried");
    Ok(())
}

macro_rules! workloads {
    ($($name:ident, $workload:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> Result<()> {
                crashes($workload).await
            }
        )*
    };
}

workloads! {
    p3_p6_crashes_of_an_image_only_upgrade, Workload::ImageOnly;
    p3_p6_crashes_of_a_release_with_a_mounted_file, Workload::Release;
    p3_p6_crashes_with_a_managed_env, Workload::ManagedEnv;
    p3_p7_crashes_with_an_adopted_env, Workload::AdoptedEnv;
    p3_p9_crashes_with_volumes, Workload::Volumes;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p6_every_change_to_a_disk_goes_through_the_layer_that_is_recorded() -> Result<()> {
    strace::every_change_is_announced(Workload::Release).await?;
    if asked().is_some() { strace::every_change_is_announced(Workload::Volumes).await } else { Ok(()) }
}
