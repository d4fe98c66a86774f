//! A real API server and a fake host, for tests of the executor.

// Each test program uses a part of this.
#![allow(dead_code, clippy::unwrap_used)]

pub mod api;
pub mod host;
