//! A real API server and a fake host, for tests of the executor.

#![allow(clippy::unwrap_used)]

pub mod api;
pub mod host;
