//! A small project in several releases: a web service that publishes a port, a worker without healthcheck, a one-shot,
//! a mounted config file, a protected folder, and a secret in `.env`.

use std::path::PathBuf;

use anyhow::Result;
use tenantry_tests::docker::Project;
use tenantry_tests::required;
use tenantry_tests::world::{CANARY, World};
use test_images::Image;

/// Where the sample's images are.
pub fn repository(name: &str) -> Result<String> {
    Ok(format!("{}/scenarios/{name}", required("TENANTRY_TEST_REGISTRY")?))
}

/// Publishes a release of the sample's image; its variables say how it behaves.
pub fn publish(repository: &str, tag: &str, variables: &[(&str, &str)]) -> Result<()> {
    let standin = PathBuf::from(required("TENANTRY_STANDIN")?);
    let image = variables.iter().fold(Image::version(tag), |image, (name, value)| image.with(name, value));
    image.publish(&standin, &format!("{repository}:{tag}"))
}

/// The sample's compose file.
pub fn compose_file(repository: &str) -> String {
    format!(
        r#"services:
  migrate:
    image: {repository}:${{IMAGE_TAG:?}}
    environment: {{MODE: job, EXIT_AFTER: 50ms, EXIT_CODE: "0"}}
  web:
    image: {repository}:${{IMAGE_TAG:?}}
    depends_on: {{migrate: {{condition: service_completed_successfully}}}}
    environment: {{STANDIN_CONFIG: /etc/web.conf, TOKEN: "${{TOKEN:-}}"}}
    volumes: ["./config/web.conf:/etc/web.conf:ro", "./content:/content:ro"]
    ports: ["127.0.0.1:${{HTTP_PORT}}:8080"]
    stop_grace_period: 2s
    restart: unless-stopped
    healthcheck: {{test: [CMD, /standin, health, --watch], interval: 200ms, timeout: 1m, retries: 3}}
  worker:
    image: {repository}:${{IMAGE_TAG:?}}
    stop_grace_period: 2s
"#
    )
}

/// The sample's `.env`, with things in it that a careless patcher would change.
pub fn env_file(tag: &str, port: u16) -> String {
    format!(
        "# the tenant's own\r\nexport TOKEN='{CANARY}'\r\nIMAGE_TAG=\"{tag}\" # release\r\nHTTP_PORT={port}\r\nNOTE=a=b # c"
    )
}

/// The sample installed by hand and running at `v1`.
pub struct Installed {
    /// The project.
    pub project: Project,
    /// Its image's repository.
    pub repository: String,
}

/// Installs the sample by hand at `v1`, as a person did before there was a Tenant.
pub fn install(world: &World, name: &str) -> Result<Installed> {
    let repository = repository(name)?;
    publish(&repository, "v1", &[])?;
    let project = Project::new(&world.srv, name)?;
    project.write("docker-compose.yml", &compose_file(&repository))?;
    project.write("config/web.conf", "GREETING=hello\n")?;
    project.write("content/index.md", "the tenant's own words\n")?;
    project.write(".env", &env_file("v1", project.port))?;
    project.compose(&["up", "-d"])?;
    Ok(Installed { project, repository })
}

/// The sample as a bundle's files: the compose file and the mounted config file.
pub fn bundle_files(repository: &str, greeting: &str) -> Vec<(&'static str, String)> {
    vec![
        ("bundle.yaml", "files:\n- source: docker-compose.yml\n- source: config/web.conf.tera\n".to_owned()),
        ("docker-compose.yml", compose_file(repository)),
        ("config/web.conf.tera", format!("GREETING={greeting} {{{{ imageTag }}}}\n")),
    ]
}

/// Makes the sample's files, or others, the bundle `sample`.
pub async fn put_bundle(world: &World, files: &[(&str, String)]) -> Result<()> {
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (*path, content.as_str())).collect();
    world.bundle("sample", &files).await
}
