//! Declared data: what of it is kept, whose containers rest meanwhile, and how it comes back.
//!
//! A volume belongs to this project when compose's labels say so, and is kept only where no container that was made
//! from another directory mounts it (P11). It must be a plain one: driver `local`, no options.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

use tenantry_api::names::{OperationId, VolumeName};
use tenantry_api::tenant::{Consistency, RollbackData};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{DataPlan, State, Step};
use tenantry_protocol::{Action, FailureCategory, Progress};

use super::changes::protect;
use super::driver::{Performed, Wrong};
use super::work::Work;
use crate::core::lock;
use crate::engine::{DataMount, DataUser, Volume, own_id};
use crate::snapshot::{Estimate, Part, Shelf, SnapshotError, Watch, What};

/// Space that stays free besides what is kept, in bytes.
const SPARE: u64 = 64 << 20;
/// How often watchers are told of progress.
const TELL_EVERY: Duration = Duration::from_millis(500);

impl From<SnapshotError> for Wrong {
    fn from(error: SnapshotError) -> Self {
        Self::new(error.category(), error.to_string())
    }
}

/// Something that is kept, and where it is.
#[derive(Clone, Debug)]
struct Declared {
    what: What,
    /// Where a volume's data is.
    mountpoint: Option<PathBuf>,
}

impl Declared {
    fn named(&self) -> String {
        named(&self.what)
    }
}

/// What something is called before people.
fn named(what: &What) -> String {
    match what {
        What::Path(path) => format!("path {path}"),
        What::Volume { key, .. } => format!("volume {key}"),
    }
}

/// Checks what is declared and says what is done about it; `None` where nothing is. Nothing is changed. `models` are
/// those of the release and of what ran before.
pub async fn plan(work: &Work, models: &[&Model]) -> Result<Option<DataPlan>, Wrong> {
    let asked = &work.request.snapshot;
    let mut consistency = asked.consistency;
    let mut coming = 0;
    match &work.request.action {
        Action::Rollback { data: false, .. } => return Ok(None),
        Action::Rollback { to, data: true } => {
            // The data is replaced, so nobody may write to what is kept of it just before.
            consistency = Consistency::Stop;
            coming = check(work, to).await?;
        }
        Action::Upgrade => {
            if work.request.rollback_data == RollbackData::Always {
                asked.paths.iter().try_for_each(|path| protect(&work.request, path))?;
            }
            asked.volumes.iter().try_for_each(|key| known(key, models))?;
        }
    }
    let declared = declared(work).await?;
    if declared.is_empty() {
        return Ok(None);
    }
    let estimate = room(work, &declared, coming).await?;
    let what: Vec<What> = declared.iter().map(|one| one.what.clone()).collect();
    let users = users(work, &what, true).await?;
    Ok(Some(DataPlan {
        consistency,
        parts: declared.iter().map(Declared::named).collect(),
        containers: users.into_iter().map(|user| user.id).collect(),
        bytes: estimate.bytes,
    }))
}

/// Reads all data of a restore point and compares it; how much it is when it is unpacked.
async fn check(work: &Work, point: &OperationId) -> Result<u64, Wrong> {
    let parts = chosen(work).await?;
    let bytes = parts.iter().filter_map(|part| part.archive.as_ref()).map(|archive| archive.bytes).sum();
    let (tree, uid, point) = (work.tree()?, work.request.tenant.uid.clone(), point.clone());
    let follow = Follow::new(work, bytes);
    work.blocking(move || {
        let shelf = Shelf::open(&tree, &uid, &point)?;
        parts.iter().try_for_each(|part| shelf.verify(part, &follow)).map_err(Wrong::from)
    })
    .await?;
    Ok(bytes)
}

/// The data of the restore point that a person goes back to.
async fn chosen(work: &Work) -> Result<Vec<Part>, Wrong> {
    Ok(super::back::chosen_by(work).await?.map(|point| point.data).unwrap_or_default())
}

/// A volume that no release has is a slip of the pen.
fn known(key: &VolumeName, models: &[&Model]) -> Result<(), Wrong> {
    let found = models.iter().find_map(|model| model.volumes.get(key.as_str()));
    let refuse = |message: String| Err(Wrong::new(FailureCategory::SnapshotFailed, message));
    match found {
        None => refuse(format!(
            "upgrade.snapshot.volumes: the compose file has no volume {key}; give its name in the compose file"
        )),
        Some(volume) if volume.external => refuse(format!(
            "upgrade.snapshot.volumes: {key} is external, so it is not this project's to keep and bring back"
        )),
        Some(_) => Ok(()),
    }
}

