//! Whether the release reaches an image: one that changes nothing is never called deployed (P17).

use tenantry_api::conditions::bounded;
use tenantry_api::names::EnvKey;
use tenantry_planner::images::meaning::may_reach;
use tenantry_planner::text::listed;
use tenantry_protocol::FailureCategory;

use crate::compose::Compose;
use crate::observe::{Texts, meanings};
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;
use crate::planning::stage::ResolvedStage;

/// How many services are told.
const TOLD: usize = 8;

/// Refuses a staged release where of the keys by which it is to reach an image none does.
pub async fn check(
    context: &RequestContext,
    compose: &Compose,
    staged: &ResolvedStage,
    texts: Texts,
) -> Result<(), StepError> {
    let request = &context.request;
    if request.tag_keys.is_empty() || tenantry_faults::Bug::ReachAnything.is_seeded() {
        return Ok(());
    }
    let of = (&request.place, &request.manifest);
    let discovered = &staged.tree.discovered;
    let meanings = meanings(&context.host, &context.cache, compose, of, discovered, texts).await;
    let reaches =
        |key: &EnvKey| may_reach(meanings.env.get(key).and_then(|meaning| meaning.reaches.as_deref()));
    if request.tag_keys.iter().any(reaches) {
        return Ok(());
    }
    let names: Vec<&str> = request.tag_keys.iter().map(EnvKey::as_str).collect();
    let services = staged.model.services.iter();
    let images: Vec<String> = services.map(|(name, service)| format!("{name}: {}", service.image)).collect();
    let message = format!(
        "{} would reach no image: no service's image depends on {}, which spec.env.patch sets; the compose files say {}",
        request.release.image_tag,
        names.join(", "),
        bounded(&listed(&images, TOLD), 1_000),
    );
    Err(StepError::new(FailureCategory::ReachesNothing, message))
}
