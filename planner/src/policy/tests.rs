use serde_json::{Value, json};

use super::*;
use crate::model::Model;

const DIRECTORY: &str = "/srv/acme";

fn policy() -> Policy {
    Policy {
        sockets: vec!["/var/run/docker.sock".to_owned(), "/run/docker.sock".to_owned()],
        private: vec!["/var/lib/tenantry".to_owned()],
        ..Policy::default()
    }
}

fn read(document: &Value) -> Model {
    Model::parse(document.to_string().as_bytes(), DIRECTORY, DIRECTORY).unwrap()
}

/// A model whose one service has these fields.
fn service(fields: &Value) -> Model {
    let mut service = json!({"image": "x", "command": null, "networks": {"default": null}});
    for (key, value) in fields.as_object().unwrap() {
        service[key] = value.clone();
    }
    read(&json!({"name": "acme", "services": {"web": service}}))
}

fn shown(model: &Model, policy: &Policy) -> Vec<String> {
    violations(model, DIRECTORY, policy).iter().map(ToString::to_string).collect()
}

fn allowing(feature: Feature) -> Policy {
    Policy { features: vec![feature], ..policy() }
}

#[test]
fn p13_every_dangerous_field_is_refused_and_granted_by_its_name_alone() {
    use Feature::*;
    let cases = [
        (Privileged, json!({"privileged": true})),
        (Privileged, json!({"post_start": [{"command": ["x"]}, {"command": ["x"], "privileged": true}]})),
        (Privileged, json!({"pre_stop": [{"command": ["x"], "privileged": true}]})),
        (HostNetwork, json!({"network_mode": "host"})),
        (HostPid, json!({"pid": "host"})),
        (HostPid, json!({"pid": "anything"})),
        (HostIpc, json!({"ipc": "host"})),
        (HostUts, json!({"uts": "host"})),
        (HostUserns, json!({"userns_mode": "host"})),
        (HostCgroup, json!({"cgroup": "host"})),
        (HostCgroup, json!({"cgroup_parent": "/system.slice"})),
        (DockerSocket, json!({"use_api_socket": true})),
        (Devices, json!({"devices": [{"source": "/dev/sda"}]})),
        (Devices, json!({"device_cgroup_rules": ["a *:* rwm"]})),
        (Devices, json!({"gpus": [{"count": -1}]})),
        (
            Devices,
            json!({"deploy": {"resources": {"reservations": {"devices": [{"capabilities": ["gpu"]}]}}}}),
        ),
        (Capabilities, json!({"cap_add": ["CHOWN", "SYS_ADMIN"]})),
        (Capabilities, json!({"cap_add": ["cap_net_admin"]})),
        (Capabilities, json!({"cap_add": ["ALL"]})),
        (SecurityOptions, json!({"security_opt": ["no-new-privileges", "seccomp=unconfined"]})),
        (SecurityOptions, json!({"security_opt": ["apparmor:unconfined"]})),
        (SecurityOptions, json!({"security_opt": ["systempaths=unconfined"]})),
        (SecurityOptions, json!({"credential_spec": {"file": "x.json"}})),
        (Sysctls, json!({"sysctls": {"kernel.core_pattern": "|/x"}})),
        (Runtimes, json!({"runtime": "sysbox"})),
        (Runtimes, json!({"annotations": {"org.systemd.property.X": "y"}})),
        (Priority, json!({"oom_kill_disable": true})),
        (Priority, json!({"oom_score_adj": -1000})),
        (Priority, json!({"cpu_rt_runtime": 950_000})),
        (ForeignContainers, json!({"network_mode": "container:other"})),
        (ForeignContainers, json!({"pid": "container:other"})),
        (ForeignContainers, json!({"volumes_from": ["db", "container:other:ro"]})),
        (ForeignContainers, json!({"external_links": ["other"]})),
        (ExternalNetworks, json!({"network_mode": "other_default"})),
        (NetworkDrivers, json!({"networks": {"default": {"driver_opts": {"a": "b"}}}})),
        (VolumeDrivers, json!({"volumes": [{"type": "npipe", "source": "x"}]})),
        (LogDrivers, json!({"logging": {"driver": "syslog", "options": {"syslog-address": "unix:///x"}}})),
        (ImageMounts, json!({"volumes": [{"type": "image", "source": "evil/x"}]})),
        (UnknownFields, json!({"some_new_thing": {"a": 1}})),
    ];
    for (feature, fields) in cases {
        let model = service(&fields);
        let refused = shown(&model, &policy());
        assert_eq!(refused.len(), 1, "{fields}: {refused:?}");
        assert!(
            refused[0].starts_with("services.web.") && refused[0].contains(&feature.to_string()),
            "{refused:?}"
        );
        assert_eq!(shown(&model, &allowing(feature)), [""; 0], "{fields}");
        let others = Feature::ALL.iter().copied().filter(|other| *other != feature).collect();
        assert_eq!(shown(&model, &Policy { features: others, ..policy() }).len(), 1, "{fields}");
    }
}

