//! Compose projects, found by the labels of their containers.

use std::collections::HashMap;
use std::path::Path;

use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptions;

use super::containers::{DIRECTORY, ONE_OFF, PROJECT, SERVICE};
use super::{DockerEngine, EngineError};

const FILES: &str = "com.docker.compose.project.config_files";
const ENV_FILES: &str = "com.docker.compose.project.environment_file";

/// A container that compose has made, as its labels tell it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ComposeContainer {
    /// The container's name.
    pub name: String,
    /// The compose project.
    pub project: String,
    /// The service.
    pub service: String,
    /// The directory that it was made from; empty where compose did not note it.
    pub directory: String,
    /// The compose files that it was made from.
    pub files: Vec<String>,
    /// Environment files that were named in place of `.env`.
    pub env_files: Vec<String>,
    /// The image that it was made from; absent where the engine knows it by its id alone.
    pub image: Option<String>,
    /// Whether it runs.
    pub running: bool,
}

impl ComposeContainer {
    /// Whether the container was made from a directory, by whatever path compose knew it. This may look at the disk.
    pub fn is_from(&self, real: &Path) -> bool {
        let from = Path::new(&self.directory);
        from == real || (from.is_absolute() && std::fs::canonicalize(from).is_ok_and(|from| from == real))
    }
}

impl DockerEngine {
    /// Every container that compose has made and that belongs to a project, running or not.
    pub async fn compose_containers(&self) -> Result<Vec<ComposeContainer>, EngineError> {
        let filters = HashMap::from([("label".to_owned(), vec![PROJECT.to_owned()])]);
        let options = ListContainersOptions { all: true, filters: Some(filters), ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.list_containers(Some(options)).await };
        let mut all = Vec::new();
        for one in self.read("list containers", ask).await? {
            let labels = one.labels.unwrap_or_default();
            let label = |name: &str| labels.get(name).cloned().unwrap_or_default();
            let list = |name: &str| {
                label(name).split(',').filter(|path| !path.is_empty()).map(str::to_owned).collect()
            };
            if label(ONE_OFF).eq_ignore_ascii_case("true") {
                continue;
            }
            let name = one.names.into_iter().flatten().next().unwrap_or_default();
            all.push(ComposeContainer {
                name: name.trim_start_matches('/').to_owned(),
                project: label(PROJECT),
                service: label(SERVICE),
                directory: label(DIRECTORY),
                files: list(FILES),
                env_files: list(ENV_FILES),
                image: one.image.filter(|image| !image.starts_with("sha256:")),
                running: one.state == Some(ContainerSummaryStateEnum::RUNNING),
            });
        }
        all.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(all)
    }
}
