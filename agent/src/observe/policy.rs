//! What a project asks of this host that the local policy does not grant (P13), judged by its resolved model.
//!
//! Two things the model can't show by itself: where a symlink leads, and whose a volume, network or container name is
//! already.

use std::path::Path;

use futures::{StreamExt as _, TryStreamExt as _};
use tenantry_api::conditions::bounded;
use tenantry_planner::model::Model;
use tenantry_planner::policy::{Feature, Grants, Lack, Policy, Violation, Wants};

use crate::config::{Allow, registry_of};
use crate::engine::{EngineError, Reference};
use crate::files::real;
use crate::host::Host;

const SIDE_BY_SIDE: usize = 8;

/// What of a model whose paths are those of the real directory the local policy does not grant. Blocks on the disk.
pub fn lacking(host: &Host, model: &Model, directory: &str) -> Grants {
    lacking_of(&host.policy.allow(), model, directory)
}

/// The same for a policy that is at hand.
pub fn lacking_of(allow: &Allow, model: &Model, directory: &str) -> Grants {
    let registry = |reference: &str| {
        // What is no reference at all is not the policy's to judge.
        let lacks = Reference::parse(reference).is_some() && !allow.reference(reference);
        lacks.then(|| registry_of(reference).to_owned())
    };
    let mut grants = Grants::lacking(model, directory, &allow.compose, registry);
    grants.extend(links(model, directory, &allow.compose));
    grants
}

/// Host paths that lead somewhere else by a symlink: dockerd follows it, so the place that it leads to must be allowed.
fn links(model: &Model, directory: &str, policy: &Policy) -> Vec<Violation> {
    let mut found = Vec::new();
    for demand in &model.demands {
        let (source, read_only, relabels) = match &demand.wants {
            Wants::Path { source, read_only, relabels } => (source, read_only, relabels),
            Wants::Read(source) => (source, &true, &false),
            Wants::Feature(..) | Wants::Never(_) => continue,
        };
        let lacks = match real(Path::new(source)) {
            Ok(real) if real == Path::new(source) => continue,
            Ok(real) => {
                let real = real.display().to_string();
                let lacks = policy.led_to(directory, source, &real, *read_only, *relabels).into_iter();
                let by_link = |problem: String| format!("{source} leads there by a symlink: {problem}");
                lacks.map(|lack| Lack { problem: by_link(lack.problem), ..lack }).collect()
            }
            Err(problem) => vec![Lack::never(format!("{source} {problem}"))],
        };
        found.extend(lacks.into_iter().map(|lack| Violation { at: demand.at.clone(), lack }));
    }
    found
}

/// A name that compose would use: its field, what it is of, and the name.
struct Used {
    at: String,
    what: Kind,
    name: String,
}

#[derive(Clone, Copy)]
enum Kind {
    Volume,
    Network,
    Container,
}

/// Names that the engine knows already as somebody else's: compose would take them, or fail after the pull.
pub async fn foreign(host: &Host, model: &Model, project: &str) -> Result<Vec<Violation>, EngineError> {
    let allow = host.policy.allow();
    let looks = used(model, &allow.compose.features).into_iter().map(|one| async move {
        let never = |problem| Violation { at: one.at.clone(), lack: Lack::never(problem) };
        if !is_name(&one.name) {
            let problem = format!("{:?} is not a name that the engine takes", bounded(&one.name, 80));
            return Ok(Some(never(problem)));
        }
        let (what, owner) = match one.what {
            Kind::Volume => ("volume", host.engine.volume_project(&one.name).await?),
            Kind::Network => ("network", host.engine.network_project(&one.name).await?),
            Kind::Container => ("container", host.engine.container_project(&one.name).await?),
        };
        let Some(owner) = owner.filter(|owner| owner.as_deref() != Some(project)) else { return Ok(None) };
        let owner = owner.map_or_else(|| "no project".to_owned(), |owner| format!("project {owner}"));
        let problem =
            format!("there is a {what} {} on this host already, of {owner}: choose another name", one.name);
        Ok::<_, EngineError>(Some(never(problem)))
    });
    let looks = futures::stream::iter(looks).buffered(SIDE_BY_SIDE);
    let found: Vec<Option<Violation>> = looks.try_collect().await?;
    Ok(found.into_iter().flatten().collect())
}

