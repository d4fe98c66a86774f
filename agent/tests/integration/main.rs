//! An agent's own parts together: on a real engine and registry, behind its real door, on disks that fail.
//!
//! One program, because each would link the whole agent again; what concerns a whole process has its own.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod before;
mod bounds;
mod changed_meanwhile;
mod clock;
mod contact;
mod data;
mod env_round_trip;
mod failing;
mod faults;
mod full_disk;
mod gate;
mod half_recreated;
mod hostile;
mod hung;
mod meddling;
mod mutated;
mod probes;
mod registry;
mod release;
mod rollback;
mod support;
mod tls;
mod upgrade;
mod world;
