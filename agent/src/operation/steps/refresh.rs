//! Refresh: services whose mounted files changed, and that compose did not recreate, are restarted or signalled.

use std::collections::BTreeMap;
use std::time::Duration;

use tenantry_api::names::{RelativePath, ServiceName};
use tenantry_planner::model::{Model, Mounted};
use tenantry_planner::steps::JournalState;
use tenantry_protocol::{ChangeRule, FailureCategory};

use crate::engine::ProjectContainer;
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::{starts::record_starts, terms::terms};
use crate::planning::StepError;

/// What is done to a running service whose files changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// It gets a signal.
    Signal(String),
    /// It is restarted.
    Restart,
}

/// Restarts or signals what compose left alone.
pub async fn refresh(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let Some(plan) = state.plan().filter(|plan| !plan.changed.is_empty()) else {
        return Ok(StepResult::quietly());
    };
    let Some((_, model)) = operation.on_disk().await? else { return Ok(StepResult::quietly()) };
    let rules = terms(operation, state).await?.on_change;
    let told = what_to_tell(&model, operation.directory(), &rules, &plan.changed);
    if told.is_empty() {
        return Ok(StepResult::quietly());
    }
    let containers = operation.containers().await?;
    let (host, uid) = (operation.host.clone(), operation.request.tenant.uid.clone());
    let starts = operation.blocking(move || Ok(host.store.starts(&uid)?)).await?;
    let mut names = BTreeMap::new();
    // The agent's own container is another's to restart: see `hand_over`.
    let others = |one: &&ProjectContainer| plan.inside.as_deref() != Some(one.container.service.as_str());
    let others = containers.iter().filter(others);
    for container in others.filter(|one| plan.containers.contains(&one.container.id)) {
        let Some((name, what)) = told.iter().find(|(name, _)| name.as_str() == container.container.service)
        else {
            continue;
        };
        // What an agent that was killed had restarted already carries a record of this very start.
        let recorded = starts.containers.get(&container.container.id);
        let again = state.failure().is_none()
            && recorded.is_some_and(|start| start.started_at == container.started_raw)
            && is_current(operation, recorded.map(|start| &start.files), &plan.changed).await?;
        if !again && !tenantry_faults::Bug::KeepTheOldInode.is_seeded() {
            tell(operation, &model, container, what).await?;
            names.insert(name.to_string(), what.clone());
        }
    }
    let after = operation.containers().await?;
    let touched: Vec<&ProjectContainer> =
        after.iter().filter(|one| names.contains_key(&one.container.service)).collect();
    record_starts(operation, &model, &after, &touched).await?;
    Ok(StepResult { did: tenantry_planner::steps::StepOutput::Nothing, message: summary(&names) })
}

async fn is_current(
    operation: &OperationContext,
    files: Option<&BTreeMap<RelativePath, tenantry_api::names::Sha256>>,
    changed: &[RelativePath],
) -> Result<bool, StepError> {
    let Some(files) = files.cloned() else { return Ok(false) };
    let (tree, cache, changed) = (operation.tree()?, operation.cache.clone(), changed.to_vec());
    operation
        .blocking(move || {
            for path in changed {
                let Some(known) = files.get(&path) else { continue };
                match tree.inspect(&path, &cache.hashes)? {
                    crate::files::Found::File(seen) if seen.sha256 == *known => {}
                    _ => return Ok(false),
                }
            }
            Ok(true)
        })
        .await
}

/// For each service that must hear of changed files: how. A restart outweighs a signal.
pub fn what_to_tell(
    model: &Model,
    directory: &str,
    rules: &[ChangeRule],
    changed: &[RelativePath],
) -> BTreeMap<ServiceName, Told> {
    let mut all: BTreeMap<ServiceName, Told> = BTreeMap::new();
    let mut add = |name: &ServiceName, what: Told| {
        let entry = all.entry(name.clone()).or_insert_with(|| what.clone());
        *entry = what.max(entry.clone());
    };
    for file in changed {
        let matching: Vec<&ChangeRule> =
            rules.iter().filter(|rule| rule.paths.iter().any(|path| file.is_at_or_below(path))).collect();
        for (name, service) in &model.services {
            let named = matching.iter().find(|rule| rule.services.contains(name));
            let mounted = service.mounts(directory, file);
            match (mounted, named.map(|rule| &rule.signal)) {
                (Some(Mounted::Singly), _) | (Some(Mounted::InDirectory), None) | (_, Some(None)) => {
                    add(name, Told::Restart);
                }
                (_, Some(Some(signal))) => add(name, Told::Signal(signal.clone())),
                (None, None) => {}
            }
        }
    }
    all
}

