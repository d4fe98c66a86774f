//! Why a release did not come up, in its services' own words: gathered while their containers are still there, for the way
//! back recreates them.

use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenantry_api::conditions::bounded;
use tenantry_api::tenant_status::{FAILURE_LIMIT, LOG_BYTES, LOG_LINES};
use tenantry_planner::compare::{Container, expectations};
use tenantry_planner::model::Model;
use tenantry_planner::redact::Redactor;
use tenantry_planner::steps::{JournalState, Step};
use tenantry_planner::suspects::{Suspect, in_order, said, suspects};
use tenantry_process::runtime::timeout;
use tenantry_protocol::{FailedService, FailureCategory, OperationPhase};

use super::terms::terms;
use crate::compose::Discovered;
use crate::engine::LastWords;
use crate::observe::{add_env_file, add_secret_file, redactor};
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// How many lines of each log are kept on the host.
const LINES: u32 = 1_000;
/// Of how many services at most.
const SERVICES: usize = 4 * FAILURE_LIMIT;
/// How long gathering may take: the way back waits for it.
const LIMIT: Duration = Duration::from_secs(20);

/// The same failure, with what the services that did not come up said last.
pub async fn with_last_words(
    operation: &OperationContext,
    state: &JournalState,
    step: Step,
    error: StepError,
) -> StepError {
    let Some(phase) = step.phase().filter(|_| starts_services(step) && is_about_services(error.category))
    else {
        return error;
    };
    match timeout(&*operation.host.runtime, LIMIT, gather(operation, state, phase, &error.about)).await {
        Some(Ok(services)) => told(error, services),
        Some(Err(problem)) => {
            tracing::warn!(operation = %operation.id, problem = problem.message, "the services' last words could not be gathered");
            error
        }
        None => error,
    }
}

/// Whether services are started or watched in a step.
fn starts_services(step: Step) -> bool {
    use Step::{Refresh, RefreshPrevious, Start, StartPrevious, Verify, VerifyPrevious, VerifyRevived};
    matches!(
        step,
        Refresh | RefreshPrevious | Start | StartPrevious | Verify | VerifyPrevious | VerifyRevived
    )
}

fn is_about_services(category: FailureCategory) -> bool {
    use FailureCategory::{
        Crashed, DiskFull, EngineFault, PortInUse, ProbeFailed, StartFailed, Unhealthy, WrongImage,
    };
    matches!(
        category,
        Crashed | DiskFull | EngineFault | PortInUse | ProbeFailed | StartFailed | Unhealthy | WrongImage
    )
}

/// Puts what the first of them said into the message.
fn told(mut error: StepError, services: Vec<FailedService>) -> StepError {
    if let Some(words) = services.first().and_then(said) {
        error.message = format!("{}. {words}", error.message.trim_end_matches('.'));
    }
    let more = services.len().saturating_sub(FAILURE_LIMIT);
    error.services.more = u32::try_from(more).unwrap_or(u32::MAX);
    error.services.first = services.into_iter().take(FAILURE_LIMIT).collect();
    error
}

async fn gather(
    operation: &OperationContext,
    state: &JournalState,
    phase: OperationPhase,
    about: &[String],
) -> Result<Vec<FailedService>, StepError> {
    let (discovered, model) = running(operation, phase).await?;
    let expected = expectations(&model, &terms(operation, state).await?.jobs);
    let containers: Vec<Container> =
        operation.containers().await?.into_iter().map(|one| one.container).collect();
    let mut found = suspects(&expected, &containers, about);
    found.sort_by_key(|one| one.part);
    let mut words: Vec<(Suspect, LastWords)> = Vec::new();
    for one in found.into_iter().take(SERVICES) {
        let said = match &one.container {
            Some(id) => operation.host.engine.last_words(id, LINES).await.unwrap_or_default(),
            None => LastWords::default(),
        };
        words.push((one.knowing(said.ended, said.refused.as_deref()), said));
    }
    let redactor = known(operation, &discovered, &model, &words).await?;
    let order = in_order(words.iter().map(|(one, _)| one.clone()).collect(), &model);
    let of =
        |one: &Suspect| words.iter().find(|(other, _)| other.service == one.service).map(|(_, said)| said);
    let whole: Vec<FailedService> = order
        .iter()
        .map(|one| failed(one, of(one).unwrap_or(&LastWords::default()), phase, &redactor))
        .collect();
    keep(operation, phase, &whole).await;
    Ok(whole.into_iter().map(shortened).collect())
}

