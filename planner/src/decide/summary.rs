//! One short text for `kubectl get`: where a Tenant stands and, where there is one, the cause in a few words.

use tenantry_api::conditions::{Truth, bounded};
use tenantry_api::tenant_status::Phase;

use super::Draft;
use super::conditions::PhaseReport;
use super::lifecycle::{Operation, Purpose};

/// So short that name, host, tag and age beside it leave a line of 80 columns whole.
const LIMIT: usize = 30;

impl Draft<'_> {
    /// The summary of what is said now.
    pub(super) fn summary(&self, report: &PhaseReport) -> String {
        let phase = report.phase;
        if let Some(operation) = self.lifecycle.in_flight().filter(|_| is_on_its_way(phase)) {
            return bounded(&format!("{}: {}", doing(operation), phase.as_str()), LIMIT);
        }
        let begins = format!("{}: ", phase.as_str());
        let category = (report.reason != phase.as_str()).then(|| words(&report.reason));
        // The service that a target was blocked for is said as long as the target is, with the category or without.
        let same = |before: &&String| {
            before
                .strip_prefix(&begins)
                .is_some_and(|cause| tells(cause, category.as_deref().unwrap_or_default()))
        };
        let before = self.next.summary.as_ref().filter(|_| blocks(phase)).filter(same);
        let cause = match (&report.cause, before) {
            _ if phase == Phase::Suspended && report.ready == Truth::False => {
                Some("not as wanted".to_owned())
            }
            (Some(cause), _) => Some(cause.clone()),
            (None, Some(before)) => return before.clone(),
            (None, None) => category,
        };
        cause.map_or_else(|| phase.as_str().to_owned(), |cause| bounded(&format!("{begins}{cause}"), LIMIT))
    }
}

/// What an operation's failure comes from: the service that its message begins with, else the one that failed first, and the
/// category.
pub(super) fn cause<'a>(
    category: &str,
    message: &str,
    mut services: impl Iterator<Item = &'a str>,
    failed_first: Option<&'a str>,
) -> String {
    let first = message.split([' ', ':', ',']).next().unwrap_or_default();
    let service = services.find(|service| *service == first).or(failed_first);
    service.map_or_else(|| words(category), |service| format!("{service} {}", words(category)))
}

/// Whether a cause, that a service begins where one is known, is of this category: behind a long name it is cut off.
fn tells(cause: &str, category: &str) -> bool {
    match cause.strip_suffix('…') {
        Some(cut) => cut.split_once(' ').is_none_or(|(_, rest)| category.starts_with(rest)),
        None => cause.ends_with(category),
    }
}

/// `ImageNotFound` as words.
fn words(name: &str) -> String {
    let mut text = String::with_capacity(name.len() + 4);
    for letter in name.chars() {
        if letter.is_ascii_uppercase() && !text.is_empty() {
            text.push(' ');
        }
        text.push(letter.to_ascii_lowercase());
    }
    text
}

fn doing(operation: &Operation) -> &'static str {
    match (&operation.purpose, &operation.from) {
        (Purpose::Rollback { .. }, _) => "GoingBack",
        (Purpose::Upgrade, Some(_)) => "Upgrading",
        (Purpose::Upgrade, None) => "Installing",
    }
}

const fn is_on_its_way(phase: Phase) -> bool {
    matches!(
        phase,
        Phase::Planning
            | Phase::Pulling
            | Phase::Snapshotting
            | Phase::Writing
            | Phase::Starting
            | Phase::Verifying
    )
}

const fn blocks(phase: Phase) -> bool {
    matches!(phase, Phase::Aborted | Phase::RolledBack | Phase::Held | Phase::RollbackFailed)
}
