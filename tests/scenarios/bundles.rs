//! Every bundle in `templates/`, as its README says: installed, upgraded, and rolled back by a person, whole.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};
use tenantry_api::Tenant;
use tenantry_api::tenant_status::Phase;
use tenantry_tests::docker::{Project, fingerprint, free_port};
use tenantry_tests::required;
use tenantry_tests::world::{World, phase_of, templates};

use crate::back::{said, tenantry};
use crate::sample;

/// How long one operation over forty services may take beside other scenarios on two cores.
const PATIENCE: Duration = Duration::from_mins(4);
/// Where the examples say that their images come from.
const EXAMPLE_REGISTRY: &str = "localhost:5000";

/// A folder of `templates/` that holds a bundle.
struct Bundle {
    name: String,
    folder: PathBuf,
}

impl Bundle {
    /// All that there are, so that a new one is tried without a word here.
    fn all() -> Result<Vec<Self>> {
        let mut all = Vec::new();
        for entry in std::fs::read_dir(templates())? {
            let folder = entry?.path();
            if folder.join("bundle.yaml").is_file() {
                let name =
                    folder.file_name().and_then(|name| name.to_str()).context("a name that is text")?;
                all.push(Self { name: name.to_owned(), folder });
            }
        }
        all.sort_by(|one, other| one.name.cmp(&other.name));
        Ok(all)
    }

    fn text(&self, path: &str) -> Result<String> {
        let path = self.folder.join(path);
        std::fs::read_to_string(&path).with_context(|| path.display().to_string())
    }

    /// Publishes what `images.txt` lists; an image of the release itself under each of its tags.
    fn publish(&self, registry: &str, releases: &[&str]) -> Result<()> {
        let list = self.text("images.txt")?;
        let lines: Vec<&str> = list.lines().filter(|line| !line.starts_with('#')).collect();
        let some = |lines: &[&str]| -> Result<()> {
            for line in lines {
                let (repository, tag) = line.split_once(' ').context("images.txt: a repository and a tag")?;
                let tags = if tag == "release" { releases } else { &[tag] };
                tags.iter()
                    .try_for_each(|tag| sample::publish(&format!("{registry}/{repository}"), tag, &[]))?;
            }
            Ok(())
        };
        // The engine takes several at a time, and mostly waits for its disk.
        std::thread::scope(|scope| {
            let parts = lines.chunks(lines.len().div_ceil(4).max(1));
            let some = &some;
            let running: Vec<_> = parts.map(|lines| scope.spawn(move || some(lines))).collect();
            running.into_iter().try_for_each(|one| one.join().unwrap())
        })
    }

    /// The folder `own` and `example.env`, in the tenant's directory, as a person copies them.
    fn copy_own(&self, project: &Project, examples: &Examples) -> Result<()> {
        let own = self.folder.join("own");
        if own.is_dir() {
            let copied = Command::new("cp").arg("-a").arg(own.join(".")).arg(&project.directory).status()?;
            ensure!(copied.success(), "the tenant's own files could not be copied");
        }
        project.write(".env", &examples.adapt(&self.text("example.env")?))
    }

    /// The manifests of `tenant.yaml`, for this host, with a short stable window.
    fn manifests(&self, project: &Project, examples: &Examples) -> Result<(Value, Value)> {
        let text = examples.adapt(&self.text("tenant.yaml")?);
        let documents: Vec<Value> = serde_saphyr::from_multiple(&text)?;
        let [bundle, mut tenant] = <[Value; 2]>::try_from(documents).map_err(|all| {
            anyhow::anyhow!("tenant.yaml: a TemplateBundle and a Tenant, not {}", all.len())
        })?;
        let spec = &mut tenant["spec"];
        spec["host"] = json!("n5");
        spec["project"] = json!(project.name);
        spec["directory"] = json!(project.directory);
        spec["upgrade"]["verify"]["timeout"] = json!("120s");
        spec["upgrade"]["verify"]["stableFor"] = json!("1s");
        Ok((bundle, tenant))
    }
}

/// Examples ask their services every few seconds whether they are healthy; each that waits for another waits as long.
const HEALTH: [(&str, &str); 2] = [
    ("HEALTH_INTERVAL=10s", "HEALTH_INTERVAL=500ms"),
    ("HEALTH_INTERVAL_OFTEN=3s", "HEALTH_INTERVAL_OFTEN=500ms"),
];

/// What the examples name and this machine has elsewhere: the registry, and the ports of `example.env`.
struct Examples {
    registry: String,
    ports: Vec<(String, u16)>,
}

