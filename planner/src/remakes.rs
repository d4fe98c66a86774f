//! Which services must be made anew, because compose copied something else into their containers than is meant now: it
//! copies inline configs and secrets when it starts a container, and never again.

use std::collections::BTreeSet;

use jiff::Timestamp;
use tenantry_api::names::ServiceName;

use crate::compare::Container;
use crate::model::{Copied, Model};
use crate::steps::{JournalState, Plan};

/// Services of a model of which one of these containers, that were there before compose brought it up, holds something else
/// or may do so: on the way to the release, and on the way back.
pub fn held_otherwise(model: &Model, state: &JournalState, stayed: &[Container]) -> BTreeSet<ServiceName> {
    match (state.plan(), state.began()) {
        (Some(plan), Some(began)) if state.failure().is_some() => spoiled(model, plan, stayed, began),
        (Some(plan), _) => outdated(model, plan, stayed),
        (None, _) => BTreeSet::new(),
    }
}

/// Services of the release with a container of before that holds something else.
fn outdated(model: &Model, plan: &Plan, containers: &[Container]) -> BTreeSet<ServiceName> {
    let before = containers.iter().filter(|one| plan.containers.contains(&one.id));
    differing(model, before.map(|one| (one, vec![had(plan, one)])))
}

/// Services of the previous release with a container that may hold what the failed one meant: it was made by that one, or
/// was there before and was started since `since`, which is when compose copies.
fn spoiled(model: &Model, plan: &Plan, containers: &[Container], since: Timestamp) -> BTreeSet<ServiceName> {
    let next = |one: &Container| plan.copied_next.get(&one.service).cloned().unwrap_or_default();
    let all = containers.iter().map(|one| {
        let may_hold = match plan.containers.contains(&one.id) {
            false => vec![next(one)],
            true if one.started_at >= Some(since) => vec![had(plan, one), next(one)],
            true => vec![had(plan, one)],
        };
        (one, may_hold)
    });
    differing(model, all)
}

fn had(plan: &Plan, one: &Container) -> Copied {
    plan.copied.get(&one.id).cloned().unwrap_or_default()
}

fn differing<'a>(
    model: &Model,
    may_hold: impl Iterator<Item = (&'a Container, Vec<Copied>)>,
) -> BTreeSet<ServiceName> {
    if tenantry_faults::Bug::ForgetInlineConfigs.is_seeded() {
        return BTreeSet::new();
    }
    let wrong = may_hold.filter_map(|(one, may_hold)| {
        let (name, service) = model.services.get_key_value(one.service.as_str())?;
        may_hold.iter().any(|held| !service.copied.differing(held).is_empty()).then(|| name.clone())
    });
    wrong.collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::tests::container;

    fn model(content: &str) -> Model {
        let json = serde_json::json!({"name": "a", "services": {
            "web": {"image": "x", "configs": [{"source": "app", "target": "/c"}]}, "db": {"image": "x"}},
            "configs": {"app": {"content": content}}});
        Model::parse(json.to_string().as_bytes(), "/d", "/d").unwrap()
    }

    fn copied(content: &str) -> Copied {
        model(content).services.into_values().find(|one| !one.copied.is_empty()).unwrap().copied
    }

    /// A plan for `v2` over containers of which `web` was made with `v1`.
    fn of_v2() -> Plan {
        let plan = serde_json::json!({
            "report": {"hash": "", "files": {"created": 0, "modified": 0, "deleted": 0, "unchanged": 0}, "recreates": []},
            "compose": {"files": [], "profiles": [], "command": ""}, "previousCompose": null, "writes": true,
            "first": false, "changed": [], "references": [], "previousImages": [], "leftRunning": [], "leftFiles": [],
            "containers": ["web-1", "db-1"], "copied": {"web-1": copied("v1")}, "copiedNext": {"web": copied("v2")},
        });
        serde_json::from_value(plan).unwrap()
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn names(all: &BTreeSet<ServiceName>) -> Vec<&str> {
        all.iter().map(ServiceName::as_str).collect()
    }

    #[test]
    fn p19_a_container_of_before_that_holds_something_else_is_outdated_and_a_new_one_is_not() {
        let (web, db) = (container("web"), container("db"));
        let new = Container { id: "web-2".into(), ..web.clone() };
        assert_eq!(names(&outdated(&model("v2"), &of_v2(), &[web.clone(), db.clone()])), ["web"]);
        assert_eq!(names(&outdated(&model("v2"), &of_v2(), &[new, db.clone()])), [""; 0]);
        assert_eq!(names(&outdated(&model("v1"), &of_v2(), &[web, db])), [""; 0]);
    }

    #[test]
    fn p19_the_way_back_makes_anew_what_may_hold_what_the_failed_release_meant() {
        let at = |one: Container, second: i64| Container {
            started_at: Timestamp::from_second(second).ok(),
            ..one
        };
        let made = at(Container { id: "web-2".into(), ..container("web") }, 9);
        let spoiled = |one: Container| spoiled(&model("v1"), &of_v2(), &[one], second(5));
        assert_eq!(names(&spoiled(made)), ["web"]);
        // It was stopped for its data, say, and compose copied when it started it again.
        assert_eq!(names(&spoiled(at(container("web"), 9))), ["web"]);
        assert_eq!(names(&spoiled(at(container("web"), 2))), [""; 0]);
        assert_eq!(names(&spoiled(at(container("db"), 9))), [""; 0]);
    }
}
