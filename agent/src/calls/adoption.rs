//! Records of a place: taking it, taking it over, and taking what is there for the truth.

use tenantry_api::names::TenantUid;
use tenantry_api::tenant_status::Outcome;
use tenantry_planner::steps::{JournalState, Record, Step};
use tenantry_protocol::{
    AcceptRequest, ApiError, ClaimRequest, ClaimResponse, ErrorCode, Failure, FailureCategory, FileState,
    OperationPhase, TARGET_OF_ADOPTED,
};

use crate::files::{Found, Stage, Transactions, Tree};
use crate::host::{Host, TenantCache, claim_refused, damage, fault, open_operation, refused, store_refused};
use crate::store::{Baseline, ClaimWanted, StoreError, Written};

/// Records a claim on what is there, with what is there as the baseline.
pub(super) fn claim(
    host: &Host,
    cache: &TenantCache,
    operator: String,
    request: &ClaimRequest,
) -> Result<ClaimResponse, ApiError> {
    let store = |error: StoreError| store_refused(&error);
    let uid = &request.tenant.uid;
    let _lock = host.store.lock(uid).map_err(store)?;
    let wanted = ClaimWanted {
        take_over: request.take_over,
        ..ClaimWanted::new(&request.tenant, operator, &request.place, request.epoch)
    };
    if request.take_over {
        return take_over(host, cache, &wanted);
    }
    let tree = host.tree(&request.place.directory).map_err(fault)?;
    let mut baseline = host.store.baseline(uid).map_err(store)?;
    for (at, file) in request.manifest.files.iter().enumerate() {
        let found =
            tree.as_ref().map(|tree| tree.inspect(&file.path, &cache.hashes)).transpose().map_err(fault)?;
        let seen = match found {
            Some(Found::File(seen)) => Some(seen),
            _ => None,
        };
        let same = seen.filter(|seen| !matches!(crate::observe::file_state(file, seen), FileState::Differs));
        let Some(seen) = same else {
            let problem = format!("{} is no longer as it was seen", file.path);
            return Err(refused(ErrorCode::Invalid, &format!("manifest.files[{at}]"), problem));
        };
        let mode = seen.stamp.mode & 0o7777;
        baseline.files.insert(file.path.clone(), Written { sha256: seen.sha256, mode });
    }
    host.store.may_claim(&wanted).map_err(|error| claim_refused(&error))?;
    // A project that was taken over is known from now on, with or without managed files.
    baseline.target_hash.get_or_insert_with(|| TARGET_OF_ADOPTED.to_owned());
    // First: a claim without it would look like one that is done, and nobody would claim again (P3).
    host.store.save_baseline(uid, &baseline).map_err(store)?;
    let claim = host.store.claim(&wanted).map_err(|error| claim_refused(&error))?;
    cache.records_changed();
    Ok(ClaimResponse { epoch: claim.epoch })
}

/// Takes a place from whoever holds it, once nothing of theirs is in flight. What is there is not looked at: first
/// contact follows.
fn take_over(host: &Host, cache: &TenantCache, wanted: &ClaimWanted) -> Result<ClaimResponse, ApiError> {
    let mut locks = Vec::new();
    for held in host.store.holders(&wanted.tenant.uid, &wanted.place) {
        locks.push(host.store.lock(&held.uid).map_err(|error| store_refused(&error))?);
        let owner = format!("{}/{}", held.namespace, held.name);
        idle(host, &held.uid, &owner)?;
        tracing::warn!(tenant = %wanted.tenant.name, namespace = %wanted.tenant.namespace, from = owner, "takes over a claim");
    }
    let claim = host.store.claim(wanted).map_err(|error| claim_refused(&error))?;
    cache.records_changed();
    Ok(ClaimResponse { epoch: claim.epoch })
}

