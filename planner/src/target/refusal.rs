//! Why no operation is begun.

/// Why no operation is begun, in the terms of the person who wrote the input.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Which kind of refusal: the Ready condition's reason.
    pub reason: RefusalReason,
    /// The field, what was wrong, what would be right.
    pub message: String,
    /// Whether the same may be accepted at another time: it was a matter of time, and the machine may have been busy.
    pub may_pass: bool,
}

impl Refusal {
    /// A refusal of this kind.
    pub fn new(reason: RefusalReason, message: impl Into<String>) -> Self {
        Self { reason, message: message.into(), may_pass: false }
    }

    /// The same where it was a matter of time.
    #[must_use]
    pub fn of_time(self) -> Self {
        Self { may_pass: true, ..self }
    }
}

/// The kinds of refusal; bounded, for they are condition reasons, event reasons and metric labels.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Hash, strum::Display, strum::IntoStaticStr, strum::VariantArray,
)]
pub enum RefusalReason {
    /// A field of the spec can't be what it says.
    InvalidSpec,
    /// There is no such TemplateBundle, or no such source behind it.
    BundleMissing,
    /// The bundle's files or its `bundle.yaml` can't be used.
    BundleInvalid,
    /// A template could not be rendered.
    RenderFailed,
    /// There is no such ComposeHost.
    HostMissing,
    /// Another Tenant has the same project or directory on the same host.
    Duplicate,
    /// The host's record says that directory or project belong to another Tenant.
    ClaimedByOther,
    /// A path is protected, or something that is not a file is in its place.
    PathRefused,
    /// `ImageOnly` was asked for, but managed files would change.
    ReleaseNeeded,
    /// A managed file was edited by hand since it was last written.
    HandEdited,
    /// The release reaches no service's image: nothing would change, and nothing is claimed.
    ReachesNothing,
    /// A compose file that the bundle writes is one that compose would not read.
    ComposeFileUnread,
    /// There is nothing at the directory that an image could be changed in.
    ProjectMissing,
    /// The compose files on the host can't be read.
    ComposeInvalid,
    /// The host's local policy does not allow it.
    PolicyRefused,
    /// The agent's own records of this Tenant are damaged.
    RecordsDamaged,
    /// There is no such restore point on the host.
    RestorePointMissing,
    /// The agent did not accept the request.
    RequestRefused,
}

impl RefusalReason {
    /// The reason's word.
    pub fn as_str(self) -> &'static str {
        self.into()
    }
}
