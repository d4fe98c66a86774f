//! `tenantry`, also as `kubectl tenantry`: arguments, wiring, and errors as sentences.

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tenantry_cli::{accept, adopt, claim, explain, output, pki, retry, rollback, status, up, watch};

/// Releases for Docker Compose hosts, from Kubernetes resources.
#[derive(Parser)]
#[command(version, about, bin_name = name())]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Up(up::Up),
    Adopt(adopt::Adopt),
    Status(status::Status),
    Explain(explain::Explain),
    Watch(watch::Watch),
    Retry(retry::Retry),
    Reconcile(retry::Reconcile),
    Rollback(rollback::Rollback),
    AcceptHost(accept::AcceptHost),
    Claim(claim::Claim),
    Pki(pki::Pki),
}

/// As a plugin of kubectl this program is called `kubectl-tenantry`; people type `kubectl tenantry`.
fn name() -> &'static str {
    let called = std::env::args_os().next().unwrap_or_default();
    let called = std::path::Path::new(&called).file_name().unwrap_or_default();
    if called.to_string_lossy().starts_with("kubectl-tenantry") { "kubectl tenantry" } else { "tenantry" }
}

fn main() -> ExitCode {
    // A second provider could come in with a dependency: say which one before anything asks.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match run(Arguments::parse().command) {
        Ok(code) => code,
        Err(error) => {
            output::err(format!("{}: {}", name(), told(&error)));
            ExitCode::FAILURE
        }
    }
}

/// An error with its causes; one that says nothing new is left out.
fn told(error: &anyhow::Error) -> String {
    error.chain().map(ToString::to_string).fold(String::new(), |said, cause| match said.is_empty() {
        true => cause,
        false if said.contains(&cause) => said,
        false => format!("{said}: {cause}"),
    })
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    if let Command::Pki(pki) = command {
        return pki::run(pki).map(|()| ExitCode::SUCCESS);
    }
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let ended = runtime.block_on(async {
        match command {
            Command::Up(up) => up::run(up).await,
            Command::Adopt(adopt) => adopt::run(&adopt).await,
            Command::Status(status) => status::run(&status).await,
            Command::Explain(explain) => explain::run(&explain).await,
            Command::Watch(watch) => watch::run(&watch).await,
            Command::Retry(retry) => retry::run(&retry).await,
            Command::Reconcile(reconcile) => retry::reconcile(&reconcile).await,
            Command::Rollback(rollback) => rollback::run(&rollback).await,
            Command::AcceptHost(accept) => accept::run(&accept).await,
            Command::Claim(claim) => claim::run(&claim).await,
            Command::Pki(_) => Ok(ExitCode::SUCCESS), // done above, without a runtime
        }
    });
    runtime.shutdown_background();
    ended
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cause_is_said_once() {
        let error = anyhow::anyhow!("No such file").context("/x: No such file").context("KUBECONFIG");
        assert_eq!(told(&error), "KUBECONFIG: /x: No such file");
    }
}
