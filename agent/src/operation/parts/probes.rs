//! Probes are made: by HTTP, by TCP, and by commands in containers.

use std::collections::BTreeMap;
use std::time::Duration;

use futures::future::BoxFuture;
use futures::{FutureExt as _, StreamExt as _};
use parking_lot::Mutex;
use tenantry_api::names::LoopbackAddress;
use tenantry_planner::compare::{Container, ContainerState};
use tenantry_planner::policy::Verification;
use tenantry_planner::verify::named_probes;
use tenantry_protocol::{FailureCategory, Probe, ProbeExec, ProbeHttp, VerifyPolicy};
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::engine::Executed;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

const SIDE_BY_SIDE: usize = 4;
/// Probes that did not pass are made again so soon.
const AGAIN: Duration = Duration::from_millis(250);
/// The same, where commands are among them: each is a process more in somebody's container.
const COMMANDS_AGAIN: Duration = Duration::from_secs(1);
/// How long an answer or a connection may take.
const LIMIT: Duration = Duration::from_secs(5);
/// How long a command may take.
const COMMAND_LIMIT: Duration = Duration::from_secs(10);
const BODY: usize = 64 * 1024;
/// A connection that lasts so long is one. The engine itself takes connections for a port that it publishes and ends
/// them at once where nothing listens in the container.
const LASTS: Duration = Duration::from_millis(200);

/// The terms of a release that must come back, without the commands that the local policy no longer allows; and what is
/// said of that.
pub fn still_granted(operation: &OperationContext, mut policy: VerifyPolicy) -> (VerifyPolicy, &'static str) {
    if operation.host.policy.allow().verify.contains(&Verification::Exec) {
        return (policy, "");
    }
    let before = policy.probes.len();
    policy.probes.retain(|probe| !matches!(probe, Probe::Exec(_)));
    if policy.probes.len() == before {
        return (policy, "");
    }
    (policy, "; its verify.exec was left out, which this host's policy no longer allows")
}

/// The probes of one verification.
pub struct Probes<'a> {
    operation: &'a OperationContext,
    all: Vec<(String, &'a Probe)>,
    /// Absent where nothing is asked by HTTP.
    client: Option<reqwest::Client>,
    /// Commands that did not end in time, by probe and container: none is run again beside itself.
    running: Mutex<BTreeMap<(String, String), String>>,
    /// What was last kept in the log of each probe and container.
    kept: Mutex<BTreeMap<(String, String), String>>,
}

impl<'a> Probes<'a> {
    /// Nothing is asked yet.
    pub fn new(operation: &'a OperationContext, probes: &'a [Probe]) -> Result<Self, StepError> {
        let by_http = probes.iter().any(|probe| matches!(probe, Probe::Http(_)));
        let client = by_http.then(client).transpose()?;
        let all = named_probes(probes);
        Ok(Self { operation, all, client, running: Mutex::default(), kept: Mutex::default() })
    }

    /// How soon probes that did not pass are made again.
    pub fn again(&self) -> Duration {
        let commands = self.all.iter().any(|(_, probe)| matches!(probe, Probe::Exec(_)));
        if commands { COMMANDS_AGAIN } else { AGAIN }
    }

    /// Makes every probe; a sentence for each that does not pass. What was answered or printed is never quoted (P12).
    pub async fn ask(&self, containers: &[Container]) -> Vec<String> {
        let each = self.all.iter();
        let asked: Vec<BoxFuture<'_, Option<String>>> =
            each.map(|(field, probe)| self.one(field, probe, containers).boxed()).collect();
        let problems: Vec<Option<String>> =
            futures::stream::iter(asked).buffered(SIDE_BY_SIDE).collect().await;
        problems.into_iter().flatten().collect()
    }

    async fn one(&self, field: &str, probe: &Probe, containers: &[Container]) -> Option<String> {
        match probe {
            Probe::Http(http) => self.http(http).await,
            Probe::Tcp(tcp) => connect(&tcp.address).await,
            Probe::Exec(exec) => self.commands(field, exec, containers).await,
        }
    }

