//! The harness of the scenarios: real processes, each ended with the test that started it.
//!
//! `cargo xtask test` prepares what the scenarios need and says where it is in the environment:
//!
//! | variable | what |
//! |---|---|
//! | `TENANTRY_BIN_DIR` | `tenantry`, `tenantry-operator`, `tenantry-agent` |
//! | `TENANTRY_STANDALONE` | the embedded control plane's program |
//! | `TENANTRY_STANDIN` | the stand-in application's static binary |
//! | `TENANTRY_TEST_REGISTRY` | `host:port` of the local registry |
//!
//! `cargo xtask gitops` sets one more: `TENANTRY_KUSTOMIZE_CONTROLLER`, Flux's program.
//!
//! A variable that is missing fails the test with a sentence: nothing is skipped.

pub mod control_plane;
pub mod docker;
pub mod process;
pub mod secrets;
pub mod world;

use std::path::PathBuf;

use anyhow::{Context as _, Result};

/// Reads a variable that `cargo xtask test` sets.
pub fn required(variable: &str) -> Result<String> {
    std::env::var(variable)
        .with_context(|| format!("{variable} is not set: run the scenarios through `cargo xtask test`"))
}

/// The path of one of our programs.
pub fn program(name: &str) -> Result<PathBuf> {
    Ok(PathBuf::from(required("TENANTRY_BIN_DIR")?).join(name))
}

/// Makes aws-lc-rs the one provider of cryptography in this process.
pub fn crypto() {
    // Fails only when a provider is installed already, which is as good.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
