//! The runbook has a word of advice for everything that a Tenant can show.

#![allow(clippy::unwrap_used, clippy::panic)]

use strum::VariantArray as _;
use tenantry_api::tenant_status::{Outcome, Phase};
use tenantry_planner::decide::Unreached;
use tenantry_planner::decide::outcomes::{Meaning, OUTCOMES};
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
    let outcomes = OUTCOMES.map(Outcome::as_str).to_vec();
    let reasons = RefusalReason::VARIANTS.iter().map(|reason| reason.as_str()).collect();
    let failures = chain!(FailureCategory: PolicyRefused, HandEdited, ReleaseNeeded, PathRefused, AdoptionNeeded, UnhealthyBefore, ComposeFileUnread,
        HandRunDiffers, ComposeInvalid, ReachesNothing, EnvUnrepresentable, DiskFull, ImageNotFound, RegistryRefused,
        RegistryUnreachable, SnapshotFailed, RestorePointUnusable, WriteFailed, PortInUse, NetworkUnusable, VolumeUnusable, StartFailed, Unhealthy,
        Crashed, ProbeFailed, WrongImage, EngineFault, AgentFault);
    let unreached = Unreached::VARIANTS.iter().map(|why| why.as_str()).collect();
    for (title, words) in [
        ("Phases", phases),
        ("Outcomes", outcomes),
        ("Refused: reasons", reasons),
        ("Failures of an operation", failures),
        ("The host does not answer", unreached),
    ] {
        for word in words {
            assert!(
                row(runbook, title, word).is_some(),
                "docs/runbook.md, section '{title}', says nothing of {word}"
            );
        }
    }
}

/// The row of a section's table whose first cell names a word.
fn row<'a>(runbook: &'a str, title: &str, word: &str) -> Option<&'a str> {
    let names = |line: &&str| {
        line.starts_with('|')
            && line.split('|').nth(1).is_some_and(|cell| cell.contains(&format!("`{word}`")))
    };
    section(runbook, title).lines().find(names)
}

#[test]
fn what_a_message_tells_a_person_to_do_is_in_the_runbook() {
    let runbook = include_str!("../../docs/runbook.md");
    for outcome in OUTCOMES {
        let meaning = Meaning::of(outcome);
        let phase = row(runbook, "Phases", meaning.phase.as_str());
        let to_do = phase.and_then(|row| row.split('|').nth(4)).unwrap_or_default().trim();
        assert_eq!(to_do == "nothing", meaning.next_step.is_empty(), "what to do in {:?}", meaning.phase);
        for command in ["tenantry.dev/retry", "tenantry rollback", "tenantry accept-host"] {
            let told = !meaning.next_step.contains(command) || runbook.contains(command);
            assert!(told, "docs/runbook.md says nothing of {command}");
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
