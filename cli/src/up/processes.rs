//! The whole tree: what is started in which order, what is looked after, and in which order it ends.

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use jiff::Timestamp;
use serde_json::Value;

use super::Up;
use super::certificates::{self, Certificates, LOCAL};
use super::cluster::Cluster;
use super::layout::Layout;
use super::log::Log;
use super::policy::{self, Wanted};
use super::programs::{self, Programs};
use super::ready::{self, Metrics, Pids, Ready};
use super::supervise::{Child, Program, State};
use crate::output;

/// How long the operator may take to reach the agent before that is worth a warning.
const HOST_READY_WITHIN: Duration = Duration::from_secs(20);
const CERTIFICATES_EVERY: Duration = Duration::from_hours(12);

/// Everything that runs.
pub struct Processes {
    up: Up,
    layout: Layout,
    programs: Programs,
    certificates: Certificates,
    identity: String,
    control_plane: Option<Child>,
    agent: Option<Child>,
    operator: Option<Child>,
}

impl Processes {
    /// Finds the programs and makes certificates and policy file. Nothing runs yet.
    pub fn new(up: Up, layout: Layout) -> anyhow::Result<Self> {
        let own_plane = up.kubeconfig.is_none();
        let programs = programs::find(up.bin_dir.as_deref(), up.standalone.as_deref(), own_plane)?;
        let (certificates, _) = certificates::ensure(&layout, Timestamp::now())?;
        let wanted = Wanted {
            directories: &up.allow_directory,
            registries: &up.allow_registry,
            compose: &up.allow_compose,
            mounts: &up.allow_mount,
            listen: up.agent_listen,
        };
        for sentence in policy::ensure(&layout, &wanted)? {
            output::err(format!("Not applied: {sentence}"));
        }
        let identity = layout.identity()?;
        Ok(Self {
            up,
            layout,
            programs,
            certificates,
            identity,
            control_plane: None,
            agent: None,
            operator: None,
        })
    }

    /// Starts everything, says so, and looks after it. Returns when it can't go on.
    pub async fn run(&mut self) -> anyhow::Result<()> {
        self.start().await?;
        self.write_ready_file()?;
        output::out(self.greeting());
        self.look_after().await
    }

    /// Ends everything: first what asks, then what acts, then what remembers. At most 9.5 s in all.
    pub async fn stop(&mut self) {
        for child in
            [self.operator.take(), self.agent.take(), self.control_plane.take()].into_iter().flatten()
        {
            child.stop().await;
        }
    }

    async fn start(&mut self) -> anyhow::Result<()> {
        // The agent needs no cluster, so it starts meanwhile.
        let agent = self.agent_program();
        self.agent = Some(self.child(agent)?);
        if let Some(program) = self.control_plane_program() {
            // Kept before it is waited for: Ctrl-C ends the wait, and then the program.
            self.control_plane = Some(self.child(program)?);
            of(&mut self.control_plane)?.ready().await?;
        }
        let cluster = Cluster::connect(&self.kubeconfig(), &self.up.namespace).await?;
        cluster.prepare().await?;
        let (_, said) = of(&mut self.agent)?.ready().await?;
        cluster.apply_host(address(&said, "listen")?).await?;
        cluster.wait_for_lead(&self.identity).await?;
        let operator = self.operator_program();
        self.operator = Some(self.child(operator)?);
        of(&mut self.operator)?.ready().await?;
        if let Err(error) = cluster.host_ready(HOST_READY_WITHIN).await {
            output::err(format!("Warning: {error:#}."));
        }
        Ok(())
    }

    async fn look_after(&mut self) -> anyhow::Result<()> {
        let mut tick = tokio::time::interval(CERTIFICATES_EVERY);
        tick.tick().await; // the first is at once, and they were looked at a moment ago
        loop {
            tokio::select! {
                () = changed(&mut self.operator) => {}
                () = changed(&mut self.agent) => {}
                () = changed(&mut self.control_plane) => {}
                _ = tick.tick() => self.renew(),
            }
            self.write_ready_file()?;
        }
    }

    /// The agent takes new certificates by itself, the operator at its start.
    fn renew(&self) {
        match certificates::ensure(&self.layout, Timestamp::now()) {
            Ok((_, true)) => {
                output::err("Renewed the certificates of operator and agent.");
                if let Some(operator) = &self.operator {
                    operator.restart();
                }
            }
            Ok((_, false)) => {}
            Err(error) => output::err(format!("Warning: the certificates can't be renewed: {error}.")),
        }
    }

    fn child(&self, program: Program) -> anyhow::Result<Child> {
        let log = Log::open(&self.layout.logs(), program.name);
        let log = log.with_context(|| format!("can't write to {}", self.layout.logs().display()))?;
        Ok(Child::start(program, log))
    }

    fn kubeconfig(&self) -> PathBuf {
        self.up.kubeconfig.clone().unwrap_or_else(|| self.layout.kubeconfig())
    }

