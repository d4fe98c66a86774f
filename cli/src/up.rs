//! `tenantry up`: control plane, operator and an agent for this machine in one supervised tree, for people with one
//! server and no cluster.

mod backoff;
mod certificates;
mod cluster;
mod layout;
mod lead;
mod log;
mod policy;
mod processes;
mod programs;
mod ready;
mod supervise;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context as _;
use clap::Args;
use tenantry_api::names::Directory;
use tenantry_planner::policy::{AllowedMount, Feature};
use tenantry_process::Hangup;

use crate::{output, paths};
pub(crate) use certificates::LOCAL;
use layout::Layout;
use processes::Processes;

/// Start a control plane, an operator and an agent for this machine, and keep them running
///
/// State survives a restart. Ctrl-C ends all of it and leaves tenants running.
#[derive(Clone, Debug, Args)]
pub struct Up {
    /// Where all state is kept [default: /var/lib/tenantry for root, ~/.local/state/tenantry for others]
    #[arg(long, value_name = "DIR")]
    state_dir: Option<PathBuf>,
    /// Where the control plane listens
    #[arg(long, value_name = "ADDRESS", default_value = "127.0.0.1:7441", conflicts_with = "kubeconfig")]
    listen: SocketAddr,
    /// Use this cluster instead of a control plane of one's own
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The folder beneath which bundles with `source.directory` are found
    #[arg(long, value_name = "DIR")]
    bundle_dir: Option<PathBuf>,
    /// Tenants may live at or below this directory; for the policy file at the first start [default: /srv]
    #[arg(long, value_name = "DIR", value_parser = |text: &str| Directory::parse(text))]
    allow_directory: Vec<Directory>,
    /// Images may come from this registry, `*` for any; for the policy file at the first start [default: *]
    #[arg(long, value_name = "REGISTRY")]
    allow_registry: Vec<String>,
    /// Compose files may ask for this beyond ordinary containers, a word of docs/agent.md such as `DockerSocket`; for the
    /// policy file at the first start
    #[arg(long, value_name = "WORD", value_parser = policy::feature)]
    allow_compose: Vec<Feature>,
    /// Containers may mount this host directory or file, `:ro` where they may only read it; for the policy file at the first
    /// start
    #[arg(long, value_name = "PATH[:ro]", value_parser = policy::mount)]
    allow_mount: Vec<AllowedMount>,
    /// Where the agent listens; for the policy file at the first start [default: a free port of 127.0.0.1]
    #[arg(long, value_name = "ADDRESS")]
    agent_listen: Option<SocketAddr>,
    /// The namespace that gets the ComposeHost `local`
    #[arg(long, value_name = "NAME", default_value = "default")]
    namespace: String,
    /// Write here, as JSON, what runs where, once all of it does
    #[arg(long, value_name = "FILE")]
    ready_file: Option<PathBuf>,
    /// Where tenantry-standalone, tenantry-operator and tenantry-agent are [default: beside this program, then PATH]
    #[arg(long, value_name = "DIR", env = "TENANTRY_BIN_DIR")]
    bin_dir: Option<PathBuf>,
    /// The control plane's program, if it is somewhere else
    #[arg(long, value_name = "FILE", env = "TENANTRY_STANDALONE")]
    standalone: Option<PathBuf>,
    /// End cleanly when standard input ends
    #[arg(long)]
    exit_on_stdin_close: bool,
}

/// Runs `tenantry up` until it is told to end.
pub async fn run(up: Up) -> anyhow::Result<ExitCode> {
    let end = tenantry_process::shutdown(Hangup::Ends, up.exit_on_stdin_close)
        .context("can't watch for signals")?;
    let layout = Layout::prepare(&up.state_dir.clone().unwrap_or_else(paths::default_state_dir))?;
    let _lock = layout.lock()?;
    if let Some(file) = &up.ready_file {
        ready::forget(file)?;
    }
    let mut processes = Processes::new(up, layout)?;
    let outcome = tokio::select! {
        outcome = processes.run() => outcome,
        () = end.cancelled() => Ok(()),
    };
    output::err("Ending; tenants keep running.");
    processes.stop().await;
    outcome.map(|()| ExitCode::SUCCESS)
}
