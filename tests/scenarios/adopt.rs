//! `tenantry adopt`: a newcomer's own projects become Tenants, with no file edited by hand and no container touched.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::json;
use tenantry_tests::docker::{Project, free_port};
use tenantry_tests::program;
use tenantry_tests::world::World;

use crate::one_machine::Up;
use crate::sample;

/// How long adopting a running project, and its first upgrade, may each take.
const SOON: Duration = Duration::from_mins(1);

/// Runs `tenantry adopt` as somebody without a kubeconfig of their own, and with no terminal to be asked on.
fn adopt(home: &Path, arguments: &[&str]) -> Result<Output> {
    let output = Command::new(program("tenantry")?)
        .arg("adopt")
        .args(arguments)
        .env_remove("KUBECONFIG")
        .env("HOME", home)
        .stdin(Stdio::null())
        .output()?;
    Ok(output)
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn literals(repository: &str, port: u16, media: &Path) -> String {
    format!(
        "# mine\ninclude: [../net.yml]\nservices:\n  web:\n    image: {repository}:v1   # the shop\n    \
         extends: {{file: ../base.yml, service: base}}\n    env_file: ../shop.env\n    volumes: \
         [\"{}:/media:ro\"]\n    \
         ports: [\"127.0.0.1:{port}:8080\"]\n    stop_grace_period: 2s\n    restart: unless-stopped\n    healthcheck: {{test: \
         [CMD, /standin, health, --watch], interval: 200ms, timeout: 1m, retries: 3}}\n  worker:\n    image: \
         '{repository}:v1'\n    stop_grace_period: 2s\n",
        media.display()
    )
}

#[tokio::test]
async fn p1_p10_a_project_with_literal_tags_is_adopted_granted_upgraded_and_taken_back() -> Result<()> {
    let files = tempfile::Builder::new().prefix("tenantry-adopt-").tempdir()?;
    let folder = files.path();
    let media = folder.join("media");
    std::fs::create_dir_all(folder.join("srv"))?;
    std::fs::create_dir_all(&media)?;
    std::fs::write(folder.join("srv/shop.env"), "TOKEN=mine\n")?;
    std::fs::write(folder.join("srv/net.yml"), "networks: {shared: {}}\n")?;
    std::fs::write(folder.join("srv/base.yml"), "services:\n  base: {networks: [default, shared]}\n")?;
    let repository = sample::repository("adoptliteral")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[])?;
    let project = Project::new(&folder.join("srv"), "adoptliteral")?;
    let compose = literals(&repository, project.port, &media);
    project.write("docker-compose.yml", &compose)?;
    project.compose(&["up", "-d"])?;
    let containers = project.containers()?;
    let directory = project.directory.to_string_lossy().into_owned();

    // Before there is any control plane: the manifest alone.
    let output = adopt(folder, &[&directory, "-o", "yaml"])?;
    ensure!(output.status.success(), "{}", said(&output));
    let manifest: serde_json::Value = serde_saphyr::from_slice(&output.stdout)?;
    assert_eq!(manifest["spec"]["images"], json!([{"name": repository, "newTag": "$(imageTag)"}]));
    assert_eq!(manifest["spec"]["imageTag"], "v1");

    let up = Up::start(folder, &format!("127.0.0.1:{}", free_port()?))?;
    let policy = folder.join("state").join("agent.yaml");
    let before = std::fs::read_to_string(&policy)?;
    let kubeconfig = up.ready["kubeconfig"].as_str().context("a kubeconfig")?.to_owned();
    // The policy file is found beside the kubeconfig.
    let of = [&directory, "--kubeconfig", &kubeconfig];
    let with = |more: &[&str]| adopt(folder, &[&of[..], more].concat());
    let refused = with(&["--yes"])?;
    let mount = format!("{}:ro", media.display());
    ensure!(!refused.status.success() && said(&refused).contains(&mount), "{}", said(&refused));
    ensure!(said(&refused).contains("--grant"), "{}", said(&refused));
    for elsewhere in ["shop.env:ro", "net.yml:ro", "base.yml:ro"] {
        ensure!(said(&refused).contains(elsewhere), "a file elsewhere: {}", said(&refused));
    }
    let unasked = with(&["--grant"])?;
    ensure!(!unasked.status.success() && said(&unasked).contains("--yes"), "{}", said(&unasked));
    assert_eq!(std::fs::read_to_string(&policy)?, before, "without a yes nothing is granted");

    let begun = Instant::now();
    let adopted = with(&["--grant", "--yes"])?;
    ensure!(adopted.status.success(), "{}", said(&adopted));
    let took = begun.elapsed();
    println!("adopt -> Ready: {:.1} s", took.as_secs_f64());
    ensure!(took < SOON, "adopt took {took:?}");
    let long: Vec<String> =
        said(&adopted).lines().filter(|line| line.chars().count() > 80).map(str::to_owned).collect();
    let bounded =
        long.iter().all(|line| line.contains(&*folder.to_string_lossy()) || line.starts_with("Ready:"));
    ensure!(bounded, "lines fit a terminal but for paths: {long:#?}");
    ensure!(std::fs::read_to_string(&policy)?.starts_with(&before), "what was in the policy file stays");
    ensure!(project.containers()? == containers, "adopting changed containers");
    assert_eq!(project.read("docker-compose.yml")?, compose, "nor is a file changed");

    let patch =
        |change: &str| up.kubectl(&["patch", "tenant", &project.name, "--type", "merge", "-p", change]);
    let begun = Instant::now();
    patch(r#"{"spec":{"imageTag":"v2"}}"#)?;
    let tenant = format!("tenant/{}", project.name);
    up.kubectl(&["wait", &tenant, "--for", "jsonpath={.status.deployed.imageTag}=v2", "--timeout=90s"])?;
    up.kubectl(&["wait", &tenant, "--for", "condition=Ready", "--timeout=90s"])?;
    let took = begun.elapsed();
    println!("first upgrade: {:.1} s", took.as_secs_f64());
    ensure!(took < SOON, "the first upgrade took {took:?}");
    assert_eq!(project.answer("/version").await?, "v2");
    let upgraded = compose.replace(&format!("{repository}:v1"), &format!("{repository}:v2"));
    assert_eq!(project.read("docker-compose.yml")?, upgraded, "exactly the tags are changed");
    project.assert_hand_run_changes_nothing()?;

    // A Tenant that is there already, and refused for a policy that does not grant its project any longer, is granted the
    // same way; that it was refused is not told as what became of it.
    std::fs::write(&policy, &before)?;
    patch(r#"{"spec":{"imageTag":"v1","upgrade":{"verify":{"stableFor":"1s"}}}}"#)?;
    let refused = r#"jsonpath={.status.conditions[?(@.type=="Stalled")].reason}=PolicyRefused"#;
    up.kubectl(&["wait", &tenant, "--for", refused, "--timeout=90s"])?;
    let lacking = with(&["--yes"])?;
    ensure!(!lacking.status.success() && said(&lacking).contains(&mount), "{}", said(&lacking));
    let granted = with(&["--grant", "--yes"])?;
    ensure!(granted.status.success() && said(&granted).contains("Granted in"), "{}", said(&granted));
    let became = said(&granted);
    let became = became.split("Granted in").nth(1).unwrap_or_default();
    ensure!(became.contains("Ready: ") && !became.contains("more than the policy"), "{became}");
    ensure!(std::fs::read_to_string(&policy)?.contains(&mount), "the line is in the policy file again");
    assert_eq!(project.answer("/version").await?, "v1");
    assert_eq!(project.read("docker-compose.yml")?, compose);

    let back = Command::new(program("tenantry")?)
        .args(["rollback", &project.name, "--wait", "--timeout", "90s", "--kubeconfig", &kubeconfig])
        .output()?;
    ensure!(back.status.success(), "{}", said(&back));
    assert_eq!(project.answer("/version").await?, "v2");
    assert_eq!(project.read("docker-compose.yml")?, upgraded);
    let again = with(&["--yes"])?;
    ensure!(said(&again).contains("is for that place already"), "{}", said(&again));
    up.end()
}

#[tokio::test]
async fn p10_a_project_whose_tag_is_a_default_is_found_by_its_containers_and_adopted() -> Result<()> {
    let world = World::start("adoptvar").await?;
    let installed = sample::install(&world, "adoptvar")?;
    let project = &installed.project;
    sample::publish(&installed.repository, "v2", &[])?;
    // No tag in .env: the default counts.
    let compose = sample::compose_file(&installed.repository).replace("${IMAGE_TAG:?}", "${IMAGE_TAG:-v1}");
    project.write("docker-compose.yml", &compose)?;
    project
        .write(".env", &sample::env_file("v1", project.port).replace("IMAGE_TAG=\"v1\" # release\r\n", ""))?;
    project.compose(&["up", "-d"])?;
    let containers = project.containers()?;
    let (policy, kubeconfig) =
        (world.path("agent.yaml"), world.plane.kubeconfig.to_string_lossy().into_owned());
    let policy = policy.to_string_lossy().into_owned();
    let home = world.path("home");
    let output = adopt(
        &home,
        &[
            "--project",
            &project.name,
            "--policy",
            &policy,
            "--kubeconfig",
            &kubeconfig,
            "-n",
            &world.namespace,
            "--yes",
        ],
    )?;
    ensure!(output.status.success(), "{}", said(&output));
    ensure!(said(&output).contains("Its release is v1: IMAGE_TAG"), "{}", said(&output));
    ensure!(project.containers()? == containers, "adopting changed containers");
    world.until_ready_at(&project.name, "v1").await?;

    world.patch(&project.name, json!({"spec": {"imageTag": "v2"}})).await?;
    world.until_ready_at(&project.name, "v2").await?;
    assert_eq!(project.answer("/version").await?, "v2");
    assert_eq!(project.read("docker-compose.yml")?, compose, "the tag is set in .env alone");
    project.assert_hand_run_changes_nothing()?;
    world.patch(&project.name, json!({"spec": {"imageTag": "v1"}})).await?;
    world.until_ready_at(&project.name, "v1").await?;
    assert_eq!(project.answer("/version").await?, "v1");
    world.assert_canary_unseen().await
}

/// What a person answers on a terminal: `script` is one.
fn answered(home: &Path, arguments: &[&str], answer: &str) -> Result<Output> {
    let quoted: Vec<String> = arguments.iter().map(|one| format!("'{one}'")).collect();
    let line = format!("'{}' adopt {}", program("tenantry")?.display(), quoted.join(" "));
    let mut script = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env_remove("KUBECONFIG")
        .env("HOME", home)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()?;
    script.stdin.take().context("its input")?.write_all(answer.as_bytes())?;
    Ok(script.wait_with_output()?)
}

/// A project of one service whose tag is written out, running.
fn running(world: &World, name: &str) -> Result<Project> {
    let repository = sample::repository(name)?;
    sample::publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, name)?;
    let image = format!("services:\n  web:\n    image: {repository}:v1\n    stop_grace_period: 1s\n");
    project.write("compose.yaml", &image)?;
    project.compose(&["up", "-d"])?;
    Ok(project)
}

#[tokio::test]
async fn p1_a_person_is_asked_a_bundle_is_written_and_all_projects_are_taken() -> Result<()> {
    let world = World::start("adoptall").await?;
    let projects = [running(&world, "adoptall-one")?, running(&world, "adoptall-two")?];
    let containers = [projects[0].containers()?, projects[1].containers()?];
    let home = world.path("home");
    let policy = world.path("agent.yaml").to_string_lossy().into_owned();
    let kubeconfig = world.plane.kubeconfig.to_string_lossy().into_owned();
    let cluster = ["--policy", &policy, "--kubeconfig", &kubeconfig, "-n", &world.namespace];
    let directory = projects[0].directory.to_string_lossy().into_owned();
    let one = [&[directory.as_str()][..], &cluster[..]].concat();

    let out = world.path("bundles").to_string_lossy().into_owned();
    let written = adopt(&home, &[&one[..], &["--bundle-dir", &out]].concat())?;
    ensure!(written.status.success(), "{}", said(&written));
    let bundle = Path::new(&out).join("adoptall-one");
    let template = std::fs::read_to_string(bundle.join("compose.yaml.tera"))?;
    assert_eq!(template.replace("{{ imageTag }}", "v1"), projects[0].read("compose.yaml")?);
    ensure!(std::fs::read_to_string(bundle.join("tenant.yaml"))?.contains("kind: TemplateBundle"));
    let again = adopt(&home, &[&one[..], &["--bundle-dir", &out]].concat())?;
    ensure!(!again.status.success() && said(&again).contains("is there already"), "{}", said(&again));

    // No, no answer at all, and another word are no yes.
    for answer in ["n\n", "", "perhaps\n"] {
        let output = answered(&home, &one, answer)?;
        ensure!(said(&output).contains("Adopt it? [y/N]"), "{}", said(&output));
        ensure!(
            !output.status.success() && said(&output).contains("Nothing was done"),
            "{answer:?}: {}",
            said(&output)
        );
        ensure!(world.tenants().get_opt("adoptall-one").await?.is_none(), "{answer:?} made a Tenant");
    }
    let output = answered(&home, &one, "y\n")?;
    ensure!(output.status.success(), "{}", said(&output));
    world.until_ready_at("adoptall-one", "v1").await?;

    // Projects of others on this host are left out: the policy does not hold their directories.
    let all = adopt(&home, &[&["--all", "--yes"][..], &cluster[..]].concat())?;
    ensure!(said(&all).contains("The Tenant adoptall-one is for that place already"), "{}", said(&all));
    world.until_ready_at("adoptall-two", "v1").await?;
    assert_eq!([projects[0].containers()?, projects[1].containers()?], containers, "containers were touched");
    Ok(())
}
