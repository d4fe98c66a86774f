//! `tenantry explain`: why a tenant is as it is, whole.

use std::fmt::Write as _;
use std::process::ExitCode;

use clap::Args;
use tenantry_api::conditions::{READY, find};
use tenantry_api::tenant_status::{Lacking, TenantStatus};
use tenantry_api::{Phase, Tenant};
use tenantry_planner::policy::grants::block;

use crate::access::Access;
use crate::status::{find as find_tenant, ready_of};
use crate::{last_words, output};

/// Show why a tenant is as it is, and what would change that
///
/// What the host's policy does not grant is shown as lines for its policy file, each with what asks for it and what
/// granting it means.
#[derive(Debug, Args)]
pub struct Explain {
    /// Which
    tenant: String,
    #[command(flatten)]
    access: Access,
}

/// Runs `tenantry explain`.
pub async fn run(explain: &Explain) -> anyhow::Result<ExitCode> {
    let cluster = explain.access.connect().await?;
    output::out(explained(&find_tenant(&cluster, &explain.tenant).await?));
    Ok(ExitCode::SUCCESS)
}

fn explained(tenant: &Tenant) -> String {
    let (_, reason, message) = ready_of(tenant);
    let name = kube::ResourceExt::name_any(tenant);
    let unknown = TenantStatus::default();
    let status = tenant.status.as_ref().unwrap_or(&unknown);
    let phase = status.phase.map_or("Pending", Phase::as_str);
    let why = if reason.is_empty() || reason == phase { String::new() } else { format!(" ({reason})") };
    let mut text = format!("{name} is {phase}{why} on host {}.\n{message}\n", tenant.spec.host);
    let others = status.conditions.iter().filter(|one| one.type_ != READY && one.message != message);
    for one in others.filter(|one| !one.message.is_empty()) {
        let _ = write!(text, "\n{} is {}: {}", one.type_, one.status, one.message);
    }
    if let Some(blocked) = &status.blocked_target {
        let by_itself = if blocked.policy_revision.is_some() {
            "by itself once the host's policy file has changed"
        } else {
            "when the spec changes, or when the annotation tenantry.dev/retry gets a new value"
        };
        let _ = write!(
            text,
            "\n{} is not tried again since {}; it is {by_itself}.\n  {}",
            blocked.image_tag, blocked.at.0, blocked.reason
        );
    }
    if let Some(words) = last_words::of(tenant) {
        let _ = write!(text, "\n\n{words}");
    }
    if let Some(lacking) = &status.lacking {
        text += &lacks(lacking);
    }
    // A Tenant that nobody has looked at has no conditions to speak of.
    if find(&status.conditions, READY).is_none() {
        text += "\nSee that an operator runs.";
    }
    text.trim_end().to_owned()
}

fn lacks(lacking: &Lacking) -> String {
    let mut text = String::new();
    if !lacking.grants.is_empty() {
        let _ = write!(
            text,
            "\n\nThe policy of its host does not grant all that it asks for. Where that is meant, a person on the host \
             appends this to\n{}, which is read again by itself:\n\n{}",
            lacking.file,
            block(lacking)
        );
    }
    if !lacking.ungrantable.is_empty() {
        text += "\nNo line of a policy file grants this; the compose file has to change:\n";
        for problem in &lacking.ungrantable {
            let _ = writeln!(text, "  {problem}");
        }
    }
    if lacking.more > 0 {
        let _ = write!(text, "\nand {} more, which are told once these are settled.", lacking.more);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn shown(status: &Value) -> String {
        let tenant = json!({
            "apiVersion": "tenantry.dev/v1alpha1", "kind": "Tenant", "metadata": {"name": "acme"},
            "spec": {"host": "n5", "project": "acme", "directory": "/srv/acme", "imageTag": "v2"}, "status": status,
        });
        explained(&serde_json::from_value(tenant).unwrap())
    }

    fn condition(kind: &str, status: &str, reason: &str, message: &str) -> Value {
        json!({"type": kind, "status": status, "reason": reason, "message": message,
               "lastTransitionTime": "2026-01-01T00:00:00Z"})
    }

    #[test]
    fn what_a_policy_lacks_is_shown_whole_as_a_block_to_paste() {
        let grants: Vec<Value> = (0..30)
            .map(|n| json!({"list": "mounts", "item": format!("/mnt/{n}:ro"), "at": format!("services.s{n}.volumes[0].source"),
                            "means": "containers read it"}))
            .collect();
        let text = shown(&json!({
            "phase": "Refused",
            "conditions": [condition("Ready", "False", "PolicyRefused", "It asks for more."),
                           condition("Stalled", "True", "PolicyRefused", "It asks for more."),
                           condition("HostReachable", "True", "Answered", "The agent answers.")],
            "lacking": {"file": "/etc/tenantry/agent.yaml", "grants": grants, "ungrantable": ["services.a.provider: never"], "more": 2},
        }));
        assert!(
            text.starts_with("acme is Refused (PolicyRefused) on host n5.\nIt asks for more.\n"),
            "{text}"
        );
        assert_eq!(text.matches("It asks for more.").count(), 1, "{text}");
        for says in [
            "/etc/tenantry/agent.yaml, which is read again by itself:\n\n---\nallow:\n  mounts:\n",
            "    # services.s29.volumes[0].source: containers read it\n    - /mnt/29:ro\n",
            "  services.a.provider: never",
            "and 2 more",
        ] {
            assert!(text.contains(says), "{says}: {text}");
        }
    }

    #[test]
    fn a_blocked_target_says_what_would_free_it() {
        let blocked = |revision: Value| {
            shown(&json!({
                "phase": "Aborted", "conditions": [condition("Ready", "False", "Aborted", "v2 was not begun.")],
                "blockedTarget": {"targetHash": "x", "imageTag": "v2", "outcome": "Aborted", "reason": "Because.",
                                  "policyRevision": revision, "at": "2026-01-01T00:00:00Z"},
            }))
        };
        assert!(blocked(json!("sha256:1")).contains("once the host's policy file has changed"));
        let other = blocked(Value::Null);
        assert!(other.contains("tenantry.dev/retry") && other.contains("  Because."), "{other}");
    }

    #[test]
    fn one_that_nobody_has_looked_at_says_so() {
        let text = shown(&json!({}));
        assert!(
            text.starts_with("acme is Pending on host n5.") && text.contains("See that an operator runs"),
            "{text}"
        );
    }
}
