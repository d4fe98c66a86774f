//! What the staged model itself must be like: image references, missing mounts below protected paths, reload signals.

use tenantry_api::names::RelativePath;
use tenantry_planner::model::{Model, Mounted};
use tenantry_protocol::FailureCategory;

use crate::engine::Reference;
use crate::files::Stat;
use crate::planning::changes::Changes;
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

/// Refuses a staged model that could not be carried out as it stands.
pub fn check(context: &RequestContext, model: &Model, changes: &Changes) -> Result<(), StepError> {
    for reference in model.references().into_keys() {
        if Reference::parse(reference).is_none() {
            let message = format!(
                "the image reference {reference:?} is not one: an image tag or variable is empty or wrong"
            );
            return Err(StepError::new(FailureCategory::ComposeInvalid, message));
        }
    }
    let tree = context.tree()?;
    for path in model.protected_binds(context.directory(), &context.request.manifest.protect) {
        if tree.stat(&path)? == Stat::Missing {
            let message = format!(
                "{path} is mounted into a service and lies below a protected path, but is not there: dockerd would \
                 create it as root. Create it, or take the mount out"
            );
            return Err(StepError::new(FailureCategory::PathRefused, message));
        }
    }
    signals(context, model, changes)
}

/// A reload signal does not reach a file that is mounted by itself: the container still sees the old one.
fn signals(context: &RequestContext, model: &Model, changes: &Changes) -> Result<(), StepError> {
    for (at, rule) in
        context.request.manifest.on_change.iter().enumerate().filter(|(_, rule)| rule.signal.is_some())
    {
        let files = context.request.manifest.files.iter().map(|file| &file.path).chain(&changes.changed);
        let covered: Vec<&RelativePath> =
            files.filter(|file| rule.paths.iter().any(|path| file.is_at_or_below(path))).collect();
        for (name, service) in model.services.iter().filter(|(name, _)| rule.services.contains(name)) {
            let singly = covered
                .iter()
                .find(|file| service.mounts(context.directory(), file) == Some(Mounted::Singly));
            if let Some(file) = singly {
                let message = format!(
                    "onChange[{at}] of the bundle signals {name} for {file}, but {name} mounts that file by itself and \
                     would keep seeing the old one: mount its folder, or leave the signal out so that {name} is restarted"
                );
                return Err(StepError::new(FailureCategory::ComposeInvalid, message));
            }
        }
    }
    Ok(())
}
