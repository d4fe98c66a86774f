//! How a volume is reached: by the agent itself where it sees the engine's data, else by a helper container that is made
//! of the agent's own program.
//!
//! That a path looks like the volume's proves nothing: an agent in a container, or beside an engine that has its data
//! elsewhere, may have a folder of that very name. So the engine is made to create and remove an empty volume, and the
//! agent looks whether that comes and goes before its eyes. The other way round a helper is shown a file in the
//! archive directory, which only the agent's own one has.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tenantry_api::names::{OperationId, VolumeName};
use tenantry_protocol::FailureCategory;

use crate::engine::{
    ARCHIVE_DIR_AT, EngineError, Helper, HelperState, Likeness, Mounted, MountedFrom, Program, VOLUME_AT,
    Volume, own_id,
};
use crate::files::{DiskIo, Folder};
use crate::host::restore_points;
use crate::operation::context::OperationContext;
use crate::planning::{StepError, checks::in_project_agent::covering};
use crate::snapshot::helper::Said;
use crate::snapshot::{ArchiveDir, Estimate, Notes, Part, ProgressSink, What};

/// How long a helper may work without being any further.
const STILL: Duration = Duration::from_mins(10);
/// How long it may take to see how much there is, of which it tells nothing meanwhile.
const ESTIMATING: Duration = Duration::from_mins(30);
/// How often a helper that was ended from without is made anew.
const ATTEMPTS: u32 = 3;
/// Looked at so often at first, for most volumes are small, and then so.
const POLL: Duration = Duration::from_millis(100);
const SLOWLY: Duration = Duration::from_millis(500);
const AT_FIRST: Duration = Duration::from_secs(3);
/// So many of a helper's last lines are read; what came of it all is in the last one.
const LAST_LINES: u32 = 20;
/// The most of what a helper complained of that people are told.
const COMPLAINT: usize = 300;

/// How the data of a volume is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// We see it here.
    Seen(PathBuf),
    /// A helper does.
    Helped,
}

/// Whether this agent sees the engine's data: found out once, when it is asked for.
#[derive(Default)]
pub enum Sight {
    /// It was not looked yet.
    #[default]
    Unknown,
    /// The folder of all volumes is here.
    Clear(PathBuf),
    /// It is not.
    None,
}

impl Sight {
    /// How a plain volume is reached.
    pub async fn of(&mut self, operation: &OperationContext, volume: &Volume) -> Result<Reach, StepError> {
        let at = PathBuf::from(&volume.mountpoint);
        // Others than root neither read nor give away what is somebody else's.
        if !rustix::process::geteuid().is_root() || !at.is_dir() {
            return Ok(Reach::Helped);
        }
        if matches!(self, Self::Unknown) {
            *self = look(operation).await?.map_or(Self::None, Self::Clear);
        }
        let Self::Clear(root) = self else { return Ok(Reach::Helped) };
        let root = root.clone();
        let name = volume.name.clone();
        operation
            .blocking(move || Ok(if is_in(&root, &name, &at) { Reach::Seen(at) } else { Reach::Helped }))
            .await
    }
}

/// The folder of all volumes, if we see it: what the engine makes and removes there comes and goes here.
async fn look(operation: &OperationContext) -> Result<Option<PathBuf>, StepError> {
    let (engine, tenant) = (&operation.host.engine, operation.request.tenant.uid.as_str());
    let name = format!("tenantry-look-{tenant}-{}", operation.id);
    // One that an agent left which was killed here.
    engine.remove_volume(&name).await?;
    let at = PathBuf::from(engine.make_volume(&name, tenant).await?.mountpoint);
    let came = at.is_dir();
    engine.remove_volume(&name).await?;
    let root = at.ancestors().nth(2).filter(|root| data_in(root, &name) == at);
    Ok(root.filter(|_| came && !at.exists()).map(Path::to_owned))
}

/// Where the engine has a plain volume's data.
fn data_in(root: &Path, name: &str) -> PathBuf {
    root.join(name).join("_data")
}

