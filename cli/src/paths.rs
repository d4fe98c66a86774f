//! Where `tenantry up` keeps its state when nobody says.

use std::path::PathBuf;

/// For root `/var/lib/tenantry`, for others `$XDG_STATE_HOME/tenantry` or `~/.local/state/tenantry`.
pub fn default_state_dir() -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/var/lib/tenantry");
    }
    let given = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    let home = || given("HOME").unwrap_or_else(|| PathBuf::from("/var/tmp")).join(".local/state");
    given("XDG_STATE_HOME").unwrap_or_else(home).join("tenantry")
}

/// The policy file of `tenantry up`'s own agent, beneath its state.
pub const POLICY: &str = "agent.yaml";
/// The kubeconfig of `tenantry up`'s own control plane, beneath its state.
pub const KUBECONFIG: &str = "kubeconfig";
