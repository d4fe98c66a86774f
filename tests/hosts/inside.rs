//! An agent that runs as a container of the project that it upgrades: it is recreated last, by another container, and
//! whichever agent then runs goes on with the operation.

use std::fmt::Write as _;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use tenantry_api::names::OperationId;
use tenantry_api::tenant_status::Outcome;
use tenantry_operator::agents::Agent as Client;
use tenantry_protocol::{OperationPhase, OperationStatus};
use test_images::Image;

use crate::image::AgentImage;
use crate::rig::{Rig, docker, ended, failure, merge, outcome, standin, until};

const COMPOSE: &str = r#"services:
  agent:
    image: REPOSITORY-agent:${AGENT_TAG:?}
    pull_policy: never
    restart: unless-stopped
    command: ["--config", "ETC/agent.yaml", "--log-format", "text"]
    ports: ["127.0.0.1:PORT:7443"]
    volumes:
      - DIRECTORY:DIRECTORY
      - STATE:STATE
      - ETC/agent.yaml:ETC/agent.yaml:ro
      - ETC/pki/ca.crt:ETC/pki/ca.crt:ro
      - ETC/pki/agent-n5.crt:ETC/pki/agent-n5.crt:ro
      - ETC/pki/agent-n5.key:ETC/pki/agent-n5.key:ro
      - /var/run/docker.sock:/var/run/docker.sock
  migrate:
    image: REPOSITORY:${IMAGE_TAG:?}
    pull_policy: never
    environment: {MODE: job, EXIT_AFTER: 50ms}
    volumes: ["data:/data"]
  web:
    image: REPOSITORY:${IMAGE_TAG:?}
    pull_policy: never
    restart: unless-stopped
    stop_grace_period: 1s
    depends_on: {migrate: {condition: service_completed_successfully}, agent: {condition: service_started}}
    volumes: ["data:/data"]
volumes: {data: {}}
"#;

/// A project whose first release a person has started by hand, the agent included.
struct Inside {
    rig: Rig,
    client: Arc<dyn Client>,
    /// Folded into requests.
    more: Value,
}

