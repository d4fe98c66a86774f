use rstest::rstest;
use tenantry_protocol::FailureCategory;

use super::*;

fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn accepted(hold: bool) -> Record {
    let on_failure = if hold { OnFailure::Hold } else { OnFailure::Rollback };
    Record::Accepted { at: at(), epoch: 3, target_hash: "t".to_owned(), on_failure }
}

fn failure(step: Step) -> Failure {
    let during = step.phase().unwrap_or(OperationPhase::Rollback);
    Failure { during, category: FailureCategory::Unhealthy, message: format!("{step:?} failed") }
}

fn plan(first: bool, writes: bool) -> Did {
    let compose = ComposeUse { files: vec![], profiles: vec![], command: String::new() };
    Did::Planned(Box::new(Plan {
        report: PlanReport {
            hash: String::new(),
            files: tenantry_protocol::FileCounts::default(),
            recreates: vec![],
        },
        compose,
        previous_compose: None,
        writes,
        first,
        changed: vec![],
        containers: vec![],
        references: vec![],
        previous_images: vec![],
        left_running: vec![],
        left_files: vec![],
    }))
}

struct Case {
    first: bool,
    writes: bool,
    hold: bool,
    fail: &'static [Step],
    touched: bool,
}

const PLAIN: Case = Case { first: false, writes: true, hold: false, fail: &[], touched: false };

/// Runs the machine to its end; returns the steps that were performed, the outcome and the journal.
fn run(case: &Case) -> (Vec<Step>, Outcome, Vec<Record>) {
    let mut journal = vec![accepted(case.hold)];
    let mut performed = Vec::new();
    for _ in 0..40 {
        let state = State::fold(&journal);
        match state.next() {
            Next::Do(step) => {
                performed.push(step);
                let did = match step {
                    Step::Preflight => plan(case.first, case.writes),
                    Step::RestoreFiles => Did::Restored { touched: case.touched },
                    _ => Did::Nothing,
                };
                let record = if case.fail.contains(&step) {
                    Record::Failed { step, at: at(), failure: failure(step), then: None }
                } else {
                    Record::Done { step, at: at(), did, message: None, then: None }
                };
                journal.push(record);
            }
            Next::End(outcome, failure) => journal.push(Record::Ended { at: at(), outcome, failure }),
            Next::Nothing => return (performed, state.outcome().unwrap(), journal),
        }
    }
    panic!("the machine does not end: {performed:?}");
}

#[rstest]
#[case::that_goes_well_succeeds(
    PLAIN,
    Outcome::Succeeded,
    "Preflight Pull Write Point Start Refresh Verify Finish"
)]
#[case::that_changes_no_file_writes_none(Case { writes: false, ..PLAIN }, Outcome::Succeeded, "Preflight Pull Point Start Refresh Verify Finish")]
#[case::whose_image_is_missing_is_aborted(Case { fail: &[Step::Pull], ..PLAIN }, Outcome::Aborted, "Preflight Pull Discard")]
#[case::whose_write_fails_before_the_commit_is_aborted(Case { fail: &[Step::Write], ..PLAIN }, Outcome::Aborted, "Preflight Pull Write RestoreFiles Discard")]
#[case::whose_write_had_to_be_taken_back_is_rolled_back(Case { fail: &[Step::Write], touched: true, ..PLAIN }, Outcome::RolledBack, "Preflight Pull Write RestoreFiles Discard")]
#[case::that_is_never_healthy_is_rolled_back(Case { fail: &[Step::Verify], ..PLAIN }, Outcome::RolledBack, "Preflight Pull Write Point Start Refresh Verify RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::that_is_never_healthy_is_held_where_asked(Case { hold: true, fail: &[Step::Verify], ..PLAIN }, Outcome::Held, "Preflight Pull Write Point Start Refresh Verify Hold")]
#[case::whose_previous_release_is_not_healthy_either_needs_a_person(Case { fail: &[Step::Start, Step::VerifyPrevious], ..PLAIN }, Outcome::RollbackFailed, "Preflight Pull Write Point Start RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious")]
#[case::that_was_the_first_removes_what_it_made(Case { first: true, fail: &[Step::Verify], ..PLAIN }, Outcome::RolledBack, "Preflight Pull Write Point Start Refresh Verify RestoreFiles RemoveCreated RestoreImages Discard")]
#[case::whose_clean_up_fails_is_still_aborted(Case { fail: &[Step::Pull, Step::Discard], ..PLAIN }, Outcome::Aborted, "Preflight Pull Discard")]
fn p16_an_operation(#[case] case: Case, #[case] outcome: Outcome, #[case] steps: &str) {
    let (performed, ended, _) = run(&case);
    let names: Vec<String> = performed.iter().map(|step| format!("{step:?}")).collect();
    assert_eq!((ended, names.join(" ").as_str()), (outcome, steps));
}

#[test]
fn p3_whatever_was_begun_is_done_again_after_a_crash() {
    let (_, _, journal) = run(&Case { fail: &[Step::Verify], ..PLAIN });
    for cut in 1..journal.len() {
        let mut half = journal[..cut].to_vec();
        let Next::Do(step) = State::fold(&half).next() else { continue };
        half.push(Record::Begun { step, at: at() });
        half.push(Record::Resumed { at: at() });
        assert_eq!(State::fold(&half).next(), Next::Do(step), "after {cut} records");
    }
}

#[test]
fn a_step_may_begin_with_the_record_that_ends_the_one_before() {
    let joined = Record::Done {
        step: Step::Preflight,
        at: at(),
        did: plan(false, true),
        message: None,
        then: Some(Step::Pull),
    };
    let begun = Record::Begun { step: Step::Preflight, at: at() };
    let state = State::fold(&[accepted(false), begun, joined]);
    assert_eq!(state.next(), Next::Do(Step::Pull));
    let id = OperationId::parse("a").unwrap();
    let phases: Vec<_> = state.status(&id).phases.iter().map(|phase| (phase.name, phase.state)).collect();
    let wanted =
        [(OperationPhase::Preflight, StepState::Succeeded), (OperationPhase::Pull, StepState::Running)];
    assert_eq!(phases, wanted);
}

#[test]
fn the_number_of_a_status_rises_with_every_record() {
    let (_, _, journal) = run(&PLAIN);
    let id = OperationId::parse("a").unwrap();
    let numbers: Vec<u64> = (1..=journal.len()).map(|n| State::fold(&journal[..n]).status(&id).seq).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] >= pair[0] + (1 << 20)), "{numbers:?}");
}

#[test]
fn a_journal_survives_its_own_encoding() {
    let (_, _, journal) = run(&Case { fail: &[Step::Verify], ..PLAIN });
    for record in journal {
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
    }
}