#[test]
fn p13_what_belongs_to_nobody_else_is_no_demand() {
    let model = service(&json!({
        "cap_add": ["NET_BIND_SERVICE", "CAP_CHOWN"], "cap_drop": ["ALL"], "security_opt": ["no-new-privileges:true"],
        "network_mode": "service:db", "pid": "service:db", "ipc": "shareable", "volumes_from": ["db:ro"],
        "sysctls": {"net.core.somaxconn": "1024"}, "logging": {"driver": "json-file", "options": {"max-size": "1m"}},
        "volumes": [{"type": "bind", "source": "/srv/acme/x"}, {"type": "bind", "source": "/srv/acme"},
                    {"type": "volume", "source": "data"}, {"type": "tmpfs", "target": "/t"}],
        "env_file": [{"path": "/srv/acme/.env"}], "oom_score_adj": 500, "x-mine": 1, "privileged": false,
        "deploy": {"replicas": 2, "resources": {"limits": {"cpus": "1"}}}, "labels": {"traefik.enable": "true"},
        "post_start": [{"command": ["x"], "user": "root"}], "runtime": "runc", "devices": [], "use_api_socket": false,
    }));
    assert_eq!(shown(&model, &policy()), [""; 0]);
}

#[test]
fn p13_host_paths_are_mounted_only_from_the_directory_or_where_a_person_allowed_it() {
    let mount = |path: &str, read_only| AllowedMount { path: path.to_owned(), read_only };
    let policy = Policy { mounts: vec![mount("/mnt/media", false), mount("/etc/ssl", true)], ..policy() };
    let bind = |source: &str, read_only: bool| {
        let model =
            service(&json!({"volumes": [{"type": "bind", "source": source, "read_only": read_only}]}));
        shown(&model, &policy)
    };
    for (source, read_only) in
        [("/srv/acme/data", false), ("/mnt/media", false), ("/mnt/media/a", false), ("/etc/ssl/certs", true)]
    {
        assert_eq!(bind(source, read_only), [""; 0], "{source}");
    }
    for (source, why) in [
        ("/", "holds"),
        ("/etc", "not in the tenant's directory"),
        ("/etc/ssl", "read-write"),
        ("/srv", "not in the tenant's directory"),
        ("/srv/acme2", "not in the tenant's directory"),
        ("/mnt/media2", "not in the tenant's directory"),
        ("/srv/acme/../other", "/srv/other is not in the tenant's directory"),
        ("relative", "not a plain absolute path"),
        ("/srv/acme/.tenantry", "agent's own folder"),
        ("/srv/acme/.tenantry/restore/x", "agent's own folder"),
        ("/var/lib/tenantry", "agent's own files"),
        ("/var/lib/tenantry/tenants/x", "agent's own files"),
        ("/var/lib", "agent's own files"),
        ("/var/run/docker.sock", "DockerSocket"),
        ("/etc/localtime", "read-write"),
        ("/mnt/a:b", "a path with ':' can't be allowed"),
        ("", "not a plain absolute path"),
    ] {
        let refused = bind(source, false);
        assert!(refused.len() == 1 && refused[0].contains(why), "{source}: {refused:?}");
        assert!(refused[0].starts_with("services.web.volumes[0].source"), "{refused:?}");
    }
}

