//! What is said of what the engine and compose refuse.

use rstest::rstest;

use super::*;

#[rstest]
#[case::external_network(
    "network shared declared as external, but could not be found",
    StartFailed,
    "external network shared "
)]
#[case::external_volume("external volume \"media\" not found", StartFailed, "external volume media ")]
#[case::overlap(
    "failed to create network acme_default: Error response from daemon: Pool overlaps with other one on this address space",
    StartFailed,
    "subnet of network acme_default"
)]
#[case::no_pool(
    "failed to create network a_b: Error response from daemon: all predefined address pools have been fully subnetted",
    StartFailed,
    "no free address pool for network a_b"
)]
#[case::no_pool_before(
    "could not find an available, non-overlapping IPv4 address pool among the defaults to assign to the network",
    StartFailed,
    "network prune"
)]
#[case::port(
    "Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint acme-web-1 (d5bd): Bind for 0.0.0.0:8080 failed: port is already allocated",
    PortInUse,
    "port 8080 is in use"
)]
#[case::port_of_a_program(
    "Error response from daemon: failed to set up container networking: driver failed programming external connectivity on endpoint WinBoat (d5bd): failed to bind host port for 0.0.0.0:7148:172.18.0.2:7149/tcp: address already in use",
    PortInUse,
    "port 7148 is in use"
)]
#[case::port_new_words(
    "failed to bind host port 127.0.0.1:8443/tcp: Address already in use",
    PortInUse,
    "port 8443 is in use"
)]
#[case::port_ipv6(
    "Error starting userland proxy: listen tcp6 [::]:53: bind: ADDRESS ALREADY IN USE",
    PortInUse,
    "port 53 is in use"
)]
#[case::port_loopback6(
    "Bind for [::1]:9000 failed: port is already allocated",
    PortInUse,
    "port 9000 is in use"
)]
#[case::fixed_address(
    "Error response from daemon: failed to set up container networking: Address already in use",
    StartFailed,
    "a fixed address of the compose file is in use"
)]
#[case::fixed_address_before(
    "Error response from daemon: Address already in use",
    StartFailed,
    "a fixed address"
)]
#[case::port_of_a_proxy(
    "driver failed programming external connectivity on endpoint a-web-1: Error starting userland proxy: listen tcp4 0.0.0.0:8081: address already in use",
    PortInUse,
    "port 8081 is in use"
)]
#[case::not_our_address(
    "listen tcp4 192.0.2.1:80: bind: cannot assign requested address",
    StartFailed,
    "port 80 can't be published"
)]
#[case::paused(
    "Error response from daemon: cannot start a paused container, Container acme-db-1 is paused",
    StartFailed,
    "is paused"
)]
#[case::start_interval(
    "can't set healthcheck.start_interval as feature require Docker Engine v25 or later",
    StartFailed,
    "healthcheck.start_interval, which needs a newer Docker Engine"
)]
#[case::start_interval_alone(
    "healthcheck.start_interval requires healthcheck.start_period to be set",
    StartFailed,
    "set both"
)]
#[case::rlimits(
    "failed to create task for container: failed to create shim task: OCI runtime create failed: runc create failed: unable to start container process: error setting rlimits for ready process: error setting rlimit type 7: operation not permitted",
    StartFailed,
    "ulimits"
)]
#[case::name(
    "Error response from daemon: Conflict. The container name \"/web\" is already in use by container \"4f2\". You have to remove (or rename) that container to be able to reuse that name.",
    StartFailed,
    "container name web "
)]
#[case::memory(
    "OCI runtime create failed: runc create failed: unable to start container process: fork/exec: cannot allocate memory",
    StartFailed,
    "not enough memory"
)]
#[case::memory_limit(
    "Error response from daemon: Minimum memory limit allowed is 6MB",
    StartFailed,
    "mem_limit"
)]
#[case::space("write /var/lib/docker/x: no space left on device hunter2", DiskFull, "no space left")]
#[case::rate("toomanyrequests: You have reached your pull rate limit.", RegistryRefused, "rate limit")]
#[case::manifest(
    "manifest for nginx:nope not found: manifest unknown: manifest unknown",
    ImageNotFound,
    "no such image"
)]
#[case::image("Error response from daemon: No such image: acme:v2", StartFailed, "not on this host any more")]
#[case::runtime(
    "Error response from daemon: unknown or invalid runtime name: nvidia",
    StartFailed,
    "runtime nvidia:"
)]
#[case::gpu("could not select device driver \"nvidia\" with capabilities: [[gpu]]", StartFailed, "GPU")]
#[case::device(
    "error gathering device information while adding custom device \"/dev/dri\": no such file or directory",
    StartFailed,
    "`devices`"
)]
#[case::bind(
    "invalid mount config for type \"bind\": bind source path does not exist: /srv/hunter2",
    StartFailed,
    "does not exist"
)]
#[case::directory_for_a_file(
    "error mounting \"/srv/x\" to rootfs at \"/etc/x\": not a directory: Are you trying to mount a directory onto a file (or vice-versa)?",
    StartFailed,
    "the file was missing"
)]
#[case::mount_denied(
    "error mounting \"/srv/x\" to rootfs at \"/x\": mount src=/srv/x: permission denied",
    StartFailed,
    "may not mount"
)]
#[case::volume(
    "failed to mount local volume: mount /srv/gone:/var/lib/docker/volumes/a/_data, flags: 0x1000: no such file or directory",
    StartFailed,
    "driver_opts"
)]
#[case::cgroup(
    "failed to write 100000: openat2 /sys/fs/cgroup/cpu.max: no such file or directory: cgroup: unknown",
    StartFailed,
    "cgroup"
)]
#[case::executable(
    "exec: \"serve\": executable file not found in $PATH",
    StartFailed,
    "executable file not found"
)]
#[case::architecture("exec /app: exec format error", StartFailed, "another processor")]
#[case::engine(
    "Cannot connect to the Docker daemon at unix:///var/run/docker.sock. Is the docker daemon running?",
    EngineFault,
    "does not answer"
)]
#[case::option(
    "Error response from daemon: unknown log opt 'hunter2' for json-file log driver",
    StartFailed,
    "an option"
)]
#[case::sharer(
    "cannot share network namespace with service vpn: container missing",
    StartFailed,
    "shares the network"
)]
fn a_known_complaint_is_told_with_what_to_do(
    #[case] line: &str,
    #[case] category: FailureCategory,
    #[case] says: &str,
) {
    let (explained, _) = meaning(line).unwrap();
    assert_eq!(explained.category, category, "{}", explained.message);
    assert!(explained.message.contains(says), "{}", explained.message);
    assert!(!explained.message.contains("hunter2"), "P12: {}", explained.message);
}

#[rstest]
#[case::a_label("Error response from daemon: network cgroup-tools is odd")]
#[case::a_name("Error response from daemon: service rlimit-exporter is odd")]
#[case::something_else("open /dev/net/tun: no such device")]
fn a_word_alone_tells_nothing(#[case] line: &str) {
    assert!(meaning(line).is_none(), "{line}");
}
