//! The demands of one service.

use serde_json::{Map, Value};

use super::{Found, is_set, shown, text, texts};
use crate::policy::Feature;

/// Fields that change nothing but the container itself, or that are read elsewhere.
const HARMLESS: [&str; 66] = [
    "attach",
    "blkio_config",
    "build",
    "cap_drop",
    "command",
    "container_name",
    "cpu_count",
    "cpu_percent",
    "cpu_period",
    "cpu_quota",
    "cpu_shares",
    "cpus",
    "cpuset",
    "depends_on",
    "develop",
    "dns",
    "dns_opt",
    "dns_search",
    "domainname",
    "entrypoint",
    "environment",
    "expose",
    "extra_hosts",
    "group_add",
    "healthcheck",
    "hostname",
    "image",
    "init",
    "links",
    "mac_address",
    "mem_limit",
    "mem_reservation",
    "mem_swappiness",
    "memswap_limit",
    "networks",
    "pids_limit",
    "platform",
    "ports",
    "profiles",
    "pull_policy",
    "read_only",
    "restart",
    "scale",
    "shm_size",
    "stdin_open",
    "stop_grace_period",
    "stop_signal",
    "storage_opt",
    "tmpfs",
    "tty",
    "ulimits",
    "user",
    "working_dir",
    // Checked where they are defined.
    "configs",
    "secrets",
    // Checked below, together with what they belong to.
    "annotations",
    "cap_add",
    "deploy",
    "env_file",
    "labels",
    "logging",
    "post_start",
    "pre_stop",
    "security_opt",
    "sysctls",
    "volumes",
];
/// What every container has unless it is taken away; asking for it by name gives nothing more.
const USUAL_CAPABILITIES: [&str; 15] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "IPC_LOCK",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "NET_RAW",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
];
/// Kernel settings of namespaces that a container has for itself.
const OWN_SYSCTLS: [&str; 5] = ["net.", "kernel.shm", "kernel.msg", "kernel.sem", "fs.mqueue."];
/// Log drivers that keep what they get on this host, where the engine keeps it.
const LOCAL_LOGS: [&str; 5] = ["", "json-file", "local", "none", "journald"];
/// Images that are kept for rollbacks: each is one tenant's own.
const KEPT_IMAGES: &str = "tenantry.local/";

/// How many containers a service has.
pub(super) fn containers(service: &Value) -> u64 {
    let scale = service.get("scale").and_then(Value::as_u64);
    scale.or_else(|| service["deploy"]["replicas"].as_u64()).unwrap_or(1)
}

pub(super) fn service(at: &str, fields: &Map<String, Value>, found: &mut Found) {
    for (key, value) in fields.iter().filter(|(_, value)| is_set(value)) {
        field(&format!("{at}.{}", shown(key)), at, key, value, found);
    }
    if fields.get("image").is_some_and(|image| text(image).starts_with(KEPT_IMAGES)) {
        found.never(&format!("{at}.image"), "is an image that is kept for another release's rollback");
    }
}

fn field(at: &str, service: &str, key: &str, value: &Value, found: &mut Found) {
    match key {
        "privileged" => found.feature(at, Feature::Privileged, "is privileged"),
        "network_mode" | "pid" | "ipc" | "uts" | "userns_mode" | "cgroup" => namespace(at, key, value, found),
        "cgroup_parent" => found.feature(at, Feature::HostCgroup, "chooses a control group of the host"),
        "use_api_socket" => found.feature(at, Feature::DockerSocket, "asks for the engine's socket"),
        "devices" | "device_cgroup_rules" | "gpus" => {
            found.feature(at, Feature::Devices, "asks for devices of the host");
        }
        "credential_spec" => found.feature(at, Feature::SecurityOptions, "reads credentials of the host"),
        "runtime" | "isolation" => runtime(at, key, value, found),
        "annotations" => found.feature(at, Feature::Runtimes, "speaks to the container runtime itself"),
        "oom_kill_disable" | "cpu_rt_runtime" | "cpu_rt_period" => {
            found.feature(at, Feature::Priority, "goes before everything else on the host");
        }
        "oom_score_adj" => {
            if value.as_i64().is_none_or(|score| score < 0) {
                found.feature(at, Feature::Priority, "is below 0, so that others are killed first");
            }
        }
        "volumes_from" => volumes_from(at, value, found),
        "external_links" => {
            found.feature(at, Feature::ForeignContainers, "links containers of other projects");
        }
        "volume_driver" => found.feature(at, Feature::VolumeDrivers, "chooses a volume driver"),
        "provider" => found.never(at, "a provider is a program of the host, which an agent never starts"),
        "models" => found.never(at, "models are run by a program of the host, which an agent never starts"),
        known if HARMLESS.contains(&known) => inside(at, key, value, found),
        other => found.unknown(service, other),
    }
}

/// Fields that are harmless in most of their forms.
fn inside(at: &str, key: &str, value: &Value, found: &mut Found) {
    match key {
        "cap_add" => capabilities(at, value, found),
        "security_opt" => security(at, value, found),
        "sysctls" => sysctls(at, value, found),
        "logging" => logging(at, value, found),
        "labels" => found.labels(at, value),
        "post_start" | "pre_stop" => hooks(at, value, found),
        "env_file" => env_files(at, value, found),
        "volumes" => volumes(at, value, found),
        "networks" => networks(at, value, found),
        "deploy" => deploy(at, value, found),
        _ => {}
    }
}

