//! An agent's image: its own static program and the host's compose, and nothing else.

use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, ensure};

const PLUGIN: &str = "/usr/local/lib/docker/cli-plugins/docker-compose";

/// What images of agents are made of.
pub struct AgentImage(tempfile::TempDir);

impl AgentImage {
    /// Gathers it.
    pub fn new() -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let root = folder.path();
        copy(&tenantry_tests::program("tenantry-agent")?, &root.join("tenantry-agent"))?;
        copy(Path::new(PLUGIN), &root.join(PLUGIN.trim_start_matches('/')))?;
        // The plugin may be linked dynamically: what it needs comes along.
        let needed = Command::new("ldd").arg(PLUGIN).output()?;
        let needed = String::from_utf8_lossy(&needed.stdout).into_owned();
        for library in needed.split_whitespace().filter(|word| word.starts_with('/')) {
            copy(Path::new(library), &root.join(library.trim_start_matches('/')))?;
        }
        std::fs::create_dir_all(root.join("tmp"))?;
        Ok(Self(folder))
    }

    /// Makes an image of it.
    pub fn build(&self, reference: &str, entrypoint: &str) -> Result<()> {
        let mut tar = Command::new("tar");
        tar.args(["--numeric-owner", "--owner=0", "--group=0", "-C"])
            .arg(self.0.path())
            .args(["-cf", "-", "."]);
        let archive = tar.output()?.stdout;
        let version = format!("ENV VERSION={reference}");
        let mut import = Command::new("docker")
            .args(["import", "--change", &version, "--change", &format!("ENTRYPOINT [{entrypoint}]")])
            .args(["--change", "ENV PATH=/", "--change", "ENV HOME=/", "-", reference])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()?;
        import.stdin.take().context("no standard input")?.write_all(&archive)?;
        ensure!(import.wait()?.success(), "docker import of {reference}");
        Ok(())
    }
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    std::fs::create_dir_all(to.parent().context("a folder")?)?;
    std::fs::copy(from, to).with_context(|| from.display().to_string())?;
    Ok(())
}
