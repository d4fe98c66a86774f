use rstest::rstest;

use super::*;
use crate::compare::tests::container;
use crate::compare::{Lifetime, expectations};

const NOW: &str = "2026-01-01T12:00:00Z";

/// `web` waits for `api`, which waits for `db`; `mail` stands alone.
fn model() -> Model {
    let json = r#"{"name": "acme", "services": {
        "web": {"image": "x", "depends_on": {"api": {"condition": "service_started"}}},
        "api": {"image": "x", "depends_on": {"db": {"condition": "service_healthy"}}},
        "db": {"image": "x"}, "mail": {"image": "x"}, "spare": {"image": "x", "scale": 0}}}"#;
    Model::parse(json.as_bytes(), "/srv/acme", "/srv/acme").unwrap()
}

fn told(service: &str, was: Was, changed: &[&str], goes_back: bool) -> Vec<String> {
    let before = Before::from([(service.to_owned(), was)]);
    let model = model();
    let changed = changed.iter().copied().collect();
    let found = hindrances(&model, &before, &changed, goes_back);
    found.iter().map(|one| one.said("docker compose")).collect()
}

#[rstest]
#[case::a_paused_service("db", Was::Paused, &["db"], "db is paused: `docker compose unpause db`")]
#[case::a_dead_one("db", Was::Dead, &["db"], "db is dead, which the engine could not end properly: `docker compose rm -sf db`")]
#[case::one_that_keeps_ending("mail", Was::Restarting { code: 3 }, &["web"], "mail keeps ending with code 3, and nothing of it is changed: see `docker compose logs mail`")]
#[case::an_unhealthy_one("db", Was::Unhealthy, &["web"], "db is unhealthy, and nothing of it is changed")]
fn p18_an_upgrade_is_not_begun_on(
    #[case] service: &str,
    #[case] was: Was,
    #[case] changed: &[&str],
    #[case] says: &str,
) {
    let said = told(service, was, changed, false);
    assert!(said.len() == 1 && said[0].starts_with(says), "{said:?}");
}

#[rstest]
#[case::what_it_changes("mail", Was::Restarting { code: 3 }, &["mail"], false)]
#[case::what_depends_on_what_it_changes("web", Was::Unhealthy, &["db"], false)]
#[case::what_has_ended("mail", Was::Exited { code: 1 }, &[], false)]
#[case::what_is_not_to_run("spare", Was::Paused, &[], false)]
#[case::what_keeps_ending_on_the_way_back("mail", Was::Restarting { code: 3 }, &[], true)]
fn p18_an_operation_may_mend(
    #[case] service: &str,
    #[case] was: Was,
    #[case] changed: &[&str],
    #[case] goes_back: bool,
) {
    assert_eq!(told(service, was, changed, goes_back), [""; 0]);
}

#[test]
fn the_worst_container_speaks_for_its_service_and_a_young_restart_is_a_loop() {
    let now: Timestamp = NOW.parse().unwrap();
    let watched = Duration::from_mins(2);
    let aged = |seconds: i64, restarts: u64| {
        let started_at = Some(Timestamp::from_second(now.as_second() - seconds).unwrap());
        Container { started_at, restart_count: restarts, exit_code: 1, ..container("web") }
    };
    let is = |containers: &[Container]| before(containers, now, watched)["web"];
    assert_eq!(is(&[aged(121, 0)]), Was::Running { long: true });
    assert_eq!(is(&[aged(120, 0)]), Was::Running { long: false });
    assert_eq!(is(&[aged(9, 1)]), Was::Restarting { code: 1 });
    assert_eq!(is(&[aged(10, 1)]), Was::Restarted);
    assert_eq!(is(&[aged(121, 1)]), Was::Running { long: true });
    let paused = Container { state: ContainerState::Paused, ..aged(5, 0) };
    assert_eq!(is(&[aged(121, 0), paused, aged(121, 0)]), Was::Paused);
}

#[test]
fn p18_one_that_was_done_is_not_excused_for_failing() {
    let json = r#"{"name": "acme", "services": {"job": {"image": "x"}}}"#;
    let model = Model::parse(json.as_bytes(), "/srv/acme", "/srv/acme").unwrap();
    let job = expectations(&model, &[]).into_values().next().unwrap();
    let failed = Was::Exited { code: 1 };
    assert!(!Was::Exited { code: 0 }.excuses(failed, &job));
    assert!(failed.excuses(failed, &job));
    let serves = Expected { lifetime: Lifetime::Serves, ..job };
    assert!(Was::Exited { code: 0 }.excuses(failed, &serves), "it did not run before, either");
}
