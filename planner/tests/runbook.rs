//! The runbook has a word of advice for everything that a Tenant can show.

#![allow(clippy::unwrap_used, clippy::panic)]

use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_planner::decide::Unreached;
use tenantry_planner::target::RefusalReason;
use tenantry_protocol::FailureCategory;

/// All variants, in a chain that does not compile when one is missing.
macro_rules! chain {
    ($kind:ty: $($variant:ident),* $(,)?) => {{
        let known = |one: $kind| match one { $(<$kind>::$variant => one.as_str()),* };
        vec![$(known(<$kind>::$variant)),*]
    }};
}

/// The text of one section, up to the next heading of the same rank.
fn section<'a>(runbook: &'a str, title: &str) -> &'a str {
    let from = runbook.find(&format!("\n## {title}\n")).unwrap_or_else(|| panic!("no section '{title}'")) + 1;
    let rest = &runbook[from..];
    &rest[..rest[3..].find("\n## ").map_or(rest.len(), |end| end + 3)]
}

#[test]
fn every_phase_outcome_reason_and_failure_is_in_its_table() {
    let runbook = include_str!("../../docs/runbook.md");
    let phases = chain!(Phase: Pending, AdoptionNeeded, Planning, Pulling, Snapshotting, Writing, Starting, Verifying,
        RollingBack, Ready, Aborted, RolledBack, Held, RollbackFailed, Suspended, Degraded, Refused, HostUnreachable);
    let outcomes = chain!(Outcome: Succeeded, Aborted, RolledBack, Held, RollbackFailed);
    let reasons = chain!(RefusalReason: InvalidSpec, BundleMissing, BundleInvalid, RenderFailed, HostMissing, Duplicate,
        ClaimedByOther, PathRefused, ReleaseNeeded, HandEdited, ProjectMissing, ComposeInvalid, PolicyRefused,
        RecordsDamaged, RestorePointMissing, RequestRefused);
    let failures = chain!(FailureCategory: PolicyRefused, HandEdited, ReleaseNeeded, PathRefused, AdoptionNeeded,
        HandRunDiffers, ComposeInvalid, EnvUnrepresentable, DiskFull, ImageNotFound, RegistryRefused,
        RegistryUnreachable, SnapshotFailed, RestorePointUnusable, WriteFailed, PortInUse, StartFailed, Unhealthy,
        Crashed, ProbeFailed, WrongImage, EngineFault, AgentFault);
    let unreached =
        chain!(Unreached: NoAnswer, Timeout, BadCertificate, WrongAgent, BadAnswer, HostFault, HostMissing);
    for (title, words) in [
        ("Phases", phases),
        ("Outcomes", outcomes),
        ("Refused: reasons", reasons),
        ("Failures of an operation", failures),
        ("The host does not answer", unreached),
    ] {
        let text = section(runbook, title);
        for word in words {
            let told = text.lines().any(|line| {
                line.starts_with('|')
                    && line.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{word}`")))
            });
            assert!(told, "docs/runbook.md, section '{title}', says nothing of {word}");
        }
    }
}

#[test]
fn every_word_of_the_agents_policy_is_in_its_table() {
    let text = include_str!("../../docs/agent.md");
    for feature in tenantry_planner::policy::Feature::ALL {
        assert!(text.contains(&format!("\n| `{feature}` | ")), "docs/agent.md says nothing of {feature}");
    }
    for way in tenantry_planner::policy::Verification::ALL {
        assert!(text.contains(&format!("\n| `{way}` | ")), "docs/agent.md says nothing of {way}");
    }
}