/// Whether a volume's data is there, with nothing mounted over it, and may be written to.
fn is_in(root: &Path, name: &str, at: &Path) -> bool {
    let open = || {
        let root = Folder::open(root, DiskIo::default()).ok()?;
        let data = root.below(name).ok()?.below("_data").ok()?;
        let flags = rustix::fs::fstatvfs(&data).ok()?.f_flag;
        let writable = !flags.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        (root.mount().ok()? == data.mount().ok()?).then_some(writable)
    };
    data_in(root, name) == at && open() == Some(true)
}

/// Ends what an agent has left that was killed: nothing else may touch the tenant's volumes meanwhile.
pub async fn clear(operation: &OperationContext) -> Result<(), StepError> {
    let ended = operation.host.engine.clear_helpers(operation.request.tenant.uid.as_str()).await?;
    if ended > 0 {
        tracing::warn!(tenant = %operation.request.tenant.name, operation = %operation.id, ended, "a helper container outlived an agent that was killed");
    }
    Ok(())
}

/// How much there is in a volume that we don't see.
pub async fn estimate(
    operation: &OperationContext,
    n: usize,
    key: &VolumeName,
    name: &str,
) -> Result<Estimate, StepError> {
    let job = Job { n, key, volume: name, writes: false, archive_dir: None, patience: ESTIMATING };
    match job.run(operation, words(&["estimate", "--from", VOLUME_AT]), &NoProgress).await? {
        Said::Estimated(estimate) => Ok(estimate),
        other => Err(job.strange(&other)),
    }
}

/// Keeps a volume that we don't see, as the n-th part; it is read back by whoever has written it.
pub async fn keep(
    operation: &OperationContext,
    n: usize,
    what: &What,
    estimate: Estimate,
    sink: &dyn ProgressSink,
) -> Result<Option<Part>, StepError> {
    let What::Volume { key, name } = what else { return Ok(None) };
    let shown = Shown::on(operation, &operation.id, n, what).await?;
    let archive_dir = Some((shown.source.clone(), true));
    let job = Job { n, key, volume: name, writes: false, archive_dir, patience: patience(estimate.entries) };
    let mut arguments = words(&["keep", "--from", VOLUME_AT]);
    arguments.extend(shown.arguments(n));
    let said = job.run(operation, arguments, sink).await?;
    let Said::Kept(archive) = said else { return Err(job.strange(&said)) };
    let (tree, uid, id, what) =
        (operation.tree()?, operation.request.tenant.uid.clone(), operation.id.clone(), what.clone());
    let part = operation.blocking(move || {
        let archive_dir = ArchiveDir::open(&tree, &uid, &id)?;
        archive_dir.unprove()?;
        Ok(archive_dir.arrived(what, *archive)?)
    });
    part.await.map(Some)
}

