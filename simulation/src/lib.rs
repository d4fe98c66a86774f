//! The shipped decisions, steps and driver against a host that is made up, under a seeded scheduler of faults.
//!
//! What is shipped runs here as it is: the operator's reconciliation with its queue, its watch and its follower, the step
//! machine, the judge of verifications, the driver of operations and the rule of claims. What is made up: the disk, the engine, the network, the API server, the
//! clock, and people. Everything random comes from one seed, so that a run that breaks a promise can be run again.

// It runs for a moment and is made up: shapes follow what they stand for, not what they cost.
#![allow(
    clippy::assigning_clones,
    clippy::enum_variant_names,
    clippy::format_collect,
    clippy::large_enum_variant,
    clippy::match_same_arms,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    clippy::unnecessary_wraps
)]

mod agent;
mod api;
mod effects;
mod host;
mod journal;
mod net;
mod observe;
mod operator;
mod oracle;
mod releases;
mod run;
mod scenario;
mod scheduler;
mod user_actions;
mod world;

pub use run::{End, Report, run, run_scenario};
pub use scenario::{Kind, Scenario};
pub use world::{Fault, Violation};
