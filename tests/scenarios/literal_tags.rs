//! Projects that write their image tags out: what `spec.images` sets in their files, and targets that reach nothing.

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tenantry_api::tenant_status::Phase;
use tenantry_tests::docker::Project;
use tenantry_tests::world::{World, condition};

use crate::sample;

/// A compose file as people write them: an anchor, quotes, comments, other line ends, flow style, a tag that is not ours.
fn compose_file(repository: &str, port: u16) -> String {
    format!(
        "# the shop\r\nx-app: &app\r\n  image: \"{repository}:v1\" # the release\r\n  stop_grace_period: 2s\r\n\
         include: [extra/queue.yaml]\r\n\
         services:\r\n  web:\r\n    <<: *app\r\n    ports: ['127.0.0.1:{port}:8080']\r\n  worker: {{<<: *app}}\r\n  \
         cache: {{image: '{repository}-side:1', stop_grace_period: 2s}}\r\n"
    )
}

struct Shop {
    project: Project,
    repository: String,
}

/// The shop in four files, installed by hand at `v1`.
fn shop(world: &World, name: &str) -> Result<Shop> {
    let repository = sample::repository(name)?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&format!("{repository}-side"), "1", &[])?;
    let project = Project::new(&world.srv, name)?;
    project.write("compose.yaml", &compose_file(&repository, project.port))?;
    project.write(
        "compose.override.yaml",
        &format!("services:\n  worker:\n    image: {repository}:v1   # overridden\n    environment: {{NOTE: \"v1\"}}\n"),
    )?;
    project
        .write("extra/queue.yaml", "services:\n  queue:\n    extends: {file: base.yaml, service: base}\n")?;
    project
        .write("extra/base.yaml", &format!("services:\n  base:\n    image: >-\n      {repository}:v1\n"))?;
    project.compose(&["up", "-d"])?;
    Ok(Shop { project, repository })
}

/// The shop's files, each with its text.
fn files(project: &Project) -> Result<Vec<String>> {
    ["compose.yaml", "compose.override.yaml", "extra/queue.yaml", "extra/base.yaml"]
        .map(|path| project.read(path))
        .into_iter()
        .collect()
}

fn by_images(world: &World, shop: &Shop, tag: &str) -> Value {
    let mut manifest = world.tenant(&shop.project, tag);
    manifest["spec"].as_object_mut().unwrap().remove("env");
    manifest["spec"]["images"] = json!([{"name": shop.repository, "newTag": "$(imageTag)"}]);
    manifest
}

#[tokio::test]
async fn p6_p7_literal_tags_are_set_where_they_stand_and_go_back_byte_for_byte() -> Result<()> {
    let world = World::start("literals").await?;
    let shop = shop(&world, "literals")?;
    let (project, repository) = (&shop.project, &shop.repository);
    sample::publish(repository, "v2", &[])?;
    sample::publish(repository, "v3", &[("EXIT_AFTER", "300ms"), ("EXIT_CODE", "3")])?;
    let (containers, v1) = (project.containers()?, files(project)?);

    world.apply(&by_images(&world, &shop, "v1")).await?;
    world.until_ready_at("acme", "v1").await?;
    assert_eq!(project.containers()?, containers, "adoption touches no container");
    assert_eq!(files(project)?, v1, "adoption writes nothing");

    world.apply(&by_images(&world, &shop, "v2")).await?;
    let tenant = world.until_ready_at("acme", "v2").await?;
    assert_eq!(project.answer("/version").await?, "v2");
    let tag = |tag: &str| format!("{repository}:{tag}");
    let v2: Vec<String> = v1.iter().map(|text| text.replace(&tag("v1"), &tag("v2"))).collect();
    assert_eq!(files(project)?, v2, "exactly the tags are changed");
    let after = project.containers()?;
    let same: Vec<&String> = after
        .iter()
        .filter(|(_, id)| containers.values().any(|old| old == *id))
        .map(|(name, _)| name)
        .collect();
    ensure!(same.len() == 1 && same[0].starts_with("cache/"), "only the cache stays: {same:?}");
    let deployed = tenant.status.unwrap_or_default().deployed.context("what is deployed")?;
    for service in ["web", "worker", "queue"] {
        let image = deployed.images.iter().find(|image| image.service == service).context("its image")?;
        assert_eq!(image.reference, tag("v2"));
    }
    project.assert_hand_run_changes_nothing()?;

    world.apply(&by_images(&world, &shop, "v3")).await?;
    world.until_phase("acme", Phase::RolledBack).await?;
    assert_eq!(files(project)?, v2, "a failed release leaves no byte behind");
    project.assert_hand_run_changes_nothing()?;

    world.apply(&by_images(&world, &shop, "v1")).await?;
    world.until_ready_at("acme", "v1").await?;
    assert_eq!(files(project)?, v1);
    project.assert_hand_run_changes_nothing()
}

/// A project of one service that is installed by hand at `v1`.
fn one_service(world: &World, name: &str, env: Option<&str>, image: &str) -> Result<Project> {
    let project = Project::new(&world.srv, name)?;
    project.write(
        "compose.yaml",
        &format!("services:\n  web:\n    image: {image}\n    stop_grace_period: 2s\n"),
    )?;
    if let Some(env) = env {
        project.write(".env", env)?;
    }
    project.compose(&["up", "-d"])?;
    Ok(project)
}

