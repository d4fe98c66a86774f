//! The resolved model of what is on disk, read through compose only when its inputs have changed.

use std::ffi::OsString;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tenantry_planner::model::{ImageFrom, Model, variables_told};
use tenantry_process::runtime::Runtime;
use tenantry_protocol::{FailureCategory, Place};

use super::disk::explained;
use super::redaction::redactor;
use crate::compose::{Compose, Discovered, Explained, Links, explain, keep_output, links, see_through};
use crate::engine::Reference;
use crate::files::{Stamps, Tree};
use crate::host::{CachedModel, Host, TenantCache};

/// How long compose may take to resolve a model.
const CONFIG_LIMIT: Duration = Duration::from_mins(1);

/// A resolved model with compose's own words for it.
pub struct Resolved {
    /// The model.
    pub model: Model,
    /// Where its mounts lead by links.
    pub links: Links,
    /// What compose printed. It holds secrets.
    pub json: Vec<u8>,
}

/// The model of what is on disk.
pub async fn on_disk(
    host: &Host,
    cache: &TenantCache,
    compose: &Compose,
    place: &Place,
    discovered: &Discovered,
    log: std::path::PathBuf,
) -> Result<Arc<Model>, Explained> {
    let directory = Path::new(place.directory.as_str());
    // What is remembered was made while the policy granted all that it was read from.
    compose.resolving(discovered, place, directory)?;
    let tree = host.tree(&place.directory).map_err(|error| explained(&error))?;
    let tree = tree.ok_or_else(|| super::disk::no_compose_file(place))?;
    let known = cache.model.lock().clone();
    if let Some(cached) = known
        && cached.place == *place
        && cached.stamps.still_hold(Some(&tree))
        && cached.links == links(&cached.model, place.directory.as_str())
    {
        return Ok(cached.model.clone());
    }
    let stamps = stamps(&tree, discovered)?;
    let resolved = resolve(&*host.runtime, compose, place, discovered, directory, log).await?;
    let model = Arc::new(resolved.model);
    let fresh = CachedModel { place: place.clone(), stamps, links: resolved.links, model: model.clone() };
    *cache.model.lock() = Some(Arc::new(fresh)).filter(|fresh| fresh.stamps.are_settled(host.now()));
    Ok(model)
}

fn stamps(tree: &Tree, discovered: &Discovered) -> Result<Stamps, Explained> {
    let mut stamps = Stamps::of(tree, &discovered.inputs).map_err(|error| explained(&error))?;
    discovered.outside.files.iter().for_each(|file| stamps.outside(&file.path));
    Ok(stamps)
}

/// Has compose resolve the model of the tree at `directory`, which may be a staged one.
pub async fn resolve(
    runtime: &dyn Runtime,
    compose: &Compose,
    place: &Place,
    discovered: &Discovered,
    directory: &Path,
    log: std::path::PathBuf,
) -> Result<Resolved, Explained> {
    let arguments = compose.resolving(discovered, place, directory)?;
    let config_of = |arguments| config(runtime, compose, (directory, discovered), arguments, &log);
    let json = config_of(&arguments).await.map_err(|explained| without_env(explained, discovered, place))?;
    let read_in = directory.display().to_string();
    let mut model = Model::parse(&json, &read_in, place.directory.as_str()).map_err(|error| Explained {
        category: FailureCategory::ComposeInvalid,
        message: error.to_string(),
    })?;
    if let Some(problem) = no_reference(&model) {
        let explained = Explained { category: FailureCategory::ComposeInvalid, message: problem };
        return Err(without_env(explained, discovered, place));
    }
    if model.services.values().any(|service| service.copied.has_variables()) {
        let arguments = Compose::environment_arguments(discovered.arguments(place, directory));
        // A compose before 2.27 can't tell: then it is known which variable is copied, and not what is in it.
        if let Ok(told) = config_of(&arguments).await {
            let variables = variables_told(&String::from_utf8_lossy(&told));
            model.services.values_mut().for_each(|service| service.copied.resolve(&variables));
        }
    }
    model.demands.extend(discovered.outside.demands());
    let links = see_through(&mut model, place.directory.as_str());
    Ok(Resolved { model, links, json })
}

/// What `docker compose config` prints.
async fn config(
    runtime: &dyn Runtime,
    compose: &Compose,
    (directory, discovered): (&Path, &Discovered),
    arguments: &[OsString],
    log: &Path,
) -> Result<Vec<u8>, Explained> {
    let output = compose
        .run(directory, arguments, CONFIG_LIMIT, None)
        .await
        .map_err(|error| Explained { category: FailureCategory::EngineFault, message: error.to_string() })?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let known = redactor(runtime, directory, discovered).await;
    let explained = explain("config", output.status.code(), &output.stderr, &known);
    keep_output(runtime, log.to_owned(), "config".to_owned(), output.stderr).await;
    Err(explained)
}

/// Says which service's image is no reference, as where a variable in it is not set. The reference itself may quote `.env`.
fn no_reference(model: &Model) -> Option<String> {
    let pulled = model.services.iter().filter(|(_, service)| service.image_from == ImageFrom::Registry);
    let bad = pulled.into_iter().find(|(_, service)| Reference::parse(&service.image).is_none())?;
    Some(format!("services.{}.image is no image reference, as where a variable in it is not set", bad.0))
}

/// The same; of a variable that is not set also that there is no `.env`, which is mostly what is wrong then.
fn without_env(explained: Explained, discovered: &Discovered, place: &Place) -> Explained {
    if discovered.env || !explained.message.contains(" variable ") {
        return explained;
    }
    let message = explained.message.trim_end_matches('.').trim_end_matches(", which .env does not set");
    Explained {
        message: format!("{message}. There is no .env in {}: put it back, or make it", place.directory),
        ..explained
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_whose_variables_are_not_set_names_the_service_and_not_the_engine() {
        let model = |image: &str| {
            let json = format!(r#"{{"name": "acme", "services": {{"web": {{"image": "{image}"}}}}}}"#);
            Model::parse(json.as_bytes(), "/srv/acme", "/srv/acme").unwrap()
        };
        assert_eq!(no_reference(&model("127.0.0.1:5000/shop:v1")), None);
        for image in ["127.0.0.1:5000/shop:", "/shop:v1", "shop:v1@"] {
            assert!(no_reference(&model(image)).unwrap().starts_with("services.web.image is no"), "{image}");
        }
    }
}
