//! Declared data: what of it is kept, and how it comes back.
//!
//! A volume belongs to this project when compose's labels say so. It must be a plain one: driver `local`, no options.

use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tenantry_api::names::{OperationId, VolumeName};
use tenantry_api::tenant::{Consistency, RollbackData};
use tenantry_planner::model::Model;
use tenantry_planner::steps::{DataPlan, Step};
use tenantry_protocol::{Action, FailureCategory, Progress};

use super::changes::protect;
use super::driver::{Performed, Wrong};
use super::users::users;
use super::volumes::{self, Reach, Sight};
use super::work::Work;
use crate::core::lock;
use crate::snapshot::{Estimate, Part, Shelf, SnapshotError, Watch, What};

/// Space that stays free besides what is kept, in bytes.
const SPARE: u64 = 64 << 20;
/// How often data is brought back again because somebody started what uses it meanwhile.
const RESTORES: u32 = 3;
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
    /// How a volume's data is reached.
    reach: Option<Reach>,
}

/// How much there is of each part.
#[derive(Default)]
struct Room {
    parts: Vec<Estimate>,
}

impl Room {
    fn bytes(&self) -> u64 {
        self.parts.iter().map(|estimate| estimate.bytes).sum()
    }
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
    volumes::clear(work).await?;
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
    let room = room(work, &declared, coming).await?;
    let what: Vec<What> = declared.iter().map(|one| one.what.clone()).collect();
    let users = users(work, &what, true).await?;
    Ok(Some(DataPlan {
        consistency,
        parts: declared.iter().map(Declared::named).collect(),
        containers: users.into_iter().map(|user| user.id).collect(),
        bytes: room.bytes(),
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
    let (mut sight, mut all) = (Sight::default(), Vec::new());
    if let Action::Rollback { .. } = work.request.action {
        for part in chosen(work).await? {
            let reach = reach(work, &mut sight, &part.what).await?;
            all.push(Declared { what: part.what, reach });
        }
        return Ok(all);
    }
    let asked = &work.request.snapshot;
    for path in &asked.paths {
        all.push(Declared { what: What::Path(path.clone()), reach: None });
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
        let reach = Some(sight.of(work, key, &volume).await?);
        let what = What::Volume { key: key.clone(), name: volume.name };
        all.push(Declared { what, reach });
    }
    Ok(all)
}

/// How much there is; refused where there is no room for it.
async fn room(work: &Work, declared: &[Declared], coming: u64) -> Result<Room, Wrong> {
    let mut room = Room::default();
    for (n, one) in declared.iter().enumerate() {
        let estimate = match (&one.what, &one.reach) {
            (What::Volume { key, name }, Some(Reach::Helped)) => {
                Box::pin(volumes::estimate(work, n, key, name)).await?
            }
            _ => seen(work, one).await?.unwrap_or_default(),
        };
        room.parts.push(estimate);
    }
    let needed = room.parts.iter().map(Estimate::space).sum::<u64>() + SPARE + coming;
    let free = work.tree()?.free_bytes()?;
    if free >= needed {
        return Ok(room);
    }
    let message = format!(
        "{} MiB are free on the disk of the tenant's directory, {} MiB are needed to keep its data",
        free >> 20,
        needed >> 20
    );
    Err(Wrong::new(FailureCategory::DiskFull, message))
}

/// How much there is of what we see ourselves.
async fn seen(work: &Work, one: &Declared) -> Result<Option<Estimate>, Wrong> {
    let (tree, one) = (work.tree()?, one.clone());
    work.blocking(move || {
        Ok(match (&one.what, &one.reach) {
            (What::Path(path), _) => Shelf::estimate(&tree, path)?,
            (What::Volume { .. }, Some(Reach::Seen(at))) => Shelf::estimate_volume(at)?,
            (What::Volume { .. }, _) => None,
        })
    })
    .await
}

/// Keeps everything that is declared, each part read back and compared.
pub async fn keep(work: &Work) -> Result<Vec<Part>, Wrong> {
    volumes::clear(work).await?;
    let declared = declared(work).await?;
    let room = room(work, &declared, 0).await?;
    // Everything is read once and then read back.
    let follow = Arc::new(Follow::new(work, room.bytes() * 2));
    let mut parts = Vec::new();
    for (n, (one, estimate)) in declared.into_iter().zip(room.parts).enumerate() {
        parts.extend(match one.reach {
            Some(Reach::Helped) => Box::pin(volumes::keep(work, n, &one.what, estimate, &*follow)).await?,
            _ => keep_seen(work, n, one, follow.clone()).await?,
        });
    }
    Ok(parts)
}

async fn keep_seen(work: &Work, n: usize, one: Declared, follow: Arc<Follow>) -> Result<Option<Part>, Wrong> {
    let (tree, uid, id) = (work.tree()?, work.request.tenant.uid.clone(), work.id.clone());
    work.blocking(move || {
        let shelf = Shelf::open(&tree, &uid, &id)?;
        Ok(match (&one.what, &one.reach) {
            (What::Path(path), _) => Some(shelf.keep(n, path, &*follow)?),
            (What::Volume { .. }, Some(Reach::Seen(at))) => {
                Some(shelf.keep_volume(n, one.what.clone(), at, &*follow)?)
            }
            (What::Volume { .. }, _) => None,
        })
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
    volumes::clear(work).await?;
    stop_for(work, &parts_of(work, step).await?.1).await?;
    Ok(Performed::quietly())
}

/// Brings the data of a step back.
pub async fn restore_data(work: &Work, step: Step) -> Result<Performed, Wrong> {
    volumes::clear(work).await?;
    let (point, parts) = parts_of(work, step).await?;
    restore(work, &point, &parts).await
}

/// Stops whatever of this project mounts such data, so that it can be replaced; whether there was any.
async fn stop_for(work: &Work, parts: &[Part]) -> Result<bool, Wrong> {
    let what: Vec<What> = parts.iter().map(|part| part.what.clone()).collect();
    let users = users(work, &what, false).await?;
    for user in users.iter().rev() {
        work.host.engine.stop(&user.id).await?;
    }
    Ok(!users.is_empty())
}

/// Brings all parts of a restore point back, each wholly or not at all.
async fn restore(work: &Work, point: &OperationId, parts: &[Part]) -> Result<Performed, Wrong> {
    for _ in 0..RESTORES {
        // A person, or the engine after a reboot, may have started them again.
        stop_for(work, parts).await?;
        let helped = put_back(work, point, parts).await?;
        // Who was started meanwhile has mounted what is no longer the data, or has written to what a helper brought back.
        let disturbed = stop_for(work, parts).await?;
        if !(disturbed && helped) {
            let told = parts.iter().map(|part| named(&part.what)).collect::<Vec<_>>().join(", ");
            return Ok(Performed::saying(format!("brought back as they were then: {told}")));
        }
    }
    let message =
        "containers that use the data were started each time that it was brought back: leave them stopped";
    Err(Wrong::new(FailureCategory::RestorePointUnusable, message))
}

/// Does so once; whether a helper had a part in it.
async fn put_back(work: &Work, point: &OperationId, parts: &[Part]) -> Result<bool, Wrong> {
    let (mut sight, mut reached) = (Sight::default(), Vec::new());
    for part in parts {
        reached.push(reach(work, &mut sight, &part.what).await?);
    }
    let helped = reached.contains(&Some(Reach::Helped));
    let bytes = parts.iter().filter_map(|part| part.archive.as_ref()).map(|archive| archive.bytes).sum();
    let follow = Arc::new(Follow::new(work, bytes));
    for (n, (part, reach)) in parts.iter().zip(reached).enumerate() {
        match reach {
            Some(Reach::Helped) => Box::pin(volumes::restore(work, point, n, part, &*follow)).await?,
            Some(Reach::Seen(at)) => {
                restore_seen(work, point, n, part.clone(), Some(at), follow.clone()).await?;
            }
            None => restore_seen(work, point, n, part.clone(), None, follow.clone()).await?,
        }
    }
    Ok(helped)
}

async fn restore_seen(
    work: &Work,
    point: &OperationId,
    n: usize,
    part: Part,
    at: Option<PathBuf>,
    follow: Arc<Follow>,
) -> Result<(), Wrong> {
    let (tree, uid, point) = (work.tree()?, work.request.tenant.uid.clone(), point.clone());
    work.blocking(move || {
        let shelf = Shelf::open(&tree, &uid, &point)?;
        match at {
            Some(at) => shelf.restore_volume(n, &part, &at, &*follow)?,
            None => shelf.restore(n, &part, &*follow)?,
        }
        Ok(())
    })
    .await
}

/// How what a restore point holds is reached; a path is where it is.
async fn reach(work: &Work, sight: &mut Sight, what: &What) -> Result<Option<Reach>, Wrong> {
    match what {
        What::Path(_) => Ok(None),
        What::Volume { key, name } => volumes::now(work, sight, key, name).await.map(Some),
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
