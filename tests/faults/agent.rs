//! A real agent process that may die, and the operator's own client for it.

use std::io::{BufRead as _, BufReader};
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use tenantry_api::names::{Identity, OperationId};
use tenantry_operator::agents::client::HttpsAgents;
use tenantry_operator::agents::trust::Trust;
use tenantry_operator::agents::{Agent as Client, AgentError, Agents as _};
use tenantry_protocol::{ErrorCode, OperateRequest, OperationState, OperationStatus};

/// How long an agent may take until it listens, on a machine that is busy.
const READY_WITHIN: Duration = Duration::from_secs(30);
/// How long an operation may take in these tests.
const PATIENCE: Duration = Duration::from_secs(90);

/// A running agent.
pub struct Agent {
    child: Child,
    /// Held open: its end would end the agent.
    stdin: Option<ChildStdin>,
    client: Arc<dyn Client>,
}

/// What became of an agent that was started.
pub enum Started {
    /// It listens.
    Ready(Agent),
    /// It died before that.
    Died(ExitStatus),
}

/// How an operation was left.
pub enum Seen {
    /// It ended.
    Ended(Box<OperationStatus>),
    /// The agent died.
    Died(ExitStatus),
}

impl Agent {
    /// Starts the agent of a folder that holds `agent.yaml` and `pki`.
    pub fn start(folder: &Path, environment: &[(&str, String)]) -> Result<Started> {
        Self::start_under(&[], folder, environment)
    }

    /// The same with a program that runs it.
    pub fn start_under(wrapper: &[&str], folder: &Path, environment: &[(&str, String)]) -> Result<Started> {
        let log = std::fs::OpenOptions::new().create(true).append(true).open(folder.join("agent.log"))?;
        let program = tenantry_tests::program("tenantry-agent")?;
        let mut command = match wrapper {
            [] => Command::new(program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(program);
                command
            }
        };
        let mut child = command
            .arg("--config")
            .arg(folder.join("agent.yaml"))
            .args(["--log-format", "text", "--exit-on-stdin-close"])
            .envs(environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(log)
            .spawn()
            .context("the agent could not be started")?;
        let stdin = child.stdin.take();
        let stdout = child.stdout.take().context("no standard output")?;
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        let Ok(line) = lines.recv_timeout(READY_WITHIN) else {
            drop(stdin);
            return wait(&mut child, Duration::from_secs(5)).map(Started::Died);
        };
        let ready: serde_json::Value = serde_json::from_str(&line).context("the agent's ready line")?;
        let address = ready["listen"].as_str().context("the ready line has no address")?;
        let pki = folder.join("pki");
        let trust =
            Trust::read(&pki.join("ca.crt"), &pki.join("operator-main.crt"), &pki.join("operator-main.key"))?;
        let client = HttpsAgents::new(trust).at(&Identity::parse("n5")?, address)?;
        Ok(Started::Ready(Self { child, stdin, client }))
    }

    /// Starts an agent that must come up.
    pub fn start_well(folder: &Path, environment: &[(&str, String)]) -> Result<Self> {
        match Self::start(folder, environment)? {
            Started::Ready(agent) => Ok(agent),
            Started::Died(status) => bail!("the agent ended at its start: {status}"),
        }
    }

    /// Ends it as its service manager would.
    pub fn end_well(mut self) -> Result<()> {
        drop(self.stdin.take());
        wait(&mut self.child, Duration::from_secs(20)).context("the agent does not end").map(drop)
    }

    /// Submits an operation and follows it to its end, or to the agent's.
    pub async fn run(&mut self, id: &OperationId, request: &OperateRequest) -> Result<Seen> {
        let submitted = self.client.operate(id, request).await;
        match submitted {
            Ok(_) => self.follow(id).await,
            Err(AgentError::Refused(refusal)) => bail!("the operation was refused: {refusal}"),
            Err(error) => self.died().with_context(|| error.to_string()),
        }
    }

    /// Follows an operation that the agent may know: submits it where it does not.
    pub async fn follow_or_submit(&mut self, id: &OperationId, request: &OperateRequest) -> Result<Seen> {
        match self.client.operation(id, 0, Duration::ZERO).await {
            Ok(_) => self.follow(id).await,
            Err(AgentError::Refused(refusal)) if refusal.code == ErrorCode::NotFound => {
                self.run(id, request).await
            }
            Err(AgentError::Refused(refusal)) => bail!("the operation could not be asked about: {refusal}"),
            Err(error) => self.died().with_context(|| error.to_string()),
        }
    }

    async fn follow(&mut self, id: &OperationId) -> Result<Seen> {
        let deadline = Instant::now() + PATIENCE;
        let mut after = 0;
        loop {
            match self.client.operation(id, after, Duration::from_secs(5)).await {
                Ok(status) if status.state == OperationState::Running => after = status.seq,
                Ok(status) => return Ok(Seen::Ended(Box::new(status))),
                Err(AgentError::Refused(refusal)) => bail!("the operation can't be followed: {refusal}"),
                Err(error) => return self.died().with_context(|| error.to_string()),
            }
            if Instant::now() > deadline {
                bail!("the operation did not end within {} s", PATIENCE.as_secs());
            }
        }
    }

    fn died(&mut self) -> Result<Seen> {
        let status = wait(&mut self.child, Duration::from_secs(5)).context("the agent does not answer")?;
        Ok(Seen::Died(status))
    }

    /// Whether it died by now; waited for a moment, for its points may come after an operation's end.
    pub fn dies_within(&mut self, limit: Duration) -> Option<ExitStatus> {
        wait(&mut self.child, limit).ok()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // At once: an operation that was seen to have ended needs nothing more of this agent.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether a process was killed as a crash point kills.
pub fn was_killed(status: ExitStatus) -> bool {
    status.signal() == Some(9)
}

fn wait(child: &mut Child, limit: Duration) -> Result<ExitStatus> {
    let deadline = Instant::now() + limit;
    loop {
        if let Some(status) = child.try_wait()? {
            return Ok(status);
        }
        if Instant::now() > deadline {
            bail!("it still runs");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