fn used(model: &Model, features: &[Feature]) -> Vec<Used> {
    let mut all = Vec::new();
    if !features.contains(&Feature::ExternalVolumes) {
        let own = model.volumes.iter().filter(|(_, one)| !one.external && !one.name.is_empty());
        all.extend(own.map(|(key, one)| Used {
            at: format!("volumes.{key}.name"),
            what: Kind::Volume,
            name: one.name.clone(),
        }));
    }
    if !features.contains(&Feature::ExternalNetworks) {
        let own = model.networks.iter().filter(|(_, one)| !one.external && !one.name.is_empty());
        all.extend(own.map(|(key, one)| Used {
            at: format!("networks.{key}.name"),
            what: Kind::Network,
            name: one.name.clone(),
        }));
    }
    let named = model.services.iter().filter_map(|(key, one)| Some((key, one.container_name.clone()?)));
    all.extend(named.map(|(key, name)| Used {
        at: format!("services.{key}.container_name"),
        what: Kind::Container,
        name,
    }));
    all
}

/// Whether it can stand in a path of the engine's API and mean nothing else.
fn is_name(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
    name.starts_with(|c: char| c.is_ascii_alphanumeric()) && name.len() <= 255 && name.chars().all(plain)
}

#[cfg(test)]
mod tests {
    use tenantry_planner::policy::violations;

    use super::*;

    #[test]
    fn p13_a_symlink_is_followed_and_judged_by_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(folder.path()).unwrap();
        let directory = top.join("acme");
        std::fs::create_dir_all(directory.join("data")).unwrap();
        std::os::unix::fs::symlink("/", directory.join("root")).unwrap();
        std::os::unix::fs::symlink("data", directory.join("inside")).unwrap();
        std::os::unix::fs::symlink("/nowhere/at/all", directory.join("dangling")).unwrap();
        let refused = |source: &str| {
            let json = serde_json::json!({"name": "acme", "services": {"w": {"image": "x", "volumes":
                [{"type": "bind", "source": directory.join(source), "target": "/x"}]}}});
            let directory = directory.display().to_string();
            let model = Model::parse(json.to_string().as_bytes(), &directory, &directory).unwrap();
            assert_eq!(violations(&model, &directory, &Policy::default()), []);
            links(&model, &directory, &Policy::default())
        };
        for good in ["data", "inside", "data/new/deep", "new"] {
            assert_eq!(refused(good), [], "{good}");
        }
        for bad in ["root", "root/etc", "root/nowhere", "dangling", "dangling/x"] {
            assert_eq!(refused(bad).len(), 1, "{bad}");
        }
    }

    #[test]
    fn p13_an_environment_file_elsewhere_is_judged_by_where_it_leads() {
        let folder = tempfile::tempdir().unwrap();
        let top = std::fs::canonicalize(folder.path()).unwrap();
        std::fs::create_dir(top.join("acme")).unwrap();
        std::fs::write(top.join("plain.env"), "A=b\n").unwrap();
        std::os::unix::fs::symlink("/etc/shadow", top.join("link.env")).unwrap();
        let directory = top.join("acme").display().to_string();
        let lacking = |file: &str| {
            let path = top.join(file).display().to_string();
            let json = serde_json::json!({"name": "acme", "services": {"w": {"image": "x", "env_file": [{"path": path}]}}});
            let model = Model::parse(json.to_string().as_bytes(), &directory, &directory).unwrap();
            let mounts = vec![tenantry_planner::policy::AllowedMount { path, read_only: true }];
            links(&model, &directory, &Policy { mounts, ..Policy::default() })
        };
        assert_eq!(lacking("plain.env"), []);
        let refused = lacking("link.env");
        assert!(refused.len() == 1 && refused[0].to_string().contains("/etc/shadow:ro"), "{refused:?}");
    }

    #[test]
    fn p13_names_that_would_change_a_call_to_the_engine_are_refused() {
        for bad in ["", "../containers/json", "a?b", "a/b", "-a", "a b", &"x".repeat(256)] {
            assert!(!is_name(bad), "{bad}");
        }
        assert!(is_name("acme_db-data.1"));
    }
}
