//! One program of the tree: started, watched, started again when it dies, ended when told.
//!
//! Each holds its child's standard input open: should this process be killed, the child sees the end of it and ends too.
//! Each child is in a process group of its own, so that Ctrl-C in a terminal reaches this process alone, which then ends
//! the tree in order.

use std::ffi::OsString;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::bail;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::Command;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use super::backoff::Backoff;
use super::log::Log;
use crate::output;

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Program {
    /// What people call it: "agent".
    pub name: &'static str,
    /// Its file.
    pub path: PathBuf,
    /// Its arguments.
    pub args: Vec<OsString>,
    /// How long it may take until it says that it is ready.
    pub ready_within: Duration,
    /// How long it may take to end.
    pub end_within: Duration,
    /// The pause before the first new try.
    pub pause: Duration,
}

/// How a program stands.
#[derive(Clone, Debug, PartialEq)]
pub enum State {
    /// Not ready yet, or between two tries.
    Starting,
    /// It said so, and what else.
    Ready { pid: u32, said: Value },
    /// It is not started again; why, in a sentence.
    GivenUp(String),
}

/// A program that is kept running.
pub struct Child {
    name: &'static str,
    state: watch::Receiver<State>,
    stop: watch::Sender<bool>,
    again: Arc<Notify>,
    task: JoinHandle<()>,
}

impl Child {
    /// Starts the program and keeps it running until [`Child::stop`].
    pub fn start(program: Program, log: Log) -> Self {
        let (told, state) = watch::channel(State::Starting);
        let (stop, stopped) = watch::channel(false);
        let (name, again) = (program.name, Arc::new(Notify::new()));
        let keeper = Keeper { program, log: Arc::new(log), state: told, stopped, again: again.clone() };
        Self { name, state, stop, again, task: tokio::spawn(keeper.keep()) }
    }

    /// Waits until it is ready: its process id and what it said.
    pub async fn ready(&mut self) -> anyhow::Result<(u32, Value)> {
        loop {
            match &*self.state.borrow_and_update() {
                State::Ready { pid, said } => return Ok((*pid, said.clone())),
                State::GivenUp(why) => bail!("{why}"),
                State::Starting => {}
            }
            if self.state.changed().await.is_err() {
                bail!("the {} is not being watched any more", self.name);
            }
        }
    }

    /// How it stands.
    pub fn state(&self) -> State {
        self.state.borrow().clone()
    }

    /// Resolves when it stands otherwise.
    pub async fn changed(&mut self) {
        if self.state.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Ends the program and starts it again.
    pub fn restart(&self) {
        self.again.notify_one();
    }

    /// Ends the program: SIGTERM, and after its time SIGKILL.
    pub async fn stop(self) {
        let _ = self.stop.send(true);
        let _ = self.task.await;
    }
}

enum Run {
    Stopped,
    Asked,
    Ended { how: String, ready: bool },
}

/// What ends the wait for a child.
enum Happened {
    Ended(String),
    Late,
    Stopped,
    Asked,
}

struct Keeper {
    program: Program,
    log: Arc<Log>,
    state: watch::Sender<State>,
    stopped: watch::Receiver<bool>,
    again: Arc<Notify>,
}

impl Keeper {
    async fn keep(mut self) {
        let mut backoff = Backoff::new(self.program.pause);
        loop {
            self.state.send_replace(State::Starting);
            let begun = Instant::now();
            let (how, ready) = match self.run().await {
                Run::Stopped => return,
                Run::Asked => continue,
                Run::Ended { how, ready } => (how, ready),
            };
            self.state.send_replace(State::Starting);
            let why = self.why(&how);
            let Some(pause) = backoff.after(begun.elapsed(), ready) else {
                self.state.send_replace(State::GivenUp(why));
                return;
            };
            output::err(format!("{why} Starting it again in {pause:?}."));
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                _ = self.stopped.wait_for(|stopped| *stopped) => return,
            }
        }
    }

    fn why(&self, how: &str) -> String {
        let said =
            self.log.last_words().map(|words| format!(" Its last words: {words}.")).unwrap_or_default();
        let said = said.replace("..", ".");
        format!("The {} {how}.{said} Its log is {}.", self.program.name, self.log.path().display())
    }

    async fn run(&mut self) -> Run {
        let mut child = match self.spawn() {
            Ok(child) => child,
            Err(error) => return Run::Ended { how: format!("could not be started: {error}"), ready: false },
        };
        // Out of the child, which would close it as soon as it is waited for.
        let held = child.stdin.take();
        let heard = self.hear(&mut child);
        let happened = self.happens(&mut child).await;
        match happened {
            Happened::Ended(how) => {
                for heard in heard.into_iter().flatten() {
                    // A grandchild may hold the pipe: what it says is not waited for.
                    let _ = timeout(Duration::from_millis(500), heard).await;
                }
                Run::Ended { how: format!("ended by itself ({how})"), ready: is_ready(&self.state) }
            }
            Happened::Late => {
                self.end(child, held).await;
                Run::Ended {
                    how: format!("was not ready within {:?}", self.program.ready_within),
                    ready: false,
                }
            }
            Happened::Stopped => {
                self.end(child, held).await;
                Run::Stopped
            }
            Happened::Asked => {
                self.end(child, held).await;
                Run::Asked
            }
        }
    }

    fn spawn(&self) -> std::io::Result<tokio::process::Child> {
        Command::new(&self.program.path)
            .args(&self.program.args)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
    }

