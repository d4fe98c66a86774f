//! The host's policy file, and how what a project lacks of it is appended.

use std::io::Write as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};
use tenantry_agent::config::Config;
use tenantry_agent::observe::lacking_of;
use tenantry_agent::survey::Project;
use tenantry_api::Tenant;
use tenantry_api::conditions::{STALLED, Truth, find};
use tenantry_api::tenant_status::{Grant, Lacking};
use tenantry_planner::policy::grants::block;
use tenantry_planner::target::RefusalReason;

use crate::paths;

/// Where an agent's policy file is when nobody says.
const DEFAULT: &str = "/etc/tenantry/agent.yaml";

/// The policy of this host's agent.
pub struct HostPolicy {
    /// The file.
    pub path: PathBuf,
    /// What it says.
    pub config: Config,
}

impl HostPolicy {
    /// The file that is named, or that of the `tenantry up` whose state is in `up` or where it is when nobody says, or the
    /// usual one; `None` where this machine has none of them.
    pub fn find(named: Option<&Path>, up: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let own = up.into_iter().map(Path::to_owned).chain([paths::default_state_dir()]);
        let mut usual = own.map(|state| state.join(paths::POLICY)).chain([PathBuf::from(DEFAULT)]);
        let path = match named {
            Some(path) => path.to_owned(),
            None => match usual.find(|path| path.exists()) {
                Some(path) => path,
                None => return Ok(None),
            },
        };
        let path = std::path::absolute(path)?;
        let config = Config::load(&path).context("the agent's policy file can't be used")?;
        Ok(Some(Self { path, config }))
    }

    /// What the policy does not grant of what a project asks for.
    pub fn lacking(&self, project: &Project) -> Lacking {
        let directory = &project.place.directory;
        let allow = &self.config.allow;
        let grants = lacking_of(allow, &project.model, directory.as_str());
        let mut lacking = grants.told(&self.path.display().to_string());
        if let Some(own) = allow.own_files_in(directory) {
            let problem =
                format!("{directory} and the agent's own {own} lie in each other: move the project");
            lacking.ungrantable.insert(0, problem);
        } else if !allow.directory(directory) {
            lacking.grants.insert(
                0,
                Grant {
                    list: "directories".to_owned(),
                    item: directory.to_string(),
                    at: "spec.directory".to_owned(),
                    means: format!("operators of this host may change {directory} and what runs from it"),
                },
            );
        }
        lacking
    }

    /// Appends lines to what is allowed; every byte that was there stays. What comes of it is read before it counts.
    pub fn grant(&mut self, lacking: &Lacking) -> anyhow::Result<()> {
        let shown = self.path.display();
        let old = std::fs::read_to_string(&self.path).with_context(|| shown.to_string())?;
        let apart = if old.is_empty() || old.ends_with('\n') { "" } else { "\n" };
        let new = format!("{old}{apart}{}", block(lacking));
        let config = Config::parse(&self.path, &new).context("nothing was granted")?;
        let left: Vec<&str> = lacking
            .grants
            .iter()
            .filter(|grant| !is_granted(&config, grant))
            .map(|grant| grant.item.as_str())
            .collect();
        if !left.is_empty() {
            bail!("{shown}: {} can't be granted by a line of it; nothing was changed", left.join(", "));
        }
        replace(&self.path, &new)
            .with_context(|| format!("{shown} can't be written: grant it as a user who may"))?;
        self.config = Config { read_as: self.config.read_as, ..config };
        Ok(())
    }
}

/// Whether a Tenant is said to be refused by a policy without these lines: what was granted is not judged by yet. Of a
/// directory or a whole project that the policy keeps unseen its status lists nothing.
pub fn is_refused_without(tenant: &Tenant, granted: &[Grant]) -> bool {
    let Some(status) = &tenant.status else { return false };
    let stalled = find(&status.conditions, STALLED);
    let refused = stalled.is_some_and(|stalled| {
        stalled.status == Truth::True.as_str() && stalled.reason == RefusalReason::PolicyRefused.as_str()
    });
    let is_granted =
        |lacks: &Grant| granted.iter().any(|grant| (&grant.list, &grant.item) == (&lacks.list, &lacks.item));
    refused && status.lacking.as_ref().is_none_or(|lacking| lacking.grants.iter().any(is_granted))
}

