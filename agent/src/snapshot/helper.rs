//! What the agent's own program does when it is started to work on one folder alone: in a container that mounts a
//! volume which the agent itself can't see, and in benchmarks. It says on standard output what came of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::archive_dir::{PROOF, PROOF_LIMIT, TOP, keep};
use super::archive_reader::StoredArchive;
use super::entry::Text;
use super::error::SnapshotError;
use super::exchange_restore::ExchangeRestore;
use super::in_place_restore::InPlaceRestore;
use super::source::Source;
use super::take::estimate;
use super::{Archive, Estimate, ProgressSink, threads};
use crate::files::{DiskIo, Folder};
use tenantry_protocol::FailureCategory;

/// How often a helper tells how far it is.
const TELL_EVERY: Duration = Duration::from_millis(500);

/// What a helper is to do.
#[derive(Debug, clap::Subcommand)]
pub enum Job {
    /// Says how much there is
    Estimate {
        /// The folder
        #[arg(long)]
        from: PathBuf,
    },
    /// Keeps a folder and reads back what was written
    Keep {
        /// The folder
        #[arg(long)]
        from: PathBuf,
        #[command(flatten)]
        archive_dir: ArchiveDirArguments,
    },
    /// Replaces what is in a folder by what was kept
    Restore {
        /// The folder
        #[arg(long)]
        to: PathBuf,
        /// The name of the folder in it that is used meanwhile
        #[arg(long)]
        stage: String,
        /// What keeping it has said, as JSON
        #[arg(long)]
        archive: String,
        #[command(flatten)]
        archive_dir: ArchiveDirArguments,
    },
    /// Exchanges a folder for what was kept
    Exchange {
        /// The folder
        #[arg(long)]
        to: PathBuf,
        /// What keeping it has said, as JSON
        #[arg(long)]
        archive: String,
        #[command(flatten)]
        archive_dir: ArchiveDirArguments,
    },
}

/// Where data is kept.
#[derive(Debug, clap::Args)]
pub struct ArchiveDirArguments {
    /// The folder of archives
    #[arg(long = "shelf", value_name = "SHELF")]
    archive_dir: PathBuf,
    /// The archive's name, less its ending
    #[arg(long)]
    name: String,
    /// Whose data it is
    #[arg(long)]
    of: String,
    /// What the folder must hold to be the one that is meant
    #[arg(long)]
    proof: Option<String>,
    /// Tell how far the work is, a line each time
    #[arg(long)]
    tell: bool,
}

/// What a helper says, as one line of JSON. All but the last line are of progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Said {
    /// How far it is.
    Progress {
        /// Bytes that were read or written so far.
        bytes: u64,
    },
    /// How much there is.
    Estimated(Estimate),
    /// What was kept.
    Kept(Box<Archive>),
    /// It was brought back.
    Restored,
    /// It failed.
    Failed {
        /// What kind of failure.
        category: FailureCategory,
        /// What went wrong and what to do.
        message: String,
    },
}

/// Does a job and says what came of it.
pub fn run(job: Job) -> ExitCode {
    let done = done(job);
    let code = if done.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    let said =
        done.unwrap_or_else(|error| Said::Failed { category: error.category(), message: error.to_string() });
    if say(&said) { code } else { ExitCode::FAILURE }
}

fn say(said: &Said) -> bool {
    let told = serde_json::to_string(said).map(|json| writeln!(std::io::stdout().lock(), "{json}"));
    matches!(told, Ok(Ok(())))
}

