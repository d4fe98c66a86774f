//! Starting and ending: logs, signals, the client of the API server, the ready line.

use std::io::Write as _;
use std::net::SocketAddr;
use std::path::Path;

use anyhow::Context as _;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::io::AsyncReadExt as _;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// Lines for people.
    Text,
    /// A JSON object for each line.
    Json,
}

/// Begins to log, on standard error; `RUST_LOG` chooses what.
pub fn log(format: LogFormat) {
    let terminal = std::io::IsTerminal::is_terminal(&std::io::stderr());
    let json = format == LogFormat::Json || (format == LogFormat::Auto && !terminal);
    let filter =
        EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info,kube_lease_manager=warn"));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .log_internal_errors(false);
    if json {
        lines.json().init();
    } else {
        lines.with_ansi(terminal).init();
    }
}

/// A token that ends with SIGTERM, SIGINT or, where asked for, the end of standard input.
pub fn end_of_process(on_stdin_close: bool) -> anyhow::Result<CancellationToken> {
    let end = CancellationToken::new();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let token = end.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = token.cancelled() => {}
        }
        // First the end, then the log line: standard error may be a broken pipe by now.
        token.cancel();
        tracing::info!("ending");
    });
    if on_stdin_close {
        let token = end.clone();
        tokio::spawn(async move {
            let mut ignored = [0_u8; 256];
            let mut stdin = tokio::io::stdin();
            while matches!(stdin.read(&mut ignored).await, Ok(read) if read > 0) {}
            token.cancel();
        });
    }
    Ok(end)
}

/// A client of the API server that a kubeconfig names, or of the cluster that this runs in.
pub async fn client(kubeconfig: Option<&Path>) -> anyhow::Result<Client> {
    let mut config = match kubeconfig {
        Some(path) => {
            let read =
                Kubeconfig::read_from(path).with_context(|| format!("{} can't be used", path.display()))?;
            kube::Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await?
        }
        None => {
            kube::Config::infer().await.context("there is neither a kubeconfig nor a cluster around this")?
        }
    };
    // Watches are held open for almost 5 minutes; everything else is answered well within that.
    config.read_timeout = Some(std::time::Duration::from_secs(310));
    Client::try_from(config).context("no client of the API server can be made")
}

/// Tells whoever started this that it works.
pub fn say_ready(metrics: SocketAddr) -> anyhow::Result<()> {
    let line = serde_json::json!({ "ready": true, "metrics": metrics.to_string() });
    let mut out = std::io::stdout().lock();
    writeln!(out, "{line}")?;
    out.flush()?;
    Ok(())
}
