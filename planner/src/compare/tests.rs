use rstest::rstest;

use super::*;

/// A healthy container of `service` that runs image `new`.
pub(crate) fn container(service: &str) -> Container {
    Container {
        id: format!("{service}-1"),
        name: format!("acme-{service}-1"),
        service: service.to_owned(),
        image_ref: "r/x:2".to_owned(),
        image_id: "new".to_owned(),
        state: ContainerState::Running,
        exit_code: 0,
        oom_killed: false,
        restart_count: 0,
        health: ServiceHealth::Healthy,
        started_at: None,
        ended_at: None,
        attached: Attached::default(),
        namespaces: Namespaces::default(),
    }
}

const JOB: Lifetime = Lifetime::MayEnd { retried: false };

fn expected(lifetime: Lifetime) -> Expected {
    Expected { lifetime, replicas: 1, image_id: Some("new".to_owned()), attached: None }
}

#[rstest]
#[case::a_healthy_service_is_fine(Lifetime::RunsOn, |_: &mut Container| {}, "")]
#[case::without_a_healthcheck_running_is_all_that_is_known(Lifetime::RunsOn, |c: &mut Container| c.health = ServiceHealth::None, "")]
#[case::a_service_that_ended_well_has_still_ended(Lifetime::RunsOn, |c: &mut Container| c.state = ContainerState::Exited, "final: web ended with code 0")]
#[case::a_one_shot_that_ended_well_is_fine(Lifetime::Ends, |c: &mut Container| c.state = ContainerState::Exited, "")]
#[case::a_one_shot_that_failed_is_final(Lifetime::Ends, |c: &mut Container| { c.state = ContainerState::Exited; c.exit_code = 3; }, "final: web ended with code 3")]
#[case::a_one_shot_that_runs_may_yet_end(Lifetime::Ends, |_: &mut Container| {}, "web is a one-shot and still runs")]
#[case::another_image_is_final(Lifetime::RunsOn, |c: &mut Container| c.image_id = "sha256:0123456789abcdef".into(), "final: web runs image 0123456789ab, planned is new")]
#[case::unhealthy_may_yet_come_right(Lifetime::RunsOn, |c: &mut Container| c.health = ServiceHealth::Unhealthy, "web is unhealthy")]
#[case::out_of_memory_is_said(Lifetime::RunsOn, |c: &mut Container| { c.state = ContainerState::Restarting; c.exit_code = 137; c.oom_killed = true; }, "web ended with code 137 (out of memory) and is being restarted")]
#[case::a_paused_service_is_said(Lifetime::RunsOn, |c: &mut Container| c.state = ContainerState::Paused, "web is paused")]
#[case::what_nothing_starts_again_is_done_by_ending_well(JOB, |c: &mut Container| c.state = ContainerState::Exited, "")]
#[case::what_is_tried_again_is_done_by_ending_well_too(Lifetime::MayEnd { retried: true }, |c: &mut Container| c.state = ContainerState::Exited, "")]
#[case::it_may_run_as_well(JOB, |_: &mut Container| {}, "")]
#[case::it_is_not_done_by_failing(JOB, |c: &mut Container| { c.state = ContainerState::Exited; c.exit_code = 1; }, "final: web ended with code 1")]
#[case::what_serves_is_not_done_by_ending(Lifetime::Serves, |c: &mut Container| c.state = ContainerState::Exited, "final: web ended with code 0; if it is meant to end, name it in spec.jobs")]
fn p10_a_service(#[case] lifetime: Lifetime, #[case] change: impl Fn(&mut Container), #[case] wrong: &str) {
    let mut web = container("web");
    change(&mut web);
    let found = problem("web", &expected(lifetime), &[&web]);
    let text = match &found {
        Some(Problem::Final(_, text)) => format!("final: {text}"),
        Some(Problem::Pending(text)) => text.clone(),
        None => String::new(),
    };
    assert_eq!(text, wrong);
}

#[test]
fn p10_too_few_and_too_many_containers_are_said() {
    let web = container("web");
    let two = Expected { replicas: 2, ..expected(Lifetime::RunsOn) };
    assert_eq!(problem("web", &expected(Lifetime::RunsOn), &[]).unwrap().text(), "web has no container");
    assert_eq!(problem("web", &two, &[&web]).unwrap().text(), "web has 1 of 2 containers");
    assert_eq!(
        problem("web", &two, &[&web, &web, &web]).unwrap().text(),
        "web has 3 containers, 2 are planned"
    );
    assert_eq!(problem("web", &Expected { replicas: 0, ..two }, &[]), None);
}

