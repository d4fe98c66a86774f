use rstest::rstest;
use serde_json::json;
use tenantry_protocol::OperationPhase;

use super::*;
use crate::compare::{expectations, tests::container};

/// `web` waits for `api`, which waits for `db`; `cache` stands alone.
fn model() -> Model {
    let service = |on: &[&str]| {
        let on: serde_json::Map<String, serde_json::Value> = on
            .iter()
            .map(|on| ((*on).to_owned(), json!({"condition": "service_healthy", "required": true})))
            .collect();
        json!({"image": "r/x:2", "depends_on": on})
    };
    let value = json!({"name": "acme", "services": {
        "web": service(&["api"]), "api": service(&["db"]), "db": service(&[]), "cache": service(&[]),
    }});
    Model::parse(value.to_string().as_bytes(), "/srv/acme", "/srv/acme").unwrap()
}

fn changed(service: &str, change: impl Fn(&mut Container)) -> Container {
    let mut one = container(service);
    change(&mut one);
    one
}

fn exited(service: &str, code: i64) -> Container {
    changed(service, |one| (one.state, one.exit_code) = (ContainerState::Exited, code))
}

fn made(service: &str) -> Container {
    changed(service, |one| one.state = ContainerState::Created)
}

#[rstest]
#[case::the_cause_before_those_who_wait(
    &[made("web"), made("api"), exited("db", 1), container("cache")], &[], &["db", "api", "web"]
)]
#[case::of_two_that_ended_the_one_that_the_other_needs(
    &[container("web"), exited("api", 1), exited("db", 1), container("cache")], &[], &["db", "api"]
)]
#[case::unhealthy_before_not_ready_yet(
    &[
        container("web"),
        changed("api", |one| one.health = ServiceHealth::Unhealthy),
        container("db"),
        changed("cache", |one| one.health = ServiceHealth::Starting),
    ],
    &[], &["api", "cache"]
)]
#[case::one_that_was_never_made(&[container("web"), container("api"), container("db")], &[], &["cache"])]
#[case::one_that_was_restarted_and_runs_again(
    &[container("web"), container("api"), container("db"), changed("cache", |one| one.restart_count = 2)],
    &["cache"], &["cache"]
)]
#[case::one_that_runs_and_fails_its_probe(
    &[container("web"), container("api"), container("db"), container("cache")], &["web"], &["web"]
)]
fn what_failed_first_comes_first(
    #[case] containers: &[Container],
    #[case] named: &[&str],
    #[case] order: &[&str],
) {
    let model = model();
    let named: Vec<String> = named.iter().map(|name| (*name).to_owned()).collect();
    let found = suspects(&expectations(&model, &[]), containers, &named);
    let found: Vec<String> = in_order(found, &model).into_iter().map(|one| one.service).collect();
    assert_eq!(found, order);
}

#[test]
fn what_the_engine_could_not_start_is_a_cause_and_says_why() {
    let model = model();
    let containers = [made("web"), made("api"), container("db"), container("cache")];
    let found = suspects(&expectations(&model, &[]), &containers, &[]);
    let why = |one: &Suspect| (one.service == "api").then_some("exec: \"/app\": no such file or directory");
    let known = found.into_iter().map(|one| one.clone().knowing(None, why(&one))).collect();
    let order = in_order(known, &model);
    let told: Vec<&str> = order.iter().map(|one| one.problem.as_str()).collect();
    let refused = "api could not be started: exec: \"/app\": no such file or directory";
    assert_eq!(told, [refused, "web was made but not started"]);
    // One that ran has its own words.
    let ran = suspects(&expectations(&model, &[]), &[exited("db", 1)], &[]).remove(2);
    assert_eq!(ran.service, "db");
    assert_eq!(ran.knowing(None, Some("an old refusal")).problem, "db ended with code 1");
}

#[test]
fn of_two_that_know_nothing_of_each_other_the_one_that_ended_first() {
    let model = model();
    let containers = [container("web"), container("api"), exited("db", 1), exited("cache", 1)];
    let mut found = suspects(&expectations(&model, &[]), &containers, &[]);
    for one in &mut found {
        let second = if one.service == "db" { 5 } else { 9 };
        one.ended = Some(Timestamp::from_second(second).unwrap());
    }
    assert_eq!(in_order(found, &model)[0].service, "db");
}

#[rstest]
#[case::its_last_line(&["starting", "boom: cannot open config", ""], None, "web said last: \"boom: cannot open config\"")]
#[case::its_healthcheck(&[], Some("curl: (7)\nrefused\n"), "The healthcheck of web printed: \"refused\"")]
#[case::both(&["listening"], Some("503"), "The healthcheck of web printed: \"503\"; web said last: \"listening\"")]
#[case::nothing(&[], None, "")]
fn a_message_has_room_for_one_sentence_of_its_own(
    #[case] log: &[&str],
    #[case] healthcheck: Option<&str>,
    #[case] told: &str,
) {
    let failed = FailedService {
        service: "web".to_owned(),
        during: OperationPhase::Verify,
        problem: String::new(),
        log: log.iter().map(|line| (*line).to_owned()).collect(),
        healthcheck: healthcheck.map(str::to_owned),
    };
    assert_eq!(said(&failed).unwrap_or_default(), told);
}
