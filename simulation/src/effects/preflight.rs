//! Preflight and Pull: everything that can be checked, the plan, and every image local.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_agent::operation::StepResult;
use tenantry_agent::planning::StepError;
use tenantry_api::tenant::{Approach, Consistency};
use tenantry_planner::env::patch;
use tenantry_planner::model::Model;
use tenantry_planner::steps::{
    DataPlan, JournalState, Plan, PlannedImage, PreviousReference, RemovedService, StepOutput,
};
use tenantry_protocol::{
    Action, EnvManifest, FailureCategory, FileCounts, OperationPhase, PlanReport, RunImage,
};

use super::{Operation, Staged, no_compose_file};
use crate::agent::{digest_of, tick};
use crate::host::Change;
use crate::observe::in_use;
use crate::releases::{Blob, COMPOSE, DIRECTORY, ENV, VOLUME, relative};
use crate::world::{Fault, World};

/// What changes on disk.
struct Changes {
    all: Vec<Change>,
    changed: Vec<String>,
    left: Vec<String>,
}

impl Operation {
    pub(super) async fn preflight(&self) -> Result<StepResult, StepError> {
        self.engine()?;
        self.space()?;
        let changes = self.changes()?;
        tick(&self.shared, 200).await;
        let model = self.staged_model(&changes.all)?;
        let previous = self.on_disk().ok().flatten();
        let plan = self.plan(&changes, &model, previous.as_deref());
        let held: Vec<String> = plan
            .references
            .iter()
            .filter_map(|reference| reference.image_id.clone())
            .chain(plan.previous_images.iter().map(|image| image.image_id.clone()))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        self.keep(held).await;
        self.set_staged(Some(Staged { changes: changes.all, model }));
        Ok(StepResult { did: StepOutput::Planned(Box::new(plan)), message: Some("planned".to_owned()) })
    }

    /// Works out the changes; refuses those that must not be made.
    fn changes(&self) -> Result<Changes, StepError> {
        if let Action::Rollback { to, .. } = &self.request.action {
            return self.changes_back(to);
        }
        let baseline = self.baseline();
        let world = self.shared.world();
        let disk = &world.host.disk;
        let mut changes = Changes { all: Vec::new(), changed: Vec::new(), left: Vec::new() };
        let unknown = baseline == tenantry_agent::store::Baseline::default() && !self.request.overwrite;
        for file in &self.request.manifest.files {
            let now = disk.files.get(file.path.as_str());
            if now.is_some_and(|now| now.sha256 == file.sha256) {
                continue;
            }
            let written = baseline.files.get(&file.path);
            if now.is_some_and(|now| written.is_some_and(|written| written.sha256 != now.sha256)) {
                let message = format!("edited by hand since they were last written: {}", file.path);
                return Err(StepError::new(FailureCategory::HandEdited, message));
            }
            if now.is_some() && unknown {
                let message = format!("already there with other content: {}", file.path);
                return Err(StepError::new(FailureCategory::AdoptionNeeded, message));
            }
            let brought = self.request.contents.iter().find(|content| content.path == file.path);
            let Some(brought) = brought else {
                return Err(StepError::new(FailureCategory::HandEdited, "its content was not brought"));
            };
            let put = Some(Blob::new(&String::from_utf8_lossy(&brought.content.0)));
            changes.changed.push(file.path.to_string());
            changes.all.push(Change { path: file.path.to_string(), before: now.cloned(), put });
        }
        for (path, written) in &baseline.files {
            let wanted = self.request.manifest.files.iter().any(|file| file.path == *path);
            match disk.files.get(path.as_str()) {
                Some(now) if !wanted && now.sha256 == written.sha256 => {
                    changes.changed.push(path.to_string());
                    changes.all.push(Change { path: path.to_string(), before: Some(now.clone()), put: None });
                }
                Some(_) if !wanted => changes.left.push(path.to_string()),
                _ => {}
            }
        }
        if self.request.approach == Approach::ImageOnly && !changes.all.is_empty() {
            return Err(StepError::new(FailureCategory::ReleaseNeeded, "the release changes managed files"));
        }
        if let EnvManifest::Adopted { patch: values } = &self.request.manifest.env {
            let old = disk.files.get(ENV);
            let bytes = old.map(|old| old.text.as_bytes()).unwrap_or_default();
            let patched = patch(bytes, values)
                .map_err(|error| StepError::new(FailureCategory::EnvUnrepresentable, error.to_string()))?;
            let put = Blob::new(&String::from_utf8_lossy(&patched.bytes));
            if old != Some(&put) {
                changes.all.push(Change { path: ENV.to_owned(), before: old.cloned(), put: Some(put) });
            }
        }
        Ok(changes)
    }

