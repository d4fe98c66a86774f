use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use proptest::prelude::*;
use rstest::rstest;
use tenantry_api::names::OperationId;
use tenantry_api::tenant::{Consistency, OnFailure, RollbackData};
use tenantry_api::tenant_status::{Outcome, PhaseState};
use tenantry_protocol::{
    Action, ComposeUse, Failure, FailureCategory, OperationPhase, PlanReport, ReleaseLabel,
};

use super::*;

fn at() -> Timestamp {
    Timestamp::UNIX_EPOCH
}

fn failure(step: Step) -> Failure {
    let during = step.phase().unwrap_or(OperationPhase::Rollback);
    Failure {
        during,
        category: FailureCategory::Unhealthy,
        message: format!("{step:?} failed"),
        policy: None,
        services: tenantry_protocol::FailedServices::default(),
    }
}

/// An operation and all that happens to it.
#[derive(Clone, Debug)]
struct Case {
    first: bool,
    writes: bool,
    hold: bool,
    fail: Vec<Step>,
    touched: bool,
    inside: bool,
    /// How declared data is copied; `None`: there is none.
    data: Option<Consistency>,
    always: bool,
    /// Going back to a restore point, with or without its data.
    back: Option<bool>,
}

fn plain() -> Case {
    Case {
        first: false,
        writes: true,
        hold: false,
        fail: vec![],
        touched: false,
        inside: false,
        data: None,
        always: false,
        back: None,
    }
}

fn failing(step: Step) -> Case {
    Case { fail: vec![step], ..plain() }
}

fn stopping() -> Case {
    Case { data: Some(Consistency::Stop), ..plain() }
}

impl Case {
    fn accepted(&self) -> Record {
        let action = match self.back {
            None => Action::Upgrade,
            Some(data) => Action::Rollback { to: OperationId::parse("before").unwrap(), data },
        };
        Record::Accepted {
            at: at(),
            epoch: 3,
            target_hash: "t".to_owned(),
            on_failure: if self.hold { OnFailure::Hold } else { OnFailure::Rollback },
            action,
            rollback_data: if self.always { RollbackData::Always } else { RollbackData::Never },
            release: ReleaseLabel::default(),
        }
    }

    fn plan(&self) -> StepOutput {
        let compose = ComposeUse { files: vec![], profiles: vec![], command: String::new() };
        let containers = if self.first { vec![] } else { vec!["c".to_owned()] };
        StepOutput::Planned(Box::new(Plan {
            report: PlanReport {
                hash: String::new(),
                files: tenantry_protocol::FileCounts::default(),
                recreates: vec![],
            },
            compose,
            previous_compose: None,
            writes: self.writes,
            first: self.first,
            changed: vec![],
            files: vec![],
            image_edits: vec![],
            env_keys: vec![],
            containers: containers.clone(),
            before: crate::before::Before::new(),
            references: vec![],
            previous_images: vec![],
            left_running: vec![],
            left_files: vec![],
            removed: vec![],
            data: self.data.map(|consistency| DataPlan {
                consistency,
                parts: vec!["path uploads".to_owned()],
                containers,
                bytes: 1,
            }),
            choices: None,
            images: vec![],
            inside: self.inside.then(|| "agent".to_owned()),
            checked: Checked::new(),
            copied: BTreeMap::new(),
            copied_next: BTreeMap::new(),
            previous_checked: Checked::new(),
        }))
    }

    /// What comes of a step.
    fn outcome_of(&self, step: Step) -> Record {
        if self.fail.contains(&step) {
            return Record::Failed { step, at: at(), failure: failure(step), then: None };
        }
        let did = match step {
            Step::Preflight => self.plan(),
            Step::RestoreFiles => StepOutput::Restored { touched: self.touched },
            _ => StepOutput::Nothing,
        };
        Record::Done { step, at: at(), did, message: None, then: None }
    }

    fn quiesces(&self) -> bool {
        !self.first && self.data.is_some_and(|data| data != Consistency::Live)
    }
}

