//! What status says of an operation: the agent's report in the words of status.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use tenantry_api::conditions::{bounded, whole_seconds};
use tenantry_api::tenant::Approach;
use tenantry_api::tenant_status::{
    ComposeInUse, FileCounts, Phase, PhaseState, PhaseStatus, PlanSummary, Recreate,
};
use tenantry_protocol::{ComposeUse, OperationPhase, OperationStatus, PhaseRecord, PlanReport, Progress};

use super::lifecycle::{Operation, Purpose};
use crate::text::clause;

/// The most recreated services that status lists.
const RECREATE_LIMIT: usize = 64;

/// What an operation does, as the beginning of a sentence.
pub(super) fn what(operation: &Operation) -> String {
    let to = &operation.to;
    match (&operation.purpose, &operation.from) {
        (Purpose::Rollback { to: point, .. }, from) => {
            let from = from.as_ref().map(|from| format!(" from {from}")).unwrap_or_default();
            format!("Rolling back{from} to {to} (restore point {point})")
        }
        (Purpose::Upgrade, Some(from)) if from != to => format!("Upgrading from {from} to {to}"),
        (Purpose::Upgrade, Some(_)) => format!("Applying {to} anew"),
        (Purpose::Upgrade, None) => format!("Installing {to}"),
    }
}

/// The phase that the operation is in, and what is done in it.
pub(super) fn doing(seen: &OperationStatus, first: bool) -> (Phase, String) {
    let phase =
        seen.phases.iter().rev().find_map(|record| status_phase(record.name)).unwrap_or(Phase::Planning);
    let doing = match &seen.waits_for {
        Some(problem) => format!("the agent waits and tries again: {}", problem.trim_end_matches('.')),
        None => doing_in(phase, seen.progress.as_ref(), failure_so_far(seen), first),
    };
    (phase, doing)
}

fn doing_in(phase: Phase, progress: Option<&Progress>, failure: Option<&str>, first: bool) -> String {
    let restoring = if first { "taking the installation back" } else { "restoring the previous release" };
    match (phase, progress, failure) {
        (Phase::Pulling, Some(progress), _) => pulling(progress),
        (Phase::Pulling, None, _) => "pulling images".to_owned(),
        (Phase::Snapshotting, _, _) => "copying declared paths and volumes".to_owned(),
        (Phase::Writing, _, _) => "writing files and .env".to_owned(),
        (Phase::Starting, _, _) => "starting what changed".to_owned(),
        (Phase::Verifying, _, _) => "watching the services".to_owned(),
        (Phase::RollingBack, _, Some(failure)) => {
            format!("{restoring}, because this failed: {}", clause(failure))
        }
        (Phase::RollingBack, _, None) => restoring.to_owned(),
        _ => "checking the host".to_owned(),
    }
}

fn pulling(progress: &Progress) -> String {
    let images = format!("pulling images, {} of {}", progress.images_done, progress.images_total);
    if progress.bytes_total == 0 {
        return images;
    }
    format!("{images} ({} of {})", megabytes(progress.bytes_done), megabytes(progress.bytes_total))
}

fn megabytes(bytes: u64) -> String {
    format!("{}.{} MB", bytes / 1_000_000, bytes % 1_000_000 / 100_000)
}

/// Why a phase before the present one failed.
fn failure_so_far(seen: &OperationStatus) -> Option<&str> {
    let failed = seen.phases.iter().rev().find(|record| record.state == PhaseState::Failed)?;
    failed.message.as_deref()
}

/// The phase of status for a phase of an operation; tidying up afterwards is none of its own.
pub(super) fn status_phase(phase: OperationPhase) -> Option<Phase> {
    match phase {
        OperationPhase::Preflight => Some(Phase::Planning),
        OperationPhase::Pull => Some(Phase::Pulling),
        OperationPhase::Snapshot => Some(Phase::Snapshotting),
        OperationPhase::Write => Some(Phase::Writing),
        OperationPhase::Start => Some(Phase::Starting),
        OperationPhase::Verify => Some(Phase::Verifying),
        OperationPhase::Rollback => Some(Phase::RollingBack),
        OperationPhase::Finish => None,
    }
}

/// The word that people know an operation's phase by.
pub(super) fn phase_word(phase: OperationPhase) -> &'static str {
    status_phase(phase).map_or("Finishing", Phase::as_str)
}

/// The operation's phases as status keeps them.
pub(super) fn phases(seen: &OperationStatus) -> Vec<PhaseStatus> {
    let mut phases: Vec<PhaseStatus> = Vec::new();
    for phase in seen.phases.iter().filter_map(phase_status) {
        // The list is a map by name to the API server: a phase that comes again takes its former place.
        match phases.iter_mut().find(|known| known.name == phase.name) {
            Some(known) => *known = phase,
            None => phases.push(phase),
        }
    }
    phases
}

fn phase_status(record: &PhaseRecord) -> Option<PhaseStatus> {
    Some(PhaseStatus {
        name: status_phase(record.name)?,
        state: record.state,
        started_at: Time(whole_seconds(record.started_at)),
        finished_at: record.finished_at.map(|at| Time(whole_seconds(at))),
        message: record.message.as_deref().map(|message| bounded(message, 1_024)),
    })
}

/// The compose files in use, as status keeps them.
pub(super) fn in_use(compose: &ComposeUse) -> ComposeInUse {
    ComposeInUse {
        files: compose.files.iter().take(16).map(|file| bounded(file, 1_024)).collect(),
        profiles: compose.profiles.iter().take(16).map(|profile| bounded(profile, 64)).collect(),
        command: bounded(&compose.command, 4_096),
    }
}

/// The agent's plan as status keeps it. Which approach was chosen is known from before; going back may change any file.
pub(super) fn plan_summary(report: &PlanReport, chosen: Option<Approach>, purpose: &Purpose) -> PlanSummary {
    let approach = chosen.unwrap_or(match purpose {
        Purpose::Upgrade => Approach::Auto,
        Purpose::Rollback { .. } => Approach::Release,
    });
    let count = |number: u32| i32::try_from(number).unwrap_or(i32::MAX);
    let files = FileCounts {
        created: count(report.files.created),
        modified: count(report.files.modified),
        deleted: count(report.files.deleted),
        unchanged: count(report.files.unchanged),
    };
    let mut recreates: Vec<Recreate> = report
        .recreates
        .iter()
        .map(|one| Recreate { service: bounded(&one.service, 128), cause: bounded(&one.cause, 256) })
        .collect();
    recreates.sort_by(|a, b| a.service.cmp(&b.service));
    recreates.dedup_by(|a, b| a.service == b.service);
    recreates.truncate(RECREATE_LIMIT);
    PlanSummary { hash: Some(bounded(&report.hash, 128)), approach, files, recreates }
}
