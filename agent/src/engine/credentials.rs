//! Credentials for registries, as the Docker client keeps them: `config.json` and credential helpers.

use std::collections::HashMap;
use std::path::PathBuf;
use std::process::Stdio;
use std::time::Duration;

use bollard::auth::DockerCredentials;
use serde::Deserialize;
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use crate::config::registry_of;

/// The name under which Docker Hub's credentials are kept.
const HUB: &str = "https://index.docker.io/v1/";
const HELPER_LIMIT: Duration = Duration::from_secs(15);
const FILE_LIMIT: u64 = 1024 * 1024;

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ClientConfig {
    auths: HashMap<String, Auth>,
    cred_helpers: HashMap<String, String>,
    creds_store: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "lowercase", default)]
struct Auth {
    #[serde(rename = "auth")]
    pair: String,
    username: String,
    password: String,
    identitytoken: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Helped {
    username: String,
    secret: String,
}

/// Credentials for the registry of a reference; `None` where none are kept.
pub(super) async fn for_reference(reference: &str) -> Option<DockerCredentials> {
    let registry = match registry_of(reference) {
        "docker.io" => HUB,
        other => other,
    };
    let config = tokio::task::spawn_blocking(read).await.ok()??;
    let helper = config
        .cred_helpers
        .get(registry)
        .cloned()
        .or_else(|| Some(config.creds_store.clone()).filter(|store| !store.is_empty()));
    if let Some(helper) = helper
        && let Some(found) = ask(&helper, registry).await
    {
        return Some(found);
    }
    kept(&config, registry)
}

fn read() -> Option<ClientConfig> {
    let folder = std::env::var_os("DOCKER_CONFIG")
        .map(PathBuf::from)
        .or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker")))?;
    let path = folder.join("config.json");
    if std::fs::metadata(&path).ok()?.len() > FILE_LIMIT {
        tracing::warn!(path = %path.display(), "too long for a Docker client's configuration; not read");
        return None;
    }
    let text = std::fs::read(&path).ok()?;
    serde_json::from_slice(&text)
        .inspect_err(
            |_| tracing::warn!(path = %path.display(), "is not a Docker client's configuration; not used"),
        )
        .ok()
}

fn kept(config: &ClientConfig, registry: &str) -> Option<DockerCredentials> {
    let host = |key: &str| {
        key.trim_start_matches("https://").trim_start_matches("http://").trim_end_matches('/').to_owned()
    };
    let found = config.auths.iter().find(|(key, _)| *key == registry || host(key) == registry)?.1;
    let (mut username, mut password) = (found.username.clone(), found.password.clone());
    if !found.pair.is_empty() {
        use base64::Engine as _;
        let decoded = base64::engine::general_purpose::STANDARD.decode(&found.pair).ok()?;
        let text = String::from_utf8(decoded).ok()?;
        let (name, secret) = text.split_once(':')?;
        (username, password) = (name.to_owned(), secret.trim_end_matches('\0').to_owned());
    }
    let token = Some(found.identitytoken.clone()).filter(|token| !token.is_empty());
    if username.is_empty() && token.is_none() {
        return None;
    }
    Some(credentials(registry, username, password, token))
}

async fn ask(helper: &str, registry: &str) -> Option<DockerCredentials> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if !helper.chars().all(plain) {
        return None;
    }
    let mut child = Command::new(format!("docker-credential-{helper}"))
        .arg("get")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .ok()?;
    child.stdin.take()?.write_all(registry.as_bytes()).await.ok()?;
    let output = tokio::time::timeout(HELPER_LIMIT, child.wait_with_output()).await.ok()?.ok()?;
    let answer: Helped = serde_json::from_slice(&output.stdout).ok()?;
    Some(if answer.username == "<token>" {
        credentials(registry, String::new(), String::new(), Some(answer.secret))
    } else {
        credentials(registry, answer.username, answer.secret, None)
    })
}

fn credentials(
    registry: &str,
    username: String,
    password: String,
    token: Option<String>,
) -> DockerCredentials {
    DockerCredentials {
        username: Some(username),
        password: Some(password),
        serveraddress: Some(registry.to_owned()),
        identitytoken: token,
        ..Default::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_credentials_are_found_by_registry() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"bWU6c2VjcmV0"},
                       "localhost:5000":{"username":"a","password":"b"},"empty":{}}}"#;
        let config: ClientConfig = serde_json::from_str(json).unwrap();
        let found = |registry| kept(&config, registry).and_then(|found| found.username.zip(found.password));
        assert_eq!(found(HUB), Some(("me".to_owned(), "secret".to_owned())));
        assert_eq!(found("localhost:5000"), Some(("a".to_owned(), "b".to_owned())));
        assert_eq!(found("empty"), None);
        assert_eq!(found("ghcr.io"), None);
    }
}
