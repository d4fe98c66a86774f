//! A real API server and a fake host, for tests of the executor.

// Each test program uses a part of this.
#![allow(dead_code)]

pub mod api;
pub mod host;