/// Runs the machine to its end; returns the steps that were performed, the outcome and the journal. The agent is
/// killed when it has performed these steps (counted from 0), before it could record them.
fn run_killed(case: &Case, killed_at: &BTreeSet<usize>) -> (Vec<Step>, Outcome, Vec<Record>) {
    let mut journal = vec![case.accepted()];
    let mut performed = Vec::new();
    for _ in 0..60 {
        let state = JournalState::fold(&journal);
        match state.next() {
            Next::Do(step) => {
                if state.current() != Some(step) {
                    journal.push(Record::Begun { step, at: at() });
                }
                performed.push(step);
                journal.push(if killed_at.contains(&(performed.len() - 1)) {
                    Record::Resumed { at: at() }
                } else {
                    case.outcome_of(step)
                });
            }
            Next::End(outcome, failure) => journal.push(Record::Ended { at: at(), outcome, failure }),
            Next::Nothing => return (performed, state.outcome().unwrap(), journal),
        }
    }
    panic!("the machine does not end: {performed:?}");
}

fn run(case: &Case) -> (Vec<Step>, Outcome, Vec<Record>) {
    run_killed(case, &BTreeSet::new())
}

#[rstest]
#[case::that_goes_well_succeeds(
    plain(),
    Outcome::Succeeded,
    "Preflight Pull Snapshot Write RetagImages Start Refresh Verify Finish"
)]
#[case::that_changes_no_file_writes_none(Case { writes: false, ..plain() }, Outcome::Succeeded, "Preflight Pull Snapshot RetagImages Start Refresh Verify Finish")]
#[case::whose_data_is_copied_live_stops_nothing(Case { data: Some(Consistency::Live), ..plain() }, Outcome::Succeeded, "Preflight Pull Snapshot Write RetagImages Start Refresh Verify Finish")]
#[case::whose_data_is_copied_in_a_pause_lets_services_go_on_before_it_writes(Case { data: Some(Consistency::Pause), ..plain() }, Outcome::Succeeded, "Preflight Pull Quiesce Snapshot Unquiesce Write RetagImages Start Refresh Verify Finish")]
#[case::whose_data_is_copied_at_rest_leaves_services_stopped_until_start(
    stopping(),
    Outcome::Succeeded,
    "Preflight Pull Quiesce Snapshot Write RetagImages Start Refresh Verify Finish"
)]
#[case::of_an_agent_in_its_own_project_hands_over(Case { inside: true, ..plain() }, Outcome::Succeeded, "Preflight Pull Snapshot Write RetagImages Start Refresh HandOver Verify Finish")]
#[case::of_an_agent_in_its_own_project_hands_back(Case { inside: true, hold: true, ..failing(Step::HandOver) }, Outcome::RolledBack, "Preflight Pull Snapshot Write RetagImages Start Refresh HandOver RestoreFiles RestoreImages StartPrevious RefreshPrevious HandBack VerifyPrevious Discard")]
#[case::whose_image_is_missing_is_aborted(failing(Step::Pull), Outcome::Aborted, "Preflight Pull Discard")]
#[case::whose_restore_point_fails_is_aborted(
    failing(Step::Snapshot),
    Outcome::Aborted,
    "Preflight Pull Snapshot Discard"
)]
#[case::whose_write_fails_before_the_commit_is_aborted(
    failing(Step::Write),
    Outcome::Aborted,
    "Preflight Pull Snapshot Write RestoreFiles Discard"
)]
#[case::whose_write_had_to_be_taken_back_is_rolled_back(Case { touched: true, ..failing(Step::Write) }, Outcome::RolledBack, "Preflight Pull Snapshot Write RestoreFiles Discard")]
#[case::that_is_never_healthy_is_rolled_back(
    failing(Step::Verify),
    Outcome::RolledBack,
    "Preflight Pull Snapshot Write RetagImages Start Refresh Verify RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard"
)]
#[case::that_is_never_healthy_is_held_where_asked(Case { hold: true, ..failing(Step::Verify) }, Outcome::Held, "Preflight Pull Snapshot Write RetagImages Start Refresh Verify Hold")]
#[case::whose_previous_release_is_not_healthy_either_needs_a_person(Case { fail: vec![Step::Start, Step::VerifyPrevious], ..plain() }, Outcome::RollbackFailed, "Preflight Pull Snapshot Write RetagImages Start RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious")]
#[case::that_was_the_first_removes_what_it_made(Case { first: true, ..failing(Step::Verify) }, Outcome::RolledBack, "Preflight Pull Snapshot Write RetagImages Start Refresh Verify RestoreFiles RemoveCreated RestoreImages Discard")]
#[case::whose_clean_up_fails_is_still_aborted(Case { fail: vec![Step::Pull, Step::Discard], ..plain() }, Outcome::Aborted, "Preflight Pull Discard")]
fn p16_an_operation(#[case] case: Case, #[case] outcome: Outcome, #[case] steps: &str) {
    let (performed, ended, _) = run(&case);
    let names: Vec<String> = performed.iter().map(|step| format!("{step:?}")).collect();
    assert_eq!((ended, names.join(" ").as_str()), (outcome, steps));
}