/// Brings a volume back that we don't see, as the n-th part.
pub async fn restore(
    operation: &OperationContext,
    point: &OperationId,
    n: usize,
    part: &Part,
    sink: &dyn ProgressSink,
) -> Result<(), StepError> {
    let What::Volume { key, name } = &part.what else { return Ok(()) };
    let Some(archive) = &part.archive else {
        let message = format!("volume {key}: there was nothing to keep when the restore point was made");
        return Err(StepError::new(FailureCategory::RestorePointUnusable, message));
    };
    let shown = Shown::on(operation, point, n, &part.what).await?;
    let archive_dir = Some((shown.source.clone(), false));
    let job = Job { n, key, volume: name, writes: true, archive_dir, patience: patience(archive.entries) };
    // Notes are for people, and an argument has its bound.
    let archive = crate::snapshot::Archive { notes: Notes::default(), ..archive.clone() };
    let archive = serde_json::to_string(&archive)
        .map_err(|error| StepError::new(FailureCategory::AgentFault, error.to_string()))?;
    let mut arguments =
        words(&["restore", "--to", VOLUME_AT, "--stage", &shown.stage, "--archive", &archive]);
    arguments.extend(shown.arguments(n));
    let said = job.run(operation, arguments, sink).await?;
    if said != Said::Restored {
        return Err(job.strange(&said));
    }
    let (tree, uid, point) = (operation.tree()?, operation.request.tenant.uid.clone(), point.clone());
    operation.blocking(move || Ok(ArchiveDir::open(&tree, &uid, &point)?.unprove()?)).await
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A helper tells how many bytes it has been through; what is done for each entry besides is not in that.
fn patience(entries: u64) -> Duration {
    STILL + Duration::from_millis(entries)
}

/// A restore point's archive directory as a helper is shown it.
struct Shown {
    /// Where the engine sees it.
    source: String,
    /// What is on it that no other folder has.
    proof: String,
    of: String,
    stage: String,
}

impl Shown {
    async fn on(
        operation: &OperationContext,
        point: &OperationId,
        n: usize,
        what: &What,
    ) -> Result<Self, StepError> {
        let (tree, uid) = (operation.tree()?, operation.request.tenant.uid.clone());
        let (point, what) = (point.clone(), what.clone());
        let (path, proof, of, stage) = operation
            .blocking(move || {
                // Data that was inherited bears the name of the Tenant that kept it.
                let uid = restore_points::maker(&tree, &point)?.unwrap_or(uid);
                let archive_dir = ArchiveDir::open(&tree, &uid, &point)?;
                Ok((
                    archive_dir.path().to_owned(),
                    archive_dir.prove()?,
                    archive_dir.of(&what),
                    archive_dir.beside_name(n),
                ))
            })
            .await?;
        Ok(Self { source: from_engine(operation, &path).await?, proof, of, stage })
    }

    fn arguments(&self, n: usize) -> Vec<String> {
        let name = n.to_string();
        words(&[
            "--shelf",
            ARCHIVE_DIR_AT,
            "--name",
            &name,
            "--of",
            &self.of,
            "--proof",
            &self.proof,
            "--tell",
        ])
    }
}

/// A path of ours as the engine sees it.
async fn from_engine(operation: &OperationContext, path: &Path) -> Result<String, StepError> {
    let path = path.to_string_lossy().into_owned();
    let Some(own) = own_id() else { return Ok(path) };
    match operation.host.engine.likeness(&own).await.map(|own: Likeness| own.mounts()) {
        Ok(mounts) => translated(&path, &mounts).map_err(|problem| {
            let message = format!("this agent runs in a container, and {problem}");
            StepError::new(FailureCategory::SnapshotFailed, message)
        }),
        // Another engine runs this container; that both see the same folder is proven by what is in it.
        Err(error) if error.is_missing() => Ok(path),
        Err(error) => Err(error.into()),
    }
}

fn translated(path: &str, mounts: &[Mounted]) -> Result<String, String> {
    let Some(Mounted { from: MountedFrom::Host(source), at, writable: true }) = covering(path, mounts) else {
        return Err(format!(
            "{path} is not on a folder of the host that is mounted into it read-write, so a helper container can't be \
             given it: mount the tenant's directory at the same path"
        ));
    };
    let below = Path::new(path).strip_prefix(at).map_err(|error| error.to_string())?;
    let seen =
        if below.as_os_str().is_empty() { PathBuf::from(source) } else { Path::new(source).join(below) };
    Ok(seen.to_string_lossy().into_owned())
}

/// What a helper is to do.
struct Job<'a> {
    n: usize,
    key: &'a VolumeName,
    volume: &'a str,
    writes: bool,
    archive_dir: Option<(String, bool)>,
    patience: Duration,
}

/// How following a helper ended.
enum Followed {
    Said(Said),
    /// It was ended before it could say anything.
    Lost(String),
}

