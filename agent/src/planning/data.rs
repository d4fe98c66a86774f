//! Declared data: what of it there is, and what a plan does about it.
//!
//! A volume belongs to this project when compose's labels say so. It must be a plain one: driver `local`, no options.

use tenantry_api::names::VolumeName;
use tenantry_api::tenant::{Consistency, RollbackData};
use tenantry_planner::model::Model;
use tenantry_planner::steps::DataPlan;
use tenantry_protocol::{Action, FailureCategory};

use super::changes::protect;
use super::context::RequestContext;
use super::data_users::data_users;
use super::error::StepError;
use super::way_back::chosen_by;
use crate::engine::Volume;
use crate::snapshot::{Part, What};

/// Declared data that is there.
#[derive(Clone, Debug)]
pub struct Declared {
    /// What it is.
    pub what: What,
    /// The engine's volume, where it is one.
    pub volume: Option<Volume>,
}

/// What something is called before people.
pub fn named(what: &What) -> String {
    match what {
        What::Path(path) => format!("path {path}"),
        What::Volume { key, .. } => format!("volume {key}"),
    }
}

/// Checks what is declared and says what is done about it; `None` where nothing is. `models` are those of the release and
/// of what ran before. How much it is, whoever reserves room for it finds out.
pub async fn plan(context: &RequestContext, models: &[&Model]) -> Result<Option<DataPlan>, StepError> {
    let asked = &context.request.snapshot;
    let mut consistency = asked.consistency;
    match &context.request.action {
        Action::Rollback { data: false, .. } => return Ok(None),
        // The data is replaced, so nobody may write to what is kept of it just before.
        Action::Rollback { data: true, .. } => consistency = Consistency::Stop,
        Action::Upgrade => {
            if context.request.rollback_data == RollbackData::Always {
                asked.paths.iter().try_for_each(|path| protect(&context.request, path))?;
            }
            asked.volumes.iter().try_for_each(|key| known(key, models))?;
        }
    }
    let declared = declared(context).await?;
    if declared.is_empty() {
        return Ok(None);
    }
    let what: Vec<What> = declared.into_iter().map(|one| one.what).collect();
    let users = data_users(context, &what, true).await?;
    Ok(Some(DataPlan {
        consistency,
        parts: what.iter().map(named).collect(),
        containers: users.into_iter().map(|user| user.id).collect(),
        bytes: 0,
    }))
}

/// A volume that no release has is a slip of the pen.
fn known(key: &VolumeName, models: &[&Model]) -> Result<(), StepError> {
    let found = models.iter().find_map(|model| model.volumes.get(key.as_str()));
    let refuse = |message: String| Err(StepError::new(FailureCategory::SnapshotFailed, message));
    match found {
        None => refuse(format!(
            "upgrade.snapshot.volumes: the compose file has no volume {key}; give its name in the compose file"
        )),
        Some(volume) if volume.external => refuse(format!(
            "upgrade.snapshot.volumes: {key} is external, so it is not this project's to keep and bring back"
        )),
        Some(_) => Ok(()),
    }
}

/// What is to be kept and may be there. A volume that was not made yet is not.
pub async fn declared(context: &RequestContext) -> Result<Vec<Declared>, StepError> {
    let mut all = Vec::new();
    if let Action::Rollback { .. } = context.request.action {
        for part in chosen_parts(context).await? {
            let volume = volume_of(context, &part.what).await?;
            all.push(Declared { what: part.what, volume });
        }
        return Ok(all);
    }
    let asked = &context.request.snapshot;
    all.extend(asked.paths.iter().map(|path| Declared { what: What::Path(path.clone()), volume: None }));
    for key in &asked.volumes {
        let project = context.request.place.project.as_str();
        let mut found = context.host.engine.volumes_of(project, key.as_str()).await?;
        let Some(volume) = found.pop() else { continue };
        if let Some(other) = found.pop() {
            let message = format!(
                "volume {key} is there twice, as {} and {}: remove the one that is not used",
                volume.name, other.name
            );
            return Err(StepError::new(FailureCategory::SnapshotFailed, message));
        }
        plain(key, &volume)?;
        let what = What::Volume { key: key.clone(), name: volume.name.clone() };
        all.push(Declared { what, volume: Some(volume) });
    }
    Ok(all)
}

/// The data of the restore point that a person goes back to.
pub async fn chosen_parts(context: &RequestContext) -> Result<Vec<Part>, StepError> {
    Ok(chosen_by(context).await?.map(|point| point.data).unwrap_or_default())
}

/// The volume that a restore point holds, as it is now; refused where it is no longer this project's. A path has none.
pub async fn volume_of(context: &RequestContext, what: &What) -> Result<Option<Volume>, StepError> {
    let What::Volume { key, name } = what else { return Ok(None) };
    let refuse = |problem: &str| {
        let message = format!("volume {key} ({name}) can't be brought back: {problem}");
        Err(StepError::new(FailureCategory::RestorePointUnusable, message))
    };
    match context.host.engine.volume(name).await? {
        None => refuse("it is gone; create it with docker compose, and go back again"),
        Some(volume) if volume.project.as_deref() != Some(context.request.place.project.as_str()) => {
            refuse("it is no longer this project's")
        }
        Some(volume) => plain(key, &volume).map(|()| Some(volume)),
    }
}

/// Refuses a volume that is no plain one.
fn plain(key: &VolumeName, volume: &Volume) -> Result<(), StepError> {
    let refuse = |problem: String| {
        Err(StepError::new(FailureCategory::SnapshotFailed, format!("volume {key} can't be kept: {problem}")))
    };
    if volume.stored.driver != "local" {
        return refuse(format!("its driver is {}; only plain local volumes are kept", volume.stored.driver));
    }
    if !volume.stored.options.is_empty() {
        return refuse("its driver was given options; only plain local volumes are kept".to_owned());
    }
    Ok(())
}
