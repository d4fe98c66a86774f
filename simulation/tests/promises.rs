//! A part of what `cargo xtask simulate` runs, in every test run: each kind of run, and the figures it must reach.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use tenantry_simulation::{Kind, Report, run};

/// Runs of one kind, by their seeds: every fourth is of it.
fn runs(kind: u64, count: u64) -> Vec<Report> {
    let reports: Vec<Report> = std::thread::scope(|scope| {
        let half = |from: u64| {
            scope.spawn(move || {
                (from..count).step_by(2).map(|number| kept(4 * number + kind)).collect::<Vec<_>>()
            })
        };
        let (even, odd) = (half(0), half(1));
        even.join().unwrap().into_iter().chain(odd.join().unwrap()).collect()
    });
    assert_eq!(reports.len() as u64, count);
    reports
}

/// Runs a seed whose promises must all be kept.
fn kept(seed: u64) -> Report {
    let report = run(seed, false);
    if let Some(broken) = &report.violation {
        panic!(
            "{} is broken: {}\ncargo xtask simulate --seed {seed} --trace shows how",
            broken.promise, broken.what
        );
    }
    report
}

#[test]
fn p3_a_thousand_crashes_during_recovery_end_like_runs_without_any() {
    let reports = runs(0, 290);
    assert!(reports.iter().all(|report| report.kind == Kind::Twin));
    let second: u64 = reports.iter().map(|report| report.second_crashes).sum();
    assert!(second >= 1_000, "only {second} crashes during recovery");
}

#[test]
fn p2_two_leaders_and_one_history() {
    let reports = runs(1, 260);
    let both = reports.iter().filter(|report| report.two_leaders).count();
    assert!(both >= 240, "only {both} runs had two leaders");
}

#[test]
fn p2_cut_networks_and_one_history() {
    let reports = runs(2, 300);
    let cut = reports.iter().filter(|report| report.partitioned).count();
    assert!(cut >= 240, "only {cut} runs had a cut network");
}

#[test]
fn p16_everything_at_once_and_no_outcome_claims_what_is_not_so() {
    use tenantry_api::tenant_status::Outcome;
    let reports = runs(3, 200);
    for outcome in
        [Outcome::Succeeded, Outcome::Aborted, Outcome::RolledBack, Outcome::Held, Outcome::RollbackFailed]
    {
        let seen = reports.iter().flat_map(|report| &report.outcomes).any(|one| *one == outcome);
        assert!(seen, "{outcome:?} was never reached");
    }
}

#[test]
fn one_seed_is_one_run() {
    for seed in [1, 2, 3, 4, 1_023] {
        let (first, second) = (run(seed, true), run(seed, true));
        assert_eq!(first.trace, second.trace, "seed {seed}");
        assert_eq!((first.events, first.end), (second.events, second.end), "seed {seed}");
    }
}