async fn tell(
    operation: &OperationContext,
    model: &Model,
    container: &ProjectContainer,
    what: &Told,
) -> Result<(), StepError> {
    use tenantry_planner::compare::ContainerState::{Paused, Restarting, Running};
    if !matches!(container.container.state, Running | Paused | Restarting) {
        // What does not run reads the new file when it is started.
        return Ok(());
    }
    let id = &container.container.id;
    let service = model.services.iter().find(|(name, _)| name.as_str() == container.container.service);
    let grace = service.and_then(|(_, service)| service.stop_grace_ms).map(Duration::from_millis);
    let done = match what {
        Told::Restart => operation.host.engine.restart(id, grace).await,
        Told::Signal(signal) => operation.host.engine.signal(id, signal).await,
    };
    done.map_err(|error| {
        StepError::new(FailureCategory::StartFailed, format!("{}: {error}", container.container.name))
    })
}

fn summary(names: &BTreeMap<String, Told>) -> Option<String> {
    let list = |wanted: fn(&Told) -> bool| {
        names
            .iter()
            .filter(|(_, told)| wanted(told))
            .map(|(name, _)| name.as_str())
            .collect::<Vec<_>>()
            .join(", ")
    };
    let restarted = list(|told| *told == Told::Restart);
    let signalled = list(|told| matches!(told, Told::Signal(_)));
    match (restarted.is_empty(), signalled.is_empty()) {
        (true, true) => None,
        (false, true) => Some(format!("restarted for changed files: {restarted}")),
        (true, false) => Some(format!("told of changed files by a signal: {signalled}")),
        (false, false) => Some(format!("restarted for changed files: {restarted}; signalled: {signalled}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MODEL: &str = r#"{"name":"a","services":{
        "one":{"image":"x","volumes":[{"type":"bind","source":"/d/c/one.conf","target":"/c"}]},
        "dir":{"image":"x","volumes":[{"type":"bind","source":"/d/c","target":"/c"}]},
        "far":{"image":"x"}}}"#;

    fn told(rules: serde_json::Value, changed: &str) -> Vec<(String, Told)> {
        let model = Model::parse(MODEL.as_bytes(), "/d", "/d").unwrap();
        let rules: Vec<ChangeRule> = serde_json::from_value(rules).unwrap();
        let changed = [RelativePath::parse(changed).unwrap()];
        what_to_tell(&model, "/d", &rules, &changed)
            .into_iter()
            .map(|(name, told)| (name.into(), told))
            .collect()
    }

    #[test]
    fn a_service_that_mounts_a_changed_file_is_restarted_unless_a_signal_is_declared() {
        let hup = || Told::Signal("SIGHUP".to_owned());
        let named = |name: &str, told| (name.to_owned(), told);
        let rule = serde_json::json!([{"paths": ["c"], "services": ["dir", "far"], "signal": "SIGHUP"}]);
        assert_eq!(
            told(serde_json::json!([]), "c/one.conf"),
            [named("dir", Told::Restart), named("one", Told::Restart)]
        );
        // `one` sees the file by itself: no signal would help it.
        let wanted = [named("dir", hup()), named("far", hup()), named("one", Told::Restart)];
        assert_eq!(told(rule.clone(), "c/one.conf"), wanted);
        assert_eq!(told(rule, "other.conf"), []);
    }

    #[test]
    fn a_restart_outweighs_a_signal() {
        let rules = serde_json::json!([{"paths": ["c"], "services": ["dir"], "signal": "SIGHUP"},
                                       {"paths": ["c/x.conf"], "services": ["far"]}]);
        let wanted =
            [("dir".to_owned(), Told::Signal("SIGHUP".to_owned())), ("far".to_owned(), Told::Restart)];
        assert_eq!(told(rules, "c/x.conf"), wanted);
        assert!(Told::Restart > Told::Signal("SIGZ".to_owned()));
    }
}
