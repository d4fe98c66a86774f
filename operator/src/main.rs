//! `tenantry-operator`: reads its arguments, wires the parts together, and ends cleanly.

use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Parser as _;
use rustls::pki_types::UnixTime;
use tenantry_operator::agents::client::HttpsAgents;
use tenantry_operator::agents::trust::Trust;
use tenantry_operator::arguments::Arguments;
use tenantry_operator::health::Health;
use tenantry_operator::leader::{self, Lease};
use tenantry_operator::metrics::Metrics;
use tenantry_operator::operator::{Operator, Setup};
use tenantry_operator::rights::Rights;
use tenantry_operator::startup;
use tenantry_operator::stores::Scope;
use tenantry_process::Hangup;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    tenantry_process::log(arguments.log_format, "info,kube_lease_manager=warn");
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
    let end = tenantry_process::shutdown(Hangup::IsNotHeard, arguments.exit_on_stdin_close)?;
    let trust = Trust::read(&arguments.tls_ca, &arguments.tls_cert, &arguments.tls_key)?;
    trust.check_own(UnixTime::now())?;
    let client = startup::client(arguments.kubeconfig.as_deref()).await?;
    if arguments.check_config {
        println!("The certificates and the kubeconfig can be used.");
        return Ok(());
    }
    let metrics = Arc::new(Metrics::default());
    let listener = tokio::net::TcpListener::bind(arguments.metrics_listen)
        .await
        .with_context(|| format!("--metrics-listen: can't listen on {}", arguments.metrics_listen))?;
    let address = listener.local_addr()?;
    let scope =
        if arguments.namespace == "all" { Scope::All } else { Scope::Namespace(arguments.namespace.clone()) };
    let lease_namespace = arguments.leader_elect.then(|| arguments.lease_namespace.clone());
    let rights = Arc::new(Rights::new(client.clone(), scope.clone(), lease_namespace));
    let health = Health::new(metrics.clone(), rights.clone());
    let serving = tokio::spawn(health.clone().serve(listener, end.clone().cancelled_owned()));
    let by_chance = || {
        let machine = std::env::var("HOSTNAME").unwrap_or_else(|_| "operator".to_owned());
        format!("{machine}-{:08x}", fastrand::u32(..))
    };
    let instance = arguments.leader_elect_identity.clone().unwrap_or_else(by_chance);
    rights.look().await;
    let mut lead = None;
    if arguments.leader_elect {
        let lease = Lease { namespace: &arguments.lease_namespace, scope: &scope };
        let Some(won) = leader::lead(client.clone(), lease, &instance, &end).await? else {
            return Ok(());
        };
        // A lost lead ends the process: a new one waits for its turn.
        let (lost, end) = (won.lost.clone(), end.clone());
        tokio::spawn(async move {
            lost.cancelled().await;
            end.cancel();
        });
        lead = Some(won);
    }
    let setup = Setup {
        client,
        scope,
        agents: Arc::new(HttpsAgents::new(trust)),
        bundle_directory: arguments.bundle_dir,
        concurrency: usize::from(arguments.concurrency),
        instance: Some(instance),
        metrics,
        rights,
    };
    let ready = {
        let health = health.clone();
        move || {
            health.set_ready(true);
            if let Err(error) =
                tenantry_process::say_ready(serde_json::json!({"metrics": address.to_string()}))
            {
                tracing::warn!("nobody reads that this is ready: {error}");
            }
            tracing::info!(metrics = %address, "ready");
        }
    };
    Operator::new(setup).run(ready, end).await;
    health.set_ready(false);
    if let Some(lead) = lead {
        lead.give_up().await;
    }
    serving.abort();
    tracing::info!("ended");
    Ok(())
}
