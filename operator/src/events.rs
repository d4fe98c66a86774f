//! Kubernetes Events: what `kubectl describe` tells.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use tenantry_planner::decide;

/// Publishes events about objects.
#[derive(Clone)]
pub struct Events {
    recorder: Recorder,
}

impl Events {
    /// Events of the operator.
    pub fn new(client: Client, instance: Option<String>) -> Self {
        let reporter = Reporter { controller: tenantry_api::FIELD_MANAGER.to_owned(), instance };
        Self { recorder: Recorder::new(client, reporter) }
    }

    /// Publishes events in their order. An event that can't be written is logged: it is never worth a second try.
    pub async fn publish<K: Resource<DynamicType = ()>>(&self, about: &K, events: &[decide::Event]) {
        let reference: ObjectReference = about.object_ref(&());
        for decided in events {
            let event = Event {
                type_: match decided.type_ {
                    decide::EventType::Normal => EventType::Normal,
                    decide::EventType::Warning => EventType::Warning,
                },
                reason: decided.reason.to_owned(),
                note: Some(decided.note.clone()),
                action: decided.action(),
                secondary: None,
            };
            if let Err(error) = self.recorder.publish(&event, &reference).await {
                tracing::warn!(reason = decided.reason, "an event could not be written: {error}");
            }
        }
    }
}
