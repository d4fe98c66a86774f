//! Images go into a registry by its own interface: an engine in between would unpack, pack and remove each of them.

use anyhow::{Context as _, Result, bail};
use reqwest::header::{CONTENT_TYPE, LOCATION};
use reqwest::{Client, Response, StatusCode, Url};
use serde_json::{Value, json};

use crate::image::Blob;

const MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";
const CONFIGURATION: &str = "application/vnd.docker.container.image.v1+json";
const LAYER: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// Puts an image of one layer under `host:port/repository:tag`.
pub(crate) fn push(reference: &str, configuration: &Blob, layer: &Blob) -> Result<()> {
    let (name, tag) = reference.rsplit_once(':').context("a tag")?;
    let (address, repository) = name.split_once('/').context("a registry's address")?;
    let top = format!("http://{address}/v2/{repository}");
    let work = async {
        let client = Client::builder().no_proxy().build()?;
        upload(&client, &top, layer).await?;
        upload(&client, &top, configuration).await?;
        let manifest = manifest(configuration, layer).to_string();
        let put = client.put(format!("{top}/manifests/{tag}")).header(CONTENT_TYPE, MANIFEST).body(manifest);
        succeeded(put.send().await?, "manifest").await.map(drop)
    };
    // Whoever calls may be in a runtime, and can't wait for another one there.
    let apart = || tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(work);
    let ended = std::thread::scope(|scope| scope.spawn(apart).join());
    ended.unwrap_or_else(|_| bail!("a panic")).with_context(|| format!("{reference} could not be pushed"))
}

/// Puts a blob into a repository that does not have it.
async fn upload(client: &Client, top: &str, blob: &Blob) -> Result<()> {
    let known = client.head(format!("{top}/blobs/{}", blob.digest)).send().await?;
    if known.status() == StatusCode::OK {
        return Ok(());
    }
    let begun = succeeded(client.post(format!("{top}/blobs/uploads/")).send().await?, "upload").await?;
    let place = begun.headers().get(LOCATION).context("where a blob is to be put")?.to_str()?;
    let mut place: Url = begun.url().join(place)?;
    place.query_pairs_mut().append_pair("digest", &blob.digest);
    succeeded(client.put(place).body(blob.content.clone()).send().await?, "blob").await.map(drop)
}

fn manifest(configuration: &Blob, layer: &Blob) -> Value {
    let named = |kind: &str, blob: &Blob| json!({"mediaType": kind, "size": blob.content.len(), "digest": blob.digest});
    json!({
        "schemaVersion": 2, "mediaType": MANIFEST,
        "config": named(CONFIGURATION, configuration), "layers": [named(LAYER, layer)],
    })
}

async fn succeeded(answer: Response, what: &str) -> Result<Response> {
    let status = answer.status();
    if status.is_success() {
        return Ok(answer);
    }
    bail!("{what}: the registry answers {status}: {}", answer.text().await?)
}
