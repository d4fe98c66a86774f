//! What `spec.images` changes in compose files of the tenant's own, found and proved before anything is written.

use tenantry_planner::steps::ImageEdit;
use tenantry_protocol::{Action, FailureCategory};

use super::context::RequestContext;
use super::error::StepError;
use crate::compose::{Compose, Discovered};
use crate::observe::{Copies, Texts, locate};

/// What is to be written for `spec.images` in the texts that the other changes leave.
pub async fn image_edits(
    context: &RequestContext,
    compose: &Compose,
    discovered: &Discovered,
    texts: &Texts,
) -> Result<Vec<ImageEdit>, StepError> {
    let (request, place) = (&context.request, &context.request.place);
    if request.manifest.images.is_empty() || request.action != Action::Upgrade {
        return Ok(Vec::new());
    }
    let copies = Copies::of(&context.host, compose, place, discovered, texts.clone());
    let located = locate(&copies, &request.manifest).await?;
    if let Some((at, problem)) = located.chosen.problems.first_key_value() {
        let message = format!("spec.images[{at}]: {problem}");
        return Err(StepError::new(FailureCategory::ReachesNothing, message));
    }
    located.prove(&copies).await?;
    Ok(located.chosen.edits)
}
