use rstest::rstest;
use tenantry_protocol::ServiceHealth;

use super::*;
use crate::compare::ContainerState;
use crate::compare::tests::container;

/// Two services and a one-shot, 10 s to become healthy, 3 s stable.
fn judge() -> Judge {
    use Lifetime::{Ends, RunsOn};
    let expected =
        |lifetime| Expected { lifetime, replicas: 1, image_id: Some("new".to_owned()), attached: None };
    let services = [("web", RunsOn), ("worker", RunsOn), ("migrate", Ends)];
    let named = services.map(|(name, lifetime)| (ServiceName::parse(name).unwrap(), expected(lifetime)));
    Judge::new(BTreeMap::from(named), 10_000, 3_000)
}

fn all_good() -> Vec<Container> {
    let mut migrate = container("migrate");
    migrate.state = ContainerState::Exited;
    migrate.health = ServiceHealth::None;
    vec![container("web"), container("worker"), migrate]
}

type Step = (u64, How);

#[derive(Clone, Copy)]
enum How {
    Fine,
    Starting,
    Unhealthy,
    Restarted,
    RestartedUnchecked,
    RestartedOften,
    Recreated,
    Ended,
    MigrationFailed,
}
use How::*;

fn change(containers: &mut [Container], how: How) {
    match how {
        Fine => {}
        Starting => containers[0].health = ServiceHealth::Starting,
        Unhealthy => containers[0].health = ServiceHealth::Unhealthy,
        Restarted => containers[0].restart_count = 1,
        RestartedUnchecked => {
            containers[0].restart_count = 1;
            containers[0].health = ServiceHealth::None;
        }
        RestartedOften => {
            containers[0].restart_count = 5;
            containers[0].state = ContainerState::Restarting;
        }
        Recreated => "other".clone_into(&mut containers[0].id),
        Ended => containers[1].state = ContainerState::Exited,
        MigrationFailed => containers[2].exit_code = 1,
    }
}

fn run(steps: &[Step]) -> Verdict {
    let mut judge = judge();
    let mut verdict = Verdict::Waiting(Vec::new());
    for (at_ms, how) in steps {
        let mut containers = all_good();
        change(&mut containers, *how);
        verdict = judge.judge(&Sample { at_ms: *at_ms, containers: &containers, probe_problems: &[] });
        if matches!(verdict, Verdict::Failed(..) | Verdict::Good) {
            break;
        }
    }
    verdict
}

#[rstest]
#[case::is_good_after_the_whole_window(&[(0, Fine), (2_999, Fine), (3_000, Fine)], Verdict::Good)]
#[case::is_not_good_before(&[(0, Fine), (2_999, Fine)], Verdict::Stabilising(1))]
#[case::that_flaps_begins_its_window_anew(&[(0, Fine), (2_000, Unhealthy), (3_000, Fine), (5_900, Fine)], Verdict::Stabilising(100))]
#[case::that_was_recreated_begins_its_window_anew(&[(0, Fine), (2_900, Recreated), (3_100, Recreated)], Verdict::Stabilising(2_800))]
#[case::may_be_restarted_before_it_is_healthy(&[(0, Starting), (1_000, Restarted), (4_000, Restarted)], Verdict::Good)]
fn p10_a_release(#[case] steps: &[Step], #[case] verdict: Verdict) {
    assert_eq!(run(steps), verdict);
}

#[rstest]
#[case::that_is_never_healthy_fails_at_the_timeout(&[(0, Unhealthy), (9_999, Unhealthy), (10_000, Unhealthy)], FailureCategory::Unhealthy, "not healthy within 10 s: web is unhealthy")]
#[case::that_crashes_inside_the_window_fails_at_once(&[(0, Fine), (1_000, Restarted)], FailureCategory::Crashed, "web ended with code 0 after it had been healthy")]
#[case::that_crashes_without_a_healthcheck_is_not_called_healthy(&[(0, Fine), (1_000, RestartedUnchecked)], FailureCategory::Crashed, "web ended with code 0 while it was watched, and was restarted")]
#[case::that_keeps_ending_fails_before_the_timeout(&[(0, Starting), (2_000, RestartedOften)], FailureCategory::Crashed, "web keeps ending: 5 restarts")]
#[case::with_a_service_that_ended_fails_at_once(&[(0, Ended)], FailureCategory::Crashed, "worker ended with code 0")]
#[case::with_a_failed_one_shot_fails_at_once(&[(0, MigrationFailed)], FailureCategory::Crashed, "migrate ended with code 1")]
fn p10_a_bad_release(#[case] steps: &[Step], #[case] category: FailureCategory, #[case] says: &str) {
    match run(steps) {
        Verdict::Failed(found, text) => {
            assert_eq!(found, category, "{text}");
            assert!(text.contains(says), "{text}");
        }
        other => panic!("{other:?}"),
    }
}

