//! Keeping and bringing back 2 GB in 20,000 files, beside `tar` and `zstd`.
//!
//! Caches are cold on both sides before each measurement. Ours also compares a hash of every file with what was read,
//! where `tar -t` only reads what is there.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::report::Row;
use crate::setup::Parts;
use crate::shell;

const FILES: u64 = 20_000;
const BYTES: u64 = 2_000_000_000;
const FOLDERS: u64 = 200;
/// The data is large, so that a few pairs tell.
const MOST_PAIRS: u32 = 5;
/// Whose data it is: here it is all the same.
const OF: &str = "bench";

/// Measures both ways.
pub fn snapshot(parts: &Parts, pairs: u32) -> Result<Vec<Row>> {
    let folder = shell::target().join("bench-snapshot");
    remove(&folder)?;
    let bench = Bench { agent: parts.bin_dir.join("tenantry-agent"), folder };
    shell::step("Making 2 GB in 20,000 files", || bench.make())?;
    let measured = shell::step("Keeping it and bringing it back", || bench.measure(pairs.min(MOST_PAIRS)));
    remove(&bench.folder)?;
    measured
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        std::fs::remove_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    Ok(())
}

struct Bench {
    agent: PathBuf,
    folder: PathBuf,
}

/// What one run took.
struct Took {
    seconds: f64,
    /// The most memory that was resident, in megabytes.
    memory: f64,
    said: String,
}

impl Bench {
    fn at(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn measure(&self, pairs: u32) -> Result<Vec<Row>> {
        let (mut kept, mut restored, mut memory) = (Vec::new(), Vec::new(), Vec::new());
        for pair in 0..pairs {
            std::fs::create_dir_all(self.at("shelf"))?;
            // The order alternates.
            let early = if pair % 2 == 0 { Some(self.keep_by_hand()?) } else { None };
            let ours = self.keep()?;
            let by_hand = early.map_or_else(|| self.keep_by_hand(), Ok)?;
            kept.push((ours.seconds, by_hand));
            memory.push(ours.memory);
            let record = record(&ours.said)?;
            let early = if pair % 2 == 0 { None } else { Some(self.restore_by_hand()?) };
            let back = self.restore(&record)?;
            let by_hand = early.map_or_else(|| self.restore_by_hand(), Ok)?;
            restored.push((back.seconds, by_hand));
            memory.push(back.memory);
            remove(&self.at("shelf"))?;
        }
        Ok(vec![
            Row::ratio("snapshot of 2 GB in 20,000 files, read back", "s", &kept, 1.1),
            Row::ratio("restore of the same", "s", &restored, 1.2),
            Row::most("most memory of either", "MB", memory, 64.0),
        ])
    }

    fn shelf_arguments(&self, command: &mut Command) {
        command.arg("--shelf").arg(self.at("shelf")).args(["--name", "0", "--of", OF]);
    }

    fn keep(&self) -> Result<Took> {
        let mut command = Command::new(&self.agent);
        command.args(["helper", "keep", "--from"]).arg(self.at("data"));
        self.shelf_arguments(&mut command);
        run_cold(&mut command)
    }

    fn restore(&self, record: &str) -> Result<Took> {
        std::fs::create_dir_all(self.at("live"))?;
        let mut command = Command::new(&self.agent);
        command.args(["helper", "exchange", "--archive", record, "--to"]).arg(self.at("live").join("data"));
        self.shelf_arguments(&mut command);
        let took = run_cold(&mut command)?;
        let mut compare = Command::new("diff");
        compare.arg("-r").arg(self.at("data")).arg(self.at("live").join("data"));
        shell::quietly(&mut compare)?;
        remove(&self.at("live"))?;
        Ok(took)
    }

    fn keep_by_hand(&self) -> Result<f64> {
        let line = "tar -c -C data . | zstd -q -T0 -3 > f && sync f && zstd -q -dc f | tar -t > /dev/null";
        remove_file(&self.at("f"))?;
        Ok(run_cold(Command::new("sh").args(["-c", line]).current_dir(&self.folder))?.seconds)
    }

    fn restore_by_hand(&self) -> Result<f64> {
        std::fs::create_dir_all(self.at("out"))?;
        let line = "zstd -q -dc f | tar -x -C out && sync";
        let took = run_cold(Command::new("sh").args(["-c", line]).current_dir(&self.folder))?;
        remove(&self.at("out"))?;
        Ok(took.seconds)
    }

    /// Files of many sizes: half of their bytes are text, the others can't be compressed.
    fn make(&self) -> Result<()> {
        let mut random = Random(0x9E37_79B9_7F4A_7C15);
        let words: Vec<Vec<u8>> = (0..4096).map(|_| random.word()).collect();
        let sizes: Vec<u64> = (0..FILES).map(|_| (random.below(1000) + 1).pow(2)).collect();
        let all: u64 = sizes.iter().sum();
        for folder in 0..FOLDERS {
            std::fs::create_dir_all(self.at("data").join(format!("folder-{folder:03}")))?;
        }
        for (number, size) in (0_u64..).zip(&sizes) {
            let length = usize::try_from(size * (BYTES / 1000) / (all / 1000))?;
            let mut content = Vec::with_capacity(length + 16);
            while content.len() < length {
                if number % 2 == 0 {
                    content.extend_from_slice(&random.next().to_le_bytes());
                } else {
                    content.extend_from_slice(&words[usize::try_from(random.below(4096))?]);
                    content.push(b' ');
                }
            }
            content.truncate(length);
            let at = self.at("data").join(format!("folder-{:03}", number % FOLDERS));
            std::fs::write(at.join(format!("file-{number}")), content)?;
        }
        Ok(())
    }
}

fn remove_file(at: &Path) -> Result<()> {
    match std::fs::remove_file(at) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

fn record(said: &str) -> Result<String> {
    let said: Value = serde_json::from_str(said)?;
    ensure!(said["kept"].is_object(), "the agent's helper said {said}");
    Ok(said["kept"].to_string())
}

/// Runs a command with cold caches, and watches its memory.
fn run_cold(command: &mut Command) -> Result<Took> {
    shell::quietly(&mut Command::new("sync"))?;
    std::fs::write("/proc/sys/vm/drop_caches", "3").context("caches can be dropped by root only")?;
    let begun = Instant::now();
    let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?;
    let mut memory: f64 = 0.0;
    let status = loop {
        if let Some(status) = child.try_wait()? {
            break status;
        }
        memory = memory.max(peak(child.id()).unwrap_or(0.0));
        std::thread::sleep(Duration::from_millis(10));
    };
    let seconds = begun.elapsed().as_secs_f64();
    let said = child.stdout.take().map(std::io::read_to_string).transpose()?.unwrap_or_default();
    ensure!(status.success(), "{command:?} failed ({status}): {said}");
    Ok(Took { seconds, memory, said })
}

/// The most memory that a process has had resident so far, in megabytes.
fn peak(pid: u32) -> Option<f64> {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"))?;
    let kibibytes: f64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

/// Numbers that are the same in every run (xorshift).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn word(&mut self) -> Vec<u8> {
        let length = 2 + self.below(9);
        (0..length).map(|_| b'a' + (self.next() % 26) as u8).collect()
    }
}
