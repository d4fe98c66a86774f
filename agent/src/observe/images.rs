//! Where the compose files write out the images that `spec.images` means, found by asking compose: in copies of the files
//! every image is marked, and the marks in the resolved model say which service's image comes from where, through
//! override files, `include`, `extends`, merges and anchors alike.

use std::collections::BTreeMap;

use serde_json::Value;
use tenantry_api::names::{RelativePath, ServiceName};
use tenantry_planner::images::choose::{Chosen, Origin, Scalar, choose};
use tenantry_planner::images::edit::replace;
use tenantry_planner::images::scalars::image_scalars;
use tenantry_planner::steps::ImageEdit;
use tenantry_protocol::{FailureCategory, Manifest};

use super::copies::{Copies, OutsideTexts, Services, Texts};
use crate::compose::{Explained, OutsideFile};

/// What is to be written for `spec.images`, and the model without it.
pub struct Located {
    /// What is to be written.
    pub chosen: Chosen,
    /// The resolved model as it is without that, of all services. It holds secrets.
    model: Value,
    /// Which services the model is of.
    services: Services,
}

/// Where the image of each service comes from.
pub struct Origins {
    /// Every image that the compose files write out.
    pub scalars: Vec<Scalar>,
    /// Those that compose files outside of the tenant's directory write out.
    pub outside: Vec<OutsideScalar>,
    /// The services that have one.
    pub services: BTreeMap<ServiceName, Origin>,
    /// The resolved model, of all services where compose can read them. It holds secrets.
    pub model: Value,
    /// Which services the model is of.
    pub of: Services,
}

/// A scalar of a compose file outside of the tenant's directory that an image can come from.
pub struct OutsideScalar {
    /// The file, from `/`.
    path: String,
    number: usize,
    line: u32,
    /// What is written there, with the variables in it.
    pub text: String,
}

/// Finds what is to be written.
pub async fn locate(copies: &Copies<'_>, manifest: &Manifest) -> Result<Located, Explained> {
    let managed: Vec<&RelativePath> = manifest.files.iter().map(|file| &file.path).collect();
    let Origins { scalars, services: origins, model, of, .. } = origins(copies, &managed).await?;
    let chosen = choose(&manifest.images, &scalars, &origins);
    Ok(Located { chosen, model, services: of })
}

/// Asks compose where the image of each service comes from; a bundle renders the managed files.
pub async fn origins(copies: &Copies<'_>, managed: &[&RelativePath]) -> Result<Origins, Explained> {
    let scalars = scalars(copies, managed)?;
    let outside = outside_scalars(copies);
    // A service that no profile switches on may be one that compose can't read.
    let (services, model) = match copies.resolved(&Texts::new(), Services::All).await {
        Ok(model) => (Services::All, model),
        Err(_) => (Services::Selected, copies.resolved(&Texts::new(), Services::Selected).await?),
    };
    let marked = (marked(&copies.texts, &scalars)?, marked_outside(copies, &outside));
    let marked = copies.resolved_with(&marked.0, &marked.1, services).await?;
    let mut origins = BTreeMap::new();
    for (name, service) in model["services"].as_object().into_iter().flatten() {
        let (Ok(name), Some(reference)) = (ServiceName::parse(name.as_str()), service["image"].as_str())
        else {
            continue;
        };
        let mark = marked["services"][name.as_str()]["image"].as_str().unwrap_or_default();
        let scalar = number(mark, MARK);
        let elsewhere = number(mark, MARK_OUTSIDE).and_then(|at| outside.get(at));
        let elsewhere = elsewhere.map(|scalar| (scalar.path.clone(), scalar.line));
        let selected = services == Services::Selected || is_selected(service, copies);
        origins
            .insert(name, Origin { reference: reference.to_owned(), scalar, outside: elsewhere, selected });
    }
    Ok(Origins { scalars, outside, services: origins, model, of: services })
}

impl Located {
    /// Proves by compose itself that with what is to be written the model has these images and is the same in all else.
    pub async fn prove(&self, copies: &Copies<'_>) -> Result<(), Explained> {
        if self.chosen.edits.is_empty() {
            return Ok(());
        }
        let written = edited(&self.chosen.edits, |path| copies.texts.get(path).cloned().unwrap_or_default())?;
        let becomes = copies.resolved(&written, self.services).await?;
        if self.chosen.is_all(&self.model, becomes) {
            return Ok(());
        }
        let files: Vec<String> = written.keys().map(ToString::to_string).collect();
        let message = format!(
            "with the images of spec.images written to {}, compose would read more than these images otherwise; nothing \
             was written. Write them there by hand",
            files.join(", ")
        );
        Err(Explained { category: FailureCategory::ComposeInvalid, message })
    }
}

