//! What a test build does.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::UNIX_EPOCH;

use rustix::process::{Signal, getpid, kill_process};

use crate::Bug;

/// What the environment asks for; read once.
struct Asked {
    crash: Option<(String, u64)>,
    hits: Mutex<HashMap<String, u64>>,
    points: Option<Mutex<File>>,
    times: Option<Mutex<File>>,
    effects: Option<Mutex<File>>,
    bug: Option<Bug>,
}

fn asked() -> &'static Asked {
    static ASKED: OnceLock<Asked> = OnceLock::new();
    ASKED.get_or_init(|| Asked {
        crash: std::env::var("TENANTRY_CRASH_AT").ok().map(|text| parse(&text)),
        hits: Mutex::default(),
        points: log("TENANTRY_CRASH_LOG"),
        times: log("TENANTRY_POINT_TIMES"),
        effects: log("TENANTRY_EFFECTS_LOG"),
        bug: std::env::var("TENANTRY_MUTANT").ok().map(|name| bug(&name)),
    })
}

fn parse(text: &str) -> (String, u64) {
    let counted = text.rsplit_once('#').and_then(|(name, count)| Some((name, count.parse().ok()?)));
    let (name, count) = counted.unwrap_or((text, 1));
    (name.to_owned(), count)
}

#[allow(clippy::panic, reason = "a test that asked for a bug that there is not must not pass")]
fn bug(name: &str) -> Bug {
    let found = Bug::ALL.iter().copied().find(|bug| bug.name() == name);
    found.unwrap_or_else(|| panic!("TENANTRY_MUTANT: there is no seeded bug {name}"))
}

#[allow(clippy::panic, reason = "a test that asked for a log that can't be written must not pass")]
fn log(variable: &str) -> Option<Mutex<File>> {
    let path = std::env::var_os(variable)?;
    match File::options().create(true).append(true).open(&path) {
        Ok(file) => Some(Mutex::new(file)),
        Err(error) => panic!("{variable}: {}: {error}", path.display()),
    }
}

/// A line is one write, so that lines of several threads and processes stay whole.
fn tell(log: &Mutex<File>, line: &str) {
    let mut file = log.lock().unwrap_or_else(PoisonError::into_inner);
    let _ = file.write_all(format!("{line}\n").as_bytes());
}

impl Asked {
    /// Whether anything is to be done at points at all.
    const fn at_points(&self) -> bool {
        self.crash.is_some() || self.points.is_some() || self.times.is_some()
    }
}

/// A place where a test can have the process killed.
pub fn point(name: &str) {
    let asked = asked();
    if !asked.at_points() {
        return;
    }
    if let Some(points) = &asked.points {
        tell(points, name);
    }
    if let Some(times) = &asked.times {
        let now = UNIX_EPOCH.elapsed().unwrap_or_default();
        tell(times, &format!("{} {name}", now.as_micros()));
    }
    if let Some((wanted, count)) = &asked.crash
        && wanted == name
    {
        let mut hits = asked.hits.lock().unwrap_or_else(PoisonError::into_inner);
        let hit = hits.entry(name.to_owned()).or_default();
        *hit += 1;
        if hit == count {
            // Held on to, so that no other thread gets past this point before the end.
            let _ = kill_process(getpid(), Signal::KILL);
        }
    }
}

/// The same where the name must be put together first.
pub fn point_named(name: impl FnOnce() -> String) {
    if asked().at_points() {
        point(&name());
    }
}

impl Bug {
    /// Whether this bug is switched on.
    pub fn is_seeded(self) -> bool {
        asked().bug == Some(self)
    }
}

/// Tells a test of an effect on a disk.
pub fn effect(line: impl FnOnce() -> String) {
    if let Some(effects) = &asked().effects {
        tell(effects, &line());
    }
}

#[cfg(test)]
mod tests {
    use super::parse;

    #[test]
    fn a_point_is_meant_the_first_time_unless_a_count_is_given() {
        assert_eq!(parse("journal.done.Pull.before"), ("journal.done.Pull.before".to_owned(), 1));
        assert_eq!(parse("files.rename.COMMIT.after#3"), ("files.rename.COMMIT.after".to_owned(), 3));
        assert_eq!(parse("odd#name"), ("odd#name".to_owned(), 1));
    }
}
