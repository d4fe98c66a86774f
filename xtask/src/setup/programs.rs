//! What we build ourselves: the programs, the control plane and the stand-in application.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use sha2::{Digest as _, Sha256};

use crate::shell;

/// The module and main package of Flux's controller.
const KUSTOMIZE_CONTROLLER: &str = "github.com/fluxcd/kustomize-controller";

/// How our own programs are built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Profile {
    /// Quickly: for trying and testing.
    Dev,
    /// As they are shipped: for measuring.
    Release,
    /// They are in this folder already.
    Built(PathBuf),
}

/// Builds our own programs where they are not built already: their folder.
pub fn own(profile: Profile) -> Result<PathBuf> {
    match profile {
        // Of the whole workspace, as `xtask` itself is: what both depend on is then built once.
        Profile::Dev => build(&["--workspace"], "debug"),
        Profile::Release => build(
            &["--release", "-p", "tenantry", "-p", "tenantry-operator", "-p", "tenantry-agent"],
            "release",
        ),
        Profile::Built(folder) => Ok(folder),
    }
}

fn build(selected: &[&str], folder: &str) -> Result<PathBuf> {
    shell::step("Building tenantry, tenantry-operator and tenantry-agent", || {
        let mut build = shell::command("cargo", &["build", "--locked", "--bins"]);
        shell::run(build.args(selected))?;
        gather(folder)
    })
}

/// Puts the three programs that cargo built into one folder of their own, where no other build replaces them.
pub fn gather(folder: &str) -> Result<PathBuf> {
    let bin_dir = shell::target().join("programs").join(folder);
    std::fs::create_dir_all(&bin_dir)?;
    for name in ["tenantry", "tenantry-operator", "tenantry-agent"] {
        let (from, to) = (shell::built(folder)?.join(name), bin_dir.join(name));
        // By another name first: the program in its place may be running, and is never missing.
        let new = bin_dir.join(format!("{name}.new"));
        let _ = std::fs::remove_file(&new);
        std::fs::hard_link(&from, &new).with_context(|| format!("{} can't be linked", from.display()))?;
        std::fs::rename(&new, &to)?;
        let _ = std::fs::remove_file(&new);
    }
    Ok(bin_dir)
}

/// Builds the stand-in application.
pub fn standin() -> Result<PathBuf> {
    shell::step("Building the stand-in application", || {
        shell::run(&mut shell::command("cargo", &["build", "--locked", "--release", "-p", "standin"]))?;
        Ok(shell::built("release")?.join("standin"))
    })
}

/// Builds the control plane.
pub fn standalone() -> Result<PathBuf> {
    by_go("the control plane", "tenantry-standalone", &shell::root().join("standalone"), ".")
}

/// Builds Flux's kustomize-controller, as it is published; the definition of its resource lies beside it, with `.yaml`
/// for its extension.
pub fn kustomize_controller() -> Result<PathBuf> {
    let module = shell::root().join("gitops/flux");
    let program =
        by_go("Flux's kustomize-controller", "kustomize-controller", &module, KUSTOMIZE_CONTROLLER)?;
    let mut list = shell::command("go", &["list", "-find", "-f", "{{.Dir}}", KUSTOMIZE_CONTROLLER]);
    let published = shell::quietly(list.current_dir(&module))?;
    let definition =
        Path::new(published.trim()).join("config/crd/bases/kustomize.toolkit.fluxcd.io_kustomizations.yaml");
    let text = std::fs::read(&definition).with_context(|| definition.display().to_string())?;
    std::fs::write(program.with_extension("yaml"), text)?;
    Ok(program)
}

/// Builds a program of a module. Linking it takes a quarter of a minute even when nothing changed, so its sources are
/// compared first.
fn by_go(what: &str, name: &str, module: &Path, package: &str) -> Result<PathBuf> {
    let program = shell::target().join("tools").join(name);
    let stamp = program.with_extension("sources");
    let digest = digest(module)?;
    if program.exists() && std::fs::read_to_string(&stamp).ok().as_deref() == Some(&digest) {
        return Ok(program);
    }
    shell::step(&format!("Building {what} (some minutes when it is the first time)"), || {
        let output = program.to_str().context("a path that is text")?;
        let mut build =
            shell::command("go", &["build", "-trimpath", "-ldflags", "-s -w", "-o", output, package]);
        shell::run(build.current_dir(module))?;
        Ok(std::fs::write(&stamp, &digest)?)
    })?;
    Ok(program)
}

fn digest(folder: &Path) -> Result<String> {
    let mut files: Vec<PathBuf> =
        std::fs::read_dir(folder)?.map(|entry| entry.map(|entry| entry.path())).collect::<Result<_, _>>()?;
    files.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "go" || extension == "mod" || extension == "sum")
    });
    files.sort();
    let mut hash = Sha256::new();
    for file in files {
        hash.update(file.file_name().unwrap_or_default().as_encoded_bytes());
        hash.update(std::fs::read(&file)?);
    }
    Ok(format!("{:x}", hash.finalize()))
}
