//! How each of our programs begins to log, says that it is ready, and is told to end.

mod logging;
pub mod runtime;
mod shutdown;

use std::io::Write as _;

pub use logging::{LogFormat, log};
pub use shutdown::{Hangup, shutdown};

/// Tells whoever started this program that it works, as a line of JSON on standard output: `said`, and `"ready": true`.
pub fn say_ready(mut said: serde_json::Value) -> std::io::Result<()> {
    said["ready"] = true.into();
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{said}")?;
    stdout.flush()
}
