//! Services that another directory has taken over while an operation was under way. Compose knows a project by its name
//! alone: it would replace their containers, which are not ours (P11).

use std::collections::BTreeMap;

use tenantry_protocol::FailureCategory;

use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// Services with a container that was made from another directory, and that directory.
pub struct Foreign(BTreeMap<String, String>);

/// Looks for them.
pub async fn services(operation: &OperationContext) -> Result<Foreign, StepError> {
    let all = operation.host.engine.project_containers(operation.request.place.project.as_str()).await?;
    let own =
        |directory: &str| directory.trim_end_matches('/') == operation.directory().trim_end_matches('/');
    let theirs = |directory: &str| !own(directory) && !tenantry_faults::Bug::ReplaceTheirs.is_seeded();
    let foreign = all.into_iter().filter(|one| theirs(&one.directory) && !one.one_off);
    Ok(Foreign(foreign.map(|one| (one.container.service, one.directory)).collect()))
}

impl Foreign {
    /// Whether a service is one of them.
    pub fn has(&self, service: &str) -> bool {
        self.0.contains_key(service)
    }

    /// Fails where one of these services is another directory's by now.
    pub fn none_of(&self, services: &[&str]) -> Result<(), StepError> {
        let Some((service, directory)) =
            self.0.iter().find(|(service, _)| services.contains(&service.as_str()))
        else {
            return Ok(());
        };
        let message = format!(
            "{service} was made anew from {} while this operation was under way, under the same project name: its \
             container is not this tenant's to replace. Remove it or rename one of the projects",
            if directory.is_empty() { "an unknown directory" } else { directory }
        );
        Err(StepError::new(FailureCategory::AdoptionNeeded, message))
    }
}
