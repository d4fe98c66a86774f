//! Images: what is local, what a registry has, and tags by name.

use std::collections::HashMap;

use bollard::models::CreateImageInfo;
use bollard::query_parameters::{CreateImageOptions, ListImagesOptions, RemoveImageOptions, TagImageOptions};
use futures::StreamExt as _;

use super::{DockerEngine, EngineError, Reference, crash_points, credentials, gone_is_fine, limited};

/// An image that is local.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Image {
    /// Its id.
    pub id: String,
    /// Its names with tags.
    pub tags: Vec<String>,
    /// Its names with the digests that registries gave it.
    pub repo_digests: Vec<String>,
}

impl Image {
    /// The digest that the repository of `reference` gave it, or else any digest that it has.
    pub fn repo_digest(&self, reference: &str) -> Option<String> {
        let repository = Reference::parse(reference).map(|reference| reference.repository);
        let split = || self.repo_digests.iter().filter_map(|name| name.split_once('@'));
        let own = split().find(|(name, _)| Some(*name) == repository.as_deref());
        own.or_else(|| split().next()).map(|(_, digest)| digest.to_owned())
    }
}

/// How far a pull is, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PullProgress {
    /// Bytes that have come.
    pub done: u64,
    /// Bytes in all, as far as is known.
    pub total: u64,
}

impl DockerEngine {
    /// A local image as it is known, asked for only where something about images has changed since.
    pub async fn known_image(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let moment = self.events.images();
        if let Some(known) = self.images.get(name, moment) {
            return Ok(known);
        }
        let image = self.image(name).await?;
        self.images.put(name, moment, &image);
        Ok(image)
    }

    /// A local image by id or reference; `None` where there is none.
    pub async fn image(&self, name: &str) -> Result<Option<Image>, EngineError> {
        let ask = |docker: bollard::Docker| async move { docker.inspect_image(name).await };
        match self.read("look at an image", ask).await {
            Ok(seen) => Ok(Some(Image {
                id: seen.id.unwrap_or_default(),
                tags: seen.repo_tags.unwrap_or_default(),
                repo_digests: seen.repo_digests.unwrap_or_default(),
            })),
            Err(error) if error.is_missing() => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The digest that a reference points to in its registry now.
    pub async fn remote_digest(&self, reference: &str) -> Result<String, EngineError> {
        let doing = format!("ask the registry about {reference}");
        let credentials = credentials::for_reference(reference).await;
        let ask = |docker: bollard::Docker| async move {
            docker.inspect_registry_image(reference, credentials).await
        };
        let answer = self.call(&doing, self.limits.registry, ask).await?;
        let missing =
            EngineError::Refused { doing, status: 0, message: "the answer has no digest".to_owned() };
        answer.descriptor.digest.ok_or(missing)
    }

    /// Pulls a repository's image by digest. `progress` is told of every step.
    pub async fn pull(
        &self,
        repository: &str,
        digest: &str,
        progress: &mut (dyn FnMut(PullProgress) + Send),
    ) -> Result<(), EngineError> {
        let name = format!("{repository}@{digest}");
        let doing = format!("pull {name}");
        let credentials = credentials::for_reference(repository).await;
        let options = CreateImageOptions { from_image: Some(name), ..Default::default() };
        let docker = self.client().await?;
        crash_points::at(&doing, "before");
        let mut stream = Box::pin(docker.create_image(Some(options), None, credentials));
        let mut layers = Layers::default();
        let work = async {
            loop {
                let Some(step) = limited(&doing, self.limits.silence, stream.next()).await? else {
                    return Ok(());
                };
                let step = step.map_err(|error| EngineError::from_bollard(&doing, &self.socket, error))?;
                if let Some(message) = step.error_detail.as_ref().and_then(|detail| detail.message.clone()) {
                    return Err(EngineError::Refused { doing: doing.clone(), status: 0, message });
                }
                layers.take(&step);
                crash_points::at(&doing, "meanwhile");
                progress(layers.sum());
            }
        };
        let pulled = limited(&doing, self.limits.pull, work).await?;
        crash_points::at(&doing, "after");
        pulled
    }

    /// Gives an image one more name.
    pub async fn tag(&self, image: &str, repository: &str, tag: &str) -> Result<(), EngineError> {
        let options = TagImageOptions { repo: Some(repository.to_owned()), tag: Some(tag.to_owned()) };
        let ask = |docker: bollard::Docker| async move { docker.tag_image(image, Some(options)).await };
        self.read(&format!("tag an image as {repository}:{tag}"), ask).await
    }

    /// Takes a name away. The image goes with its last name, unless a container uses it.
    pub async fn untag(&self, name: &str) -> Result<(), EngineError> {
        let options = RemoveImageOptions { force: false, noprune: false, ..Default::default() };
        let ask = |docker: bollard::Docker| async move {
            docker.remove_image(name, Some(options), None).await.map(|_| ())
        };
        gone_is_fine(self.read(&format!("remove the tag {name}"), ask).await)
    }

    /// Every tag of a local repository.
    pub async fn tags_of(&self, repository: &str) -> Result<Vec<String>, EngineError> {
        let prefix = format!("{repository}:");
        let names = self.names_like(repository).await?;
        Ok(names.iter().filter_map(|name| name.strip_prefix(&prefix).map(str::to_owned)).collect())
    }

    /// Every name, with its tag, of local repositories that are called so; `*` stands for anything but a slash.
    pub async fn names_like(&self, repositories: &str) -> Result<Vec<String>, EngineError> {
        let filters = HashMap::from([("reference".to_owned(), vec![repositories.to_owned()])]);
        let options = ListImagesOptions { filters: Some(filters), ..Default::default() };
        let ask = |docker: bollard::Docker| async move { docker.list_images(Some(options)).await };
        let images = self.read("list images", ask).await?;
        Ok(images.into_iter().flat_map(|image| image.repo_tags).collect())
    }
}

/// Bytes of each layer by its id.
#[derive(Default)]
struct Layers(HashMap<String, PullProgress>);

impl Layers {
    fn take(&mut self, step: &CreateImageInfo) {
        let Some(id) = &step.id else { return };
        let number = |value: Option<i64>| value.and_then(|value| u64::try_from(value).ok());
        let detail = step.progress_detail.as_ref();
        let layer = self.0.entry(id.clone()).or_default();
        match step.status.as_deref() {
            Some("Downloading") => {
                layer.done = detail.and_then(|d| number(d.current)).unwrap_or(layer.done);
                layer.total = detail.and_then(|d| number(d.total)).unwrap_or(layer.total).max(layer.done);
            }
            Some("Download complete" | "Pull complete" | "Extracting") => layer.done = layer.total,
            _ => {}
        }
    }

    fn sum(&self) -> PullProgress {
        self.0.values().fold(PullProgress::default(), |sum, layer| PullProgress {
            done: sum.done + layer.done,
            total: sum.total + layer.total,
        })
    }
}
