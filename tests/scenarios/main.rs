//! Scenarios on real parts. Each says which promise or which line of the design it tries.
// A scenario reads as one story and fails by panicking.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::too_many_lines)]

mod adopt;
mod as_compose_does;
mod attachments;
mod back;
mod bad_input;
mod bundles;
mod failures;
mod first_contact;
mod flux;
mod image_only;
mod literal_tags;
mod one_machine;
mod policy;
mod release;
mod resource_rules;
mod sample;
mod telling;
mod two_leaders;
mod unplugged;
