//! Who is restarted with whom, and in which order: as `docker compose restart` does it, and so that nobody is left in a
//! namespace that is gone.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use tenantry_api::names::ServiceName;

use crate::compare::{Container, ContainerState, is_cut_off};
use crate::model::Model;

/// Services that must be started once more, because what they hang on was: they share a namespace that is gone, or have
/// `restart: true` for a service that was started since `since` by somebody else than the engine itself.
///
/// It is told from containers' times alone, so that whoever is asked a second time, after a crash, says the same.
pub fn left_behind(model: &Model, containers: &[Container], since: Timestamp) -> BTreeSet<ServiceName> {
    let runs = |one: &&Container| matches!(one.state, ContainerState::Running | ContainerState::Paused);
    let behind = containers.iter().filter(runs).filter(|one| {
        let service = model.services.get(one.service.as_str());
        let follows = |other: &Container| {
            service.is_some_and(|service| service.restarts_with.contains(&other.service))
                && other.restart_count == 0
                && other.started_at >= Some(since)
                && other.started_at > one.started_at
        };
        !tenantry_faults::Bug::ForgetSharers.is_seeded()
            && (is_cut_off(one, containers) || containers.iter().any(follows))
    });
    let names: BTreeSet<&str> = behind.map(|one| one.service.as_str()).collect();
    model.services.keys().filter(|name| names.contains(name.as_str())).cloned().collect()
}

/// Those services in turns. Within a turn compose keeps the order; it does not know that who shares a namespace comes after
/// the one that it shares with, where `depends_on` is written out without `restart: true`.
pub fn turns(model: &Model, services: &BTreeSet<ServiceName>) -> Vec<Vec<ServiceName>> {
    let mut turn: BTreeMap<&str, usize> = services.iter().map(|name| (name.as_str(), 0)).collect();
    // As many rounds as there are services settle it: compose lets no circle pass.
    for _ in services {
        for name in services {
            let Some(service) = model.services.get(name) else { continue };
            let after = |other: &String, turn: &BTreeMap<&str, usize>| {
                let unknown = service.shares.contains(other) && !service.restarts_with.contains(other);
                turn.get(other.as_str()).map_or(0, |turn| turn + usize::from(unknown))
            };
            let others = service.depends_on.keys().chain(&service.shares);
            let earliest = others.map(|other| after(other, &turn)).max().unwrap_or(0);
            if let Some(own) = turn.get_mut(name.as_str()) {
                *own = earliest.max(*own).min(services.len());
            }
        }
    }
    let mut all: BTreeMap<usize, Vec<ServiceName>> = BTreeMap::new();
    for name in services {
        all.entry(turn[name.as_str()]).or_default().push(name.clone());
    }
    all.into_values().collect()
}

/// Those services one by one, each after what it depends on and shares with.
pub fn one_by_one(model: &Model, services: &BTreeSet<ServiceName>) -> Vec<ServiceName> {
    let (mut open, mut all) = (services.clone(), Vec::new());
    while !open.is_empty() {
        let waits = |name: &&ServiceName| {
            let service = model.services.get(*name);
            let on = service.into_iter().flat_map(|service| service.depends_on.keys().chain(&service.shares));
            on.into_iter().any(|on| on != name.as_str() && open.iter().any(|one| one.as_str() == on))
        };
        // Compose lets no circle pass.
        let Some(next) = open.iter().find(|name| !waits(name)).or(open.first()).cloned() else { break };
        open.remove(&next);
        all.push(next);
    }
    all
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;
    use crate::compare::tests::container;
    use crate::compare::{Namespace, Namespaces};

    const MODEL: &str = r#"{"name":"a","services":{
        "vpn":{"image":"x"},
        "torrent":{"image":"x","network_mode":"service:vpn","depends_on":{"vpn":{"condition":"service_started","restart":true}}},
        "explicit":{"image":"x","network_mode":"service:vpn","depends_on":{"vpn":{"condition":"service_healthy"}}},
        "web":{"image":"x","depends_on":{"db":{"condition":"service_started","restart":true}}},
        "plain":{"image":"x","depends_on":{"db":{"condition":"service_started"}}},
        "db":{"image":"x"}}}"#;

    fn model() -> Model {
        Model::parse(MODEL.as_bytes(), "/d", "/d").unwrap()
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    /// Containers that were started at these seconds; the network of `torrent` and `explicit` is that of `vpn`.
    fn containers(started: &[(&str, i64)]) -> Vec<Container> {
        let made = started.iter().map(|(name, at)| {
            let network = match *name {
                "torrent" | "explicit" => Namespace::Of("vpn-1".to_owned()),
                _ => Namespace::Own,
            };
            let namespaces = Namespaces { network, ..Namespaces::default() };
            Container { started_at: Some(second(*at)), namespaces, ..container(name) }
        });
        made.collect()
    }

    fn names(all: &BTreeSet<ServiceName>) -> Vec<&str> {
        all.iter().map(ServiceName::as_str).collect()
    }

    #[rstest]
    #[case::nobody_where_all_started_in_order(&[("vpn", 1), ("torrent", 2), ("db", 1), ("web", 2)], 0, &[])]
    #[case::sharers_whatever_compose_would_say(&[("vpn", 9), ("torrent", 2), ("explicit", 2)], 5, &["explicit", "torrent"])]
    #[case::sharers_whenever_it_was(&[("vpn", 3), ("torrent", 2)], 5, &["torrent"])]
    #[case::who_is_to_restart_with_it_and_nobody_else(&[("db", 9), ("web", 2), ("plain", 2)], 5, &["web"])]
    #[case::nobody_for_a_start_of_before(&[("db", 3), ("web", 2)], 5, &[])]
    #[case::nobody_who_was_started_since(&[("db", 9), ("web", 10)], 5, &[])]
    fn p19_left_behind_is(#[case] started: &[(&str, i64)], #[case] since: i64, #[case] wanted: &[&str]) {
        assert_eq!(names(&left_behind(&model(), &containers(started), second(since))), wanted);
    }

    #[test]
    fn p19_a_restart_by_the_engine_and_one_that_ended_are_left_alone() {
        let mut all = containers(&[("db", 9), ("web", 2)]);
        all[0].restart_count = 1;
        assert!(left_behind(&model(), &all, second(5)).is_empty());
        all[0].restart_count = 0;
        all[1].state = ContainerState::Exited;
        assert!(left_behind(&model(), &all, second(5)).is_empty());
    }

    #[test]
    fn p19_only_sharers_whose_order_compose_does_not_know_have_a_turn_of_their_own() {
        let all = model().services.into_keys().collect();
        let turns = turns(&model(), &all);
        let turns: Vec<Vec<&str>> =
            turns.iter().map(|turn| turn.iter().map(ServiceName::as_str).collect()).collect();
        assert_eq!(turns, [vec!["db", "plain", "torrent", "vpn", "web"], vec!["explicit"]]);
    }

    #[test]
    fn p19_one_by_one_each_comes_after_what_it_hangs_on() {
        let all = one_by_one(&model(), &model().services.into_keys().collect());
        let all: Vec<&str> = all.iter().map(ServiceName::as_str).collect();
        assert_eq!(all, ["db", "plain", "vpn", "explicit", "torrent", "web"]);
    }
}
