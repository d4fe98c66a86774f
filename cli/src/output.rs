//! What is printed. A reader that is gone (`| head`, a closed terminal) is no reason to panic.

use std::fmt::Display;
use std::io::Write;

/// A line on stdout: what was asked for.
pub fn out(line: impl Display) {
    let _ = writeln!(anstream::stdout(), "{line}");
}

/// A line on stderr: what is told besides.
pub fn err(line: impl Display) {
    let _ = writeln!(anstream::stderr(), "{line}");
}