/// What is to be kept and may be there. A volume that was not made yet is not.
async fn declared(work: &Work) -> Result<Vec<Declared>, Wrong> {
    let mut all = Vec::new();
    if let Action::Rollback { .. } = work.request.action {
        for part in chosen(work).await? {
            let mountpoint = match &part.what {
                What::Path(_) => None,
                What::Volume { key, name } => Some(volume(work, key, name).await?),
            };
            all.push(Declared { what: part.what, mountpoint });
        }
        return Ok(all);
    }
    let asked = &work.request.snapshot;
    for path in &asked.paths {
        all.push(Declared { what: What::Path(path.clone()), mountpoint: None });
    }
    for key in &asked.volumes {
        let project = work.request.place.project.as_str();
        let mut found = work.host.engine.volumes_of(project, key.as_str()).await?;
        let Some(volume) = found.pop() else { continue };
        if let Some(other) = found.pop() {
            let message = format!(
                "volume {key} is there twice, as {} and {}: remove the one that is not used",
                volume.name, other.name
            );
            return Err(Wrong::new(FailureCategory::SnapshotFailed, message));
        }
        let mountpoint = Some(visible(key, &volume)?);
        let what = What::Volume { key: key.clone(), name: volume.name };
        all.push(Declared { what, mountpoint });
    }
    Ok(all)
}

/// Where the data of a volume is. Refused where we can't see it.
fn visible(key: &VolumeName, volume: &Volume) -> Result<PathBuf, Wrong> {
    let refuse = |problem: String| {
        Err(Wrong::new(FailureCategory::SnapshotFailed, format!("volume {key} can't be kept: {problem}")))
    };
    if volume.driver != "local" {
        return refuse(format!("its driver is {}; only plain local volumes are kept", volume.driver));
    }
    if volume.has_options {
        return refuse("its driver was given options; only plain local volumes are kept".to_owned());
    }
    let at = PathBuf::from(&volume.mountpoint);
    // In a container the same path is another folder, or none.
    if own_id().is_some() || !at.is_dir() {
        return refuse(format!(
            "this agent does not see {}, where the engine has its data: run the agent on the host itself",
            volume.mountpoint
        ));
    }
    Ok(at)
}

/// How much there is; refused where there is no room for it.
async fn room(work: &Work, declared: &[Declared], coming: u64) -> Result<Estimate, Wrong> {
    let (tree, declared) = (work.tree()?, declared.to_vec());
    work.blocking(move || {
        let (mut all, mut needed) = (Estimate::default(), SPARE + coming);
        for one in &declared {
            let estimate = match (&one.what, &one.mountpoint) {
                (What::Path(path), _) => Shelf::estimate(&tree, path)?,
                (What::Volume { .. }, Some(at)) => Shelf::estimate_volume(at)?,
                (What::Volume { .. }, None) => None,
            };
            let estimate = estimate.unwrap_or_default();
            needed += estimate.space();
            all.bytes += estimate.bytes;
            all.entries += estimate.entries;
        }
        let free = tree.free_bytes()?;
        if free < needed {
            let message = format!(
                "{} MiB are free on the disk of the tenant's directory, {} MiB are needed to keep its data",
                free >> 20,
                needed >> 20
            );
            return Err(Wrong::new(FailureCategory::DiskFull, message));
        }
        Ok(all)
    })
    .await
}

/// The running containers of this project that mount such data, those first that others depend on. Refused where a
/// volume is used from elsewhere, too.
async fn users(work: &Work, what: &[What], writing: bool) -> Result<Vec<DataUser>, Wrong> {
    let all = work.host.engine.data_users().await?;
    let (project, directory) = (work.request.place.project.as_str(), work.directory());
    let own = own_id();
    let ours = |user: &DataUser| {
        user.project == project && user.directory.trim_end_matches('/') == directory.trim_end_matches('/')
    };
    let mut users = Vec::new();
    for user in all {
        let mounts = |mount: &&DataMount| what.iter().any(|what| touches(directory, what, mount));
        let Some(mount) = user.mounts.iter().find(mounts) else { continue };
        if !ours(&user) && mount.volume.is_some() {
            let message = format!(
                "volume {} is used by container {} too, which is not of project {project} in {directory}: what is \
                 somebody else's is neither kept nor brought back",
                mount.volume.as_deref().unwrap_or_default(),
                user.name
            );
            return Err(Wrong::new(FailureCategory::SnapshotFailed, message));
        }
        let writes = user.mounts.iter().filter(mounts).any(|mount| mount.writes);
        if ours(&user) && user.running && (writes || !writing) && own.as_ref() != Some(&user.id) {
            users.push(user);
        }
    }
    let model = work.on_disk().await.ok().flatten();
    Ok(in_order(users, model.as_ref().map(|(_, model)| &**model)))
}

