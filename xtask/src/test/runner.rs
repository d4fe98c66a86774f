//! Test programs side by side, as many as two cores and one engine bear.

use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context as _, Result};
use parking_lot::{Condvar, Mutex};
use test_images::Registry;

use super::binaries::Binary;
use crate::setup::Parts;
use crate::shell;

/// How many tests have agents, operators or containers at the same time, over all programs.
const ON_ENGINE: usize = 5;
/// The programs whose tests do, in the order in which they begin, and how many of each program's tests run at once: the
/// shortest is done with while there is something beside it.
const ENGINE: [(&str, usize); 4] = [
    ("tenantry-agent/integration", 2),
    ("tenantry-tests/scenarios", 2),
    ("tenantry-tests/hosts", 1),
    ("tenantry-tests/faults", 2),
];
/// All other programs need the processor alone: one at a time, with as many threads as the machine has cores.
const PROCESSOR: usize = 2;

/// The place of a program among those whose tests have containers.
fn on_engine(binary: &Binary) -> Option<usize> {
    ENGINE.iter().position(|(name, _)| *name == binary.name)
}

/// How a test program ended.
#[derive(Clone)]
pub struct Ran {
    /// Its package and target.
    pub name: String,
    /// Whether all of its tests passed.
    pub success: bool,
    /// How long it took.
    pub seconds: f64,
    /// What it said.
    pub said: String,
}

impl Ran {
    /// What the program says at its end of the tests that failed, with their output; all that it said where it did not
    /// get so far.
    pub fn failures(&self) -> &str {
        self.said.find("\nfailures:\n").map_or(self.said.as_str(), |at| &self.said[at + 1..])
    }

    /// Each test and how long it took, as the program says at its end.
    pub fn tests(&self) -> impl Iterator<Item = (&str, f64)> {
        self.said.lines().filter_map(test)
    }
}

/// `test steps::a_name ... ok <1.250s>`
fn test(line: &str) -> Option<(&str, f64)> {
    let (name, ended) = line.strip_prefix("test ")?.split_once(" ... ")?;
    let seconds = ended.rsplit_once('<')?.1.strip_suffix("s>")?;
    Some((name, seconds.parse().ok()?))
}

/// Runs test programs with what they need of the real parts.
pub struct Runner<'a> {
    parts: &'a Parts,
    registry: &'a Registry,
    filter: Option<&'a str>,
    home: PathBuf,
    free: Mutex<usize>,
    freed: Condvar,
}

impl<'a> Runner<'a> {
    /// A runner of all tests, or of those whose name or whose program's name contains the filter.
    pub fn new(parts: &'a Parts, registry: &'a Registry, filter: Option<&'a str>) -> Result<Self> {
        let home = shell::home_without_profile()?;
        Ok(Self { parts, registry, filter, home, free: Mutex::new(ON_ENGINE), freed: Condvar::new() })
    }

    /// Runs every program: those on the engine beside each other, and beside them one after the other all others.
    pub fn run(&self, binaries: &[Binary]) -> Vec<Ran> {
        let (mut engine, others): (Vec<_>, Vec<_>) =
            binaries.iter().partition(|binary| on_engine(binary).is_some());
        engine.sort_by_key(|binary| on_engine(binary));
        std::thread::scope(|scope| {
            let others = scope
                .spawn(|| others.into_iter().map(|binary| self.one(binary, PROCESSOR)).collect::<Vec<_>>());
            let mut running = Vec::new();
            for binary in engine {
                let share = on_engine(binary).map_or(PROCESSOR, |place| ENGINE[place].1);
                self.take(share);
                running.push(scope.spawn(move || {
                    let ran = self.one(binary, share);
                    self.give_back(share);
                    ran
                }));
            }
            let engine = running.into_iter().filter_map(|thread| thread.join().ok()).collect();
            [engine, others.join().unwrap_or_default()].concat()
        })
    }

    fn take(&self, share: usize) {
        let mut free = self.free.lock();
        self.freed.wait_while(&mut free, |free| *free < share);
        *free -= share;
    }

    fn give_back(&self, share: usize) {
        *self.free.lock() += share;
        self.freed.notify_all();
    }

    fn one(&self, binary: &Binary, share: usize) -> Ran {
        let begun = Instant::now();
        let (success, said) =
            self.output(binary, share).unwrap_or_else(|error| (false, format!("{error:#}")));
        let ran = Ran { name: binary.name.clone(), success, seconds: begun.elapsed().as_secs_f64(), said };
        if self.filter.is_none() || !ran.said.contains("running 0 tests") {
            // One write, so that the words of two programs are never mixed.
            println!("     Running {} ({:.1} s)\n{}", ran.name, ran.seconds, ran.said);
        }
        ran
    }

    /// Both streams in the order in which they were written.
    fn output(&self, binary: &Binary, share: usize) -> Result<(bool, String)> {
        let (mut reader, writer) = std::io::pipe()?;
        // What needs the processor alone does not hold up what waits for services to become healthy.
        let mut command = if on_engine(binary).is_some() {
            Command::new(&binary.path)
        } else {
            shell::gives_way(10, &binary.path)
        };
        command
            .args(self.filter.filter(|filter| !binary.name.contains(filter)))
            .args(["-Zunstable-options", "--report-time"])
            // The runner of tests tells times only to those who say that they know it may change.
            .env("RUSTC_BOOTSTRAP", "1")
            .current_dir(&binary.folder)
            .env("CARGO_MANIFEST_DIR", &binary.folder)
            .env("HOME", &self.home)
            // Compose and the control plane are done before it pays to collect garbage often.
            .env("GOGC", "400")
            .env("TENANTRY_BIN_DIR", &self.parts.bin_dir)
            .env("TENANTRY_STANDALONE", &self.parts.standalone)
            .env("TENANTRY_STANDIN", &self.parts.standin)
            .env("TENANTRY_TEST_REGISTRY", self.registry.address())
            .env("RUST_TEST_THREADS", share.to_string())
            .stdin(Stdio::null())
            .stdout(writer.try_clone()?)
            .stderr(writer);
        let mut child = command.spawn().with_context(|| binary.path.display().to_string())?;
        // The ends for writing that the command holds: else the pipe would never end.
        drop(command);
        let mut said = Vec::new();
        std::io::Read::read_to_end(&mut reader, &mut said)?;
        Ok((child.wait()?.success(), String::from_utf8_lossy(&said).into_owned()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn failures_are_what_is_said_from_their_list_on() {
        let ran =
            |said: &str| Ran { name: "x/y".to_owned(), success: false, seconds: 1.0, said: said.to_owned() };
        let listed = ran("test a ... FAILED <1.000s>\n\nfailures:\n\n---- a stdout ----\nwrong\n");
        assert_eq!(listed.failures(), "failures:\n\n---- a stdout ----\nwrong\n");
        assert_eq!(ran("running 1 test\nkilled").failures(), "running 1 test\nkilled");
    }

    #[test]
    fn each_tests_time_is_read_from_what_its_program_says() {
        let said = "running 3 tests\ntest a::b ... ok <1.250s>\ntest c - should panic ... ok <0.001s>\n\
                    test d ... FAILED <10.000s>\ntest e has been running for over 60 seconds\n\
                    test result: FAILED. 2 passed; 1 failed; finished in 10.00s\n";
        let ran = Ran { name: "x/y".to_owned(), success: false, seconds: 10.0, said: said.to_owned() };
        let tests: Vec<_> = ran.tests().collect();
        assert_eq!(tests, [("a::b", 1.25), ("c - should panic", 0.001), ("d", 10.0)]);
    }
}
