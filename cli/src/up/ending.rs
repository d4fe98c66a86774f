//! What ends this program.

use std::io::Read;

use anyhow::Context;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::oneshot;

/// Waits for a reason to end.
pub struct Told {
    terminated: Signal,
    hung_up: Signal,
    interrupted: Signal,
    closed: Option<oneshot::Receiver<()>>,
}

/// From now on SIGTERM, SIGINT and a closed terminal no longer kill this process: [`Told::ended`] tells of them.
pub fn told(on_stdin_close: bool) -> anyhow::Result<Told> {
    let listen = |kind| signal(kind).context("can't watch for signals");
    let closed = if on_stdin_close { Some(watch_stdin()?) } else { None };
    Ok(Told {
        terminated: listen(SignalKind::terminate())?,
        hung_up: listen(SignalKind::hangup())?,
        interrupted: listen(SignalKind::interrupt())?,
        closed,
    })
}

fn watch_stdin() -> anyhow::Result<oneshot::Receiver<()>> {
    let (sender, receiver) = oneshot::channel();
    // A thread of its own: a blocking read on the runtime would keep the runtime from ending.
    std::thread::Builder::new().name("stdin".to_owned()).spawn(move || {
        let mut bytes = [0; 64];
        while std::io::stdin().read(&mut bytes).is_ok_and(|read| read > 0) {}
        let _ = sender.send(());
    })?;
    Ok(receiver)
}

impl Told {
    /// Resolves once there is a reason to end.
    pub async fn ended(&mut self) {
        let closed = async {
            match &mut self.closed {
                Some(closed) => drop(closed.await),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.terminated.recv() => {}
            _ = self.interrupted.recv() => {}
            _ = self.hung_up.recv() => {}
            () = closed => {}
        }
    }
}
