//! What the local policy says to the staged model, before anything is pulled (P13).
//!
//! The model is judged as compose resolved it. Three things it can't show by itself: where a relative path leads that
//! climbs out of the staged tree, where a symlink leads, and whose a volume, network or container name is already.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::conditions::bounded;
use tenantry_planner::model::Model;
use tenantry_planner::policy::{Demand, Feature, Policy, Violation, Wants, violations};
use tenantry_protocol::FailureCategory;

use crate::compose::Compose;
use crate::files::Stage;
use crate::observe::resolve;
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;
use crate::planning::stage::ResolvedStage;

/// How many violations are told at once.
const TOLD: usize = 5;
const SIDE_BY_SIDE: usize = 8;

/// Refuses a staged release that the local policy does not allow.
pub async fn check(
    context: &RequestContext,
    compose: &Compose,
    staged: &ResolvedStage,
) -> Result<(), StepError> {
    refuse(&violations(&staged.model, context.directory(), &context.host.config.allow.compose))?;
    if climbs_unseen(staged)? {
        refuse(&climbers(context, compose, staged).await?)?;
    }
    beyond(context, &staged.model).await
}

/// Refuses a model of what is on disk that the local policy does not allow: there every path leads where it says.
pub async fn judge(context: &RequestContext, model: &Arc<Model>) -> Result<(), StepError> {
    refuse(&violations(model, context.directory(), &context.host.config.allow.compose))?;
    beyond(context, model).await
}

/// What the model alone does not tell.
async fn beyond(context: &RequestContext, model: &Arc<Model>) -> Result<(), StepError> {
    let (judged, directory) = (model.clone(), context.directory().to_owned());
    let policy = context.host.config.allow.compose.clone();
    refuse(&context.blocking(move || Ok(links(&judged, &directory, &policy))).await?)?;
    foreign(context, model).await
}

fn refuse(found: &[Violation]) -> Result<(), StepError> {
    if found.is_empty() {
        return Ok(());
    }
    let mut told: Vec<String> = found.iter().take(TOLD).map(ToString::to_string).collect();
    if found.len() > TOLD {
        told.push(format!("and {} more", found.len() - TOLD));
    }
    Err(StepError::new(FailureCategory::PolicyRefused, told.join("; ")))
}

/// Whether a path of the staged model lies outside the staged tree. It was written out absolutely, or climbs by `..`:
/// then it leads from the staged tree to somewhere else than from the tenant's directory.
fn climbs_unseen(staged: &ResolvedStage) -> Result<bool, StepError> {
    let root = staged.tree.path.display().to_string();
    let as_staged = Model::parse(&staged.json, &root, &root)
        .map_err(|error| StepError::new(FailureCategory::ComposeInvalid, error.to_string()))?;
    let outside = |demand: &Demand| path_of(demand).is_some_and(|path| !Path::new(path).starts_with(&root));
    Ok(as_staged.demands.iter().any(outside))
}

/// Paths that lead to another place when the staged tree lies one folder deeper: they climb out of it.
async fn climbers(
    context: &RequestContext,
    compose: &Compose,
    staged: &ResolvedStage,
) -> Result<Vec<Violation>, StepError> {
    let (tree, name, inputs) =
        (context.tree()?, staged.tree.plan.clone(), staged.tree.discovered.inputs.clone());
    let from = staged.tree.path.clone();
    let deeper: PathBuf = context
        .blocking(move || {
            let stage = Stage::deeper(&tree, &name)?;
            for path in &inputs {
                match std::fs::read(from.join(path.as_str())) {
                    Ok(bytes) => stage.write(path, &bytes)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        let message = format!("the staged {path} can't be read: {error}");
                        return Err(StepError::new(FailureCategory::WriteFailed, message));
                    }
                }
            }
            Ok(stage.path().to_owned())
        })
        .await?;
    let again = resolve(
        &*context.host.runtime,
        compose,
        &context.request.place,
        &staged.tree.discovered,
        &deeper,
        context.log()?,
    )
    .await?;
    let moved = |demand: &&Demand| path_of(demand).is_some() && !again.model.demands.contains(demand);
    let told = |demand: &Demand| Violation {
        at: demand.at.clone(),
        problem:
            "leaves the tenant's directory by '..': write the path out from /, so that it can be checked"
                .to_owned(),
    };
    Ok(staged.model.demands.iter().filter(moved).map(told).collect())
}

fn path_of(demand: &Demand) -> Option<&str> {
    match &demand.wants {
        Wants::Path { source, .. } | Wants::Read(source) => Some(source),
        Wants::Feature(..) | Wants::Never(_) => None,
    }
}

/// Host paths that lead somewhere else by a symlink: dockerd follows it, so the place that it leads to must be allowed.
fn links(model: &Model, directory: &str, policy: &Policy) -> Vec<Violation> {
    let judged = |demand: &Demand| {
        let Wants::Path { source, read_only, relabels } = &demand.wants else { return None };
        let problem = match real(Path::new(source)) {
            Ok(real) if real == Path::new(source) => return None,
            Ok(real) => {
                let problem =
                    policy.path(directory, &real.display().to_string(), *read_only, *relabels).err()?;
                format!("{source} leads there by a symlink: {problem}")
            }
            Err(problem) => format!("{source} {problem}"),
        };
        Some(Violation { at: demand.at.clone(), problem })
    };
    model.demands.iter().filter_map(judged).collect()
}

