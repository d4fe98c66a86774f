//! Compose recreates a container under the name `<12 hex digits>_<name>`, then stops and removes the old one, renames
//! the new one and starts it. A compose that was killed in between leaves one of two things for the next run: both
//! containers, and if neither fits the next release, a conflict of names; or the new one under the error name for good.

use tenantry_planner::compare::ContainerState;
use tenantry_planner::model::Model;

use crate::engine::ProjectContainer;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// Removes what a killed compose had made to replace a container that is still there. It has never run.
pub async fn remove_half_made(operation: &OperationContext, model: &Model) -> Result<Vec<String>, StepError> {
    let containers = operation.known_containers().await?;
    let mut removed = Vec::new();
    for one in &containers {
        let Some(name) = proper_name(operation, model, one) else { continue };
        let never_ran = one.container.state == ContainerState::Created && one.container.started_at.is_none();
        if never_ran && containers.iter().any(|other| other.container.name == name) {
            operation.host.engine.stop_and_remove(&one.container.id, None).await?;
            removed.push(one.container.name.clone());
        }
    }
    Ok(removed)
}

/// Gives containers that a killed compose left half recreated their own names. Only where nobody else has the name.
pub async fn put_right(operation: &OperationContext, model: &Model, containers: &[ProjectContainer]) {
    for one in containers {
        let Some(name) = proper_name(operation, model, one) else { continue };
        if containers.iter().any(|other| other.container.name == name) {
            continue;
        }
        match operation.host.engine.rename(&one.container.id, name).await {
            Ok(()) => tracing::info!(container = name, "has its own name again"),
            // A name is no reason to go back; the containers' state is what is verified.
            Err(error) => {
                tracing::warn!(container = one.container.name, %error, "can't be given its own name");
            }
        }
    }
}

fn proper_name<'a>(
    operation: &OperationContext,
    model: &Model,
    one: &'a ProjectContainer,
) -> Option<&'a str> {
    let service = model.services.get(one.container.service.as_str());
    let own = service.and_then(|service| service.container_name.as_deref());
    proper(&one.container.name, operation.request.place.project.as_str(), &one.container.service, own)
}

/// The name that a half recreated container should have; `None` where it has it.
fn proper<'a>(name: &'a str, project: &str, service: &str, own: Option<&str>) -> Option<&'a str> {
    let (id, rest) = name.split_once('_')?;
    let is_id = id.len() == 12 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let numbered = || {
        let number =
            rest.strip_prefix(project)?.strip_prefix('-')?.strip_prefix(service)?.strip_prefix('-')?;
        Some(!number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
    };
    let expected = own.map_or_else(|| numbered().unwrap_or_default(), |own| own == rest);
    (is_id && expected).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_name_of_a_half_recreated_container_is_put_right() {
        let proper = |name| proper(name, "acme", "web", None);
        assert_eq!(proper("0123456789ab_acme-web-1"), Some("acme-web-1"));
        assert_eq!(proper("0123456789ab_acme-web-12"), Some("acme-web-12"));
        for right in [
            "acme-web-1",
            "0123456789ab_acme-web",
            "0123456789ab_acme-web-",
            "0123456789ab_acme-web-x",
            "0123456789ab_acme-db-1",
            "0123456789ab_other-web-1",
            "0123456789abc_acme-web-1",
            "0123456789AB_acme-web-1",
            "my_acme-web-1",
        ] {
            assert_eq!(proper(right), None, "{right}");
        }
        let named = |name| super::proper(name, "acme", "web", Some("front"));
        assert_eq!(named("0123456789ab_front"), Some("front"));
        assert_eq!(named("0123456789ab_acme-web-1"), None);
    }
}
