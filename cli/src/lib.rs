//! The command line tool: what needs more than YAML and `kubectl`.

pub mod accept;
pub mod access;
pub mod adopt;
pub mod ask;
pub mod claim;
mod confirm;
pub mod explain;
pub mod output;
pub mod paths;
pub mod pki;
pub mod rollback;
pub mod status;
pub mod up;
pub mod watch;
