//! The staged tree: what compose will read once the files are written, resolved before anything is.

use std::path::PathBuf;
use std::sync::Arc;

use tenantry_api::names::RelativePath;
use tenantry_planner::model::Model;
use tenantry_planner::steps::Checked;
use tenantry_protocol::{ComposeUse, OperateRequest};

use super::changes::{Becomes, Changes};
use super::driver::Wrong;
use crate::compose::{Compose, Discovered, inputs};
use crate::files::{FILE_LIMIT, Stage, Tree, sha256};
use crate::observe::{explained, no_compose_file, resolve};

/// The release as compose will see it.
pub struct Staged {
    /// Its compose files.
    pub discovered: Discovered,
    /// Its model, with the paths of the real directory.
    pub model: Arc<Model>,
    /// What compose printed for it. It holds secrets.
    pub json: Vec<u8>,
    /// Where the staged tree is.
    pub path: PathBuf,
    /// The compose files, for people.
    pub compose: ComposeUse,
}

/// Writes the staged tree: new content, and copies of every other file that the model is read from.
pub fn stage(
    request: &OperateRequest,
    id: &tenantry_api::names::OperationId,
    tree: &Tree,
    changes: &Changes,
) -> Result<(Discovered, PathBuf, Checked), Wrong> {
    let read = |path: &RelativePath| match changes.content(path) {
        Becomes::Written(content) => Ok(Some(content.to_vec())),
        Becomes::Gone => Ok(None),
        Becomes::AsItIs => tree.read(path, FILE_LIMIT).map_err(|error| explained(&error)),
    };
    let discovered = inputs(&request.place, &read)?.ok_or_else(|| no_compose_file(&request.place))?;
    let stage = Stage::create(tree, id)?;
    let mut checked = Checked::new();
    for path in &discovered.inputs {
        let content = read(path)?;
        checked.insert(path.clone(), content.as_deref().map(sha256));
        if let Some(content) = content {
            stage.write(path, &content)?;
        }
    }
    Ok((discovered, stage.path().to_owned(), checked))
}

/// Has compose resolve the staged tree.
pub async fn resolve_staged(
    compose: &Compose,
    request: &OperateRequest,
    discovered: Discovered,
    path: PathBuf,
    log: PathBuf,
) -> Result<Staged, Wrong> {
    let resolved = resolve(compose, &request.place, &discovered, &path, log).await?;
    let in_use = discovered.in_use(compose, &request.place);
    Ok(Staged { discovered, model: Arc::new(resolved.model), json: resolved.json, path, compose: in_use })
}
