//! The command line tool: what needs more than YAML and `kubectl`.

pub mod access;
pub mod pki;
pub mod place;
pub mod say;
pub mod status;
pub mod up;
pub mod watch;