/// Where a path leads; what of it is missing is made where it is looked for.
fn real(path: &Path) -> Result<PathBuf, String> {
    let mut missing = Vec::new();
    let mut there = path;
    loop {
        match std::fs::symlink_metadata(there) {
            Ok(_) => break,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(format!("can't be looked at: {error}")),
        }
        let (Some(parent), Some(name)) = (there.parent(), there.file_name()) else { break };
        missing.push(name);
        there = parent;
    }
    let real = std::fs::canonicalize(there).map_err(|error| format!("can't be followed: {error}"))?;
    Ok(missing.into_iter().rev().fold(real, |path, name| path.join(name)))
}

/// A name that compose would use: its field, what it is of, and the name.
struct Used {
    at: String,
    what: Kind,
    name: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Volume,
    Network,
    Container,
}

/// Names that the engine knows already as somebody else's: compose would take them, or fail after the pull.
async fn foreign(context: &RequestContext, model: &Model) -> Result<(), StepError> {
    let project = context.request.place.project.as_str();
    let features = &context.host.config.allow.compose.features;
    let looks = used(model, features).into_iter().map(|one| async move {
        if !is_name(&one.name) {
            let problem = format!("{:?} is not a name that the engine takes", bounded(&one.name, 80));
            return Ok(Some(Violation { at: one.at, problem }));
        }
        let (what, owner) = match one.what {
            Kind::Volume => ("volume", context.host.engine.volume_project(&one.name).await?),
            Kind::Network => ("network", context.host.engine.network_project(&one.name).await?),
            Kind::Container => ("container", context.host.engine.container_project(&one.name).await?),
        };
        let Some(owner) = owner.filter(|owner| owner.as_deref() != Some(project)) else { return Ok(None) };
        let owner = owner.map_or_else(|| "no project".to_owned(), |owner| format!("project {owner}"));
        let problem =
            format!("there is a {what} {} on this host already, of {owner}: choose another name", one.name);
        Ok::<_, StepError>(Some(Violation { at: one.at, problem }))
    });
    let looks = futures::stream::iter(looks).buffered(SIDE_BY_SIDE);
    let found: Vec<Option<Violation>> = looks.try_collect().await?;
    refuse(&found.into_iter().flatten().collect::<Vec<_>>())
}

fn used(model: &Model, features: &[Feature]) -> Vec<Used> {
    let mut all = Vec::new();
    if !features.contains(&Feature::ExternalVolumes) {
        let own = model.volumes.iter().filter(|(_, one)| !one.external && !one.name.is_empty());
        all.extend(own.map(|(key, one)| Used {
            at: format!("volumes.{key}.name"),
            what: Kind::Volume,
            name: one.name.clone(),
        }));
    }
    if !features.contains(&Feature::ExternalNetworks) {
        let own = model.networks.iter().filter(|(_, one)| !one.external && !one.name.is_empty());
        all.extend(own.map(|(key, one)| Used {
            at: format!("networks.{key}.name"),
            what: Kind::Network,
            name: one.name.clone(),
        }));
    }
    let named = model.services.iter().filter_map(|(key, one)| Some((key, one.container_name.clone()?)));
    all.extend(named.map(|(key, name)| Used {
        at: format!("services.{key}.container_name"),
        what: Kind::Container,
        name,
    }));
    all
}

/// Whether it can stand in a path of the engine's API and mean nothing else.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 255 && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p13_a_symlink_is_followed_and_judged_by_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(folder.path()).unwrap();
        let directory = top.join("acme");
        std::fs::create_dir_all(directory.join("data")).unwrap();
        std::os::unix::fs::symlink("/", directory.join("root")).unwrap();
        std::os::unix::fs::symlink("data", directory.join("inside")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", directory.join("dangling")).unwrap();
        let refused = |source: &str| {
            let json = serde_json::json!({"name": "acme", "services": {"w": {"image": "x", "volumes":
                [{"type": "bind", "source": directory.join(source), "target": "/x"}]}}});
            let directory = directory.display().to_string();
            let model = Model::parse(json.to_string().as_bytes(), &directory, &directory).unwrap();
            assert_eq!(violations(&model, &directory, &Policy::default()), []);
            links(&model, &directory, &Policy::default())
        };
        for good in ["data", "inside", "data/new/deep", "new"] {
            assert_eq!(refused(good), [], "{good}");
        }
        for bad in ["root", "root/etc", "root/nowhere", "dangling", "dangling/x"] {
            assert_eq!(refused(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn p13_names_that_would_change_a_call_to_the_engine_are_refused() {
        for bad in ["", "../containers/json", "a?b", "a/b", "-a", "a b", &"x".repeat(256)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("acme_db-data.1"));
    }
}
