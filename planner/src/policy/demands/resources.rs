//! The demands of volumes, networks, configs and secrets.

use serde_json::{Map, Value};

use super::{Found, is_set, shown, text};
use crate::policy::Feature;

/// Options of the bridge driver that change nothing for others.
const PLAIN_BRIDGE: [&str; 4] = [
    "com.docker.network.driver.mtu",
    "com.docker.network.bridge.enable_icc",
    "com.docker.network.bridge.enable_ip_masquerade",
    "com.docker.network.bridge.host_binding_ipv4",
];
/// Networks that every engine has, and what using them means.
const ENGINES_OWN: [&str; 1] = ["host"];

pub(super) fn volume(at: &str, fields: &Map<String, Value>, found: &mut Found) {
    for (key, value) in fields.iter().filter(|(_, value)| is_set(value)) {
        let here = format!("{at}.{}", shown(key));
        match key.as_str() {
            "name" | "driver_opts" => {}
            "labels" => found.labels(&here, value),
            "external" => found.feature(&here, Feature::ExternalVolumes, "is not this project's own"),
            "driver" if text(value) == "local" => {}
            "driver" => {
                let what = format!("is {:?}", shown(text(value)));
                found.feature(&here, Feature::VolumeDrivers, what);
            }
            other => found.unknown(at, other),
        }
    }
    if let Some(options) = fields.get("driver_opts").and_then(Value::as_object) {
        mounted(&format!("{at}.driver_opts"), options, found);
    }
}

/// The local driver hands its options to `mount`: a bind of a host path looks like any other volume then.
fn mounted(at: &str, options: &Map<String, Value>, found: &mut Found) {
    let option = |name: &str| options.get(name).map(text).unwrap_or_default();
    let known = |name: &String| matches!(name.as_str(), "type" | "o" | "device" | "size");
    let (kind, device, flags) = (option("type"), option("device"), option("o"));
    let words: Vec<&str> = flags.split(',').collect();
    let binds = words.iter().any(|word| matches!(*word, "bind" | "rbind"));
    if kind == "tmpfs" && !binds && options.keys().all(known) || options.is_empty() {
        return;
    }
    if binds && matches!(kind, "" | "none" | "bind") && options.keys().all(known) {
        // This path goes to the kernel as it is written, which may see '..' behind a symlink otherwise than the engine does.
        if device.split('/').any(|part| part == "..") {
            return found.never(&format!("{at}.device"), "has '..' in it: write the path out from /");
        }
        return found.path(&format!("{at}.device"), device, words.contains(&"ro"), false);
    }
    found.feature(at, Feature::VolumeDrivers, "mount a device or a share of the host");
}

pub(super) fn network(at: &str, fields: &Map<String, Value>, found: &mut Found) {
    for (key, value) in fields.iter().filter(|(_, value)| is_set(value)) {
        let here = format!("{at}.{}", shown(key));
        match key.as_str() {
            "name" if ENGINES_OWN.contains(&text(value)) => {
                found.feature(&here, Feature::HostNetwork, "is the host's own network");
            }
            "name" | "attachable" | "internal" | "enable_ipv4" | "enable_ipv6" => {}
            "labels" => found.labels(&here, value),
            "external" => found.feature(&here, Feature::ExternalNetworks, "is not this project's own"),
            "driver" if text(value) == "host" => {
                found.feature(&here, Feature::HostNetwork, "is the host's own network");
            }
            "driver" if matches!(text(value), "bridge" | "none" | "null" | "default") => {}
            "driver" => {
                let what = format!("is {:?}", shown(text(value)));
                found.feature(&here, Feature::NetworkDrivers, what);
            }
            "driver_opts" => driver_options(&here, value, found),
            "ipam" => addresses(&here, value, found),
            other => found.unknown(at, other),
        }
    }
}

fn driver_options(at: &str, value: &Value, found: &mut Found) {
    for name in super::keys_of(value).into_iter().filter(|name| !PLAIN_BRIDGE.contains(name)) {
        found.feature(
            &format!("{at}.{}", shown(name)),
            Feature::NetworkDrivers,
            "steers the network's driver",
        );
    }
}

fn addresses(at: &str, value: &Value, found: &mut Found) {
    let driver = value.get("driver").map(text).unwrap_or_default();
    if !matches!(driver, "" | "default") {
        let what = format!("is {:?}", shown(driver));
        found.feature(&format!("{at}.driver"), Feature::NetworkDrivers, what);
    }
}

/// A config or secret.
pub(super) fn file(at: &str, fields: &Map<String, Value>, found: &mut Found) {
    for (key, value) in fields.iter().filter(|(_, value)| is_set(value)) {
        let here = format!("{at}.{}", shown(key));
        match key.as_str() {
            "name" | "content" | "environment" | "external" => {}
            "file" => found.path(&here, text(value), true, false),
            "labels" => found.labels(&here, value),
            "driver" | "driver_opts" | "template_driver" => {
                found.feature(&here, Feature::VolumeDrivers, "chooses a driver");
            }
            other => found.unknown(at, other),
        }
    }
}