#[test]
fn health_names_services_without_a_healthcheck() {
    let mut worker = container("worker");
    worker.health = ServiceHealth::None;
    let name = |text: &str| ServiceName::parse(text).unwrap();
    let services = BTreeMap::from([
        (name("web"), expected(Lifetime::RunsOn)),
        (name("worker"), expected(Lifetime::RunsOn)),
    ]);
    let health = health(&services, &[container("web"), worker], None);
    assert_eq!((health.problems.len(), health.without_healthcheck), (0, vec!["worker".to_owned()]));
}

#[rstest]
#[case::without_a_policy(r#"{"image": "x"}"#, JOB)]
#[case::that_is_tried_again(r#"{"image": "x", "restart": "on-failure:3"}"#, Lifetime::MayEnd { retried: true })]
#[case::that_publishes_a_port(r#"{"image": "x", "ports": [{"target": 80}]}"#, Lifetime::Serves)]
#[case::that_has_a_healthcheck(
    r#"{"image": "x", "healthcheck": {"test": ["CMD", "true"]}}"#,
    Lifetime::Serves
)]
#[case::that_is_started_again(r#"{"image": "x", "restart": "unless-stopped"}"#, Lifetime::RunsOn)]
fn p10_a_service_as_compose_has_it(#[case] service: &str, #[case] lifetime: Lifetime) {
    let json = format!(r#"{{"name": "acme", "services": {{"web": {service}}}}}"#);
    let model = Model::parse(json.as_bytes(), "/srv/acme", "/srv/acme").unwrap();
    let web = ServiceName::parse("web").unwrap();
    assert_eq!(expectations(&model, &[])[&web].lifetime, lifetime);
    assert_eq!(expectations(&model, std::slice::from_ref(&web))[&web].lifetime, Lifetime::Ends);
}

#[rstest]
#[case::before_anything_was_brought_up(None, 3_600, &[])]
#[case::within_the_time_of_watching(Some(300), 300, &[])]
#[case::after_it_had_been_seen_running_for_long(Some(300), 301, &["web ended with code 0; if it is meant to end, name it in spec.jobs"])]
fn p10_what_ended_well_was_a_job_unless_it_had_run_for_long(
    #[case] watched: Option<u64>,
    #[case] ran: i64,
    #[case] problems: &[&str],
) {
    let at = |second: i64| Some(Timestamp::from_second(second).unwrap());
    let web = ServiceName::parse("web").unwrap();
    let state = ContainerState::Exited;
    let ended = Container { state, started_at: at(1_000), ended_at: at(1_000 + ran), ..container("web") };
    let expected = BTreeMap::from([(web, expected(JOB))]);
    assert_eq!(health(&expected, &[ended], watched.map(Duration::from_secs)).problems, problems);
}

#[test]
fn a_one_shot_that_is_at_work_again_is_as_it_should_be_and_one_that_failed_is_not() {
    let migrate = ServiceName::parse("migrate").unwrap();
    let expected = BTreeMap::from([(migrate, expected(Lifetime::Ends))]);
    let found = |state, exit_code| {
        let one = Container { state, exit_code, health: ServiceHealth::None, ..container("migrate") };
        health(&expected, &[one], None)
    };
    for (state, code) in [(ContainerState::Running, 0), (ContainerState::Exited, 0)] {
        assert_eq!(found(state, code), Health::default());
    }
    assert_eq!(found(ContainerState::Exited, 3).problems, ["migrate ended with code 3"]);
}

#[test]
fn what_is_done_though_nobody_waits_for_it_is_named() {
    let name = |text: &str| ServiceName::parse(text).unwrap();
    let mut done = [container("seed"), container("migrate")];
    for one in &mut done {
        one.state = ContainerState::Exited;
    }
    let services =
        BTreeMap::from([(name("seed"), expected(JOB)), (name("migrate"), expected(Lifetime::Ends))]);
    assert_eq!(health(&services, &done, None).ended, ["seed"]);
}
