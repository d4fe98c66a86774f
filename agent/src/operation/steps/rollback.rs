//! Rollback: images, containers and verification of the previous release. Files are Write's own way back.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use tenantry_api::names::ServiceName;
use tenantry_planner::compare::expectations_on;
use tenantry_planner::model::Model;
use tenantry_planner::restarts::one_by_one;
use tenantry_planner::steps::JournalState;
use tenantry_planner::text::counted;
use tenantry_planner::verify::{Judge, named};
use tenantry_protocol::FailureCategory;

use super::verify::watch;
use crate::compose::Discovered;
use crate::engine::{ProjectContainer, Reference};
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::mend::to_be_made_anew;
use crate::operation::parts::recipe::Recipe;
use crate::operation::parts::references::{present, put};
use crate::operation::parts::up::bring_up;
use crate::operation::parts::{attachments, foreign, probes, recheck, starts::record_made, terms::terms};
use crate::planning::StepError;

/// Puts every reference back to where it pointed.
pub async fn restore_images(
    operation: &OperationContext,
    state: &JournalState,
) -> Result<StepResult, StepError> {
    let Some(plan) = state.plan() else { return Ok(StepResult::quietly()) };
    let (host, uid) = (operation.host.clone(), operation.request.tenant.uid.clone());
    let known = operation.blocking(move || Ok(host.store.baseline(&uid)?.images)).await?;
    for previous in &plan.references {
        // A tag that somebody took away pointed, for the release before, to what its containers ran.
        let ran = plan.previous_images.iter().find(|image| image.reference == previous.reference);
        match previous.image_id.as_ref().or(ran.map(|image| &image.image_id)) {
            Some(image) => {
                present(operation, image, &previous.reference, &known).await?;
                put(operation, &previous.reference, image).await?;
            }
            None => take_away(operation, state, &previous.reference).await?,
        }
    }
    Ok(StepResult::quietly())
}

/// A reference that pointed nowhere. Only where it is ours: another project may have pulled it meanwhile.
async fn take_away(
    operation: &OperationContext,
    state: &JournalState,
    reference: &str,
) -> Result<(), StepError> {
    let ours = state.planned_images().iter().find(|image| image.reference == reference);
    let parsed = Reference::parse(reference);
    let (Some(ours), Some(Reference { tag: Some(_), digest: None, .. })) = (ours, parsed) else {
        return Ok(());
    };
    let now = operation.host.engine.image(reference).await?;
    if now.is_some_and(|now| now.id == ours.image_id)
        && let Err(error) = operation.host.engine.untag(reference).await
    {
        // It does no harm where it is.
        tracing::info!(reference, %error, "a reference of the failed release is left");
    }
    Ok(())
}

/// Removes what a first installation made. Volumes stay.
pub async fn remove_created(
    operation: &OperationContext,
    state: &JournalState,
) -> Result<StepResult, StepError> {
    let before = state.plan().map(|plan| plan.containers.as_slice()).unwrap_or_default();
    let containers = operation.containers().await?;
    let made: Vec<&ProjectContainer> =
        containers.iter().filter(|one| !before.contains(&one.container.id)).collect();
    remove(operation, &made, None).await?;
    let names: Vec<&str> = made.iter().map(|one| one.container.name.as_str()).collect();
    Ok(StepResult::saying(format!(
        "nothing ran here before; removed, as made by this operation: {}; volumes were left",
        counted(names.len(), "container")
    )))
}

async fn remove(
    operation: &OperationContext,
    containers: &[&ProjectContainer],
    model: Option<&Model>,
) -> Result<(), StepError> {
    for one in containers {
        let service = model.and_then(|model| model.services.get(one.container.service.as_str()));
        let grace = service.and_then(|service| service.stop_grace_ms).map(Duration::from_millis);
        operation.host.engine.stop_and_remove(&one.container.id, grace).await?;
    }
    Ok(())
}

/// Starts the previous release from its restored files.
pub async fn start_previous(
    operation: &OperationContext,
    state: &JournalState,
) -> Result<StepResult, StepError> {
    let (discovered, model) = previous(operation, state).await?;
    let before = state.plan().map(|plan| plan.containers.as_slice()).unwrap_or_default();
    let containers = operation.containers().await?;
    // Services that only the failed release has.
    let strange = |one: &&ProjectContainer| {
        !before.contains(&one.container.id) && !model.services.contains_key(one.container.service.as_str())
    };
    let strange: Vec<&ProjectContainer> = containers.iter().filter(strange).collect();
    remove(operation, &strange, None).await?;
    if let Err(error) = bring_up(operation, state, &discovered, &model).await {
        let there = containers.iter().map(|one| one.container.id.clone()).collect();
        bring_up_each(operation, state, (&discovered, &model), &there, error).await?;
    }
    record_made(operation, state, &model).await?;
    Ok(StepResult::quietly())
}

