//! What the local policy says to the staged model, before anything is pulled (P13): all of it at once.

use std::sync::Arc;

use tenantry_planner::model::Model;
use tenantry_planner::policy::grants::sentences;
use tenantry_planner::policy::{Grants, Lack, Need, Verification, Violation};
use tenantry_planner::verify::named_probes;
use tenantry_protocol::{FailureCategory, PolicyRefusal, Probe, VerifyPolicy};

use crate::compose::Outside;
use crate::observe::{foreign, lacking};
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

/// Refuses a release, with paths of the real directory, that the local policy does not allow.
pub async fn check(context: &RequestContext, model: &Arc<Model>) -> Result<(), StepError> {
    let mut grants = of_model(context, model).await?;
    grants.extend(commands(context, &context.request.verify));
    refuse(context, grants)
}

/// Refuses a model of what is on disk that the local policy does not allow.
pub async fn judge(context: &RequestContext, model: &Arc<Model>) -> Result<(), StepError> {
    refuse(context, of_model(context, model).await?)
}

/// Refuses a release that would have compose read files outside of the directory that the local policy does not grant.
pub fn outside(context: &RequestContext, outside: &Outside) -> Result<(), StepError> {
    refuse(context, outside.lacking.iter().cloned().collect())
}

async fn of_model(context: &RequestContext, model: &Arc<Model>) -> Result<Grants, StepError> {
    let (host, judged, directory) = (context.host.clone(), model.clone(), context.directory().to_owned());
    let mut grants = context.blocking(move || Ok(lacking(&host, &judged, &directory))).await?;
    grants.extend(foreign(&context.host, model, context.request.place.project.as_str()).await?);
    Ok(grants)
}

/// Commands that a release would be verified by.
fn commands(context: &RequestContext, verify: &VerifyPolicy) -> Vec<Violation> {
    if context.host.policy.allow().verify.contains(&Verification::Exec) {
        return Vec::new();
    }
    let named = named_probes(&verify.probes).into_iter();
    let told = |(at, probe): (String, &Probe)| {
        let Probe::Exec(exec) = probe else { return None };
        let problem = format!("a command would be run in a container of {}", exec.service);
        Some(Violation { at, lack: Lack::of(Need::Verification(Verification::Exec), problem) })
    };
    named.filter_map(told).collect()
}

fn refuse(context: &RequestContext, grants: Grants) -> Result<(), StepError> {
    if grants.is_empty() {
        return Ok(());
    }
    let problems = grants.problems();
    let lacking = grants.told(&context.host.policy.file().display().to_string());
    let message = format!("this host's policy does not allow: {problems}. {}", sentences(&lacking));
    let refusal = PolicyRefusal { revision: context.host.policy.revision(), lacking };
    Err(StepError {
        policy: Some(Box::new(refusal)),
        ..StepError::new(FailureCategory::PolicyRefused, message)
    })
}
