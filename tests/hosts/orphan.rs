//! A `docker compose` child that outlived its agent (P2): ended before anything else is done.

use std::time::Duration;

use anyhow::{Result, ensure};
use tenantry_api::tenant_status::Outcome;
use test_images::Image;

use crate::rig::{Process, Rig, ended, outcome, rig_log, standin, until};

/// `slow` gets healthy after some seconds, and `last` waits for it. Compose says nothing meanwhile: saying something to
/// an agent that is gone would end it.
const COMPOSE: &str = r"services:
  slow:
    image: REPOSITORY:${IMAGE_TAG:?}
    stop_grace_period: 1s
    environment: {HEALTHY_AFTER: 6s}
    healthcheck: {test: [CMD, /standin, health, --watch], interval: 200ms, timeout: 1m, retries: 60}
  last:
    image: REPOSITORY:${IMAGE_TAG:?}
    stop_grace_period: 1s
    depends_on: {slow: {condition: service_healthy}}
";

/// Processes of `docker compose up` for a project, with their parents.
fn children(project: &str) -> Vec<(i32, i32)> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<i32>().ok()) else {
            continue;
        };
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let words: Vec<String> =
            line.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect();
        let is_up = words.iter().any(|word| word == "up") && words.iter().any(|word| word == project);
        if !is_up || !words.first().is_some_and(|program| program.contains("docker-compose")) {
            continue;
        }
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let mut fields = stat.rsplit_once(')').map_or("", |(_, rest)| rest).split_ascii_whitespace();
        let (state, parent) = (fields.next().unwrap_or("Z"), fields.next());
        if !matches!(state, "Z" | "X") {
            found.push((pid, parent.and_then(|parent| parent.parse().ok()).unwrap_or(0)));
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn p2_p3_a_compose_that_outlived_its_agent_is_gone_before_the_next_one_does_anything() -> Result<()> {
    let mut rig = Rig::new("orphan")?;
    for tag in ["v1", "v2"] {
        Image::version(tag).publish(&standin()?, &format!("{}:{tag}", rig.repository))?;
    }
    rig.project.write("docker-compose.yml", &COMPOSE.replace("REPOSITORY", &rig.repository))?;
    rig.project.write(".env", "IMAGE_TAG=none\n")?;
    let mut agent = Process::start(&rig)?;
    let (id, request) = rig.request(&[("IMAGE_TAG", "v1")])?;
    let client = rig.client(&agent.address)?;
    client.operate(&id, &request).await?;
    let first = ended(&client, &id).await?;
    ensure!(outcome(&first) == Some(Outcome::Succeeded), "{first:#?}");

    let (id, request) = rig.request(&[("IMAGE_TAG", "v2")])?;
    client.operate(&id, &request).await?;
    let name = rig.project.name.clone();
    let waits = || {
        let seen = rig.project.inspect("slow", "{{.Config.Image}} {{len .State.Health.Log}}");
        let checked = seen.is_ok_and(|seen| seen.contains(":v2 ") && !seen.ends_with(" 0"));
        checked && !children(&name).is_empty()
    };
    until("compose waits for a service that it has recreated", Duration::from_mins(1), waits).await?;
    agent.kill()?;
    let left = children(&rig.project.name);
    ensure!(left.len() == 1, "compose outlives the agent that is killed: {left:?}");

    agent = Process::start(&rig)?;
    // It says that it is ready once it has taken up what was in flight.
    let now = children(&rig.project.name);
    let own = i32::try_from(agent.child.id())?;
    ensure!(now.iter().all(|(pid, parent)| *pid != left[0].0 && *parent == own), "{left:?}, then {now:?}");
    ensure!(rig_log(&rig).contains("outlived an agent that was killed"), "{}", rig_log(&rig));

    let client = rig.client(&agent.address)?;
    let status = ended(&client, &id).await?;
    ensure!(outcome(&status) == Some(Outcome::Succeeded), "{status:#?}\n{}", rig_log(&rig));
    for service in ["slow", "last"] {
        let image = rig.project.inspect(service, "{{.Config.Image}}")?;
        ensure!(image.ends_with(":v2"), "{service} runs {image}");
    }
    ensure!(rig.project.containers()?.len() == 2, "{:?}", rig.project.containers()?);
    // Whatever was left half way by then, nothing is left to be done by hand.
    let before = rig.project.containers()?;
    rig.project.compose(&["up", "-d"])?;
    ensure!(before == rig.project.containers()?, "{before:?}, then {:?}", rig.project.containers()?);
    Ok(())
}
