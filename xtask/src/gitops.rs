//! `cargo xtask gitops`: what a GitOps tool sees, by the tool itself. Building one takes too long for every test run.

use anyhow::Result;
use test_images::Registry;

use crate::setup::{self, Consent, programs};
use crate::{faults, shell};

/// Builds Flux's controller and runs the scenarios that need it.
pub fn run() -> Result<()> {
    let parts = setup::everything(Consent::new(false), setup::Profile::Dev)?;
    let controller = programs::kustomize_controller()?;
    let registry = Registry::start(&shell::target().join("gitops-registry"), None)?;
    shell::step("What Flux sees", || {
        let arguments = ["-p", "tenantry-tests", "--test", "scenarios", "--", "--ignored", "flux::"];
        let mut scenarios = faults::test(&parts, &registry, &arguments);
        shell::run(scenarios.env("TENANTRY_KUSTOMIZE_CONTROLLER", controller))
    })
}
