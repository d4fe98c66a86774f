//! Whether a person who runs compose by hand, from a login shell in the directory, would get the same model as we do.
//!
//! The two can differ in which files, profiles and project are chosen, and in variables that the shell sets. The
//! choice is compared by really running it, once for each choice; after that only the shell's variables are looked
//! at, and it is run again as soon as one of them is mentioned in what compose reads.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;

use serde_json::Value;
use tenantry_protocol::FailureCategory;

use crate::compose::{Compose, Output, RunError, is_another_engine, login_variables};
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;
use crate::planning::stage::ResolvedStage;

/// What a shell keeps for itself. Compose says itself where it is run (PWD).
const SHELLS_OWN: [&str; 4] = ["PWD", "OLDPWD", "SHLVL", "_"];
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
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    let set: BTreeMap<&str, &str> = printed.split('\0').filter_map(|entry| entry.split_once('=')).collect();
    let inputs = staged.tree.discovered.inputs.clone();
    let root = staged.tree.path.clone();
    let outside = staged.tree.discovered.outside.files.iter().filter_map(|file| file.text.clone());
    let outside: Vec<Vec<u8>> = outside.collect();
    let texts = context
        .blocking(move || {
            Ok(inputs
                .iter()
                .filter_map(|path| std::fs::read(root.join(path.as_str())).ok())
                .chain(outside)
                .collect::<Vec<_>>())
        })
        .await?;
    let words: BTreeSet<&[u8]> = texts
        .iter()
        .flat_map(|text| text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_'))
        .collect();
    let names: BTreeSet<&str> = set.keys().copied().filter(|name| words.contains(name.as_bytes())).collect();
    let guilty = guilty(&set, &names, uses_another_engine(context));
    Ok(Some(guilty.into_iter().take(8).map(str::to_owned).collect()))
}

/// Of the variables that a shell sets, those that could make a difference: compose is steered by them, or they are among
/// those that are mentioned, and compose as we run it does not have the same.
fn guilty<'a>(
    set: &BTreeMap<&'a str, &str>,
    mentioned: &BTreeSet<&str>,
    another_engine: bool,
) -> Vec<&'a str> {
    let ours = login_variables();
    let steers = |name: &str| ["COMPOSE_", "DOCKER_"].iter().any(|prefix| name.starts_with(prefix));
    let given = |name: &str, value: &str| {
        ours.iter().any(|(known, own)| known == name && own == value)
            || SHELLS_OWN.contains(&name)
            || (name == "DOCKER_HOST" && another_engine)
    };
    let guilty = |(name, value): (&&'a str, &&str)| {
        let counts = steers(name) || mentioned.contains(*name);
        (counts && !given(name, value)).then_some(*name)
    };
    set.iter().filter_map(guilty).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_login_sets_by_itself_is_nobodys_fault_and_what_a_profile_sets_is() {
        let ours = login_variables();
        let own: Vec<(String, String)> = ours
            .iter()
            .map(|(name, value)| (name.to_string_lossy().into_owned(), value.to_string_lossy().into_owned()))
            .collect();
        assert!(own.iter().any(|(name, _)| name == "USER") && own.iter().any(|(name, _)| name == "SHELL"));
        let mut set: BTreeMap<&str, &str> =
            own.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        set.extend([
            ("PWD", "/srv/acme"),
            ("SHLVL", "1"),
            ("_", "/usr/bin/env"),
            ("DOCKER_HOST", "unix:///x"),
        ]);
        let mentioned: BTreeSet<&str> = set.keys().copied().chain(["IMAGE_TAG"]).collect();
        assert_eq!(guilty(&set, &mentioned, true), [""; 0]);
        assert_eq!(guilty(&set, &mentioned, false), ["DOCKER_HOST"]);
        set.extend([("USER", "somebody-else"), ("IMAGE_TAG", "v0"), ("EDITOR", "vi"), ("COMPOSE_FILE", "x")]);
        assert_eq!(guilty(&set, &mentioned, true), ["COMPOSE_FILE", "IMAGE_TAG", "USER"]);
    }
}
