//! Compose files that compose may read, but whose resolved model asks for what this host does not grant.

use super::compose::compose;
use super::{Case, Expect, Input};
use crate::hostile::host::{Host, manage};

/// Fields of a service, and what is said of them.
const FIELDS: [(&str, &str); 66] = [
    ("privileged: true", "Privileged"),
    ("privileged: \"${X:-true}\"", "Privileged"),
    ("post_start: [{command: id, privileged: true}]", "Privileged"),
    ("pre_stop: [{command: id, privileged: true}]", "Privileged"),
    ("network_mode: host", "HostNetwork"),
    ("network_mode: \"${X:-host}\"", "HostNetwork"),
    ("network_mode: other_default", "ExternalNetworks"),
    ("network_mode: \"container:other\"", "ForeignContainers"),
    ("pid: host", "HostPid"),
    ("pid: \"container:other\"", "ForeignContainers"),
    ("ipc: host", "HostIpc"),
    ("ipc: \"container:other\"", "ForeignContainers"),
    ("uts: host", "HostUts"),
    ("userns_mode: host", "HostUserns"),
    ("cgroup: host", "HostCgroup"),
    ("cgroup_parent: /system.slice", "HostCgroup"),
    ("use_api_socket: true", "DockerSocket"),
    ("volumes: [/var/run/docker.sock:/s]", "DockerSocket"),
    ("volumes: [/var/run/docker.sock:/s:ro]", "DockerSocket"),
    ("volumes: [/run/docker.sock:/s]", "DockerSocket"),
    ("volumes: [/var/run:/s]", "DockerSocket"),
    ("volumes: [/run:/s:ro]", "DockerSocket"),
    ("volumes: [/run/containerd:/s]", "DockerSocket"),
    ("volumes: [/:/host]", "agent's own files"),
    ("volumes: [/:/host:ro]", "HostFiles"),
    ("volumes: [/etc/:/host//]", "not in the tenant's directory"),
    ("volumes: [/srv/media:/m:z]", "Relabelling"),
    ("volumes: [/etc/localtime:/etc/localtime]", "/etc/localtime"),
    ("volumes: [../acme/.tenantry:/t]", "agent's own folder"),
    ("volumes: [/etc:/e:ro]", "not in the tenant's directory"),
    ("volumes: [/etc/shadow:/e:ro]", "not in the tenant's directory"),
    ("volumes: [/root/.ssh:/e]", "not in the tenant's directory"),
    ("volumes: [\"~/.ssh:/e\"]", "not in the tenant's directory"),
    ("volumes: [/proc:/p]", "not in the tenant's directory"),
    ("volumes: [/sys/fs/cgroup:/p]", "not in the tenant's directory"),
    ("volumes: [/dev:/p]", "not in the tenant's directory"),
    ("volumes: [/var/lib/docker:/p]", "not in the tenant's directory"),
    ("volumes: [\"${X:-/etc}:/e\"]", "not in the tenant's directory"),
    ("volumes: [\"./${X:-..}/${X:-..}/etc:/e\"]", "not in the tenant's directory"),
    ("volumes: [../other:/e]", "not in the tenant's directory"),
    ("volumes: [../../other:/e]", "not in the tenant's directory"),
    ("volumes: [../../../etc:/e]", "not in the tenant's directory"),
    ("volumes: [../../../../etc:/e]", "not in the tenant's directory"),
    ("volumes: [../../../../../other:/e]", "not in the tenant's directory"),
    ("volumes: [../../../../conf:/e]", "not in the tenant's directory"),
    ("volumes: [./.tenantry:/t]", "agent's own folder"),
    ("volumes: [{type: bind, source: ./x/../.tenantry/restore, target: /t}]", "agent's own folder"),
    (
        "volumes: [{type: bind, source: /etc, target: /t, bind: {propagation: rshared}}]",
        "not in the tenant's directory",
    ),
    ("volumes: [{type: image, source: evil.example/x, target: /t}]", "ImageMounts"),
    ("volumes_from: [\"container:other\"]", "ForeignContainers"),
    ("external_links: [other]", "ForeignContainers"),
    ("devices: [/dev/sda:/dev/sda]", "Devices"),
    ("device_cgroup_rules: [\"a *:* rwm\"]", "Devices"),
    ("gpus: all", "Devices"),
    ("deploy: {resources: {reservations: {devices: [{capabilities: [gpu], count: 1}]}}}", "Devices"),
    ("cap_add: [SYS_ADMIN]", "Capabilities"),
    ("cap_add: [ALL]", "Capabilities"),
    ("cap_add: [\"${X:-SYS_PTRACE}\"]", "Capabilities"),
    ("security_opt: [\"seccomp:unconfined\"]", "SecurityOptions"),
    ("security_opt: [\"apparmor=unconfined\"]", "SecurityOptions"),
    ("sysctls: {kernel.core_pattern: x}", "Sysctls"),
    ("runtime: other", "Runtimes"),
    ("annotations: {org.systemd.property.X: y}", "Runtimes"),
    ("oom_score_adj: -1000", "Priority"),
    ("logging: {driver: syslog, options: {syslog-address: \"unix:///var/run/docker.sock\"}}", "LogDrivers"),
    ("labels: {com.docker.compose.project: other}", "what belongs to whom"),
];

