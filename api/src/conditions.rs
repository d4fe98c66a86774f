//! Condition types, and the one rule of how a condition changes.
//!
//! `Ready`, `Reconciling` and `Stalled` follow kstatus: `kubectl wait`, Flux and Argo CD read them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

/// True while the tenant runs its target and every service is healthy.
pub const READY: &str = "Ready";
/// True while something is under way, or is waited for, that will end by itself.
pub const RECONCILING: &str = "Reconciling";
/// True when nothing more will be done until a person changes something.
pub const STALLED: &str = "Stalled";
/// Whether the host's own agent answers.
pub const HOST_REACHABLE: &str = "HostReachable";
/// True when the host differs from what was deployed.
pub const DRIFTED: &str = "Drifted";
/// On a Tenant that is deleted: what our finalizer still waits for, and until when.
pub const DELETING: &str = "Deleting";
/// On a `TemplateBundle`: whether its files could be read and its `bundle.yaml` understood.
pub const RESOLVED: &str = "Resolved";

/// A condition's three values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, strum::IntoStaticStr)]
pub enum Truth {
    /// Seen to hold.
    True,
    /// Seen not to hold.
    False,
    /// Not known: an unreachable agent says neither yes nor no.
    Unknown,
}

impl Truth {
    /// The word that the API uses.
    pub fn as_str(self) -> &'static str {
        self.into()
    }

    /// Reads the API's word; anything else is [`Truth::Unknown`].
    pub fn parse(word: &str) -> Self {
        match word {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// The longest condition message that is written; the API's own limit is 32,768 bytes.
pub const MESSAGE_LIMIT: usize = 2_048;

/// Puts a condition into `conditions`, keeping `lastTransitionTime` unless the status itself changes.
pub fn set(
    conditions: &mut Vec<Condition>,
    kind: &str,
    status: Truth,
    reason: &str,
    message: &str,
    generation: i64,
    now: jiff::Timestamp,
) {
    let previous = conditions.iter_mut().find(|condition| condition.type_ == kind);
    let unchanged_since = previous
        .as_ref()
        .filter(|condition| condition.status == status.as_str())
        .map(|condition| condition.last_transition_time.clone());
    let condition = Condition {
        type_: kind.to_owned(),
        status: status.as_str().to_owned(),
        reason: reason.to_owned(),
        message: bounded(message, MESSAGE_LIMIT),
        observed_generation: Some(generation),
        last_transition_time: unchanged_since.unwrap_or(Time(whole_seconds(now))),
    };
    match previous {
        Some(slot) => *slot = condition,
        None => conditions.push(condition),
    }
}

/// Finds a condition by type.
pub fn find<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == kind)
}

/// The API stores times in whole seconds: a finer one would differ from itself after a round trip.
pub fn whole_seconds(time: jiff::Timestamp) -> jiff::Timestamp {
    jiff::Timestamp::from_second(time.as_second()).unwrap_or(time)
}

/// Cuts a text at a character's boundary and says so with an ellipsis.
pub fn bounded(text: &str, limit: usize) -> String {
    if text.len() <= limit {
        return text.to_owned();
    }
    let mut end = limit.saturating_sub('…'.len_utf8());
    while end > 0 && !text.is_char_boundary(end) {
        end -= 1;
    }
    format!("{}…", &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(second: i64) -> jiff::Timestamp {
        jiff::Timestamp::from_second(second).unwrap()
    }

    #[test]
    fn p14_the_transition_time_moves_only_when_the_status_does() {
        let mut conditions = Vec::new();
        set(&mut conditions, READY, Truth::False, "Pulling", "one", 1, at(10));
        set(&mut conditions, READY, Truth::False, "Starting", "two", 2, at(20));
        let ready = find(&conditions, READY).unwrap();
        assert_eq!(ready.last_transition_time, Time(at(10)));
        assert_eq!((ready.reason.as_str(), ready.observed_generation), ("Starting", Some(2)));

        set(&mut conditions, READY, Truth::True, "Ready", "three", 2, at(30));
        assert_eq!(find(&conditions, READY).unwrap().last_transition_time, Time(at(30)));
        assert_eq!(conditions.len(), 1);
    }

    #[test]
    fn p15_a_long_message_is_cut_at_a_character() {
        let long = "é".repeat(MESSAGE_LIMIT);
        let cut = bounded(&long, MESSAGE_LIMIT);
        assert!(cut.len() <= MESSAGE_LIMIT);
        assert!(cut.ends_with("é…"));
    }
}
