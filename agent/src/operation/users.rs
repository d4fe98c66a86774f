//! Who uses declared data, and rests while it is kept or brought back.
//!
//! A volume that a container mounts which was made from another directory is somebody else's, too: neither kept nor
//! brought back (P11).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tenantry_api::tenant::Consistency;
use tenantry_planner::model::Model;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use super::driver::{Performed, Wrong};
use super::work::Work;
use crate::engine::{DataMount, DataUser, own_id};
use crate::snapshot::What;

/// The running containers of this project that mount such data, those first that others depend on. Refused where a
/// volume is used from elsewhere, too.
pub async fn users(work: &Work, what: &[What], writing: bool) -> Result<Vec<DataUser>, Wrong> {
    let all = work.host.engine.data_users().await?;
    let (project, directory) = (work.request.place.project.as_str(), work.directory());
    let own = own_id();
    let ours = |user: &DataUser| {
        user.project == project && user.directory.trim_end_matches('/') == directory.trim_end_matches('/')
    };
    let mut users = Vec::new();
    for user in all {
        let mounts = |mount: &&DataMount| what.iter().any(|what| touches(directory, what, mount));
        let Some(mount) = user.mounts.iter().find(mounts) else { continue };
        if !ours(&user) && mount.volume.is_some() {
            let message = format!(
                "volume {} is used by container {} too, which is not of project {project} in {directory}: what is \
                 somebody else's is neither kept nor brought back",
                mount.volume.as_deref().unwrap_or_default(),
                user.name
            );
            return Err(Wrong::new(FailureCategory::SnapshotFailed, message));
        }
        let writes = user.mounts.iter().filter(mounts).any(|mount| mount.writes);
        if ours(&user) && user.running && (writes || !writing) && own.as_ref() != Some(&user.id) {
            users.push(user);
        }
    }
    let model = work.on_disk().await.ok().flatten();
    Ok(in_order(users, model.as_ref().map(|(_, model)| &**model)))
}

/// Whether a mount reaches such data.
fn touches(directory: &str, what: &What, mount: &DataMount) -> bool {
    match what {
        What::Volume { name, .. } => mount.volume.as_ref() == Some(name),
        What::Path(path) => {
            let path = Path::new(directory).join(path.as_str());
            let source = Path::new(&mount.source);
            mount.volume.is_none() && (source.starts_with(&path) || path.starts_with(source))
        }
    }
}

/// Those first that others depend on.
fn in_order(mut users: Vec<DataUser>, model: Option<&Model>) -> Vec<DataUser> {
    users.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(model) = model else { return users };
    let needs: BTreeMap<&str, BTreeSet<&str>> = model
        .services
        .iter()
        .map(|(name, service)| (name.as_str(), service.depends_on.keys().map(String::as_str).collect()))
        .collect();
    let mut ordered: Vec<DataUser> = Vec::new();
    while !users.is_empty() {
        let waits = |user: &DataUser| {
            let needed = needs.get(user.service.as_str());
            needed.is_some_and(|needed| users.iter().any(|other| needed.contains(other.service.as_str())))
        };
        // Compose lets no circle pass; should there be one, the first is as good as any.
        let next = users.iter().position(|user| !waits(user)).unwrap_or(0);
        ordered.push(users.remove(next));
    }
    ordered
}

/// Stops or pauses the containers that write to the data.
pub async fn quiesce(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let Some(plan) = state.plan().and_then(|plan| plan.data.as_ref()) else {
        return Ok(Performed::quietly());
    };
    for id in plan.containers.iter().rev() {
        match plan.consistency {
            Consistency::Stop => work.host.engine.stop(id).await?,
            Consistency::Pause => work.host.engine.pause(id).await?,
            Consistency::Live => {}
        }
    }
    Ok(Performed::quietly())
}

/// Lets paused containers go on.
pub async fn unquiesce(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    for id in resting(state) {
        work.host.engine.unpause(id).await?;
    }
    Ok(Performed::quietly())
}

/// Starts the very containers again that were stopped or paused.
pub async fn revive(work: &Work, state: &JournalState) -> Result<Performed, Wrong> {
    let engine = &work.host.engine;
    let mut gone = 0;
    for id in resting(state) {
        match engine.rest(id).await? {
            None => gone += 1,
            Some(rest) if rest.paused => engine.unpause(id).await?,
            Some(rest) if rest.running => {}
            Some(_) => engine.start_container(id).await?,
        }
    }
    if gone > 0 {
        let message =
            format!("{gone} containers that were stopped for their data are gone: start the project by hand");
        return Err(Wrong::new(FailureCategory::StartFailed, message));
    }
    Ok(Performed::saying("the same containers were started again"))
}

fn resting(state: &JournalState) -> &[String] {
    state
        .plan()
        .and_then(|plan| plan.data.as_ref())
        .map(|data| data.containers.as_slice())
        .unwrap_or_default()
}
