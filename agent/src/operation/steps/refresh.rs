//! Refresh: services whose mounted files changed, and that compose did not recreate, are restarted or signalled; who shares
//! with what was started anew, or is to restart with it, is restarted after it.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_api::names::{RelativePath, ServiceName};
use tenantry_planner::compare::ContainerState;
use tenantry_planner::model::{Model, Mounted};
use tenantry_planner::steps::{JournalState, Plan};
use tenantry_protocol::{ChangeRule, FailureCategory};

use crate::engine::ProjectContainer;
use crate::files::Found;
use crate::operation::context::OperationContext;
use crate::operation::driver::StepResult;
use crate::operation::parts::restarts::{bring_along, restart};
use crate::operation::parts::{recheck, starts::record_starts, terms::terms};
use crate::planning::StepError;
use crate::store::Start;

/// What is done to a running service whose files changed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Told {
    /// It gets a signal.
    Signal(String),
    /// It is restarted.
    Restart,
}

/// Restarts or signals what compose left alone, and brings along who hangs on what this operation has started anew.
pub async fn refresh(operation: &OperationContext, state: &JournalState) -> Result<StepResult, StepError> {
    let Some(plan) = state.plan() else { return Ok(StepResult::quietly()) };
    let (discovered, model) = match state.failure() {
        None => recheck::release(operation, &plan.checked).await?,
        Some(_) => recheck::previous(operation, &plan.previous_checked).await?,
    };
    let rules = terms(operation, state).await?.on_change;
    let telling = Telling { model: &model, rules: &rules, plan };
    let waiting = telling.waiting(operation, state).await?;
    let mut restarted = BTreeSet::new();
    for (container, what) in &waiting {
        match what {
            Told::Signal(signal) => {
                let signalled = operation.host.engine.signal(&container.container.id, signal).await;
                signalled.map_err(|error| {
                    let message = format!("{}: {error}", container.container.name);
                    StepError::new(FailureCategory::StartFailed, message)
                })?;
            }
            Told::Restart => {
                let service = model.services.get_key_value(container.container.service.as_str());
                restarted.extend(service.map(|(name, _)| name.clone()));
            }
        }
    }
    restart(operation, state, &discovered, &model, &restarted).await?;
    let along = bring_along(operation, state, &discovered, &model).await?;
    let mut names: BTreeMap<String, Told> =
        waiting.into_iter().map(|(one, what)| (one.container.service, what)).collect();
    let after = operation.containers().await?;
    let touched = |one: &&ProjectContainer| {
        names.contains_key(&one.container.service) || along.contains(one.container.service.as_str())
    };
    let touched: Vec<&ProjectContainer> = after.iter().filter(touched).collect();
    record_starts(operation, &model, &after, &touched).await?;
    names.retain(|name, _| !along.contains(name.as_str()));
    let message = summary(&names, &along);
    Ok(StepResult { did: tenantry_planner::steps::StepOutput::Nothing, message })
}

/// What is told to whom.
struct Telling<'a> {
    model: &'a Model,
    rules: &'a [ChangeRule],
    plan: &'a Plan,
}

impl Telling<'_> {
    fn what(&self, directory: &str, service: &str, files: &[RelativePath]) -> Option<Told> {
        let told = what_to_tell(self.model, directory, self.rules, files);
        told.into_iter().find(|(name, _)| name.as_str() == service).map(|(_, what)| what)
    }

    /// The containers that compose left alone and that are yet to be told, and how: of files that this operation has changed,
    /// and of others that they are known to have read otherwise than they are.
    async fn waiting(
        &self,
        operation: &OperationContext,
        state: &JournalState,
    ) -> Result<Vec<(ProjectContainer, Told)>, StepError> {
        let mut waiting = Vec::new();
        if tenantry_faults::Bug::KeepTheOldInode.is_seeded() {
            return Ok(waiting);
        }
        let containers = operation.containers().await?;
        let (host, uid) = (operation.host.clone(), operation.request.tenant.uid.clone());
        let starts = operation.blocking(move || Ok(host.store.starts(&uid)?)).await?;
        // The agent's own container is another's to restart: see `hand_over`. What does not run, or is about to be started by
        // the engine, reads the new file then.
        let others = containers.into_iter().filter(|one| {
            let runs = matches!(one.container.state, ContainerState::Running | ContainerState::Paused);
            runs && self.plan.inside.as_deref() != Some(one.container.service.as_str())
        });
        for container in others.filter(|one| self.plan.containers.contains(&one.container.id)) {
            let recorded = starts.of(&container.container.id, &container.started_raw);
            let read = match recorded {
                Some(start) => read(operation, start).await?,
                None => BTreeMap::new(),
            };
            let files = to_tell(&self.plan.changed, &read, state.failure().is_none());
            let service = container.container.service.as_str();
            let known = recorded.zip(self.model.services.get(service));
            let told = if known.is_some_and(|(start, of)| start.is_led_elsewhere(of, operation.directory())) {
                Some(Told::Restart)
            } else {
                self.what(operation.directory(), service, &files)
            };
            waiting.extend(told.map(|what| (container, what)));
        }
        Ok(waiting)
    }
}

