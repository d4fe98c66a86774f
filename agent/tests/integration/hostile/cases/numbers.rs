//! Numbers and counts out of bounds.

use serde_json::{Value, json};

use super::{Case, Expect, Input, with};
use crate::hostile::host::Host;

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    let huge: Value = serde_json::from_str("18446744073709551616").unwrap();
    let strange = || {
        vec![
            json!(-1),
            huge.clone(),
            json!(1.5),
            json!("1"),
            json!(null),
            json!([1]),
            json!(true),
            json!(1e300),
        ]
    };
    let fields: [(&str, &str, Vec<Value>); 12] = [
        ("/epoch", "epoch", vec![json!(0)]),
        (
            "/verify/timeoutMs",
            "verify.timeoutMs",
            vec![json!(0), json!(999), json!(3_600_001), json!(i64::MAX), json!(u64::MAX)],
        ),
        ("/verify/stableForMs", "verify.stableForMs", vec![json!(600_001), json!(u64::MAX)]),
        ("/manifest/files/0/size", "manifest.files[0].size", vec![]),
        (
            "/manifest/files/0/mode",
            "manifest.files[0].mode",
            vec![json!(0o1777), json!(0o4755), json!(0o2755), json!(0o1000), json!(u32::MAX)],
        ),
        (
            "/manifest/files/0/owner",
            "manifest.files[0].owner",
            vec![
                json!({"uid": -1, "gid": 0}),
                json!({"uid": 0, "gid": 4_294_967_296_u64}),
                json!({"uid": 0}),
                json!({}),
            ],
        ),
        (
            "/verify/http",
            "verify.http[0]",
            vec![
                json!([{"url": "http://localhost/", "status": 0}]),
                json!([{"url": "http://localhost/", "status": 99}]),
                json!([{"url": "http://localhost/", "status": 600}]),
                json!([{"url": "http://localhost/", "status": 65_536}]),
                json!([{"url": "http://localhost/", "status": -1}]),
            ],
        ),
        ("/snapshot/retain", "snapshot", vec![]),
        ("/manifest/files/0/sensitive", "manifest.files[0].sensitive", vec![json!(0)]),
        ("/overwrite", "overwrite", vec![json!(1)]),
        ("/onFailure", "onFailure", vec![json!("Never"), json!("rollback")]),
        ("/approach", "approach", vec![json!("Auto"), json!("Script!"), json!("release")]),
    ];
    for (pointer, field, mut values) in fields {
        values.extend(strange());
        if pointer == "/manifest/files/0/sensitive" || pointer == "/overwrite" {
            values.retain(|value| *value != json!(true));
        }
        for value in values.into_iter().filter(|value| !(pointer.ends_with("owner") && value.is_null())) {
            let body = with(host, pointer, value.clone());
            let field = if pointer == "/snapshot/retain" { "snapshot" } else { field };
            let field = if value.is_array() && pointer == "/verify/http" { "verify.http" } else { field };
            let field = if pointer == "/verify/http" { "verify.http" } else { field };
            all.push(Case::new(format!("{field} {value}"), Input::Operation(body), Expect::invalid(field)));
        }
    }
    for retain in [json!(0), json!(21), json!(u32::MAX)] {
        let snapshot = json!({"paths": [], "volumes": [], "consistency": "Live", "retain": retain});
        let body = with(host, "/snapshot", snapshot);
        all.push(Case::new(
            format!("retain {retain}"),
            Input::Operation(body),
            Expect::invalid("snapshot.retain"),
        ));
    }
    urls(host, &mut all);
    addresses(host, &mut all);
    commands(host, &mut all);
    counts(host, &mut all);
    waits(&mut all);
    all
}