/// Compose starts nothing that waits for a service that does not become well. Where one was no better before (P18), what ran
/// beside it is brought up all the same: by compose, too, which first makes anew what is still the failed release's, and then
/// starts each service by itself, so that nothing is waited for. Whether they run is seen by watching.
async fn bring_up_each(
    operation: &OperationContext,
    state: &JournalState,
    (discovered, model): (&Discovered, &Model),
    there: &BTreeSet<String>,
    error: StepError,
) -> Result<(), StepError> {
    let waited = matches!(
        error.category,
        FailureCategory::Unhealthy | FailureCategory::Crashed | FailureCategory::StartFailed
    );
    let before =
        state.plan().map(|plan| &plan.before).filter(|before| before.values().any(|was| was.is_broken()));
    let Some(before) = before.filter(|_| waited) else { return Err(error) };
    tracing::warn!(operation = %operation.id, problem = %error.message, "services that were not well before keep others from being started by compose");
    let foreign = foreign::services(operation).await?;
    let inside = state.plan().and_then(|plan| plan.inside.as_deref());
    let is_ours = |name: &&ServiceName| {
        let name = name.as_str();
        let ran = before.get(name).is_some_and(|was| was.ran());
        ran && Some(name) != inside && !foreign.has(name)
    };
    let ours = one_by_one(model, &model.services.keys().filter(is_ours).cloned().collect());
    let names: Vec<&str> = ours.iter().map(ServiceName::as_str).collect();
    let recipe = Recipe { operation, discovered, names: &names };
    if !names.is_empty() {
        make_as_meant(&recipe, state, model, there).await?;
    }
    for name in &names {
        let started = recipe.run(&["--no-recreate"], &[*name]).await;
        // That one does not start which was broken is as it was.
        if !before.get(*name).is_some_and(|was| was.is_broken()) {
            started?;
        }
    }
    Ok(())
}

/// Has compose make anew what is not as the previous release means it, and starts nothing.
async fn make_as_meant(
    recipe: &Recipe<'_>,
    state: &JournalState,
    model: &Model,
    there: &BTreeSet<String>,
) -> Result<(), StepError> {
    recipe.run(&["--no-start"], recipe.names).await?;
    let anew = to_be_made_anew(recipe, state, model, there).await?;
    if anew.is_empty() {
        return Ok(());
    }
    let anew: Vec<&str> = anew.iter().map(String::as_str).collect();
    recipe.run(&["--force-recreate", "--no-start"], &anew).await?;
    // Whoever has a namespace of theirs is another definition to compose now.
    recipe.run(&["--no-start"], recipe.names).await
}

/// Watches the previous release, by its own terms.
pub async fn verify_previous(
    operation: &OperationContext,
    state: &JournalState,
) -> Result<StepResult, StepError> {
    let (_, model) = previous(operation, state).await?;
    let terms = terms(operation, state).await?;
    let (verify, left_out) = probes::still_granted(operation, terms.verify);
    let networks = attachments::networks(operation, &model).await?;
    let mut expected = expectations_on(networks, &model, &terms.jobs);
    let images = state.plan().map(|plan| plan.previous_images.as_slice()).unwrap_or_default();
    for (name, expected) in &mut expected {
        expected.image_id =
            images.iter().find(|image| image.service == name.as_str()).map(|image| image.image_id.clone());
    }
    let mut judge = Judge::new(expected, verify.timeout_ms, verify.stable_for_ms);
    if let Some(plan) = state.plan().filter(|plan| !plan.before.is_empty()) {
        judge = judge.no_worse_than(plan.before.clone());
    }
    let as_before = watch(operation, judge, &verify).await?.as_before;
    let seen = if as_before.is_empty() {
        "was seen healthy".to_owned()
    } else {
        format!("is as it was before, no worse and no better: {}", named(&as_before))
    };
    Ok(StepResult::saying(format!("the previous release runs again and {seen}{left_out}")))
}

async fn previous(
    operation: &OperationContext,
    state: &JournalState,
) -> Result<(Discovered, Arc<Model>), StepError> {
    let checked = state.plan().map(|plan| plan.previous_checked.clone()).unwrap_or_default();
    recheck::previous(operation, &checked).await
}
