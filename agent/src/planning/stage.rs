//! The staged release: what compose will read once the files are written, resolved before anything is.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenantry_api::names::RelativePath;
use tenantry_planner::model::{Model, ModelError, Roots, seen_from_real};
use tenantry_planner::policy::{Demand, Policy, Wants};
use tenantry_planner::steps::Checked;
use tenantry_protocol::{ComposeUse, FailureCategory, OperateRequest};

use super::changes::{Becomes, Changes};
use super::context::RequestContext;
use super::error::StepError;
use crate::compose::{Compose, Discovered, Outside, inputs, see_through};
use crate::files::{FILE_LIMIT, Found, Layout, Stage, Stat, Tree, read_real, real, sha256};
use crate::observe::{Reader, Texts, explained, no_compose_file, resolve};

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
    policy: &Policy,
) -> Result<(Discovered, Texts), StepError> {
    let read = |path: &RelativePath| {
        let path = tree.followed(path).map_err(|error| explained(&error))?;
        match changes.content(&path) {
            Becomes::Written(content) => Ok(Some(content.to_vec())),
            Becomes::Gone => Ok(None),
            Becomes::AsItIs => tree.read(&path, FILE_LIMIT).map_err(|error| explained(&error)),
        }
    };
    let outside = Reader::Agent(policy).of(&request.place.directory);
    let discovered =
        inputs(&request.place, &read, &outside)?.ok_or_else(|| no_compose_file(&request.place))?;
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
    let stage = Stage::create(tree, &plan, layout(&discovered))?;
    let mut checked = checked_outside(&discovered);
    write_outside(&stage, &discovered.outside)?;
    for folder in discovered.folders.iter().filter(|folder| matches!(tree.stat(folder), Ok(Stat::Folder(_))))
    {
        stage.make_folder(folder)?;
    }
    for path in &discovered.inputs {
        let content = texts.get(path);
        checked.insert(path.to_string(), content.map(|content| sha256(content)));
        if let Some(content) = content {
            stage.write(path, content)?;
        }
    }
    Ok(StagedTree { plan, path: stage.path().to_owned(), discovered, checked })
}

/// How the trees of a release are laid out.
fn layout(discovered: &Discovered) -> Layout {
    if discovered.outside.is_read() { Layout::Root } else { Layout::Directory }
}

/// Copies what compose reads outside of the directory to where a staged compose looks for it: just the text that was judged.
fn write_outside(stage: &Stage, outside: &Outside) -> Result<(), StepError> {
    for folder in outside.folders.iter().filter(|folder| Path::new(folder).is_dir()) {
        stage.make_folder_outside(folder)?;
    }
    for file in &outside.files {
        if let Some(text) = &file.text {
            stage.write_outside(&file.path, text)?;
        }
    }
    Ok(())
}

/// What compose reads outside of the directory, by hash.
pub fn checked_outside(discovered: &Discovered) -> Checked {
    let files = discovered.outside.files.iter();
    files.map(|file| (file.path.clone(), file.text.as_deref().map(sha256))).collect()
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
    let model = if layout(&tree.discovered) == Layout::Root || leaves(&tree, &resolved.json)? {
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
    let (layout, outside) = (layout(&tree.discovered), tree.discovered.outside.clone());
    let deeper = context
        .blocking(move || {
            let stage = Stage::deeper(&real, &name, layout)?;
            write_outside(&stage, &outside)?;
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
    model.demands.extend(tree.discovered.outside.demands());
    Ok(model)
}

fn invalid(error: &ModelError) -> StepError {
    StepError::new(FailureCategory::ComposeInvalid, error.to_string())
}

/// Files in the tenant's directory by hash, as they are now; and those outside of it that are named from `/`.
pub async fn hashes(context: &RequestContext, names: Vec<String>) -> Result<Checked, StepError> {
    let (tree, cache) = (context.tree()?, context.cache.clone());
    context
        .blocking(move || {
            let hash = |name: String| -> Result<_, StepError> {
                if name.starts_with('/') {
                    let found = real(Path::new(&name)).ok().map(|real| read_real(&real, FILE_LIMIT));
                    return Ok((name, found.transpose()?.flatten().map(|text| sha256(&text))));
                }
                let path = RelativePath::parse(&name).map_err(|error| {
                    StepError::new(FailureCategory::AgentFault, format!("{name} in the journal: {error}"))
                })?;
                let found = match tree.inspect(&tree.followed(&path)?, &cache.hashes)? {
                    Found::File(seen) => Some(seen.sha256),
                    Found::Missing | Found::Blocked(_) => None,
                };
                Ok((name, found))
            };
            names.into_iter().map(hash).collect()
        })
        .await
}