#[test]
fn p13_the_engines_socket_is_its_own_feature_and_a_folder_with_it_needs_both() {
    let bind = |source: &str, policy: &Policy| {
        shown(&service(&json!({"volumes": [{"type": "bind", "source": source}]})), policy)
    };
    let socket = allowing(Feature::DockerSocket);
    assert_eq!(bind("/var/run/docker.sock", &socket), [""; 0]);
    assert!(bind("/var/run", &socket)[0].contains("allow.mounts"));
    let run = AllowedMount { path: "/var/run".to_owned(), read_only: false };
    assert_eq!(bind("/var/run", &Policy { mounts: vec![run.clone()], ..socket }), [""; 0]);
    assert!(bind("/var/run", &Policy { mounts: vec![run], ..policy() })[0].contains("DockerSocket"));
    for folder in ["/var/run", "/run"] {
        let both = bind(folder, &policy());
        assert!(both[0].contains("DockerSocket") && both[1].contains("allow.mounts"), "{both:?}");
    }
}

#[test]
fn a_path_is_judged_without_what_says_nothing_and_by_where_its_dots_lead() {
    let mounts = vec![AllowedMount { path: "/srv/x".to_owned(), read_only: false }];
    let bind = |source: &str| {
        let model = service(&json!({"volumes": [{"type": "bind", "source": source}]}));
        assert!(model.services.values().all(|one| !one.binds[0].source.ends_with('/')), "{source}");
        shown(&model, &Policy { mounts: mounts.clone(), ..policy() })
    };
    for good in
        ["/srv/x/data/", "/srv/x//.n8n", "/srv/x/", "//srv/./acme//", "/srv/acme/a/../b", "/srv/acme/../x/y"]
    {
        assert_eq!(bind(good), [""; 0], "{good}");
    }
    for bad in ["/srv/x/../y/", "/srv/acme//.tenantry/", "/srv/acme/../acme/.tenantry", "/srv/xy//"] {
        assert_eq!(bind(bad).len(), 1, "{bad}");
    }
}

#[test]
fn the_hosts_time_is_ordinary_while_it_is_only_read() {
    let bind = |source: &str, read_only: bool| {
        let fields = json!({"volumes": [{"type": "bind", "source": source, "read_only": read_only}]});
        shown(&service(&fields), &policy()).len()
    };
    for source in
        ["/etc/localtime", "/etc/timezone", "/usr/share/zoneinfo", "/usr/share/zoneinfo/Europe/Berlin"]
    {
        assert_eq!((bind(source, true), bind(source, false)), (0, 1), "{source}");
    }
    assert_eq!((bind("/etc", true), bind("/etc/localtime2", true)), (1, 1));
    let led = |source: &str, real: &str, read_only| {
        policy().led_to(DIRECTORY, source, real, read_only, false).len()
    };
    assert_eq!(led("/etc/localtime", "/nix/store/tz/Berlin", true), 0);
    assert_eq!(led("/etc/localtime", "/nix/store/tz/Berlin", false), 1);
    assert_eq!(
        led("/srv/acme/time", "/nix/store/tz/Berlin", true),
        1,
        "the compose file does not call it the time"
    );
    assert_eq!(led("/etc/localtime", "/var/lib/tenantry/key", true), 1);
    assert_eq!(led("/etc/localtime", "/run/docker.sock", true), 1);
}

#[test]
fn p13_an_environment_file_elsewhere_is_seen_by_containers_as_a_mount_is() {
    let of = |path: &str, policy: &Policy| shown(&service(&json!({"env_file": [{"path": path}]})), policy);
    assert_eq!(of("/srv/acme/x.env", &policy()), [""; 0]);
    let refused = of("/srv/acme/../.env", &policy());
    assert!(refused[0].ends_with("(needs /srv/.env:ro in allow.mounts)"), "{refused:?}");
    let granted = |path: &str| {
        let mounts = vec![AllowedMount { path: path.to_owned(), read_only: true }];
        Policy { mounts, ..policy() }
    };
    assert_eq!(of("/srv/.env", &granted("/srv/.env")), [""; 0]);
    assert_eq!(of("/srv/.env", &granted("/srv")), [""; 0]);
    assert_eq!(of("/etc/shadow", &granted("/srv")).len(), 1);
    // Neither the agent's own files nor what it keeps for a tenant, whatever is granted.
    for own in ["/var/lib/tenantry/key", "/srv/acme/.tenantry/restore/x/.env"] {
        let all = Policy { features: Feature::ALL.to_vec(), ..granted("/var/lib") };
        assert_eq!(of(own, &all).len(), 1, "{own}");
    }
}

