//! The staged release: what compose will read once the files are written, resolved before anything is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenantry_api::names::RelativePath;
use tenantry_planner::model::{Model, ModelError, Roots, seen_from_real};
use tenantry_planner::policy::{Demand, Wants};
use tenantry_planner::steps::Checked;
use tenantry_protocol::{ComposeUse, FailureCategory, OperateRequest};

use super::changes::{Becomes, Changes};
use super::context::RequestContext;
use super::error::StepError;
use crate::compose::{Compose, Discovered, inputs, see_through};
use crate::files::{FILE_LIMIT, Found, Stage, Stat, Tree, sha256};
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

/// The compose files that there will be, and every text that the model is read from. Behind a symlink it is the file there
/// that changes; what is read has a plain file in the link's place.
pub fn next_texts(
    request: &OperateRequest,
    tree: &Tree,
    changes: &Changes,
) -> Result<(Discovered, Texts), StepError> {
    let read = |path: &RelativePath| {
        let path = tree.followed(path).map_err(|error| explained(&error))?;
        match changes.content(&path) {
            Becomes::Written(content) => Ok(Some(content.to_vec())),
            Becomes::Gone => Ok(None),
            Becomes::AsItIs => tree.read(&path, FILE_LIMIT).map_err(|error| explained(&error)),
        }
    };
    let discovered = inputs(&request.place, &read)?.ok_or_else(|| no_compose_file(&request.place))?;
    for path in &discovered.named_from_root {
        if !matches!(changes.content(path), Becomes::AsItIs) {
            let message = format!(
                "a compose file names {path} by its path from /, and this release changes it: name it relative to the \
                 tenant's directory, so that it can be checked before it is written"
            );
            return Err(StepError::new(FailureCategory::PathRefused, message));
        }
    }
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
    for folder in discovered.folders.iter().filter(|folder| matches!(tree.stat(folder), Ok(Stat::Folder(_))))
    {
        stage.make_folder(folder)?;
    }
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
    let model = if leaves(&tree, &resolved.json)? {
        from_real(context, compose, &tree, &resolved.json).await?
    } else {
        resolved.model
    };
    Ok(ResolvedStage { tree, model: Arc::new(model), json: resolved.json, compose: in_use })
}

/// Whether a path of the staged model lies outside the staged tree: it was written out from `/`, or climbs by `..` and
/// leads from the tree to somewhere else than from the tenant's directory.
fn leaves(tree: &StagedTree, json: &[u8]) -> Result<bool, StepError> {
    let root = tree.path.display().to_string();
    let as_staged = Model::parse(json, &root, &root).map_err(|error| invalid(&error))?;
    let outside = |demand: &Demand| match &demand.wants {
        Wants::Path { source, .. } | Wants::Read(source) => !Path::new(source).starts_with(&root),
        Wants::Feature(..) | Wants::Never(_) => false,
    };
    Ok(as_staged.demands.iter().any(outside))
}

/// The model with every path as it leads from the tenant's directory, read once more in a tree that lies one folder deeper.
async fn from_real(
    context: &RequestContext,
    compose: &Compose,
    tree: &StagedTree,
    json: &[u8],
) -> Result<Model, StepError> {
    let (real, name, inputs) = (context.tree()?, tree.plan.clone(), tree.discovered.inputs.clone());
    let (from, folders) = (tree.path.clone(), tree.discovered.folders.clone());
    let deeper = context
        .blocking(move || {
            let stage = Stage::deeper(&real, &name)?;
            for folder in folders.iter().filter(|folder| from.join(folder.as_str()).is_dir()) {
                stage.make_folder(folder)?;
            }
            for path in &inputs {
                match std::fs::read(from.join(path.as_str())) {
                    Ok(bytes) => stage.write(path, &bytes)?,
                    Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
                    Err(error) => {
                        let message = format!("the staged {path} can't be read: {error}");
                        return Err(StepError::new(FailureCategory::WriteFailed, message));
                    }
                }
            }
            Ok(stage.path().to_owned())
        })
        .await?;
    let place = &context.request.place;
    let again =
        resolve(&*context.host.runtime, compose, place, &tree.discovered, &deeper, context.log()?).await?;
    let directory = context.directory();
    let (staged, deeper) = (tree.path.display().to_string(), deeper.display().to_string());
    let roots = Roots { staged: &staged, deeper: &deeper, real: directory };
    let settled = seen_from_real(json, &again.json, roots).map_err(|error| invalid(&error))?;
    let mut model = Model::parse(&settled, directory, directory).map_err(|error| invalid(&error))?;
    // What variables hold was asked for already, and what is behind links depends on where paths really lead.
    for (name, service) in &mut model.services {
        service.copied = again.model.services.get(name).map(|known| known.copied.clone()).unwrap_or_default();
    }
    see_through(&mut model, directory);
    Ok(model)
}

fn invalid(error: &ModelError) -> StepError {
    StepError::new(FailureCategory::ComposeInvalid, error.to_string())
}

/// Files in the tenant's directory by hash, as they are now.
pub async fn hashes(context: &RequestContext, paths: Vec<RelativePath>) -> Result<Checked, StepError> {
    let (tree, cache) = (context.tree()?, context.cache.clone());
    context
        .blocking(move || {
            let hash = |path: RelativePath| -> Result<_, StepError> {
                let found = match tree.inspect(&tree.followed(&path)?, &cache.hashes)? {
                    Found::File(seen) => Some(seen.sha256),
                    Found::Missing | Found::Blocked(_) => None,
                };
                Ok((path, found))
            };
            paths.into_iter().map(hash).collect()
        })
        .await
}