impl Job<'_> {
    /// Has a helper do it. There is none any more when this has returned, unless the engine could not remove it.
    async fn run(
        &self,
        operation: &OperationContext,
        arguments: Vec<String>,
        sink: &dyn ProgressSink,
    ) -> Result<Said, StepError> {
        let engine = &operation.host.engine;
        let program = operation.blocking(|| Program::own().map_err(|problem| unusable(&problem))).await?;
        let tenant = operation.request.tenant.uid.to_string();
        let mut helper = Helper {
            name: format!("tenantry-helper-{tenant}-{}-{}", operation.id, self.n),
            tenant: tenant.clone(),
            image: String::new(),
            volume: self.volume.to_owned(),
            writes_volume: self.writes,
            archive_dir: self.archive_dir.clone(),
            arguments: std::iter::once("helper".to_owned()).chain(arguments).collect(),
        };
        let mut problem = String::new();
        for _ in 0..ATTEMPTS {
            engine.clear_helpers(&tenant).await?;
            helper.image = engine.own_image(&program).await.map_err(|error| self.explained(error))?;
            let id = match Box::pin(engine.start_helper(&helper)).await {
                Ok(id) => id,
                // Somebody has just pruned images.
                Err(error) if error.is_missing() => {
                    problem = error.to_string();
                    continue;
                }
                Err(error) => return Err(self.explained(error)),
            };
            let followed = self.follow(operation, &id, sink).await;
            let cleared = engine.clear_helpers(&tenant).await;
            match followed? {
                Followed::Said(Said::Failed { category, message }) => {
                    return Err(StepError::new(category, format!("volume {}: {message}", self.key)));
                }
                Followed::Said(said) => return cleared.map(|_| said).map_err(StepError::from),
                Followed::Lost(how) => problem = how,
            }
            cleared?;
            tracing::warn!(operation = %operation.id, volume = self.volume, problem, "a helper container was ended; once more");
        }
        let message = format!("volume {}: its helper container {problem}, {ATTEMPTS} times", self.key);
        Err(StepError::new(FailureCategory::EngineFault, message))
    }

    async fn follow(
        &self,
        operation: &OperationContext,
        id: &str,
        sink: &dyn ProgressSink,
    ) -> Result<Followed, StepError> {
        let engine = &operation.host.engine;
        let host = &operation.host;
        let now = || host.runtime.instant();
        let (began, mut answered, mut further) = (now(), now(), now());
        let mut done = 0;
        loop {
            match engine.helper_state(id).await {
                Ok(HelperState::Runs) => {
                    answered = now();
                    let heard = engine.heard(id, 1).await.unwrap_or_default();
                    if let Some(Said::Progress { bytes }) = last(&heard.said)
                        && bytes > done
                    {
                        sink.progress(bytes - done);
                        (done, further) = (bytes, now());
                    }
                }
                Ok(HelperState::Ended { code, problem }) => {
                    let heard = engine.heard(id, LAST_LINES).await?;
                    return Ok(match last(&heard.said) {
                        Some(Said::Progress { .. }) | None => {
                            let more = tail(&heard.complained);
                            Followed::Lost(
                                format!("ended with code {code} {problem} {more}").trim().to_owned(),
                            )
                        }
                        Some(said) => Followed::Said(said),
                    });
                }
                Ok(HelperState::Gone) => return Ok(Followed::Lost("was removed".to_owned())),
                Err(error) if host.since(answered) > host.limits.away => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "waiting for the engine, and a helper"),
            }
            if host.since(further) > self.patience {
                let seconds = self.patience.as_secs();
                let message =
                    format!("volume {}: its helper container was no further after {seconds} s", self.key);
                return Err(StepError::new(FailureCategory::SnapshotFailed, message));
            }
            let wait = if host.since(began) < AT_FIRST { POLL } else { SLOWLY };
            host.runtime.sleep(wait).await;
        }
    }

    fn explained(&self, error: EngineError) -> StepError {
        let error = StepError::from(error);
        let full = error.message.contains("no space left");
        let category = if full { FailureCategory::DiskFull } else { error.category };
        let message = format!("volume {}, by a helper container: {}", self.key, error.message);
        StepError { category, message, ..error }
    }

    fn strange(&self, said: &Said) -> StepError {
        let message = format!("volume {}: its helper container said {said:?}", self.key);
        StepError::new(FailureCategory::AgentFault, message)
    }
}

