//! How things stand already: nothing is begun on what is paused, dead or broken and would stay so (P18).

use std::collections::BTreeSet;

use tenantry_planner::before::{Before, before, hindrances};
use tenantry_planner::compare::Container;
use tenantry_planner::steps::{ImageChoice, ImageSource};
use tenantry_protocol::{Action, FailureCategory, Recreate, VerifyPolicy};

use crate::engine::ProjectContainer;
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;
use crate::planning::stage::ResolvedStage;

/// How each service is; refused where that would stop the release and the release does not mend it.
pub async fn check(
    context: &RequestContext,
    staged: &ResolvedStage,
    verify: &VerifyPolicy,
    containers: &[ProjectContainer],
    recreates: &[Recreate],
    choices: Option<&[ImageChoice]>,
) -> Result<Before, StepError> {
    let own: Vec<Container> = containers.iter().map(|one| one.container.clone()).collect();
    let before = before(&own, context.host.now(), verify.watched());
    let goes_back = context.request.action != Action::Upgrade;
    let mut changed: BTreeSet<&str> = recreates.iter().map(|one| one.service.as_str()).collect();
    if hindrances(&staged.model, &before, &changed, goes_back).is_empty() {
        return Ok(before);
    }
    changed.extend(with_other_images(context, choices.unwrap_or_default(), &own).await?);
    let compose = &staged.compose.command;
    let compose = compose.strip_suffix(" up -d").unwrap_or(compose);
    let found = hindrances(&staged.model, &before, &changed, goes_back);
    if found.is_empty() {
        return Ok(before);
    }
    let said: Vec<String> = found.iter().map(|one| one.said(compose)).collect();
    let message =
        format!("it was so before, and nothing was changed: {}", tenantry_planner::verify::named(&said));
    Err(StepError::new(FailureCategory::UnhealthyBefore, message))
}

/// Services that get another image by the reference that they have.
async fn with_other_images<'a>(
    context: &RequestContext,
    choices: &[ImageChoice],
    containers: &'a [Container],
) -> Result<Vec<&'a str>, StepError> {
    let mut services = Vec::new();
    for container in containers {
        let choice = choices.iter().find(|choice| choice.reference == container.image_ref);
        let stays = match choice.map(|choice| &choice.from) {
            None => true,
            Some(ImageSource::Host { image_id }) => *image_id == container.image_id,
            Some(ImageSource::Registry { digest }) => {
                let image = context.host.engine.known_image(&container.image_id).await?;
                image.is_some_and(|image| image.repo_digests.iter().any(|name| name.ends_with(digest)))
            }
        };
        services.extend((!stays).then_some(container.service.as_str()));
    }
    Ok(services)
}
