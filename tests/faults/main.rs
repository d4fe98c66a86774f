//! The crash matrix: a real agent, a real engine, real compose, and SIGKILL at every point that the agent has.
//!
//! `cargo xtask test` tries some points of each workload; `cargo xtask faults` tries all of them (`TENANTRY_FAULTS=all`)
//! and shows the table. Results are in `target/faults/`.

mod agent;
mod matrix;
mod promises;
mod sandbox;
mod workload;

use std::path::PathBuf;

use anyhow::{Result, ensure};
use matrix::{Point, Row, Way, crash_at_each, record};
use sandbox::Sandbox;
use workload::Workload;

/// How many points of a way are tried where not all are asked for.
const SOME: usize = 5;
/// How many double crashes of a workload are tried, and where not all are asked for.
const DOUBLES: (usize, usize) = (16, 2);

fn all() -> bool {
    std::env::var("TENANTRY_FAULTS").is_ok_and(|value| value == "all")
}

/// Every point of a workload: those of the way back and of a failing release only where the way there has none.
async fn every_point(workload: Workload) -> Result<Vec<Point>> {
    let mut sandbox = Sandbox::new(workload, "record").await?;
    let mut points: Vec<Point> = Vec::new();
    for way in [Way::Up, Way::Down, Way::Failing] {
        for point in record(&mut sandbox, way).await? {
            if !points.iter().any(|known| known.name == point.name) {
                points.push(point);
            }
        }
    }
    Ok(points)
}

/// All, or a few that are spread evenly, others for each workload.
fn chosen(points: Vec<Point>, workload: Workload) -> Vec<Point> {
    if all() {
        return points;
    }
    let offset = Workload::ALL.iter().position(|one| *one == workload).unwrap_or_default();
    let mut few = Vec::new();
    for way in [Way::Up, Way::Failing] {
        let of_way: Vec<&Point> = points.iter().filter(|point| point.way == way).collect();
        let step = (of_way.len() / SOME).max(1);
        let from = offset * step / Workload::ALL.len();
        few.extend(of_way.into_iter().skip(from).step_by(step).take(SOME).cloned());
    }
    few
}

async fn crashes(workload: Workload) -> Result<()> {
    let points = every_point(workload).await?;
    println!("{}: {} points", workload.name(), points.len());
    ensure!(points.len() >= 60, "{} has only {} points", workload.name(), points.len());
    let wanted = chosen(points, workload).into_iter().map(|point| vec![point]).collect();
    report(workload.name(), &crash_at_each(workload, "single", wanted).await?)
}

/// Two crashes in one operation, the second at a later point of the same way.
async fn double_crashes(workload: Workload) -> Result<()> {
    let points = every_point(workload).await?;
    let seed = Workload::ALL.iter().position(|one| *one == workload).unwrap_or_default() as u64;
    let mut random = fastrand::Rng::with_seed(seed);
    let mut wanted = Vec::new();
    let count = if all() { DOUBLES.0 } else { DOUBLES.1 };
    while wanted.len() < count {
        let first = random.usize(..points.len() - 1);
        let later: Vec<&Point> =
            points[first + 1..].iter().filter(|point| point.way == points[first].way).collect();
        if let Some(second) = random.choice(later) {
            // Counted from the agent's start, it comes to it sooner than an agent that begins at the beginning.
            wanted.push(vec![points[first].clone(), Point { hit: 1, ..second.clone() }]);
        }
    }
    report(&format!("{}-double", workload.name()), &crash_at_each(workload, "double", wanted).await?)
}

/// Writes what was seen, and fails where something did not hold.
fn report(name: &str, rows: &[Row]) -> Result<()> {
    let folder = PathBuf::from(tenantry_tests::required("TENANTRY_BIN_DIR")?).join("../faults");
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
    ($($single:ident, $double:ident, $workload:expr;)*) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $single() -> Result<()> {
                crashes($workload).await
            }

            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $double() -> Result<()> {
                double_crashes($workload).await
            }
        )*
    };
}

workloads! {
    p3_p6_crashes_of_an_image_only_upgrade, p3_p6_double_crashes_of_an_image_only_upgrade, Workload::ImageOnly;
    p3_p6_crashes_of_a_release_with_a_mounted_file, p3_p6_double_crashes_of_a_release_with_a_mounted_file, Workload::Release;
    p3_p6_crashes_with_a_managed_env, p3_p6_double_crashes_with_a_managed_env, Workload::ManagedEnv;
    p3_p7_crashes_with_an_adopted_env, p3_p7_double_crashes_with_an_adopted_env, Workload::AdoptedEnv;
    p3_p9_crashes_with_volumes, p3_p9_double_crashes_with_volumes, Workload::Volumes;
}
