//! What the agent asks of an engine: the one way to it, of which the simulation has one of its own.

use std::sync::Arc;
use std::time::Duration;

use futures::future::BoxFuture;
use tenantry_api::names::Argv;
use tenantry_planner::compare::Network;
use tokio_util::sync::CancellationToken;

use super::data::Rest;
use super::names::Owner;
use super::{
    ComposeContainer, DataUser, DockerEngine, EngineError, Events, Executed, Heard, Helper, HelperState,
    Image, LastWords, Likeness, Program, ProjectContainer, PullProgress, Volume,
};

/// What the engine answers.
pub type Answer<'a, T> = BoxFuture<'a, Result<T, EngineError>>;

/// Says each call once: as one of [`Engine`], and as what [`DockerEngine`] does by its method of the same name.
macro_rules! calls {
    ($($(#[doc = $doc:literal])+ $name:ident($($argument:ident: $kind:ty),*) -> $answer:ty;)+) => {
        /// A container engine.
        #[allow(clippy::elidable_lifetime_names, reason = "calls with arguments need it")]
        pub trait Engine: Send + Sync {
            /// What is known of changes.
            fn events(&self) -> &Events;
            /// Follows changes until `end`.
            fn follow_events(&self, end: CancellationToken) -> BoxFuture<'static, ()>;
            $($(#[doc = $doc])+ fn $name<'a>(&'a self, $($argument: $kind),*) -> Answer<'a, $answer>;)+
        }

        #[allow(clippy::elidable_lifetime_names, reason = "calls with arguments need it")]
        impl Engine for DockerEngine {
            fn events(&self) -> &Events {
                Self::events(self)
            }

            fn follow_events(&self, end: CancellationToken) -> BoxFuture<'static, ()> {
                Box::pin(Self::follow_events(self.clone(), end))
            }

            $(fn $name<'a>(&'a self, $($argument: $kind),*) -> Answer<'a, $answer> {
                Box::pin(Self::$name(self, $($argument),*))
            })+
        }
    };
}

calls! {
    /// The engine's version.
    version() -> String;
    /// Where the engine keeps its data, if it says so.
    data_root() -> Option<String>;

    /// Every container of a project, whatever directory it was made from.
    project_containers(project: &'a str) -> Vec<ProjectContainer>;
    /// The same; a container of which no event came is not looked at again. Not for what follows a change of our own.
    known_containers(project: &'a str) -> Vec<ProjectContainer>;
    /// Every container that compose has made and that belongs to a project, running or not.
    compose_containers() -> Vec<ComposeContainer>;
    /// The containers of one service, whatever directory they were made from.
    service_containers(project: &'a str, service: &'a str) -> Vec<ProjectContainer>;
    /// How a container is; `None` where there is none.
    rest(id: &'a str) -> Option<Rest>;
    /// Sends a signal to a container.
    signal(id: &'a str, signal: &'a str) -> ();
    /// Gives a container another name.
    rename(id: &'a str, name: &'a str) -> ();
    /// Starts a container that is there.
    start_container(name: &'a str) -> ();
    /// Stops a container within its own grace period. One that is stopped or has gone is fine.
    stop(id: &'a str) -> ();
    /// Stops a container, which then stays stopped.
    stop_container(id: &'a str) -> ();
    /// Pauses a container; one that is paused, or does not run, stays so.
    pause(id: &'a str) -> ();
    /// Lets a paused container go on.
    unpause(id: &'a str) -> ();
    /// Stops and removes a container by its id. Its volumes stay.
    stop_and_remove(id: &'a str, grace: Option<Duration>) -> ();
    /// Removes a container, running or not. Its volumes stay.
    remove_container(name: &'a str) -> ();
    /// Runs a command in a running container, as that container's own user and with no more rights than it has.
    execute(container: &'a str, command: &'a Argv, limit: Duration) -> Executed;
    /// What a container said last: at most so many lines of its log.
    last_words(id: &'a str, lines: u32) -> LastWords;
    /// The exit code of a command; `None` while it runs.
    exit_code(id: &'a str) -> Option<i64>;

    /// A local image as it is known, asked for only where something about images has changed since.
    known_image(name: &'a str) -> Option<Image>;
    /// A local image by id or reference; `None` where there is none.
    image(name: &'a str) -> Option<Image>;
    /// The digest that a reference points to in its registry now.
    remote_digest(reference: &'a str) -> String;
    /// Pulls a repository's image by digest. `progress` is told of every step.
    pull(repository: &'a str, digest: &'a str, progress: &'a mut (dyn FnMut(PullProgress) + Send)) -> ();
    /// Gives an image one more name.
    tag(image: &'a str, repository: &'a str, tag: &'a str) -> ();
    /// Takes a name away. The image goes with its last name, unless a container uses it.
    untag(name: &'a str) -> ();
    /// Every tag of a local repository.
    tags_of(repository: &'a str) -> Vec<String>;
    /// Every name, with its tag, of local repositories that are called so; `*` stands for anything but a slash.
    names_like(repositories: &'a str) -> Vec<String>;

    /// The project of a volume; `None` where there is no such volume.
    volume_project(name: &'a str) -> Owner;
    /// The project of a network; `None` where there is no such network.
    network_project(name: &'a str) -> Owner;
    /// The project of a container; `None` where there is no such container.
    container_project(name: &'a str) -> Owner;

    /// Every network that the engine shows.
    networks() -> Vec<Network>;
    /// Whether the engine is part of a swarm, which shows a network of its own only once a container is on it.
    is_in_swarm() -> bool;

    /// A volume; `None` where there is none of that name.
    volume(name: &'a str) -> Option<Volume>;
    /// The volumes that compose has made for a project's volume of that name in its compose file.
    volumes_of(project: &'a str, key: &'a str) -> Vec<Volume>;
    /// Every container, of whatever project, with what it mounts.
    data_users() -> Vec<DataUser>;
    /// Makes an empty volume that is known as ours.
    make_volume(name: &'a str, tenant: &'a str) -> Volume;
    /// Removes a volume; one that is gone is fine.
    remove_volume(name: &'a str) -> ();

    /// Ends and removes helpers of a tenant: how many there were.
    clear_helpers(tenant: &'a str) -> usize;
    /// Makes and starts a helper: its id.
    start_helper(helper: &'a Helper) -> String;
    /// How a helper is.
    helper_state(id: &'a str) -> HelperState;
    /// The last lines that a helper said.
    heard(id: &'a str, lines: u32) -> Heard;
    /// The image that is made of our own program, which the engine is given where it does not have it.
    own_image(program: &'a Arc<Program>) -> String;

    /// A container as it is.
    likeness(id: &'a str) -> Likeness;
    /// The containers that recreate the agent for an operation, by id, and whether each of them runs or will.
    finishers(operation: &'a str) -> Vec<(String, bool)>;
    /// Makes and starts a container like this one that runs `command` for an operation. One of that name is never made
    /// a second time.
    make_finisher(like: Likeness, name: &'a str, operation: &'a str, command: Vec<String>) -> ();
}
