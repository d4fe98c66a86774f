//! Compose projects as they are on this host, for whoever wants to make Tenants of them: read as an agent reads them, with
//! no agent, no certificate and no record. Nothing is changed.
//!
//! What compose reads is copied to a temporary folder for questions to compose; the folder is gone when the survey is.

mod choice;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tenantry_api::names::{Directory, NameError, ProjectName, RelativePath, ServiceName};
use tenantry_planner::images::proposal::{FoundService, FoundVariable, WrittenAt};
use tenantry_planner::model::Model;
use tenantry_process::runtime::TokioRuntime;
use tenantry_protocol::{ComposeUse, Place};

use crate::compose::{Compose, ComposeError, Discovered, Explained, Programs};
use crate::engine::{ComposeContainer, DockerEngine, EngineError};
use crate::files::{DiskIo, FilesError, Tree};
use crate::limits::Limits;
use crate::observe::{
    Copies, Origins, Reader, discovered, no_compose_file, origins, resolve, texts, variables,
};

/// A name for questions that come before the project's own is known.
const UNNAMED: &str = "unnamed";

/// Reads compose projects on this host.
pub struct Survey {
    compose: Compose,
    containers: Vec<ComposeContainer>,
    engine_problem: Option<EngineError>,
    folder: tempfile::TempDir,
}

/// A project that was read.
pub struct Project {
    /// Where it is, and under which name.
    pub place: Place,
    /// The compose files and profiles in use.
    pub compose: ComposeUse,
    /// Every file that is read as a compose file: those in use, and what they include and extend.
    pub compose_files: Vec<RelativePath>,
    /// The resolved model.
    pub model: Model,
    /// Each selected service and where its image is written.
    pub services: Vec<FoundService>,
    /// The variables that versions of images depend on.
    pub variables: Vec<FoundVariable>,
    /// Its containers, from whatever directory they were made.
    pub containers: Vec<ComposeContainer>,
    /// What a person should know before it is taken over, a sentence each.
    pub cautions: Vec<String>,
}

/// A project that the engine has containers of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listed {
    /// The project's name.
    pub project: String,
    /// The directories that its containers were made from.
    pub directories: BTreeSet<String>,
    /// How many containers of it run.
    pub running: usize,
    /// How many it has.
    pub containers: usize,
}

