//! Services that the release no longer has: taken away one by one, by name, once they were in the plan (P11).
//!
//! Only what the previous release ran, or compose noted as ours, is removed; what a switched-off profile or another
//! compose file still knows is left running and told. Never `down`, never `--remove-orphans`; volumes stay.

use std::collections::{BTreeMap, BTreeSet};

use tenantry_planner::model::{Model, Service};
use tenantry_planner::steps::RemovedService;

use super::context::RequestContext;
use super::error::StepError;
use super::stage::ResolvedStage;
use crate::engine::ProjectContainer;
use crate::store::Baseline;

/// What becomes of services that have containers and are not in the release.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Orphans {
    /// They are removed.
    pub removed: Vec<RemovedService>,
    /// They are left running.
    pub left: Vec<String>,
}

/// Sorts out what is no longer in the release.
pub async fn orphans(
    context: &RequestContext,
    staged: &ResolvedStage,
    previous: Option<&Model>,
    containers: &[ProjectContainer],
) -> Result<Orphans, StepError> {
    let gone = gone(&staged.model, containers);
    if gone.is_empty() {
        return Ok(Orphans::default());
    }
    let (host, uid) = (context.host.clone(), context.request.tenant.uid.clone());
    let (root, inputs) = (staged.tree.path.clone(), staged.tree.discovered.inputs.clone());
    let (baseline, texts) = context
        .blocking(move || {
            let read =
                |path: &tenantry_api::names::RelativePath| std::fs::read(root.join(path.as_str())).ok();
            let texts: Vec<Vec<u8>> = inputs.iter().filter_map(read).collect();
            Ok((host.store.baseline(&uid)?, texts))
        })
        .await?;
    let mentioned = |name: &str| texts.iter().any(|text| has_key(&String::from_utf8_lossy(text), name));
    Ok(sorted(gone, previous, &baseline, &staged.model, mentioned))
}

/// Services that have containers but are not in the model.
fn gone(model: &Model, containers: &[ProjectContainer]) -> BTreeMap<String, Vec<String>> {
    let known: BTreeSet<&str> = model.services.keys().map(tenantry_api::names::ServiceName::as_str).collect();
    let mut gone: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for one in containers.iter().filter(|one| !known.contains(one.container.service.as_str())) {
        gone.entry(one.container.service.clone()).or_default().push(one.container.id.clone());
    }
    gone
}

fn sorted(
    gone: BTreeMap<String, Vec<String>>,
    previous: Option<&Model>,
    baseline: &Baseline,
    next: &Model,
    mentioned: impl Fn(&str) -> bool,
) -> Orphans {
    let mut orphans = Orphans::default();
    for (service, containers) in gone {
        let old = previous.and_then(|model| model.services.get(service.as_str()));
        let ran = old.is_some() || baseline.images.iter().any(|image| image.service == service);
        if !ran || mentioned(&service) {
            orphans.left.push(service);
            continue;
        }
        let first = old.is_some_and(|old| in_the_way(old, next));
        let grace_ms = old.and_then(|old| old.stop_grace_ms);
        orphans.removed.push(RemovedService { service, containers, first, grace_ms });
    }
    orphans
}

/// Whether a service holds a port or a name that the next release needs.
fn in_the_way(old: &Service, next: &Model) -> bool {
    next.services.values().any(|service| {
        let same_port = |port: &tenantry_planner::model::Port| {
            let same = |other: &tenantry_planner::model::Port| {
                (other.published, &other.protocol) == (port.published, &port.protocol)
            };
            old.ports.iter().any(same)
        };
        let same_name = service.container_name.is_some() && service.container_name == old.container_name;
        same_name || service.ports.iter().any(same_port)
    })
}

/// Whether a YAML text has this key anywhere: of a service that a profile switches off, or in an unread corner. What is
/// mentioned is not removed; at worst something is left running, and told.
fn has_key(text: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || "._-".contains(c);
    text.match_indices(name).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + name.len()..].trim_start_matches(['"', '\'']);
        before.is_none_or(|c| !part(c)) && after.trim_start_matches([' ', '\t']).starts_with(':')
    })
}

#[cfg(test)]
mod tests {
    use rstest::rstest;
    use tenantry_protocol::RunImage;

    use super::*;

    fn model(services: &str) -> Model {
        let text = format!(r#"{{"name":"a","services":{{{services}}}}}"#);
        Model::parse(text.as_bytes(), "/d", "/d").unwrap()
    }

    fn left(baseline: &Baseline, mentioned: bool) -> (Vec<(String, bool)>, Vec<String>) {
        let previous = model(
            r#""old":{"image":"x","ports":[{"target":80,"published":"8080","protocol":"tcp","mode":"ingress"}]},"far":{"image":"x"}"#,
        );
        let next = model(
            r#""new":{"image":"x","ports":[{"target":81,"published":"8080","protocol":"tcp","mode":"ingress"}]}"#,
        );
        let gone = ["far", "old", "seen", "strange"].map(|name| (name.to_owned(), vec![name.to_owned()]));
        let orphans =
            sorted(gone.into(), Some(&previous), baseline, &next, |name| mentioned && name == "far");
        (orphans.removed.into_iter().map(|one| (one.service, one.first)).collect(), orphans.left)
    }

    #[test]
    fn p11_only_what_ran_before_is_removed_and_what_is_in_the_way_goes_first() {
        let image = |service: &str| RunImage {
            service: service.to_owned(),
            reference: "x".to_owned(),
            image_id: "i".to_owned(),
            repo_digest: None,
        };
        let baseline = Baseline { images: vec![image("seen")], ..Baseline::default() };
        let named = |name: &str, first| (name.to_owned(), first);
        let all = vec![named("far", false), named("old", true), named("seen", false)];
        assert_eq!(left(&baseline, false), (all, vec!["strange".to_owned()]));
        let fewer = vec![named("old", true), named("seen", false)];
        assert_eq!(left(&baseline, true), (fewer, vec!["far".to_owned(), "strange".to_owned()]));
    }

    #[rstest]
    #[case::a_key("services:\n  web:\n", true)]
    #[case::a_quoted_key("  \"web\" : {}\n", true)]
    #[case::in_flow("services: {web: {}}", true)]
    #[case::a_value("image: web\n", false)]
    #[case::a_part_of_a_key("  my-web:\n  web2:\n", false)]
    fn p11_a_service_that_is_still_mentioned_is_not_gone(#[case] text: &str, #[case] mentioned: bool) {
        assert_eq!(has_key(text, "web"), mentioned);
    }
}