/// The registry's digest of an image.
fn digest_of(reference: &str) -> Result<String> {
    test_images::docker(&["pull", "--quiet", reference])?;
    let format = "{{index .RepoDigests 0}}";
    let output =
        std::process::Command::new("docker").args(["inspect", "--format", format, reference]).output()?;
    let text = String::from_utf8(output.stdout)?;
    Ok(text.trim().split_once('@').with_context(|| format!("no digest of {reference}"))?.1.to_owned())
}

fn named(mut manifest: Value, name: &str) -> Value {
    manifest["metadata"]["name"] = json!(name);
    manifest
}

#[tokio::test]
async fn p17_a_target_that_reaches_no_image_is_refused_and_what_is_right_by_default_is_adopted() -> Result<()>
{
    let world = World::start("reach").await?;
    let repository = sample::repository("reach")?;
    sample::publish(&repository, "v1", &[])?;
    sample::publish(&repository, "v2", &[])?;
    let digest = digest_of(&format!("{repository}:v1"))?;

    // A digest beside the tag wins: whatever the tag says, the same runs.
    let pinned = format!("{repository}:${{IMAGE_TAG}}@{digest}");
    let pinned = one_service(&world, "reach-pinned", Some("IMAGE_TAG=v1\n"), &pinned)?;
    let literal = one_service(&world, "reach-literal", Some("IMAGE_TAG=v1\n"), &format!("{repository}:v1"))?;
    for (project, tag, words) in [
        (&pinned, "v1", "A digest wins over the tag beside it, as in web"),
        (&pinned, "nosuchtag", "A digest wins over the tag beside it, as in web"),
        (&literal, "v2", "name the images in spec.images"),
    ] {
        let (containers, env) = (project.containers()?, project.read(".env")?);
        world.apply(&named(world.tenant(project, tag), &project.name)).await?;
        let tenant = world.until_phase(&project.name, Phase::Refused).await?;
        let (_, reason, message) = condition(&tenant, "Ready");
        assert_eq!(reason, "ReachesNothing", "{message}");
        ensure!(message.contains(words) && message.contains(&repository), "{message}");
        ensure!(tenant.status.unwrap_or_default().deployed.is_none(), "nothing is called deployed");
        assert_eq!((project.containers()?, project.read(".env")?), (containers, env));
    }

    // The default is right: nothing is demanded, nothing written before an upgrade.
    let default = one_service(&world, "reach-default", None, &format!("{repository}:${{IMAGE_TAG:-v1}}"))?;
    let containers = default.containers()?;
    world.apply(&named(world.tenant(&default, "v1"), "default")).await?;
    world.until_ready_at("default", "v1").await?;
    assert_eq!(default.containers()?, containers);
    ensure!(!default.directory.join(".env").exists(), "no .env is made");
    world.apply(&named(world.tenant(&default, "v2"), "default")).await?;
    world.until_ready_at("default", "v2").await?;
    assert_eq!(default.read(".env")?, "IMAGE_TAG=v2\n");
    default.assert_hand_run_changes_nothing()?;

    // What has both `image` and `build` is pulled, as `docker compose pull` does.
    let built = one_service(
        &world,
        "reach-built",
        Some("IMAGE_TAG=v1\n"),
        &format!("{repository}:${{IMAGE_TAG}}\n    build: ."),
    )?;
    world.apply(&named(world.tenant(&built, "v1"), "built")).await?;
    world.until_ready_at("built", "v1").await?;
    test_images::docker(&["rmi", &format!("{repository}:v2")]).ok();
    world.apply(&named(world.tenant(&built, "v2"), "built")).await?;
    world.until_ready_at("built", "v2").await?;
    built.assert_hand_run_changes_nothing()
}

#[tokio::test]
async fn an_untouched_service_keeps_the_image_that_it_runs_though_its_tag_has_moved() -> Result<()> {
    let world = World::start("keeps").await?;
    let shop = shop(&world, "keeps")?;
    let (project, side) = (&shop.project, format!("{}-side:1", shop.repository));
    sample::publish(&shop.repository, "v2", &[])?;
    let cache = project.inspect("cache", "{{.Id}}")?;
    // Another image is pushed under the tag, from another name: this host's own tag stays where it was.
    test_images::docker(&["tag", &side, &format!("{side}-kept")])?;
    sample::publish(&format!("{}-side", shop.repository), "1", &[("NOTE", "moved")])?;
    test_images::docker(&["tag", &format!("{side}-kept"), &side])?;
    test_images::docker(&["rmi", &format!("{side}-kept")])?;

    let mut manifest = by_images(&world, &shop, "v2");
    manifest["spec"]["adopt"] = json!("Overwrite");
    world.apply(&manifest).await?;
    world.until_ready_at("acme", "v2").await?;
    assert_eq!(project.answer("/version").await?, "v2");
    assert_eq!(project.inspect("cache", "{{.Id}}")?, cache, "the cache is not recreated");
    project.assert_hand_run_changes_nothing()
}
