//! Copies of what compose reads, for questions to compose about what would be if something in them were another.
//!
//! They lie in the folder of our own records, not in the tenant's: a look changes nothing there. Nobody relies on them, so
//! they are written without a sync and are gone when the last question was answered.

use std::collections::BTreeMap;
use std::fs::{DirBuilder, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;
use tenantry_api::names::RelativePath;
use tenantry_process::runtime::{Runtime, blocking};
use tenantry_protocol::{FailureCategory, Place};

use super::redaction::redactor;
use crate::compose::{Compose, Discovered, Explained, explain};
use crate::host::{Host, OpenPlan};

/// The folder for copies, beneath that of our own records.
const COPIES: &str = "copies";
/// How long compose may take for an answer.
const LIMIT: Duration = Duration::from_mins(1);

/// Contents of files by their path beneath the tenant's directory.
pub type Texts = BTreeMap<RelativePath, Vec<u8>>;

/// Contents of files outside of it by their path from `/`.
pub type OutsideTexts = BTreeMap<String, Vec<u8>>;

/// Which services an answer speaks of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Services {
    /// Those in the profiles that are switched on.
    Selected,
    /// Those of every profile.
    All,
}

/// Copies of what compose reads for one project.
pub struct Copies<'a> {
    runtime: &'a dyn Runtime,
    compose: &'a Compose,
    place: &'a Place,
    /// The compose files among them, and the profiles that are switched on.
    pub discovered: &'a Discovered,
    /// What compose reads as it is.
    pub texts: Texts,
    folder: PathBuf,
    /// Keeps the folder's name ours.
    _name: Option<OpenPlan>,
}

impl<'a> Copies<'a> {
    /// Copies of these contents. Nothing is written before the first question.
    pub fn of(
        host: &'a Host,
        compose: &'a Compose,
        place: &'a Place,
        discovered: &'a Discovered,
        texts: Texts,
    ) -> Self {
        let name = host.plans.open();
        let folder =
            host.config.state_dir.join(COPIES).join(format!("{}-{}", std::process::id(), name.name()));
        Self { runtime: &*host.runtime, compose, place, discovered, texts, folder, _name: Some(name) }
    }

    /// The same in a folder that nobody else uses, for whoever has no records. It is gone with the last question.
    pub fn within(
        folder: PathBuf,
        runtime: &'a dyn Runtime,
        compose: &'a Compose,
        place: &'a Place,
        discovered: &'a Discovered,
        texts: Texts,
    ) -> Self {
        Self { runtime, compose, place, discovered, texts, folder, _name: None }
    }

    /// `.env` as it is; empty where there is none.
    pub fn env(&self) -> &[u8] {
        self.texts.get(&RelativePath::env_file()).map_or(&[], Vec::as_slice)
    }

    /// What compose makes of them with some replaced. It holds secrets.
    pub async fn resolved(&self, replaced: &Texts, services: Services) -> Result<Value, Explained> {
        self.resolved_with(replaced, &OutsideTexts::new(), services).await
    }

    /// The same with some replaced that are read outside of the directory, too.
    pub async fn resolved_with(
        &self,
        replaced: &Texts,
        outside: &OutsideTexts,
        services: Services,
    ) -> Result<Value, Explained> {
        let mut texts = self.texts.clone();
        texts.extend(replaced.iter().map(|(path, text)| (path.clone(), text.clone())));
        let mut discovered = self.discovered.clone();
        discovered.env = texts.contains_key(&RelativePath::env_file());
        if services == Services::All {
            discovered.profiles.push("*".to_owned());
        }
        for file in &mut discovered.outside.files {
            if let Some(text) = outside.get(&file.path) {
                file.text = Some(text.clone());
            }
        }
        let layout = self.layout();
        let project = layout.root.clone();
        let wanted = discovered.clone();
        let written = blocking(self.runtime, move || layout.write(&wanted, &texts)).await;
        match written {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let message = format!("what compose reads can't be copied to {}: {error}", project.display());
                return Err(Explained { category: FailureCategory::DiskFull, message });
            }
            Err(_) => return Err(fault("the agent met a fault of its own; its log says more".to_owned())),
        }
        let arguments = self.compose.resolving(&discovered, self.place, &project)?;
        let output = self.compose.run(&project, &arguments, LIMIT, None).await;
        let output = output.map_err(|error| fault(error.to_string()))?;
        if !output.status.success() {
            let known = redactor(self.runtime, &project, &discovered).await;
            return Err(explain("config", output.status.code(), &output.stderr, &known));
        }
        serde_json::from_slice(&output.stdout).map_err(|error| {
            let message = format!("compose's resolved model does not decode at line {}", error.line());
            Explained { category: FailureCategory::ComposeInvalid, message }
        })
    }
}

/// Where the copies lie.
struct Layout {
    /// All of them.
    folder: PathBuf,
    /// What stands for `/`, where anything outside of the tenant's directory is read.
    top: Option<PathBuf>,
    /// What stands for the tenant's directory.
    root: PathBuf,
}

impl Copies<'_> {
    fn layout(&self) -> Layout {
        let (folder, directory) = (self.folder.clone(), &self.place.directory);
        if self.discovered.outside.is_read() {
            let top = folder.join("root");
            let root = top.join(directory.as_str().trim_start_matches('/'));
            return Layout { folder, top: Some(top), root };
        }
        Layout { root: folder.join(directory.base_name()), top: None, folder }
    }
}

fn fault(message: String) -> Explained {
    Explained { category: FailureCategory::EngineFault, message }
}

impl Drop for Copies<'_> {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.folder) {
            tracing::warn!(folder = %self.folder.display(), %error, "copies of compose files can't be removed");
        }
    }
}

/// Removes copies that an agent left which was killed over a question.
pub fn remove_left(state_dir: &Path) -> io::Result<()> {
    remove(&state_dir.join(COPIES))
}

/// Removes a folder that may be gone already.
fn remove(folder: &Path) -> io::Result<()> {
    match std::fs::remove_dir_all(folder) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

impl Layout {
    /// Writes files anew, for our own eyes only: `.env` holds secrets.
    fn write(&self, discovered: &Discovered, texts: &Texts) -> io::Result<()> {
        remove(&self.folder)?;
        make(&self.root)?;
        discovered.folders.iter().try_for_each(|folder| make(&self.root.join(folder.as_str())))?;
        for (path, text) in texts {
            write(&self.root.join(path.as_str()), text)?;
        }
        let Some(top) = &self.top else { return Ok(()) };
        let within = |path: &str| top.join(path.trim_start_matches('/'));
        discovered.outside.folders.iter().try_for_each(|folder| make(&within(folder)))?;
        let files = discovered.outside.files.iter();
        files
            .filter_map(|file| Some((&file.path, file.text.as_ref()?)))
            .try_for_each(|(path, text)| write(&within(path), text))
    }
}

fn make(folder: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(folder)
}

fn write(at: &Path, text: &[u8]) -> io::Result<()> {
    at.parent().map_or(Ok(()), make)?;
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(at)?.write_all(text)
}