impl Inside {
    fn start(name: &str) -> Result<Self> {
        let mut rig = Rig::new(name)?;
        let local = rig.project.name.clone();
        rig.repository.clone_from(&local);
        let image = AgentImage::new()?;
        for tag in ["v1", "v2"] {
            Image::version(tag).build(&standin()?, &format!("{local}:{tag}"))?;
            image.build(&format!("{local}-agent:{tag}"), r#""/tenantry-agent""#)?;
        }
        let bad = Image::version("bad").with("CRASH_AFTER", "50ms").with("SPOILS", "/data/rows");
        bad.build(&standin()?, &format!("{local}:bad"))?;
        // An agent that ends as soon as it is started.
        image.build(&format!("{local}-agent:broken"), r#""/tenantry-agent","--no-such-option""#)?;
        std::fs::create_dir_all(rig.state())?;
        let read = ["agent.yaml", "pki/ca.crt", "pki/agent-n5.crt", "pki/agent-n5.key"];
        let mut mounts: Vec<String> =
            read.iter().map(|name| format!("{}:ro", rig.etc().join(name).display())).collect();
        mounts.push(rig.state().display().to_string());
        rig.config = json!({"allow": {"compose": ["DockerSocket"], "mounts": mounts}});
        rig.configure("0.0.0.0:7443")?;
        let text = COMPOSE
            .replace("REPOSITORY", &local)
            .replace("PORT", &rig.project.port.to_string())
            .replace("DIRECTORY", &rig.project.directory.to_string_lossy())
            .replace("STATE", &rig.state().to_string_lossy())
            .replace("ETC", &rig.etc().to_string_lossy());
        rig.project.write("docker-compose.yml", &text)?;
        rig.project.write(".env", "AGENT_TAG=v1\nIMAGE_TAG=v1\n# theirs\n")?;
        rig.project.compose(&["up", "-d"])?;
        let client = rig.client(&format!("127.0.0.1:{}", rig.project.port))?;
        Ok(Self { rig, client, more: json!({}) })
    }

    async fn submit(&mut self, agent: &str, image: &str) -> Result<OperationId> {
        let (id, mut request) = self.rig.request(&[("AGENT_TAG", agent), ("IMAGE_TAG", image)])?;
        request.manifest.jobs = serde_json::from_value(json!(["migrate"]))?;
        let mut body = serde_json::to_value(request)?;
        merge(&mut body, &self.more);
        let request = serde_json::from_value(body)?;
        let deadline = std::time::Instant::now() + Duration::from_secs(20);
        loop {
            match self.client.operate(&id, &request).await {
                Ok(_) => return Ok(id),
                // The container has been started; whether the agent in it listens is another matter.
                Err(error) if std::time::Instant::now() > deadline => return Err(error.into()),
                Err(_) => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
    }

    fn finishers(&self, id: &OperationId) -> Vec<String> {
        let filter = format!("label=tenantry.dev/finisher={id}");
        // Ids of operations are the same in each of these tests: whose it is says what is mounted.
        let mounted = format!("volume={}", self.rig.project.directory.display());
        let listed = docker(&["ps", "-aq", "--no-trunc", "--filter", &filter, "--filter", &mounted]);
        listed.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    fn id_of(&self, service: &str) -> String {
        self.rig.project.inspect(service, "{{.Id}}").unwrap_or_default()
    }

    /// What every service runs, and that nothing is left over.
    async fn assert_at(
        &self,
        id: &OperationId,
        agent: &str,
        image: &str,
        status: &OperationStatus,
    ) -> Result<()> {
        let story = || format!("{status:#?}\n{}", self.story());
        for (service, wanted) in [("agent", agent), ("web", image)] {
            let runs = self.rig.project.inspect(service, "{{.Config.Image}} {{.State.Running}}")?;
            ensure!(runs.ends_with(&format!(":{wanted} true")), "{service} is {runs}\n{}", story());
        }
        ensure!(self.rig.project.containers()?.len() == 3, "{:?}", self.rig.project.containers()?);
        let env = self.rig.project.read(".env")?;
        ensure!(env == format!("AGENT_TAG={agent}\nIMAGE_TAG={image}\n# theirs\n"), "{env}");
        until("the finisher is gone", Duration::from_secs(20), || self.finishers(id).is_empty()).await?;
        let before = (self.id_of("agent"), self.id_of("web"));
        self.rig.project.compose(&["up", "-d"])?;
        ensure!(before == (self.id_of("agent"), self.id_of("web")), "a run by hand recreated something");
        Ok(())
    }

    fn story(&self) -> String {
        let logs = docker(&[
            "ps",
            "-aq",
            "--filter",
            &format!("label=com.docker.compose.project={}", self.rig.project.name),
        ]);
        let mut text = String::new();
        for id in logs.unwrap_or_default().lines() {
            let output = Command::new("docker").args(["logs", "--tail", "40", id]).output();
            let said = output.map(|output| String::from_utf8_lossy(&output.stderr).into_owned());
            let _ = write!(text, "--- {id}\n{}", said.unwrap_or_default());
        }
        text
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p3_an_agent_inside_its_project_is_recreated_last_and_goes_on_as_the_new_one() -> Result<()> {
    let mut inside = Inside::start("inside")?;
    let first = inside.id_of("agent");
    let id = inside.submit("v2", "v2").await?;
    let status = ended(&inside.client, &id).await?;
    ensure!(outcome(&status) == Some(Outcome::Succeeded), "{status:#?}\n{}", inside.story());
    ensure!(first != inside.id_of("agent"), "the agent is another container");
    inside.assert_at(&id, "v2", "v2", &status).await?;
    let recreated = inside.rig.project.inspect("agent", "{{.State.StartedAt}}")?;
    let web = inside.rig.project.inspect("web", "{{.State.StartedAt}}")?;
    ensure!(web < recreated, "the agent comes last: web at {web}, the agent at {recreated}");

    // A release that leaves the agent as it is leaves its container, too.
    let second = inside.id_of("agent");
    let id = inside.submit("v2", "v1").await?;
    let status = ended(&inside.client, &id).await?;
    ensure!(outcome(&status) == Some(Outcome::Succeeded), "{status:#?}\n{}", inside.story());
    ensure!(second == inside.id_of("agent"), "nothing of the agent changed");
    inside.assert_at(&id, "v2", "v1", &status).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p9_an_agent_that_does_not_come_up_is_taken_back_by_the_finisher() -> Result<()> {
    let mut inside = Inside::start("broken")?;
    let id = inside.submit("broken", "v2").await?;
    let status = ended(&inside.client, &id).await?;
    ensure!(outcome(&status) == Some(Outcome::RolledBack), "{status:#?}\n{}", inside.story());
    let failure = failure(&status)?;
    ensure!(failure.during == OperationPhase::Start, "{failure:?}");
    ensure!(failure.message.contains("agent's service agent"), "{failure:?}");
    inside.assert_at(&id, "v1", "v1", &status).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p9_a_release_that_fails_is_taken_back_by_the_new_agent_and_ended_by_the_previous_one() -> Result<()>
{
    let mut inside = Inside::start("back")?;
    let first = inside.id_of("agent");
    // Its data comes back, too, by whichever agent then runs.
    inside.more = json!({
        "snapshot": {"paths": [], "volumes": ["data"], "consistency": "Stop", "retain": 3}, "rollbackData": "Always"
    });
    let name = format!("{}_data", inside.rig.project.name);
    let rows = docker(&["volume", "inspect", "--format", "{{.Mountpoint}}/rows", &name])?;
    std::fs::write(&rows, "theirs\n")?;
    let id = inside.submit("v2", "bad").await?;
    let status = ended(&inside.client, &id).await?;
    ensure!(std::fs::read_to_string(&rows)? == "theirs\n" && status.data_restored, "{status:#?}");
    ensure!(outcome(&status) == Some(Outcome::RolledBack), "{status:#?}\n{}", inside.story());
    ensure!(
        first != inside.id_of("agent"),
        "the agent was recreated on the way: {status:#?}\n{}",
        inside.story()
    );
    inside.assert_at(&id, "v1", "v1", &status).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p3_a_finisher_that_is_killed_goes_on_when_it_is_started_again() -> Result<()> {
    let mut inside = Inside::start("killed")?;
    let first = inside.id_of("agent");
    let id = inside.submit("v2", "v2").await?;
    // In the middle: the old agent has been stopped, the new one is not there yet.
    let stopped = || {
        let running = docker(&["inspect", "--format", "{{.State.Running}}", &first]);
        running.is_ok_and(|running| running == "false") || running_is_gone(&first)
    };
    until("the old agent ends", Duration::from_mins(1), stopped).await?;
    let finishers = inside.finishers(&id);
    ensure!(finishers.len() == 1, "{finishers:?}");
    let process = docker(&["inspect", "--format", "{{.State.Pid}}", &finishers[0]])?;
    let process = process_id(&process)?;
    ensure!(Command::new("kill").args(["-9", &process]).status()?.success(), "kill {process}");
    let status = ended(&inside.client, &id).await?;
    ensure!(outcome(&status) == Some(Outcome::Succeeded), "{status:#?}\n{}", inside.story());
    inside.assert_at(&id, "v2", "v2", &status).await
}

fn running_is_gone(id: &str) -> bool {
    docker(&["inspect", "--format", "{{.Id}}", id]).is_err()
}

fn process_id(text: &str) -> Result<String> {
    let number: u32 = text.parse()?;
    ensure!(number > 1, "the finisher does not run");
    Ok(number.to_string())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_an_agent_that_could_not_go_on_after_being_recreated_refuses_before_anything_is_changed()
-> Result<()> {
    let mut inside = Inside::start("unmounted")?;
    let text = inside.rig.project.read("docker-compose.yml")?;
    let directory = inside.rig.project.directory.display().to_string();
    let text = text.replace(&format!("{directory}:{directory}"), &format!("{directory}:{directory}:ro"));
    inside.rig.project.write("docker-compose.yml", &text)?;
    inside.rig.project.compose(&["up", "-d"])?;
    let before = inside.rig.project.containers()?;
    let id = inside.submit("v2", "v2").await?;
    let status = ended(&inside.client, &id).await?;
    ensure!(outcome(&status) == Some(Outcome::Aborted), "{status:#?}");
    let failure = failure(&status)?;
    ensure!(failure.message.contains("read-write at the identical path"), "{failure:?}");
    ensure!(before == inside.rig.project.containers()?, "nothing is changed");
    Ok(())
}