#[test]
fn p13_all_files_and_other_labels_are_granted_by_words_of_their_own() {
    let bind = |source: &str, read_only: bool, policy: &Policy| {
        let fields = json!({"volumes": [{"type": "bind", "source": source, "read_only": read_only}]});
        shown(&service(&fields), policy)
    };
    assert!(bind("/", true, &policy())[0].ends_with("(needs HostFiles in allow.compose)"));
    assert_eq!(bind("/", true, &allowing(Feature::HostFiles)), [""; 0]);
    assert_eq!(bind("/", false, &allowing(Feature::HostFiles)).len(), 1, "never read-write");
    assert_eq!(bind("/etc", true, &allowing(Feature::HostFiles)).len(), 1, "it stands for / alone");

    let labels = |source: &str, read_only: bool, policy: &Policy| {
        let volume =
            json!({"type": "bind", "source": source, "read_only": read_only, "bind": {"selinux": "z"}});
        shown(&service(&json!({"volumes": [volume]})), policy)
    };
    let mounts = vec![AllowedMount { path: "/srv/media".to_owned(), read_only: false }];
    let media = Policy { mounts, ..policy() };
    assert_eq!(labels("/srv/acme/data", false, &policy()), [""; 0]);
    assert!(labels("/srv/media", false, &media)[0].ends_with("(needs Relabelling in allow.compose)"));
    let both = Policy { features: vec![Feature::Relabelling], ..media };
    assert_eq!(labels("/srv/media", false, &both), [""; 0]);
    assert_eq!(labels("/srv/media", false, &policy()).len(), 2, "both are told at once");
    assert_eq!(labels("/", true, &Policy { features: Feature::ALL.to_vec(), ..policy() }).len(), 1);
}

#[test]
fn a_volume_that_binds_a_path_goes_to_the_kernel_as_it_is_written() {
    let options = |device: &str| {
        let volume = json!({"driver_opts": {"type": "none", "o": "bind", "device": device}});
        shown(&read(&json!({"name": "acme", "services": {}, "volumes": {"v": volume}})), &policy())
    };
    assert_eq!(options("/srv/acme//data/"), [""; 0]);
    assert!(options("/srv/acme/link/../data")[0].contains("'..'"));
}

#[test]
fn an_agent_inside_a_project_mounts_its_own_files_where_a_person_names_them() {
    let bind = |source: &str, allowed: &str| {
        let mounts = vec![AllowedMount { path: allowed.to_owned(), read_only: false }];
        shown(
            &service(&json!({"volumes": [{"type": "bind", "source": source}]})),
            &Policy { mounts, ..policy() },
        )
    };
    assert_eq!(bind("/var/lib/tenantry", "/var/lib/tenantry"), [""; 0]);
    assert_eq!(bind("/var/lib/tenantry", "/var/lib").len(), 1, "allowed by accident only");
    assert_eq!(bind("/var/lib", "/var/lib/tenantry").len(), 1);
}

