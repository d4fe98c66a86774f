//! How the program begins and what ends it.

use std::fs::OpenOptions;
use std::io::{IsTerminal, Read, Write};
use std::net::SocketAddr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;

use crate::calls::{Agent, StartError};
use crate::config::Config;
use crate::engine::own_id;
use crate::store::StoreError;

/// How long an agent in a container waits for its records.
const RECORDS_PATIENCE: Duration = Duration::from_mins(1);

/// How log lines look.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Text on a terminal, JSON elsewhere.
    Auto,
    /// A line of text.
    Text,
    /// A line of JSON.
    Json,
}

/// Begins logging on stderr: `info` and above, or what `RUST_LOG` says.
pub fn log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // Whoever reads stderr may be gone: complaining about that on stderr would panic.
        .log_internal_errors(false);
    let json = match format {
        LogFormat::Json => true,
        LogFormat::Text => false,
        LogFormat::Auto => !terminal,
    };
    if json {
        builder.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
    } else {
        builder.with_ansi(terminal).init();
    }
}

/// Where a fault of our own is told, in the folder of the agent's records.
const CRASH_REPORT: &str = "crash-report";

/// A fault of our own is told in the log and, for whoever looks into it, in a file for root's eyes only: where it
/// happened and on what way, but never in its own words, which may hold values (P12). The file is the latest one's.
pub fn tell_faults(state_dir: &Path) {
    let path = state_dir.join(CRASH_REPORT);
    std::panic::set_hook(Box::new(move |fault| {
        let place = fault.location().map(ToString::to_string).unwrap_or_default();
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        // What stands in the program itself is nobody's secret.
        let words = fault.payload().downcast_ref::<&'static str>().copied().unwrap_or("(in other words)");
        tracing::error!(place, thread, words, report = %path.display(), "the agent met a fault of its own");
        let way = std::backtrace::Backtrace::force_capture();
        let version = env!("CARGO_PKG_VERSION");
        let now = jiff::Timestamp::now();
        let text = format!("{now} tenantry-agent {version}\n{place}, thread {thread}: {words}\n\n{way}\n");
        let opened = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&path);
        if let Err(error) = opened.and_then(|mut file| file.write_all(text.as_bytes())) {
            tracing::error!(%error, "the crash report can't be written");
        }
    }));
}

/// A token that is cancelled on SIGTERM, on SIGINT, and, if asked for, when standard input ends.
pub fn end_of_process(on_stdin_close: bool) -> std::io::Result<CancellationToken> {
    let end = CancellationToken::new();
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let signalled = end.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminated.recv() => "SIGTERM",
            _ = interrupted.recv() => "SIGINT",
        };
        signalled.cancel();
        tracing::info!(signal = name, "ending");
    });
    if on_stdin_close {
        let closed = end.clone();
        // A thread of its own: a blocking read on the runtime would keep the runtime from ending.
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut byte = [0; 64];
            while std::io::stdin().read(&mut byte).is_ok_and(|read| read > 0) {}
            closed.cancel();
            tracing::info!("standard input ended: ending");
        })?;
    }
    Ok(end)
}

/// Starts the core. In a container, the one that recreates the agent may hold the records for a while.
pub async fn core(config: Arc<Config>) -> Result<Arc<Agent>, StartError> {
    let patience = if own_id().is_some() { RECORDS_PATIENCE } else { Duration::ZERO };
    let deadline = Instant::now() + patience;
    loop {
        match Agent::start(config.clone()).await {
            Err(StartError::Records(StoreError::InUse { .. })) if Instant::now() < deadline => {
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
            other => return other,
        }
    }
}

/// Tells whoever started this program, on stdout, that it listens now and where.
pub fn say_ready(listen: SocketAddr, metrics: SocketAddr) -> std::io::Result<()> {
    let line =
        serde_json::json!({"ready": true, "listen": listen.to_string(), "metrics": metrics.to_string()});
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    stdout.flush()
}
