//! Whether compose itself reads from the patched `.env` exactly what was meant (P7).

use std::ffi::OsString;
use std::path::Path;
use std::time::Duration;

use serde_json::Value;
use tenantry_api::names::RelativePath;
use tenantry_protocol::FailureCategory;

use crate::files::Stage;
use crate::planning::changes::patched_values;
use crate::planning::context::RequestContext;
use crate::planning::error::StepError;

const CHECK_LIMIT: Duration = Duration::from_secs(30);

/// Has compose's own parser read the staged `.env` and compares.
pub async fn check(
    context: &RequestContext,
    plan: &str,
    has_env: bool,
    staged: &Path,
) -> Result<(), StepError> {
    let wanted = patched_values(&context.request.manifest.env);
    if wanted.is_empty() || !has_env {
        return Ok(());
    }
    let variables: serde_json::Map<String, Value> =
        wanted.keys().map(|name| ((*name).to_owned(), Value::from(format!("${{{name}-}}")))).collect();
    // JSON is YAML.
    let probe =
        serde_json::json!({"services": {"probe": {"image": "probe", "environment": variables}}}).to_string();
    let (tree, plan) = (context.tree()?, plan.to_owned());
    let folder = context
        .blocking(move || {
            let aside = Stage::aside(&tree, &plan, "env-check")?;
            let path = RelativePath::parse("compose.yaml").map_err(|error| unreadable(&error.to_string()))?;
            aside.write(&path, probe.as_bytes())?;
            Ok(aside.path().to_owned())
        })
        .await?;
    let mut arguments: Vec<OsString> =
        ["-p", "probe", "-f", "compose.yaml", "--project-directory", "."].map(OsString::from).into();
    arguments.extend(["--env-file".into(), staged.join(".env").into_os_string()]);
    arguments.extend(["config", "--format", "json"].map(OsString::from));
    let output = context.compose().await?.run(&folder, &arguments, CHECK_LIMIT, None).await?;
    let read: Value = serde_json::from_slice(&output.stdout).unwrap_or_default();
    if !output.status.success() || read.is_null() {
        return Err(unreadable("compose can't read the patched .env"));
    }
    let read = &read["services"]["probe"]["environment"];
    let differs = wanted.iter().find(|(name, value)| {
        // `config` writes a dollar sign twice.
        let got = read.get(**name).and_then(Value::as_str).map(|text| text.replace("$$", "$"));
        got.as_deref() != Some(**value)
    });
    match differs {
        None => Ok(()),
        Some((name, _)) => {
            Err(unreadable(&format!("compose does not read the wanted value of {name} back from .env")))
        }
    }
}

fn unreadable(problem: &str) -> StepError {
    StepError::new(FailureCategory::EnvUnrepresentable, format!("{problem}; nothing was written"))
}
