//! Debian packages.

use std::path::Path;

use anyhow::{Result, bail};

use super::Consent;
use crate::shell;

/// A program that must be there, and the packages that bring it.
const NEEDED: [(&str, &[&str]); 7] = [
    ("docker", &["docker.io", "iptables"]),
    ("docker-registry", &["docker-registry"]),
    ("kubectl", &["kubernetes-client"]),
    ("gcc", &["gcc", "libc6-dev"]),
    ("tar", &["tar"]),
    ("strace", &["strace"]),
    ("zstd", &["zstd"]),
];

/// Installs the packages of programs that are missing.
pub fn ensure(consent: Consent) -> Result<()> {
    for (program, hint) in [("go", "https://go.dev/doc/install"), ("cargo", "https://rustup.rs")] {
        if find(program).is_none() {
            bail!("{program} is missing, and is not installed by this command: see {hint}");
        }
    }
    let mut missing: Vec<&str> = Vec::new();
    for (program, packages) in NEEDED {
        if find(program).is_none() {
            missing.extend(packages);
        }
    }
    // A docker client alone, without an engine to start and without one that answers.
    if find("docker").is_some() && find("dockerd").is_none() && !super::engine::answers() {
        missing.extend(["docker.io", "iptables"]);
    }
    if missing.is_empty() {
        return Ok(());
    }
    if find("apt-get").is_none() {
        bail!("{} must be installed; on a system without apt-get that is up to you", missing.join(", "));
    }
    consent.to(&format!("install {} with apt-get", missing.join(", ")))?;
    shell::step(&format!("Installing {}", missing.join(", ")), || {
        as_root(&["apt-get", "update"])?;
        let mut arguments = vec!["apt-get", "install", "--yes", "--no-install-recommends"];
        arguments.extend(&missing);
        as_root(&arguments)
    })
}

/// Runs a command as root: as it is, or through sudo.
pub fn as_root(words: &[&str]) -> Result<()> {
    let root = shell::quietly(&mut shell::command("id", &["-u"]))?.trim() == "0";
    let mut words = words.to_vec();
    if !root {
        if find("sudo").is_none() {
            bail!("this needs root: run as root `{}`, then this command again", words.join(" "));
        }
        words.insert(0, "sudo");
    }
    let mut command = shell::command(words[0], &words[1..]);
    command.env("DEBIAN_FRONTEND", "noninteractive");
    shell::quietly(&mut command).map(drop)
}

/// A program on the PATH, or where Debian puts those of root.
pub fn find(program: &str) -> Option<std::path::PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let system = ["/usr/sbin", "/sbin"].map(Path::new).map(Path::to_path_buf);
    std::env::split_paths(&path).chain(system).map(|folder| folder.join(program)).find(|file| file.is_file())
}
