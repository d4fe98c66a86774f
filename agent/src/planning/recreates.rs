//! Which services are recreated or restarted, and why, as far as a plan can tell.

use tenantry_planner::compare::of_service;
use tenantry_planner::model::Model;
use tenantry_protocol::Recreate;

use super::changes::Changes;
use crate::engine::ProjectContainer;

/// Services that compose will recreate or that are restarted, and why.
pub fn recreates(
    directory: &str,
    next: &Model,
    previous: Option<&Model>,
    changes: &Changes,
    containers: &[ProjectContainer],
) -> Vec<Recreate> {
    let own: Vec<_> = containers.iter().map(|container| container.container.clone()).collect();
    let mut all = Vec::new();
    for (name, service) in &next.services {
        let old = previous.and_then(|model| model.services.get(name));
        let runs = of_service(&own, name.as_str());
        let mounts = changes.changed.iter().find(|file| service.mounts(directory, file).is_some());
        let cause = if runs.is_empty() {
            (service.replicas > 0).then(|| "new".to_owned())
        } else if runs.iter().any(|container| container.image_ref != service.image) {
            Some("image changed".to_owned())
        } else if changes.env && service.reads_env_file(directory, ".env") {
            Some("reads .env".to_owned())
        } else if old.is_some_and(|old| old.definition != service.definition) {
            Some("configuration changed".to_owned())
        } else {
            mounts.map(|file| format!("mounts {file}"))
        };
        all.extend(cause.map(|cause| Recreate { service: name.to_string(), cause }));
    }
    all
}
