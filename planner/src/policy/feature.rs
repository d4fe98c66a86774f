//! What a host grants by name: features of compose, and ways to verify a release.

/// A feature of compose that gives a container more than its own.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
)]
pub enum Feature {
    /// `privileged: true`, of a service or of one of its hooks.
    Privileged,
    /// The host's network.
    HostNetwork,
    /// The host's processes.
    HostPid,
    /// The host's shared memory.
    HostIpc,
    /// The host's name.
    HostUts,
    /// The host's user ids, where the engine maps them.
    HostUserns,
    /// The host's control groups.
    HostCgroup,
    /// The engine's socket: as good as root on the host.
    DockerSocket,
    /// Devices of the host, GPUs included.
    Devices,
    /// Capabilities beyond those that every container has.
    Capabilities,
    /// `security_opt` other than `no-new-privileges`, and `credential_spec`.
    SecurityOptions,
    /// Kernel settings beyond those that belong to a container alone.
    Sysctls,
    /// Another container runtime, and annotations for it.
    Runtimes,
    /// Real-time scheduling, and protection from being killed when memory is short.
    Priority,
    /// Namespaces, volumes or links of containers of other projects.
    ForeignContainers,
    /// Networks that are not this project's own.
    ExternalNetworks,
    /// Volumes that are not this project's own.
    ExternalVolumes,
    /// Networks of other kinds than `bridge`, or with options of their driver.
    NetworkDrivers,
    /// Volumes of other drivers than `local`, or that mount a device or a share.
    VolumeDrivers,
    /// Log drivers that send to somewhere else.
    LogDrivers,
    /// Images that are mounted as volumes.
    ImageMounts,
    /// Fields that this version of Tenantry does not know.
    UnknownFields,
}

impl Feature {
    /// All of them, as the policy file may list them.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The feature of that name.
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}

/// A way to verify a release that gives an operator more than a look from outside.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    strum::Display,
    strum::EnumString,
    strum::VariantArray,
)]
pub enum Verification {
    /// Commands of the operator's choice in containers of the tenant's services.
    Exec,
}

impl Verification {
    /// All of them, as the policy file may list them.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// The way of that name.
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}