fn done(job: Job) -> Result<Said, SnapshotError> {
    let top = Text(TOP.as_bytes().to_vec());
    match job {
        Job::Estimate { from } => Ok(Said::Estimated(estimate(&Source::whole(&from)?)?.unwrap_or_default())),
        Job::Keep { from, archive_dir } => {
            let folder = archive_dir.open()?;
            let teller = Teller::new(archive_dir.tell);
            let kept =
                keep(&Source::whole(&from)?, top, &archive_dir.of, &folder, &archive_dir.name, &teller)?;
            let kept = kept.ok_or_else(|| SnapshotError::refused(from, "there is nothing"))?;
            Ok(Said::Kept(Box::new(kept)))
        }
        Job::Restore { to, stage, archive, archive_dir } => {
            let (folder, archive) = opened(&archive_dir, &archive)?;
            let to = Folder::open(&to, DiskIo::default())?;
            let stored = StoredArchive {
                archive: &archive,
                folder: &folder,
                prefix: &top,
                of: &archive_dir.of,
                threads: threads(),
            };
            InPlaceRestore { top: &to, stage: &stage }.restore(&stored, &Teller::new(archive_dir.tell))?;
            Ok(Said::Restored)
        }
        Job::Exchange { to, archive, archive_dir } => {
            let (folder, archive) = opened(&archive_dir, &archive)?;
            let (Some(parent), Some(name)) = (to.parent(), to.file_name().and_then(|name| name.to_str()))
            else {
                return Err(SnapshotError::refused(to, "this folder has no name"));
            };
            let parent = Folder::open(parent, DiskIo::default())?;
            let beside = parent.again()?;
            let exchange = ExchangeRestore {
                parent,
                name: name.to_owned(),
                beside,
                stage: ".tenantry-exchange".to_owned(),
            };
            let stored = StoredArchive {
                archive: &archive,
                folder: &folder,
                prefix: &top,
                of: &archive_dir.of,
                threads: threads(),
            };
            exchange.restore(&stored, &Teller::new(archive_dir.tell))?;
            Ok(Said::Restored)
        }
    }
}

impl ArchiveDirArguments {
    /// The folder, proven to be the one that is meant: an engine may see another one at the same path.
    fn open(&self) -> Result<Folder, SnapshotError> {
        let folder = Folder::open(&self.archive_dir, DiskIo::default())?;
        let Some(proof) = &self.proof else { return Ok(folder) };
        match folder.read(PROOF, PROOF_LIMIT)? {
            Some((found, _)) if found == proof.as_bytes() => Ok(folder),
            _ => {
                let problem = "what the engine has mounted here is not the restore point that the agent sees: the \
                               tenant's directory must be the same one for both";
                Err(SnapshotError::refused(&self.archive_dir, problem))
            }
        }
    }
}

fn opened(archive_dir: &ArchiveDirArguments, archive: &str) -> Result<(Folder, Archive), SnapshotError> {
    let archive = serde_json::from_str(archive).map_err(|error| {
        SnapshotError::damaged(&archive_dir.archive_dir, format!("its record does not decode: {error}"))
    })?;
    Ok((archive_dir.open()?, archive))
}

/// Tells whoever follows how far the work is; nobody, unless that was asked for.
struct Teller(Option<Mutex<(u64, Instant)>>);

impl Teller {
    fn new(tell: bool) -> Self {
        Self(tell.then(|| Mutex::new((0, Instant::now()))))
    }
}

impl ProgressSink for Teller {
    fn progress(&self, more: u64) {
        let Some(so_far) = &self.0 else { return };
        let mut so_far = so_far.lock();
        so_far.0 += more;
        if so_far.1.elapsed() >= TELL_EVERY {
            so_far.1 = Instant::now();
            // The line is lost on whoever is gone; what came of it all is said at the end.
            say(&Said::Progress { bytes: so_far.0 });
        }
    }

    fn called_off(&self) -> bool {
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn keep_in(folder: &std::path::Path, proof: &str) -> Result<Said, SnapshotError> {
        let archive_dir = ArchiveDirArguments {
            archive_dir: folder.join("shelf"),
            name: "0".to_owned(),
            of: "u volume v".to_owned(),
            proof: Some(proof.to_owned()),
            tell: false,
        };
        done(Job::Keep { from: folder.join("data"), archive_dir })
    }

    #[test]
    fn p8_a_helper_keeps_nothing_on_a_shelf_that_is_not_the_agents() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path().canonicalize().unwrap();
        for name in ["data", "shelf"] {
            std::fs::create_dir(folder.join(name)).unwrap();
        }
        std::fs::write(folder.join("data/rows"), "rows").unwrap();
        // The engine may have another folder at that path, or one of another time.
        for found in [None, Some("another"), Some("a proof that goes on")] {
            if let Some(found) = found {
                std::fs::write(folder.join("shelf").join(PROOF), found).unwrap();
            }
            let before = std::fs::read_dir(folder.join("shelf")).unwrap().count();
            let refused = keep_in(&folder, "a proof").unwrap_err();
            assert!(refused.to_string().contains("not the restore point that the agent sees"), "{refused}");
            assert_eq!(std::fs::read_dir(folder.join("shelf")).unwrap().count(), before);
        }
        std::fs::write(folder.join("shelf").join(PROOF), "a proof").unwrap();
        assert!(matches!(keep_in(&folder, "a proof"), Ok(Said::Kept(archive)) if archive.entries == 2));
    }
}
