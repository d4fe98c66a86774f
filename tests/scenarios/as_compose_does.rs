//! What is stopped, started or restarted happens as compose would do it, and every container sees what is meant (P19).

use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_tests::docker::{Project, free_port};
use tenantry_tests::world::{CANARY, SOON, World, phase_of};

use crate::sample;

/// `torrent` has the network of `vpn` and answers through its port, `web` restarts with `db`, and has an inline config and
/// a secret; `vpn` mounts a link. Only `app` has the tag.
fn compose_file(repository: &str, vpn: u16, web: u16) -> String {
    format!(
        r#"services:
  vpn:
    image: {repository}:base
    environment: {{LISTEN: "8081", STANDIN_FILES: /etc/app/conf}}
    volumes: ["./app.conf:/etc/app/conf:ro", "state:/state"]
    ports: ["127.0.0.1:${{HTTP_PORT}}:8080", "127.0.0.1:{vpn}:8081"]
    post_start: [{{command: [/standin], environment: [MODE=job]}}]
    pre_stop: [{{command: [/standin], environment: [MODE=job]}}]
    stop_grace_period: 2s
  torrent: {{image: "{repository}:base", network_mode: "service:vpn", depends_on: [vpn], stop_grace_period: 2s}}
  db:
    image: {repository}:base
    volumes: ["./conf-v1/db:/etc/app/db:ro"]
    stop_grace_period: 2s
  web:
    image: {repository}:base
    depends_on: {{db: {{condition: service_started, restart: true}}}}
    environment: {{STANDIN_FILES: "/etc/app/conf:/run/secrets/key"}}
    configs: [{{source: app, target: /etc/app/conf}}]
    secrets: [key]
    ports: ["127.0.0.1:{web}:8080"]
    stop_grace_period: 2s
  app: {{image: "{repository}:${{IMAGE_TAG:?}}", stop_grace_period: 2s}}
volumes: {{state: {{}}}}
configs: {{app: {{content: "backend=${{IMAGE_TAG}}"}}}}
secrets: {{key: {{environment: KEY}}}}
"#
    )
}

/// The project, and the ports through which `vpn` and `web` answer.
struct Rig {
    project: Project,
    vpn: u16,
    web: u16,
}

impl Rig {
    fn install(world: &World, repository: &str) -> Result<Self> {
        let (vpn, web) = (free_port()?, free_port()?);
        let project = Project::new(&world.srv, "ascompose")?;
        project.write("docker-compose.yml", &compose_file(repository, vpn, web))?;
        project.write("conf-v1/conf", "one\n")?;
        project.write("conf-v1/db", "one\n")?;
        let env = format!(
            "TOKEN={CANARY}\nIMAGE_TAG=v1\nHTTP_PORT={}\nKEY=\"{CANARY}-${{IMAGE_TAG}}\"\n",
            project.port
        );
        project.write(".env", &env)?;
        std::os::unix::fs::symlink("conf-v1/conf", project.directory.join("app.conf"))?;
        project.compose(&["up", "-d"])?;
        Ok(Self { project, vpn, web })
    }

    async fn answer(port: u16, path: &str) -> Result<String> {
        let client = reqwest::Client::builder().timeout(Duration::from_secs(2)).build()?;
        let answer = client.get(format!("http://127.0.0.1:{port}{path}")).send().await?;
        Ok(answer.error_for_status()?.text().await?.trim().to_owned())
    }

    fn started(&self, service: &str) -> Result<k8s_openapi::jiff::Timestamp> {
        Ok(self.project.inspect(service, "{{.State.StartedAt}}")?.parse()?)
    }

    /// How often a command was run in the container of `vpn`, that is a hook.
    fn hooks(&self) -> Result<usize> {
        let id = self.project.inspect("vpn", "{{.Id}}")?;
        let filters = ["--filter", "event=exec_start", "--filter", &format!("container={id}")];
        let until = k8s_openapi::jiff::Timestamp::now().as_second().to_string();
        let mut events = Command::new("docker");
        let output = events.args(["events", "--since", "1h", "--until", &until]).args(filters).output()?;
        Ok(String::from_utf8(output.stdout)?.lines().count())
    }

