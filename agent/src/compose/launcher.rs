//! What starts compose on this host, and what a person would type: the one way to both, of which the simulation has one
//! of its own.

use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use futures::future::BoxFuture;
use tokio::process::Command;

use super::find::find;
use super::login_shell::login_shell;
use super::{ComposeError, Found, Output, RunError, crash_points, environment, run};

/// A run of compose.
pub struct Run<'a> {
    /// Where.
    pub directory: &'a Path,
    /// What is asked of it.
    pub arguments: &'a [OsString],
    /// When it is over, compose and all its children are ended.
    pub limit: Duration,
    /// The lock under which it changes something, as its standard input.
    pub lock: Option<OwnedFd>,
}

/// What starts compose on a host.
pub trait Launcher: Send + Sync {
    /// Finds the plugin and asks for its version.
    fn find(&self) -> BoxFuture<'_, Result<Found, ComposeError>>;
    /// Runs compose and waits for its end. It is ended when the caller gives up.
    fn compose<'a>(&'a self, program: &'a OsStr, run: Run<'a>) -> BoxFuture<'a, Result<Output, RunError>>;
    /// Runs words in a login shell, as a person would; `None` where there is no shell that one could log in to.
    fn by_hand<'a>(
        &'a self,
        directory: &'a Path,
        words: &'a [OsString],
    ) -> BoxFuture<'a, Result<Option<Output>, RunError>>;
}

/// The programs of this machine.
pub struct Programs {
    docker_host: String,
}

impl Programs {
    /// Those of this machine; compose talks to the engine at `docker_host`.
    pub fn new(docker_host: &str) -> Self {
        Self { docker_host: docker_host.to_owned() }
    }
}

impl Launcher for Programs {
    fn find(&self) -> BoxFuture<'_, Result<Found, ComposeError>> {
        Box::pin(find(&self.docker_host))
    }

    fn compose<'a>(&'a self, program: &'a OsStr, run: Run<'a>) -> BoxFuture<'a, Result<Output, RunError>> {
        Box::pin(self.plugin(program, run))
    }

    fn by_hand<'a>(
        &'a self,
        directory: &'a Path,
        words: &'a [OsString],
    ) -> BoxFuture<'a, Result<Option<Output>, RunError>> {
        Box::pin(login_shell(&self.docker_host, directory, words))
    }
}

impl Programs {
    async fn plugin(&self, program: &OsStr, asked: Run<'_>) -> Result<Output, RunError> {
        let Run { directory, arguments, limit, lock } = asked;
        let mut command = Command::new(program);
        command.args(arguments).env_clear().envs(environment(&self.docker_host));
        crash_points::at(arguments, "before");
        let running = crash_points::running(arguments);
        let ended = run(command, directory, limit, lock).await;
        drop(running);
        crash_points::at(arguments, "after");
        ended
    }
}
