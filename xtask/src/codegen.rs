//! `crds/`: generated from `api/`, committed, and checked.

use std::fs;

use anyhow::{Context as _, Result, bail};

use crate::shell;

const HEADER: &str = "# Generated from api/ by `cargo xtask codegen`. Do not edit.\n";

/// Writes every custom resource definition, or with `check` fails where a file is not up to date.
pub fn run(check: bool) -> Result<()> {
    let folder = shell::root().join("crds");
    let mut stale = Vec::new();
    let mut expected = Vec::new();
    for definition in tenantry_api::crds() {
        let name =
            format!("{}.yaml", definition.metadata.name.as_deref().context("a definition has a name")?);
        let content = format!("{HEADER}{}", serde_saphyr::to_string(&definition)?);
        let path = folder.join(&name);
        if fs::read_to_string(&path).ok().as_deref() != Some(&content) {
            if !check {
                fs::create_dir_all(&folder)?;
                fs::write(&path, &content)?;
                println!("wrote crds/{name}");
            }
            stale.push(name.clone());
        }
        expected.push(name);
    }
    let strange = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .filter(|name| !expected.contains(name));
    let strange: Vec<String> = strange.collect();
    if !strange.is_empty() {
        bail!("crds/ holds {} which nothing generates: remove it", strange.join(", "));
    }
    if check && !stale.is_empty() {
        bail!("crds/{} is not what api/ says: run `cargo xtask codegen` and commit", stale.join(", crds/"));
    }
    Ok(())
}