/// Whether a mount reaches such data.
fn touches(directory: &str, what: &What, mount: &DataMount) -> bool {
    match what {
        What::Volume { name, .. } => mount.volume.as_ref() == Some(name),
        What::Path(path) => {
            let path = Path::new(directory).join(path.as_str());
            let source = Path::new(&mount.source);
            mount.volume.is_none() && (source.starts_with(&path) || path.starts_with(source))
        }
    }
}

/// Those first that others depend on.
fn in_order(mut users: Vec<DataUser>, model: Option<&Model>) -> Vec<DataUser> {
    users.sort_by(|a, b| a.name.cmp(&b.name));
    let Some(model) = model else { return users };
    let needs: BTreeMap<&str, BTreeSet<&str>> = model
        .services
        .iter()
        .map(|(name, service)| (name.as_str(), service.depends_on.keys().map(String::as_str).collect()))
        .collect();
    let mut ordered: Vec<DataUser> = Vec::new();
    while !users.is_empty() {
        let waits = |user: &DataUser| {
            let needed = needs.get(user.service.as_str());
            needed.is_some_and(|needed| users.iter().any(|other| needed.contains(other.service.as_str())))
        };
        // Compose lets no circle pass; should there be one, the first is as good as any.
        let next = users.iter().position(|user| !waits(user)).unwrap_or(0);
        ordered.push(users.remove(next));
    }
    ordered
}

/// Stops or pauses the containers that write to the data.
pub async fn quiesce(work: &Work, state: &State) -> Result<Performed, Wrong> {
    let Some(plan) = state.plan().and_then(|plan| plan.data.as_ref()) else {
        return Ok(Performed::quietly());
    };
    for id in plan.containers.iter().rev() {
        match plan.consistency {
            Consistency::Stop => work.host.engine.stop(id).await?,
            Consistency::Pause => work.host.engine.pause(id).await?,
            Consistency::Live => {}
        }
    }
    Ok(Performed::quietly())
}

/// Lets paused containers go on.
pub async fn unquiesce(work: &Work, state: &State) -> Result<Performed, Wrong> {
    for id in resting(state) {
        work.host.engine.unpause(id).await?;
    }
    Ok(Performed::quietly())
}

/// Starts the very containers again that were stopped or paused.
pub async fn revive(work: &Work, state: &State) -> Result<Performed, Wrong> {
    let engine = &work.host.engine;
    let mut gone = 0;
    for id in resting(state) {
        match engine.rest(id).await? {
            None => gone += 1,
            Some(rest) if rest.paused => engine.unpause(id).await?,
            Some(rest) if rest.running => {}
            Some(_) => engine.start_container(id).await?,
        }
    }
    if gone > 0 {
        let message =
            format!("{gone} containers that were stopped for their data are gone: start the project by hand");
        return Err(Wrong::new(FailureCategory::StartFailed, message));
    }
    Ok(Performed::saying("the same containers were started again"))
}

fn resting(state: &State) -> &[String] {
    state
        .plan()
        .and_then(|plan| plan.data.as_ref())
        .map(|data| data.containers.as_slice())
        .unwrap_or_default()
}

/// Keeps everything that is declared, each part read back and compared.
pub async fn keep(work: &Work) -> Result<Vec<Part>, Wrong> {
    let declared = declared(work).await?;
    let estimate = room(work, &declared, 0).await?;
    let (tree, uid, id) = (work.tree()?, work.request.tenant.uid.clone(), work.id.clone());
    // Everything is read once and then read back.
    let follow = Follow::new(work, estimate.bytes * 2);
    work.blocking(move || {
        let shelf = Shelf::open(&tree, &uid, &id)?;
        let mut parts = Vec::new();
        for (n, one) in declared.iter().enumerate() {
            parts.push(match (&one.what, &one.mountpoint) {
                (What::Volume { .. }, Some(at)) => shelf.keep_volume(n, one.what.clone(), at, &follow)?,
                (What::Volume { .. }, None) => continue,
                (What::Path(path), _) => shelf.keep(n, path, &follow)?,
            });
        }
        Ok(parts)
    })
    .await
}