#[rstest]
#[case::that_fails_starts_the_same_containers_again(Case { fail: vec![Step::Snapshot], ..stopping() }, Outcome::Aborted, "Preflight Pull Quiesce Snapshot Revive VerifyRevived Discard")]
#[case::whose_services_do_not_stop_starts_them_again(Case { fail: vec![Step::Quiesce], ..stopping() }, Outcome::Aborted, "Preflight Pull Quiesce Revive VerifyRevived Discard")]
#[case::after_which_services_stay_paused_lets_them_go_on(Case { data: Some(Consistency::Pause), fail: vec![Step::Unquiesce], ..plain() }, Outcome::Aborted, "Preflight Pull Quiesce Snapshot Unquiesce Revive VerifyRevived Discard")]
#[case::after_which_nothing_can_be_written_starts_them_again(Case { fail: vec![Step::Write], ..stopping() }, Outcome::Aborted, "Preflight Pull Quiesce Snapshot Write RestoreFiles Revive VerifyRevived Discard")]
#[case::after_which_a_write_was_taken_back_starts_the_previous_release(Case { fail: vec![Step::Write], touched: true, ..stopping() }, Outcome::RolledBack, "Preflight Pull Quiesce Snapshot Write RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::whose_services_do_not_start_again_needs_a_person(Case { fail: vec![Step::Snapshot, Step::Revive], ..stopping() }, Outcome::RollbackFailed, "Preflight Pull Quiesce Snapshot Revive")]
#[case::whose_services_are_not_healthy_again_needs_a_person(Case { fail: vec![Step::Snapshot, Step::VerifyRevived], ..stopping() }, Outcome::RollbackFailed, "Preflight Pull Quiesce Snapshot Revive VerifyRevived")]
fn p8_a_snapshot(#[case] case: Case, #[case] outcome: Outcome, #[case] steps: &str) {
    p16_an_operation(case, outcome, steps);
}

