//! What is generated, committed, and checked: `crds/` and `deploy/` from `api/`, Argo CD's settings from its health scripts.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::shell;

const HEADER: &str = "# Generated from api/ by `cargo xtask codegen`. Do not edit.\n";

/// Writes all that is generated, or with `check` fails where a file is not up to date.
pub fn run(check: bool) -> Result<()> {
    let mut definitions = Vec::new();
    for definition in tenantry_api::crds() {
        let name = definition.metadata.name.as_deref().context("a definition has a name")?;
        definitions.push((format!("{name}.yaml"), serde_saphyr::to_string(&definition)?));
    }
    let mut rights = Vec::new();
    for object in tenantry_api::rights::manifest() {
        rights.push(serde_saphyr::to_string(&object)?);
    }
    folder("crds", &definitions, check)?;
    folder("deploy", &[("rbac.yaml".to_owned(), rights.join("---\n"))], check)?;
    file(ARGO_CD_SETTINGS, &argo_cd_settings()?, check)
}

/// A patch of Argo CD's own ConfigMap with the health of every kind of ours.
const ARGO_CD_SETTINGS: &str = "gitops/argocd/argocd-cm.yaml";

fn argo_cd_settings() -> Result<String> {
    let mut text =
        "# Generated from the scripts beside it by `cargo xtask codegen`. Do not edit.\ndata:\n".to_owned();
    for definition in tenantry_api::crds() {
        let (group, kind) = (&definition.spec.group, &definition.spec.names.kind);
        let script = shell::root().join(format!("gitops/argocd/{group}/{kind}/health.lua"));
        let script = fs::read_to_string(&script).with_context(|| script.display().to_string())?;
        let _ = writeln!(text, "  resource.customizations.health.{group}_{kind}: |");
        for line in script.lines() {
            let _ = writeln!(text, "    {line}");
        }
    }
    Ok(text)
}

/// One file of a folder that holds others, too.
fn file(name: &str, content: &str, check: bool) -> Result<()> {
    let path = shell::root().join(name);
    if fs::read_to_string(&path).ok().as_deref() == Some(content) {
        return Ok(());
    }
    if check {
        bail!("{name} is not up to date: run `cargo xtask codegen` and commit");
    }
    fs::write(&path, content)?;
    println!("wrote {name}");
    Ok(())
}

/// A folder in which nothing is but these files.
fn folder(name: &str, files: &[(String, String)], check: bool) -> Result<()> {
    let folder = shell::root().join(name);
    let mut stale = Vec::new();
    for (file, content) in files {
        let content = format!("{HEADER}{content}");
        let path = folder.join(file);
        if fs::read_to_string(&path).ok().as_deref() == Some(&content) {
            continue;
        }
        if !check {
            fs::create_dir_all(&folder)?;
            fs::write(&path, &content)?;
            println!("wrote {name}/{file}");
        }
        stale.push(format!("{name}/{file}"));
    }
    let strange = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|found| !files.iter().any(|(file, _)| file == found));
    let strange: Vec<String> = strange.collect();
    if !strange.is_empty() {
        bail!("{name}/ holds {} which nothing generates: remove it", strange.join(", "));
    }
    if check && !stale.is_empty() {
        bail!("{} is not what api/ says: run `cargo xtask codegen` and commit", stale.join(", "));
    }
    Ok(())
}
