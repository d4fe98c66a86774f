//! What the services of a release that failed said last, for a terminal.

use std::fmt::Write as _;

use tenantry_api::Tenant;
use tenantry_api::tenant_status::{Outcome, ServiceFailure, UpgradeStatus};

/// The last words of the services that did not come up in the latest upgrade; `None` where there are none, or all is well.
pub fn of(tenant: &Tenant) -> Option<String> {
    of_upgrade(tenant.status.as_ref()?.upgrade.as_ref()?, tenant.metadata.uid.as_deref())
}

/// The same of an upgrade, of a Tenant that has this UID.
pub fn of_upgrade(upgrade: &UpgradeStatus, uid: Option<&str>) -> Option<String> {
    let failed = upgrade.outcome.is_some_and(|outcome| outcome != Outcome::Succeeded);
    if !failed || upgrade.failures.is_empty() {
        return None;
    }
    let mut text = format!("What did not come up of {}, what failed first at the top:\n", upgrade.to);
    for failure in &upgrade.failures {
        service(&mut text, failure);
    }
    if upgrade.more_failures > 0 {
        let _ = writeln!(text, "  and {} more", upgrade.more_failures);
    }
    let _ = write!(
        text,
        "The whole is on the host, in the agent's state directory: tenants/{}/last-words/{}",
        uid.unwrap_or("UID"),
        upgrade.id
    );
    Some(text)
}

fn service(text: &mut String, failure: &ServiceFailure) {
    let _ = writeln!(text, "  {} ({}): {}", failure.service, failure.during.as_str(), failure.problem);
    if let Some(check) = &failure.healthcheck {
        let _ = writeln!(text, "    its healthcheck printed:");
        lines(text, check.lines());
    }
    if !failure.log.is_empty() {
        let _ = writeln!(text, "    the last lines of its log:");
        lines(text, failure.log.iter().map(String::as_str));
    }
}

/// An agent may say anything: no control characters reach a terminal.
fn lines<'a>(text: &mut String, lines: impl Iterator<Item = &'a str>) {
    for line in lines {
        let line: String = line.chars().filter(|letter| !letter.is_control()).collect();
        let _ = writeln!(text, "      | {line}");
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_failed_services_own_words_are_shown_without_control_characters() {
        let upgrade = |outcome: &str| -> UpgradeStatus {
            serde_json::from_value(json!({
                "id": "a-1", "epoch": 1, "to": "v2", "targetHash": "h", "attempt": 1, "outcome": outcome,
                "startedAt": "2026-11-21T10:00:00Z", "moreFailures": 2,
                "failures": [{"service": "web", "during": "Verifying", "problem": "web ended with code 1",
                              "log": ["starting", "boom:\u{1b}[31m cannot open config"], "healthcheck": "503"}],
            }))
            .unwrap()
        };
        let shown = of_upgrade(&upgrade("RolledBack"), None).unwrap();
        for line in [
            "  web (Verifying): web ended with code 1",
            "      | 503",
            "      | boom:[31m cannot open config",
            "  and 2 more",
            "last-words/a-1",
        ] {
            assert!(shown.contains(line), "{line} is missing in\n{shown}");
        }
        assert_eq!(of_upgrade(&upgrade("Succeeded"), None), None);
    }
}
