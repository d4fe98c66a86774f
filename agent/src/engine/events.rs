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
/// What happens to a container's networks. It is told as of the network, without the container's project.
const NETWORK_EVENTS: [&str; 2] = ["connect", "disconnect"];
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
    /// Rises with every new connection, and when one breaks off; 0: none yet.
    connection: u64,
    unbroken: bool,
    images: u64,
    /// Rises with every change of a project.
    serial: u64,
    /// When each project changed last, by `serial`.
    projects: HashMap<String, u64>,
    containers: HashMap<String, u64>,
    /// The project of each container that was looked at.
    belongs: HashMap<String, String>,
}

impl State {
    fn container_changed(&mut self, id: &str) {
        *self.containers.entry(id.to_owned()).or_default() += 1;
    }

    fn project_changed(&mut self, project: &str) {
        self.serial += 1;
        self.projects.insert(project.to_owned(), self.serial);
    }

    /// A container was connected to a network or taken off it.
    fn network_changed(&mut self, container: &str) {
        self.container_changed(container);
        if let Some(project) = self.belongs.get(container).cloned() {
            self.project_changed(&project);
        }
    }
}

/// A moment in the stream: equal ones mean that nothing of a project has changed between.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Generation {
    connection: u64,
    images: u64,
    project: u64,
}

/// A moment of the whole stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    /// The number of the connection, or of the time without one.
    pub connection: u64,
    /// How many changes of projects there had been.
    pub serial: u64,
}

/// What has changed since a moment.
#[derive(Debug, PartialEq, Eq)]
pub enum Since {
    /// Nothing is known: the stream broke off in between.
    Unknown,
    /// These projects; none: nothing has.
    Projects(Vec<String>),
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

    /// What has changed since a moment, and the moment of now. That the stream breaks off is a change, too.
    pub fn since(&self, mark: Option<Mark>) -> (Mark, Since) {
        let state = self.state.lock();
        let now = Mark { connection: state.connection, serial: state.serial };
        let since = match mark.filter(|mark| mark.connection == now.connection) {
            None => Since::Unknown,
            Some(mark) => {
                let later = state.projects.iter().filter(|(_, serial)| **serial > mark.serial);
                Since::Projects(later.map(|(project, _)| project.clone()).collect())
            }
        };
        (now, since)
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
        if std::mem::take(&mut state.unbroken) {
            state.connection += 1;
        }
        // Nothing is known of any project from here on, so nothing needs to be remembered.
        state.projects.clear();
        state.containers.clear();
        state.belongs.clear();
        drop(state);
        self.wake();
    }

    /// These containers are a project's: what happens to their networks is told of it, too.
    pub(super) fn belong(&self, project: &str, ids: &[String]) {
        let mut state = self.state.lock();
        if state.unbroken {
            state.belongs.extend(ids.iter().map(|id| (id.clone(), project.to_owned())));
        }
    }

    fn take(&self, event: &EventMessage) {
        let mut state = self.state.lock();
        let actor = event.actor.as_ref();
        let attribute =
            |name: &str| actor.and_then(|actor| actor.attributes.as_ref()).and_then(|all| all.get(name));
        match event.typ {
            Some(EventMessageTypeEnum::IMAGE) => state.images += 1,
            Some(EventMessageTypeEnum::NETWORK) => {
                if let Some(container) = attribute("container") {
                    state.network_changed(container);
                }
            }
            _ => {
                if let Some(id) = actor.and_then(|actor| actor.id.as_ref()) {
                    state.container_changed(id);
                }
                if let Some(project) = attribute(PROJECT) {
                    state.project_changed(project);
                }
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
        let names = CONTAINER_EVENTS.iter().chain(&IMAGE_EVENTS).chain(&NETWORK_EVENTS);
        let names = names.map(|&name| name.to_owned()).collect();
        let types = ["container", "image", "network"].map(str::to_owned).to_vec();
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_changed_since_a_moment_is_told_unless_the_stream_broke_off() {
        let events = Events::default();
        let change = |project: &str| events.state.lock().project_changed(project);
        let nothing = Since::Projects(Vec::new());
        let (without, first) = events.since(None);
        assert_eq!(first, Since::Unknown, "nothing is known before there is a stream");
        assert_eq!(events.since(Some(without)).1, nothing, "and nobody is told of that twice");
        events.connected();
        let (began, first) = events.since(Some(without));
        assert_eq!(first, Since::Unknown);
        change("acme");
        change("shop");
        let (later, since) = events.since(Some(began));
        let Since::Projects(mut projects) = since else { panic!("{since:?}") };
        projects.sort();
        assert_eq!(projects, ["acme", "shop"]);
        change("acme");
        assert_eq!(events.since(Some(later)).1, Since::Projects(vec!["acme".to_owned()]));
        events.broken();
        let (without, broke) = events.since(Some(later));
        assert_eq!(broke, Since::Unknown, "an engine that is gone is told of at once");
        events.broken();
        assert_eq!(events.since(Some(without)).1, nothing, "once");
        events.connected();
        assert_eq!(events.since(Some(without)).1, Since::Unknown);
    }
}