    async fn http(&self, probe: &ProbeHttp) -> Option<String> {
        let url = probe.url.as_str();
        let Some(client) = &self.client else { return Some(format!("{url}: was not asked")) };
        let mut answer = match client.get(url).send().await {
            Ok(answer) => answer,
            Err(error) if error.is_timeout() => {
                return Some(format!("{url}: no answer within {} s", LIMIT.as_secs()));
            }
            Err(_) => return Some(format!("{url}: can't connect")),
        };
        let status = answer.status().as_u16();
        if status != probe.status {
            return Some(format!("{url}: answered {status} instead of {}", probe.status));
        }
        let wanted = probe.contains.as_deref()?;
        let mut body = Vec::new();
        while body.len() < BODY {
            match answer.chunk().await {
                Ok(Some(chunk)) => body.extend_from_slice(&chunk),
                Ok(None) => break,
                Err(_) => return Some(format!("{url}: the answer broke off")),
            }
        }
        body.truncate(BODY);
        let found = String::from_utf8_lossy(&body).contains(wanted);
        (!found).then(|| format!("{url}: the answer does not contain {wanted:?}"))
    }

    /// Runs a command in every running container of its service, one after the other.
    async fn commands(&self, field: &str, probe: &ProbeExec, containers: &[Container]) -> Option<String> {
        let service = probe.service.as_str();
        let runs = |one: &&Container| one.service == service && one.state == ContainerState::Running;
        let mut among = containers.iter().filter(runs).peekable();
        if among.peek().is_none() {
            return Some(format!("{service}: has no running container for the command of {field}"));
        }
        for container in among {
            if let Some(problem) = self.command(field, probe, &container.id).await {
                return Some(format!("{service}: the command of {field} {problem}"));
            }
        }
        None
    }

    async fn command(&self, field: &str, probe: &ProbeExec, container: &str) -> Option<String> {
        let engine = &self.operation.host.engine;
        let key = (field.to_owned(), container.to_owned());
        let earlier = self.running.lock().remove(&key);
        if let Some(id) = earlier
            && matches!(engine.exit_code(&id).await, Ok(None))
        {
            self.running.lock().insert(key, id);
            return Some("still runs: it did not end in time".to_owned());
        }
        let (problem, output) = match engine.execute(container, &probe.command, COMMAND_LIMIT).await {
            Ok(Executed::Ended { code: 0, .. }) => return None,
            Ok(Executed::Ended { code, output }) => (format!("ended with code {code}"), output),
            Ok(Executed::Running(id)) => {
                self.running.lock().insert(key.clone(), id);
                (format!("did not end within {} s", COMMAND_LIMIT.as_secs()), String::new())
            }
            // The engine's words may quote the command.
            Err(error) => ("could not be run; the log on the host says why".to_owned(), error.to_string()),
        };
        self.keep(key, &problem, output).await;
        Some(problem)
    }

    /// Keeps what a command printed on this host, once for each problem that it has.
    async fn keep(&self, key: (String, String), problem: &str, output: String) {
        let title = format!("{} in {:.12} {problem}", key.0, key.1);
        let before = self.kept.lock().insert(key, problem.to_owned());
        if before.as_deref() == Some(problem) {
            return;
        }
        if let Ok(log) = self.operation.log() {
            crate::compose::keep_output(&*self.operation.host.runtime, log, title, output).await;
        }
    }
}

fn client() -> Result<reqwest::Client, StepError> {
    let built = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .timeout(LIMIT)
        .build();
    built.map_err(|error| {
        StepError::new(FailureCategory::AgentFault, format!("no client for probes: {error}"))
    })
}

/// Connects and sends nothing.
async fn connect(address: &LoopbackAddress) -> Option<String> {
    let sockets = address.sockets();
    let mut connection = match timeout(LIMIT, TcpStream::connect(sockets.as_slice())).await {
        Err(_) => return Some(format!("{address}: no connection within {} s", LIMIT.as_secs())),
        Ok(Err(_)) => return Some(format!("{address}: can't connect")),
        Ok(Ok(connection)) => connection,
    };
    match timeout(LASTS, connection.read_u8()).await {
        Ok(Err(_)) => Some(format!("{address}: the connection was ended at once")),
        Ok(Ok(_)) | Err(_) => None,
    }
}
