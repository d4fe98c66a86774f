//! The agent: the one program that changes anything on a host, and the host's last line of defence.
//!
//! An operator asks, the agent checks everything again against its own policy file and its own records, and carries
//! an operation out by itself, so that losing the operator half way leaves nothing half done.

pub mod calls;
pub mod compose;
pub mod config;
pub mod engine;
pub mod files;
pub mod finisher;
pub mod fuzzing;
pub mod host;
pub mod limits;
pub mod metrics;
pub mod observe;
pub mod operation;
pub mod planning;
#[cfg(test)]
mod rooms;
pub mod server;
pub mod snapshot;
pub mod startup;
pub mod store;
pub mod survey;
pub mod tls;
