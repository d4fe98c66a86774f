//! Whether a person who runs compose by hand, from a login shell in the directory, would get the same model as we do.
//!
//! The two can differ in which files, profiles and project are chosen, and in variables that the shell sets. The
//! choice is compared by really running it, once for each choice; after that only the shell's variables are looked
//! at, and it is run again as soon as one of them is mentioned in what compose reads.

use std::collections::BTreeSet;
use std::ffi::OsString;

use serde_json::Value;
use tenantry_protocol::FailureCategory;

use crate::compose::{Compose, Output, RunError, is_another_engine};
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;
use crate::planning::stage::ResolvedStage;

/// What a shell says for a command that it does not find.
const NOT_FOUND: i32 = 127;

/// Compares the plain invocation in the staged tree with ours.
pub async fn check(context: &RequestContext, staged: &ResolvedStage) -> Result<(), StepError> {
    let Some(variables) = guilty_variables(context, staged).await? else { return Ok(()) };
    if variables.is_empty() && context.cache.compared.lock().as_ref() == Some(&staged.tree.discovered) {
        return Ok(());
    }
    let compose = context.compose().await?;
    let mut words: Vec<String> = compose.typed().split(' ').map(str::to_owned).collect();
    words.extend(staged.tree.discovered.typed_arguments(&context.request.place));
    let arguments = compose.config_arguments(words.into_iter().map(OsString::from).collect());
    let Some(output) = typed(context, staged, &arguments).await? else { return Ok(()) };
    if output.status.code() == Some(NOT_FOUND) {
        // Where nobody can run it by hand, there is nothing to compare.
        return Ok(());
    }
    let ours: Value = serde_json::from_slice(&staged.json).unwrap_or_default();
    let theirs: Option<Value> =
        serde_json::from_slice(&output.stdout).ok().filter(|_| output.status.success());
    if theirs.as_ref() == Some(&ours) {
        *context.cache.compared.lock() = Some(staged.tree.discovered.clone());
        return Ok(());
    }
    Err(differs(&compose, theirs.as_ref(), &ours, &variables))
}

fn differs(compose: &Compose, theirs: Option<&Value>, ours: &Value, variables: &[String]) -> StepError {
    let typed = compose.typed();
    let what = match theirs {
        None => format!("`{typed}` by hand, from a login shell, can't read the compose files"),
        Some(theirs) if theirs["name"] != ours["name"] => {
            format!("`{typed}` by hand, from a login shell, would use another project name")
        }
        Some(theirs) => match differing_service(theirs, ours) {
            Some(service) => {
                format!("`{typed}` by hand, from a login shell, would see another services.{service}")
            }
            None => format!("`{typed}` by hand, from a login shell, would see another model"),
        },
    };
    let why = if variables.is_empty() {
        "compare `docker compose config` there with and without the shell's variables".to_owned()
    } else {
        format!("the shell sets {}, which wins over .env: remove it from the profile", variables.join(", "))
    };
    StepError::new(FailureCategory::HandRunDiffers, format!("{what}; {why}"))
}

fn differing_service(theirs: &Value, ours: &Value) -> Option<String> {
    let names = [theirs, ours].into_iter().filter_map(|model| model["services"].as_object());
    let names: BTreeSet<&String> = names.flat_map(|services| services.keys()).collect();
    names.into_iter().find(|name| theirs["services"][*name] != ours["services"][*name]).cloned()
}

/// Variables of the login shell that could make a difference: those that steer compose, and those whose name stands
/// anywhere in what compose reads. Names only: values may be secrets. `None` where there is no shell to log in to.
async fn guilty_variables(
    context: &RequestContext,
    staged: &ResolvedStage,
) -> Result<Option<Vec<String>>, StepError> {
    let Some(output) = typed(context, staged, &["env".into(), "-0".into()]).await? else { return Ok(None) };
    let set: BTreeSet<String> = String::from_utf8_lossy(&output.stdout)
        .split('\0')
        .filter_map(|entry| entry.split_once('='))
        .map(|(name, _)| name.to_owned())
        .collect();
    let inputs = staged.tree.discovered.inputs.clone();
    let root = staged.tree.path.clone();
    let texts = context
        .blocking(move || {
            Ok(inputs
                .iter()
                .filter_map(|path| std::fs::read(root.join(path.as_str())).ok())
                .collect::<Vec<_>>())
        })
        .await?;
    let words: BTreeSet<&[u8]> = texts
        .iter()
        .flat_map(|text| text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_'))
        .collect();
    let steers = |name: &str| ["COMPOSE_", "DOCKER_"].iter().any(|prefix| name.starts_with(prefix));
    // Ours are the same: compose is given them.
    let same = |name: &str| name == "HOME" || (name == "DOCKER_HOST" && uses_another_engine(context));
    let guilty = |name: &String| (steers(name) || words.contains(name.as_bytes())) && !same(name);
    Ok(Some(set.into_iter().filter(guilty).take(8).collect()))
}

/// Words in a login shell of this host, in the staged tree; `None` where there is no shell to log in to.
async fn typed(
    context: &RequestContext,
    staged: &ResolvedStage,
    words: &[OsString],
) -> Result<Option<Output>, RunError> {
    context.host.launcher.by_hand(&staged.tree.path, words).await
}

fn uses_another_engine(context: &RequestContext) -> bool {
    is_another_engine(&context.host.config.docker_host)
}
