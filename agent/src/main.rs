//! `tenantry-agent`: reads the host's policy file, wires the parts together, and ends cleanly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use tenantry_agent::config::Config;
use tenantry_agent::finisher;
use tenantry_agent::server::Limits;
use tenantry_agent::snapshot::helper;
use tenantry_agent::startup;
use tenantry_agent::tls::Certificates;
use tenantry_agent::{metrics, server};
use tenantry_api::names::OperationId;
use tenantry_process::{Hangup, LogFormat};
use tokio::net::TcpListener;

/// The agent of a Tenantry host: carries out what its operators ask for, within its own policy file.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The host's policy file (YAML): who may ask, and for what.
    #[arg(long, value_name = "FILE", default_value = "/etc/tenantry/agent.yaml")]
    config: PathBuf,
    /// How log lines look; `auto`: text on a terminal, JSON elsewhere.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    /// Read the policy file and the certificates that it names, say whether they can be used, and end.
    #[arg(long)]
    check_config: bool,
    /// End cleanly when standard input ends: whoever started this agent is gone then.
    #[arg(long)]
    exit_on_stdin_close: bool,
    /// Recreate the agent for an operation that the agent has handed over; made and called by the agent itself.
    #[arg(long, value_name = "OPERATION", hide = true)]
    finish: Option<String>,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Works on one folder and says what came of it; started by the agent itself, in a container
    #[command(hide = true)]
    Helper {
        #[command(subcommand)]
        job: helper::Job,
    },
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if let Some(Command::Helper { job }) = arguments.command {
        return helper::run(job);
    }
    tenantry_process::log(arguments.log_format, "info");
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.context("can't start").and_then(|runtime| {
        let ended = runtime.block_on(run(&arguments));
        runtime.shutdown_timeout(Duration::from_millis(500));
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the agent can't go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let end = tenantry_process::shutdown(Hangup::IsNotHeard, arguments.exit_on_stdin_close)
        .context("can't watch for signals")?;
    let config = Arc::new(Config::load(&arguments.config)?);
    if arguments.check_config {
        Certificates::load(config.clone())?.check_time(jiff::Timestamp::now().as_second())?;
        println!("{} and the certificates that it names can be used.", arguments.config.display());
        return Ok(());
    }
    startup::tell_faults(&config.state_dir);
    if let Some(operation) = &arguments.finish {
        let operation = OperationId::parse(operation.clone())?;
        tokio::select! {
            finished = finisher::finish(config, operation) => finished?,
            () = end.cancelled() => {}
        }
        return Ok(());
    }
    let certificates = Arc::new(Certificates::load(config.clone())?);
    if let Err(error) = certificates.check_time(jiff::Timestamp::now().as_second()) {
        tracing::warn!(%error, "going on until another certificate is put there");
    }
    let (listener, address) = bind(config.listen, "listen").await?;
    let (metrics_listener, metrics_address) = bind(config.metrics_listen, "metricsListen").await?;
    let core = startup::core(config.clone()).await?;
    let counted = core.metrics();

    let scraped = core.clone();
    let host = move || {
        let core = scraped.clone();
        async move { core.host().await }
    };
    let serving_metrics =
        tokio::spawn(metrics::serve(metrics_listener, counted.clone(), host, end.clone().cancelled_owned()));
    counted.set_ready(true);
    tenantry_process::say_ready(serde_json::json!({
        "listen": address.to_string(),
        "metrics": metrics_address.to_string(),
    }))?;
    tracing::info!(identity = %config.identity, %address, metrics = %metrics_address, "listening");
    server::serve(listener, certificates, core.clone(), counted.clone(), Limits::default(), end).await;

    counted.set_ready(false);
    if tokio::time::timeout(Duration::from_secs(1), core.shutdown()).await.is_err() {
        tracing::warn!("ended with an operation in flight: it goes on from its journal at the next start");
    }
    serving_metrics.abort();
    tracing::info!("ended");
    Ok(())
}

async fn bind(address: SocketAddr, field: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("{field}: can't listen on {address}; is another agent running?"))?;
    let bound = listener.local_addr()?;
    Ok((listener, bound))
}
