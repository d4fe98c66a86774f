//! What the agent's own program does when it is started to work on one folder alone: in a container that mounts a
//! volume which the agent itself can't see, and in benchmarks. It says on standard output what came of it.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use serde::{Deserialize, Serialize};

use super::entry::Text;
use super::error::SnapshotError;
use super::roll::Roll;
use super::shelf::{TOP, keep};
use super::source::Source;
use super::swap::Swap;
use super::take::estimate;
use super::unpack::Unpacking;
use super::{Archive, Estimate, Watch, threads};
use crate::files::{Calls, Folder};
use tenantry_protocol::FailureCategory;

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
        shelf: ShelfArguments,
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
        shelf: ShelfArguments,
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
        shelf: ShelfArguments,
    },
}

/// Where data is kept.
#[derive(Debug, clap::Args)]
pub struct ShelfArguments {
    /// The folder of archives
    #[arg(long)]
    shelf: PathBuf,
    /// The archive's name, less its ending
    #[arg(long)]
    name: String,
    /// Whose data it is
    #[arg(long)]
    of: String,
}

/// What a helper says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Said {
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
    let told = serde_json::to_string(&said).map(|json| writeln!(std::io::stdout().lock(), "{json}"));
    if matches!(told, Ok(Ok(()))) { code } else { ExitCode::FAILURE }
}

fn done(job: Job) -> Result<Said, SnapshotError> {
    let top = Text(TOP.as_bytes().to_vec());
    match job {
        Job::Estimate { from } => Ok(Said::Estimated(estimate(&Source::whole(&from)?)?.unwrap_or_default())),
        Job::Keep { from, shelf } => {
            let folder = Folder::open(&shelf.shelf, Calls::default())?;
            let kept = keep(&Source::whole(&from)?, top, &shelf.of, &folder, &shelf.name, &Quiet)?;
            let kept = kept.ok_or_else(|| SnapshotError::refused(from, "there is nothing"))?;
            Ok(Said::Kept(Box::new(kept)))
        }
        Job::Restore { to, stage, archive, shelf } => {
            let (folder, archive) = opened(&shelf, &archive)?;
            let to = Folder::open(&to, Calls::default())?;
            let unpacking = Unpacking {
                archive: &archive,
                folder: &folder,
                prefix: &top,
                of: &shelf.of,
                threads: threads(),
            };
            Roll { top: &to, stage: &stage }.restore(&unpacking, &Quiet)?;
            Ok(Said::Restored)
        }
        Job::Exchange { to, archive, shelf } => {
            let (folder, archive) = opened(&shelf, &archive)?;
            let (Some(parent), Some(name)) = (to.parent(), to.file_name().and_then(|name| name.to_str()))
            else {
                return Err(SnapshotError::refused(to, "this folder has no name"));
            };
            let parent = Folder::open(parent, Calls::default())?;
            let beside = parent.again()?;
            let swap = Swap { parent, name: name.to_owned(), beside, stage: ".tenantry-exchange".to_owned() };
            let unpacking = Unpacking {
                archive: &archive,
                folder: &folder,
                prefix: &top,
                of: &shelf.of,
                threads: threads(),
            };
            swap.restore(&unpacking, &Quiet)?;
            Ok(Said::Restored)
        }
    }
}

fn opened(shelf: &ShelfArguments, archive: &str) -> Result<(Folder, Archive), SnapshotError> {
    let archive = serde_json::from_str(archive).map_err(|error| {
        SnapshotError::damaged(&shelf.shelf, format!("its record does not decode: {error}"))
    })?;
    Ok((Folder::open(&shelf.shelf, Calls::default())?, archive))
}

/// Nobody follows a helper.
struct Quiet;

impl Watch for Quiet {
    fn progress(&self, _bytes: u64) {}

    fn called_off(&self) -> bool {
        false
    }
}