/// Whole sections.
const SECTIONS: [(&str, &str, &str); 17] = [
    (
        "volumes: [v:/v]",
        "volumes: {v: {driver_opts: {type: none, o: bind, device: /etc}}}",
        "not in the tenant's directory",
    ),
    (
        "volumes: [v1:/v]",
        "volumes: {v1: {driver_opts: {type: none, o: bind, device: /}}}",
        "agent's own files",
    ),
    (
        "volumes: [v1:/v]",
        "volumes: {v1: {driver_opts: {type: none, o: \"bind,ro\", device: /var/run/docker.sock}}}",
        "DockerSocket",
    ),
    (
        "volumes: [v1:/v]",
        "volumes: {v1: {driver_opts: {type: nfs, o: addr=10.0.0.1, device: \":/\"}}}",
        "VolumeDrivers",
    ),
    ("volumes: [v1:/v]", "volumes: {v1: {driver_opts: {type: ext4, device: /dev/sda1}}}", "VolumeDrivers"),
    ("volumes: [v1:/v]", "volumes: {v1: {driver: other}}", "VolumeDrivers"),
    ("volumes: [v1:/v]", "volumes: {v1: {external: true, name: other_data}}", "ExternalVolumes"),
    ("networks: [n]", "networks: {n: {external: true, name: other_default}}", "ExternalNetworks"),
    ("networks: [n]", "networks: {n: {external: true, name: host}}", "HostNetwork"),
    ("networks: [n]", "networks: {n: {driver: macvlan, driver_opts: {parent: eth0}}}", "NetworkDrivers"),
    ("networks: [n]", "networks: {n: {driver: host}}", "HostNetwork"),
    ("networks: [n]", "networks: {n: {name: bridge}}", "of no project"),
    (
        "networks: [n]",
        "networks: {n: {driver_opts: {com.docker.network.bridge.name: docker0}}}",
        "NetworkDrivers",
    ),
    ("configs: [c]", "configs: {c: {file: /etc/shadow}}", "not in the tenant's directory"),
    ("configs: [c]", "configs: {c: {file: \"${X:-/etc/shadow}\"}}", "not in the tenant's directory"),
    ("secrets: [s]", "secrets: {s: {file: /root/.ssh/id_rsa}}", "not in the tenant's directory"),
    ("networks: [n]", "networks: {n: {labels: {com.docker.compose.project: other}}}", "what belongs to whom"),
];

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    for (field, says) in FIELDS {
        let content = format!("services:\n  web:\n    image: registry.example/app:v1\n    {field}\n");
        let body = compose(host, content.as_bytes());
        all.push(Case::new(field, Input::Operation(body), Expect::resolved("PolicyRefused", says)));
    }
    for (field, section, says) in SECTIONS {
        let content =
            format!("services:\n  web:\n    image: registry.example/app:v1\n    {field}\n{section}\n");
        let body = compose(host, content.as_bytes());
        let case = Case::new(
            format!("{field} {section}"),
            Input::Operation(body),
            Expect::resolved("PolicyRefused", says),
        );
        // A name of one letter is a drive's to compose.
        if !section.contains("{v:") {
            all.push(case);
        }
    }
    images(host, &mut all);
    by_another_way(host, &mut all);
    all
}

