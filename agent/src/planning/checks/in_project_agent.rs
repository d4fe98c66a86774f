//! An agent that runs as a container of the very project that it upgrades: whether it can.
//!
//! Its own container is recreated by another one that is made like it, so whatever both must see has to come from a
//! mount that outlives the container.

use std::path::Path;

use tenantry_protocol::FailureCategory;

use crate::config::Config;
use crate::engine::{Mounted, MountedFrom, ProjectContainer, own_id};
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

/// The service that this agent runs as, where it is one of the project's; refused where it could not go on after its
/// container was recreated.
pub async fn service(
    context: &RequestContext,
    containers: &[ProjectContainer],
) -> Result<Option<String>, StepError> {
    let Some(id) = own_id() else { return Ok(None) };
    let Some(own) = containers.iter().find(|one| one.container.id == id) else { return Ok(None) };
    let mounts = context.host.engine.likeness(&id).await?.mounts();
    check(context.directory(), &context.host.config, &mounts).map_err(|problem| {
        let message = format!(
            "this agent itself runs as container {} of project {}, and could not go on after it was recreated: {problem}",
            own.container.name, context.request.place.project
        );
        StepError::new(FailureCategory::PolicyRefused, message)
    })?;
    Ok(Some(own.container.service.clone()))
}

fn check(directory: &str, config: &Config, mounts: &[Mounted]) -> Result<(), String> {
    let of_directory = covering(directory, mounts);
    let identical = of_directory.is_some_and(|mount| {
        mount.writable && matches!(&mount.from, MountedFrom::Host(source) if *source == mount.at)
    });
    if !identical {
        return Err(format!(
            "{directory} is not mounted into it read-write at the identical path; add the volume {directory}:{directory}"
        ));
    }
    let state = config.state_dir.to_string_lossy();
    if !covering(&state, mounts).is_some_and(|mount| mount.writable && lasts(mount)) {
        return Err(format!(
            "its state directory {state} is not on a bind mount or a named volume, read-write, so its records would be \
             lost; mount one there"
        ));
    }
    let needed = [("dockerHost", config.docker_socket()), ("its policy file", config.file.as_path())];
    let missing = needed.into_iter().find(|(_, path)| !kept(path, mounts));
    missing.map_or(Ok(()), |(what, path)| {
        Err(format!(
            "{what} ({}) is not on a mount, so the container that recreates it would not see it; mount it",
            path.display()
        ))
    })
}

fn kept(path: &Path, mounts: &[Mounted]) -> bool {
    covering(&path.to_string_lossy(), mounts).is_some_and(lasts)
}

/// The mount through which a path is seen: the one that is nearest above it.
pub fn covering<'a>(path: &str, mounts: &'a [Mounted]) -> Option<&'a Mounted> {
    let above = |mount: &&Mounted| Path::new(path).starts_with(&mount.at);
    mounts.iter().filter(above).max_by_key(|mount| mount.at.len())
}

/// Whether what is behind a mount is still there for the next container. A volume without a name of its own has a
/// hash for one.
fn lasts(mount: &Mounted) -> bool {
    match &mount.from {
        MountedFrom::Host(_) => true,
        MountedFrom::Volume(name) => !(name.len() == 64 && name.bytes().all(|byte| byte.is_ascii_hexdigit())),
        MountedFrom::Nowhere => false,
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn host(source: &str, at: &str, writable: bool) -> Mounted {
        Mounted { from: MountedFrom::Host(source.to_owned()), at: at.to_owned(), writable }
    }

    fn volume(name: &str, at: &str) -> Mounted {
        Mounted { from: MountedFrom::Volume(name.to_owned()), at: at.to_owned(), writable: true }
    }

    fn good() -> Vec<Mounted> {
        vec![
            host("/srv", "/srv", true),
            volume("agent-state", "/var/lib/tenantry"),
            host("/var/run/docker.sock", "/var/run/docker.sock", true),
            host("/etc/tenantry", "/etc/tenantry", false),
        ]
    }

    fn checked(mounts: &[Mounted]) -> Result<(), String> {
        let text = r#"{"identity": "a", "listen": "127.0.0.1:0", "stateDir": "/var/lib/tenantry/state",
            "tls": {"ca": "ca", "cert": "cert", "key": "key"}, "operators": ["main"],
            "allow": {"directories": ["/srv"], "registries": ["*"]}}"#;
        let config = Config::parse(Path::new("/etc/tenantry/agent.yaml"), text).unwrap();
        check("/srv/acme", &config, mounts)
    }

    #[test]
    fn an_agent_whose_mounts_outlive_its_container_may_be_inside() {
        assert_eq!(checked(&good()), Ok(()));
    }

    #[rstest]
    #[case::the_directory_is_elsewhere(host("/data", "/srv", true), "/srv/acme:/srv/acme")]
    #[case::the_directory_is_read_only(host("/srv", "/srv", false), "/srv/acme:/srv/acme")]
    #[case::another_mount_hides_the_directory(host("/x", "/srv/acme", true), "/srv/acme:/srv/acme")]
    #[case::a_volume_is_at_the_directory(volume("acme", "/srv/acme"), "/srv/acme:/srv/acme")]
    #[case::the_state_is_in_a_volume_without_a_name(
        volume(
            "0f0c4b3f7a8a1a1d3a0c9c6c2f2d8f3b9d1d7f0e6a5b4c3d2e1f0a9b8c7d6e5f",
            "/var/lib/tenantry/state"
        ),
        "named volume"
    )]
    #[case::the_state_is_read_only(host("/s", "/var/lib/tenantry/state", false), "read-write")]
    fn p2_an_agent_that_could_not_go_on_is_refused(#[case] wrong: Mounted, #[case] says: &str) {
        let mut mounts: Vec<Mounted> = good().into_iter().filter(|mount| mount.at != wrong.at).collect();
        mounts.push(wrong);
        let problem = checked(&mounts).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }

    #[rstest]
    #[case::directory("/srv", "/srv/acme")]
    #[case::state("/var/lib/tenantry", "state directory")]
    #[case::socket("/var/run/docker.sock", "dockerHost")]
    #[case::policy("/etc/tenantry", "policy file")]
    fn p2_an_agent_without_a_mount_that_it_needs_is_refused(#[case] without: &str, #[case] says: &str) {
        let mounts: Vec<Mounted> = good().into_iter().filter(|mount| mount.at != without).collect();
        let problem = checked(&mounts).unwrap_err();
        assert!(problem.contains(says), "{problem}");
    }
}
