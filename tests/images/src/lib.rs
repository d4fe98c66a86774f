//! A registry on loopback and the stand-in application's images in it, for scenarios, quickstart and benchmarks.
//!
//! Nothing can be pulled from elsewhere, so every image is made here: the static stand-in binary `FROM scratch`, with
//! variables that say how it behaves.

mod image;
mod push;
mod registry;

use std::process::Command;

use anyhow::{Context as _, Result, bail};

pub use image::Image;
pub use registry::Registry;

/// Runs a docker command that must succeed.
pub fn docker(arguments: &[&str]) -> Result<()> {
    let output = Command::new("docker").args(arguments).output().context("docker could not be run")?;
    if !output.status.success() {
        bail!("docker {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
