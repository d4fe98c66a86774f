//! How a volume is reached: by the agent itself where it sees the engine's data, else by a helper container that is made
//! of the agent's own program.
//!
//! That a path looks like the volume's proves nothing: an agent in a container, or beside an engine that has its data
//! elsewhere, may have a folder of that very name. So the engine is made to create and remove an empty volume, and the
//! agent looks whether that comes and goes before its eyes. The other way round a helper is shown a file on the shelf,
//! which only the agent's own shelf has.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use tenantry_api::names::{OperationId, VolumeName};
use tenantry_protocol::FailureCategory;

use super::driver::Wrong;
use super::inside::covering;
use super::work::Work;
use crate::engine::{
    EngineError, Helper, HelperState, Likeness, Mounted, MountedFrom, Program, SHELF_AT, VOLUME_AT, Volume,
    own_id,
};
use crate::files::{Calls, Folder};
use crate::snapshot::helper::Said;
use crate::snapshot::{Estimate, Notes, Part, Shelf, Watch, What};

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
    /// How a volume is reached; refused where it is no plain one.
    pub async fn of(&mut self, work: &Work, key: &VolumeName, volume: &Volume) -> Result<Reach, Wrong> {
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
        // Others than root neither read nor give away what is somebody else's.
        if !rustix::process::geteuid().is_root() || !at.is_dir() {
            return Ok(Reach::Helped);
        }
        if matches!(self, Self::Unknown) {
            *self = look(work).await?.map_or(Self::None, Self::Clear);
        }
        let Self::Clear(root) = self else { return Ok(Reach::Helped) };
        let root = root.clone();
        let name = volume.name.clone();
        work.blocking(move || Ok(if is_in(&root, &name, &at) { Reach::Seen(at) } else { Reach::Helped }))
            .await
    }
}

/// The folder of all volumes, if we see it: what the engine makes and removes there comes and goes here.
async fn look(work: &Work) -> Result<Option<PathBuf>, Wrong> {
    let (engine, tenant) = (&work.host.engine, work.request.tenant.uid.as_str());
    let name = format!("tenantry-look-{tenant}-{}", work.id);
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
        let root = Folder::open(root, Calls::default()).ok()?;
        let data = root.below(name).ok()?.below("_data").ok()?;
        let flags = rustix::fs::fstatvfs(&data).ok()?.f_flag;
        let writable = !flags.contains(rustix::fs::StatVfsMountFlags::RDONLY);
        (root.mount().ok()? == data.mount().ok()?).then_some(writable)
    };
    data_in(root, name) == at && open() == Some(true)
}

/// How a volume of a restore point is reached now; refused where it is no longer this project's.
pub async fn now(work: &Work, sight: &mut Sight, key: &VolumeName, name: &str) -> Result<Reach, Wrong> {
    let refuse = |problem: &str| {
        let message = format!("volume {key} ({name}) can't be brought back: {problem}");
        Err(Wrong::new(FailureCategory::RestorePointUnusable, message))
    };
    match work.host.engine.volume(name).await? {
        None => refuse("it is gone; create it with docker compose, and go back again"),
        Some(volume) if volume.project.as_deref() != Some(work.request.place.project.as_str()) => {
            refuse("it is no longer this project's")
        }
        Some(volume) => sight.of(work, key, &volume).await,
    }
}

/// Ends what an agent has left that was killed: nothing else may touch the tenant's volumes meanwhile.
pub async fn clear(work: &Work) -> Result<(), Wrong> {
    let ended = work.host.engine.clear_helpers(work.request.tenant.uid.as_str()).await?;
    if ended > 0 {
        tracing::warn!(tenant = %work.request.tenant.name, operation = %work.id, ended, "a helper container outlived an agent that was killed");
    }
    Ok(())
}

/// How much there is in a volume that we don't see.
pub async fn estimate(work: &Work, n: usize, key: &VolumeName, name: &str) -> Result<Estimate, Wrong> {
    let job = Job { n, key, volume: name, writes: false, shelf: None, patience: ESTIMATING };
    match job.run(work, words(&["estimate", "--from", VOLUME_AT]), &Unwatched).await? {
        Said::Estimated(estimate) => Ok(estimate),
        other => Err(job.strange(&other)),
    }
}

