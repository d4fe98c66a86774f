//! What is new in a Tenant since it was last looked at, in lines.

use std::collections::BTreeMap;

use jiff::Timestamp;
use tenantry_api::Tenant;
use tenantry_api::conditions::{self, RECONCILING};
use tenantry_api::tenant_status::{Outcome, Phase, PhaseState, PhaseStatus, UpgradeStatus};

use crate::last_words;
use crate::status::ready_of;

/// How a watch ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Ready at its spec.
    Good,
    /// Failed, or a person is needed.
    Bad,
}

/// What is new.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Told {
    /// Lines that stay.
    pub lines: Vec<String>,
    /// What is going on at the moment, for a line that moves.
    pub now: Option<String>,
    /// Set once nothing more will happen by itself.
    pub end: Option<End>,
}

/// What was told already.
#[derive(Debug, Default)]
pub struct Story {
    moving_line: bool,
    upgrade: Option<String>,
    outcome: Option<Outcome>,
    phases: BTreeMap<&'static str, PhaseState>,
    last: Option<(Phase, String)>,
}

impl Story {
    /// `moving_line`: what is going on is shown by [`Told::now`], so that only what is over becomes a line.
    pub fn new(moving_line: bool) -> Self {
        Self { moving_line, ..Self::default() }
    }

    /// Compares with what was told already.
    pub fn tell(&mut self, tenant: &Tenant) -> Told {
        let mut told = Told::default();
        let status = tenant.status.clone().unwrap_or_default();
        if let Some(upgrade) = &status.upgrade {
            self.tell_upgrade(upgrade, &mut told.lines);
        }
        // Mostly it is the moment before an operator looks. Where it lasts, `tenantry status` says what to see to.
        if status.observed_generation < tenant.metadata.generation {
            told.now = Some("No operator has looked at its last change yet.".to_owned());
            return told;
        }
        let phase = status.phase.unwrap_or(Phase::Pending);
        let (_, _, message) = ready_of(tenant);
        let settled = settled(tenant);
        if settled {
            if self.last.as_ref() != Some(&(phase, message.clone())) {
                told.lines.push(format!("{}: {message}", phase.as_str()));
            }
            told.end = end(tenant);
        } else {
            let line = format!("{}: {message}", phase.as_str());
            if !self.moving_line && self.last.as_ref() != Some(&(phase, message.clone())) {
                told.lines.push(line.clone());
            }
            told.now = Some(line);
        }
        self.last = Some((phase, message));
        told
    }

    fn tell_upgrade(&mut self, upgrade: &UpgradeStatus, lines: &mut Vec<String>) {
        if self.upgrade.as_ref() != Some(&upgrade.id) {
            self.upgrade = Some(upgrade.id.clone());
            self.outcome = None;
            self.phases.clear();
            let from = upgrade.from.as_ref().map_or_else(String::new, |from| format!("from {from} "));
            let attempt =
                if upgrade.attempt > 1 { format!(", attempt {}", upgrade.attempt) } else { String::new() };
            let line = match &upgrade.rollback_to {
                Some(point) => format!("Rollback {from}to {} (restore point {point})", upgrade.to),
                None => format!("Upgrade {from}to {}{attempt}", upgrade.to),
            };
            lines.push(line);
        }
        for phase in &upgrade.phases {
            let before = self.phases.insert(phase.name.as_str(), phase.state);
            if before != Some(phase.state) && phase.state != PhaseState::Running {
                lines.push(phase_line(phase));
            }
        }
        if let Some(outcome) = upgrade.outcome.filter(|outcome| self.outcome != Some(*outcome)) {
            self.outcome = Some(outcome);
            let took =
                upgrade.finished_at.as_ref().map(|end| took(upgrade.started_at.0, end.0)).unwrap_or_default();
            let lost = if upgrade.data_restored { ": data was restored, too" } else { "" };
            lines.push(format!("{}{took}{lost}", outcome.as_str()));
            lines.extend(
                last_words::of_upgrade(upgrade, None).iter().flat_map(|text| text.lines()).map(str::to_owned),
            );
        }
    }
}

/// How a tenant's way to its spec ended, once nothing more will happen by itself.
pub(crate) fn end(tenant: &Tenant) -> Option<End> {
    let ready = tenant.status.as_ref().and_then(|status| status.phase) == Some(Phase::Ready);
    settled(tenant).then_some(if ready { End::Good } else { End::Bad })
}

/// Whether nothing more will happen by itself: the operator has seen this spec and is not at work on it.
pub(crate) fn settled(tenant: &Tenant) -> bool {
    let Some(status) = &tenant.status else { return false };
    let seen =
        status.observed_generation.is_some() && status.observed_generation == tenant.metadata.generation;
    let at_work = conditions::find(&status.conditions, RECONCILING).is_none_or(|c| c.status != "False");
    seen && !at_work
}

