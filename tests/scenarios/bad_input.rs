//! Input that only the operator or the host can judge: refused with the place and the cause, nothing changed.

use anyhow::{Result, ensure};
use serde_json::json;
use tenantry_api::tenant_status::Phase;
use tenantry_tests::docker::Project;
use tenantry_tests::world::{SOON, World, condition, phase_of};

use crate::sample;

/// A bundle's files, and what the refusal must name.
type Case = (&'static str, Vec<(&'static str, String)>, &'static [&'static str]);

fn cases(repository: &str) -> Vec<Case> {
    let listed = "files:\n- source: docker-compose.yml.tera\n".to_owned();
    let with = |content: &str| {
        vec![("bundle.yaml", listed.clone()), ("docker-compose.yml.tera", content.to_owned())]
    };
    let described = |bundle: &str| {
        vec![("bundle.yaml", bundle.to_owned()), ("docker-compose.yml", sample::compose_file(repository))]
    };
    vec![
        ("no bundle.yaml", vec![("docker-compose.yml", "services: {}".to_owned())], &["bundle.yaml"]),
        (
            "undefined variable",
            with("services: {web: {image: {{ values.nope }}}}"),
            &["docker-compose.yml.tera", "nope"],
        ),
        ("syntax error", with("{% if %}"), &["docker-compose.yml.tera"]),
        (
            "endless output",
            with(
                "{% for a in range(end=100000) %}{% for b in range(end=100000) %}xxxxxxxx{% endfor %}{% endfor %}",
            ),
            &["docker-compose.yml.tera"],
        ),
        (
            "unknown field",
            described("files:\n- source: docker-compose.yml\n  mod: '0644'\n"),
            &["bundle.yaml", "mod"],
        ),
        (
            "a path upwards",
            described("files:\n- source: docker-compose.yml\n  destination: ../x\n"),
            &["bundle.yaml", "'..'"],
        ),
        (
            "an absolute path",
            described("files:\n- source: docker-compose.yml\n  destination: /etc/x\n"),
            &["bundle.yaml", "absolute"],
        ),
        (
            "a protected path",
            described(
                "files:\n- source: docker-compose.yml\n- source: docker-compose.yml\n  destination: content/x.yml\n",
            ),
            &["content/x.yml", "protect"],
        ),
        (
            "one destination twice",
            described("files:\n- source: docker-compose.yml\n- source: docker-compose.yml\n"),
            &["bundle.yaml"],
        ),
        (
            "a missing file",
            described("files:\n- source: docker-compose.yml\n- source: nope.conf\n"),
            &["nope.conf"],
        ),
    ]
}

#[tokio::test]
async fn a_bundle_that_cannot_be_used_refuses_the_tenant_and_names_the_place() -> Result<()> {
    let world = World::start("badbundle").await?;
    let repository = sample::repository("badbundle")?;
    sample::publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, "badbundle")?;
    project.write(".env", &sample::env_file("v1", project.port))?;
    project.write("content/index.md", "own\n")?;
    let mut manifest = world.tenant(&project, "v1");
    manifest["spec"]["bundle"] = json!("sample");
    manifest["spec"]["protect"] = json!(["content/"]);
    world.apply(&manifest).await?;
    for (what, files, named) in cases(&repository) {
        sample::put_bundle(&world, &files).await?;
        let says = |tenant: &tenantry_api::Tenant| {
            let message = condition(tenant, "Ready").2;
            phase_of(tenant) == Some(Phase::Refused) && named.iter().all(|word| message.contains(word))
        };
        world.until("acme", &format!("{what}: refused naming {named:?}"), SOON, says).await?;
        ensure!(
            project.containers()?.is_empty() && !project.directory.join("docker-compose.yml").exists(),
            "{what}"
        );
    }
    let good = sample::bundle_files(&repository, "hello");
    sample::put_bundle(&world, &good).await?;
    world.until_ready_at("acme", "v1").await?;
    Ok(())
}

#[tokio::test]
async fn p12_a_compose_file_that_does_not_parse_aborts_without_quoting_values() -> Result<()> {
    let world = World::start("badcompose").await?;
    let repository = sample::repository("badcompose")?;
    sample::publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, "badcompose")?;
    project.write(".env", &sample::env_file("v1", project.port))?;
    project.write("content/index.md", "own\n")?;
    let mut files = sample::bundle_files(&repository, "hello");
    // Compose quotes the value in its error: it must not get out of the host.
    files[1].1.push_str("    ports: [\"${TOKEN}:nonsense:${TOKEN}\"]\n");
    sample::put_bundle(&world, &files).await?;
    let mut manifest = world.tenant(&project, "v1");
    manifest["spec"]["bundle"] = json!("sample");
    world.apply(&manifest).await?;
    let ended =
        |tenant: &tenantry_api::Tenant| matches!(phase_of(tenant), Some(Phase::Aborted | Phase::Refused));
    let tenant = world.until("acme", "the upgrade ends", SOON, ended).await?;
    ensure!(condition(&tenant, "Ready").2.contains("compose"), "{}", condition(&tenant, "Ready").2);
    ensure!(project.containers()?.is_empty() && !project.directory.join("docker-compose.yml").exists());
    world.assert_canary_unseen().await
}