/// The release whose containers are there.
async fn running(
    operation: &OperationContext,
    phase: OperationPhase,
) -> Result<(Discovered, Arc<Model>), StepError> {
    if phase != OperationPhase::Rollback {
        return operation.release().await;
    }
    let found = operation.on_disk().await?;
    found.ok_or_else(|| crate::observe::no_compose_file(&operation.request.place).into())
}

/// Everything that is known to be secret: what compose reads, now and before, and what the containers were given.
async fn known(
    operation: &OperationContext,
    discovered: &Discovered,
    model: &Model,
    words: &[(Suspect, LastWords)],
) -> Result<Redactor, StepError> {
    let directory = Path::new(operation.directory()).to_owned();
    let mut redactor = redactor(&*operation.host.runtime, &directory, discovered).await;
    let before = directory.join(".tenantry/restore").join(operation.id.as_str()).join("files/.env");
    let env_files: Vec<String> = model.services.values().flat_map(|one| one.env_files.clone()).collect();
    let words: Vec<LastWords> = words.iter().map(|(_, said)| said.clone()).collect();
    let tag = operation.request.release.image_tag.clone();
    operation
        .blocking(move || {
            add_env_file(&mut redactor, &directory, &before);
            for file in env_files {
                add_env_file(&mut redactor, &directory, Path::new(&file));
            }
            for said in &words {
                redactor.add_environment(said.environment.iter().map(String::as_str));
                for file in &said.secret_files {
                    add_secret_file(&mut redactor, &directory, Path::new(file));
                }
            }
            // It is in the Tenant's own spec.
            redactor.knows(&tag);
            Ok(redactor)
        })
        .await
}

fn failed(one: &Suspect, said: &LastWords, during: OperationPhase, redactor: &Redactor) -> FailedService {
    FailedService {
        service: one.service.clone(),
        during,
        problem: redactor.redact(&one.problem),
        log: redactor.redact_lines(said.log.iter().map(String::as_str)),
        healthcheck: said.healthcheck.as_deref().map(|text| redactor.redact(text.trim_end())),
    }
}

/// What of it leaves the host.
fn shortened(mut failed: FailedService) -> FailedService {
    let lines = failed.log.len().saturating_sub(LOG_LINES);
    failed.log = failed.log.split_off(lines).iter().map(|line| bounded(line, LOG_BYTES)).collect();
    failed.healthcheck = failed.healthcheck.map(|text| bounded(&text, LOG_BYTES));
    failed
}

/// Keeps the whole, masked like what is told, with the operation on this host.
async fn keep(operation: &OperationContext, phase: OperationPhase, services: &[FailedService]) {
    let mut text = String::new();
    for one in services {
        let _ = writeln!(text, "=== {} ({:?}): {}", one.service, one.during, one.problem);
        if let Some(check) = &one.healthcheck {
            let _ = writeln!(text, "--- its healthcheck printed\n{check}");
        }
        let _ = writeln!(text, "--- its log\n{}", one.log.join("\n"));
    }
    let (host, uid, id) =
        (operation.host.clone(), operation.request.tenant.uid.clone(), operation.id.clone());
    let kept = operation.blocking(move || Ok(host.store.keep_last_words(&uid, &id, phase, &text)?)).await;
    if let Err(problem) = kept {
        tracing::warn!(operation = %operation.id, problem = problem.message, "the services' last words could not be kept");
    }
}