fn unusable(problem: &str) -> StepError {
    let message = format!(
        "this agent does not see the engine's data, and its own program can't be made a helper container of: {problem}"
    );
    StepError::new(FailureCategory::SnapshotFailed, message)
}

/// The last line that is whole.
fn last(said: &str) -> Option<Said> {
    said.lines().rev().find_map(|line| serde_json::from_str(line).ok())
}

fn tail(text: &str) -> String {
    let text = text.trim();
    let skipped = text.chars().count().saturating_sub(COMPLAINT);
    text.chars().skip(skipped).collect()
}

/// Nobody is told.
struct NoProgress;

impl ProgressSink for NoProgress {
    fn progress(&self, _bytes: u64) {}

    fn called_off(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    fn mounted(from: MountedFrom, at: &str, writable: bool) -> Mounted {
        Mounted { from, at: at.to_owned(), writable }
    }

    fn host(source: &str) -> MountedFrom {
        MountedFrom::Host(source.to_owned())
    }

    #[test]
    fn a_path_is_translated_by_the_mount_that_is_nearest_above_it() {
        let mounts = [mounted(host("/disks/a"), "/srv", true), mounted(host("/disks/b"), "/srv/acme", true)];
        assert_eq!(translated("/srv/acme/.tenantry/x", &mounts), Ok("/disks/b/.tenantry/x".to_owned()));
        assert_eq!(translated("/srv/acme", &mounts), Ok("/disks/b".to_owned()));
        assert_eq!(translated("/srv/acme2/x", &mounts), Ok("/disks/a/acme2/x".to_owned()));
    }

    #[rstest]
    #[case::nowhere(mounted(MountedFrom::Nowhere, "/srv", true))]
    #[case::a_volume(mounted(MountedFrom::Volume("v".to_owned()), "/srv", true))]
    #[case::read_only(mounted(host("/srv"), "/srv", false))]
    #[case::another_folder(mounted(host("/srv2"), "/srv2", true))]
    fn p2_a_path_that_the_engine_can_not_be_told_is_refused(#[case] mount: Mounted) {
        let problem = translated("/srv/acme/x", &[mount]).unwrap_err();
        assert!(problem.contains("mount the tenant's directory at the same path"), "{problem}");
    }

    #[test]
    fn a_folder_is_a_volumes_data_only_beneath_the_folder_that_was_looked_at_and_with_nothing_in_the_way() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().canonicalize().unwrap();
        std::fs::create_dir_all(root.join("acme_db/_data")).unwrap();
        std::fs::create_dir_all(root.join("elsewhere/_data")).unwrap();
        std::os::unix::fs::symlink(root.join("elsewhere"), root.join("acme_link")).unwrap();
        assert!(is_in(&root, "acme_db", &root.join("acme_db/_data")));
        assert!(!is_in(&root, "acme_db", Path::new("/var/lib/elsewhere/acme_db/_data")));
        assert!(!is_in(&root, "acme_link", &root.join("acme_link/_data")));
        assert!(!is_in(&root, "acme_gone", &root.join("acme_gone/_data")));
    }

    #[test]
    fn what_came_of_it_is_the_last_line_that_is_whole() {
        let lines = "{\"progress\":{\"bytes\":5}}\n\"restored\"\n";
        assert_eq!(last(lines), Some(Said::Restored));
        assert_eq!(last("{\"progress\":{\"bytes\":5}}\n{\"fail"), Some(Said::Progress { bytes: 5 }));
        assert_eq!(last("thread 'main' panicked"), None);
        assert_eq!(tail(&"x".repeat(1_000)).len(), COMPLAINT);
    }
}