/// Keeps a volume that we don't see, as the n-th part; it is read back by whoever has written it.
pub async fn keep(
    work: &Work,
    n: usize,
    what: &What,
    estimate: Estimate,
    watch: &dyn Watch,
) -> Result<Option<Part>, Wrong> {
    let What::Volume { key, name } = what else { return Ok(None) };
    let shown = Shown::on(work, &work.id, n, what).await?;
    let shelf = Some((shown.source.clone(), true));
    let job = Job { n, key, volume: name, writes: false, shelf, patience: patience(estimate.entries) };
    let mut arguments = words(&["keep", "--from", VOLUME_AT]);
    arguments.extend(shown.arguments(n));
    let said = job.run(work, arguments, watch).await?;
    let Said::Kept(archive) = said else { return Err(job.strange(&said)) };
    let (tree, uid, id, what) =
        (work.tree()?, work.request.tenant.uid.clone(), work.id.clone(), what.clone());
    let part = work.blocking(move || {
        let shelf = Shelf::open(&tree, &uid, &id)?;
        shelf.unprove()?;
        Ok(shelf.arrived(what, *archive)?)
    });
    part.await.map(Some)
}

/// Brings a volume back that we don't see, as the n-th part.
pub async fn restore(
    work: &Work,
    point: &OperationId,
    n: usize,
    part: &Part,
    watch: &dyn Watch,
) -> Result<(), Wrong> {
    let What::Volume { key, name } = &part.what else { return Ok(()) };
    let Some(archive) = &part.archive else {
        let message = format!("volume {key}: there was nothing to keep when the restore point was made");
        return Err(Wrong::new(FailureCategory::RestorePointUnusable, message));
    };
    let shown = Shown::on(work, point, n, &part.what).await?;
    let shelf = Some((shown.source.clone(), false));
    let job = Job { n, key, volume: name, writes: true, shelf, patience: patience(archive.entries) };
    // Notes are for people, and an argument has its bound.
    let archive = crate::snapshot::Archive { notes: Notes::default(), ..archive.clone() };
    let archive = serde_json::to_string(&archive)
        .map_err(|error| Wrong::new(FailureCategory::AgentFault, error.to_string()))?;
    let mut arguments =
        words(&["restore", "--to", VOLUME_AT, "--stage", &shown.stage, "--archive", &archive]);
    arguments.extend(shown.arguments(n));
    let said = job.run(work, arguments, watch).await?;
    if said != Said::Restored {
        return Err(job.strange(&said));
    }
    let (tree, uid, point) = (work.tree()?, work.request.tenant.uid.clone(), point.clone());
    work.blocking(move || Ok(Shelf::open(&tree, &uid, &point)?.unprove()?)).await
}

fn words(words: &[&str]) -> Vec<String> {
    words.iter().map(|&word| word.to_owned()).collect()
}

/// A helper tells how many bytes it has been through; what is done for each entry besides is not in that.
fn patience(entries: u64) -> Duration {
    STILL + Duration::from_millis(entries)
}

/// A restore point's shelf as a helper is shown it.
struct Shown {
    /// Where the engine sees it.
    source: String,
    /// What is on it that no other folder has.
    proof: String,
    of: String,
    stage: String,
}

impl Shown {
    async fn on(work: &Work, point: &OperationId, n: usize, what: &What) -> Result<Self, Wrong> {
        let (tree, uid) = (work.tree()?, work.request.tenant.uid.clone());
        let (point, what) = (point.clone(), what.clone());
        let (path, proof, of, stage) = work
            .blocking(move || {
                let shelf = Shelf::open(&tree, &uid, &point)?;
                Ok((shelf.path().to_owned(), shelf.prove()?, shelf.of(&what), shelf.beside_name(n)))
            })
            .await?;
        Ok(Self { source: from_engine(work, &path).await?, proof, of, stage })
    }

    fn arguments(&self, n: usize) -> Vec<String> {
        let name = n.to_string();
        words(&["--shelf", SHELF_AT, "--name", &name, "--of", &self.of, "--proof", &self.proof, "--tell"])
    }
}

