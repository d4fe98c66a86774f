//! What compose and the engine say when they can't start a release, as a table: what it means, and what to do.
//!
//! Of what was said only names and numbers get into our own sentence: it may quote values of `.env`.

use tenantry_protocol::FailureCategory;

use super::explain::{Explained, after, first_name};

/// A kind of complaint.
struct Row {
    /// It is meant where the line, in lower case, contains all words of one of these.
    says: &'static [&'static [&'static str]],
    category: FailureCategory,
    /// What is wrong and what to do; `{}` is what `about` finds.
    sentence: &'static str,
    about: About,
}

/// What of a line is told.
enum About {
    Nothing,
    /// The port that is in use, else "a port".
    Port,
    /// What stands behind the first of these, in quotes or not; else the second text.
    Behind(&'static [&'static str], &'static str),
}

use About::{Behind, Nothing, Port};
use FailureCategory::{DiskFull, EngineFault, ImageNotFound, PortInUse, RegistryRefused, StartFailed};

/// Read from the top: the first row that fits is meant.
const ROWS: &[Row] = &[
    Row {
        says: &[&["declared as external", "could not be found"], &["external network", "not found"]],
        category: StartFailed,
        sentence: "the external network {} is not on this host: make it with `docker network create`, or correct its name in \
                   the compose file",
        about: Behind(&["network "], "of the compose file"),
    },
    Row {
        says: &[&["external volume", "not found"]],
        category: StartFailed,
        sentence: "the external volume {} is not on this host: make it with `docker volume create`, or correct its name in \
                   the compose file",
        about: Behind(&["external volume "], "of the compose file"),
    },
    Row {
        says: &[
            &["pool overlaps"],
            &["network", "overlaps", "address"],
            &["conflicts with network", "same bridge"],
        ],
        category: StartFailed,
        sentence: "the subnet of network {} overlaps with another network on this host: choose another `subnet`, or remove \
                   the other network; every network's subnet is shown by `docker network inspect -f '{{.Name}} {{.IPAM.Config}}' \
                   $(docker network ls -q)`",
        about: Behind(&["failed to create network "], "of the compose file"),
    },
    Row {
        says: &[&["fully subnetted"], &["non-overlapping", "address pool"], &["no available network"]],
        category: StartFailed,
        sentence: "the engine has no free address pool for network {}: remove unused networks with `docker network prune`, \
                   or give the engine more `default-address-pools`",
        about: Behind(&["failed to create network "], "of the compose file"),
    },
    Row {
        says: &[&["no available ip"], &["no available ipv4 addresses"]],
        category: StartFailed,
        sentence: "the network's address pool is used up: give it a larger `subnet`",
        about: Nothing,
    },
    Row {
        says: &[
            &["port is already allocated"],
            &["bind: address already in use"],
            &["userland proxy", "address already in use"],
            &["external connectivity", "address already in use"],
            &["failed to bind host port", "in use"],
            &["ports are not available", "in use"],
            &["only one usage of each socket address"],
        ],
        category: PortInUse,
        sentence: "{} is in use by another container or program on this host: end that (`ss -ltnp` shows it), or publish \
                   another port",
        about: Port,
    },
    Row {
        says: &[&["cannot assign requested address"]],
        category: StartFailed,
        sentence: "{} can't be published: the address that the compose file gives is none of this host's",
        about: Port,
    },
    Row {
        // Of an address that is taken for a port the row above has told.
        says: &[
            &["address already in use"],
            &["ip address", "already in use"],
            &["requested ip", "allocated"],
        ],
        category: StartFailed,
        sentence: "a fixed address of the compose file is in use by another container",
        about: Nothing,
    },
    Row {
        says: &[&["is paused"], &["container is paused"]],
        category: StartFailed,
        sentence: "container {} is paused: `docker unpause` it, then retry",
        about: Behind(&["container "], "of the project"),
    },
    Row {
        says: &[&["start_interval", "start_period"]],
        category: StartFailed,
        sentence: "a healthcheck sets start_interval without start_period: set both",
        about: Nothing,
    },
    Row {
        says: &[&["requires docker engine"], &["require docker engine"]],
        category: StartFailed,
        sentence: "the compose file uses {}, which needs a newer Docker Engine than this host has: update the engine, or \
                   take it out",
        about: Behind(&["can't set "], "a feature"),
    },
    Row {
        says: &[&["error setting rlimit"], &["ulimit soft limit must be"]],
        category: StartFailed,
        sentence: "a limit under `ulimits` can't be set on this host (error setting rlimits): lower it, or raise the \
                   engine's own",
        about: Nothing,
    },
    Row {
        says: &[&["is already in use by container"]],
        category: StartFailed,
        sentence: "the container name {} is in use by a container that is not this service's: remove or rename that one \
                   (`docker ps -a`)",
        about: Behind(&["container name "], "of a service"),
    },
    Row {
        says: &[
            &["cannot allocate memory"],
            &["not enough memory"],
            &["out of memory"],
            &["minimum memory limit"],
        ],
        category: StartFailed,
        sentence: "there is not enough memory for a container, or its `mem_limit` is too low: free some (`free -m`), or \
                   change the limit",
        about: Nothing,
    },
    Row {
        says: &[&["no space left on device"], &["disk quota exceeded"]],
        category: DiskFull,
        sentence: "no space left on the engine's disk: make room (`docker system df`)",
        about: Nothing,
    },
    Row {
        says: &[&["toomanyrequests"], &["rate limit"]],
        category: RegistryRefused,
        sentence: "the registry's pull rate limit is reached: log in on the host (`docker login`), or wait",
        about: Nothing,
    },
    Row {
        says: &[
            &["manifest unknown"],
            &["not found: manifest"],
            &["no matching manifest"],
            &["manifest for", "not found"],
        ],
        category: ImageNotFound,
        sentence: "the registry has no such image, or none for this host's architecture: correct the tag, or push it",
        about: Nothing,
    },
    Row {
        says: &[&["no such image"], &["pull access denied"]],
        category: StartFailed,
        sentence: "an image that a service needs is not on this host any more: somebody has removed it; retry pulls it again",
        about: Nothing,
    },
    Row {
        says: &[&["unknown or invalid runtime"], &["unknown runtime"]],
        category: StartFailed,
        sentence: "the engine knows no runtime {}: install it on the host, or correct `runtime`",
        about: Behind(&["runtime name: ", "runtime specified ", "runtime "], "of that name"),
    },
    Row {
        says: &[&["could not select device driver"]],
        category: StartFailed,
        sentence: "the engine has no driver for the devices (GPU) that a service asks for: install its container toolkit",
        about: Nothing,
    },
    Row {
        says: &[&["error gathering device information"]],
        category: StartFailed,
        sentence: "a device that a service asks for is not on this host: see `devices` in the compose file",
        about: Nothing,
    },
    Row {
        says: &[&["bind source path does not exist"]],
        category: StartFailed,
        sentence: "a path on the host that a service mounts does not exist: make it, or correct `volumes`",
        about: Nothing,
    },
    Row {
        says: &[
            &["trying to mount a directory onto a file"],
            &["mount", "not a directory"],
            &["are you trying to mount"],
        ],
        category: StartFailed,
        sentence: "a service mounts a directory where its image has a file, or the other way round; mostly the file was \
                   missing on the host and the engine made a directory of its name: remove that, and put the file there",
        about: Nothing,
    },
    Row {
        says: &[&["error mounting", "permission denied"], &["mounting", "operation not permitted"]],
        category: StartFailed,
        sentence: "the engine may not mount a path for a service: permission denied; see the rights of what it mounts",
        about: Nothing,
    },
    Row {
        says: &[&["failed to mount local volume"], &["error while mounting volume"]],
        category: StartFailed,
        sentence: "a volume can't be mounted: its device, directory or server is not there; see its `driver_opts`",
        about: Nothing,
    },
    Row {
        says: &[
            &["setting cgroup config"],
            &["unable to apply cgroup configuration"],
            &["failed to write", "/sys/fs/cgroup/"],
            &["cgroup mountpoint does not exist"],
        ],
        category: StartFailed,
        sentence: "the host's kernel refused a container's cgroup settings: see cpu, memory and pid limits in the compose \
                   file, and the host's cgroup version",
        about: Nothing,
    },
    Row {
        says: &[&["executable file not found"], &["exec", "no such file or directory"]],
        category: StartFailed,
        sentence: "a container could not be started: executable file not found in its image; see `command` and `entrypoint`",
        about: Nothing,
    },
    Row {
        says: &[&["exec format error"]],
        category: StartFailed,
        sentence: "a container could not be started: its image is for another processor than this host's",
        about: Nothing,
    },
    Row {
        says: &[
            &["cannot connect to the docker daemon"],
            &["error during connect"],
            &["docker daemon is not running"],
        ],
        category: EngineFault,
        sentence: "the Docker engine does not answer",
        about: Nothing,
    },
    Row {
        says: &[
            &["oci runtime create failed", "permission denied"],
            &["failed to create task", "permission denied"],
        ],
        category: StartFailed,
        sentence: "a container could not be started: permission denied; its program or a mount may not be used so",
        about: Nothing,
    },
    Row {
        says: &[
            &["cannot share ", "container missing"],
            &["joining network namespace"],
            &["cannot join network"],
        ],
        category: StartFailed,
        sentence: "a service shares the network, ipc or pid namespace of a container that is gone or does not run",
        about: Nothing,
    },
    Row {
        says: &[
            &["unknown log opt"],
            &["unknown option"],
            &["invalid option"],
            &["invalid argument"],
            &["invalid reference format"],
            &["unsupported external"],
            &["does not support"],
            &["invalid mount config"],
            &["invalid capability"],
            &["unknown logging driver"],
            &["logger: no log driver named"],
        ],
        category: StartFailed,
        sentence: "the engine does not take an option of the compose file",
        about: Nothing,
    },
];

/// What a line means, if it is one that is known. Rows whose sentence leaves the matter open have the line quoted by the caller.
pub(super) fn meaning(line: &str) -> Option<(Explained, bool)> {
    let lower = line.to_lowercase();
    let fits = |row: &&Row| row.says.iter().any(|all| all.iter().all(|words| lower.contains(words)));
    let row = ROWS.iter().find(fits)?;
    let about = match row.about {
        Nothing => String::new(),
        Port => port(line).map_or_else(|| "a port".to_owned(), |port| format!("port {port}")),
        Behind(marks, else_) => {
            let found = marks.iter().find_map(|mark| behind(line, mark));
            found.unwrap_or(else_).to_owned()
        }
    };
    let open = row.sentence.ends_with("an option of the compose file");
    Some((Explained::new(row.category, row.sentence.replace("{}", &about)), open))
}

/// The name that stands behind a mark, in whatever letters that is written.
fn behind<'a>(line: &'a str, mark: &str) -> Option<&'a str> {
    let at = line.to_ascii_lowercase().find(mark)?;
    let rest = after(&line[at..], &line[at..at + mark.len()])?;
    first_name(rest.trim_start_matches(['"', '\'', '/', '\\']))
}

/// `0.0.0.0:8080`, `[::]:8080`, `:::8080` and `0.0.0.0:8080:172.18.0.2:80/tcp` all publish 8080.
fn port(line: &str) -> Option<u16> {
    line.split([' ', '/', ',']).find_map(|word| {
        let word = word.trim_end_matches([':', '.']);
        let word = word.strip_prefix("tcp").unwrap_or(word);
        let address = word.rsplit_once("]:").map(|(_, rest)| rest).or_else(|| {
            let start = word.find(|letter: char| letter.is_ascii_digit() || letter == ':')?;
            (start == 0).then_some(word)?.split_once(':').map(|(_, rest)| rest.trim_start_matches(':'))
        })?;
        address.split(':').next()?.parse().ok().filter(|port| *port > 0)
    })
}

#[cfg(test)]
mod tests;
