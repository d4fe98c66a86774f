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
    /// The whole file system of the host, read-only.
    HostFiles,
    /// New security labels (`:z`, `:Z`) for host paths outside a tenant's directory.
    Relabelling,
    /// Fields that this version of Tenantry does not know.
    UnknownFields,
}

impl Feature {
    /// All of them, as the policy file may list them.
    pub const ALL: &[Self] = <Self as strum::VariantArray>::VARIANTS;

    /// What granting it means for the host's safety, as the end of a sentence that a person reads before granting it.
    pub const fn means(self) -> &'static str {
        match self {
            Self::Privileged => "a container that is as good as root on the host",
            Self::HostNetwork => {
                "a container that reaches all that listens on the host's loopback, and takes any port"
            }
            Self::HostPid => "a container that sees, and may signal, every process of the host",
            Self::HostIpc => "a container that reads and writes shared memory of the host's processes",
            Self::HostUts => "a container that may rename the host",
            Self::HostUserns => "a container whose root is the host's root",
            Self::HostCgroup => "a container outside the limits that the engine sets for containers",
            Self::DockerSocket => "whoever has the engine's socket is root on the host",
            Self::Devices => {
                "a container that works on the host's hardware; a disk among it is all that is on the disk"
            }
            Self::Capabilities => {
                "a part of root's power; some of them (SYS_ADMIN, SYS_MODULE) are all of it"
            }
            Self::SecurityOptions => "a container without some of what keeps it from the host",
            Self::Sysctls => "settings of the host's kernel for everybody on it",
            Self::Runtimes => "containers that another program runs, with what that program may do",
            Self::Priority => "others on the host come second for time and memory",
            Self::ForeignContainers => {
                "a container within, or with the data of, containers of other projects"
            }
            Self::ExternalNetworks => "a container that reaches other projects on their own networks",
            Self::ExternalVolumes => "a container that reads and writes data of other projects",
            Self::NetworkDrivers => "a container on the host's own links, with addresses beside the host's",
            Self::VolumeDrivers => {
                "a program of the host, or a device or share that it mounts, behind a volume"
            }
            Self::LogDrivers => {
                "what containers print goes to another place, any socket and address included"
            }
            Self::ImageMounts => "files of another image inside a container",
            Self::HostFiles => {
                "a container that reads every file of the host, keys and the agent's own among them, and speaks to its sockets"
            }
            Self::Relabelling => "security labels of host paths change for everybody who uses those paths",
            Self::UnknownFields => "whatever a newer compose makes of a field that this agent can't judge",
        }
    }

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

    /// What granting it means for the host's safety.
    pub const fn means(self) -> &'static str {
        match self {
            Self::Exec => "whoever may change the Tenant can read and write what its containers can",
        }
    }

    /// The way of that name.
    pub fn parse(name: &str) -> Option<Self> {
        name.parse().ok()
    }
}