    fn control_plane_program(&self) -> Option<Program> {
        let args: Vec<OsString> = vec![
            "--data-dir".into(),
            self.layout.control_plane().into(),
            "--listen".into(),
            self.up.listen.to_string().into(),
            "--kubeconfig".into(),
            self.kubeconfig().into(),
        ];
        self.programs.standalone.clone().map(|path| program("control plane", path, args, 60, 3500))
    }

    fn agent_program(&self) -> Program {
        let args = vec!["--config".into(), self.layout.policy().into(), "--log-format=json".into()];
        program("agent", self.programs.agent.clone(), args, 30, 3500)
    }

    fn operator_program(&self) -> Program {
        let tls = &self.certificates;
        // Another cluster may have other operators, for other namespaces.
        let namespaces = if self.up.kubeconfig.is_some() { self.up.namespace.as_str() } else { "all" };
        let mut args: Vec<OsString> = vec![
            "--kubeconfig".into(),
            self.kubeconfig().into(),
            "--namespace".into(),
            namespaces.into(),
            "--tls-ca".into(),
            tls.ca.clone().into(),
            "--tls-cert".into(),
            tls.operator.cert.clone().into(),
            "--tls-key".into(),
            tls.operator.key.clone().into(),
            "--metrics-listen".into(),
            "127.0.0.1:0".into(),
            "--log-format=json".into(),
            "--lease-namespace".into(),
            self.up.namespace.clone().into(),
            // The same after a restart: what the one before held is this one's own, and need not run out first.
            "--leader-elect-identity".into(),
            self.identity.clone().into(),
        ];
        if let Some(folder) = &self.up.bundle_dir {
            args.extend(["--bundle-dir".into(), folder.into()]);
        }
        program("operator", self.programs.operator.clone(), args, 60, 2500)
    }

    /// While a program is between two starts the file keeps what it said.
    fn write_ready_file(&self) -> anyhow::Result<()> {
        let Some(file) = &self.up.ready_file else { return Ok(()) };
        let (Some((operator, operator_said)), Some((agent, agent_said))) =
            (said(self.operator.as_ref()), said(self.agent.as_ref()))
        else {
            return Ok(());
        };
        let control_plane = match (&self.control_plane, said(self.control_plane.as_ref())) {
            (Some(_), None) => return Ok(()),
            (_, said) => said.map(|(pid, _)| pid),
        };
        let ready = Ready {
            kubeconfig: self.kubeconfig(),
            namespace: self.up.namespace.clone(),
            host: LOCAL.to_owned(),
            agent: address(&agent_said, "listen")?.to_string(),
            metrics: Metrics {
                operator: address(&operator_said, "metrics")?.to_string(),
                agent: address(&agent_said, "metrics")?.to_string(),
            },
            pids: Pids { up: std::process::id(), control_plane, operator, agent },
            state_dir: self.layout.root().to_owned(),
            logs: self.layout.logs(),
        };
        ready::write(file, &ready)
    }

    fn greeting(&self) -> String {
        let server = said(self.control_plane.as_ref()).map(|(_, said)| said["server"].clone());
        let plane = match (&self.up.kubeconfig, server) {
            (Some(file), _) => format!("the cluster of {}", file.display()),
            (None, Some(Value::String(url))) => format!("control plane {url}"),
            (None, _) => format!("control plane {}", self.up.listen),
        };
        format!(
            "Tenantry is up: {plane}, an operator, and an agent for this machine\n\
             (ComposeHost `{LOCAL}` in namespace {}).\n\n  \
               state         {}\n  \
               logs          {}\n  \
               host policy   {}\n\n\
             Now try, in another terminal:\n\n  \
               export KUBECONFIG={}\n  \
               kubectl get composehosts\n  \
               kubectl get tenants -w\n\n\
             Ctrl-C ends all of it; tenants keep running.",
            self.up.namespace,
            self.layout.root().display(),
            self.layout.logs().display(),
            self.layout.policy().display(),
            self.kubeconfig().display(),
        )
    }
}

fn program(
    name: &'static str,
    path: PathBuf,
    mut args: Vec<OsString>,
    ready: u64,
    end_milliseconds: u64,
) -> Program {
    args.push("--exit-on-stdin-close".into());
    let (ready_within, end_within) = (Duration::from_secs(ready), Duration::from_millis(end_milliseconds));
    Program { name, path, args, ready_within, end_within, pause: Duration::from_millis(500) }
}

fn of(child: &mut Option<Child>) -> anyhow::Result<&mut Child> {
    child.as_mut().context("a program was ended while it was waited for")
}

async fn changed(child: &mut Option<Child>) {
    match child {
        Some(child) => child.changed().await,
        None => std::future::pending().await,
    }
}

fn said(child: Option<&Child>) -> Option<(u32, Value)> {
    match child?.state() {
        State::Ready { pid, said } => Some((pid, said)),
        State::Starting | State::GivenUp(_) => None,
    }
}

fn address(said: &Value, field: &str) -> anyhow::Result<SocketAddr> {
    let text = said[field].as_str().with_context(|| format!("a ready line without `{field}`: {said}"))?;
    text.parse().with_context(|| format!("a ready line whose `{field}` is not an address: {said}"))
}
