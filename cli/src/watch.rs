//! `tenantry watch`: an upgrade's phases as they happen.

mod lines;
mod story;

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use futures::TryStreamExt;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use kube::Api;
use kube::runtime::{WatchStreamExt, watcher};
use tenantry_api::Tenant;

use crate::access::{Access, Cluster};
use crate::output;
use crate::status::find;
use story::Story;
pub(crate) use story::{End, end, settled};

/// The exit status when the time is over before the upgrade is.
const TIMED_OUT: u8 = 2;
/// The exit status that shells give to what Ctrl-C ended.
const INTERRUPTED: u8 = 130;

/// Show a tenant's phases as they happen, until Ctrl-C
///
/// With --until-ended: ends with status 0 once the tenant is Ready at its spec, with 1 if the upgrade failed or a
/// person is needed, with 2 if --timeout is over.
#[derive(Debug, Args)]
pub struct Watch {
    /// Which
    tenant: String,
    /// End when nothing more will happen by itself
    #[arg(long)]
    until_ended: bool,
    /// How long to watch at most. Example: 90s, 10m
    #[arg(long, value_parser = duration)]
    timeout: Option<Duration>,
    #[command(flatten)]
    access: Access,
}

/// Reads a duration.
pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    let span: jiff::SignedDuration = text.parse().map_err(|_| "write it as 90s or 10m".to_owned())?;
    Duration::try_from(span).ok().filter(|time| !time.is_zero()).ok_or_else(|| "must be above 0".to_owned())
}

/// Runs `tenantry watch`.
pub async fn run(watch: &Watch) -> anyhow::Result<ExitCode> {
    let cluster = watch.access.connect().await?;
    find(&cluster, &watch.tenant).await?;
    let end = |tenant: &Tenant| story::end(tenant).filter(|_| watch.until_ended);
    until(&cluster, &watch.tenant, watch.timeout, |_| true, end).await
}

/// Shows a tenant's phases as they happen, until `end` says how it ended. How it ended before what was asked was `heard` is
/// not shown: it would look like the answer.
pub(crate) async fn until(
    cluster: &Cluster,
    tenant: &str,
    timeout: Option<Duration>,
    heard: impl Fn(&Tenant) -> bool,
    end: impl FnMut(&Tenant) -> Option<End>,
) -> anyhow::Result<ExitCode> {
    let screen = Screen::new();
    let follow = follow(cluster, tenant, &screen, Heard::by(heard), end);
    let ended = tokio::select! {
        ended = tokio::time::timeout(timeout.unwrap_or(Duration::MAX), follow) => ended,
        // The line that moves is taken away before the program ends.
        _ = tokio::signal::ctrl_c() => {
            screen.clear();
            return Ok(ExitCode::from(INTERRUPTED));
        }
    };
    screen.clear();
    let Ok(ended) = ended else {
        output::err(format!(
            "Not ended within {:?}; an upgrade goes on by itself.",
            timeout.unwrap_or_default()
        ));
        return Ok(ExitCode::from(TIMED_OUT));
    };
    Ok(match ended? {
        End::Good => ExitCode::SUCCESS,
        End::Bad => ExitCode::FAILURE,
    })
}

async fn follow(
    cluster: &Cluster,
    name: &str,
    screen: &Screen,
    mut heard: Heard<impl Fn(&Tenant) -> bool>,
    mut end: impl FnMut(&Tenant) -> Option<End>,
) -> anyhow::Result<End> {
    let api: Api<Tenant> = Api::namespaced(cluster.client.clone(), &cluster.namespace);
    let config = watcher::Config::default().fields(&format!("metadata.name={name}"));
    let stream = watcher(api, config).default_backoff();
    let mut stream = std::pin::pin!(stream);
    let mut story = Story::new(screen.is_terminal());
    loop {
        let event = match stream.try_next().await {
            Ok(event) => event,
            // The watcher goes on by itself, with growing pauses.
            Err(watcher::Error::InitialListFailed(error) | watcher::Error::WatchStartFailed(error)) => {
                screen.now(&format!("{:#}; trying again", cluster.explain("watch tenants", &error)));
                continue;
            }
            Err(_) => continue,
        };
        match event {
            None => bail!("the API server ended the watch"),
            Some(watcher::Event::Delete(_)) => bail!("{name} was deleted"),
            Some(watcher::Event::Init | watcher::Event::InitDone) => {}
            Some(watcher::Event::Apply(tenant) | watcher::Event::InitApply(tenant)) => {
                if heard.is_of_before(&tenant) {
                    screen.now("The operator has not looked at it since.");
                    continue;
                }
                let told = story.tell(&tenant);
                told.lines.iter().for_each(|line| screen.line(line));
                screen.now(told.now.as_deref().unwrap_or_default());
                if let Some(end) = end(&tenant) {
                    return Ok(end);
                }
            }
        }
    }
}

/// Whether what was asked has been heard; what was heard once stays so.
struct Heard<H> {
    by: H,
    yet: bool,
}

impl<H: Fn(&Tenant) -> bool> Heard<H> {
    fn by(by: H) -> Self {
        Self { by, yet: false }
    }

    /// Whether this is how an earlier wish has ended. What is going on still is told.
    fn is_of_before(&mut self, tenant: &Tenant) -> bool {
        self.yet |= (self.by)(tenant);
        !self.yet && settled(tenant)
    }
}

/// On a terminal a line that moves, with finished lines above it; elsewhere plain lines.
struct Screen {
    bar: Option<ProgressBar>,
}

impl Screen {
    fn new() -> Self {
        let terminal = console_is_terminal();
        let bar = terminal.then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            let style = ProgressStyle::with_template("{spinner} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_spinner()));
            bar.enable_steady_tick(Duration::from_millis(120));
            bar
        });
        Self { bar }
    }

    fn is_terminal(&self) -> bool {
        self.bar.is_some()
    }

    fn line(&self, line: &str) {
        match &self.bar {
            Some(bar) => {
                let width = usize::from(console::Term::stdout().size().1);
                bar.suspend(|| output::out(lines::coloured(&lines::wrapped(line, width))));
            }
            None => output::out(line),
        }
    }

    fn now(&self, text: &str) {
        if let Some(bar) = &self.bar {
            bar.set_message(text.to_owned());
        }
    }

    fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn console_is_terminal() -> bool {
    use std::io::IsTerminal;
    std::io::stdout().is_terminal() && std::io::stderr().is_terminal()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn tenant(reconciling: &str) -> Tenant {
        let tenant = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme", "generation": 1},
            "spec": {"host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2"},
            "status": {"observedGeneration": 1, "conditions": [{"type": "Reconciling", "status": reconciling,
                "reason": "R", "message": "", "lastTransitionTime": "2026-11-21T10:00:00Z"}]},
        });
        serde_json::from_value(tenant).unwrap()
    }

    #[test]
    fn how_an_earlier_wish_ended_is_not_told_as_the_end_of_this_one() {
        let said = std::cell::Cell::new(false);
        let mut heard = Heard::by(|_: &Tenant| said.get());
        assert!(heard.is_of_before(&tenant("False")));
        assert!(!heard.is_of_before(&tenant("True")), "what is going on is told");
        said.set(true);
        assert!(!heard.is_of_before(&tenant("False")));
        said.set(false);
        assert!(!heard.is_of_before(&tenant("False")), "it was heard");
    }
}
