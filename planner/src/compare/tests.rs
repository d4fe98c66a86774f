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
    }
}

fn expected(one_shot: bool) -> Expected {
    Expected { one_shot, replicas: 1, image_id: Some("new".to_owned()) }
}

#[rstest]
#[case::a_healthy_service_is_fine(false, |_: &mut Container| {}, "")]
#[case::without_a_healthcheck_running_is_all_that_is_known(false, |c: &mut Container| c.health = ServiceHealth::None, "")]
#[case::a_service_that_ended_well_has_still_ended(false, |c: &mut Container| c.state = ContainerState::Exited, "final: web ended with code 0")]
#[case::a_one_shot_that_ended_well_is_fine(true, |c: &mut Container| c.state = ContainerState::Exited, "")]
#[case::a_one_shot_that_failed_is_final(true, |c: &mut Container| { c.state = ContainerState::Exited; c.exit_code = 3; }, "final: web ended with code 3")]
#[case::a_one_shot_that_runs_may_yet_end(true, |_: &mut Container| {}, "web is a one-shot and still runs")]
#[case::another_image_is_final(false, |c: &mut Container| c.image_id = "sha256:0123456789abcdef".into(), "final: web runs image 0123456789ab, planned is new")]
#[case::unhealthy_may_yet_come_right(false, |c: &mut Container| c.health = ServiceHealth::Unhealthy, "web is unhealthy")]
#[case::out_of_memory_is_said(false, |c: &mut Container| { c.state = ContainerState::Restarting; c.exit_code = 137; c.oom_killed = true; }, "web ended with code 137 (out of memory) and is being restarted")]
#[case::a_paused_service_is_said(false, |c: &mut Container| c.state = ContainerState::Paused, "web is paused")]
fn p10_a_service(#[case] one_shot: bool, #[case] change: impl Fn(&mut Container), #[case] wrong: &str) {
    let mut web = container("web");
    change(&mut web);
    let found = problem("web", &expected(one_shot), &[&web]);
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
    let two = Expected { replicas: 2, ..expected(false) };
    assert_eq!(problem("web", &expected(false), &[]).unwrap().text(), "web has no container");
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
    let services = BTreeMap::from([(name("web"), expected(false)), (name("worker"), expected(false))]);
    let health = health(&services, &[container("web"), worker]);
    assert_eq!((health.problems.len(), health.without_healthcheck), (0, vec!["worker".to_owned()]));
}