    fn hear(&self, child: &mut tokio::process::Child) -> [Option<JoinHandle<()>>; 2] {
        let ready = (child.id().unwrap_or_default(), self.state.clone());
        let stdout =
            child.stdout.take().map(|stdout| tokio::spawn(listen(stdout, self.log.clone(), Some(ready))));
        let stderr = child.stderr.take().map(|stderr| tokio::spawn(listen(stderr, self.log.clone(), None)));
        [stdout, stderr]
    }

    async fn happens(&mut self, child: &mut tokio::process::Child) -> Happened {
        let mut late = std::pin::pin!(tokio::time::sleep(self.program.ready_within));
        loop {
            let ready = is_ready(&self.state);
            tokio::select! {
                ended = child.wait() => {
                    return Happened::Ended(ended.map_or_else(|error| error.to_string(), |status| status.to_string()));
                }
                () = &mut late, if !ready => {
                    if !is_ready(&self.state) {
                        return Happened::Late;
                    }
                }
                _ = self.stopped.wait_for(|stopped| *stopped) => return Happened::Stopped,
                () = self.again.notified() => return Happened::Asked,
            }
        }
    }

    async fn end(&self, mut child: tokio::process::Child, held: Option<tokio::process::ChildStdin>) {
        if let Some(pid) = child.id().and_then(|id| i32::try_from(id).ok()).and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        drop(held);
        if timeout(self.program.end_within, child.wait()).await.is_err() {
            output::err(format!(
                "The {} did not end within {:?}: killed.",
                self.program.name, self.program.end_within
            ));
            let _ = child.kill().await;
        }
    }
}

fn is_ready(state: &watch::Sender<State>) -> bool {
    matches!(*state.borrow(), State::Ready { .. })
}

/// Takes every line to the log, but for the one on stdout that says ready.
async fn listen(stream: impl AsyncRead + Unpin, log: Arc<Log>, ready: Option<(u32, watch::Sender<State>)>) {
    let mut lines = BufReader::new(stream).split(b'\n');
    while let Ok(Some(line)) = lines.next_segment().await {
        let line = String::from_utf8_lossy(&line);
        let said = serde_json::from_str::<Value>(&line).ok().filter(|said| said["ready"] == true);
        match (&ready, said) {
            (Some((pid, state)), Some(said)) => {
                state.send_replace(State::Ready { pid: *pid, said });
            }
            _ => log.line(&line),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fake {
        folder: tempfile::TempDir,
    }

    impl Fake {
        fn new() -> Self {
            Self { folder: tempfile::tempdir().unwrap() }
        }

        /// A shell script as a program; `$DIR` in it is the test's folder.
        fn start(&self, script: &str) -> Child {
            let script = script.replace("$DIR", &self.folder.path().display().to_string());
            let program = Program {
                name: "stand-in",
                path: "/bin/sh".into(),
                args: vec!["-c".into(), script.into()],
                ready_within: Duration::from_secs(5),
                end_within: Duration::from_millis(500),
                pause: Duration::from_millis(10),
            };
            Child::start(program, Log::open(self.folder.path(), "stand-in").unwrap())
        }

        fn read(&self, file: &str) -> String {
            std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
        }
    }

    async fn pid_after(child: &mut Child, before: u32) -> u32 {
        let changed = async {
            loop {
                let (pid, _) = child.ready().await.unwrap();
                if pid != before {
                    return pid;
                }
                child.changed().await;
            }
        };
        timeout(Duration::from_secs(5), changed).await.unwrap()
    }

    const WAITS: &str = "echo once >> $DIR/starts; echo '{\"ready\":true,\"listen\":\"here\"}'; exec cat";

    #[tokio::test]
    async fn a_program_that_is_killed_is_started_again() {
        let fake = Fake::new();
        let mut child = fake.start(WAITS);
        let (first, said) = child.ready().await.unwrap();
        assert_eq!(said["listen"], "here");
        kill_process(Pid::from_raw(i32::try_from(first).unwrap()).unwrap(), Signal::KILL).unwrap();
        pid_after(&mut child, first).await;
        child.stop().await;
        assert_eq!(fake.read("starts").lines().count(), 2);
    }

    #[tokio::test]
    async fn a_program_that_never_gets_ready_is_given_up_with_its_last_words() {
        let fake = Fake::new();
        let mut child = fake.start("echo once >> $DIR/starts; echo 'the port is taken' >&2; exit 3");
        let message = child.ready().await.unwrap_err().to_string();
        assert!(message.contains("The stand-in ended by itself (exit status: 3)"), "{message}");
        assert!(message.contains("Its last words: the port is taken."), "{message}");
        assert_eq!(fake.read("starts").lines().count(), 3);
        assert!(fake.read("stand-in.log").contains("the port is taken"));
        child.stop().await;
    }

    #[tokio::test]
    async fn a_program_that_ignores_sigterm_and_the_end_of_its_input_is_killed() {
        let fake = Fake::new();
        let mut child = fake.start("trap '' TERM; echo '{\"ready\":true}'; while :; do sleep 0.05; done");
        let (pid, _) = child.ready().await.unwrap();
        let begun = Instant::now();
        child.stop().await;
        assert!(begun.elapsed() < Duration::from_secs(4), "{:?}", begun.elapsed());
        assert!(!PathBuf::from(format!("/proc/{pid}")).exists());
    }

    #[tokio::test]
    async fn a_restart_that_was_asked_for_is_not_a_failure() {
        let fake = Fake::new();
        let mut child = fake.start(WAITS);
        let (mut pid, _) = child.ready().await.unwrap();
        for _ in 0..4 {
            child.restart();
            pid = pid_after(&mut child, pid).await;
        }
        child.stop().await;
        assert_eq!(fake.read("starts").lines().count(), 5);
    }
}
