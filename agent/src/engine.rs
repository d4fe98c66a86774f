//! The engine's API: everything that is read from Docker, and what is not compose's to do.
//!
//! Every call has a time limit. While the engine does not answer, calls fail and [`DockerEngine::problem`] says so; the
//! event stream keeps knocking, and all is well again once it is through.

mod containers;
mod crash_points;
mod credentials;
mod data;
mod events;
mod exec;
mod helpers;
mod images;
mod last_words;
mod memory;
mod names;
mod networks;
mod own;
mod port;
mod program;
mod projects;
mod reference;

use std::sync::Arc;
use std::time::Duration;

use bollard::{API_DEFAULT_VERSION, Docker};
use parking_lot::Mutex;
use tenantry_protocol::FailureCategory;

use crate::limits::Limits;

pub use containers::ProjectContainer;
pub use data::{DataMount, DataUser, Rest, Volume};
pub use events::{Events, Generation, Mark, Since};
pub use exec::Executed;
pub use helpers::{ARCHIVE_DIR_AT, Heard, Helper, HelperState, VOLUME_AT};
pub use images::{Image, PullProgress};
pub use last_words::LastWords;
pub use names::Owner;
pub use networks::networks_for;
pub use own::{Likeness, Mounted, MountedFrom, own_id};
pub use port::{Answer, Engine};
pub use program::Program;
pub use projects::ComposeContainer;
pub use reference::Reference;

/// How long a client waits for the head of any answer; each call has its own, shorter limit.
const CLIENT_SECONDS: u64 = 600;

/// Why the engine did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EngineError {
    /// It can't be reached.
    #[error("the Docker engine at {socket} does not answer: {problem}")]
    Down {
        /// Where it should be.
        socket: String,
        /// What the system says.
        problem: String,
    },
    /// It took too long.
    #[error("the Docker engine did not {doing} within {} s", .limit.as_secs())]
    Slow {
        /// What was asked.
        doing: String,
        /// How long it had.
        limit: Duration,
    },
    /// It refused.
    #[error("the Docker engine could not {doing}: {message}")]
    Refused {
        /// What was asked.
        doing: String,
        /// Its status code; 0 where a stream broke off.
        status: u16,
        /// What it said.
        message: String,
    },
}

impl EngineError {
    fn from_bollard(doing: &str, socket: &str, error: bollard::errors::Error) -> Self {
        use bollard::errors::Error as Bollard;
        let doing = doing.to_owned();
        match error {
            Bollard::DockerResponseServerError { status_code, message } => {
                Self::Refused { doing, status: status_code, message }
            }
            Bollard::DockerStreamError { error } => Self::Refused { doing, status: 0, message: error },
            Bollard::RequestTimeoutError => Self::Slow { doing, limit: Duration::from_secs(CLIENT_SECONDS) },
            Bollard::JsonDataError { .. } | Bollard::JsonSerdeError { .. } => {
                Self::Refused { doing, status: 0, message: "its answer was not understood".to_owned() }
            }
            other => Self::Down { socket: socket.to_owned(), problem: other.to_string() },
        }
    }

    /// Whether it said that there is no such thing.
    pub fn is_missing(&self) -> bool {
        matches!(self, Self::Refused { status: 404, .. })
    }

    /// The kind of failure. A refusal (4xx) stays one however often it is asked; whatever else may pass.
    pub fn category(&self) -> FailureCategory {
        match self {
            Self::Refused { status: 400..=499, .. } => FailureCategory::StartFailed,
            Self::Refused { .. } | Self::Down { .. } | Self::Slow { .. } => FailureCategory::EngineFault,
        }
    }

    /// The kind of failure when a registry was asked through the engine.
    pub fn registry_category(&self) -> FailureCategory {
        let (status, message) = match self {
            Self::Refused { status, message, .. } => (status, message),
            // What the engine was waiting for is the registry.
            Self::Slow { .. } => return FailureCategory::RegistryUnreachable,
            Self::Down { .. } => return FailureCategory::EngineFault,
        };
        let message = message.to_ascii_lowercase();
        let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
        if says(&["no matching manifest"]) {
            FailureCategory::ImageNotFound
        } else if says(&["x509", "server gave http response to https client", "tls: failed to verify"]) {
            FailureCategory::RegistryRefused
        } else if says(&["no space left", "disk quota"]) {
            FailureCategory::DiskFull
        } else if says(&["manifest unknown", "not found", "name unknown", "does not exist"])
            && !says(&["denied"])
        {
            FailureCategory::ImageNotFound
        } else if matches!(status, 401 | 403 | 429)
            || says(&[
                "denied",
                "unauthorized",
                "forbidden",
                "toomanyrequests",
                "authentication required",
                "no basic auth",
            ])
        {
            FailureCategory::RegistryRefused
        } else if *status == 404 {
            FailureCategory::ImageNotFound
        } else {
            FailureCategory::RegistryUnreachable
        }
    }
}

