//! Compose, as it is called where that changes containers: under the tenant's lock, its words kept.

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use tenantry_api::names::ServiceName;
use tenantry_protocol::{OperateRequest, Place};

use crate::compose::{Discovered, explain, keep_output};
use crate::limits::Limits;
use crate::observe::redactor;
use crate::operation::context::OperationContext;
use crate::planning::StepError;

/// `docker compose up` over the services that are ours to start.
pub struct Recipe<'a> {
    /// The operation that does it.
    pub operation: &'a OperationContext,
    /// The compose files.
    pub discovered: &'a Discovered,
    /// The services that are ours to start.
    pub names: &'a [&'a str],
}

impl Recipe<'_> {
    /// Runs it over some of them, with more arguments.
    pub async fn run(&self, more: &[&str], services: &[&str]) -> Result<(), StepError> {
        let arguments = up_arguments(&self.operation.request.place, self.discovered, more, services);
        carry_out(self.operation, self.discovered, "up", arguments).await
    }
}

/// Runs another command of compose's that changes containers, over some services.
pub async fn change<'a>(
    operation: &OperationContext,
    discovered: &Discovered,
    (command, more): (&str, &[&str]),
    services: impl Iterator<Item = &'a ServiceName>,
) -> Result<(), StepError> {
    let mut arguments = discovered.arguments(&operation.request.place, Path::new(operation.directory()));
    arguments.push(command.into());
    arguments.extend(more.iter().map(OsString::from));
    arguments.extend(services.map(|name| OsString::from(name.as_str())));
    carry_out(operation, discovered, command, arguments).await
}

/// Runs compose under the tenant's lock. What it says is kept in the tenant's log.
async fn carry_out(
    operation: &OperationContext,
    discovered: &Discovered,
    command: &str,
    arguments: Vec<OsString>,
) -> Result<(), StepError> {
    let directory = Path::new(operation.directory());
    let limit = up_limit(&operation.host.limits, &operation.request);
    let output =
        operation.compose().await?.run(directory, &arguments, limit, operation.lock_for_child()?).await?;
    let (code, success) = (output.status.code(), output.status.success());
    let known = redactor(&*operation.host.runtime, directory, discovered).await;
    let explained = explain(command, code, &output.stderr, &known);
    let title = format!("{command}, operation {}", operation.id);
    // What it asks goes to the one, how it fares to the other.
    let said = format!("{}{}", String::from_utf8_lossy(&output.stdout), output.stderr);
    keep_output(&*operation.host.runtime, operation.log()?, title, said).await;
    if success { Ok(()) } else { Err(explained.into()) }
}

/// The one recipe.
pub fn up_arguments(
    place: &Place,
    discovered: &Discovered,
    more: &[&str],
    services: &[&str],
) -> Vec<OsString> {
    let mut arguments = discovered.arguments(place, Path::new(place.directory.as_str()));
    let named_alone =
        if tenantry_faults::Bug::StartWithDependencies.is_seeded() { "--quiet-pull" } else { "--no-deps" };
    let orphans = if tenantry_faults::Bug::TakeOrphansAway.is_seeded() {
        "--remove-orphans=true"
    } else {
        "--remove-orphans=false"
    };
    let recipe = ["up", "-d", named_alone, "--no-build", "--pull", "never", orphans];
    arguments.extend(recipe.iter().chain(more).chain(services).map(OsString::from));
    arguments
}

/// How long `up` may take.
pub fn up_limit(limits: &Limits, request: &OperateRequest) -> Duration {
    Duration::from_millis(request.verify.timeout_ms) + limits.up
}
