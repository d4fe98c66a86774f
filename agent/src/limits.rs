//! How long others may take: the engine, its registries, and compose. Nothing is waited for without an end (P15).

use std::time::Duration;

/// How long others may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The engine, for a read or a small change.
    pub read: Duration,
    /// A registry, to say what a reference points to.
    pub registry: Duration,
    /// How long a pull may be silent before it counts as broken.
    pub silence: Duration,
    /// One image, to come.
    pub pull: Duration,
    /// `up`, besides the time that services have to become healthy: stopping, creating, one-shots.
    pub up: Duration,
    /// How long the engine may be away before a verification gives up.
    pub away: Duration,
    /// How long the engine's event stream may be silent before the engine is asked whether it is still there.
    pub idle: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            read: Duration::from_secs(20),
            registry: Duration::from_mins(1),
            silence: Duration::from_mins(3),
            pull: Duration::from_hours(1),
            up: Duration::from_mins(10),
            away: Duration::from_mins(1),
            idle: Duration::from_secs(30),
        }
    }
}

/// The longest that a container may take to stop, whatever its compose file says: after that the engine kills it.
pub const LONGEST_GRACE: Duration = Duration::from_mins(10);