#[rstest]
#[case::data_with_a_release_that_failed(Case { always: true, fail: vec![Step::Verify], ..stopping() }, true, "Preflight Pull Quiesce Snapshot Write RetagImages Start Refresh Verify RestoreFiles StopForData RestoreData RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::data_with_a_first_installation(Case { first: true, always: true, fail: vec![Step::Verify], ..stopping() }, true, "Preflight Pull Snapshot Write RetagImages Start Refresh Verify RestoreFiles RemoveCreated StopForData RestoreData RestoreImages Discard")]
#[case::no_data_unless_asked(Case { fail: vec![Step::Verify], ..stopping() }, false, "Preflight Pull Quiesce Snapshot Write RetagImages Start Refresh Verify RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::no_data_before_anything_wrote_to_it(Case { always: true, fail: vec![Step::RetagImages], ..stopping() }, false, "Preflight Pull Quiesce Snapshot Write RetagImages RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::no_data_where_none_is_declared(Case { always: true, ..failing(Step::Verify) }, false, "Preflight Pull Snapshot Write RetagImages Start Refresh Verify RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::files_and_images_for_a_person(Case { back: Some(false), ..plain() }, false, "Preflight Snapshot Write RetagImages Start Refresh Verify Finish")]
#[case::data_for_a_person_who_asks(Case { back: Some(true), ..stopping() }, true, "Preflight Quiesce Snapshot Write StopForChosen RestoreChosen RetagImages Start Refresh Verify Finish")]
#[case::all_of_it_back_when_the_older_release_fails(Case { back: Some(true), hold: true, fail: vec![Step::Verify], ..stopping() }, true, "Preflight Quiesce Snapshot Write StopForChosen RestoreChosen RetagImages Start Refresh Verify RestoreFiles StopForData RestoreData RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::no_data_that_was_never_replaced(Case { back: Some(true), fail: vec![Step::StopForChosen], ..stopping() }, false, "Preflight Quiesce Snapshot Write StopForChosen RestoreFiles RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
#[case::data_that_may_have_been_replaced_in_part(Case { back: Some(true), fail: vec![Step::RestoreChosen], ..stopping() }, true, "Preflight Quiesce Snapshot Write StopForChosen RestoreChosen RestoreFiles StopForData RestoreData RestoreImages StartPrevious RefreshPrevious VerifyPrevious Discard")]
fn p9_a_rollback_restores(#[case] case: Case, #[case] told: bool, #[case] steps: &str) {
    let (performed, _, journal) = run(&case);
    let names: Vec<String> = performed.iter().map(|step| format!("{step:?}")).collect();
    assert_eq!(names.join(" "), steps);
    let status = JournalState::fold(&journal).status(&OperationId::parse("a").unwrap());
    assert_eq!(status.data_restored, told, "status says whether data was given up");
}

fn any_step() -> impl Strategy<Value = Step> {
    let all = [
        "Preflight",
        "Pull",
        "Quiesce",
        "Snapshot",
        "Unquiesce",
        "Write",
        "StopForChosen",
        "RestoreChosen",
        "Point",
        "Start",
        "Refresh",
        "HandOver",
        "Verify",
        "Finish",
        "Revive",
        "VerifyRevived",
        "RestoreFiles",
        "StopForData",
        "RestoreData",
        "RestoreImages",
        "RemoveCreated",
        "StartPrevious",
        "RefreshPrevious",
        "HandBack",
        "VerifyPrevious",
        "Discard",
        "Hold",
    ];
    let parse = |name: &str| serde_json::from_value(serde_json::Value::from(name)).unwrap();
    prop::sample::select(all.map(parse).to_vec())
}