#[test]
fn p10_a_probe_that_is_not_answered_keeps_a_healthy_release_from_being_good() {
    let mut judge = judge();
    let containers = all_good();
    let problems = ["http://127.0.0.1:1/health: answered 503 instead of 200".to_owned()];
    let at = |at_ms, probe_problems| Sample { at_ms, containers: &containers, probe_problems };
    assert!(matches!(judge.judge(&at(0, &problems)), Verdict::Waiting(_)));
    assert!(matches!(judge.judge(&at(1_000, &[])), Verdict::Stabilising(_)));
    let late = judge.judge(&at(11_000, &problems));
    assert!(
        matches!(late, Verdict::Failed(FailureCategory::ProbeFailed, ref text) if text.contains("503")),
        "{late:?}"
    );
}

#[test]
fn p10_a_look_that_came_to_nothing_begins_the_window_anew_and_forgives_no_restart() {
    fn at(at_ms: u64, containers: &[Container]) -> Sample<'_> {
        Sample { at_ms, containers, probe_problems: &[] }
    }
    let mut judge = judge();
    let mut containers = all_good();
    assert_eq!(judge.judge(&at(0, &containers)), Verdict::Stabilising(3_000));
    judge.missed();
    assert_eq!(
        judge.judge(&at(2_900, &containers)),
        Verdict::Stabilising(3_000),
        "nobody saw what was at 1,000"
    );
    assert_eq!(judge.judge(&at(5_900, &containers)), Verdict::Good);
    judge.missed();
    change(&mut containers, Restarted);
    let restarted = judge.judge(&at(6_000, &containers));
    assert!(matches!(restarted, Verdict::Failed(FailureCategory::Crashed, _)), "{restarted:?}");
}

#[test]
fn p15_an_engine_that_flaps_for_ever_ends_the_verification() {
    let (mut judge, containers) = (judge(), all_good());
    let verdicts = (0..100).map(|n| {
        let verdict = judge.judge(&Sample { at_ms: n * 1_000, containers: &containers, probe_problems: &[] });
        judge.missed();
        verdict
    });
    let end = verdicts
        .into_iter()
        .position(|verdict| matches!(verdict, Verdict::Failed(FailureCategory::EngineFault, _)));
    assert_eq!(end, Some(21));
}

#[test]
fn p15_a_message_names_a_bounded_number_of_problems() {
    let many: Vec<String> = (0..40).map(|n| format!("s{n} is unhealthy")).collect();
    assert!(named(&many).ends_with("s4 is unhealthy; and 35 more"));
}

/// A judge of `job` alone, which is tried again after a failure.
fn of_a_retried_job() -> Judge {
    let lifetime = Lifetime::MayEnd { retried: true };
    let job = Expected { lifetime, replicas: 1, image_id: None, attached: None };
    Judge::new(BTreeMap::from([(ServiceName::parse("job").unwrap(), job)]), 10_000, 3_000)
}

#[test]
fn p10_a_job_that_is_tried_again_may_fail_until_it_ends_well_and_begins_the_window_anew() {
    let mut judge = of_a_retried_job();
    let mut job = container("job");
    let mut at = |at_ms, restarts, state| {
        (job.restart_count, job.state) = (restarts, state);
        judge.judge(&Sample { at_ms, containers: std::slice::from_ref(&job), probe_problems: &[] })
    };
    for n in 0..6 {
        let seen = at(n * 500, n, ContainerState::Running);
        assert_eq!(seen, Verdict::Stabilising(3_000), "restart {n}");
    }
    assert_eq!(at(5_400, 5, ContainerState::Exited), Verdict::Stabilising(100));
    assert_eq!(at(5_500, 5, ContainerState::Exited), Verdict::Good);
}

