//! Preflight: plan, then reserve what the plan needs.

use std::fmt::Write as _;

use tenantry_planner::steps::{Plan, StepOutput};
use tenantry_protocol::{Action, FailureCategory};

use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::{data, image_pins, references};
use crate::planning::{StepError, plan};

/// Plans, and reserves.
pub async fn preflight(operation: &OperationContext) -> Result<StepResult, StepError> {
    let planned = plan(operation, Some(&operation.id)).await?;
    let mut plan = planned.plan;
    reserve(operation, &mut plan).await?;
    operation.set_staged(planned.release);
    Ok(StepResult { message: Some(summary(&plan)), did: StepOutput::Planned(Box::new(plan)) })
}

/// Makes sure of what a way back needs, before anything is changed: images that are kept, and room for data.
async fn reserve(operation: &OperationContext, plan: &mut Plan) -> Result<(), StepError> {
    pin_previous(operation, plan).await?;
    for image in &plan.images {
        let Some(digest) = &image.repo_digest else { continue };
        if operation.host.engine.image(&image.image_id).await?.is_some() {
            continue;
        }
        let pulled = references::pulled_again(operation, &image.image_id, &image.reference, digest).await;
        pulled.map_err(|error| unusable(operation, &error))?;
    }
    match &mut plan.data {
        Some(data) => Box::pin(data::reserve(operation, data)).await,
        None => Ok(()),
    }
}

/// A restore point without its images would be none.
async fn pin_previous(operation: &OperationContext, plan: &Plan) -> Result<(), StepError> {
    let running = plan.previous_images.iter().map(|image| image.image_id.clone());
    let pointed = plan.references.iter().filter_map(|reference| reference.image_id.clone());
    let images: Vec<String> = running.chain(pointed).collect();
    let uid = &operation.request.tenant.uid;
    image_pins::keep(&*operation.host.engine, uid, &operation.id, &images).await.map_err(|error| {
        let message = format!("an image that a rollback would need can't be kept: {}", error.message);
        StepError { message, ..error }
    })
}

fn unusable(operation: &OperationContext, error: &StepError) -> StepError {
    let to = match &operation.request.action {
        Action::Rollback { to, .. } => to.as_str(),
        Action::Upgrade => operation.id.as_str(),
    };
    StepError::new(FailureCategory::RestorePointUnusable, format!("restore point {to}: {}", error.message))
}

fn summary(plan: &Plan) -> String {
    let files = &plan.report.files;
    let mut text = format!(
        "files created: {}, changed: {}, deleted: {}; services touched: {}",
        files.created,
        files.modified,
        files.deleted,
        plan.report.recreates.len()
    );
    if !plan.removed.is_empty() {
        let names: Vec<&str> = plan.removed.iter().map(|one| one.service.as_str()).collect();
        let _ = write!(text, "; no longer in the release and removed: {}", names.join(", "));
    }
    if !plan.left_running.is_empty() {
        let _ = write!(text, "; no longer in the release and left running: {}", plan.left_running.join(", "));
    }
    if !plan.left_files.is_empty() {
        let _ = write!(
            text,
            "; no longer in the release, edited by hand and left: {}",
            plan.left_files.join(", ")
        );
    }
    text
}