prop_compose! {
    fn any_case()(
        flags in prop::array::uniform6(any::<bool>()),
        data in prop::option::of(prop::sample::select(vec![Consistency::Live, Consistency::Pause, Consistency::Stop])),
        back in prop::option::of(any::<bool>()),
        fail in prop::collection::vec(any_step(), 0..4),
    ) -> Case {
        let [first, writes, hold, touched, inside, always] = flags;
        // Who goes back with data stops its services, and without data copies none; Preflight sees to that.
        let data = match back {
            None => data,
            Some(true) => Some(Consistency::Stop),
            Some(false) => None,
        };
        Case { first, writes, hold, fail, touched, inside, data, always, back }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn p3_a_machine_that_is_killed_anywhere_and_goes_on_ends_as_one_that_is_not(
        case in any_case(), kills in prop::collection::btree_set(0usize..24, 0..4)
    ) {
        let (steps, outcome, journal) = run(&case);
        let (mut again, ended, killed) = run_killed(&case, &kills);
        again.dedup();
        prop_assert_eq!((&steps, outcome), (&again, ended));
        let id = OperationId::parse("a").unwrap();
        let (whole, cut) = (JournalState::fold(&journal).status(&id), JournalState::fold(&killed).status(&id));
        prop_assert_eq!((whole.state, whole.phases, whole.data_restored), (cut.state, cut.phases, cut.data_restored));
    }

    #[test]
    fn p8_nothing_changes_before_it_may_and_no_outcome_claims_what_did_not_happen(case in any_case()) {
        let (steps, outcome, _) = run(&case);
        let position = |step: Step| steps.iter().position(|one| *one == step);
        let well = |step: Step| steps.contains(&step) && !case.fail.contains(&step);
        for changing in [Step::Write, Step::RestoreChosen, Step::RetagImages, Step::Start] {
            if let Some(at) = position(changing) {
                prop_assert!(position(Step::Snapshot).is_some_and(|before| before < at) && well(Step::Snapshot));
            }
        }
        if position(Step::Quiesce).is_some() {
            prop_assert!(case.back.is_some() || well(Step::Pull), "every image is local before anything is stopped");
        }
        if outcome == Outcome::Aborted {
            let taken_back = steps.contains(&Step::RestoreFiles) && case.touched;
            prop_assert!(!steps.contains(&Step::RetagImages) && !taken_back);
            let quiesced = case.quiesces() && steps.contains(&Step::Quiesce);
            prop_assert!(!quiesced || well(Step::VerifyRevived) || well(Step::Unquiesce));
        }
        prop_assert!(outcome != Outcome::Succeeded || well(Step::Verify));
        let started = steps.contains(&Step::Start);
        let rolled_back = outcome == Outcome::RolledBack;
        prop_assert!(!(rolled_back && started) || case.first || well(Step::VerifyPrevious));
        if steps.contains(&Step::RestoreData) {
            prop_assert!(case.data.is_some());
            prop_assert!(steps.contains(&Step::RestoreChosen) || (case.always && started));
        }
        if outcome != Outcome::RollbackFailed && case.quiesces() && steps.contains(&Step::Quiesce) {
            let again = [Step::Unquiesce, Step::Revive, Step::Start, Step::StartPrevious];
            prop_assert!(again.into_iter().any(well) || steps.contains(&Step::Hold), "nothing is left stopped");
        }
    }
}

#[test]
fn a_step_may_begin_with_the_record_that_ends_the_one_before() {
    let joined = Record::Done {
        step: Step::Preflight,
        at: at(),
        did: plain().plan(),
        message: None,
        then: Some(Step::Pull),
    };
    let begun = Record::Begun { step: Step::Preflight, at: at() };
    let state = JournalState::fold(&[plain().accepted(), begun, joined]);
    assert_eq!(state.next(), Next::Do(Step::Pull));
    let id = OperationId::parse("a").unwrap();
    let phases: Vec<_> = state.status(&id).phases.iter().map(|phase| (phase.name, phase.state)).collect();
    let wanted =
        [(OperationPhase::Preflight, PhaseState::Succeeded), (OperationPhase::Pull, PhaseState::Running)];
    assert_eq!(phases, wanted);
}

#[test]
fn the_number_of_a_status_rises_with_every_record() {
    let (_, _, journal) = run(&plain());
    let id = OperationId::parse("a").unwrap();
    let numbers: Vec<u64> =
        (1..=journal.len()).map(|n| JournalState::fold(&journal[..n]).status(&id).seq).collect();
    assert!(numbers.windows(2).all(|pair| pair[1] >= pair[0] + (1 << 20)), "{numbers:?}");
}

#[test]
fn a_journal_survives_its_own_encoding() {
    let (_, _, journal) = run(&failing(Step::Verify));
    for record in journal {
        let text = serde_json::to_string(&record).unwrap();
        assert_eq!(serde_json::from_str::<Record>(&text).unwrap(), record, "{text}");
    }
}

#[test]
fn a_journal_from_before_restore_points_held_data_is_read_as_an_upgrade() {
    let old =
        r#"{"record":"Accepted","at":"1970-01-01T00:00:00Z","epoch":3,"targetHash":"t","onFailure":"Hold"}"#;
    let old = old
        .replace("Accepted", serde_json::to_value(plain().accepted()).unwrap()["record"].as_str().unwrap());
    let state = JournalState::fold([&serde_json::from_str::<Record>(&old).unwrap()]);
    assert_eq!(
        (state.action(), state.rollback_data(), state.epoch()),
        (&Action::Upgrade, RollbackData::Never, 3)
    );
}