    /// Back to a restore point.
    fn changes_back(&self, to: &tenantry_api::names::OperationId) -> Result<Changes, StepError> {
        let world = self.shared.world();
        let gone = || {
            StepError::new(FailureCategory::RestorePointUnusable, format!("there is no restore point {to}"))
        };
        let point = world.host.disk.points.get(to).filter(|point| point.whole).ok_or_else(gone)?;
        let with_data = matches!(self.request.action, Action::Rollback { data: true, .. });
        if point.first || (with_data && point.data.is_none()) {
            let message = format!("restore point {to} leads back to nothing");
            return Err(StepError::new(FailureCategory::RestorePointUnusable, message));
        }
        let mut changes = Changes { all: Vec::new(), changed: Vec::new(), left: Vec::new() };
        for (path, put) in &point.files {
            let before = world.host.disk.files.get(path).cloned();
            if before != *put {
                if path != ENV {
                    changes.changed.push(path.clone());
                }
                changes.all.push(Change { path: path.clone(), before, put: put.clone() });
            }
        }
        Ok(changes)
    }

    fn staged_model(&self, changes: &[Change]) -> Result<std::sync::Arc<Model>, StepError> {
        let mut world = self.shared.world();
        let World { host, releases, .. } = &mut *world;
        let becomes = |path: &str| match changes.iter().find(|change| change.path == path) {
            Some(change) => change.put.clone(),
            None => host.disk.files.get(path).cloned(),
        };
        let compose = becomes(COMPOSE).ok_or_else(no_compose_file)?;
        let env = becomes(ENV).map(|blob| blob.text);
        let parsed = env.and_then(|text| tenantry_planner::env::EnvFile::parse(text.as_bytes()).ok());
        let tag = parsed.and_then(|env| env.get("IMAGE_TAG")?.literal().map(str::to_owned));
        releases
            .model(&compose, tag.as_deref())
            .map_err(|problem| StepError::new(FailureCategory::ComposeInvalid, problem))
    }

    fn plan(&self, changes: &Changes, model: &Model, previous: Option<&Model>) -> Plan {
        let world = self.shared.world();
        let engine = &world.host.engine;
        let containers: Vec<_> =
            engine.containers.values().filter(|container| container.directory == DIRECTORY).collect();
        let names: BTreeSet<String> = model
            .references()
            .into_keys()
            .chain(previous.iter().flat_map(|model| model.references().into_keys()))
            .map(str::to_owned)
            .collect();
        let references = names.into_iter().map(|reference| {
            let image_id = engine.tags.get(&reference).cloned();
            PreviousReference { reference, image_id }
        });
        let ran: BTreeMap<&str, RunImage> = containers
            .iter()
            .map(|container| {
                let image = RunImage {
                    service: container.service.clone(),
                    reference: container.image_ref.clone(),
                    image_id: container.image_id.clone(),
                    repo_digest: Some(digest_of(&container.image_id)),
                };
                (container.service.as_str(), image)
            })
            .collect();
        let known = |service: &str| model.services.keys().any(|name| name.as_str() == service);
        let removed = previous
            .into_iter()
            .flat_map(|previous| previous.services.keys())
            .filter(|name| !known(name.as_str()));
        let removed = removed.map(|name| RemovedService {
            service: name.to_string(),
            containers: containers
                .iter()
                .filter(|one| one.service == name.as_str())
                .map(|one| one.id.clone())
                .collect(),
            first: false,
            grace_ms: None,
        });
        Plan {
            report: PlanReport {
                hash: self.request.target_hash.clone(),
                files: FileCounts::default(),
                recreates: Vec::new(),
            },
            compose: in_use(),
            previous_compose: previous.map(|_| in_use()),
            writes: !changes.all.is_empty(),
            first: containers.is_empty(),
            changed: changes.changed.iter().map(|path| relative(path)).collect(),
            containers: containers.iter().map(|container| container.id.clone()).collect(),
            references: references.collect(),
            previous_images: ran.into_values().collect(),
            left_running: Vec::new(),
            left_files: changes.left.clone(),
            removed: removed.collect(),
            files: Vec::new(),
            env_keys: Vec::new(),
            choices: None,
            data: self.data_plan(&world),
            images: self.chosen_images(&world),
            inside: None,
            checked: BTreeMap::new(),
            previous_checked: BTreeMap::new(),
        }
    }

