//! What a program says: all of it to a file, warnings to the terminal too.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use serde_json::{Map, Value};

use crate::output;

/// A log file is put aside as `.1` when it reaches this size.
const LARGEST: u64 = 16 * 1024 * 1024;
/// Lines of one program on the terminal within a minute: more are in the file only.
const LINES_A_MINUTE: u32 = 12;
const MINUTE: Duration = Duration::from_mins(1);

/// The log of one program.
pub struct Log {
    name: &'static str,
    path: PathBuf,
    state: Mutex<State>,
}

struct State {
    file: Option<File>,
    size: u64,
    last: Option<String>,
    window: Instant,
    shown: u32,
}

impl Log {
    /// Appends to `folder/name.log`.
    pub fn open(folder: &Path, name: &'static str) -> std::io::Result<Self> {
        let path = folder.join(format!("{}.log", name.replace(' ', "-")));
        let (file, size) = append_to(&path)?;
        let state = State { file: Some(file), size, last: None, window: Instant::now(), shown: 0 };
        Ok(Self { name, path, state: Mutex::new(state) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Takes a line of the program's.
    pub fn line(&self, line: &str) {
        let mut state = self.state.lock();
        state.write(&self.path, line);
        let (sentence, warns) = read(line);
        if warns && state.may_show(Instant::now()) {
            output::err(format!("{}: {sentence}", self.name));
            if state.shown == LINES_A_MINUTE {
                output::err(format!("{}: more of these are in {}", self.name, self.path.display()));
            }
        }
        if warns {
            state.last = Some(sentence);
        }
    }

    /// The last thing that the program complained about, once.
    pub fn last_words(&self) -> Option<String> {
        self.state.lock().last.take()
    }
}

impl State {
    fn write(&mut self, path: &Path, line: &str) {
        if self.size > LARGEST {
            let _ = std::fs::rename(path, path.with_extension("log.1"));
            self.file = None;
        }
        if self.file.is_none()
            && let Ok((file, size)) = append_to(path)
        {
            (self.file, self.size) = (Some(file), size);
        }
        // A full disk must not end the programs that are being watched: the line is lost.
        if let Some(file) = &mut self.file
            && writeln!(file, "{line}").is_ok()
        {
            self.size += line.len() as u64 + 1;
        }
    }

    fn may_show(&mut self, now: Instant) -> bool {
        if now.duration_since(self.window) > MINUTE {
            (self.window, self.shown) = (now, 0);
        }
        self.shown += 1;
        self.shown <= LINES_A_MINUTE
    }
}

fn append_to(path: &Path) -> std::io::Result<(File, u64)> {
    let file = OpenOptions::new().append(true).create(true).mode(0o600).open(path)?;
    let size = file.metadata()?.len();
    Ok((file, size))
}

/// A line as a sentence, and whether the person at the terminal should see it. Our own programs log JSON, or sentences of
/// their own; the Kubernetes libraries in the control plane begin a line with a letter and the date, and complain about
/// what they mend by themselves a moment later.
fn read(line: &str) -> (String, bool) {
    if let Ok(Value::Object(event)) = serde_json::from_str(line) {
        let level = event.get("level").and_then(Value::as_str).unwrap_or_default();
        return (event_sentence(&event), matches!(level, "WARN" | "ERROR"));
    }
    let mut letters = line.chars();
    let of_library = letters.next().zip(letters.next());
    let of_library = of_library.filter(|(level, digit)| "IWEF".contains(*level) && digit.is_ascii_digit());
    let sentence = line.strip_prefix("tenantry-standalone: ").unwrap_or(line);
    (sentence.to_owned(), of_library.is_none_or(|(level, _)| level == 'F'))
}

fn event_sentence(event: &Map<String, Value>) -> String {
    // Fields stand beside the level, or in an object of their own.
    let fields = event.get("fields").and_then(Value::as_object).unwrap_or(event);
    let message = fields.get("message").and_then(Value::as_str).unwrap_or_default();
    let noise = ["level", "message", "timestamp", "target"];
    let rest = fields.iter().filter(|(key, _)| !noise.contains(&key.as_str()));
    let rest: Vec<String> = rest.map(|(key, value)| format!("{key}={}", plain(value))).collect();
    if rest.is_empty() { message.to_owned() } else { format!("{message} ({})", rest.join(" ")) }
}

fn plain(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn warnings_are_told_from_the_rest() {
        let json = r#"{"timestamp":"t","level":"WARN","message":"no answer","tenant":"a/b","target":"x"}"#;
        assert_eq!(read(json), ("no answer (tenant=a/b)".to_owned(), true));
        assert!(!read(r#"{"level":"INFO","message":"listening"}"#).1);
        assert!(!read("W1121 10:00:00.0 something usual").1);
        assert!(!read("I1121 10:00:00.0 something").1);
        assert!(!read("E1121 10:00:00.0 something that is tried again").1);
        assert!(read("F1121 10:00:00.0 something fatal").1);
        let nested = r#"{"level":"ERROR","fields":{"message":"no answer","tenant":"a/b"},"target":"x"}"#;
        assert_eq!(read(nested), ("no answer (tenant=a/b)".to_owned(), true));
        assert_eq!(read("tenantry-standalone: The port is taken."), ("The port is taken.".to_owned(), true));
    }

    #[test]
    fn every_line_is_in_the_file_and_the_last_complaint_is_remembered() {
        let folder = tempfile::tempdir().unwrap();
        let log = Log::open(folder.path(), "control plane").unwrap();
        for i in 0..20 {
            log.line(&format!("tenantry-standalone: line {i}"));
        }
        assert_eq!(
            std::fs::read_to_string(folder.path().join("control-plane.log")).unwrap().lines().count(),
            20
        );
        assert_eq!(log.last_words().as_deref(), Some("line 19"));
    }
}
