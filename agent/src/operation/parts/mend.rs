//! What containers have once `docker compose up` has ended, and that compose does not see by itself (P19).
//!
//! - Compose looks at the networks of a container only while it runs: one that stood still, because an `up` broke off half
//!   way, is started on no network. One that it has connected anew is not found there by its service's name, and has lost
//!   its address. And one that was bound to a network that is gone can't be started at all.
//! - Compose copies inline configs and secrets into a container when it starts it; no hash of its own covers them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tenantry_planner::compare::{Attachments, Container, expectations_on};
use tenantry_planner::model::Model;
use tenantry_planner::remakes::held_otherwise;
use tenantry_planner::steps::JournalState;
use tenantry_protocol::FailureCategory;

use super::recipe::Recipe;
use crate::engine::networks_for;
use crate::planning::StepError;

/// Why a service is not as it should be, by what helps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Amiss {
    /// Another `up`: compose sees it, or would if it looked.
    Lacking,
    /// Containers made anew: compose is content with what others don't find by its name.
    Unnamed,
    /// Containers made anew: compose is content with what it copied into them before.
    Outdated,
    /// Containers made anew: compose can't start these.
    Stranded,
}

/// Services that are not as they should be.
type AllAmiss = BTreeMap<String, Amiss>;

/// Sees to it that every container of a service has what is meant, after a first `up` that ended so. Containers that have it
/// are left alone; `there` are those of before that `up`.
pub async fn mend(
    recipe: &Recipe<'_>,
    state: &JournalState,
    model: &Model,
    there: &BTreeSet<String>,
    first: Result<(), StepError>,
) -> Result<(), StepError> {
    let seen = look(recipe, state, model, there).await;
    let has = |amiss: &AllAmiss, what: &[Amiss]| amiss.values().any(|why| what.contains(why));
    let amiss = match first {
        Err(error) => {
            let seen = seen.unwrap_or_default();
            // That may be why compose could not do it: others wait for what does not become well.
            let waited = matches!(error.category, FailureCategory::Unhealthy | FailureCategory::Crashed);
            let blamed = has(&seen, &[Amiss::Stranded]) || waited && has(&seen, &[Amiss::Outdated]);
            if blamed { seen } else { return Err(error) }
        }
        Ok(()) => match seen? {
            amiss if has(&amiss, &[Amiss::Lacking]) && !has(&amiss, &[Amiss::Stranded]) => {
                // It runs now, so that compose looks, and recreates whoever shares its network as well.
                recipe.run(&[], recipe.names).await?;
                look(recipe, state, model, there).await?
            }
            amiss => amiss,
        },
    };
    if amiss.is_empty() {
        return Ok(());
    }
    let services: Vec<&str> = amiss.keys().map(String::as_str).collect();
    recipe.run(&["--force-recreate"], &services).await?;
    // Whoever has a namespace of theirs is another definition to compose now, and is made anew by it.
    recipe.run(&[], recipe.names).await
}

/// Services whose containers have to be made anew, for no other `up` would put them right; `there` are the containers of before.
pub async fn to_be_made_anew(
    recipe: &Recipe<'_>,
    state: &JournalState,
    model: &Model,
    there: &BTreeSet<String>,
) -> Result<Vec<String>, StepError> {
    let amiss = look(recipe, state, model, there).await?;
    Ok(amiss.into_iter().filter(|(_, why)| *why > Amiss::Lacking).map(|(name, _)| name).collect())
}

async fn look(
    recipe: &Recipe<'_>,
    state: &JournalState,
    model: &Model,
    there: &BTreeSet<String>,
) -> Result<AllAmiss, StepError> {
    let operation = recipe.operation;
    let networks = networks_for(&*operation.host.engine, model).await?;
    let expected = expectations_on(networks, model, &[]);
    let ours = operation.containers().await?.into_iter().map(|one| one.container);
    let ours: Vec<Container> = ours.filter(|one| recipe.names.contains(&one.service.as_str())).collect();
    let mut amiss = AllAmiss::new();
    let mut note = |service: &str, why: Amiss| {
        let known = amiss.entry(service.to_owned()).or_insert(why);
        *known = why.max(*known);
    };
    let stayed: Vec<Container> = ours.iter().filter(|one| there.contains(&one.id)).cloned().collect();
    for service in held_otherwise(model, state, &stayed) {
        note(service.as_str(), Amiss::Outdated);
    }
    for one in &ours {
        let meant = expected.get(one.service.as_str()).and_then(|expected| expected.attached.as_ref());
        if let Some(why) = meant.and_then(|meant| attached_otherwise(meant, one, state.began())) {
            note(&one.service, why);
        }
    }
    Ok(amiss)
}

/// How a container's networks and ports are not what is meant, in an operation that began `since`.
fn attached_otherwise(meant: &Attachments, one: &Container, since: Option<Timestamp>) -> Option<Amiss> {
    if meant.is_stranded(one) {
        return Some(Amiss::Stranded);
    }
    if let Some(lacking) = meant.lacking(one) {
        tracing::info!(container = one.name, lacking, "is not attached as the compose files say");
        return Some(Amiss::Lacking);
    }
    since.is_some_and(|since| meant.is_unnamed(one, since)).then_some(Amiss::Unnamed)
}
