//! Variables that steer compose, values that `.env` can't hold, and files that compose can't read.

use serde_json::json;

use super::{Case, Expect, Input, with};
use crate::hostile::host::{Host, manage};

pub fn cases(host: &mut Host) -> Vec<Case> {
    let mut all = Vec::new();
    let steering = [
        "COMPOSE_FILE",
        "COMPOSE_PROJECT_NAME",
        "COMPOSE_PROFILES",
        "COMPOSE_ENV_FILES",
        "COMPOSE_REMOVE_ORPHANS",
        "COMPOSE_EXPERIMENTAL",
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "DOCKER_CONTEXT",
        "DOCKER_TLS_VERIFY",
        "DOCKER_BUILDKIT",
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "LD_AUDIT",
        "PATH",
        "HOME",
    ];
    for name in steering {
        let body = with(host, "/manifest/env/patch/0/name", json!(name));
        all.push(Case::new(format!("patch {name}"), Input::Operation(body), Expect::invalid("manifest.env")));
    }
    let whole = [
        "DOCKER_HOST",
        "DOCKER_CONFIG",
        "DOCKER_CONTEXT",
        "DOCKER_CERT_PATH",
        "DOCKER_TLS_VERIFY",
        "COMPOSE_ENV_FILES",
        "COMPOSE_DISABLE_ENV_FILE",
        "COMPOSE_EXPERIMENTAL_GIT_REMOTE",
        "LD_PRELOAD",
        "LD_AUDIT",
        "PATH",
        "HOME",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_GLOBAL",
        "SSH_AUTH_SOCK",
        "SSH_ASKPASS",
    ];
    for (n, name) in whole.into_iter().enumerate() {
        let line = ["{}=x\n", "export {}='x'\n", "  {} = x\n", "A=1\n{}: x\n"][n % 4].replace("{}", name);
        all.push(managed(host, &format!("managed {name}"), line.as_bytes(), Expect::policy("contents[1]")));
    }
    let unreadable: [&[u8]; 4] = [
        b"A='never closed
",
        b"A=\"never closed
",
        b"A B=x
",
        b"A='x

B=1
",
    ];
    for content in unreadable {
        let name = format!("unreadable {:?}", String::from_utf8_lossy(content));
        all.push(managed(host, &name, content, Expect::invalid("contents[1]")));
    }
    // These only compose itself can judge, for they depend on other variables.
    for content in [&b"IMAGE_TAG=v1\nA=${X\n"[..], b"IMAGE_TAG=v1\nA=\"${\"\n", b"IMAGE_TAG=v1\nA=${X:?}\n"] {
        let name = format!("unreadable {:?}", String::from_utf8_lossy(content));
        all.push(managed(host, &name, content, Expect::resolved("ComposeInvalid", "")));
    }
    values(host, &mut all);
    choosing(host, &mut all);
    all
}

/// A `.env` that the operator brings whole.
fn managed(host: &mut Host, name: &str, content: &[u8], expect: Expect) -> Case {
    let mut body = with(host, "/manifest/env", json!({"ownership": "managed"}));
    manage(&mut body, ".env", content);
    Case::new(name, Input::Operation(body), expect)
}

/// Values that can't be written so that compose reads them back.
fn values(host: &mut Host, all: &mut Vec<Case>) {
    for (what, value) in [
        ("a NUL", "a\0b".to_owned()),
        ("a NUL alone", "\0".to_owned()),
        ("a NUL at the end", "abc\0".to_owned()),
        ("1 MiB", "x".repeat(1024 * 1024)),
        ("just too long", "x".repeat(64 * 1024 + 1)),
    ] {
        let body = with(host, "/manifest/env/patch/0/value", json!(value));
        let expect = Expect::unseen("EnvUnrepresentable", "IMAGE_TAG");
        all.push(Case::new(what, Input::Operation(body), expect));
    }
    let twice = json!([{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]);
    let body = with(host, "/manifest/env/patch", twice);
    all.push(Case::new(
        "twice",
        Input::Operation(body),
        Expect::unseen("EnvUnrepresentable", "A is to be set twice"),
    ));
    // A tag that no image reference can hold arrives in the model.
    for tag in [
        "a b",
        "--privileged",
        "-x",
        "$(id)",
        "a/b",
        "a\nb",
        "a:b",
        "@sha256:x",
        "é",
        &"t".repeat(300),
        "a'b",
        "a\"b",
        "a#b",
        "a\\",
        "\u{feff}a",
        "",
    ] {
        let body = with(host, "/manifest/env/patch/0/value", json!(tag));
        let expect = Expect::resolved("ComposeInvalid", "");
        all.push(Case::new(format!("tag {tag:.20?}"), Input::Operation(body), expect));
    }
    let many: Vec<_> = (0..2_000).map(|n| json!({"name": format!("A{n}"), "value": "x"})).collect();
    let body = with(host, "/manifest/env/patch", json!(many));
    all.push(Case::new("2,000 variables", Input::Operation(body), Expect::invalid("manifest.env.patch")));
}

/// A `.env` chooses compose files: none of them outside, none by way of other variables.
fn choosing(host: &mut Host, all: &mut Vec<Case>) {
    for (files, category) in [
        ("/etc/x.yml", "PathRefused"),
        ("../x.yml", "PathRefused"),
        ("a.yml:../x.yml", "PathRefused"),
        ("https://example.org/x.yml", "PathRefused"),
        ("${X}.yml", "ComposeInvalid"),
        (".tenantry/x.yml", "PathRefused"),
        ("oci://example.org/x", "PathRefused"),
        ("~/x.yml", "PathRefused"),
        ("-", "ComposeInvalid"),
    ] {
        let content = format!("IMAGE_TAG=v1\nX=y\nCOMPOSE_FILE={files}\nCOMPOSE_PATH_SEPARATOR=;\n")
            .replace(';', if files.contains("://") { ";" } else { ":" });
        all.push(managed(
            host,
            &format!("COMPOSE_FILE={files}"),
            content.as_bytes(),
            Expect::unseen(category, ""),
        ));
    }
    // Every call of compose says the project's name itself.
    for (name, value, expect) in [
        ("COMPOSE_PROJECT_NAME", "${X}", Expect::pull()),
        ("COMPOSE_PROFILES", "${Z:?no}", Expect::unseen("ComposeInvalid", "COMPOSE_PROFILES")),
        ("COMPOSE_PATH_SEPARATOR", "${Z:?no}", Expect::unseen("ComposeInvalid", "COMPOSE_PATH_SEPARATOR")),
    ] {
        let content = format!("IMAGE_TAG=v1\nX=y\nCOMPOSE_FILE=docker-compose.yml\n{name}={value}\n");
        all.push(managed(host, &format!("{name} by a variable"), content.as_bytes(), expect));
    }
}
