//! `tenantry adopt`: Tenants of the compose projects that are on this host already.

mod bundle;
mod grants;
mod manifest;
mod show;
mod tenants;

use std::cell::Cell;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail};
use clap::{Args, ValueEnum};
use kube::ResourceExt as _;
use tenantry_agent::survey::{Project, Survey, SurveyError};
use tenantry_api::Tenant;
use tenantry_api::annotations::RETRY;
use tenantry_api::names::ProjectName;
use tenantry_api::tenant_status::{Lacking, Phase};
use tenantry_planner::images::proposal::{Proposal, propose};

use crate::access::Access;
use crate::ask::{annotate, token};
use crate::confirm::says_yes;
use crate::output;
use crate::watch;
use grants::HostPolicy;
use manifest::{For, manifest};
use tenants::Tenants;

/// The host's name where neither its policy file nor a cluster says one.
const LOCAL: &str = crate::up::LOCAL;
const DEFAULT_DOCKER_HOST: &str = "unix:///var/run/docker.sock";

/// Make a Tenant of a compose project that is on this host already
///
/// Run it on the host. It reads the project as an agent would, finds what its release is set by, and shows what it found,
/// the Tenant, and what the host's policy would have to allow. Nothing is done before you say yes, and then nothing is done
/// to containers that run.
#[derive(Debug, Args)]
pub struct Adopt {
    /// The project's directory; without any, --project and --all, the projects on this host are listed
    #[arg(value_name = "DIR")]
    directory: Option<PathBuf>,
    /// The project of this name: found by its containers, or, beside DIR, what it is called there
    #[arg(long, value_name = "NAME")]
    project: Option<String>,
    /// Every project that has containers on this host
    #[arg(long, conflicts_with_all = ["directory", "project"])]
    all: bool,
    /// Print the Tenant and do nothing; needs no cluster
    #[arg(short, long, value_enum)]
    output: Option<Output>,
    /// Write a TemplateBundle of its compose files beneath this folder, with the Tenant that it renders, and do nothing else
    #[arg(long, value_name = "OUT", conflicts_with = "output")]
    bundle_dir: Option<PathBuf>,
    /// The ComposeHost [default: the only one, or the one that is this machine's]
    #[arg(long, value_name = "NAME")]
    host: Option<String>,
    /// Append what the project needs to the host's policy file, comments and all else kept
    #[arg(long)]
    grant: bool,
    /// The agent's policy file [default: the one beside the kubeconfig of a `tenantry up`, then /etc/tenantry/agent.yaml]
    #[arg(long, value_name = "FILE")]
    policy: Option<PathBuf>,
    /// Do not ask
    #[arg(short, long)]
    yes: bool,
    /// How long to wait until it is Ready; then ends with status 2. Example: 90s, 10m
    #[arg(long, value_parser = watch::duration, default_value = "2m")]
    timeout: Duration,
    #[command(flatten)]
    access: Access,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Output {
    /// The manifest alone, for `kubectl apply -f -`
    Yaml,
}

/// A directory that is asked for, and what the project is called there where that is said.
type Asked = (PathBuf, Option<ProjectName>);

/// A project and what a Tenant of it says.
struct Found {
    project: Project,
    proposal: Proposal,
}

/// Runs `tenantry adopt`.
pub async fn run(adopt: &Adopt) -> anyhow::Result<ExitCode> {
    let policy = HostPolicy::find(adopt.policy.as_deref(), adopt.access.state_dir().as_deref());
    // For a manifest alone the policy is no more than a hint of the host's name.
    let policy =
        if adopt.output.is_some() && adopt.policy.is_none() { policy.ok().flatten() } else { policy? };
    let survey = Survey::new(&docker_host(policy.as_ref())).await?;
    if let Some(problem) = survey.engine_problem() {
        output::err(format!("{problem}: what runs is not known."));
    }
    let Some(directories) = directories(adopt, &survey)? else {
        output::out(show::projects(&survey.projects()));
        output::out("\n`tenantry adopt DIR` makes a Tenant of one of them, --all of each.");
        return Ok(ExitCode::SUCCESS);
    };
    let (mut all, mut failed) = (Vec::new(), false);
    for (directory, name) in directories {
        match read(&survey, &directory, name.as_ref()).await {
            Ok(found) => all.push(found),
            Err(error) if adopt.all => {
                output::err(format!("{}: left out: {error:#}", directory.display()));
                failed = true;
            }
            Err(error) => return Err(error),
        }
    }
    let identity = policy.as_ref().map(|policy| policy.config.identity.to_string());
    let host = adopt.host.clone().or(identity).unwrap_or_else(|| LOCAL.to_owned());
    let for_ = For { host: &host, namespace: adopt.access.namespace.as_deref() };
    if let Some(out) = &adopt.bundle_dir {
        for one in &all {
            let folder = match bundle::write(out, &one.project, &one.proposal, for_) {
                Err(error) if adopt.all => {
                    output::err(format!("left out: {error:#}"));
                    failed = true;
                    continue;
                }
                written => written?,
            };
            output::out(format!(
                "{0} renders its compose files as they are. With an operator whose --bundle-dir is {1}:\n  kubectl apply -f \
                 {0}/tenant.yaml",
                folder.display(),
                out.display()
            ));
        }
    } else if adopt.output == Some(Output::Yaml) {
        let texts: Vec<String> = all.iter().map(|one| manifest(&one.project, &one.proposal, for_)).collect();
        output::out(texts.join("---\n").trim_end());
    } else {
        let tenants = Tenants::connect(&adopt.access, adopt.host.as_deref(), policy.as_ref()).await?;
        let mut policy = policy;
        for one in &all {
            match take(adopt, &tenants, policy.as_mut(), one).await {
                Ok(well) => failed |= !well,
                Err(error) if adopt.all => {
                    output::err(format!("{}: left out: {error:#}", one.project.place.project));
                    failed = true;
                }
                Err(error) => return Err(error),
            }
        }
    }
    Ok(if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The engine that the agent uses; without one, what Docker's own client would.
fn docker_host(policy: Option<&HostPolicy>) -> String {
    let own = || std::env::var("DOCKER_HOST").ok().filter(|host| host.starts_with("unix:///"));
    policy
        .map(|policy| policy.config.docker_host.clone())
        .or_else(own)
        .unwrap_or_else(|| DEFAULT_DOCKER_HOST.to_owned())
}

/// Where the projects are that are asked for; `None` where none is.
fn directories(adopt: &Adopt, survey: &Survey) -> anyhow::Result<Option<Vec<Asked>>> {
    let name = adopt.project.as_deref().map(ProjectName::parse).transpose().context("--project")?;
    if let Some(directory) = &adopt.directory {
        return Ok(Some(vec![(directory.clone(), name)]));
    }
    let known = survey.projects();
    if adopt.all {
        let of = |one: &tenantry_agent::survey::Listed| {
            let name = ProjectName::parse(one.project.as_str()).ok();
            one.directories.first().map(|directory| (PathBuf::from(directory), name))
        };
        return Ok(Some(known.iter().filter_map(of).collect()));
    }
    let Some(name) = name else { return Ok(None) };
    let Some(one) = known.iter().find(|one| one.project == name.as_str()) else {
        bail!(
            "no container on this host is of the project {name}: give its directory\n{}",
            show::projects(&known)
        );
    };
    match one.directories.iter().collect::<Vec<_>>()[..] {
        [directory] => Ok(Some(vec![(directory.into(), Some(name))])),
        _ => bail!(
            "the containers of {name} do not say one directory that they were made from: give it beside --project"
        ),
    }
}

async fn read(survey: &Survey, directory: &Path, name: Option<&ProjectName>) -> anyhow::Result<Found> {
    let project = survey.read(directory, name).await.map_err(|error| {
        let elsewhere = matches!(error, SurveyError::Directory { .. } | SurveyError::NoProject(_));
        let more =
            if elsewhere { ". `tenantry adopt` alone lists the projects that run on this host" } else { "" };
        anyhow!("{error}{more}")
    })?;
    if project.services.is_empty() {
        bail!(
            "{}: {} has no service, or none outside of profiles that are not switched on: name those that you use as \
             COMPOSE_PROFILES in .env",
            project.place.directory,
            project.place.project
        );
    }
    let proposal = propose(&project.services, &project.variables).ok_or_else(|| {
        anyhow!(
            "{}: no service of {} has an image that a Tenant could name",
            project.place.directory,
            project.place.project
        )
    })?;
    Ok(Found { project, proposal })
}

/// Shows, asks, grants, applies and follows; whether all of it went well.
async fn take(
    adopt: &Adopt,
    tenants: &Tenants,
    policy: Option<&mut HostPolicy>,
    one: &Found,
) -> anyhow::Result<bool> {
    let Found { project, proposal } = one;
    output::out(show::found(project, proposal));
    let lacking = policy.as_ref().map(|policy| policy.lacking(project)).unwrap_or_default();
    if let Some(other) = tenants.at(&project.place).await? {
        let name = other.name_any();
        output::out(format!(
            "The Tenant {name} is for that place already: `tenantry status {name}` shows it."
        ));
        return if lacking.is_empty() {
            Ok(adopt.all)
        } else {
            grant_to(adopt, tenants, policy, &lacking, &other).await
        };
    }
    let text = manifest(project, proposal, tenants.for_());
    output::out(&text);
    may_go_on(adopt, policy.is_some(), &lacking)?;
    let name = manifest::name(project.place.project.as_str());
    let granted = (!lacking.grants.is_empty()).then_some(lacking.file.as_str());
    output::out(format!("What will be done:\n{}", show::doing(project, &name, &tenants.shown(), granted)));
    if !ask(adopt.yes, "Adopt it?")? {
        output::out("Nothing was done.");
        return Ok(false);
    }
    grant(policy, &lacking)?;
    tenants.apply(&name, &text).await?;
    let well = follow(adopt, tenants, &name, |_| true).await?;
    if well {
        output::out(next(&name, proposal, &tenants.cluster.namespace, &adopt.access.for_kubectl()));
    }
    Ok(well)
}

/// Grants what the project of a Tenant that is there already lacks; whether the Tenant is Ready then.
async fn grant_to(
    adopt: &Adopt,
    tenants: &Tenants,
    policy: Option<&mut HostPolicy>,
    lacking: &Lacking,
    tenant: &Tenant,
) -> anyhow::Result<bool> {
    let name = &tenant.name_any();
    may_go_on(adopt, policy.is_some(), lacking)?;
    if !ask(adopt.yes, &format!("Add these lines to {}?", lacking.file))? {
        output::out("Nothing was done.");
        return Ok(false);
    }
    grant(policy, lacking)?;
    if grants::is_refused_without(tenant, &lacking.grants) {
        // It is looked at by itself once the operator has heard of the policy; who may not ask for it now waits for that.
        let _ = annotate(&tenants.cluster, name, RETRY, &token()).await;
    }
    let seen = Cell::new(false);
    let judged_anew = |tenant: &Tenant| {
        seen.set(seen.get() || !grants::is_refused_without(tenant, &lacking.grants));
        seen.get()
    };
    let well = follow(adopt, tenants, name, judged_anew).await?;
    if !seen.get() {
        output::err(format!(
            "{name} is still refused for what was granted: is {} the policy file of the agent of host {}, and does that \
             agent run? `tenantry status {name}` shows how it stands.",
            lacking.file,
            tenants.host()
        ));
    }
    Ok(well)
}

fn grant(policy: Option<&mut HostPolicy>, lacking: &Lacking) -> anyhow::Result<()> {
    if let Some(policy) = policy.filter(|_| !lacking.grants.is_empty()) {
        policy.grant(lacking)?;
        output::out(format!("Granted in {}.", lacking.file));
    }
    Ok(())
}

/// Shows what becomes of a Tenant once what was done for it was `heard`; whether it becomes Ready in time.
async fn follow(
    adopt: &Adopt,
    tenants: &Tenants,
    name: &str,
    heard: impl Fn(&Tenant) -> bool,
) -> anyhow::Result<bool> {
    let ended = watch::until(&tenants.cluster, name, Some(adopt.timeout), heard, adopted).await?;
    Ok(ended == ExitCode::SUCCESS)
}

/// Shows what the host's policy lacks, and stops where the project would be refused for it.
fn may_go_on(adopt: &Adopt, policy_known: bool, lacking: &Lacking) -> anyhow::Result<()> {
    let shown = show::lacking(lacking);
    if !shown.is_empty() {
        output::out(shown);
    }
    if !policy_known && adopt.grant {
        bail!("--grant: this machine has no policy file of an agent; name it with --policy");
    }
    if !lacking.ungrantable.is_empty() {
        bail!("the agent would refuse this project: change its compose files as is said above");
    }
    if !lacking.grants.is_empty() && !adopt.grant {
        bail!("the agent would refuse this project. Where these lines are meant, --grant adds them");
    }
    Ok(())
}

/// How an adoption ended. What was started a moment ago, and has not passed its healthcheck yet, comes right by itself.
fn adopted(tenant: &Tenant) -> Option<watch::End> {
    let phase = tenant.status.as_ref().and_then(|status| status.phase);
    watch::end(tenant).filter(|_| phase != Some(Phase::Degraded))
}

/// Asks for a yes. Without a terminal nobody can say it.
fn ask(yes: bool, question: &str) -> anyhow::Result<bool> {
    if yes {
        return Ok(true);
    }
    says_yes(question)?.ok_or_else(|| {
        anyhow!("there is no terminal to ask on, so nothing was done: add --yes if that is meant")
    })
}

/// What to type for the first upgrade.
fn next(name: &str, proposal: &Proposal, namespace: &str, cluster: &str) -> String {
    if proposal.image_tag.is_none() {
        return format!("`tenantry status {name} -n {namespace}` shows how it stands.");
    }
    format!(
        "Upgrade it by another imageTag, here or in the manifest above:\n  \
         kubectl{cluster} -n {namespace} patch tenant {name} --type merge \\\n    -p '{{\"spec\":{{\"imageTag\":\"NEW\"}}}}'\n\
         and go back with `tenantry rollback {name} -n {namespace}`."
    )
}