    fn data_plan(&self, world: &World) -> Option<DataPlan> {
        let consistency = match &self.request.action {
            Action::Upgrade if self.request.snapshot.volumes.is_empty() => return None,
            Action::Upgrade => self.request.snapshot.consistency,
            Action::Rollback { data: false, .. } => return None,
            Action::Rollback { to, .. } => {
                world.host.disk.points.get(to)?.data.as_ref()?;
                Consistency::Stop
            }
        };
        world.host.engine.volumes.get(VOLUME)?;
        let running = world.host.engine.containers.values().filter(|container| {
            container.service == "db" && container.started.is_some() && container.ended.is_none()
        });
        Some(DataPlan {
            consistency,
            parts: vec![format!("volume {VOLUME}")],
            containers: running.map(|container| container.id.clone()).collect(),
            bytes: 1,
        })
    }

    fn chosen_images(&self, world: &World) -> Vec<PlannedImage> {
        let Action::Rollback { to, .. } = &self.request.action else { return Vec::new() };
        world.host.disk.points.get(to).map(|point| point.images.clone()).unwrap_or_default()
    }

    pub(super) async fn pull(&self, state: &JournalState) -> Result<StepResult, StepError> {
        if self.staged().is_none() {
            // A restarted agent has lost what was only in memory; all of it can be made again.
            self.preflight().await.map_err(|wrong| wrong.during(OperationPhase::Preflight))?;
        }
        let Some(staged) = self.staged() else { return Err(no_compose_file()) };
        let mut images = Vec::new();
        for reference in staged.model.references().into_keys() {
            let image_id = self.wanted(reference).await?;
            self.keep([image_id.clone()]).await;
            let repo_digest = Some(digest_of(&image_id));
            images.push(PlannedImage { reference: reference.to_owned(), image_id, repo_digest });
        }
        let _ = state;
        self.shared.world().pulled(&self.id, &images);
        Ok(StepResult { did: StepOutput::Pulled { images }, message: None })
    }

    async fn wanted(&self, reference: &str) -> Result<String, StepError> {
        self.engine()?;
        let pinned = self.request.pinned.iter().find(|pinned| pinned.reference == reference);
        let pinned = pinned.and_then(|pinned| pinned.digest.clone());
        let baseline = self.baseline();
        let kept = baseline.images.iter().find(|image| image.reference == reference);
        if pinned.is_none()
            && let Some(kept) = kept
            && self.shared.world().host.engine.images.contains(&kept.image_id)
        {
            return Ok(kept.image_id.clone());
        }
        let (image, down) = {
            let mut world = self.shared.world();
            let rate = world.scenario.rates.registry;
            let down = world.chance(rate);
            if down {
                world.count(Fault::RegistryDown);
            }
            let of_pin = |pinned: &String| {
                world.host.engine.behaviours.keys().find(|image| digest_of(image) == *pinned).cloned()
            };
            let image = match &pinned {
                Some(pinned) => of_pin(pinned),
                None => world.host.engine.registry.get(reference).cloned(),
            };
            (image, down)
        };
        if down {
            return Err(StepError::new(FailureCategory::RegistryUnreachable, "the registry does not answer"));
        }
        let image = image.ok_or_else(|| {
            StepError::new(FailureCategory::ImageNotFound, format!("the registry has no {reference}"))
        })?;
        if !self.shared.world().host.engine.images.contains(&image) {
            self.space()?;
            tick(&self.shared, 5_000).await;
            self.shared.world().host.engine.images.insert(image.clone());
        }
        Ok(image)
    }
}