fn images(host: &mut Host, all: &mut Vec<Case>) {
    for (image, category, says) in [
        ("evil.example/app:v1", "PolicyRefused", "needs evil.example in allow.registries"),
        ("app:v1", "PolicyRefused", "needs docker.io in allow.registries"),
        ("registry.example.evil/app:v1", "PolicyRefused", "needs registry.example.evil in allow.registries"),
        ("localhost/app", "PolicyRefused", "needs localhost in allow.registries"),
        ("\"tenantry.local/keep/a1:x-0\"", "PolicyRefused", "kept for another release"),
        ("\"registry.example/APP\"", "ComposeInvalid", ""),
        ("\"--privileged\"", "ComposeInvalid", ""),
        ("\"${NOT_SET}\"", "ComposeInvalid", ""),
        ("\"${NOT_SET:?}\"", "ComposeInvalid", "NOT_SET"),
        ("\"registry.example/app:${NOT_SET}\"", "ComposeInvalid", ""),
    ] {
        let body = compose(host, format!("services: {{web: {{image: {image}}}}}\n").as_bytes());
        all.push(Case::new(
            format!("image {image}"),
            Input::Operation(body),
            Expect::resolved(category, says),
        ));
    }
    let body =
        compose(host, b"services: {web: {image: registry.example/app:v1, deploy: {replicas: 4000000000}}}\n");
    all.push(Case::new(
        "4,000,000,000 containers",
        Input::Operation(body),
        Expect::resolved("PolicyRefused", "containers"),
    ));
    let body = compose(host, b"services: {web: {image: registry.example/app:v1, scale: 5000}}\n");
    all.push(Case::new(
        "5,000 containers",
        Input::Operation(body),
        Expect::resolved("PolicyRefused", "containers"),
    ));
}

/// The same by an included file, an extended one, an override, and a profile.
fn by_another_way(host: &mut Host, all: &mut Vec<Case>) {
    let web = "services: {web: {image: registry.example/app:v1}}\n";
    let bad = "services: {bad: {image: registry.example/app:v1, privileged: true}}\n";
    for (what, first, path, second) in [
        ("an included file", format!("include: [sub/a.yml]\n{web}"), "sub/a.yml", bad),
        ("an override", web.to_owned(), "docker-compose.override.yml", bad),
        (
            "an extended service",
            "services: {web: {extends: {file: sub/b.yml, service: bad}}}\n".to_owned(),
            "sub/b.yml",
            bad,
        ),
    ] {
        let mut body = compose(host, first.as_bytes());
        manage(&mut body, path, second.as_bytes());
        all.push(Case::new(what, Input::Operation(body), Expect::resolved("PolicyRefused", "Privileged")));
    }
    let mut body = compose(host, format!("include: [sub/c.yml]\n{web}").as_bytes());
    manage(
        &mut body,
        "sub/c.yml",
        b"services: {c: {image: registry.example/app:v1, volumes: [../../../../../../etc:/e]}}\n",
    );
    all.push(Case::new(
        "an included file climbs",
        Input::Operation(body),
        Expect::resolved("PolicyRefused", ""),
    ));
    let anchors = b"x-a: &x {privileged: true}\nservices: {web: {<<: *x, image: registry.example/app:v1}}\n";
    let body = compose(host, anchors);
    all.push(Case::new("an anchor", Input::Operation(body), Expect::resolved("PolicyRefused", "Privileged")));
    let two = b"services: {web: {image: registry.example/app:v1}}\n---\nservices: {web: {pid: host}}\n";
    let body = compose(host, two);
    all.push(Case::new(
        "a second document",
        Input::Operation(body),
        Expect::resolved("PolicyRefused", "HostPid"),
    ));
}