/// Whether a policy holds a line as it was asked for.
fn is_granted(config: &Config, grant: &Grant) -> bool {
    let allow = &config.allow;
    let has = |mut all: Box<dyn Iterator<Item = String> + '_>| all.any(|one| one == grant.item);
    match grant.list.as_str() {
        "directories" => has(Box::new(allow.directories.iter().map(ToString::to_string))),
        "registries" => allow.registry(&grant.item),
        "compose" => has(Box::new(allow.compose.features.iter().map(ToString::to_string))),
        "mounts" => has(Box::new(allow.compose.mounts.iter().map(ToString::to_string))),
        "verify" => has(Box::new(allow.verify.iter().map(ToString::to_string))),
        _ => false,
    }
}

/// Puts a new text in a file's place, whole or not at all, with the file's mode and owner.
fn replace(path: &Path, text: &str) -> anyhow::Result<()> {
    let seen = std::fs::metadata(path)?;
    let folder = path.parent().context("a file lies in a folder")?;
    let mut new = tempfile::NamedTempFile::new_in(folder)?;
    new.write_all(text.as_bytes())?;
    new.as_file().set_permissions(std::fs::Permissions::from_mode(seen.mode() & 0o7777))?;
    let own = std::fs::metadata(new.path())?;
    if (own.uid(), own.gid()) != (seen.uid(), seen.gid()) {
        std::os::unix::fs::fchown(new.as_file(), Some(seen.uid()), Some(seen.gid()))?;
    }
    new.as_file().sync_all()?;
    new.persist(path)?;
    Ok(std::fs::File::open(folder)?.sync_all()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const POLICY: &str = "# mine\nidentity: n5\nlisten: 127.0.0.1:7443\nstateDir: /var/lib/tenantry-agent\n\
        tls: {ca: a, cert: b, key: c}\noperators: [main]\nallow:\n  directories: [/srv]  # all of them\n  registries: [ghcr.io]";

    fn lacking(lines: &[(&str, &str)]) -> Lacking {
        let grant = |(list, item): &(&str, &str)| Grant {
            list: (*list).to_owned(),
            item: (*item).to_owned(),
            at: "services.web".to_owned(),
            means: "it may".to_owned(),
        };
        Lacking { grants: lines.iter().map(grant).collect(), ..Lacking::default() }
    }

    #[rstest::rstest]
    #[case::for_what_is_granted_now("True", "PolicyRefused", &[("compose", "DockerSocket"), ("mounts", "/a")], true)]
    #[case::for_a_directory("True", "PolicyRefused", &[], true)]
    #[case::for_something_else("True", "PolicyRefused", &[("compose", "Devices")], false)]
    #[case::for_another_reason("True", "ReachesNothing", &[("mounts", "/a")], false)]
    #[case::no_more("False", "PolicyRefused", &[("mounts", "/a")], false)]
    fn a_tenant_is_refused_as_before(
        #[case] stalled: &str,
        #[case] reason: &str,
        #[case] lacks: &[(&str, &str)],
        #[case] as_before: bool,
    ) {
        let told = (!lacks.is_empty()).then(|| lacking(lacks));
        let tenant = serde_json::json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v1"},
            "status": {"lacking": told, "conditions": [{"type": "Stalled", "status": stalled, "reason": reason,
                "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}]},
        });
        let tenant = serde_json::from_value(tenant).unwrap();
        let granted = lacking(&[("mounts", "/a"), ("compose", "DockerSocket")]).grants;
        assert_eq!(is_refused_without(&tenant, &granted), as_before);
    }

    #[test]
    fn what_was_there_stays_and_what_is_appended_counts() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("agent.yaml");
        std::fs::write(&path, POLICY).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        let mut policy = HostPolicy::find(Some(&path), None).unwrap().unwrap();
        let lines = [
            ("mounts", "/mnt/media:ro"),
            ("directories", "/home/shop"),
            ("compose", "DockerSocket"),
            ("registries", "r:5000"),
        ];
        policy.grant(&lacking(&lines)).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(text.starts_with(&format!("{POLICY}\n---\n")), "{text}");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let read = Config::load(&path).unwrap().allow;
        assert_eq!(read.compose.mounts[0].to_string(), "/mnt/media:ro");
        assert!(read.registry("r:5000") && read.registry("ghcr.io") && read.directories.len() == 2);
        // What no agent would take changes nothing.
        let error = format!("{:#}", policy.grant(&lacking(&[("compose", "Everything")])).unwrap_err());
        assert!(error.contains("nothing was granted") && error.contains("Everything"), "{error}");
        assert_eq!(std::fs::read_to_string(&path).unwrap(), text);
    }
}