/// A path of ours as the engine sees it.
async fn from_engine(work: &Work, path: &Path) -> Result<String, Wrong> {
    let path = path.to_string_lossy().into_owned();
    let Some(own) = own_id() else { return Ok(path) };
    match work.host.engine.likeness(&own).await.map(|own: Likeness| own.mounts()) {
        Ok(mounts) => translated(&path, &mounts).map_err(|problem| {
            let message = format!("this agent runs in a container, and {problem}");
            Wrong::new(FailureCategory::SnapshotFailed, message)
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
    shelf: Option<(String, bool)>,
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
    async fn run(&self, work: &Work, arguments: Vec<String>, watch: &dyn Watch) -> Result<Said, Wrong> {
        let engine = &work.host.engine;
        let program = work.blocking(|| Program::own().map_err(|problem| unusable(&problem))).await?;
        let tenant = work.request.tenant.uid.to_string();
        let mut helper = Helper {
            name: format!("tenantry-helper-{tenant}-{}-{}", work.id, self.n),
            tenant: tenant.clone(),
            image: String::new(),
            volume: self.volume.to_owned(),
            writes_volume: self.writes,
            shelf: self.shelf.clone(),
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
            let followed = self.follow(work, &id, watch).await;
            let cleared = engine.clear_helpers(&tenant).await;
            match followed? {
                Followed::Said(Said::Failed { category, message }) => {
                    return Err(Wrong::new(category, format!("volume {}: {message}", self.key)));
                }
                Followed::Said(said) => return cleared.map(|_| said).map_err(Wrong::from),
                Followed::Lost(how) => problem = how,
            }
            cleared?;
            tracing::warn!(operation = %work.id, volume = self.volume, problem, "a helper container was ended; once more");
        }
        let message = format!("volume {}: its helper container {problem}, {ATTEMPTS} times", self.key);
        Err(Wrong::new(FailureCategory::EngineFault, message))
    }

    async fn follow(&self, work: &Work, id: &str, watch: &dyn Watch) -> Result<Followed, Wrong> {
        let engine = &work.host.engine;
        let (began, mut answered, mut further) = (Instant::now(), Instant::now(), Instant::now());
        let mut done = 0;
        loop {
            match engine.helper_state(id).await {
                Ok(HelperState::Runs) => {
                    answered = Instant::now();
                    let heard = engine.heard(id, 1).await.unwrap_or_default();
                    if let Some(Said::Progress { bytes }) = last(&heard.said)
                        && bytes > done
                    {
                        watch.progress(bytes - done);
                        (done, further) = (bytes, Instant::now());
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
                Err(error) if answered.elapsed() > work.host.limits.away => return Err(error.into()),
                Err(error) => tracing::debug!(%error, "waiting for the engine, and a helper"),
            }
            if further.elapsed() > self.patience {
                let seconds = self.patience.as_secs();
                let message =
                    format!("volume {}: its helper container was no further after {seconds} s", self.key);
                return Err(Wrong::new(FailureCategory::SnapshotFailed, message));
            }
            tokio::time::sleep(if began.elapsed() < AT_FIRST { POLL } else { SLOWLY }).await;
        }
    }

    fn explained(&self, error: EngineError) -> Wrong {
        let wrong = Wrong::from(error);
        let full = wrong.message.contains("no space left");
        let category = if full { FailureCategory::DiskFull } else { wrong.category };
        let message = format!("volume {}, by a helper container: {}", self.key, wrong.message);
        Wrong { category, message, ..wrong }
    }

    fn strange(&self, said: &Said) -> Wrong {
        let message = format!("volume {}: its helper container said {said:?}", self.key);
        Wrong::new(FailureCategory::AgentFault, message)
    }
}

fn unusable(problem: &str) -> Wrong {
    let message = format!(
        "this agent does not see the engine's data, and its own program can't be made a helper container of: {problem}"
    );
    Wrong::new(FailureCategory::SnapshotFailed, message)
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
struct Unwatched;

impl Watch for Unwatched {
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
