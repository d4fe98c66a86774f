//! The program's arguments.

use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Parser;

use tenantry_process::LogFormat;

/// The operator of a fleet of Docker Compose hosts.
#[derive(Parser)]
#[command(version, about)]
pub struct Arguments {
    /// The API server's kubeconfig. Default: as kubectl finds it, or the cluster that this runs in.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// The namespace that is looked after, or `all`.
    #[arg(long, default_value = "all")]
    pub namespace: String,
    /// The authority that agents' certificates must be of (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_ca: PathBuf,
    /// The operator's own certificate (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_cert: PathBuf,
    /// Its key (PEM).
    #[arg(long, value_name = "FILE")]
    pub tls_key: PathBuf,
    /// A folder of this machine with a folder for each bundle.
    #[arg(long, value_name = "DIR")]
    pub bundle_dir: Option<PathBuf>,
    /// Where metrics and health are served, over plain HTTP.
    #[arg(long, default_value = "127.0.0.1:7442")]
    pub metrics_listen: SocketAddr,
    /// Work only while no other operator does.
    #[arg(long, default_value_t = true, num_args = 0..=1, require_equals = true, default_missing_value = "true", action = clap::ArgAction::Set)]
    pub leader_elect: bool,
    /// Under which name the lease is held. Default: the machine's, and a number by chance.
    #[arg(long, value_name = "NAME")]
    pub leader_elect_identity: Option<String>,
    /// The namespace of the lease.
    #[arg(long, env = "POD_NAMESPACE", default_value = "default")]
    pub lease_namespace: String,
    /// How many Tenants are looked at at once.
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u16).range(1..=512))]
    pub concurrency: u16,
    /// How log lines look.
    #[arg(long, value_enum, default_value_t = LogFormat::Auto)]
    pub log_format: LogFormat,
    /// Read certificates and kubeconfig, say whether they can be used, and end.
    #[arg(long)]
    pub check_config: bool,
    /// End cleanly when standard input ends: whoever started this operator is gone then.
    #[arg(long)]
    pub exit_on_stdin_close: bool,
}
