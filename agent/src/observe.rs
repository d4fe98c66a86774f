//! What is on the host: read from disk and from the engine, never from memory of what was last done.
//!
//! An answer is given from the cache only while the engine's event stream is unbroken and silent about the project,
//! our own records are the same, and every file that was looked at has the same inode, size, times and attributes.

mod build;
mod copies;
mod disk;
mod edits;
mod env_meaning;
mod freshness;
mod images;
mod meaning;
mod model;
pub mod other_projects;
mod outside;
mod policy;
mod redaction;
mod resources;
mod variables;

use std::sync::Arc;
use std::time::Duration;

use sha2::Digest as _;
use tenantry_protocol::{ApiError, ErrorCode, Observation, ObserveRequest, ObserveResponse};

pub use build::own;
pub use copies::{Copies, Texts, remove_left};
pub use disk::Disk;
pub use disk::{discovered, edited, explained, file_state, no_compose_file, texts};
pub use freshness::{Contents, freshness};
pub use images::{Located, Origins, edited as with_images, locate, origins};
pub use meaning::meanings;
pub use model::{Resolved, on_disk, resolve};
pub use outside::Reader;
pub use policy::{foreign, lacking, lacking_of};
pub use redaction::{add_env_file, add_secret_file, redactor};
pub use variables::variables;

use crate::compose::links;
use crate::host::{CachedObservation, Host, TenantCache, refused};

/// A cached answer is not believed for longer than this, whatever the stream says.
const CACHE_LIMIT: Duration = Duration::from_mins(5);
/// The most references that are resolved in one call.
pub const MAX_REFERENCES: usize = 256;

/// What is on the host, or that it is as the asker knows it.
pub async fn observe(
    host: &Arc<Host>,
    cache: &Arc<TenantCache>,
    request: ObserveRequest,
) -> Result<ObserveResponse, ApiError> {
    host.allowed(&request.place.directory)?;
    let key = request_key(&request)?;
    if let Some(cached) = still_good(host, cache, &request, key).await? {
        host.metrics.observed(true);
        return counted(host, &request, answer(&request, &cached.hash, || cached.observation.clone())).await;
    }
    host.metrics.observed(false);
    let generation = host.engine.events().generation(request.place.project.as_str());
    let records = cache.records();
    let policy = host.policy.revision();
    let (observation, stamps) = build::observation(host, cache, &request).await?;
    let hash = observation_hash(&observation)?;
    let response = answer(&request, &hash, || observation.clone());
    // Of what other projects do no event is followed.
    let followed = observation.other_projects.is_empty();
    *cache.seen.lock() =
        generation.filter(|_| followed && stamps.are_settled(host.now())).map(|generation| {
            Arc::new(CachedObservation {
                request: key,
                generation,
                records,
                policy,
                stamps,
                made: host.runtime.instant(),
                hash,
                observation,
            })
        });
    counted(host, &request, response).await
}

/// With the edits counted that are asked about. What was seen is the same without: its hash does not speak of it.
async fn counted(
    host: &Arc<Host>,
    request: &ObserveRequest,
    mut answer: ObserveResponse,
) -> Result<ObserveResponse, ApiError> {
    if request.contents.is_empty() {
        return Ok(answer);
    }
    let (shared, directory, contents) =
        (host.clone(), request.place.directory.clone(), request.contents.clone());
    let count = move || {
        if let (ObserveResponse::Seen { observation, .. }, Ok(Some(tree))) =
            (&mut answer, shared.tree(&directory))
        {
            edits::count(observation, &contents, &tree);
        }
        answer
    };
    host.blocking(count).await
}

fn answer(
    request: &ObserveRequest,
    hash: &str,
    observation: impl FnOnce() -> Observation,
) -> ObserveResponse {
    if request.known.as_deref() == Some(hash) {
        return ObserveResponse::Same;
    }
    ObserveResponse::Seen { hash: hash.to_owned(), observation: Box::new(observation()) }
}

async fn still_good(
    host: &Arc<Host>,
    cache: &Arc<TenantCache>,
    request: &ObserveRequest,
    key: [u8; 32],
) -> Result<Option<Arc<CachedObservation>>, ApiError> {
    let Some(cached) = cache.seen.lock().clone() else { return Ok(None) };
    let generation = host.engine.events().generation(request.place.project.as_str());
    let same = cached.request == key
        && host.since(cached.made) < CACHE_LIMIT
        && cached.records == cache.records()
        && cached.policy == host.policy.revision()
        && generation == Some(cached.generation);
    if !same {
        return Ok(None);
    }
    let (shared, directory, held) = (host.clone(), request.place.directory.clone(), cached.clone());
    let model = cache.model.lock().clone();
    let look = move || {
        // Where links of mounts lead is in no stamp: what is mounted need not be a file that was looked at.
        let links_hold = model.is_none_or(|known| known.links == links(&known.model, directory.as_str()));
        links_hold && held.stamps.still_hold(shared.tree(&directory).ok().flatten().as_ref())
    };
    let unchanged = host.blocking(look).await?;
    Ok(unchanged.then_some(cached))
}

/// A digest over all of the request but what the asker knows already.
fn request_key(request: &ObserveRequest) -> Result<[u8; 32], ApiError> {
    let text = serde_json::to_vec(&(&request.tenant.uid, &request.place, &request.manifest));
    let text = text.map_err(|error| refused(ErrorCode::Invalid, "", error.to_string()))?;
    Ok(sha2::Sha256::digest(text).into())
}

fn observation_hash(observation: &Observation) -> Result<String, ApiError> {
    let text = serde_json::to_vec(observation)
        .map_err(|error| refused(ErrorCode::HostFault, "", error.to_string()))?;
    Ok(crate::files::sha256(&text).to_string())
}