    /// What `vpn`, `web` and `torrent` see.
    async fn assert_sees(&self, conf: &str, tag: &str) -> Result<()> {
        assert_eq!(Self::answer(self.vpn, "/files/etc/app/conf").await?, conf, "what vpn mounts");
        assert_eq!(Self::answer(self.web, "/files/etc/app/conf").await?, format!("backend={tag}"));
        assert_eq!(Self::answer(self.web, "/files/run/secrets/key").await?, format!("{CANARY}-{tag}"));
        assert_eq!(self.project.answer("/version").await.context("torrent's network")?, "base");
        ensure!(self.started("torrent")? > self.started("vpn")?);
        ensure!(self.started("web")? > self.started("db")?);
        Ok(())
    }
}

async fn put_bundle(world: &World, conf: &str) -> Result<()> {
    let files = [
        ("bundle.yaml", "files: [{source: conf-v1/conf}, {source: conf-v1/db}]\n".to_owned()),
        ("conf-v1/conf", format!("{conf}\n")),
        ("conf-v1/db", format!("{conf}\n")),
    ];
    sample::put_bundle(world, &files).await
}

#[tokio::test]
async fn p19_sharers_followers_hooks_links_and_inline_configs_are_as_compose_has_them() -> Result<()> {
    let world = World::start("ascompose").await?;
    let repository = sample::repository("ascompose")?;
    for tag in ["base", "v1", "v2"] {
        sample::publish(&repository, tag, &[])?;
    }
    sample::publish(&repository, "v3", &[("EXIT_AFTER", "300ms"), ("EXIT_CODE", "3")])?;
    let rig = Rig::install(&world, &repository)?;
    put_bundle(&world, "one").await?;
    let mut manifest = world.tenant(&rig.project, "v1");
    manifest["spec"]["bundle"] = json!("sample");
    manifest["spec"]["upgrade"]["snapshot"] = json!({"volumes": ["state"], "consistency": "Stop"});
    let (before, hooks) = (rig.project.containers()?, rig.hooks()?);
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v1").await?;
    assert_eq!(rig.project.containers()?, before, "adoption touches nothing");
    assert_eq!(rig.hooks()?, hooks);

    // Files alone: a link's target, and what `db` mounts. For the snapshot `vpn` is stopped besides.
    let (web, torrent) = (rig.started("web")?, rig.started("torrent")?);
    put_bundle(&world, "two").await?;
    let done = |tenant: &tenantry_api::Tenant| {
        let status = tenant.status.as_ref();
        phase_of(tenant) == Some(Phase::Ready) && status.is_some_and(|status| status.upgrade.is_some())
    };
    world.until("acme", "the new files are deployed", SOON, done).await?;
    rig.assert_sees("two", "v1").await?;
    assert_eq!(rig.project.containers()?, before, "restarts suffice");
    ensure!(rig.started("web")? > web && rig.started("torrent")? > torrent);
    ensure!(rig.hooks()? >= hooks + 2, "both hooks of vpn were run");

    // A variable alone: what compose has copied into `web` is of before.
    world.patch("acme", json!({"spec": {"imageTag": "v2"}})).await?;
    world.until_ready_at("acme", "v2").await?;
    rig.assert_sees("two", "v2").await?;
    let made = rig.project.containers()?;
    assert_eq!(made["vpn/ascompose-vpn-1"], before["vpn/ascompose-vpn-1"]);
    rig.project.assert_hand_run_changes_nothing()?;

    put_bundle(&world, "three").await?;
    world.patch("acme", json!({"spec": {"imageTag": "v3"}})).await?;
    let back = |tenant: &tenantry_api::Tenant| {
        let upgrade = tenant.status.as_ref().and_then(|status| status.upgrade.as_ref());
        upgrade.is_some_and(|upgrade| upgrade.outcome == Some(Outcome::RolledBack))
    };
    world.until("acme", "v3 is taken back", SOON, back).await?;
    rig.assert_sees("two", "v2").await?;
    rig.project.assert_hand_run_changes_nothing()?;
    world.assert_canary_unseen().await
}
