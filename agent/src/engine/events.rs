//! The engine's event stream: what tells that nothing has changed since.

use std::collections::HashMap;
use std::time::Duration;

use bollard::models::{EventMessage, EventMessageTypeEnum};
use bollard::query_parameters::EventsOptions;
use futures::StreamExt as _;
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::{DockerEngine, EngineError};

const PROJECT: &str = "com.docker.compose.project";
/// Container events that change what is observed. Those of healthcheck runs (`exec_…`) come each second and don't.
const CONTAINER_EVENTS: [&str; 14] = [
    "create",
    "start",
    "restart",
    "stop",
    "die",
    "kill",
    "oom",
    "pause",
    "unpause",
    "rename",
    "update",
    "destroy",
    "remove",
    "health_status",
];
const IMAGE_EVENTS: [&str; 7] = ["tag", "untag", "delete", "pull", "import", "load", "prune"];
const RETRY_FIRST: Duration = Duration::from_millis(250);
const RETRY_LAST: Duration = Duration::from_secs(5);
/// Events are asked for from so long ago, so that none is lost between two connections' beginnings.
const OVERLAP_SECONDS: i64 = 2;

/// What is known of changes in the engine.
pub struct Events {
    state: Mutex<State>,
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// Rises with every new connection; 0: none yet.
    connection: u64,
    unbroken: bool,
    images: u64,
    projects: HashMap<String, u64>,
    containers: HashMap<String, u64>,
}

/// A moment in the stream: equal ones mean that nothing of a project has changed between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    connection: u64,
    images: u64,
    project: u64,
}

impl Default for Events {
    fn default() -> Self {
        Self { state: Mutex::default(), changed: watch::Sender::new(0) }
    }
}

impl Events {
    /// The moment that a project is at; `None` while the stream is broken, when nothing is known.
    pub fn generation(&self, project: &str) -> Option<Generation> {
        let state = self.state.lock();
        let of_project = state.projects.get(project).copied().unwrap_or_default();
        state.unbroken.then_some(Generation {
            connection: state.connection,
            images: state.images,
            project: of_project,
        })
    }

    /// The moment that one container is at; `None` while the stream is broken.
    pub fn container(&self, id: &str) -> Option<Generation> {
        let state = self.state.lock();
        let project = state.containers.get(id).copied().unwrap_or_default();
        state.unbroken.then_some(Generation { connection: state.connection, images: 0, project })
    }

    /// The moment that all images are at; `None` while the stream is broken.
    pub fn images(&self) -> Option<Generation> {
        let state = self.state.lock();
        let (connection, images) = (state.connection, state.images);
        state.unbroken.then_some(Generation { connection, images, project: 0 })
    }

    /// Wakes at every event.
    pub fn subscribe(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// Something has happened. Nothing is known of what: only those who wait for it are woken.
    pub fn wake(&self) {
        self.changed.send_modify(|count| *count += 1);
    }

    fn connected(&self) {
        let mut state = self.state.lock();
        state.connection += 1;
        state.unbroken = true;
        drop(state);
        self.wake();
    }

    fn broken(&self) {
        let mut state = self.state.lock();
        state.unbroken = false;
        // Nothing is known of any project from here on, so nothing needs to be remembered.
        state.projects.clear();
        state.containers.clear();
        drop(state);
        self.wake();
    }

    fn take(&self, event: &EventMessage) {
        let mut state = self.state.lock();
        if event.typ == Some(EventMessageTypeEnum::IMAGE) {
            state.images += 1;
        } else {
            let attributes = event.actor.as_ref().and_then(|actor| actor.attributes.as_ref());
            if let Some(id) = event.actor.as_ref().and_then(|actor| actor.id.clone()) {
                *state.containers.entry(id).or_default() += 1;
            }
            if let Some(project) = attributes.and_then(|attributes| attributes.get(PROJECT)) {
                *state.projects.entry(project.clone()).or_default() += 1;
            }
        }
        drop(state);
        self.wake();
    }
}

impl DockerEngine {
    /// Follows the event stream until `end`, connecting again whenever it breaks.
    pub async fn follow_events(self, end: CancellationToken) {
        let mut pause = RETRY_FIRST;
        let mut told = false;
        loop {
            let broken = tokio::select! {
                () = end.cancelled() => return,
                error = self.follow_once(&mut pause) => error,
            };
            self.events.broken();
            self.forget(&broken);
            if !std::mem::replace(&mut told, true) || pause == RETRY_FIRST {
                tracing::warn!(problem = %broken, "the engine's event stream broke; connecting again");
            }
            tokio::select! {
                () = end.cancelled() => return,
                () = tokio::time::sleep(pause) => pause = (pause * 2).min(RETRY_LAST),
            }
        }
    }

    async fn follow_once(&self, pause: &mut Duration) -> EngineError {
        let docker = match self.client().await {
            Ok(docker) => docker,
            Err(error) => return error,
        };
        let names = CONTAINER_EVENTS.iter().chain(&IMAGE_EVENTS).map(|&name| name.to_owned()).collect();
        let types = vec!["container".to_owned(), "image".to_owned()];
        let filters = HashMap::from([("type".to_owned(), types), ("event".to_owned(), names)]);
        let since = jiff::Timestamp::now().as_second() - OVERLAP_SECONDS;
        let options = EventsOptions { since: Some(since.to_string()), until: None, filters: Some(filters) };
        let mut stream = Box::pin(docker.events(Some(options)));
        // The stream says nothing until the first event. It was asked for before this answer came, from a moment
        // before, so that whatever happens from now on will come through it or break it.
        tokio::select! {
            biased;
            event = stream.next() => match event {
                Some(Ok(event)) => self.events.take(&event),
                Some(Err(error)) => return EngineError::from_bollard("report events", &self.socket, error),
                None => return self.ended(),
            },
            answer = self.version() => if let Err(error) = answer { return error },
        }
        self.events.connected();
        *pause = RETRY_FIRST;
        loop {
            match tokio::time::timeout(self.limits.idle, stream.next()).await {
                Ok(Some(Ok(event))) => self.events.take(&event),
                Ok(Some(Err(error))) => {
                    return EngineError::from_bollard("report events", &self.socket, error);
                }
                Ok(None) => return self.ended(),
                // An engine that hangs is as silent as one in which nothing happens.
                Err(_) => match self.version().await {
                    Ok(_) => {}
                    Err(error) => return error,
                },
            }
        }
    }

    fn ended(&self) -> EngineError {
        EngineError::Down { socket: self.socket.to_string(), problem: "it ended the event stream".to_owned() }
    }
}