/// Refuses while an operation of a Tenant is undecided. The caller holds its lock.
fn idle(host: &Host, uid: &TenantUid, owner: &str) -> Result<(), ApiError> {
    let store = |error: StoreError| store_refused(&error);
    if let Some(damage) = damage(host, uid).map_err(store)? {
        let message = format!(
            "nobody knows whether an operation of Tenant {owner} has ended: {damage}. Move it away first"
        );
        return Err(refused(ErrorCode::RecordsDamaged, "", message));
    }
    let Some(operation) = open_operation(host, uid).map_err(store)? else { return Ok(()) };
    let message = format!("operation {operation} of Tenant {owner} is in flight; it is never cut short");
    Err(refused(ErrorCode::Busy, "", message))
}

/// Takes what is there for the truth. Fencing is checked before anything is touched, and recorded at the end: an agent
/// that is killed in between is asked again, and every part can be done again.
pub(super) fn accept(
    host: &Host,
    cache: &TenantCache,
    operator: String,
    request: &AcceptRequest,
) -> Result<ClaimResponse, ApiError> {
    let store = |error: StoreError| store_refused(&error);
    let uid = &request.tenant.uid;
    let _lock = host.store.lock(uid).map_err(store)?;
    let wanted = ClaimWanted::new(&request.tenant, operator, &request.place, request.epoch);
    host.store.may_accept(&wanted).map_err(|error| claim_refused(&error))?;
    let mut aside = host.store.quarantine::<Record>(uid).map_err(store)?;
    give_up(host, uid).map_err(store)?;
    let tree = host.tree(&request.place.directory).map_err(fault)?;
    if let Some(tree) = &tree {
        aside.extend(Transactions::new(tree).decide_all().map_err(fault)?);
        Stage::remove_abandoned(tree, |plan| host.plans.is_open(plan)).map_err(fault)?;
    }
    let old = host.store.baseline(uid).map_err(store)?;
    let baseline = present(tree.as_ref(), cache, request, old).map_err(fault)?;
    host.store.save_baseline(uid, &baseline).map_err(store)?;
    let claim = host.store.accept_claim(&wanted).map_err(|error| claim_refused(&error))?;
    for path in aside {
        tracing::warn!(tenant = %request.tenant.name, path = %path.display(), "a damaged record was put aside");
    }
    cache.records_changed();
    Ok(ClaimResponse { epoch: claim.epoch })
}

/// Ends operations that began and did not end. Nothing of theirs runs: the caller holds the tenant's lock.
fn give_up(host: &Host, uid: &TenantUid) -> Result<(), StoreError> {
    for operation in host.store.operations(uid)? {
        let Some((mut journal, records)) = host.store.open_journal::<Record>(uid, &operation)? else {
            continue;
        };
        let state = JournalState::fold(&records);
        if records.is_empty() || state.outcome().is_some() {
            continue;
        }
        let failure = Failure {
            during: state.current().and_then(Step::phase).unwrap_or(OperationPhase::Preflight),
            category: FailureCategory::AgentFault,
            message: "It was given up: a person accepted the host as it is.".to_owned(),
            policy: None,
            services: tenantry_protocol::FailedServices::default(),
        };
        let (at, outcome) = (host.now(), Outcome::RollbackFailed);
        journal.append(&Record::Ended { at, outcome, failure: Some(failure) })?;
        host.store.forget_request(uid, &operation)?;
    }
    Ok(())
}

/// What is on disk now as what was last written: files of the request, and those that were ours before.
fn present(
    tree: Option<&Tree>,
    cache: &TenantCache,
    request: &AcceptRequest,
    old: Baseline,
) -> Result<Baseline, crate::files::FilesError> {
    let ours = request.manifest.files.iter().map(|file| &file.path).chain(old.files.keys());
    let mut files = std::collections::BTreeMap::new();
    for path in ours {
        let found = tree.map(|tree| tree.inspect(path, &cache.hashes)).transpose()?;
        if let Some(Found::File(seen)) = found {
            let mode = seen.stamp.mode & 0o7777;
            files.insert(path.clone(), Written { sha256: seen.sha256, mode });
        }
    }
    let target_hash = Some("accepted".to_owned());
    Ok(Baseline { target_hash, files, ..old })
}
