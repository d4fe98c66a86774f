//! The staged release: what compose will read once the files are written, resolved before anything is.

use std::path::PathBuf;
use std::sync::Arc;

use tenantry_api::names::RelativePath;
use tenantry_planner::model::Model;
use tenantry_planner::steps::Checked;
use tenantry_protocol::{ComposeUse, OperateRequest};

use super::changes::{Becomes, Changes};
use super::context::RequestContext;
use super::error::StepError;
use crate::compose::{Compose, Discovered, inputs};
use crate::files::{FILE_LIMIT, Found, Stage, Tree, sha256};
use crate::observe::{Texts, explained, no_compose_file, resolve};

/// A release that was planned, as compose will see it once its files are written.
pub struct StagedRelease {
    /// Its compose files.
    pub discovered: Discovered,
    /// Its model, with the paths of the real directory.
    pub model: Arc<Model>,
}

/// A tree of staged files that compose has not read yet.
pub struct StagedTree {
    /// What the plan calls it.
    pub plan: String,
    /// Where it is.
    pub path: PathBuf,
    /// The compose files in it.
    pub discovered: Discovered,
    /// Everything that compose will read, by hash.
    pub checked: Checked,
}

/// A staged tree, and what compose makes of it.
pub struct ResolvedStage {
    /// The tree.
    pub tree: StagedTree,
    /// Its model, with the paths of the real directory.
    pub model: Arc<Model>,
    /// What compose printed for the model. It holds secrets.
    pub json: Vec<u8>,
    /// The compose files, for people.
    pub compose: ComposeUse,
}

impl ResolvedStage {
    /// What is left of the stage once its tree is gone.
    pub fn into_release(self) -> StagedRelease {
        StagedRelease { discovered: self.tree.discovered, model: self.model }
    }
}

/// The compose files that there will be, and every text that the model is read from.
pub fn next_texts(
    request: &OperateRequest,
    tree: &Tree,
    changes: &Changes,
) -> Result<(Discovered, Texts), StepError> {
    let read = |path: &RelativePath| match changes.content(path) {
        Becomes::Written(content) => Ok(Some(content.to_vec())),
        Becomes::Gone => Ok(None),
        Becomes::AsItIs => tree.read(path, FILE_LIMIT).map_err(|error| explained(&error)),
    };
    let discovered = inputs(&request.place, &read)?.ok_or_else(|| no_compose_file(&request.place))?;
    let mut texts = Texts::new();
    for path in &discovered.inputs {
        texts.extend(read(path)?.map(|text| (path.clone(), text)));
    }
    Ok((discovered, texts))
}

/// Writes a staged tree: copies of everything that the model is read from, as it will be.
pub fn stage(
    plan: String,
    tree: &Tree,
    discovered: Discovered,
    texts: &Texts,
) -> Result<StagedTree, StepError> {
    let stage = Stage::create(tree, &plan)?;
    let mut checked = Checked::new();
    for path in &discovered.inputs {
        let content = texts.get(path);
        checked.insert(path.clone(), content.map(|content| sha256(content)));
        if let Some(content) = content {
            stage.write(path, content)?;
        }
    }
    Ok(StagedTree { plan, path: stage.path().to_owned(), discovered, checked })
}

/// Has compose resolve a staged tree.
pub async fn resolve_stage(
    context: &RequestContext,
    compose: &Compose,
    tree: StagedTree,
) -> Result<ResolvedStage, StepError> {
    let place = &context.request.place;
    let resolved =
        resolve(&*context.host.runtime, compose, place, &tree.discovered, &tree.path, context.log()?).await?;
    let in_use = tree.discovered.in_use(compose, place);
    Ok(ResolvedStage { tree, model: Arc::new(resolved.model), json: resolved.json, compose: in_use })
}

/// Files in the tenant's directory by hash, as they are now.
pub async fn hashes(context: &RequestContext, paths: Vec<RelativePath>) -> Result<Checked, StepError> {
    let (tree, cache) = (context.tree()?, context.cache.clone());
    context
        .blocking(move || {
            let hash = |path: RelativePath| -> Result<_, StepError> {
                let found = match tree.inspect(&path, &cache.hashes)? {
                    Found::File(seen) => Some(seen.sha256),
                    Found::Missing | Found::Blocked(_) => None,
                };
                Ok((path, found))
            };
            paths.into_iter().map(hash).collect()
        })
        .await
}
