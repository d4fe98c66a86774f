//! The command line tool: what needs more than YAML and `kubectl`.

pub mod accept;
pub mod access;
pub mod adopt;
pub mod ask;
pub mod claim;
mod confirm;
pub mod explain;
mod last_words;
pub mod output;
pub mod paths;
pub mod pki;
pub mod retry;
pub mod rollback;
pub mod status;
pub mod up;
pub mod watch;
