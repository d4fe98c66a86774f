//! A host that is not reached, or whose agent refuses to be asked.

use std::time::Duration;

use tenantry_api::conditions::{DRIFTED, HOST_REACHABLE, Truth, find, whole_seconds};
use tenantry_api::tenant_status::Phase;
use tenantry_protocol::{ApiError, ErrorCode};

use super::conditions::PhaseReport;
use super::decision::Ruling;
use super::lifecycle::Lifecycle;
use super::progress;
use super::{Answer, Draft, Unreached};
use crate::target::RefusalReason;
use crate::text::sentence;

/// How soon a host that carries something else out is asked again.
pub(super) const BUSY_AGAIN: Duration = Duration::from_secs(5);

impl Draft<'_> {
    /// Records what this pass learnt about the way to the host.
    pub(super) fn note_contact(&mut self) {
        let host = &self.facts.subject.host;
        let (truth, reason, message) = match self.facts.answer {
            Answer::NotAsked => {
                if find(&self.next.conditions, HOST_REACHABLE).is_some() {
                    return;
                }
                (Truth::Unknown, "NotContacted", format!("The agent of host {host} has not been asked yet."))
            }
            Answer::Unreached(why, text) => {
                (Truth::False, why.as_str(), format!("Host {host}: {}", sentence(text)))
            }
            Answer::Refused(error) | Answer::NotBegun(error) if error.code == ErrorCode::HostFault => {
                (Truth::False, "HostFault", format!("Host {host}: {}", sentence(&error.to_string())))
            }
            Answer::Refused(_)
            | Answer::NotBegun(_)
            | Answer::Seen(_)
            | Answer::Unknown(_)
            | Answer::Followed(..) => (Truth::True, "Answered", format!("The agent of host {host} answers.")),
        };
        self.condition(HOST_REACHABLE, truth, reason, &message);
        if truth == Truth::False {
            self.condition(DRIFTED, Truth::Unknown, reason, "The host does not answer.");
        }
    }

    pub(super) fn unreached(&self, why: Unreached, text: &str) -> Ruling {
        let since =
            find(&self.next.conditions, HOST_REACHABLE).map(|condition| condition.last_transition_time.0);
        let since = since.unwrap_or(self.facts.now);
        let waited = u64::try_from(self.facts.now.as_second() - since.as_second()).unwrap_or(0);
        let next_step = match why {
            Unreached::NoAnswer | Unreached::Timeout => {
                "See that the machine is up and tenantry-agent runs there."
            }
            Unreached::BadCertificate => {
                "Issue it again, where the authority of both is kept: `tenantry pki issue` (agent or operator), put it where the \
                 old one is, and it is read by itself."
            }
            Unreached::WrongAgent => {
                "See that spec.connection.dial.address and spec.identity of the ComposeHost belong together."
            }
            Unreached::BadAnswer => "See that a tenantry-agent of a fitting version listens at that address.",
            Unreached::HostFault => "See to Docker and the disk on that machine.",
            Unreached::HostMissing => "Make the ComposeHost again.",
        };
        let (host, since) = (&self.facts.subject.host, whole_seconds(since));
        let known = self.last_known();
        let message = format!("Host {host}, since {since}: {} {known} {next_step}", sentence(text));
        Ruling::says(PhaseReport::with_reason(Phase::HostUnreachable, why.as_str(), message))
            .within(Duration::from_secs((waited / 2).clamp(2, 30)))
    }

    /// What was known of the services when the host last answered, and since when.
    fn last_known(&self) -> String {
        if let Lifecycle::InFlight(operation) = &self.lifecycle {
            let doing = operation.phases.last();
            let phase = doing.map_or(Phase::Planning, |phase| phase.name);
            let since = doing.map_or(operation.started_at.0, |phase| phase.started_at.0);
            let services = match phase {
                Phase::Planning | Phase::Pulling => "by then no service had been touched",
                _ => "services may be stopped until the agent goes on by its journal",
            };
            let since = whole_seconds(since);
            return format!(
                "{}: last known {} since {since}; {services}.",
                progress::what(operation),
                phase.as_str()
            );
        }
        match (&self.next.deployed, self.facts.status.phase) {
            (None, _) => "Nothing is known of what runs there.".to_owned(),
            (Some(deployed), Some(Phase::Degraded)) => {
                format!(
                    "{} was deployed there, and was not well when the host last answered.",
                    deployed.image_tag
                )
            }
            (Some(deployed), _) => {
                format!("{} was deployed there; how its services are now is not known.", deployed.image_tag)
            }
        }
    }

    pub(super) fn agent_refused(&self, error: &ApiError) -> Ruling {
        let reason = match error.code {
            ErrorCode::Overloaded | ErrorCode::Busy => return self.host_is_busy(error),
            ErrorCode::HostFault => return self.unreached(Unreached::HostFault, &error.to_string()),
            ErrorCode::PolicyRefused => RefusalReason::PolicyRefused,
            ErrorCode::ClaimedByOther => RefusalReason::ClaimedByOther,
            ErrorCode::RecordsDamaged => RefusalReason::RecordsDamaged,
            ErrorCode::Invalid if error.field.as_deref() == Some("place.directory") => {
                RefusalReason::PathRefused
            }
            ErrorCode::Invalid
            | ErrorCode::NotFound
            | ErrorCode::OperationMismatch
            | ErrorCode::StaleEpoch => RefusalReason::RequestRefused,
        };
        let host = &self.facts.subject.host;
        // A place on the wire is what people call `spec`.
        let said = error.to_string();
        let said = said.strip_prefix("place.").map_or_else(|| said.clone(), |rest| format!("spec.{rest}"));
        let message = format!("The agent of host {host} refuses: {}", sentence(&said));
        Ruling::says(PhaseReport::refused(reason, &message))
    }

    /// Something else is in flight on the host, and ends by itself.
    pub(super) fn host_is_busy(&self, error: &ApiError) -> Ruling {
        let message = format!("Waits for host {}: {}", self.facts.subject.host, sentence(&error.to_string()));
        Ruling::says(PhaseReport::of(Phase::Planning, message)).within(BUSY_AGAIN)
    }
}