/// Probes reach this host's loopback only.
fn urls(host: &mut Host, all: &mut Vec<Case>) {
    let long = format!("http://localhost/{}", "x".repeat(3_000));
    for url in [
        "",
        "x",
        "https://localhost/",
        "file:///etc/passwd",
        "http://example.org/",
        "http://169.254.169.254/latest/meta-data/",
        "http://10.0.0.1/",
        "http://localhost.evil.example/",
        "http://localhost@evil.example/",
        "http://0.0.0.0/",
        "http://[::]/",
        "http://127.0.0.1.nip.io/",
        "gopher://localhost/",
        "unix:///var/run/docker.sock",
        "http:///x",
        "http://[::ffff:10.0.0.1]/",
        "ftp://localhost/",
        "javascript:1",
        "http://192.168.1.1:2375/containers/json",
        &long,
    ] {
        let body = with(host, "/verify/http", json!([{"url": url, "status": 200}]));
        all.push(Case::new(
            format!("probe {url:.40}"),
            Input::Operation(body),
            Expect::invalid("verify.http[0].url"),
        ));
    }
    let probe = json!({"url": "http://localhost/", "status": 200, "contains": "x".repeat(70_000)});
    let body = with(host, "/verify/http", json!([probe]));
    all.push(Case::new("a long text", Input::Operation(body), Expect::invalid("verify.http[0].contains")));
}

fn addresses(host: &mut Host, all: &mut Vec<Case>) {
    let long = "1".repeat(5_000);
    for address in [
        "",
        "localhost",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:80\0",
        "127.0.0.1:80\n",
        "10.0.0.1:80",
        "0.0.0.0:80",
        "[::]:80",
        "169.254.169.254:80",
        "127.0.0.1.nip.io:80",
        "localhost.evil.example:80",
        "http://localhost:80",
        "/var/run/docker.sock",
        &long,
    ] {
        let body = with(host, "/verify/tcp", json!([{"address": address}]));
        all.push(Case::new(
            format!("address {address:.40}"),
            Input::Operation(body),
            Expect::invalid("verify.tcp[0].address"),
        ));
    }
}

/// Commands that are none, and good ones, which this host's policy does not allow.
fn commands(host: &mut Host, all: &mut Vec<Case>) {
    let probe = |service: &str, command: Value| json!([{"service": service, "command": command}]);
    for (what, command) in [
        ("no command", json!([])),
        ("no program", json!(["", "x"])),
        ("a shell's line", json!("pg_isready -q")),
        ("a NUL", json!(["id", "\0"])),
        ("5,000 bytes", json!(["id", "x".repeat(5_000)])),
        ("33 words", json!(vec!["x"; 33])),
        ("a number", json!(["sleep", 1])),
    ] {
        let body = with(host, "/verify/exec", probe("web", command));
        all.push(Case::new(what, Input::Operation(body), Expect::invalid("verify.exec[0].command")));
    }
    for service in ["", "--all", "../web", "web\0", "a b"] {
        let body = with(host, "/verify/exec", probe(service, json!(["id"])));
        let field = Expect::invalid("verify.exec[0].service");
        all.push(Case::new(format!("a command in {service:?}"), Input::Operation(body), field));
    }
    for field in ["user", "privileged", "env", "workingDir", "tty"] {
        let mut probe = probe("web", json!(["id"]));
        probe[0][field] = json!("root");
        let body = with(host, "/verify/exec", probe);
        all.push(Case::new(
            format!("a command with {field}"),
            Input::Operation(body),
            Expect::invalid("verify.exec[0]"),
        ));
    }
    for (service, command) in
        [("web", json!(["--privileged"])), ("nowhere", json!(["sh", "-c", "id; $(id)"]))]
    {
        let body = with(host, "/verify/exec", probe(service, command.clone()));
        let says = format!("a command would be run in a container of {service} (needs Exec in allow.verify)");
        all.push(Case::new(
            format!("{command} in {service}"),
            Input::Operation(body),
            Expect::resolved("PolicyRefused", says),
        ));
    }
}

