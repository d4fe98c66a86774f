//! `cargo xtask quickstart`: the main job on real parts, each claim checked.

mod story;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::host::{self, Host};
use crate::setup::{self, Consent};
use crate::shell;

/// The compose project of the story; an earlier run's is removed first.
const PROJECT: &str = "tenantry-quickstart";

/// Tells the story; stays up afterwards unless `exit`.
pub fn run(exit: bool, yes: bool) -> Result<()> {
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGINT, signal_hook::consts::SIGTERM] {
        signal_hook::flag::register(signal, interrupted.clone())?;
    }
    let parts = setup::everything(Consent::new(yes), setup::Profile::Dev)?;
    host::remove_project(PROJECT)?;
    let mut host = Host::prepare("quickstart", &parts)?;
    let told = story::tell(&mut host, PROJECT, &interrupted);
    if told.is_ok() && !exit {
        stay_up(&mut host, &interrupted)?;
    }
    let ended = shell::step("Ending tenantry up, and removing what the story made", || {
        host.down()?;
        host::remove_project(PROJECT)
    });
    told.and(ended)
}

fn stay_up(host: &mut Host, interrupted: &AtomicBool) -> Result<()> {
    let kubeconfig = host.kubeconfig().to_owned();
    println!("\nIt stays up until Ctrl-C. In another terminal:\n");
    println!("    export KUBECONFIG={}", kubeconfig.display());
    println!("    kubectl get tenants -w");
    println!("    kubectl describe tenant hello");
    println!("    kubectl patch tenant hello --type merge -p '{{\"spec\":{{\"imageTag\":\"v1\"}}}}'");
    println!("    {} watch hello", host.program("tenantry").display());
    while !interrupted.load(Ordering::Relaxed) {
        if !host.is_up() {
            bail!("tenantry up has ended: see {}", host.folder.join("up.log").display());
        }
        std::thread::sleep(Duration::from_millis(200));
    }
    Ok(())
}