fn phase_line(phase: &PhaseStatus) -> String {
    let mark = match phase.state {
        PhaseState::Failed => '✗',
        PhaseState::Succeeded | PhaseState::Running => '✓',
    };
    let took = phase.finished_at.as_ref().map(|end| took(phase.started_at.0, end.0)).unwrap_or_default();
    let message = phase.message.as_ref().map(|message| format!(": {message}")).unwrap_or_default();
    format!("  {mark} {}{took}{message}", phase.name.as_str())
}

/// The API's times are whole seconds; less than one is not worth a word.
fn took(start: Timestamp, end: Timestamp) -> String {
    match end.as_second() - start.as_second() {
        seconds if seconds < 1 => String::new(),
        seconds if seconds < 120 => format!(" ({seconds} s)"),
        seconds => format!(" ({} min {} s)", seconds / 60, seconds % 60),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn tenant(generation: i64, seen: i64, phase: &str, reconciling: &str, upgrade: &Value) -> Tenant {
        let condition = |kind: &str, status: &str, message: &str| {
            json!({"type": kind, "status": status, "reason": "R", "message": message,
                   "lastTransitionTime": "2026-11-21T10:00:00Z"})
        };
        serde_json::from_value(json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant",
            "metadata": {"name": "acme", "namespace": "fleet", "generation": generation},
            "spec": {"host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2"},
            "status": {
                "observedGeneration": seen, "phase": phase, "upgrade": upgrade,
                "conditions": [condition("Ready", "False", "so it is"), condition("Reconciling", reconciling, "")],
            },
        }))
        .unwrap()
    }

    fn upgrade(outcome: Option<&str>, phases: &[(&str, &str)]) -> Value {
        let phases: Vec<Value> = phases
            .iter()
            .map(|(name, state)| {
                json!({"name": name, "state": state, "startedAt": "2026-11-21T10:00:00Z",
                       "finishedAt": "2026-11-21T10:00:03Z", "message": "as it went"})
            })
            .collect();
        json!({"id": "a", "epoch": 1, "from": "v1", "to": "v2", "targetHash": "h", "attempt": 1,
               "startedAt": "2026-11-21T10:00:00Z", "finishedAt": "2026-11-21T10:02:05Z",
               "outcome": outcome, "phases": phases})
    }

    #[test]
    fn each_phase_is_told_once_when_it_is_over() {
        let mut story = Story::new(true);
        let running = upgrade(None, &[("Planning", "Succeeded"), ("Pulling", "Running")]);
        let told = story.tell(&tenant(2, 2, "Pulling", "True", &running));
        assert_eq!(told.lines, ["Upgrade from v1 to v2", "  ✓ Planning (3 s): as it went"]);
        assert_eq!((told.now.as_deref(), told.end), (Some("Pulling: so it is"), None));
        assert_eq!(story.tell(&tenant(2, 2, "Pulling", "True", &running)).lines, [""; 0]);

        let failed = upgrade(
            Some("RolledBack"),
            &[("Planning", "Succeeded"), ("Pulling", "Succeeded"), ("Verifying", "Failed")],
        );
        let told = story.tell(&tenant(2, 2, "RolledBack", "False", &failed));
        assert_eq!(
            told.lines,
            [
                "  ✓ Pulling (3 s): as it went",
                "  ✗ Verifying (3 s): as it went",
                "RolledBack (2 min 5 s)",
                "RolledBack: so it is"
            ]
        );
        assert_eq!(told.end, Some(End::Bad));
    }

    #[test]
    fn p9_a_rollback_is_told_as_one_and_so_is_the_data_that_came_with_it() {
        let mut story = Story::new(true);
        let mut back = upgrade(Some("Succeeded"), &[("Snapshotting", "Succeeded")]);
        back["rollbackTo"] = json!("3f2a-7");
        back["dataRestored"] = json!(true);
        let told = story.tell(&tenant(2, 2, "RolledBack", "False", &back));
        assert_eq!(told.lines[0], "Rollback from v1 to v2 (restore point 3f2a-7)");
        assert_eq!(told.lines[1], "  ✓ Snapshotting (3 s): as it went");
        assert_eq!(told.lines[2], "Succeeded (2 min 5 s): data was restored, too");
    }

    #[test]
    fn the_end_of_an_older_spec_is_not_the_end() {
        let mut story = Story::new(false);
        let done = upgrade(Some("Succeeded"), &[]);
        assert_eq!(story.tell(&tenant(3, 2, "Ready", "False", &done)).end, None);
        assert_eq!(story.tell(&tenant(3, 3, "Pulling", "True", &done)).end, None);
        assert_eq!(story.tell(&tenant(3, 3, "Ready", "False", &done)).end, Some(End::Good));
    }

    #[test]
    fn without_a_terminal_what_is_going_on_becomes_a_line_once() {
        let mut story = Story::new(false);
        let first = story.tell(&tenant(1, 1, "Verifying", "True", &Value::Null));
        assert_eq!(first.lines, ["Verifying: so it is"]);
        assert_eq!(story.tell(&tenant(1, 1, "Verifying", "True", &Value::Null)).lines, [""; 0]);
    }
}
