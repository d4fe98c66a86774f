//! `tenantry-operator`: reads its arguments, wires the parts together, and ends cleanly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser;
use tenantry_operator::agents::client::HttpsAgents;
use tenantry_operator::agents::trust::Trust;
use tenantry_operator::health::Health;
use tenantry_operator::leader;
use tenantry_operator::metrics::Metrics;
use tenantry_operator::operator::{Operator, Setup};
use tenantry_operator::startup::{self, LogFormat};
use tenantry_operator::stores::Scope;

/// The operator of a fleet of Docker Compose hosts.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// The API server's kubeconfig. Default: as kubectl finds it, or the cluster that this runs in.
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// The namespace that is looked after, or `all`.
    #[arg(long, default_value = "all")]
    namespace: String,
    /// The authority that agents' certificates must be of (PEM).
    #[arg(long, value_name = "FILE")]
    tls_ca: PathBuf,
    /// The operator's own certificate (PEM).
    #[arg(long, value_name = "FILE")]
    tls_cert: PathBuf,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE")]
    tls_key: PathBuf,
    /// A folder of this machine with a folder for each bundle.
    #[arg(long, value_name = "DIR")]
    bundle_dir: Option<PathBuf>,
    /// Where metrics and health are served, over plain HTTP.
    #[arg(long, default_value = "127.0.0.1:7442")]
    metrics_listen: SocketAddr,
    /// Work only while no other operator does.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    leader_elect: bool,
    /// The namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    lease_namespace: String,
    /// How many Tenants are looked at at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    concurrency: u16,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    log_format: LogFormat,
    /// End cleanly when standard input ends: whoever started this operator is gone then.
    #[arg(long)]
    exit_on_stdin_close: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    startup::log(arguments.log_format);
    // Fails only where a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let ended = runtime.context("can't start").and_then(|runtime| {
        let ended = runtime.block_on(run(arguments));
        runtime.shutdown_timeout(Duration::from_millis(500));
        ended
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("the operator can't go on: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: Arguments) -> anyhow::Result<()> {
    let end = startup::end_of_process(arguments.exit_on_stdin_close)?;
    let trust = Trust::read(&arguments.tls_ca, &arguments.tls_cert, &arguments.tls_key)?;
    let client = startup::client(arguments.kubeconfig.as_deref()).await?;
    let metrics = Arc::new(Metrics::default());
    let listener = tokio::net::TcpListener::bind(arguments.metrics_listen)
        .await
        .with_context(|| format!("--metrics-listen: can't listen on {}", arguments.metrics_listen))?;
    let address = listener.local_addr()?;
    let health = Health::new(metrics.clone());
    let serving = tokio::spawn(health.clone().serve(listener, end.clone().cancelled_owned()));
    let instance = format!(
        "{}-{:08x}",
        std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned()),
        fastrand::u32(..)
    );
    if arguments.leader_elect {
        let Some(lead) = leader::lead(client.clone(), &arguments.lease_namespace, &instance, &end).await?
        else {
            return Ok(());
        };
        let (lost, end) = (lead.lost.clone(), end.clone());
        tokio::spawn(async move {
            // Held as long as the process: a lost lead ends it, and a new process waits for its turn.
            let _lead = lead;
            lost.cancelled().await;
            end.cancel();
        });
    }
    let scope =
        if arguments.namespace == "all" { Scope::All } else { Scope::Namespace(arguments.namespace.clone()) };
    let setup = Setup {
        client,
        scope,
        agents: Arc::new(HttpsAgents::new(trust)),
        bundle_directory: arguments.bundle_dir,
        concurrency: usize::from(arguments.concurrency),
        instance: Some(instance),
        metrics,
    };
    let ready = {
        let health = health.clone();
        move || {
            health.set_ready(true);
            if let Err(error) = startup::say_ready(address) {
                tracing::warn!("nobody reads that this is ready: {error}");
            }
            tracing::info!(metrics = %address, "ready");
        }
    };
    Operator::new(setup).run(ready, end).await;
    health.set_ready(false);
    serving.abort();
    tracing::info!("ended");
    Ok(())
}
