//! Paths that leave the directory, or that could be taken for another: in every field that holds one.

use serde_json::{Value, json};

use super::{Case, Expect, Input, with};
use crate::hostile::host::{Host, manage};

/// Where a path stands, how it is told, and the value with a path in it.
type Field = (&'static str, &'static str, fn(&str) -> Value);

fn bad() -> Vec<String> {
    let mut all: Vec<String> = [
        "",
        "/",
        "/etc/passwd",
        "//etc",
        "..",
        "../x",
        "../../x",
        "a/..",
        "a/../b",
        "a/../../b",
        "a/../../../etc",
        ".",
        "./a",
        "a/.",
        "a/./b",
        "a//b",
        "a/",
        "a\0b",
        "a\nb",
        "a\rb",
        "a\tb",
        "\u{7f}",
        "a\u{85}b",
        "/proc/self/root",
        "/proc/self/cwd/x",
        ".tenantry",
        ".tenantry/x",
        ".tenantry/stage/x",
        ".tenantry/restore/one/index",
        "\\\0",
        "a/\u{1b}[2J",
    ]
    .map(str::to_owned)
    .into();
    all.extend([
        "x".repeat(256),
        format!("a/{}", "x".repeat(256)),
        "x/".repeat(2_500) + "y",
        "x".repeat(5_000),
    ]);
    all
}

fn directories() -> Vec<String> {
    let mut all: Vec<String> = [
        "",
        "/",
        "srv/x",
        "./srv",
        "/srv/",
        "//srv",
        "/srv/../etc",
        "/srv//x",
        "/srv/./x",
        "/proc",
        "/proc/self/root",
        "/proc/1/root/srv",
        "/sys/fs",
        "/dev/shm/x",
        "/run/x",
        "/boot/x",
        "/srv/a\0",
        "/srv/a\nb",
        "/srv/.tenantry/../x",
        "/.tenantry",
        "~/x",
        "$HOME/x",
    ]
    .map(str::to_owned)
    .into();
    all.extend([format!("/{}", "x".repeat(300)), "/x".repeat(2_500)]);
    all
}

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    let fields: [Field; 5] = [
        ("/manifest/files/0/path", "manifest.files[0]", |path| json!(path)),
        (
            "/manifest/onChange",
            "manifest.onChange[0].paths[0]",
            |path| json!([{"paths": [path], "services": ["web"]}]),
        ),
        ("/place/compose", "place.compose.files[0]", |path| json!({"files": [path], "profiles": []})),
        (
            "/snapshot",
            "snapshot.paths[0]",
            |path| json!({"paths": [path], "volumes": [], "consistency": "Live", "retain": 5}),
        ),
        ("/contents/0/path", "contents[0]", |path| json!(path)),
    ];
    for (pointer, field, make) in fields {
        for path in bad() {
            let body = with(host, pointer, make(&path));
            all.push(Case::new(
                format!("{field} {}", shown(&path)),
                Input::Operation(body),
                Expect::invalid(field),
            ));
        }
    }
    // A trailing slash is a protected path's right.
    for path in bad().into_iter().filter(|path| path != "a/") {
        let body = with(host, "/manifest/protect/0", json!(path));
        all.push(Case::new(
            format!("protect {}", shown(&path)),
            Input::Operation(body),
            Expect::invalid("manifest.protect[0]"),
        ));
    }
    for path in directories() {
        let body = with(host, "/place/directory", json!(path));
        all.push(Case::new(
            format!("directory {}", shown(&path)),
            Input::Operation(body),
            Expect::invalid("place.directory"),
        ));
    }
    not_allowed(host, &mut all);
    collisions(host, &mut all);
    all
}

/// Well-formed, but not where tenants may live, or where the agent's own files are.
fn not_allowed(host: &mut Host, all: &mut Vec<Case>) {
    let own = |name: &str| host.path(name).display().to_string();
    let directories = [
        "/etc".to_owned(),
        "/root".to_owned(),
        "/usr/lib".to_owned(),
        own("srv2"),
        own("outside"),
        own("state"),
        own("state/tenants"),
        own("").trim_end_matches('/').to_owned(),
        "/tmp".to_owned(),
        own("srv2/acme"),
    ];
    for directory in directories {
        let body = with(host, "/place/directory", json!(directory));
        let name = format!("not allowed {directory}");
        all.push(Case::new(name, Input::Operation(body.clone()), Expect::policy("place.directory")));
        let observe = json!({"tenant": body["tenant"], "place": body["place"], "manifest": body["manifest"]});
        let call = Input::call("POST", "/v1/observe", observe.to_string());
        all.push(Case::new(format!("observe {directory}"), call, Expect::policy("place.directory")));
    }
}

/// Paths of which one would hide the other, or that touch what is the tenant's own.
fn collisions(host: &mut Host, all: &mut Vec<Case>) {
    let pairs = [
        ("a.conf", "a.conf"),
        ("a.conf", "A.conf"),
        ("caf\u{e9}", "cafe\u{301}"),
        ("\u{ff21}", "a"),
        ("x", "x/y"),
        ("x/y/z", "x"),
        ("X", "x/y"),
        ("stra\u{df}e/a", "STRA\u{df}E/a"),
        ("\u{1c4}", "\u{1c6}"),
        ("\u{212b}", "\u{e5}"),
    ];
    for (one, two) in pairs {
        let mut body = host.operation();
        manage(&mut body, one, b"1");
        manage(&mut body, two, b"2");
        let name = format!("collision {one} {two}");
        all.push(Case::new(name, Input::Operation(body), Expect::invalid("manifest.files[")));
    }
    for path in ["data", "data/keep/file", "data/keep", "data/new/deep/file", "data/x"] {
        let mut body = host.operation();
        manage(&mut body, path, b"ours");
        let expect = Expect::unseen("PathRefused", path);
        all.push(Case::new(format!("protected {path}"), Input::Operation(body), expect));
    }
}

fn shown(path: &str) -> String {
    format!("{:.40?}", path.chars().take(30).collect::<String>())
}