/// The files that change, as they become.
pub fn edited(edits: &[ImageEdit], text: impl Fn(&RelativePath) -> Vec<u8>) -> Result<Texts, Explained> {
    let mut by_file: BTreeMap<&RelativePath, Vec<(usize, String)>> = BTreeMap::new();
    for edit in edits {
        by_file.entry(&edit.path).or_default().push((edit.scalar, edit.text.clone()));
    }
    let edited = |(path, edits): (&RelativePath, Vec<(usize, String)>)| {
        let text = replace(&text(path), &edits).map_err(|problem| invalid(path, &problem.to_string()))?;
        Ok((path.clone(), text))
    };
    by_file.into_iter().map(edited).collect()
}

/// Whether a service is in a profile that is switched on.
fn is_selected(service: &Value, copies: &Copies<'_>) -> bool {
    let on =
        |profile: &Value| copies.discovered.profiles.iter().any(|on| profile.as_str() == Some(on.as_str()));
    service["profiles"].as_array().is_none_or(|profiles| profiles.is_empty() || profiles.iter().any(on))
}

/// Every image that the compose files write out.
fn scalars(copies: &Copies<'_>, managed: &[&RelativePath]) -> Result<Vec<Scalar>, Explained> {
    let mut all = Vec::new();
    for path in &copies.discovered.compose_files {
        let Some(text) = copies.texts.get(path) else { continue };
        let managed = managed.contains(&path);
        let found = image_scalars(text).map_err(|problem| invalid(path, &problem.to_string()))?;
        all.extend(found.into_iter().enumerate().map(|(number, scalar)| Scalar {
            path: path.clone(),
            number,
            line: scalar.line,
            text: scalar.value,
            managed,
            also_at: scalar.also_at,
        }));
    }
    Ok(all)
}

/// Every image that the compose files outside of the tenant's directory write out. One that we can't read says none.
fn outside_scalars(copies: &Copies<'_>) -> Vec<OutsideScalar> {
    let mut all = Vec::new();
    for file in copies.discovered.outside.files.iter().filter(|file| file.compose) {
        let found = file.text.as_deref().map(image_scalars).and_then(Result::ok).unwrap_or_default();
        all.extend(found.into_iter().enumerate().map(|(number, scalar)| OutsideScalar {
            path: file.path.clone(),
            number,
            line: scalar.line,
            text: scalar.value,
        }));
    }
    all
}

/// Those files with every image marked by its place in the list. What compose reads by its path from `/` can't be marked.
fn marked_outside(copies: &Copies<'_>, scalars: &[OutsideScalar]) -> OutsideTexts {
    let mark = |file: &&OutsideFile| {
        let own = scalars.iter().enumerate().filter(|(_, scalar)| scalar.path == file.path);
        let edits: Vec<(usize, String)> =
            own.map(|(at, scalar)| (scalar.number, format!("{MARK_OUTSIDE}{at}"))).collect();
        Some((file.path.clone(), replace(file.text.as_deref()?, &edits).ok()?))
    };
    let files = copies.discovered.outside.files.iter().filter(|file| file.compose && !file.from_root);
    files.filter_map(|file| mark(&file)).collect()
}

const MARK: &str = "tenantry.invalid/image-";
const MARK_OUTSIDE: &str = "tenantry.invalid/outside-";

/// The files with every image marked by its place in the list.
fn marked(texts: &Texts, scalars: &[Scalar]) -> Result<Texts, Explained> {
    let mark = |(at, scalar): (usize, &Scalar)| ImageEdit {
        path: scalar.path.clone(),
        scalar: scalar.number,
        text: format!("{MARK}{at}"),
    };
    // A text that something else uses, too, is never written.
    let own = scalars.iter().enumerate().filter(|(_, scalar)| scalar.also_at.is_none());
    let edits: Vec<ImageEdit> = own.map(mark).collect();
    edited(&edits, |path| texts.get(path).cloned().unwrap_or_default())
}

fn number(marked: &str, mark: &str) -> Option<usize> {
    marked.strip_prefix(mark)?.parse().ok()
}

fn invalid(path: &RelativePath, problem: &str) -> Explained {
    Explained { category: FailureCategory::ComposeInvalid, message: format!("{path}: {problem}") }
}

/// What keeps entries from being written, by their number; the same for all where compose can't be asked.
pub async fn problems(copies: &Copies<'_>, manifest: &Manifest) -> BTreeMap<usize, String> {
    match locate(copies, manifest).await {
        Ok(located) => located.chosen.problems,
        Err(problem) => (0..manifest.images.len()).map(|at| (at, problem.message.clone())).collect(),
    }
}