impl EngineError {
    /// What is wrong where a registry was asked for an image, and what to do.
    pub fn about_image(&self, reference: &str) -> String {
        match self.registry_category() {
            FailureCategory::ImageNotFound => format!(
                "the registry has no image {reference}, or none for this host's processor: correct the tag, or push the image"
            ),
            FailureCategory::RegistryRefused => {
                format!(
                    "{self}. See to what it says; for credentials log in on the host as the agent's user (`docker login`)"
                )
            }
            _ => self.to_string(),
        }
    }
}

/// A client of the Docker engine on this host.
#[derive(Clone)]
pub struct DockerEngine {
    socket: Arc<str>,
    limits: Limits,
    client: Arc<Mutex<Option<Docker>>>,
    problem: Arc<Mutex<Option<String>>>,
    events: Arc<Events>,
    containers: Arc<memory::Memory<ProjectContainer>>,
    images: Arc<memory::Memory<Option<Image>>>,
}

impl DockerEngine {
    /// A client for the engine at `docker_host`. Nothing is asked of it yet.
    pub fn new(docker_host: &str, limits: Limits) -> Self {
        Self {
            socket: docker_host.into(),
            limits,
            client: Arc::default(),
            problem: Arc::default(),
            events: Arc::default(),
            containers: Arc::default(),
            images: Arc::default(),
        }
    }

    /// What is known of changes.
    pub fn events(&self) -> &Events {
        &self.events
    }

    /// Why the engine does not answer, if it was last seen not to.
    pub fn problem(&self) -> Option<String> {
        self.problem.lock().clone()
    }

    /// The engine's version.
    pub async fn version(&self) -> Result<String, EngineError> {
        let version = self.read("tell its version", |docker| async move { docker.version().await }).await?;
        Ok(version.version.unwrap_or_else(|| "unknown".to_owned()))
    }

    /// Where the engine keeps its data, if it says so.
    pub async fn data_root(&self) -> Result<Option<String>, EngineError> {
        let info = self.read("tell about itself", |docker| async move { docker.info().await }).await?;
        Ok(info.docker_root_dir)
    }

    /// A client that speaks the highest version that both know: made once, made anew after the engine was away.
    async fn client(&self) -> Result<Docker, EngineError> {
        if let Some(docker) = self.client.lock().clone() {
            return Ok(docker);
        }
        let connected = self.connect().await;
        *self.problem.lock() = connected.as_ref().err().map(ToString::to_string);
        let docker = connected?;
        *self.client.lock() = Some(docker.clone());
        Ok(docker)
    }

    async fn connect(&self) -> Result<Docker, EngineError> {
        let doing = "tell its version";
        let fail = |error| EngineError::from_bollard(doing, &self.socket, error);
        let docker =
            Docker::connect_with_unix(&self.socket, CLIENT_SECONDS, API_DEFAULT_VERSION).map_err(fail)?;
        limited(doing, self.limits.read, docker.negotiate_version()).await?.map_err(fail)
    }

    fn forget(&self, error: &EngineError) {
        if matches!(error, EngineError::Down { .. }) {
            *self.client.lock() = None;
            *self.problem.lock() = Some(error.to_string());
        }
    }

    async fn read<T, F>(&self, doing: &str, ask: impl FnOnce(Docker) -> F) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        self.call(doing, self.limits.read, ask).await
    }

    async fn call<T, F>(
        &self,
        doing: &str,
        limit: Duration,
        ask: impl FnOnce(Docker) -> F,
    ) -> Result<T, EngineError>
    where
        F: Future<Output = Result<T, bollard::errors::Error>>,
    {
        let docker = self.client().await?;
        crash_points::at(doing, "before");
        let answer = limited(doing, limit, ask(docker)).await?;
        crash_points::at(doing, "after");
        answer.map_err(|error| {
            let error = EngineError::from_bollard(doing, &self.socket, error);
            self.forget(&error);
            error
        })
    }
}

async fn limited<T>(doing: &str, limit: Duration, work: impl Future<Output = T>) -> Result<T, EngineError> {
    tokio::time::timeout(limit, work).await.map_err(|_| EngineError::Slow { doing: doing.to_owned(), limit })
}

/// A refusal that is no error when the thing is gone already.
fn gone_is_fine(result: Result<(), EngineError>) -> Result<(), EngineError> {
    match result {
        Err(error) if error.is_missing() => Ok(()),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_registrys_refusal_says_what_to_do() {
        let about = |status: u16, message: &str| {
            let error = EngineError::Refused {
                doing: "ask the registry".to_owned(),
                status,
                message: message.to_owned(),
            };
            (error.registry_category(), error.about_image("r.example/shop:v9"))
        };
        let cases = [
            (404, "manifest unknown: manifest unknown", FailureCategory::ImageNotFound, "correct the tag"),
            (
                500,
                "Head \"http://r/v2/\": no basic auth credentials",
                FailureCategory::RegistryRefused,
                "`docker login`",
            ),
            (
                401,
                "unauthorized: incorrect username or password",
                FailureCategory::RegistryRefused,
                "`docker login`",
            ),
            (500, "dial tcp: connection refused", FailureCategory::RegistryUnreachable, "connection refused"),
        ];
        for (status, message, category, says) in cases {
            let (found, told) = about(status, message);
            assert_eq!(found, category, "{message}");
            assert!(told.contains(says), "{told}");
        }
    }
}