impl Examples {
    fn of(env: &str) -> Result<Self> {
        let numbers = env.lines().filter_map(|line| line.split_once("_PORT=").map(|(_, number)| number));
        let ports = numbers.map(|number| Ok((number.to_owned(), free_port()?))).collect::<Result<_>>()?;
        Ok(Self { registry: required("TENANTRY_TEST_REGISTRY")?, ports })
    }

    fn adapt(&self, text: &str) -> String {
        let text = text.replace(EXAMPLE_REGISTRY, &self.registry);
        let text = HEALTH.iter().fold(text, |text, (slow, quick)| text.replace(slow, quick));
        self.ports.iter().fold(text, |text, (number, port)| {
            text.replace(&format!("_PORT={number}\n"), &format!("_PORT={port}\n"))
                .replace(&format!("127.0.0.1:{number}/"), &format!("127.0.0.1:{port}/"))
        })
    }
}

/// What a release consists of on the host: every file but those of the agent, and the image of each container.
#[derive(Debug, PartialEq, Eq)]
struct Installed {
    files: BTreeMap<String, Vec<u8>>,
    images: BTreeMap<String, String>,
}

impl Installed {
    fn look(project: &Project) -> Result<Self> {
        let mut files = BTreeMap::new();
        collect(&project.directory, &project.directory, &mut files)?;
        let images = project.images()?;
        ensure!(!images.is_empty(), "{} has containers", project.name);
        Ok(Self { files, images })
    }
}

fn collect(root: &Path, folder: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<()> {
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        let name = path.strip_prefix(root)?.to_string_lossy().into_owned();
        if path.is_dir() {
            if name != ".tenantry" {
                collect(root, &path, files)?;
            }
        } else {
            files.insert(name, std::fs::read(&path)?);
        }
    }
    Ok(())
}

async fn ready_at(world: &World, name: &str, tag: &str) -> Result<Tenant> {
    let at_tag = |tenant: &Tenant| {
        let deployed = tenant.status.as_ref().and_then(|status| status.deployed.as_ref());
        phase_of(tenant) == Some(Phase::Ready) && deployed.is_some_and(|deployed| deployed.image_tag == tag)
    };
    world.until(name, &format!("{name} is Ready at {tag}"), PATIENCE, at_tag).await
}

async fn install_upgrade_and_roll_back(bundle: &Bundle) -> Result<()> {
    let world = World::start(&bundle.name).await?;
    let project = Project::new(&world.srv, &format!("bundle-{}", bundle.name))?;
    let examples = Examples::of(&bundle.text("example.env")?)?;
    bundle.publish(&examples.registry, &["v1", "v2"])?;
    bundle.copy_own(&project, &examples)?;
    let (source, tenant) = bundle.manifests(&project, &examples)?;
    let name = tenant["metadata"]["name"].as_str().context("a Tenant has a name")?;
    let protected = |directory: &Path| -> Result<Vec<_>> {
        let paths = tenant["spec"]["protect"].as_array().into_iter().flatten().filter_map(Value::as_str);
        paths.map(|path| fingerprint(&directory.join(path))).collect()
    };
    let own = protected(&project.directory)?;

    world.apply(&source).await?;
    world.apply(&tenant).await?;
    ready_at(&world, name, "v1").await?;
    project.assert_hand_run_changes_nothing()?;
    let first = Installed::look(&project)?;

    world.patch(name, serde_saphyr::from_str(&bundle.text("upgrade.yaml")?)?).await?;
    ready_at(&world, name, "v2").await?;
    project.assert_hand_run_changes_nothing()?;
    let second = Installed::look(&project)?;
    let services = |installed: &Installed| installed.images.keys().cloned().collect::<Vec<_>>();
    assert_eq!(services(&first), services(&second));
    ensure!(first.images != second.images && first.files != second.files, "the upgrade changes both");

    let back = tenantry(&world, &["rollback", name, "--wait", "--timeout", "240s", "--yes"])?;
    ensure!(back.status.success(), "{}", said(&back));
    world.until(name, "it is rolled back", PATIENCE, |it| phase_of(it) == Some(Phase::RolledBack)).await?;
    project.assert_hand_run_changes_nothing()?;
    assert_eq!(Installed::look(&project)?, first, "all of v1 is back");
    assert_eq!(protected(&project.directory)?, own, "protected paths are as they were");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn p1_p9_every_bundle_is_installed_upgraded_and_rolled_back_whole() -> Result<()> {
    let all = Bundle::all()?;
    ensure!(all.iter().any(|bundle| bundle.name == "changemaker"), "changemaker is a bundle");
    let each = all.iter().map(|bundle| async {
        let done = install_upgrade_and_roll_back(bundle).await;
        done.with_context(|| format!("templates/{}", bundle.name))
    });
    futures::future::try_join_all(each).await.map(drop)
}