#[test]
fn p13_volumes_networks_configs_and_secrets_have_demands_of_their_own() {
    use Feature::*;
    let with = |fields: Value| {
        let mut document = json!({"name": "acme", "services": {"web": {"image": "x"}}});
        for (key, value) in fields.as_object().unwrap() {
            document[key] = value.clone();
        }
        read(&document)
    };
    let cases = [
        (Some(VolumeDrivers), json!({"volumes": {"v": {"name": "acme_v", "driver": "nfs"}}})),
        (
            Some(VolumeDrivers),
            json!({"volumes": {"v": {"driver_opts": {"type": "nfs", "o": "addr=1.2.3.4", "device": ":/"}}}}),
        ),
        (
            Some(VolumeDrivers),
            json!({"volumes": {"v": {"driver_opts": {"type": "ext4", "device": "/dev/sda1"}}}}),
        ),
        (
            Some(VolumeDrivers),
            json!({"volumes": {"v": {"driver_opts": {"type": "overlay", "o": "lowerdir=/", "device": "x"}}}}),
        ),
        (None, json!({"volumes": {"v": {"driver_opts": {"type": "none", "o": "bind", "device": "/"}}}})),
        (None, json!({"volumes": {"v": {"driver_opts": {"o": "rw,rbind", "device": "/etc"}}}})),
        (Some(ExternalVolumes), json!({"volumes": {"v": {"name": "other_v", "external": true}}})),
        (Some(ExternalNetworks), json!({"networks": {"n": {"name": "other", "external": true}}})),
        (Some(HostNetwork), json!({"networks": {"n": {"name": "host"}}})),
        (Some(HostNetwork), json!({"networks": {"n": {"name": "n", "driver": "host"}}})),
        (Some(NetworkDrivers), json!({"networks": {"n": {"driver": "macvlan"}}})),
        (
            Some(NetworkDrivers),
            json!({"networks": {"n": {"driver_opts": {"com.docker.network.bridge.name": "br0"}}}}),
        ),
        (Some(NetworkDrivers), json!({"networks": {"n": {"ipam": {"driver": "dhcp"}}}})),
        (None, json!({"configs": {"c": {"file": "/etc/shadow"}}})),
        (None, json!({"secrets": {"s": {"file": "/root/.ssh/id_rsa"}}})),
        (None, json!({"models": {"m": {"model": "x"}}})),
        (None, json!({"networks": {"n": {"labels": {"com.docker.compose.project": "other"}}}})),
        (None, json!({"volumes": {"n": {"labels": {"com.docker.compose.project": "other"}}}})),
        (Some(UnknownFields), json!({"some_new_section": {}})),
        (Some(UnknownFields), json!({"volumes": {"v": {"cluster": {"a": 1}}}})),
    ];
    for (feature, fields) in cases {
        let model = with(fields.clone());
        let refused = shown(&model, &policy());
        assert_eq!(refused.len(), 1, "{fields}: {refused:?}");
        let all = Policy { features: Feature::ALL.to_vec(), ..policy() };
        assert_eq!(shown(&model, &all).len(), usize::from(feature.is_none()), "{fields}");
        if let Some(feature) = feature {
            assert_eq!(shown(&model, &allowing(feature)), [""; 0], "{fields}");
        }
    }
    let good = with(json!({
        "volumes": {"v": {"name": "acme_v", "driver": "local"}, "t": {"driver_opts": {"type": "tmpfs", "device": "tmpfs", "o": "size=1m"}},
                    "b": {"driver_opts": {"type": "none", "o": "bind", "device": "/srv/acme/data"}}},
        "networks": {"default": {"name": "acme_default", "ipam": {}}, "n": {"driver": "bridge", "internal": true,
                     "driver_opts": {"com.docker.network.driver.mtu": "1400"}}},
        "configs": {"c": {"name": "acme_c", "file": "/srv/acme/c"}, "d": {"content": "x"}}, "x-mine": {}
    }));
    assert_eq!(shown(&good, &policy()), [""; 0]);
}

#[test]
fn p13_some_things_no_policy_grants() {
    let all = Policy { features: Feature::ALL.to_vec(), ..policy() };
    for fields in [
        json!({"provider": {"type": "sh"}}),
        json!({"models": {"m": null}}),
        json!({"labels": {"com.docker.compose.project": "other"}}),
        json!({"labels": ["com.docker.compose.oneoff=True"]}),
        json!({"image": "tenantry.local/keep/a1:x-0"}),
        json!({"env_file": [{"path": "/etc/shadow"}]}),
        json!({"env_file": ["/srv/acme/.tenantry/x"]}),
    ] {
        assert_eq!(shown(&service(&fields), &all).len(), 1, "{fields}");
    }
}

#[test]
fn p15_services_and_containers_are_counted() {
    let many = |n: usize, replicas: u64| {
        let service = json!({"image": "x", "deploy": {"replicas": replicas}});
        let services: serde_json::Map<String, Value> =
            (0..n).map(|n| (format!("s{n}"), service.clone())).collect();
        shown(&read(&json!({"name": "acme", "services": services})), &policy())
    };
    assert_eq!(many(MAX_SERVICES, 1), [""; 0]);
    assert!(many(10_000, 1)[0].contains("at most 1000"));
    assert!(many(2, u64::from(u32::MAX))[0].contains("at most 2000"));
}

#[test]
fn p13_a_policy_file_lists_features_by_their_names() {
    for feature in Feature::ALL {
        assert_eq!(Feature::parse(&feature.to_string()), Some(*feature));
    }
    assert_eq!(Feature::parse("privileged"), None);
}
