//! The stand-in application as an image: a configuration and one layer, which go to a registry or into the engine.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::{docker, push};

const SECOND: u64 = 1_000_000_000;

/// The stand-in application as an image.
#[derive(Clone, Debug, Default)]
pub struct Image {
    variables: Vec<(String, String)>,
    healthcheck: bool,
    entrypoint: Option<String>,
    unique: Option<usize>,
}

/// Something that is named by its content.
pub(crate) struct Blob {
    pub digest: String,
    pub content: Vec<u8>,
}

impl Blob {
    pub fn new(content: Vec<u8>) -> Self {
        Self { digest: format!("sha256:{:x}", Sha256::digest(&content)), content }
    }
}

impl Image {
    /// An image whose application answers with `version`.
    pub fn version(version: &str) -> Self {
        Self::default().with("VERSION", version)
    }

    /// Sets a variable: see the stand-in's own documentation.
    #[must_use]
    pub fn with(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Gives the image a healthcheck of its own.
    #[must_use]
    pub fn healthcheck(mut self) -> Self {
        self.healthcheck = true;
        self
    }

    /// Starts another program than the stand-in, which is the only one in the image.
    #[must_use]
    pub fn entrypoint(mut self, program: &str) -> Self {
        self.entrypoint = Some(program.to_owned());
        self
    }

    /// Adds this many random bytes, so that no layer of it is on any host yet.
    #[must_use]
    pub fn unique(mut self, bytes: usize) -> Self {
        self.unique = Some(bytes);
        self
    }

    /// Makes the image under `reference`, in the engine only.
    pub fn build(&self, standin: &Path, reference: &str) -> Result<()> {
        let layer = self.layer(standin)?;
        let folder = tempfile::tempdir()?;
        let names = json!([{"Config": "config.json", "RepoTags": [reference], "Layers": ["layer.tar"]}]);
        std::fs::write(folder.path().join("manifest.json"), names.to_string())?;
        std::fs::write(folder.path().join("config.json"), self.configuration(&layer).to_string())?;
        std::fs::write(folder.path().join("layer.tar"), &layer.content)?;
        let archive = folder.path().join("image.tar");
        let content = tar(&[
            (folder.path(), "manifest.json"),
            (folder.path(), "config.json"),
            (folder.path(), "layer.tar"),
        ])?;
        std::fs::write(&archive, content)?;
        docker(&["load", "--quiet", "--input", archive.to_str().context("a path that is text")?])
    }

    /// Puts the image into the registry that `reference` begins with: who wants it must pull.
    pub fn publish(&self, standin: &Path, reference: &str) -> Result<()> {
        let layer = self.layer(standin)?;
        let configuration = Blob::new(self.configuration(&layer).to_string().into_bytes());
        push::push(reference, &configuration, &layer)
    }

    /// Each call's is another one, as if it were built anew.
    fn configuration(&self, layer: &Blob) -> Value {
        let created = Timestamp::now();
        let variables: Vec<String> =
            self.variables.iter().map(|(name, value)| format!("{name}={value}")).collect();
        let check = json!({
            "Test": ["CMD", "/standin", "health", "--watch"],
            "Interval": SECOND / 5, "Timeout": 60 * SECOND, "Retries": 4,
        });
        json!({
            "created": created, "architecture": architecture(), "os": "linux",
            "config": {
                "Env": variables, "Entrypoint": [self.entrypoint.as_deref().unwrap_or("/standin")], "ExposedPorts": {"8080/tcp": {}},
                "Healthcheck": self.healthcheck.then_some(check),
            },
            "rootfs": {"type": "layers", "diff_ids": [layer.digest]},
            "history": [{"created": created}],
        })
    }

    fn layer(&self, standin: &Path) -> Result<Blob> {
        let folder = standin.parent().map_or_else(|| PathBuf::from("."), Path::to_path_buf);
        let name =
            standin.file_name().and_then(|name| name.to_str()).context("the stand-in has a file name")?;
        let scratch = tempfile::tempdir()?;
        let mut files = vec![(folder.as_path(), name)];
        if let Some(bytes) = self.unique {
            let mut random = vec![0; bytes];
            File::open("/dev/urandom")?.read_exact(&mut random)?;
            std::fs::write(scratch.path().join("stamp"), random)?;
            files.push((scratch.path(), "stamp"));
        }
        tar(&files).map(Blob::new)
    }
}

/// An archive of files, each by its folder and its name there: of the same files always the same.
fn tar(files: &[(&Path, &str)]) -> Result<Vec<u8>> {
    let mut tar = Command::new("tar");
    tar.args(["--numeric-owner", "--owner=0", "--group=0", "--mtime=@0", "-cf", "-"]);
    for (folder, name) in files {
        tar.arg("-C").arg(folder).arg(name);
    }
    let output = tar.stderr(Stdio::inherit()).output().context("tar could not be run")?;
    ensure!(output.status.success(), "tar of {files:?} failed");
    Ok(output.stdout)
}

/// The machine's architecture as images name it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