/// The data that a step brings back: that of the restore point that a person chose, or of this operation's own.
async fn parts_of(work: &Work, step: Step) -> Result<(OperationId, Vec<Part>), Wrong> {
    if let (Step::StopForChosen | Step::RestoreChosen, Action::Rollback { to, .. }) =
        (step, &work.request.action)
    {
        return Ok((to.clone(), chosen(work).await?));
    }
    let (uid, id, tree) = (work.request.tenant.uid.clone(), work.id.clone(), work.tree()?);
    let point = work.blocking(move || Ok(super::point::load(&tree, &uid, &id)?)).await?;
    Ok((work.id.clone(), point.map(|point| point.data).unwrap_or_default()))
}

/// Stops the containers that use the data which a later step brings back.
pub async fn stop_for_data(work: &Work, step: Step) -> Result<Performed, Wrong> {
    stop_for(work, &parts_of(work, step).await?.1).await
}

/// Brings the data of a step back.
pub async fn restore_data(work: &Work, step: Step) -> Result<Performed, Wrong> {
    let (point, parts) = parts_of(work, step).await?;
    restore(work, &point, parts).await
}

/// Stops whatever of this project mounts such data, so that it can be replaced.
async fn stop_for(work: &Work, parts: &[Part]) -> Result<Performed, Wrong> {
    let what: Vec<What> = parts.iter().map(|part| part.what.clone()).collect();
    for user in users(work, &what, false).await?.iter().rev() {
        work.host.engine.stop(&user.id).await?;
    }
    Ok(Performed::quietly())
}

/// Brings all parts of a restore point back, each wholly or not at all.
async fn restore(work: &Work, point: &OperationId, parts: Vec<Part>) -> Result<Performed, Wrong> {
    let what: Vec<What> = parts.iter().map(|part| part.what.clone()).collect();
    if let Some(user) = users(work, &what, false).await?.first() {
        let message = format!("container {} runs and uses the data that is to be brought back", user.name);
        return Err(Wrong::new(FailureCategory::RestorePointUnusable, message));
    }
    let mut at = Vec::new();
    for part in &parts {
        at.push(match &part.what {
            What::Path(_) => None,
            What::Volume { key, name } => Some(volume(work, key, name).await?),
        });
    }
    let bytes = parts.iter().filter_map(|part| part.archive.as_ref()).map(|archive| archive.bytes).sum();
    let told = parts.iter().map(|part| named(&part.what)).collect::<Vec<_>>().join(", ");
    let (tree, uid, point) = (work.tree()?, work.request.tenant.uid.clone(), point.clone());
    let follow = Follow::new(work, bytes);
    work.blocking(move || {
        let shelf = Shelf::open(&tree, &uid, &point)?;
        for (n, (part, at)) in parts.iter().zip(&at).enumerate() {
            match at {
                Some(at) => shelf.restore_volume(n, part, at, &follow)?,
                None => shelf.restore(n, part, &follow)?,
            }
        }
        Ok(())
    })
    .await?;
    Ok(Performed::saying(format!("brought back as they were then: {told}")))
}

/// Where a volume's data is now; refused where it is no longer this project's.
async fn volume(work: &Work, key: &VolumeName, name: &str) -> Result<PathBuf, Wrong> {
    let refuse = |problem: &str| {
        let message = format!("volume {key} ({name}) can't be brought back: {problem}");
        Err(Wrong::new(FailureCategory::RestorePointUnusable, message))
    };
    match work.host.engine.volume(name).await? {
        None => refuse("it is gone; create it with docker compose, and go back again"),
        Some(volume) if volume.project.as_deref() != Some(work.request.place.project.as_str()) => {
            refuse("it is no longer this project's")
        }
        Some(volume) => visible(key, &volume),
    }
}

/// Tells watchers how far the work is.
struct Follow {
    status: tokio::sync::watch::Sender<tenantry_protocol::OperationStatus>,
    total: u64,
    so_far: Mutex<(u64, Instant)>,
}

impl Follow {
    fn new(work: &Work, total: u64) -> Self {
        Self { status: work.status.clone(), total, so_far: Mutex::new((0, Instant::now())) }
    }
}

impl Watch for Follow {
    fn progress(&self, bytes: u64) {
        let mut so_far = lock(&self.so_far);
        so_far.0 += bytes;
        if so_far.1.elapsed() < TELL_EVERY {
            return;
        }
        so_far.1 = Instant::now();
        let progress =
            Progress { bytes_done: so_far.0.min(self.total), bytes_total: self.total, ..Progress::default() };
        drop(so_far);
        self.status.send_modify(|status| {
            status.progress = Some(progress);
            status.seq += 1;
        });
    }

    /// An operation is never called off from without.
    fn called_off(&self) -> bool {
        false
    }
}
