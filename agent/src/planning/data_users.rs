//! Who uses declared data.
//!
//! A volume that a container mounts which was made from another directory is somebody else's, too: neither kept nor
//! brought back (P11).

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use tenantry_planner::model::Model;
use tenantry_protocol::FailureCategory;

use super::context::RequestContext;
use super::error::StepError;
use crate::engine::{DataMount, DataUser, own_id};
use crate::snapshot::What;

/// The running containers of this project that mount such data, those first that others depend on. Refused where a
/// volume is used from elsewhere, too.
pub async fn data_users(
    context: &RequestContext,
    what: &[What],
    writing: bool,
) -> Result<Vec<DataUser>, StepError> {
    let all = context.host.engine.data_users().await?;
    let (project, directory) = (context.request.place.project.as_str(), context.directory());
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
            return Err(StepError::new(FailureCategory::SnapshotFailed, message));
        }
        let writes = user.mounts.iter().filter(mounts).any(|mount| mount.writes);
        if ours(&user) && user.running && (writes || !writing) && own.as_ref() != Some(&user.id) {
            users.push(user);
        }
    }
    let model = context.on_disk().await.ok().flatten();
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
