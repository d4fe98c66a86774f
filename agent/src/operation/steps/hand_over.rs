//! The agent inside the project that it upgrades: `up` must not end who runs it, so another container recreates the
//! agent's own, last of all.
//!
//! That container, the *finisher*, is made from the agent's own image with the agent's own mounts. Here is the side of
//! the agent, old or new: it makes the finisher unless there is one, and waits until the finisher tells that compose has
//! been run. Whichever agent hears of it goes on with the operation; the finisher's own side is in `core::finisher`.

use std::time::Duration;

use tenantry_api::names::OperationId;
use tenantry_planner::steps::{JournalState, Step};
use tenantry_protocol::FailureCategory;

use crate::engine::{EngineError, own_id};
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::{recipe::up_limit, starts::record_starts};
use crate::planning::StepError;
use crate::store::Handed;

const POLL: Duration = Duration::from_millis(200);
/// How long a finisher may take besides compose's own run.
const MARGIN: Duration = Duration::from_mins(1);

/// How a step is called in what the finisher tells.
pub fn named(step: Step) -> String {
    format!("{step:?}")
}

/// Has the agent's own container recreated, and goes on as whichever container then runs.
pub async fn hand_over(
    operation: &OperationContext,
    state: &JournalState,
    step: Step,
) -> Result<StepResult, StepError> {
    let Some(service) = state.plan().and_then(|plan| plan.inside.clone()) else {
        return Ok(StepResult::quietly());
    };
    let limit = up_limit(&operation.host.limits, &operation.request) + MARGIN;
    let began = operation.host.runtime.instant();
    loop {
        if let Some(handed) = told(operation, step).await? {
            return match handed.problem {
                Some(problem) => Err(StepError::new(FailureCategory::StartFailed, problem)),
                None => seen(operation, state, step, &service).await,
            };
        }
        match Box::pin(ensure(operation, step)).await {
            Err(EngineError::Down { .. } | EngineError::Slow { .. }) | Ok(()) => {}
            Err(error) => return Err(error.into()),
        }
        if operation.host.since(began) > limit {
            for (id, _) in operation.host.engine.finishers(operation.id.as_str()).await? {
                operation.host.engine.remove_container(&id).await?;
            }
            let message = format!(
                "the container that was to recreate the agent's service {service} did not do so within {} s",
                limit.as_secs()
            );
            return Err(StepError::new(FailureCategory::StartFailed, message));
        }
        operation.host.runtime.sleep(POLL).await;
    }
}

/// What a finisher has told about this very step.
async fn told(operation: &OperationContext, step: Step) -> Result<Option<Handed>, StepError> {
    let (host, uid) = (operation.host.clone(), operation.request.tenant.uid.clone());
    let handed = operation.blocking(move || Ok(host.store.handed(&uid)?)).await?;
    Ok(handed.filter(|handed| handed.operation == operation.id && handed.step == named(step)))
}

/// There is a finisher, and it runs. Never a second one.
async fn ensure(operation: &OperationContext, step: Step) -> Result<(), EngineError> {
    let engine = &operation.host.engine;
    let finishers = engine.finishers(operation.id.as_str()).await?;
    if let Some((id, runs)) = finishers.first() {
        return if *runs { Ok(()) } else { engine.start_container(id).await };
    }
    let Some(own) = own_id() else { return Ok(()) };
    let like = engine.likeness(&own).await?;
    let command = command(operation.host.config.file.to_string_lossy().into_owned(), &operation.id);
    tracing::info!(tenant = %operation.request.tenant.name, operation = %operation.id, ?step, "making the container that recreates this agent");
    let name = format!("tenantry-finisher-{}-{}", operation.id, named(step).to_ascii_lowercase());
    Box::pin(engine.make_finisher(like, &name, operation.id.as_str(), command)).await
}

fn command(config: String, operation: &OperationId) -> Vec<String> {
    let program = std::env::current_exe().map(|path| path.to_string_lossy().into_owned());
    let program = program.unwrap_or_else(|_| "tenantry-agent".to_owned());
    vec![program, "--config".to_owned(), config, "--finish".to_owned(), operation.to_string()]
}

/// This agent is what the step was to bring about.
async fn seen(
    operation: &OperationContext,
    state: &JournalState,
    step: Step,
    service: &str,
) -> Result<StepResult, StepError> {
    let found = operation.on_disk().await?;
    let error = |message: String| Err(StepError::new(FailureCategory::StartFailed, message));
    let Some(own) = own_id() else {
        return error(format!(
            "the agent ran as service {service} of the project and now runs outside of it"
        ));
    };
    let containers = operation.containers().await?;
    let Some(container) = containers.iter().find(|one| one.container.id == own) else {
        return error(format!("this agent's own container is none of service {service}"));
    };
    let reference = found
        .as_ref()
        .and_then(|(_, model)| model.services.get(service))
        .map(|service| service.image.clone());
    let planned = state.planned_images().iter().find(|image| Some(&image.reference) == reference.as_ref());
    let previous = state.plan().into_iter().flat_map(|plan| &plan.previous_images);
    let wanted = match step {
        Step::HandOver => planned.map(|image| image.image_id.as_str()),
        _ => previous.filter(|image| image.service == service).map(|image| image.image_id.as_str()).next(),
    };
    let runs = container.container.image_id.as_str();
    if let Some(wanted) = wanted.filter(|wanted| *wanted != runs) {
        return error(format!("the agent's service {service} runs image {runs} instead of {wanted}"));
    }
    if let Some((_, model)) = &found {
        record_starts(operation, model, &containers, &[container]).await?;
    }
    Ok(StepResult::saying(format!("the agent goes on as container {}", container.container.name)))
}