/// How a container has read a file when it was started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Read {
    AsItIs,
    Otherwise,
    /// It is gone since.
    Gone,
}

/// The files that a container is yet to hear of: those that were changed, and others that it is known to have read otherwise.
/// On the way `forward`, what an agent that was killed had restarted already has a record that it has read them; a file
/// that is in no record was not there, or is not mounted.
fn to_tell(
    changed: &[RelativePath],
    read: &BTreeMap<RelativePath, Read>,
    forward: bool,
) -> Vec<RelativePath> {
    let again = |path: &&RelativePath| forward && read.get(*path) == Some(&Read::AsItIs);
    let other = read.iter().filter(|(_, read)| **read == Read::Otherwise).map(|(path, _)| path);
    changed.iter().filter(|path| !again(path)).chain(other).cloned().collect()
}

/// How a container has read the files that it had before it at a start.
async fn read(
    operation: &OperationContext,
    start: &Start,
) -> Result<BTreeMap<RelativePath, Read>, StepError> {
    let (tree, cache, files) = (operation.tree()?, operation.cache.clone(), start.files.clone());
    operation
        .blocking(move || {
            let read = |(path, known): (RelativePath, _)| {
                let how = match tree.inspect(&path, &cache.hashes)? {
                    Found::File(seen) if seen.sha256 == known => Read::AsItIs,
                    Found::File(_) => Read::Otherwise,
                    Found::Missing | Found::Blocked(_) => Read::Gone,
                };
                Ok((path, how))
            };
            files.into_iter().map(read).collect()
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

fn summary(names: &BTreeMap<String, Told>, along: &BTreeSet<ServiceName>) -> Option<String> {
    let list = |wanted: fn(&Told) -> bool| {
        let told = names.iter().filter(|(_, told)| wanted(told));
        told.map(|(name, _)| name.as_str()).collect::<Vec<_>>().join(", ")
    };
    let along = along.iter().map(ServiceName::as_str).collect::<Vec<_>>().join(", ");
    let parts = [
        ("restarted for changed files", list(|told| *told == Told::Restart)),
        ("told of changed files by a signal", list(|told| matches!(told, Told::Signal(_)))),
        ("restarted along with what they share or depend on", along),
    ];
    let said: Vec<String> = parts
        .iter()
        .filter(|(_, names)| !names.is_empty())
        .map(|(did, names)| format!("{did}: {names}"))
        .collect();
    (!said.is_empty()).then(|| said.join("; "))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

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

    #[rstest]
    #[case::one_that_changed_and_that_it_has_not_read(&[("c", Read::Otherwise)], true, &["c"])]
    #[case::one_that_changed_where_nothing_is_known(&[], true, &["c"])]
    #[case::one_that_changed_and_that_is_in_no_record(&[("other", Read::AsItIs)], true, &["c"])]
    #[case::one_that_is_gone(&[("c", Read::Gone)], true, &["c"])]
    #[case::none_that_it_has_read_already(&[("c", Read::AsItIs)], true, &[])]
    #[case::one_that_it_had_read_on_the_way_back(&[("c", Read::AsItIs)], false, &["c"])]
    #[case::one_that_was_edited_and_put_back(&[("c", Read::AsItIs), ("d", Read::Otherwise)], true, &["d"])]
    fn p19_a_container_is_told_of(
        #[case] read: &[(&str, Read)],
        #[case] forward: bool,
        #[case] wanted: &[&str],
    ) {
        let path = |path: &str| RelativePath::parse(path).unwrap();
        let read = read.iter().map(|(name, read)| (path(name), *read)).collect();
        let told: BTreeSet<RelativePath> = to_tell(&[path("c")], &read, forward).into_iter().collect();
        assert_eq!(told, wanted.iter().map(|name| path(name)).collect());
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