fn namespace(at: &str, key: &str, value: &Value, found: &mut Found) {
    let mode = text(value);
    let host = match key {
        "network_mode" => Feature::HostNetwork,
        "pid" => Feature::HostPid,
        "ipc" => Feature::HostIpc,
        "uts" => Feature::HostUts,
        "userns_mode" => Feature::HostUserns,
        _ => Feature::HostCgroup,
    };
    let own = match key {
        "network_mode" => matches!(mode, "none" | "bridge" | "default"),
        "ipc" => matches!(mode, "none" | "private" | "shareable"),
        "cgroup" => mode == "private",
        _ => false,
    };
    if own || mode.starts_with("service:") {
        return;
    }
    let shown = shown(mode);
    if mode.starts_with("container:") {
        found.feature(at, Feature::ForeignContainers, format!("is {shown:?}, a container of its own"));
    } else if mode == "host" || key != "network_mode" {
        found.feature(at, host, format!("is {shown:?}, so that it shares what is the host's"));
    } else {
        found.feature(at, Feature::ExternalNetworks, format!("is {shown:?}, a network of its own"));
    }
}

fn runtime(at: &str, key: &str, value: &Value, found: &mut Found) {
    if key == "runtime" && text(value) == "runc" || key == "isolation" && text(value) == "default" {
        return;
    }
    found.feature(at, Feature::Runtimes, "chooses how containers are run");
}

fn volumes_from(at: &str, value: &Value, found: &mut Found) {
    for (n, from) in texts(value).enumerate().filter(|(_, from)| from.starts_with("container:")) {
        let what = format!("takes the volumes of {:?}", shown(from));
        found.feature(&format!("{at}[{n}]"), Feature::ForeignContainers, what);
    }
}

fn capabilities(at: &str, value: &Value, found: &mut Found) {
    for (n, name) in texts(value).enumerate() {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        if !USUAL_CAPABILITIES.contains(&plain) {
            found.feature(&format!("{at}[{n}]"), Feature::Capabilities, format!("adds {}", shown(name)));
        }
    }
}

fn security(at: &str, value: &Value, found: &mut Found) {
    let plain = |option: &str| {
        let option = option.replace('=', ":");
        matches!(option.as_str(), "no-new-privileges" | "no-new-privileges:true" | "apparmor:docker-default")
    };
    for (n, option) in texts(value).enumerate().filter(|(_, option)| !plain(option)) {
        let what = format!("is {:?}", shown(option));
        found.feature(&format!("{at}[{n}]"), Feature::SecurityOptions, what);
    }
}

fn sysctls(at: &str, value: &Value, found: &mut Found) {
    for name in super::keys_of(value) {
        if !OWN_SYSCTLS.iter().any(|own| name.starts_with(own)) {
            found.feature(
                &format!("{at}.{}", shown(name)),
                Feature::Sysctls,
                "is a setting of the host's kernel",
            );
        }
    }
}

fn logging(at: &str, value: &Value, found: &mut Found) {
    let driver = value.get("driver").map(text).unwrap_or_default();
    if !LOCAL_LOGS.contains(&driver) {
        let what = format!("is {:?}, which may send to any address and socket", shown(driver));
        found.feature(&format!("{at}.driver"), Feature::LogDrivers, what);
    }
}

fn hooks(at: &str, value: &Value, found: &mut Found) {
    let hooks = value.as_array().into_iter().flatten().enumerate();
    for (n, _) in hooks.filter(|(_, hook)| hook.get("privileged").is_some_and(is_set)) {
        found.feature(&format!("{at}[{n}].privileged"), Feature::Privileged, "is privileged");
    }
}

fn env_files(at: &str, value: &Value, found: &mut Found) {
    for (n, file) in value.as_array().into_iter().flatten().enumerate() {
        let path = file.as_str().or_else(|| file.get("path").and_then(Value::as_str));
        found.read(&format!("{at}[{n}]"), path.unwrap_or_default());
    }
}

fn volumes(at: &str, value: &Value, found: &mut Found) {
    for (n, volume) in value.as_array().into_iter().flatten().enumerate() {
        let at = format!("{at}[{n}]");
        let source = volume.get("source").map(text).unwrap_or_default();
        let read_only = volume.get("read_only").is_some_and(is_set);
        match volume.get("type").map(text).unwrap_or_default() {
            "bind" => {
                let relabels = volume["bind"].get("selinux").is_some_and(is_set);
                found.path(&format!("{at}.source"), source, read_only, relabels);
            }
            "volume" | "tmpfs" => {}
            "image" => {
                let what = format!("mounts the image {:?}", shown(source));
                found.feature(&at, Feature::ImageMounts, what);
            }
            other => {
                let what = format!("is a mount of the type {:?}", shown(other));
                found.feature(&at, Feature::VolumeDrivers, what);
            }
        }
    }
}

fn networks(at: &str, value: &Value, found: &mut Found) {
    for (name, network) in value.as_object().into_iter().flatten() {
        if network.get("driver_opts").is_some_and(is_set) {
            let at = format!("{at}.{}.driver_opts", shown(name));
            found.feature(&at, Feature::NetworkDrivers, "steers the network's driver");
        }
    }
}

fn deploy(at: &str, value: &Value, found: &mut Found) {
    for kind in ["reservations", "limits"] {
        let resources = &value["resources"][kind];
        for key in ["devices", "generic_resources"] {
            if resources.get(key).is_some_and(is_set) {
                let at = format!("{at}.resources.{kind}.{key}");
                found.feature(&at, Feature::Devices, "asks for devices of the host");
            }
        }
    }
    if let Some(labels) = value.get("labels") {
        found.labels(&format!("{at}.labels"), labels);
    }
}
