//! Tests of calls that need an agent's own process parts, not its server.

mod power;
mod taken_up;