#[rstest]
#[case::that_was_unhealthy_may_be_so_again(Was::Unhealthy, Unhealthy, true)]
#[case::that_was_unhealthy_may_be_well(Was::Unhealthy, Fine, true)]
#[case::that_kept_ending_may_end_again(Was::Restarting { code: 1 }, RestartedOften, true)]
#[case::that_had_just_been_started_again_may_be_unhealthy(Was::Restarted, Unhealthy, true)]
#[case::that_had_just_been_started_again_must_not_be_down(Was::Restarted, RestartedOften, false)]
#[case::that_was_not_there_may_be_as_it_will(Was::Absent, Unhealthy, true)]
#[case::that_was_well_must_be_well(Was::Running { long: true }, Unhealthy, false)]
#[case::that_was_unhealthy_must_not_be_worse(Was::Unhealthy, RestartedOften, false)]
fn p18_a_service_on_the_way_back(#[case] was: Was, #[case] how: How, #[case] good: bool) {
    let well = [("worker", Was::Running { long: true }), ("migrate", Was::Exited { code: 0 })];
    let mut before: Before = well.into_iter().map(|(name, was)| (name.to_owned(), was)).collect();
    before.insert("web".to_owned(), was);
    let mut judge = judge().no_worse_than(before);
    let mut last = Verdict::Waiting(Vec::new());
    for (n, at_ms) in [0, 1_000, 5_000, 11_000].into_iter().enumerate() {
        let mut containers = all_good();
        change(&mut containers, how);
        // The first look fixes how often it had been restarted.
        containers[0].restart_count = containers[0].restart_count.min(n as u64 * 5);
        let problems = ["a probe".to_owned()];
        let probe_problems = if matches!(how, Fine) { &[][..] } else { &problems };
        last = judge.judge(&Sample { at_ms, containers: &containers, probe_problems });
        if matches!(last, Verdict::Failed(..) | Verdict::Good) {
            break;
        }
    }
    assert_eq!(last == Verdict::Good, good, "{last:?}");
    assert_eq!(judge.as_before().is_empty(), !good || matches!(how, Fine));
}

#[test]
fn p18_what_was_well_is_not_excused_by_what_was_not() {
    let mut judge = judge().no_worse_than(Before::from([("web".to_owned(), Was::Unhealthy)]));
    let mut containers = all_good();
    change(&mut containers, Unhealthy);
    change(&mut containers, MigrationFailed);
    // Nothing is known of migrate, so it was not there; but worker was.
    let verdict = judge.judge(&Sample { at_ms: 0, containers: &containers, probe_problems: &[] });
    assert_eq!(verdict, Verdict::Stabilising(3_000));
    containers[0].image_id = "other".to_owned();
    let verdict = judge.judge(&Sample { at_ms: 10, containers: &containers, probe_problems: &[] });
    assert!(matches!(verdict, Verdict::Failed(FailureCategory::WrongImage, _)), "{verdict:?}");
}

#[rstest]
#[case::its_port(r#"{"address": "127.0.0.1:8080"}"#, &["web"])]
#[case::nobodys_port(r#"{"address": "127.0.0.1:9999"}"#, &[])]
fn a_probe_is_about_who_publishes_its_port(#[case] probe: &str, #[case] about: &[&str]) {
    let json = r#"{"name": "a", "services": {"db": {"image": "db"}, "web": {"image": "web", "ports":
        [{"mode": "ingress", "target": 80, "published": "8080", "protocol": "tcp"}]}}}"#;
    let model = crate::model::Model::parse(json.as_bytes(), "/x", "/x").unwrap();
    let probe = tenantry_protocol::Probe::Tcp(serde_json::from_str(probe).unwrap());
    assert_eq!(probed_services(&[probe], &model), about);
}
