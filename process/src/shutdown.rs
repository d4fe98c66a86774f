//! What tells a program to end.

use std::io::Read as _;

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// What the end of the terminal means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hangup {
    /// The program ends: it is a person's at that terminal.
    Ends,
    /// The same as without this crate.
    IsNotHeard,
}

/// A token that is cancelled on SIGTERM, on SIGINT and, where asked for, on SIGHUP and when standard input ends. From
/// now on these signals no longer kill the process.
pub fn shutdown(hangup: Hangup, on_stdin_close: bool) -> std::io::Result<CancellationToken> {
    let end = CancellationToken::new();
    let (mut terminated, mut interrupted) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let mut hung_up = (hangup == Hangup::Ends).then(|| signal(SignalKind::hangup())).transpose()?;
    let signalled = end.clone();
    tokio::spawn(async move {
        let name = tokio::select! {
            _ = terminated.recv() => "SIGTERM",
            _ = interrupted.recv() => "SIGINT",
            () = received(hung_up.as_mut()) => "SIGHUP",
        };
        // The end comes before the log line: standard error may be a broken pipe by now.
        signalled.cancel();
        tracing::info!(signal = name, "ending");
    });
    if on_stdin_close {
        let closed = end.clone();
        // A thread of its own: a blocking read on the runtime would keep the runtime from ending.
        std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
            let mut bytes = [0; 64];
            while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
            closed.cancel();
            tracing::info!("standard input ended: ending");
        })?;
    }
    Ok(end)
}

async fn received(signal: Option<&mut Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}
