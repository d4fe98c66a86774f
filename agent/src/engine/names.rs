//! Whose a name is that compose would use: which project the engine has it for.

use std::collections::HashMap;

use super::{DockerEngine, EngineError};

const PROJECT: &str = "com.docker.compose.project";

/// `None` where there is no such thing; else the project that its labels name, if they do.
pub type Owner = Option<Option<String>>;

impl DockerEngine {
    /// Whose the volume of that name is.
    pub async fn volume_project(&self, name: &str) -> Result<Owner, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_volume(name).await };
        owner(self.read("look at a volume", ask).await.map(|volume| volume.labels))
    }

    /// Whose the network of that name is.
    pub async fn network_project(&self, name: &str) -> Result<Owner, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_network(name, None).await };
        let found = self.read("look at a network", ask).await;
        // The engine takes the beginning of an id for a name, too.
        if found.as_ref().is_ok_and(|network| network.name.as_deref() != Some(name)) {
            return Ok(None);
        }
        owner(found.map(|network| network.labels.unwrap_or_default()))
    }

    /// Whose the container of that name is.
    pub async fn container_project(&self, name: &str) -> Result<Owner, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_container(name, None).await };
        let found = self.read("look at a container", ask).await;
        let is_its_name =
            |seen: &Option<String>| seen.as_deref().is_some_and(|seen| seen.trim_start_matches('/') == name);
        if found.as_ref().is_ok_and(|container| !is_its_name(&container.name)) {
            return Ok(None);
        }
        owner(found.map(|container| container.config.and_then(|config| config.labels).unwrap_or_default()))
    }
}

fn owner(labels: Result<HashMap<String, String>, EngineError>) -> Result<Owner, EngineError> {
    match labels {
        Ok(labels) => Ok(Some(labels.get(PROJECT).cloned())),
        Err(error) if error.is_missing() => Ok(None),
        Err(error) => Err(error),
    }
}
