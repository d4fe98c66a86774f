//! A program of ours as a child: it ends with the test, also when the test is killed.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};

/// How long a program may take until it says that it is ready.
const READY_WITHIN: Duration = Duration::from_mins(1);

/// A child that ends when its standard input is closed.
pub struct Process {
    child: Child,
    /// Held open: all our programs run with `--exit-on-stdin-close`.
    stdin: Option<ChildStdin>,
    /// The JSON object that it printed when it was ready.
    pub ready: serde_json::Value,
    /// Where its standard error goes.
    pub log: PathBuf,
}

impl Process {
    /// Starts a program and waits for its ready line.
    pub fn start(program: &Path, arguments: &[&str], log: &Path) -> Result<Self> {
        let name = program.display();
        let file = std::fs::OpenOptions::new().create(true).append(true).open(log)?;
        let mut child = Command::new(program)
            .args(arguments)
            .arg("--exit-on-stdin-close")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .spawn()
            .with_context(|| format!("{name} could not be started"))?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        // Reads on after the ready line, so that the child never blocks on a full pipe.
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let line = lines.recv_timeout(READY_WITHIN);
        let ready = line.ok().and_then(|line| serde_json::from_str(&line).ok());
        let Some(ready) = ready else {
            let _ = child.kill();
            let _ = child.wait();
            let said = std::fs::read_to_string(log).unwrap_or_default();
            bail!("{name} did not get ready; it said:\n{said}");
        };
        Ok(Self { child, stdin, ready, log: log.to_owned() })
    }

    /// A text of the ready line.
    pub fn ready_text(&self, key: &str) -> Result<&str> {
        self.ready[key].as_str().with_context(|| format!("the ready line has no {key}: {}", self.ready))
    }

    /// The process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Kills it as a power cut would.
    pub fn kill(&mut self) -> Result<()> {
        self.child.kill()?;
        self.child.wait()?;
        Ok(())
    }

    /// What it wrote to standard error so far.
    pub fn log_text(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        drop(self.stdin.take());
        for _ in 0..50 {
            if matches!(self.child.try_wait(), Ok(Some(_))) {
                return;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
