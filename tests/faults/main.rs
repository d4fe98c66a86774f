//! The crash matrix: a real agent, a real engine, real compose, and SIGKILL at every point that the agent has.
//!
//! `cargo xtask test` tries some points of each workload; `cargo xtask faults` tries all of them and shows the table.
//! Results are in `faults/` of cargo's folder of this machine's target.
//!
//! | variable | what |
//! |---|---|
//! | `TENANTRY_FAULTS` | `all` points, or so many, evenly spread, and more double crashes |
//! | `TENANTRY_FAULTS_AT` | these crashes alone, `;` between them: `Up files.rename.env.before#1`, or two points with ` then ` between them |
//! | `TENANTRY_FAULTS_MINUTES` | no crash is begun later than that |
//! | `TENANTRY_FAULTS_MORE` | what the last run recovered from is not tried again |

mod agent;
mod data;
mod matrix;
mod plan;
mod promises;
mod report;
mod sandbox;
mod strace;
mod times;
mod trip;
mod workload;

use anyhow::{Result, ensure};
use matrix::{Todo, crash_at_each};
use plan::{Asked, Found, must_have, wanted};
use report::Rows;
use workload::Workload;

/// Points that a workload has at least.
const POINTS: usize = 60;

async fn crashes(workload: Workload) -> Result<()> {
    let asked = Asked::of_environment()?;
    let found = if asked.alone() { Found::default() } else { Found::of(workload).await? };
    let rows = Rows::new(workload, &found.names(), asked.more)?;
    let crashes = wanted(&found, workload, &asked, &rows);
    if !asked.alone() {
        println!("{}: {} points, {} crashes", workload.name(), found.names().len(), crashes.len());
        ensure!(found.names().len() >= POINTS, "{} has only {:?}", workload.name(), found.names());
        must_have(workload, &found)?;
    }
    let known = found.names().into_iter().map(str::to_owned).chain(rows.recovered()).collect();
    let mut todo = Todo::new(crashes, known, asked.many() && !asked.alone(), asked.until);
    crash_at_each(workload, &mut todo, &rows).await?;
    if todo.left() > 0 {
        println!("{}: {} crashes were not begun in time", workload.name(), todo.left());
    }
    rows.check()
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
    if Asked::of_environment()?.many() {
        strace::every_change_is_announced(Workload::Volumes).await
    } else {
        Ok(())
    }
}
