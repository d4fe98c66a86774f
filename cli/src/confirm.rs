//! Asking a person on a terminal.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

/// Whether a person says yes to a question; `None` where there is no terminal to ask on.
pub fn says_yes(question: &str) -> io::Result<Option<bool>> {
    if !io::stdin().is_terminal() {
        return Ok(None);
    }
    let mut error = io::stderr();
    let _ = write!(error, "{question} [y/N] ");
    let _ = error.flush();
    let mut answer = String::new();
    io::stdin().lock().read_line(&mut answer)?;
    Ok(Some(matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")))
}