/// Why a project could not be read.
#[derive(Debug, thiserror::Error)]
pub enum SurveyError {
    /// There is no compose that may be used.
    #[error(transparent)]
    Compose(#[from] ComposeError),
    /// The directory can't be looked at.
    #[error("{}: {source}", path.display())]
    Directory {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// No tenant can live there.
    #[error(transparent)]
    Name(#[from] NameError),
    /// A file in it can't be read.
    #[error(transparent)]
    Files(#[from] FilesError),
    /// There is no compose file in it.
    #[error("{}", .0.message)]
    NoProject(Explained),
    /// Compose can't read it, or may not.
    #[error("{}", .0.message)]
    Unreadable(Explained),
    /// Its name can't be told.
    #[error("compose takes {0:?} for the project's name, which is none: give it with --project")]
    NoName(String),
    /// The folder for copies can't be made.
    #[error("a temporary folder can't be made: {0}")]
    Folder(std::io::Error),
}

impl From<Explained> for SurveyError {
    fn from(problem: Explained) -> Self {
        Self::Unreadable(problem)
    }
}

impl Survey {
    /// Finds compose, and what compose has made so far; an engine that does not answer is told by [`Self::engine_problem`].
    pub async fn new(docker_host: &str) -> Result<Self, SurveyError> {
        let engine = DockerEngine::new(docker_host, Limits::default());
        let launcher = Arc::new(Programs::new(docker_host));
        let (compose, listed) = tokio::join!(Compose::find(launcher), engine.compose_containers());
        let (containers, engine_problem) = match listed {
            Ok(containers) => (containers, None),
            Err(problem) => (Vec::new(), Some(problem)),
        };
        let folder = tempfile::Builder::new().prefix("tenantry-").tempdir().map_err(SurveyError::Folder)?;
        Ok(Self { compose: compose?, containers, engine_problem, folder })
    }

    /// Why nothing is known of what runs.
    pub fn engine_problem(&self) -> Option<&EngineError> {
        self.engine_problem.as_ref()
    }

    /// The projects that the engine has containers of, by name.
    pub fn projects(&self) -> Vec<Listed> {
        let mut found: BTreeMap<&str, Listed> = BTreeMap::new();
        for container in &self.containers {
            let new = || Listed {
                project: container.project.clone(),
                directories: BTreeSet::new(),
                running: 0,
                containers: 0,
            };
            let listed = found.entry(&container.project).or_insert_with(new);
            listed.containers += 1;
            listed.running += usize::from(container.running);
            if !container.directory.is_empty() {
                listed.directories.insert(container.directory.clone());
            }
        }
        found.into_values().collect()
    }

    /// Reads the project in a directory. Its name is what its containers say, or else what plain compose would choose.
    pub async fn read(&self, directory: &Path, name: Option<&ProjectName>) -> Result<Project, SurveyError> {
        let at = |source| SurveyError::Directory { path: directory.to_owned(), source };
        let real = std::fs::canonicalize(directory).map_err(at)?;
        let directory = Directory::parse(real.display().to_string())?;
        let tree = Tree::open(&real, DiskIo::default())?;
        let mut place = Place {
            project: match name {
                Some(name) => name.clone(),
                None => ProjectName::parse(UNNAMED)?,
            },
            directory,
            compose: None,
        };
        let plain = discovered(&tree, &place, Reader::Person)?;
        if name.is_none() {
            place.project = self.name(&place, &real, plain.as_ref()).await?;
        }
        let containers: Vec<ComposeContainer> =
            self.containers.iter().filter(|one| one.project == place.project.as_str()).cloned().collect();
        place.compose = choice::files(plain.as_ref(), &place, &containers);
        let mut discovered = present(&tree, &place)?;
        let of = (&tree, &place);
        let (mut model, mut found) = self.look(of, &discovered, &real).await?;
        if let Some(with_profiles) = choice::profiles(&found.model, &discovered, &place, &containers) {
            place.compose = Some(with_profiles);
            discovered = present(&tree, &place)?;
            (model, found) = self.look((&tree, &place), &discovered, &real).await?;
        }
        let texts = texts(&tree, &discovered)?;
        let variables = variables(&self.copies(&place, &discovered, texts), &found).await;
        let cautions = choice::cautions(&place, &model, &containers);
        Ok(Project {
            compose: discovered.in_use(&self.compose, &place),
            services: services(&model, &found),
            compose_files: discovered.compose_files.clone(),
            place,
            model,
            variables,
            containers,
            cautions,
        })
    }

    fn copies<'a>(
        &'a self,
        place: &'a Place,
        discovered: &'a Discovered,
        texts: crate::observe::Texts,
    ) -> Copies<'a> {
        let folder = self.folder.path().join(place.project.as_str());
        Copies::within(folder, &TokioRuntime, &self.compose, place, discovered, texts)
    }

    /// The model, and where its images come from.
    async fn look(
        &self,
        (tree, place): (&Tree, &Place),
        discovered: &Discovered,
        real: &Path,
    ) -> Result<(Model, Origins), SurveyError> {
        let copies = self.copies(place, discovered, texts(tree, discovered)?);
        let log = self.folder.path().join("compose.log");
        let resolved = resolve(&TokioRuntime, &self.compose, place, discovered, real, log.clone());
        let (resolved, found) = tokio::join!(resolved, origins(&copies, &[]));
        let said = |problem: Explained| {
            // Whoever asks is on the host and may read what compose said.
            let said = std::fs::read_to_string(&log).unwrap_or_default();
            let said =
                said.lines().filter(|line| !line.starts_with("--- ")).map(|line| format!("\n  {line}"));
            let said: String = said.collect();
            SurveyError::Unreadable(Explained { message: format!("{}{said}", problem.message), ..problem })
        };
        Ok((resolved.map_err(said)?.model, found?))
    }

    async fn name(
        &self,
        place: &Place,
        real: &Path,
        plain: Option<&Discovered>,
    ) -> Result<ProjectName, SurveyError> {
        let made_here = |one: &&ComposeContainer| one.is_from(real);
        let named: BTreeSet<&str> =
            self.containers.iter().filter(made_here).map(|one| one.project.as_str()).collect();
        let known = plain.and_then(|plain| plain.plain_name.as_deref());
        let known = known.filter(|name| named.is_empty() || named.contains(name));
        if let Some(name) = known.or_else(|| named.first().copied()) {
            return ProjectName::parse(name).map_err(|_| SurveyError::NoName(name.to_owned()));
        }
        let Some(plain) = plain else { return Err(no_compose_file(place).into()) };
        // It depends on variables, so compose itself is asked, without `-p` and its name.
        let arguments = plain.arguments(place, real).split_off(2);
        let arguments = self.compose.config_arguments(arguments);
        let output = self.compose.run(real, &arguments, choice::ASK_LIMIT, None).await;
        let printed = output.map(|output| output.stdout).unwrap_or_default();
        let model: serde_json::Value = serde_json::from_slice(&printed).unwrap_or_default();
        let name = model["name"].as_str().unwrap_or_default();
        ProjectName::parse(name).map_err(|_| SurveyError::NoName(name.to_owned()))
    }
}

/// The compose files of a directory, which must have some.
fn present(tree: &Tree, place: &Place) -> Result<Discovered, SurveyError> {
    discovered(tree, place, Reader::Person)?.ok_or_else(|| SurveyError::NoProject(no_compose_file(place)))
}

/// Each service of the model, and where its image is written.
fn services(model: &Model, found: &Origins) -> Vec<FoundService> {
    let written = |name: &ServiceName| {
        let scalar = &found.scalars[found.services.get(name)?.scalar?];
        Some(WrittenAt { path: scalar.path.clone(), line: scalar.line, text: scalar.text.clone() })
    };
    let of = model.services.iter();
    of.map(|(name, service)| FoundService {
        name: name.clone(),
        reference: service.image.clone(),
        from: service.image_from,
        written: written(name),
    })
    .collect()
}
