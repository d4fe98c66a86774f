//! The shipped operator and the shipped agent on a machine that is made up, under a seeded scheduler of faults.
//!
//! What is shipped runs here as it is, over its own ports: of the operator the reconciliation with its queue, its watch and
//! its follower; of the agent its calls, planning, operations and records, on a real folder as its disk. What is made up:
//! the engine, compose, the registry, the network, the API server, the clock, and people. Everything random comes from
//! one seed, so that a run that breaks a promise can be run again.

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
mod ailments;
mod api;
mod compose;
mod disk;
mod engine;
mod host;
mod net;
mod operator;
mod oracle;
mod records;
mod releases;
mod run;
mod runtime;
mod scenario;
mod scheduler;
mod user_actions;
mod world;

pub use run::{End, Report, run, run_scenario};
pub use scenario::{Kind, Scenario};
pub use world::{Fault, Violation};
