//! What containers have of networks and ports once `docker compose up` has ended (P19).
//!
//! Compose looks at the networks of a container only while it runs: one that stood still, because an `up` broke off half
//! way, is started on no network. One that it has connected anew is not found there by its service's name, and has lost
//! its address. And one that was bound to a network that is gone can't be started at all.

use std::collections::BTreeSet;
use std::time::Duration;

use jiff::Timestamp;
use tenantry_planner::compare::{Attachments, Container, Expected, Networks, expectations_on};
use tenantry_planner::model::Model;

use super::recipe::Recipe;
use crate::engine::networks_for;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// How long to wait for an engine that is away.
const AGAIN: Duration = Duration::from_secs(2);

/// Services that are not attached as they should be, by what is to be done.
#[derive(Debug, Default)]
struct Wrong {
    /// Compose sees it, or would if it looked.
    lacking: BTreeSet<String>,
    /// Compose is content with it.
    unnamed: BTreeSet<String>,
    /// Compose can't start it.
    stranded: BTreeSet<String>,
}

/// Sees to it that every container of a service has what is meant, after a first `up` that ended so, of an operation that
/// began `since`. Containers that have it are left alone.
pub async fn mend(
    recipe: &Recipe<'_>,
    model: &Model,
    since: Option<Timestamp>,
    first: Result<(), StepError>,
) -> Result<(), StepError> {
    let seen = look(recipe, model, since).await;
    let mut wrong = match first {
        Ok(()) => seen?,
        Err(error) => seen.ok().filter(|wrong| !wrong.stranded.is_empty()).ok_or(error)?,
    };
    if !wrong.lacking.is_empty() && wrong.stranded.is_empty() {
        // It runs now, so that compose looks, and recreates whoever shares its network as well.
        recipe.run(&[], recipe.names).await?;
        wrong = look(recipe, model, since).await?;
    }
    let services: Vec<&str> =
        [&wrong.lacking, &wrong.unnamed, &wrong.stranded].into_iter().flatten().map(String::as_str).collect();
    if services.is_empty() {
        return Ok(());
    }
    recipe.run(&["--force-recreate"], &services).await?;
    recipe.run(&[], recipe.names).await
}

async fn look(recipe: &Recipe<'_>, model: &Model, since: Option<Timestamp>) -> Result<Wrong, StepError> {
    let operation = recipe.operation;
    let networks = networks_for(&*operation.host.engine, model).await?;
    let expected = expectations_on(networks, model, &[]);
    let containers = operation.containers().await?;
    let ours = containers.iter().filter(|one| recipe.names.contains(&one.container.service.as_str()));
    let mut wrong = Wrong::default();
    for one in ours.map(|one| &one.container) {
        let meant = |(_, expected): (_, &Expected)| expected.attached.clone();
        let of_it = expected.iter().find(|(name, _)| name.as_str() == one.service);
        if let Some(meant) = of_it.and_then(meant) {
            wrong.note(&meant, one, since);
        }
    }
    Ok(wrong)
}

impl Wrong {
    fn note(&mut self, meant: &Attachments, one: &Container, since: Option<Timestamp>) {
        let service = || one.service.clone();
        if meant.is_stranded(one) {
            self.stranded.insert(service());
        } else if let Some(lacking) = meant.lacking(one) {
            tracing::info!(container = one.name, lacking, "is not attached as the compose files say");
            self.lacking.insert(service());
        } else if since.is_some_and(|since| meant.is_unnamed(one, since)) {
            self.unnamed.insert(service());
        }
    }
}

/// The engine's networks for a model that is about to be watched; an engine that is away is waited for.
pub async fn networks(operation: &OperationContext, model: &Model) -> Result<Networks, StepError> {
    let host = &operation.host;
    let began = host.runtime.instant();
    loop {
        match networks_for(&*host.engine, model).await {
            Ok(networks) => return Ok(networks),
            Err(error) if host.since(began) > host.limits.away => return Err(error.into()),
            Err(_) => host.runtime.sleep(AGAIN).await,
        }
    }
}
