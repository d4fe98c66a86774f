//! Running other programs, and saying what is done and how long it took.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use parking_lot::Mutex;

/// The workspace's root.
pub fn root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}

/// Where built programs and other tools are put.
pub fn target() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from)
}

/// A home without a profile, made if need be: that of whoever works here may take longer to log in than a plan takes, and
/// each plan logs in.
pub fn home_without_profile() -> Result<PathBuf> {
    let home = target().join("home");
    std::fs::create_dir_all(&home)?;
    Ok(home)
}

/// Cargo's folder of this machine's target: the one that this program came from.
pub fn of_this_target() -> Result<PathBuf> {
    let this = std::env::current_exe().context("where this program is")?;
    let folder = this.parent().and_then(Path::parent);
    Ok(folder.context("cargo's folder of this program's target")?.to_owned())
}

/// Where cargo puts programs of this machine's target: its `debug` or `release`.
pub fn built(profile: &str) -> Result<PathBuf> {
    Ok(of_this_target()?.join(profile))
}

/// A command that runs in the workspace's root.
pub fn command(program: &str, arguments: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(arguments).current_dir(root());
    command
}

/// The steps that were done so far, with their seconds.
static STEPS: Mutex<Vec<(String, f64)>> = Mutex::new(Vec::new());

/// Says what is done, does it, and says how long it took; steps may be done beside each other.
pub fn step<T>(what: &str, work: impl FnOnce() -> Result<T>) -> Result<T> {
    println!("==> {what}");
    let begun = Instant::now();
    let result = work().with_context(|| what.to_owned())?;
    let seconds = begun.elapsed().as_secs_f64();
    println!("    {what}: done in {seconds:.1} s");
    STEPS.lock().push((what.to_owned(), seconds));
    Ok(result)
}

/// What was done so far and how many seconds each step took, in the order in which they ended.
pub fn steps() -> Vec<(String, f64)> {
    STEPS.lock().clone()
}

/// Runs a command that must succeed, in a folder, and gives way to all else that runs; what it says is shown only when
/// it does not succeed.
pub fn in_background(program: &str, arguments: &[&str], folder: &Path) -> Result<()> {
    quietly(gives_way(15, program).args(arguments).current_dir(folder)).map(drop)
}

/// A command that gives way to others: the higher the niceness, of at most 19, the more.
pub fn gives_way(niceness: u8, program: impl AsRef<OsStr>) -> Command {
    let mut command = Command::new("nice");
    command.args(["-n", &niceness.to_string()]).arg(program);
    command
}

/// Runs a command that must succeed; what it says goes to the terminal.
pub fn run(command: &mut Command) -> Result<()> {
    let shown = show(command);
    let status =
        command.stdin(Stdio::null()).status().with_context(|| format!("{shown} could not be run"))?;
    if !status.success() {
        bail!("{shown} failed ({status})");
    }
    Ok(())
}

/// Runs a command that must succeed; what it says is shown only when it does not.
pub fn quietly(command: &mut Command) -> Result<String> {
    let shown = show(command);
    let output =
        command.stdin(Stdio::null()).output().with_context(|| format!("{shown} could not be run"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    if !output.status.success() {
        bail!("{shown} failed ({}):\n{said}{}", output.status, String::from_utf8_lossy(&output.stderr));
    }
    Ok(said)
}

/// Whether a command can be run and succeeds.
pub fn works(program: &str, arguments: &[&str]) -> bool {
    let mut command = command(program, arguments);
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

fn show(command: &Command) -> String {
    let words: Vec<_> = std::iter::once(command.get_program()).chain(command.get_args()).collect();
    words.iter().map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}