/// Lists that are too long.
fn counts(host: &mut Host, all: &mut Vec<Case>) {
    let file = |n: usize| json!({"path": format!("f{n}"), "sha256": "0".repeat(64), "size": 1, "mode": 0o644, "sensitive": false});
    let of =
        |count: usize, one: &dyn Fn(usize) -> Value| Value::from((0..count).map(one).collect::<Vec<_>>());
    let lists: [(&str, &str, Value); 11] = [
        ("/manifest/files", "manifest.files", of(5_000, &file)),
        ("/manifest/protect", "manifest.protect", of(2_000, &|n| json!(format!("p{n}")))),
        ("/manifest/jobs", "manifest.jobs", of(2_000, &|n| json!(format!("j{n}")))),
        ("/manifest/onChange", "manifest.onChange", of(300, &|_| json!({"paths": ["a"], "services": ["b"]}))),
        (
            "/manifest/onChange",
            "manifest.onChange[0].paths",
            json!([{"paths": of(300, &|n| json!(format!("p{n}"))), "services": []}]),
        ),
        (
            "/manifest/onChange",
            "manifest.onChange[0].services",
            json!([{"paths": ["a"], "services": of(2_000, &|n| json!(format!("s{n}")))}]),
        ),
        (
            "/place/compose",
            "place.compose.files",
            json!({"files": of(100, &|n| json!(format!("f{n}.yml"))), "profiles": []}),
        ),
        (
            "/place/compose",
            "place.compose.profiles",
            json!({"files": [], "profiles": of(100, &|n| json!(format!("p{n}")))}),
        ),
        ("/verify/http", "verify.http", of(17, &|_| json!({"url": "http://localhost/", "status": 200}))),
        ("/verify/tcp", "verify.tcp", of(17, &|n| json!({"address": format!("localhost:{}", n + 1)}))),
        ("/verify/exec", "verify.exec", of(17, &|_| json!({"service": "web", "command": ["id"]}))),
    ];
    for (pointer, field, value) in lists {
        let body = with(host, pointer, value);
        all.push(Case::new(format!("too many {field}"), Input::Operation(body), Expect::invalid(field)));
    }
    for (what, key) in [("paths", "paths"), ("volumes", "volumes")] {
        let mut snapshot = json!({"paths": [], "volumes": [], "consistency": "Live", "retain": 5});
        snapshot[key] = of(100, &|n| json!(format!("p{n}")));
        let body = with(host, "/snapshot", snapshot);
        all.push(Case::new(
            format!("too many {what}"),
            Input::Operation(body),
            Expect::invalid(format!("snapshot.{what}")),
        ));
    }
    for (what, hash) in [("an empty hash", String::new()), ("a long hash", "x".repeat(129))] {
        let body = with(host, "/targetHash", json!(hash));
        all.push(Case::new(what, Input::Operation(body), Expect::invalid("targetHash")));
    }
    for signal in
        ["SIGKILL", "SIGTERM", "KILL", "9", "", "SIGHUP; id", "sighup", "SIGSTOP", "SIG", "SIGRTMIN+1"]
    {
        let body = with(
            host,
            "/manifest/onChange",
            json!([{"paths": ["a"], "services": ["web"], "signal": signal}]),
        );
        all.push(Case::new(
            format!("signal {signal}"),
            Input::Operation(body),
            Expect::invalid("manifest.onChange[0].signal"),
        ));
    }
}

/// How long a question may wait.
fn waits(all: &mut Vec<Case>) {
    for (query, field) in [
        ("waitSeconds=61", "waitSeconds"),
        ("waitSeconds=18446744073709551615", "waitSeconds"),
        ("waitSeconds=-1", ""),
        ("waitSeconds=1e9", ""),
        ("waitSeconds=", ""),
        ("after=-1", ""),
        ("after=x", ""),
        ("after=18446744073709551616", ""),
        ("wait=1", ""),
        ("after=1&after=2", ""),
        ("waitSeconds=1&x=2", ""),
        ("after=%00", ""),
    ] {
        let call = Input::call("GET", format!("/v1/operations/a?{query}"), "");
        all.push(Case::new(query, call, Expect::invalid(field)));
    }
}
