//! `simulate`: runs seeds, and says what they covered. `cargo xtask simulate` builds and starts it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::io::IsTerminal as _;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;
use parking_lot::Mutex;
use tenantry_simulation::{Fault, Kind, Report, run};

#[derive(Parser)]
#[command(about = "Runs the shipped operator and agent on made-up machines, a seed at a time")]
struct Arguments {
    /// How many seeds
    #[arg(long, default_value_t = 2_000)]
    seeds: u64,
    /// The first seed; with --trace, the only one
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many at once; default: as many as there are processors
    #[arg(long)]
    jobs: Option<usize>,
    /// Prints what happens in the one seed
    #[arg(long)]
    trace: bool,
    /// Goes on after a broken promise, and counts them
    #[arg(long)]
    go_on: bool,
    /// Goes on until this very promise is broken
    #[arg(long, value_name = "PROMISE")]
    until: Option<String>,
}

impl Arguments {
    /// Whether it is over once these promises are broken.
    fn is_over(&self, totals: &Totals) -> bool {
        match &self.until {
            Some(promise) => totals.broken.contains_key(promise.as_str()),
            None => !self.go_on && !totals.broken.is_empty(),
        }
    }
}

#[derive(Default)]
struct Totals {
    runs: u64,
    events: u64,
    coverage: BTreeMap<(Fault, &'static str), u64>,
    states: BTreeSet<u64>,
    second_crashes: u64,
    two_leaders: u64,
    partitioned: u64,
    kinds: BTreeMap<Kind, u64>,
    outcomes: BTreeMap<&'static str, u64>,
    broken: BTreeMap<&'static str, Vec<(u64, String)>>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.trace {
        return one(arguments.seed);
    }
    let begun = Instant::now();
    let totals = all(&arguments);
    print!("{}", summary(&totals, begun));
    if totals.broken.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn one(seed: u64) -> ExitCode {
    let report = run(seed, true);
    print!("{}", report.trace);
    match report.violation {
        None => {
            println!(
                "seed {seed}: every promise was kept ({} events, ends as {:?})",
                report.events, report.end.phase
            );
            ExitCode::SUCCESS
        }
        Some(broken) => {
            println!("seed {seed}: {} is broken: {}", broken.promise, broken.what);
            ExitCode::FAILURE
        }
    }
}

fn all(arguments: &Arguments) -> Totals {
    let jobs =
        arguments.jobs.or_else(|| std::thread::available_parallelism().ok().map(usize::from)).unwrap_or(1);
    let (next, totals) = (AtomicU64::new(arguments.seed), Mutex::new(Totals::default()));
    let end = arguments.seed.saturating_add(arguments.seeds);
    let tell = std::io::stderr().is_terminal();
    std::thread::scope(|scope| {
        for _ in 0..jobs.max(1) {
            scope.spawn(|| {
                let mut own = Totals::default();
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= end {
                        break;
                    }
                    own.take(seed, run(seed, false));
                    if arguments.is_over(&own) {
                        next.store(end, Ordering::Relaxed);
                    }
                    if tell && seed % 1_000 == 999 {
                        eprint!("\r{} of {} seeds ", seed + 1 - arguments.seed, arguments.seeds);
                    }
                }
                totals.lock().add(own);
            });
        }
    });
    if tell {
        eprintln!();
    }
    totals.into_inner()
}

impl Totals {
    fn take(&mut self, seed: u64, report: Report) {
        self.runs += 1;
        self.events += report.events;
        for (key, count) in report.coverage {
            *self.coverage.entry(key).or_default() += count;
        }
        self.states.extend(report.states);
        self.second_crashes += report.second_crashes;
        self.two_leaders += u64::from(report.two_leaders);
        self.partitioned += u64::from(report.partitioned);
        *self.kinds.entry(report.kind).or_default() += 1;
        for outcome in report.outcomes {
            *self.outcomes.entry(outcome.as_str()).or_default() += 1;
        }
        if let Some(broken) = report.violation {
            self.broken.entry(broken.promise).or_default().push((seed, broken.what));
        }
    }

    fn add(&mut self, other: Self) {
        self.runs += other.runs;
        self.events += other.events;
        for (key, count) in other.coverage {
            *self.coverage.entry(key).or_default() += count;
        }
        self.states.extend(other.states);
        self.second_crashes += other.second_crashes;
        self.two_leaders += other.two_leaders;
        self.partitioned += other.partitioned;
        for (kind, count) in other.kinds {
            *self.kinds.entry(kind).or_default() += count;
        }
        for (outcome, count) in other.outcomes {
            *self.outcomes.entry(outcome).or_default() += count;
        }
        for (promise, broken) in other.broken {
            self.broken.entry(promise).or_default().extend(broken);
        }
    }
}

fn summary(totals: &Totals, begun: Instant) -> String {
    let mut text = String::new();
    let _ = writeln!(
        text,
        "{} runs, {} events, {} distinct states, {:.1} s\nkinds: {:?}\nended operations: {:?}\n\
         crashes during recovery: {}; runs with two leaders: {}; runs with a cut network: {}",
        totals.runs,
        totals.events,
        totals.states.len(),
        begun.elapsed().as_secs_f64(),
        totals.kinds,
        totals.outcomes,
        totals.second_crashes,
        totals.two_leaders,
        totals.partitioned,
    );
    let mut faults: BTreeMap<Fault, BTreeMap<&str, u64>> = BTreeMap::new();
    for ((fault, step), count) in &totals.coverage {
        faults.entry(*fault).or_default().insert(step, *count);
    }
    for (fault, steps) in faults {
        let all: u64 = steps.values().sum();
        let listed: Vec<String> = steps.iter().map(|(step, count)| format!("{step} {count}")).collect();
        let _ = writeln!(text, "{:<16} {all:>8}  {}", format!("{fault:?}"), listed.join(", "));
    }
    for (promise, broken) in &totals.broken {
        let _ = writeln!(text, "\n{promise} is broken in {} of {} runs", broken.len(), totals.runs);
        let mut alike: BTreeMap<String, Vec<&(u64, String)>> = BTreeMap::new();
        for one in broken {
            alike.entry(wording(&one.1)).or_default().push(one);
        }
        for seeds in alike.into_values() {
            let seed = seeds[0].0;
            let others: Vec<String> = seeds.iter().take(12).map(|(seed, _)| seed.to_string()).collect();
            let _ = writeln!(
                text,
                "  {} runs ({}): {}\n    cargo xtask simulate --seed {seed} --trace",
                seeds.len(),
                others.join(", "),
                seeds[0].1
            );
        }
    }
    text
}

/// What is alike in what broke: its words, without what differs from run to run.
fn wording(what: &str) -> String {
    let words =
        what.split_whitespace().filter(|word| word.chars().all(|one| one.is_alphabetic() || one == ','));
    words.take(8).collect::<Vec<_>>().join(" ")
}
